"""The index that a rebuild makes beside the old one, and what an interrupted rebuild leaves of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema.indexes import present

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space


def replacement_name(space: Space) -> str:
    """Return the name of the index that is to replace another; ends as PostgreSQL's own of REINDEX CONCURRENTLY do."""
    return f"{space.index_stem}_ccnew"


def clear_replacement(connection: Connection, space: Space) -> bool:
    """Drop what an interrupted rebuild left; returns whether there was something. The connection is autocommit.

    An index that somebody else is making is left alone, and so is one that is complete and has no other beside it
    that searches can use: they use it.
    """
    name = replacement_name(space)
    if not _is_left(connection, space, name) or not locks.try_lock(connection, locks.REBUILD, space.id):
        return False
    try:
        left = _is_left(connection, space, name)
        if left:
            index = sql.Identifier(space.schema, name)
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))
        return left
    finally:
        if not connection.broken:
            locks.unlock(connection, locks.REBUILD, space.id)


def _is_left(connection: Connection, space: Space, name: str) -> bool:
    there = {index.name: index for index in present(connection, space)}
    replacement = there.pop(name, None)
    return replacement is not None and (not replacement.valid or any(other.usable for other in there.values()))
