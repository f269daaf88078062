"""What is wrong with a database and its clients, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgvec_toolkit.errors import PgvecError, UnsupportedFeature
from pgvec_toolkit.schema import locks, migrate
from pgvec_toolkit.schema.indexes import drop_if_invalid

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

    from pgvec_toolkit.pool import Connection, Pool

_COLUMNS = "severity, subject, finding, mend"
_NEEDED = {"psycopg": (3, 3), "psycopg-pool": (3, 2), "pgvector": (0, 5)}  # as pyproject.toml has them
_LOCK_TIMEOUT = "5s"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what mends it.

    Attributes:
        severity: error (results are wrong, or data in danger), warning (searches are slower or worse than they
            need be) or hint (worth a look).
        subject: what it is about: server, a setting, a table, an index, a space, a collection, a package.
        finding: what is wrong.
        mend: an SQL statement, or a command, to run.
    """

    severity: str
    subject: str
    finding: str
    mend: str


@dataclass(frozen=True)
class Mended:
    """A statement that was to mend something; `problem`: why it did not, None if it did."""

    statement: str
    problem: str | None


def health(database: Pool) -> list[Finding]:
    """Return what the database says is wrong with it (SQL: `pgvec.check_health`)."""
    return [Finding(*row) for row in database.fetch(f"SELECT {_COLUMNS} FROM pgvec.check_health()")]


def examine(database: Pool) -> list[Finding]:
    """Return what is wrong with the client, the database and each of its vector indexes, the worst first."""
    found = [*_client(), *_installation(database)]
    if not any(finding.severity == "error" and finding.subject == "schema pgvec" for finding in found):
        found += health(database)
        found += [Finding(*row) for row in database.fetch(f"SELECT {_COLUMNS} FROM pgvec.check_indexes()")]
    return sorted(found, key=lambda finding: ("error", "warning", "hint").index(finding.severity))


def _client() -> Iterator[Finding]:
    from importlib.metadata import version

    for package, least in _NEEDED.items():
        there = version(package)
        if tuple(int(part) for part in there.split(".")[:2] if part.isdigit()) < least:
            needed = ".".join(map(str, least))
            yield Finding(
                "error", package, f"is of version {there}, older than {needed}", f"pip install '{package}>={needed}'"
            )
    if psycopg.pq.__impl__ == "python":
        yield Finding(
            "hint", "psycopg", "runs without its C code: vectors take longer to read", "pip install 'psycopg[binary]'"
        )


def _installation(database: Pool) -> Iterator[Finding]:
    with database.connection() as connection:
        current = migrate.is_current(connection)
    if not current:
        problem = "is missing, or of another version than this library"
        yield Finding("error", "schema pgvec", problem, "pgvec migrate  # with the newest version in use")
        return
    try:
        _ = database.capabilities
    except UnsupportedFeature as error:
        yield Finding("error", "extension vector", str(error), "ALTER EXTENSION vector UPDATE;")


def mend(database: Pool) -> list[Mended]:
    """Drop INVALID indexes that nobody is building, and ANALYZE tables whose statistics are out of date."""
    done = []
    with database.dedicated_connection() as connection:
        if not migrate.is_current(connection):
            return []
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [_LOCK_TIMEOUT])
        for space, schema, name in _leftovers(connection):
            done.append(_dropped(connection, space, schema, name))
        for schema, name in connection.execute("SELECT schema_name, name FROM pgvec._stale_tables()").fetchall():
            done.append(_run(connection, sql.SQL("ANALYZE {}").format(sql.Identifier(schema, name))))
    return done


def _leftovers(connection: Connection) -> list[tuple[int, str, str]]:
    return connection.execute("SELECT space_id, schema_name, name FROM pgvec._leftover_indexes()").fetchall()


def _dropped(connection: Connection, space: int, schema: str, name: str) -> Mended:
    """Drop a leftover, under the lock that builders take: one that is being built looks like a leftover."""
    statement = sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(schema, name))
    if not locks.try_lock(connection, locks.BUILD, space):
        return Mended(statement.as_string(connection), "an index is being built there")
    try:
        if drop_if_invalid(connection, schema, name):
            return Mended(statement.as_string(connection), None)
        return Mended(statement.as_string(connection), "another session has completed or dropped it meanwhile")
    except (psycopg.Error, PgvecError) as error:
        return Mended(statement.as_string(connection), str(error).strip().splitlines()[0])
    finally:
        locks.unlock(connection, locks.BUILD, space)


def _run(connection: Connection, statement: sql.Composed) -> Mended:
    problems: list[str] = []

    def hear(diagnostic: Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":  # as of a table that is not ours to ANALYZE: it is skipped
            problems.append(diagnostic.message_primary or "")

    connection.add_notice_handler(hear)
    try:
        connection.execute(statement)
    except (psycopg.Error, PgvecError) as error:
        problems.append(str(error).strip().splitlines()[0])
    finally:
        connection.remove_notice_handler(hear)
    return Mended(statement.as_string(connection), "; ".join(problems) or None)
