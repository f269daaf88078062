"""collection create, list, show, drop; add-space, embed, drop-space; promote."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pgvec_toolkit.cli.options import Config, Dsn, Head, Json, Name, Revision, collection, connect
from pgvec_toolkit.cli.output import print_json, print_table, say, say_cut, say_pruned, size

if TYPE_CHECKING:
    from pgvec_toolkit.embed.base import Embedder

Type = Annotated[
    str | None,
    typer.Option(
        help="vector, halfvec, bit, sparsevec or vector[]. [default: what an index can hold: vector, from 2,001 "
        "dimensions halfvec, from 4,001 vector with a binary index]",
        show_default=False,
    ),
]
Distance = Annotated[
    str | None,
    typer.Option(
        help="cosine, l2, inner_product or l1; of bits hamming or jaccard. [default: cosine, of bits hamming]",
        show_default=False,
    ),
]
app = typer.Typer(help="Create, list, show and drop collections.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    name: Name,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", "-c", help="Typed column, as section:text or year:int; may be given several times."),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Embedding model, as MODEL or KIND:MODEL?option=value: see `pgvec models --kinds`. "
            "[default: sentence-transformers/all-MiniLM-L6-v2]",
            show_default=False,
        ),
    ] = None,
    query_prompt: Annotated[
        str | None,
        typer.Option(help="Put before queries. [default: as the model has it, or its family]", show_default=False),
    ] = None,
    document_prompt: Annotated[
        str | None, typer.Option(help="Put before documents. [default: likewise]", show_default=False)
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Length of the vectors, if you bring your own instead of an embedder.")
    ] = None,
    type: Type = None,
    distance: Distance = None,
    language: Annotated[str, typer.Option(help="Text search configuration of the texts.")] = "english",
    schema: Annotated[str, typer.Option(help="Schema of its tables.")] = "public",
    keywords: Annotated[bool, typer.Option("--keywords/--no-keywords", help="Whether it gets a keyword index.")] = True,
    revision: Revision = False,
    config: Config = Path("alembic.ini"),
    head: Head = "head",
    dsn: Dsn = None,
) -> None:
    """Create a collection and its tables. Example: pgvec collection create docs -c section:text -c year:int."""
    options: dict[str, Any] = {
        "embedder": _prompted(embedder, query_prompt, document_prompt),
        "dimensions": dimensions,
        "type": type,
        "distance": distance,
        "columns": dict(_parse_column(each) for each in column or []),
        "language": language,
        "schema": schema,
        "keywords": keywords,
    }
    if revision:
        from pgvec_toolkit.alembic.writing import write_collection

        typer.echo(write_collection(config, name, head=head, **options))
        return
    space = connect(dsn).create_collection(name, **options).space
    say(f"collection {name} is there: {space.type}({space.dimensions}), {space.distance}")


@app.command("add-space")
def add_space(
    name: Name,
    space: Annotated[str, typer.Argument(help="Name of the new vector space.", show_default=False)],
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Embedding model, dense or sparse, that makes its vectors: see `pgvec models --kinds`.",
            show_default=False,
        ),
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Length of its vectors, without an embedder.", show_default=False)
    ] = None,
    type: Type = None,
    distance: Distance = None,
    revision: Revision = False,
    config: Config = Path("alembic.ini"),
    head: Head = "head",
    dsn: Dsn = None,
) -> None:
    """Add a vector space: further vectors of the same chunks, as of a sparse model (--embedder sparse:my/splade)."""
    if revision:
        from pgvec_toolkit.alembic.writing import write_space

        shape: dict[str, Any] = {"dimensions": dimensions, "type": type, "distance": distance}
        typer.echo(write_space(config, name, space, head=head, embedder=embedder, **shape))
        return
    collection(name, dsn).add_space(space, embedder=embedder, dimensions=dimensions, type=type, distance=distance)
    then = f"fill it: pgvec collection embed {name} {space}" if embedder else "fill it with set_vectors in Python"
    say(f"vector space {space} of collection {name} is there; {then}")


@app.command()
def embed(
    name: Name,
    space: Annotated[
        str | None, typer.Argument(help="Name of the vector space. [default: the default one]", show_default=False)
    ] = None,
    dsn: Dsn = None,
) -> None:
    """Embed the chunks that have no vector in a space; interrupt and repeat it at will."""
    opened = collection(name, dsn)
    done = opened.embed_space(space)
    say(f"{done.chunks} chunks embedded into {space or opened.space.name}")
    say_pruned(done.pruned_vectors, done.pruned_entries)
    say_cut(0, done.truncated, [])


@app.command("drop-space")
def drop_space(
    name: Name,
    space: Annotated[str, typer.Argument(help="Name of the vector space.", show_default=False)],
    dsn: Dsn = None,
) -> None:
    """Drop a vector space that was added, with its vectors."""
    collection(name, dsn).drop_space(space)
    say(f"vector space {space} of collection {name} is gone")


@app.command()
def promote(
    name: Name,
    key: Annotated[str, typer.Argument(help="Key of the metadata.", show_default=False)],
    type: Annotated[str, typer.Argument(help="text, int, float, bool, date, timestamp or text[].", show_default=False)],
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Make a metadata key a typed, indexed column, online. Example: pgvec collection promote docs year int."""
    promoted = collection(name, dsn).promote(key, type)
    if as_json:
        print_json(asdict(promoted))
        return
    say(f"{promoted.column} is a column of type {promoted.type}: {promoted.rows} rows have a value")
    if promoted.unreadable:
        shown = ", ".join(f"{value!r} of {id}" for id, value in promoted.examples)
        say(f"{promoted.unreadable} rows hold values that cannot be read as one, for example {shown}")


@app.command("list")
def list_(dsn: Dsn = None, as_json: Json = False) -> None:
    """List collections."""
    columns = ("collection", "space", "type", "dimensions", "distance", "model", "estimated_rows", "registered")
    rows = connect(dsn).fetch(f"SELECT {', '.join(columns)} FROM pgvec.spaces ORDER BY 1, 2")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


@app.command()
def show(name: Name, dsn: Dsn = None, as_json: Json = False) -> None:
    """Show a collection: tables, columns, indexes."""
    shown = collection(name, dsn)
    space = shown.space
    indexes = shown.indexes()
    facts = {
        "collection": name,
        "rows": len(shown),
        "chunk_table": f"{space.schema}.{space.chunk_table}",
        "vector_table": f"{space.schema}.{space.vector_table}",
        "registered": space.registered,
        "type": space.type,
        "dimensions": space.dimensions,
        "distance": str(space.distance),
        "model": space.model,
        "columns": shown.columns,
        "keywords": shown.keyword_index,
        "indexes": [
            f"{i.name} ({', '.join([i.form, *i.options])}), {size(i.size)}{'' if i.valid else ', INVALID'}"
            for i in indexes
        ],
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{column} {kind}" for column, kind in value.items())
        typer.echo(f"{key:<13} {'; '.join(value) if isinstance(value, list) else value}")


@app.command()
def drop(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dsn: Dsn = None,
) -> None:
    """Drop a collection with its tables and all that is in them; a registered table stays as it is."""
    dropped = collection(name, dsn)
    if not yes and not dropped.space.registered:
        typer.confirm(f"Drop collection {name} and its {len(dropped)} rows?", abort=True, err=True)
    connect(dsn).drop_collection(name)
    say(f"collection {name} is gone")


def _prompted(name: str | None, query: str | None, document: str | None) -> Embedder | str | None:
    if query is None and document is None:
        return name
    from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER
    from pgvec_toolkit.embed.kinds import kind_of_spec, load
    from pgvec_toolkit.embed.spec import spec_of

    model = name or DEFAULT_EMBEDDER
    given = spec_of("", "", {"query_prompt": query, "document_prompt": document})
    if "query_prompt" not in kind_of_spec(model).options or hasattr(load(model), "type"):
        raise typer.BadParameter("go with a dense model only", param_hint="--query-prompt, --document-prompt")
    return load(model + (f"&{given[1:]}" if "?" in model else given))


def _parse_column(text: str) -> tuple[str, str]:
    name, colon, kind = text.partition(":")
    if not colon or not name or not kind:
        raise typer.BadParameter(f"{text!r} is not of the form name:type, as year:int", param_hint="--column")
    return name, kind
