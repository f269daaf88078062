"""ingest and search."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Neighbours, Where, collection, parse_filter
from pgvec_toolkit.cli.output import excerpt, print_json, print_table, say


def ingest(
    name: Name,
    paths: Annotated[list[Path], typer.Argument(help="Files (.txt, .md, .jsonl) or folders of them.")],
    chunk_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Largest chunk in tokens. [default: all that the model reads]", show_default=False),
    ] = None,
    dsn: Dsn = None,
) -> None:
    """Ingest documents: chunk, embed, write. Unchanged ones are skipped; interrupt and repeat it at will."""
    target = collection(name, dsn)
    for path in paths:
        began = time.perf_counter()
        done = target.ingest(path, chunk_tokens=chunk_tokens)
        seconds = time.perf_counter() - began
        say(
            f"{path}: {done.documents} documents, {done.unchanged} of them unchanged; "
            f"{done.chunks} chunks written in {seconds:.1f} s"
        )


def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Neighbours = 10,
    where: Where = None,
    ef_search: Annotated[int | None, typer.Option(min=1, help="Override the tuned setting of the index.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Use no index.")] = False,
    show_sql: Annotated[bool, typer.Option("--sql", help="Print the SQL statement instead of running it.")] = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Search a collection. Example: pgvec search docs "rotate credentials" -k 3 -w '{"section": "security"}'."""
    filter = parse_filter(where)
    searched = collection(name, dsn)
    if show_sql:
        typer.echo(searched.search_sql(k, filter, ef_search=ef_search, exact=exact))
        return
    hits = searched.search(query, k, filter, ef_search=ef_search, exact=exact)
    if as_json:
        print_json([hit.to_dict() for hit in hits])
        return
    if not hits:
        say("nothing matches the filter" if filter else f"collection {name} is empty")
        return
    print_table(("rank", "score", "id", "text"), ((hit.rank, hit.score, hit.id, excerpt(hit.text)) for hit in hits))


def delete(
    name: Name,
    document_ids: Annotated[list[str], typer.Argument(help="Ids of the documents.")],
    dsn: Dsn = None,
) -> None:
    """Delete documents with their chunks and vectors."""
    say(f"{collection(name, dsn).delete(document_ids)} chunks deleted")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ingest)
    app.command()(search)
    app.command()(delete)
