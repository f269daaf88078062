"""attach, detach, attachments, worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, connect, parse_json
from pgvec_toolkit.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from pgvec_toolkit.database import Database

Attached = Annotated[str, typer.Argument(help="The collection, or its table.", show_default=False)]


def attach(
    relation: Annotated[str, typer.Argument(help="The table, one of your own with a primary key.")],
    text: Annotated[
        str, typer.Argument(help="What is searched: an SQL expression over a row, as \"name || ' ' || note\".")
    ],
    name: Annotated[
        str | None,
        typer.Option("--collection", help="Name of the collection. [default: <table>_search]", show_default=False),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column to copy, for filters. Repeatable.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Embedding model. [default: all-MiniLM-L6-v2]", show_default=False)
    ] = None,
    chunking: Annotated[
        str | None, typer.Option(help="How texts are cut, as JSON: '{\"chunk_tokens\": 200}'.", show_default=False)
    ] = None,
    language: Annotated[str, typer.Option(help="Text search configuration of the collection.")] = "english",
    dsn: Dsn = None,
) -> None:
    """Make the rows of a table the documents of a collection, and keep them so. Repeat it to change how."""
    options = parse_json(chunking, "--chunking")
    attached = connect(dsn).attach(
        relation, text, collection=name, columns=column or [], embedder=model, chunking=options, language=language
    )
    say(f"collection {attached.name} follows {relation}; pgvec worker embeds its rows")


def detach(
    name: Attached,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the collection, too.")] = False,
    dsn: Dsn = None,
) -> None:
    """Let a collection follow its table no longer; nothing is left on the table."""
    collection = connect(dsn).detach(name, drop=drop)
    say(f"collection {collection} {'is dropped' if drop else 'stays as it is'}")


def attachments(dsn: Dsn = None, as_json: Json = False) -> None:
    """Show which collections follow tables, and how far they are behind."""
    _print_lag(connect(dsn), as_json)


def worker(
    collection: Annotated[
        list[str] | None, typer.Option(help="Follow for this collection only. Repeatable.", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Documents that are embedded and committed together.")] = 64,
    once: Annotated[
        bool,
        typer.Option("--once", help="End when nothing is left to do now; with 1 if something has to be tried again."),
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="How many workers, each a process of its own.")] = 1,
    status: Annotated[bool, typer.Option("--status", help="Show how far collections are behind, and end.")] = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Embed what changes in attached tables, until Ctrl-C. Start any number; kill them at will."""
    if status:
        _print_lag(connect(dsn), as_json)
    elif processes > 1:
        _run_processes(processes, collection, batch, once, dsn, as_json)
    else:
        _work(connect(dsn), collection, batch, once, as_json)


def _work(database: Database, collections: list[str] | None, batch: int, once: bool, as_json: bool) -> None:
    from pgvec_toolkit.worker.worker import Worker

    for name in collections or []:
        database.collection(name)  # one that is not there would never get work
    working = Worker(database, collections or None, batch=batch, say=say)

    def end(number: int, _: FrameType | None) -> None:
        working.stop()
        # The second time it ends where it is; what it has claimed is then anybody's.
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    say("working" if once else "waiting for changes; Ctrl-C ends")
    done = working.run(once=once)
    if as_json:
        print_json(asdict(done))
    say(
        f"{done.documents} documents: {done.chunks} chunks embedded, {done.payloads} with other columns only, "
        f"{done.deleted} deleted, {done.unchanged} unchanged; {done.failed} given up, {done.postponed} postponed"
    )
    left = [lag for lag in database.attachments() if lag.error and (not collections or lag.collection in collections)]
    if once and left:
        for lag in left:
            say(f"{lag.collection}: {lag.pending} documents are left: {lag.error}")
        raise typer.Exit(1)


def _run_processes(
    count: int, collections: list[str] | None, batch: int, once: bool, dsn: str | None, as_json: bool
) -> None:
    """Run workers as processes; signals go on to them, and all are waited for. With JSON each prints what it did."""
    command = [sys.executable, "-c", "from pgvec_toolkit.cli import main; main()", "worker", "--batch", str(batch)]
    command += ["--once"] * once + ["--json"] * as_json
    command += [argument for name in collections or [] for argument in ("--collection", name)]
    # By the environment: arguments can be read by everybody on the machine.
    environment = os.environ | ({} if dsn is None else {"PGVEC_DSN": dsn})
    # In sessions of their own: Ctrl-C reaches them once, through us.
    running = [subprocess.Popen(command, env=environment, start_new_session=True) for _ in range(count)]

    def end(_: int, __: FrameType | None) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if failed := [process.pid for process in running if process.wait() != 0]:
        say(f"{len(failed)} of {count} workers failed")
        raise typer.Exit(1)


def _print_lag(database: Database, as_json: bool) -> None:
    found = database.attachments()
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        say("no collection follows a table: pgvec attach TABLE TEXT")
        return
    print_table(
        ["collection", "table", "pending", "oldest", "in work", "waiting", "failed", "per minute", "error"],
        [
            [
                one.collection,
                one.relation,
                f"{one.pending}{' +' if one.backfilling else ''}",
                "" if one.oldest_age is None else str(one.oldest_age).partition(".")[0],
                *(one.in_work, one.waiting, one.failed),
                f"{one.per_minute:.0f}",
                one.error,
            ]
            for one in found
        ],
    )


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(attach)
    app.command()(detach)
    app.command()(attachments)
    app.command()(worker)
