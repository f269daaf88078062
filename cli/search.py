"""search, similar, explain."""

from __future__ import annotations

import json
from enum import StrEnum
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
    from pgvec_toolkit.search.hit import Hit, Hits

Recall = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Another target than the default one, that was tuned for; 1: exact."),
]
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


class Mode(StrEnum):
    """What a search ranks by."""

    dense = "dense"
    keyword = "keyword"
    hybrid = "hybrid"


def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for: a text, or with --vector a vector.")],
    k: Neighbours = 10,
    where: Where = None,
    mode: Annotated[
        Mode, typer.Option("--mode", "-m", help="By the vectors of a space, by words (BM25), or by both.")
    ] = Mode.dense,
    rerank: Annotated[
        str | None,
        typer.Option(help="Order the hits anew: a cross-encoder, or the URL of a rerank endpoint.", show_default=False),
    ] = None,
    rerank_model: Annotated[
        str | None, typer.Option(help="Model that the endpoint is asked for.", show_default=False)
    ] = None,
    rerank_style: Annotated[
        str | None,
        typer.Option(help="What the endpoint understands: cohere or tei. [default: cohere]", show_default=False),
    ] = None,
    rerank_depth: Annotated[
        int | None, typer.Option(min=1, help="How many hits. [default: 2 k, at least 50]", show_default=False)
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds that reranking may take; then the search's order stays.")
    ] = None,
    leg: Annotated[
        list[str] | None,
        typer.Option(help="hybrid: keyword or a vector space; several times. [default: both]", show_default=False),
    ] = None,
    fusion: Annotated[
        str | None,
        typer.Option(help="hybrid: relative, dbsf, rrf or weighted. [default: relative]", show_default=False),
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="hybrid: weight of a leg, as keyword=0.5; several times.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="hybrid: chunks that each leg finds. [default: 100]", show_default=False)
    ] = None,
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
    recall: Recall = None,
    ef_search: EfSearch = None,
    oversampling: Oversampling = None,
    exact: Exact = False,
    show_sql: Annotated[bool, typer.Option("--sql", help="Print the SQL statement instead of running it.")] = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Search a collection. Example: pgvec search docs "rotate credentials" -k 3 -w '{"section": "security"}'."""
    filter = parse_filter(where)
    everywhere = _given(exclude=exclude, where_sql=where_sql, parameters=parse_json(parameters, "--parameters"))
    of_dense = _given(
        space=space,
        within=within,
        min_similarity=min_similarity,
        group_by=group_by,
        group_size=group_size,
        diversity=diversity,
        ef_search=ef_search,
        oversampling=oversampling,
        exact=exact or None,
    )
    if recall is not None:
        if mode is Mode.keyword:
            raise typer.BadParameter("keyword search is exact", param_hint="--recall")
        everywhere["recall"] = recall
    of_hybrid = _given(legs=leg, fusion=fusion, weights=_weights(weight), depth=depth)
    _refuse_others(mode, of_dense | _given(vector=vector or None), of_hybrid)
    reranker = _reranker(rerank, rerank_model, rerank_style)
    if rerank is None and (rerank_depth is not None or budget is not None):
        raise typer.BadParameter("goes with --rerank", param_hint="--rerank-depth, --budget")
    searched = collection(name, dsn)
    if show_sql:
        of_hybrid.pop("weights", None)  # a parameter of the statement
        if mode is Mode.keyword:
            raise typer.BadParameter("call pgvec.keyword_search: it plans for the words at hand", param_hint="--sql")
        if rerank is not None:
            raise typer.BadParameter("no statement reranks: leave --rerank out", param_hint="--sql")
        by_mode = searched.search_sql if mode is Mode.dense else searched.hybrid_search_sql
        typer.echo(by_mode(k, filter, **everywhere, **(of_dense if mode is Mode.dense else of_hybrid)))
        return
    if rerank is not None:
        from pgvec_toolkit.rerank.spec import Rerank

        everywhere["rerank"] = Rerank(reranker, rerank_depth, budget)
    if mode is Mode.dense:
        hits = searched.search(_query(query, vector), k, filter, **everywhere, **of_dense)
    elif mode is Mode.keyword:
        hits = searched.keyword_search(query, k, filter, **everywhere)
    else:
        hits = searched.hybrid_search(query, k, filter, **everywhere, **of_hybrid)
    _print_hits(hits, k, group_by, as_json)


def similar(
    name: Name,
    ids: Annotated[list[str], typer.Argument(help="Ids of chunks that are examples of what is wanted.")],
    unlike: Annotated[list[str] | None, typer.Option(help="Id of an example of what is not wanted.")] = None,
    k: Neighbours = 10,
    where: Where = None,
    space: Space = None,
    recall: Recall = None,
    exact: Exact = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Find more like some chunks. Example: pgvec similar docs guide.md#0 --unlike notes.md#3."""
    options = _given(space=space, recall=recall, exact=exact or None)
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
    recall: Recall = None,
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
        recall=recall,
        ef_search=ef_search,
        exact=exact or None,
    )
    typer.echo(collection(name, dsn).explain(_query(query, vector), k, parse_filter(where), **options))


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(search)
    app.command()(similar)
    app.command()(explain)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != []}


def _refuse_others(mode: Mode, of_dense: dict[str, Any], of_hybrid: dict[str, Any]) -> None:
    for given, other in ((of_dense, Mode.dense), (of_hybrid, Mode.hybrid)):
        if given and mode is not other:
            option = "--" + {"legs": "leg", "weights": "weight"}.get(next(iter(given)), next(iter(given)))
            raise typer.BadParameter(f"goes with --mode {other}", param_hint=option.replace("_", "-"))


def _reranker(rerank: str | None, model: str | None, style: str | None) -> Any:
    if model is None and style is None:
        return rerank
    if rerank is None or not rerank.startswith(("http://", "https://")):
        raise typer.BadParameter("goes with --rerank URL", param_hint="--rerank-model, --rerank-style")
    from pgvec_toolkit.rerank.http import HttpReranker

    return HttpReranker(rerank, model=model, style=style or "cohere")  # type: ignore[arg-type]


def _weights(given: list[str] | None) -> dict[str, float] | None:
    weights = {}
    for each in given or ():
        leg, separator, weight = each.partition("=")
        try:
            weights[leg] = float(weight)
        except ValueError:
            separator = ""
        if not separator:
            raise typer.BadParameter(f"{each!r} is not like keyword=0.5", param_hint="--weight")
    return weights or None


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
    elif any(hit.legs for hit in hits):
        rows = ((hit.rank, hit.score, hit.id, _why(hit), excerpt(hit.text)) for hit in hits)
        print_table(("rank", "score", "id", "found by", "text"), rows)
    elif hits:
        print_table(("rank", "score", "id", "text"), ((hit.rank, hit.score, hit.id, excerpt(hit.text)) for hit in hits))
    if hits.note:
        say(hits.note)
    found = len({hit.rank for hit in hits})
    if hits.stopped_by == "complete":
        say(f"{found} of {k} {'groups' if group_by else 'chunks'}: no more match" if hits else "nothing matches")
    elif hits.stopped_by == "depth":
        say(f"{found} of {k}: a leg was to find no more; raise --depth")
    elif hits.stopped_by == "threshold":
        say(f"{found} of {k}: the index found no more within the threshold; --exact proves it")


def _why(hit: Hit) -> str:
    """Return where each leg had a hit, and the words that matched, the weightiest first."""
    words = hit.legs.get("keyword", {}).get("terms", {})
    terms = ", ".join(sorted(words, key=lambda word: -words[word])[:5])
    places = [f"{leg} #{found['rank']}" for leg, found in hit.legs.items()]
    if list(hit.legs) == ["keyword"]:
        places = [] if hit.first_rank is None else [f"keyword #{hit.first_rank}"]
    return "; ".join(filter(None, (*places, terms)))
