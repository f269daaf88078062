"""The locks of those who build, rebuild and drop indexes: of a space against each other, of a table against all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg import sql

from pgvec_toolkit.errors import IndexBuildError

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

BUILD = "pgvec.build_index"  # what one session is building looks like a leftover to others
REBUILD = "pgvec.rebuild_index"  # of who makes or clears the replacement of an index
PROMOTE = "pgvec.promote"  # of a collection: who makes a key of it a column
SWAP = "pgvec.swap_model"  # of a collection: who swaps its model
_DOING = {BUILD: "building an index on", REBUILD: "rebuilding the index of"}
PATIENCE = 600.0  # seconds to wait for the transactions of others
_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds for which all others may have to queue behind us
_Result = TypeVar("_Result")
_POLL, _ENDING = 0.05, 1.0  # seconds: a session, and with it its locks, ends some moments after its connection


def lock(connection: Connection, lock: str, space: Space, *, transaction: bool = False) -> None:
    """Take a lock for this session, or until this transaction ends.

    Raises:
        IndexBuildError: another session has it, and not just for the moments in which it ends.
    """
    deadline = time.monotonic() + _ENDING
    while not try_lock(connection, lock, space.id, transaction=transaction):
        if time.monotonic() > deadline:
            raise IndexBuildError(f"another session is {_DOING[lock]} {space.vector_table}: wait for it to end")
        time.sleep(_POLL)


def try_lock(connection: Connection, lock: str, owner_id: int, *, transaction: bool = False) -> bool:
    """Take a lock for this session, or until this transaction ends; False if another session has it."""
    function = "pg_try_advisory_xact_lock" if transaction else "pg_try_advisory_lock"
    return connection.execute(f"SELECT {function}(hashtext(%s), %s)".encode(), [lock, owner_id]).fetchone() == (True,)


def unlock(connection: Connection, lock: str, space_id: int) -> None:
    """Give back a lock of this session."""
    connection.execute("SELECT pg_advisory_unlock(hashtext(%s), %s)", [lock, space_id])


def waits() -> Iterator[float]:
    """Yield growing waits until patience is at an end."""
    deadline = time.monotonic() + PATIENCE
    wait = _SHORTEST_WAIT
    while time.monotonic() < deadline:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT)


def briefly_alone(
    connection: Connection, table: sql.Identifier, work: Callable[[], _Result], again: str
) -> tuple[_Result, float, float]:
    """Work in a transaction that has a table for itself, and let nobody queue behind it for long.

    Returns what the work does, for how many seconds others may have had to wait for attempts that failed, and since
    when (`time.perf_counter()`) they may have to wait for the end of this transaction, or of that around it.

    Raises:
        IndexBuildError: the transactions of others lasted longer than `PATIENCE`; it says what to do `again` then.
    """
    stalled = 0.0
    for wait in waits():
        began = time.perf_counter()
        with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected), connection.transaction():
            # It stops no reader and no writer, and only for it does autovacuum give way.
            lock_table(connection, table, "SHARE UPDATE EXCLUSIVE")
            began = time.perf_counter()
            connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{wait * 1000:.0f}ms"])
            lock_table(connection, table, "ACCESS EXCLUSIVE")
            return work(), stalled, began
        stalled = max(stalled, time.perf_counter() - began)
        time.sleep(4 * wait)
    raise out_of_patience(connection, table, again)


def lock_table(connection: Connection, table: sql.Identifier, mode: str) -> None:
    """Lock a table until the transaction ends."""
    connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(table, sql.SQL(mode)))


def out_of_patience(connection: Connection, table: sql.Identifier, again: str) -> IndexBuildError:
    """Return an error that names who holds a table."""
    row = connection.execute(
        "SELECT t::text, ARRAY(SELECT DISTINCT l.pid::text FROM pg_locks l"
        " WHERE l.relation = t AND l.granted AND l.pid <> pg_backend_pid()) FROM CAST(%s AS regclass) t",
        [table.as_string(connection)],
    ).fetchone()
    assert row is not None
    return IndexBuildError(
        f"{row[0]} has been in use by others for {PATIENCE:.0f} s "
        f"(pg_stat_activity.pid: {', '.join(row[1]) or 'none now'}): {again} when their transactions have ended"
    )
