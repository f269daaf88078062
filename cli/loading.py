"""upsert: records that have vectors, from files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Name, collection
from pgvec_toolkit.cli.output import say


def upsert(
    name: Name,
    paths: Annotated[list[Path], typer.Argument(help="Files of records: .jsonl, .parquet or .arrow.")],
    id_field: Annotated[
        str, typer.Option("--id", help="Field that holds the id; another one called id is left out.")
    ] = "id",
    text_field: Annotated[str, typer.Option("--text", help="Field that holds the text; likewise.")] = "text",
    vector_field: Annotated[str, typer.Option("--vector", help="Field that holds the vector; likewise.")] = "vector",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a transaction.")] = 5000,
    connections: Annotated[
        int | None,
        typer.Option(min=1, help="Batches written at once. [default: 2, or 1 on a single core]", show_default=False),
    ] = None,
    dsn: Dsn = None,
) -> None:
    """Load records that have vectors: new ids are inserted, known ones replaced. Interrupt and repeat it at will."""
    from pgvec_toolkit.ingest.record_files import open_records

    target = collection(name, dsn)
    names = {"id": id_field, "text": text_field, "vector": vector_field}
    for path in paths:
        began = time.perf_counter()
        done = target.upsert(open_records(path, batch_size, names), batch_size=batch_size, connections=connections)
        seconds = time.perf_counter() - began
        rows = done.inserted + done.updated + done.unchanged
        say(
            f"{path}: {done.inserted} rows inserted, {done.updated} updated, {done.unchanged} unchanged "
            f"in {seconds:.1f} s ({rows / seconds:,.0f} a second)"
        )


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(upsert)
