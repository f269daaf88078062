"""up, down, status, psql, migrate."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated, Any

import typer
from pgvec_toolkit.cli.options import Dsn, Json, connect
from pgvec_toolkit.cli.output import print_json, say, size


def up() -> None:
    """Start the embedded PostgreSQL, or say that it runs."""
    from pgvec_toolkit.database import connect_embedded
    from pgvec_toolkit.embedded import EmbeddedServer

    connect_embedded().close()
    server = EmbeddedServer()
    say(f"PostgreSQL runs in {server.home}")
    typer.echo(server.conninfo)


def down() -> None:
    """Stop the embedded PostgreSQL; its data stay."""
    from pgvec_toolkit.embedded import EmbeddedServer

    server = EmbeddedServer()
    running = server.status().running
    server.stop()
    say(f"PostgreSQL in {server.home} has stopped" if running else f"no PostgreSQL was running in {server.home}")


def status(dsn: Dsn = None, as_json: Json = False) -> None:
    """Show which PostgreSQL is used, its versions and known advisories. Starts nothing."""
    from pgvec_toolkit.database import resolve_dsn
    from pgvec_toolkit.embedded import EmbeddedServer

    resolved = resolve_dsn(dsn)
    facts: dict[str, Any] = {"kind": "your server" if resolved is not None else "embedded"}
    if resolved is None:
        server = EmbeddedServer()
        state = server.status()
        facts |= {"home": str(state.home), "running": state.running, "pid": state.pid, "log": str(state.log_file)}
        facts["disk"] = None if state.size is None else size(state.size)
        facts["settings"] = state.settings
        resolved = server.conninfo if state.running else None
    if resolved is not None:
        facts |= _database_facts(resolved)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        typer.echo(f"{name:<12} {_line(value)}")
    for advisory in facts.get("advisories", []):
        say(f"warning: {advisory}")


def psql(
    context: typer.Context,
    dsn: Dsn = None,
) -> None:
    """Open psql on the database; further arguments go to psql, as in: pgvec psql -c 'SELECT 1'."""
    from pgvec_toolkit.database import resolve_dsn
    from pgvec_toolkit.embedded import EmbeddedServer
    from pgvec_toolkit.errors import ConfigurationError

    resolved = resolve_dsn(dsn)
    server = EmbeddedServer()
    if resolved is None:
        connect(None).close()
        resolved = server.conninfo
        program = str(server.binary("psql"))
    else:
        found = shutil.which("psql")
        if found is None:
            raise ConfigurationError("psql is not on the PATH: install PostgreSQL's client programs")
        program = found
    sys.stdout.flush()
    os.execv(program, [program, "--dbname", resolved, *context.args])


def migrate(
    dsn: Dsn = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it.")] = False,
    down_to: Annotated[
        str | None, typer.Option("--down-to", help="Downgrade to a revision; `base` removes schema pgvec's contents.")
    ] = None,
) -> None:
    """Bring schema pgvec to this version: tables, then functions. Safe to run at any time, by anybody at once."""
    from pgvec_toolkit.database import Database, resolve_dsn
    from pgvec_toolkit.pool import translated_errors
    from pgvec_toolkit.schema import migrate

    if sql:
        migrate.write_sql(sys.stdout)
        return
    resolved = resolve_dsn(dsn)
    if resolved is None:
        from pgvec_toolkit.embedded import EmbeddedServer

        resolved = EmbeddedServer().start()
    if down_to is not None:
        with translated_errors():
            migrate.downgrade(resolved, down_to)
        say(f"schema pgvec is at revision {down_to}")
        return
    with Database(resolved) as database:
        database.migrate()
    say("schema pgvec is up to date")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status, migrate):
        app.command()(command)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)


def _database_facts(dsn: str) -> dict[str, Any]:
    from pgvec_toolkit.database import Database
    from pgvec_toolkit.errors import NotMigrated

    with Database(dsn, timeout=10) as database:
        try:
            capabilities = database.capabilities
            facts: dict[str, Any] = {
                "server": f"PostgreSQL {capabilities.server}" + (" (replica)" if capabilities.replica else ""),
                "pgvector": ".".join(map(str, capabilities.vector)),
            }
            database.check_migrated()
            facts["advisories"] = database.advisories()
            return facts | {"schema": "up to date", "collections": database.collections()}
        except NotMigrated as error:
            return {"schema": str(error)}


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {setting}" for key, setting in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "" if value is None else str(value)
