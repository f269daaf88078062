"""ingest and delete."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Name, collection
from pgvec_toolkit.cli.output import say, say_cut, say_pruned

from pgvec_toolkit.ingest.chunk.chunking import CHUNKERS, POLICIES


def ingest(
    name: Name,
    paths: Annotated[list[Path], typer.Argument(help="Files (.txt, .md, .jsonl) or folders of them.")],
    chunk_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Largest chunk in tokens. [default: all that the model reads]", show_default=False),
    ] = None,
    chunker: Annotated[str, typer.Option(help=f"How to cut: {', '.join(CHUNKERS)}.")] = "auto",
    overlap: Annotated[int, typer.Option(min=0, help="Tokens, at most, that a chunk repeats of the last one.")] = 0,
    context: Annotated[
        bool, typer.Option("--context", help="Embed the document's title and the headings above a chunk with it.")
    ] = False,
    too_long: Annotated[
        str, typer.Option(help=f"What becomes of a chunk longer than the model reads: {', '.join(POLICIES)}.")
    ] = "split",
    dsn: Dsn = None,
) -> None:
    """Ingest documents: chunk, embed, write. Unchanged ones are skipped; interrupt and repeat it at will."""
    target = collection(name, dsn)
    for path in paths:
        began = time.perf_counter()
        done = target.ingest(
            path, chunker=chunker, chunk_tokens=chunk_tokens, overlap=overlap, context=context, too_long=too_long
        )
        seconds = time.perf_counter() - began
        say(
            f"{path}: {done.documents} documents, {done.unchanged} of them unchanged; "
            f"{done.chunks} chunks written in {seconds:.1f} s"
        )
        say_pruned(done.pruned_vectors, done.pruned_entries)
        say_cut(done.split, done.truncated, done.notes)


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
