"""The index that a rebuild makes beside the old one, and what an interrupted rebuild leaves of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from pgvec_toolkit.schema import locks

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

_THERE = """
SELECT i.relname, x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
WHERE x.indrelid = %s::regclass AND a.amname IN ('hnsw', 'ivfflat')
"""


def replacement_name(space: Space) -> str:
    """Return the name of the index that is to replace another; ends as PostgreSQL's own of REINDEX CONCURRENTLY do."""
    return f"{space.vector_table}_ccnew"


def clear_replacement(connection: Connection, space: Space) -> bool:
    """Drop what an interrupted rebuild left; returns whether there was something. The connection is autocommit.

    An index that somebody else is making is left alone, and so is one that is complete and has no other beside it:
    searches use it.
    """
    name = replacement_name(space)
    if name not in _there(connection, space) or not locks.try_lock(connection, locks.REBUILD, space.id):
        return False
    try:
        there = _there(connection, space)
        left = name in there and (not there.pop(name) or any(there.values()))
        if left:
            index = sql.Identifier(space.schema, name)
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))
        return left
    finally:
        if not connection.broken:
            locks.unlock(connection, locks.REBUILD, space.id)


def _there(connection: Connection, space: Space) -> dict[str, bool]:
    """Return the vector indexes, name to whether it is valid."""
    return dict(connection.execute(_THERE, [space.vectors.as_string(connection)]).fetchall())
