"""index rebuild."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Space, collection, parse_queries
from pgvec_toolkit.cli.output import print_json, say, size
from pgvec_toolkit.cli.tuning import RealQueries


def rebuild(
    name: Name,
    index: Annotated[
        str | None, typer.Argument(help="Its name. [default: the one that searches use]", show_default=False)
    ] = None,
    if_needed: Annotated[
        bool,
        typer.Option(
            "--if-needed", help="Only if many rows are dead, it has grown too large, or recall is below its target."
        ),
    ] = False,
    m: Annotated[
        int | None, typer.Option("--m", help="hnsw: links per node. [default: as it is]", show_default=False)
    ] = None,
    ef_construction: Annotated[
        int | None, typer.Option(help="hnsw: candidates while building. [default: as it is]", show_default=False)
    ] = None,
    lists: Annotated[
        int | None, typer.Option(help="ivfflat: clusters. [default: as they are]", show_default=False)
    ] = None,
    queries: RealQueries = None,
    space: Space = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Rebuild the vector index while searches and writes go on; a worse one is refused."""
    given = parse_queries(queries)
    done = collection(name, dsn).rebuild_index(
        index, if_needed=if_needed, m=m, ef_construction=ef_construction, lists=lists, queries=given, space=space
    )
    if as_json:
        print_json(asdict(done))
        return
    for reason in done.reasons:
        typer.echo(reason)
    for note in done.notes:
        say(note)
    if not done.rebuilt:
        say(f"index {done.name} needs no rebuild")
        return
    recall = ""
    if done.recall_after is not None:
        recall = f"; recall@{done.k} {done.recall_before:.3f} → {done.recall_after:.3f}"
    say(
        f"index {done.name} was rebuilt in {done.seconds:.1f} s, of which searches waited {done.stalled:.2f} s: "
        f"{size(done.size_before)} → {size(done.size_after)}{recall}"
    )


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rebuild)
