"""doctor, prewarm."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Space, collection
from pgvec_toolkit.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from pgvec_toolkit.database import Database

_UNHEALTHY = 3


def doctor(
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="First mend what can be without risk: drop what interrupted builds left, ANALYZE tables that need it.",
        ),
    ] = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with the database, its indexes and this client, and say what mends it.

    Exit code 3 if there is an error: wrong results, or data in danger; with warnings and hints it is 0.
    """
    database = _database(dsn)
    if fix:
        for mended in database.mend():
            say(f"{mended.statement}: {mended.problem}" if mended.problem else f"done: {mended.statement}")
    findings = database.doctor()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for severity in ("error", "warning", "hint"):
            rows = [(f.subject, f.finding, f.mend) for f in findings if f.severity == severity]
            if rows:
                print_table(("subject", "finding", "mend"), rows, title=f"{severity}s")
        if not findings:
            say("nothing is wrong")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(_UNHEALTHY)


def prewarm(name: Name, space: Space = None, dsn: Dsn = None, as_json: Json = False) -> None:
    """Read a vector index and the tables beside it into the server's memory, as after a restart."""
    warmed = collection(name, dsn).prewarm(space=space)
    if as_json:
        print_json([asdict(relation) for relation in warmed])
        return
    print_table(
        ("relation", "blocks", "read", "complete", "ms"),
        ((w.relation, w.blocks, w.read, w.complete, w.milliseconds) for w in warmed),
    )
    if not all(relation.complete for relation in warmed):
        say("not all of it fits: raise shared_buffers, or build a smaller index, of form halfvec or binary")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)
    app.command()(prewarm)


def _database(dsn: str | None) -> Database:
    """Connect, even to a database that was not migrated: that is a finding, too."""
    from pgvec_toolkit.database import Database, connect_embedded, resolve_dsn

    resolved = resolve_dsn(dsn)
    return connect_embedded() if resolved is None else Database(resolved)
