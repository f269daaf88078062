"""The advisory locks of those who build, rebuild and drop the vector indexes of a space."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgvec_toolkit.errors import IndexBuildError

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

BUILD = "pgvec.build_index"  # what one session is building looks like a leftover to others
REBUILD = "pgvec.rebuild_index"  # of who makes or clears the replacement of an index
_DOING = {BUILD: "building an index on", REBUILD: "rebuilding the index of"}
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


def try_lock(connection: Connection, lock: str, space_id: int, *, transaction: bool = False) -> bool:
    """Take a lock for this session, or until this transaction ends; False if another session has it."""
    function = "pg_try_advisory_xact_lock" if transaction else "pg_try_advisory_lock"
    return connection.execute(f"SELECT {function}(hashtext(%s), %s)".encode(), [lock, space_id]).fetchone() == (True,)


def unlock(connection: Connection, lock: str, space_id: int) -> None:
    """Give back a lock of this session."""
    connection.execute("SELECT pg_advisory_unlock(hashtext(%s), %s)", [lock, space_id])
