"""Vector indexes that are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.schema import locks

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space


@dataclass(frozen=True)
class Index:
    """A vector index that is there.

    Attributes:
        name: its name.
        method: hnsw or ivfflat.
        form: full, halfvec, binary or prefix; other, if it is none that pgvec builds.
        dimensions: that it holds; fewer than the space's for a prefix.
        options: as built, for example ["m=24", "ef_construction=200"].
        valid: whether its build was completed.
        usable: whether searches use it.
        size: bytes on disk.
    """

    name: str
    method: str
    form: str
    dimensions: int
    options: list[str]
    valid: bool
    usable: bool
    size: int


_THERE = "SELECT index_name, method, usable FROM pgvec.indexes(%s, %s)"


def drop(database: Pool, collection: str, space: Space, name: str | None) -> list[str]:
    """Drop an index by name, or all of a space, and forget what was tuned for them; returns their names.

    All of it in one transaction, and under the locks of builders: what they work on is not to vanish.
    """
    with database.dedicated_connection() as connection, connection.transaction():
        for lock in (locks.REBUILD, locks.BUILD):
            locks.lock(connection, lock, space, transaction=True)
        there = {index: method for index, method, _ in connection.execute(_THERE, [collection, space.name])}
        if name is not None and name not in there:
            raise ConfigurationError(
                f"collection {collection!r} has no vector index {name!r}; it has {', '.join(there) or 'none'}"
            )
        dropped = list(there) if name is None else [name]
        for each in dropped:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(space.schema, each)))
        left = {method for _, method, usable in connection.execute(_THERE, [collection, space.name]) if usable}
        for method in sorted({"hnsw", "ivfflat"} - left):
            forget_profiles(connection, space, method)
    return dropped


def forget_profiles(connection: Connection, space: Space, method: str | None = None) -> None:
    """End what was measured of an index that is no longer there: tuning profiles become history."""
    connection.execute(
        "UPDATE pgvec.tuning_profiles SET superseded_at = now()"
        " WHERE space_id = %s AND index_method = coalesce(%s, index_method) AND superseded_at IS NULL",
        [space.id, method],
    )
    connection.execute("DELETE FROM pgvec.calibrations WHERE space_id = %s", [space.id])
