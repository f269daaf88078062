"""search, similar, explain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pgvec_toolkit.cli.options import (
    Dsn,
    Json,
    Name,
    Neighbours,
    Space,
    Where,
    collection,
    connect,
    parse_filter,
    parse_json,
)
from pgvec_toolkit.cli.output import excerpt, print_json, print_table, say

if TYPE_CHECKING:
    from pgvec_toolkit.search.hit import Hits
    from pgvec_toolkit.search.options import SearchOptions

EfSearch = Annotated[int | None, typer.Option(min=1, help="Instead of the tuned setting of the index.")]
Oversampling = Annotated[
    float | None, typer.Option(help="Candidates to rescore, as a multiple of k, instead of the tuned one.")
]
Exact = Annotated[bool, typer.Option("--exact", help="Use no index.")]
WhereSql = Annotated[
    str | None,
    typer.Option(help="Condition in SQL on the chunk table d, with values as ($3 ->> 'name') from --parameters."),
]
Parameters = Annotated[str | None, typer.Option(help="Values of --where-sql, as a JSON object.")]
Exclude = Annotated[list[str] | None, typer.Option(help="Id to leave out; may be given several times.")]
Within = Annotated[float | None, typer.Option(help="Largest distance.")]
MinSimilarity = Annotated[float | None, typer.Option(help="Smallest similarity.")]
GroupBy = Annotated[str | None, typer.Option(help="document, or a typed column: the k nearest groups.")]
GroupSize = Annotated[int | None, typer.Option(min=1, help="Chunks of each group. [default: 1]", show_default=False)]
Diversity = Annotated[
    float | None, typer.Option(min=0, max=1, help="0: as near as possible; 1: as unlike each other as possible.")
]
Vector = Annotated[bool, typer.Option("--vector", help="The query is a vector: a JSON list, or bits.")]


def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for: a text, or with --vector a vector.")],
    k: Neighbours = 10,
    where: Where = None,
    space: Space = None,
    vector: Vector = False,
    within: Within = None,
    min_similarity: MinSimilarity = None,
    group_by: GroupBy = None,
    group_size: GroupSize = None,
    diversity: Diversity = None,
    exclude: Exclude = None,
    where_sql: WhereSql = None,
    parameters: Parameters = None,
    ef_search: EfSearch = None,
    oversampling: Oversampling = None,
    exact: Exact = False,
    show_sql: Annotated[bool, typer.Option("--sql", help="Print the SQL statement instead of running it.")] = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Search a collection. Example: pgvec search docs "rotate credentials" -k 3 -w '{"section": "security"}'."""
    filter = parse_filter(where)
    options = _given(
        space=space,
        within=within,
        min_similarity=min_similarity,
        group_by=group_by,
        group_size=group_size,
        diversity=diversity,
        exclude=exclude,
        where_sql=where_sql,
        parameters=parse_json(parameters, "--parameters"),
        ef_search=ef_search,
        oversampling=oversampling,
        exact=exact or None,
    )
    searched = collection(name, dsn)
    if show_sql:
        typer.echo(searched.search_sql(k, filter, **options))
        return
    _print_hits(searched.search(_query(query, vector), k, filter, **options), k, group_by, as_json)


def similar(
    name: Name,
    ids: Annotated[list[str], typer.Argument(help="Ids of chunks that are examples of what is wanted.")],
    unlike: Annotated[list[str] | None, typer.Option(help="Id of an example of what is not wanted.")] = None,
    k: Neighbours = 10,
    where: Where = None,
    space: Space = None,
    exact: Exact = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Find more like some chunks. Example: pgvec similar docs guide.md#0 --unlike notes.md#3."""
    options = _given(space=space, exact=exact or None)
    hits = collection(name, dsn).similar(ids, k, parse_filter(where), unlike=unlike or (), **options)
    _print_hits(hits, k, None, as_json)


def explain(
    name: Annotated[str | None, typer.Argument(help="Name of the collection.", show_default=False)] = None,
    query: Annotated[str | None, typer.Argument(help="The query.", show_default=False)] = None,
    statement: Annotated[
        str | None,
        typer.Option(help="Explain a statement of your own instead: which vector index it uses, or why none."),
    ] = None,
    k: Neighbours = 10,
    where: Where = None,
    space: Space = None,
    vector: Vector = False,
    where_sql: WhereSql = None,
    parameters: Parameters = None,
    ef_search: EfSearch = None,
    exact: Exact = False,
    dsn: Dsn = None,
) -> None:
    """Show the plan of a search, which way it went and why. Example: pgvec explain docs "rotate credentials"."""
    if statement is not None:
        typer.echo(connect(dsn).explain_sql(statement))
        return
    if name is None or query is None:
        raise typer.BadParameter("give a collection and a query, or --statement")
    options = _given(
        space=space,
        where_sql=where_sql,
        parameters=parse_json(parameters, "--parameters"),
        ef_search=ef_search,
        exact=exact or None,
    )
    typer.echo(collection(name, dsn).explain(_query(query, vector), k, parse_filter(where), **options))


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(search)
    app.command()(similar)
    app.command()(explain)


def _given(**options: Any) -> SearchOptions:
    given = {name: value for name, value in options.items() if value is not None and value != []}
    return given  # type: ignore[return-value]


def _query(text: str, vector: bool) -> Any:
    if not vector or set(text) <= {"0", "1"}:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"not a JSON list: {error}", param_hint="QUERY") from error


def _print_hits(hits: Hits, k: int, group_by: str | None, as_json: bool) -> None:
    if as_json:
        print_json([hit.to_dict() for hit in hits])
    elif hits:
        print_table(("rank", "score", "id", "text"), ((hit.rank, hit.score, hit.id, excerpt(hit.text)) for hit in hits))
    found = len({hit.rank for hit in hits})
    if hits.stopped_by == "complete":
        say(f"{found} of {k} {'groups' if group_by else 'chunks'}: no more match" if hits else "nothing matches")
    elif hits.stopped_by == "threshold":
        say(f"{found} of {k}: the index found no more within the threshold; --exact proves it")
