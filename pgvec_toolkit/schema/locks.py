"""The advisory locks of those who build, rebuild and drop the vector indexes of a space."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection

BUILD = "pgvec.build_index"  # what one session is building looks like a leftover to others
REBUILD = "pgvec.rebuild_index"  # of who makes or clears the replacement of an index


def try_lock(connection: Connection, lock: str, space_id: int, *, transaction: bool = False) -> bool:
    """Take a lock for this session, or until this transaction ends; False if another session has it."""
    function = "pg_try_advisory_xact_lock" if transaction else "pg_try_advisory_lock"
    return connection.execute(f"SELECT {function}(hashtext(%s), %s)".encode(), [lock, space_id]).fetchone() == (True,)


def unlock(connection: Connection, lock: str, space_id: int) -> None:
    """Give back a lock of this session."""
    connection.execute("SELECT pg_advisory_unlock(hashtext(%s), %s)", [lock, space_id])
