"""Promoting a metadata key to a typed, indexed column while searches and loads go on.

The steps are functions of sql/220_promote.sql; each is a short transaction, and each looks at what is there
already: a promotion that was killed at any point is completed by calling it again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError, IndexBuildError
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema.build import build_progress
from pgvec_toolkit.schema.columns import sql_types

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space

ROWS_PER_BATCH = 2000
_POLL = 0.2
_AGAIN = "what is done stays done, promote again"


@dataclass(frozen=True)
class Promoted:
    """A metadata key that is a typed column.

    Attributes:
        column: its name, that of the key.
        type: its SQL type.
        rows: how many have a value in it.
        unreadable: how many have none, because what their metadata hold cannot be read as the type.
        examples: up to three of these, (id, value).
    """

    column: str
    type: str
    rows: int
    unreadable: int
    examples: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class _Plan:
    """What `pgvec._promote_plan` says: the table, the type, the column's hidden name, new, begun or done."""

    relation: str
    type: str
    hidden: str
    state: str


def promote(
    database: Pool, collection: str, space: Space, key: str, type: object, *, progress: bool | None = None
) -> Promoted:
    """Make a metadata key a typed, indexed column of the chunk table; one that is there already is left as it is.

    The column follows the metadata, which keep the key. Values that cannot be read as the type stay there.

    Raises:
        InvalidName: the key cannot be the name of a column, or is one of every collection.
        ConfigurationError: the column has another type; no value can be read as the type; a lack of rights.
        IndexBuildError: a transaction of others lasted too long, or the index could not be built.
    """
    wanted = sql_types({key: type})[key]
    with database.dedicated_connection() as connection:
        plan = _plan(connection, collection, key, wanted)
        if plan.state != "done":
            _wait_for_turn(connection, space)
            plan = _plan(connection, collection, key, wanted)
        if plan.state != "done":
            _carry_out(database, connection, collection, space, key, plan, progress)
        rows, unreadable, examples = _survey(connection, plan, key, key)
        return Promoted(key, plan.type, rows, unreadable, examples)


def _carry_out(
    database: Pool, connection: Connection, collection: str, space: Space, key: str, plan: _Plan, progress: bool | None
) -> None:
    arguments = [collection, key, plan.type]
    if plan.state == "new":
        _briefly_alone(connection, space, "SELECT pgvec._promote_begin(%s, %s, %s)", arguments)
    if not _backfill(connection, space, key, plan, progress):
        _refuse_if_unreadable(connection, space, collection, key, plan)
    _build_index(database, connection, space, key, plan, progress)
    # Before the column has its name: the first filter on it finds statistics, and pages that are all-visible.
    connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(space.chunks))
    _briefly_alone(connection, space, "SELECT pgvec._promote_finish(%s, %s, %s)", arguments)


def _plan(connection: Connection, collection: str, key: str, type: str) -> _Plan:
    row = connection.execute(
        "SELECT relation::text, wanted, hidden, state FROM pgvec._promote_plan(%s, %s, %s)", [collection, key, type]
    ).fetchone()
    assert row is not None
    return _Plan(*row)


def _wait_for_turn(connection: Connection, space: Space) -> None:
    """Wait until no other session promotes a key of this collection; it may be what is left of a killed process."""
    # Not pg_advisory_lock: CREATE INDEX CONCURRENTLY there would wait for the snapshot of who waits here.
    while not locks.try_lock(connection, locks.PROMOTE, space.collection_id):
        time.sleep(_POLL)


def _briefly_alone(connection: Connection, space: Space, statement: str, arguments: Sequence[Any]) -> None:
    """Run a statement in a transaction that has the chunk table for itself."""
    locks.briefly_alone(connection, space.chunks, lambda: connection.execute(statement.encode(), arguments), _AGAIN)


def _backfill(connection: Connection, space: Space, key: str, plan: _Plan, progress: bool | None) -> int:
    """Fill the column of the rows that were there before it; return how many needed it."""
    row = connection.execute(sql.SQL("SELECT count(*), min(key), max(key) FROM {}").format(space.chunks)).fetchone()
    assert row is not None
    total, first, last = row
    filled = 0
    busy: deque[tuple[int, int]] = deque()
    with progress_bar(f"promoting {key}", total, progress) as advance:
        for after, upto, rows in _ranges(connection, space, first, last) if total else ():
            done, again = _fill(connection, plan, key, after, upto)
            filled += done
            if again:
                busy.append((after, upto))
            else:
                advance(rows)
        for wait in locks.waits():
            for _ in range(len(busy)):
                done, again = _fill(connection, plan, key, *busy[0])
                filled += done
                looked_at = busy.popleft()
                if again:
                    busy.append(looked_at)
            if not busy:
                return filled
            time.sleep(wait)
    raise locks.out_of_patience(connection, space.chunks, _AGAIN)


def _ranges(connection: Connection, space: Space, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Cut the keys from first to last into ranges of some rows: (after, up to, rows)."""
    statement = sql.SQL(
        "SELECT max(key), count(*) FROM"
        " (SELECT key FROM {} WHERE key > %s AND key <= %s ORDER BY key LIMIT %s) AS taken"
    ).format(space.chunks)
    after = first - 1
    while after < last:
        row = connection.execute(statement, [after, last, ROWS_PER_BATCH]).fetchone()
        assert row is not None
        upto, rows = row
        if upto is None:  # the last rows have been deleted
            return
        yield after, upto, rows
        after = upto


def _fill(connection: Connection, plan: _Plan, key: str, after: int, upto: int) -> tuple[int, bool]:
    """Fill a range in one transaction; return how many rows were filled, and whether some were locked by others."""
    row = connection.execute(
        "SELECT filled, busy FROM pgvec._promote_batch(%s::regclass, %s, %s, %s, %s)",
        [plan.relation, plan.hidden, key, after, upto],
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def _survey(connection: Connection, plan: _Plan, column: str, key: str) -> tuple[int, int, tuple[tuple[str, Any], ...]]:
    """Count values and what cannot be read as one, with examples."""
    row = connection.execute(
        "SELECT rows, unreadable, examples FROM pgvec._promote_survey(%s::regclass, %s, %s)",
        [plan.relation, column, key],
    ).fetchone()
    assert row is not None
    rows, unreadable, examples = row
    return rows, unreadable, tuple((id, value) for id, value in examples or ())


def _refuse_if_unreadable(connection: Connection, space: Space, collection: str, key: str, plan: _Plan) -> None:
    """Take it all back if nothing can be read as the type: filters on the key would find nothing any more."""
    rows, unreadable, examples = _survey(connection, plan, plan.hidden, key)
    if rows or not unreadable:
        return
    _briefly_alone(connection, space, "SELECT pgvec._promote_drop(%s, %s)", [collection, key])
    shown = ", ".join(f"{value!r} of {id!r}" for id, value in examples)
    raise ConfigurationError(
        f"none of the {unreadable} values of metadata key {key!r} can be read as {plan.type}, for example {shown}: "
        "promote it as another type. Nothing has been changed"
    )


def _build_index(
    database: Pool, connection: Connection, space: Space, key: str, plan: _Plan, progress: bool | None
) -> None:
    """Build the index unless it is there; what a killed build has left is dropped."""
    if _has_index(connection, plan):
        return
    indexed = "USING gin ({})" if plan.type == "text[]" else "({}, key)"
    statement = sql.SQL(f"CREATE INDEX CONCURRENTLY ON {{}} {indexed}").format(
        space.chunks, sql.Identifier(plan.hidden)
    )
    try:
        with build_progress(database, connection.info.backend_pid, f"indexing {key}", progress):
            connection.execute(statement)
    except psycopg.Error as error:
        raise IndexBuildError(
            f"the index of {key!r} was not built: {str(error).strip()}. Promote again; what is done stays done"
        ) from error


def _has_index(connection: Connection, plan: _Plan) -> bool:
    """Tell whether the column has an index; those whose build was not completed are dropped."""
    found = connection.execute(
        "SELECT name, valid FROM pgvec._promote_indexes(%s::regclass, %s)", [plan.relation, plan.hidden]
    ).fetchall()
    for name, valid in found:
        if not valid:
            connection.execute(f"DROP INDEX CONCURRENTLY {name}".encode())  # quoted by the server
    return any(valid for _, valid in found)
