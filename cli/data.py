"""ingest and delete."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Name, collection
from pgvec_toolkit.cli.output import say, say_pruned


def ingest(
    name: Name,
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: text, HTML, PDF, Office, code, tables.")],
    id: Annotated[str, typer.Option(help="Column of a table that names its documents; '': number its rows.")] = "id",
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a table that is its text; several are joined. [default: text]", show_default=False
        ),
    ] = None,
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
        done = target.ingest(path, id=id or None, text=text or "text", chunk_tokens=chunk_tokens)
        seconds = time.perf_counter() - began
        say(
            f"{path}: {done.documents} documents, {done.unchanged} of them unchanged; "
            f"{done.chunks} chunks written in {seconds:.1f} s"
        )
        say_pruned(done.pruned_vectors, done.pruned_entries)


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
    app.command()(delete)
