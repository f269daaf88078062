"""Vector indexes that are there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

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


class Present(NamedTuple):
    """An index that is there: `building`, it, or another one of the table, by anybody; never of one that is valid."""

    name: str
    method: str
    valid: bool
    usable: bool
    building: bool


_PRESENT = """
SELECT i.name::text, i.method::text, i.valid, i.usable, NOT i.valid AND pgvec._is_building(%s::regclass)
FROM pgvec.vector_spaces s, pgvec._indexes(%s::regclass, pgvec._current_space(s)) WITH ORDINALITY
     AS i (oid, name, method, form, options, valid, usable, dimensions, lists, shape, position)
WHERE s.id = %s ORDER BY i.position
"""
_INVALID = """
SELECT FROM pg_index x WHERE x.indexrelid = to_regclass(%s) AND NOT x.indisvalid AND NOT pgvec._is_building(x.indrelid)
"""
_NEEDED = ["SELECT, UPDATE ON pgvec.tuning_profiles", "SELECT, DELETE ON pgvec.calibrations"]


def present(connection: Connection, space: Space) -> list[Present]:
    """Return the vector indexes of a space; of those that are usable searches use the first."""
    table = space.vectors.as_string(connection)
    return [Present(*row) for row in connection.execute(_PRESENT, [table, table, space.id])]


def drop(database: Pool, collection: str, space: Space, name: str | None) -> list[str]:
    """Drop an index by name, or all of a space, and forget what was tuned for them; returns their names.

    All of it in one transaction, and under the locks of builders: what they work on is not to vanish.
    """
    with database.dedicated_connection() as connection, connection.transaction():
        for lock in (locks.REBUILD, locks.BUILD):
            locks.lock(connection, lock, space, transaction=True)
        there = present(connection, space)
        names = [index.name for index in there]
        if name is not None and name not in names:
            raise ConfigurationError(
                f"collection {collection!r} has no vector index {name!r}; it has {', '.join(names) or 'none'}"
            )
        dropped = [index for index in there if name in (None, index.name)]
        if dropped:
            check_may_forget(connection, "drop_index")
            work = partial(_drop, connection, space, there, dropped)
            locks.briefly_alone(connection, space.vectors, work, "drop it again")
    return [index.name for index in dropped]


def _drop(connection: Connection, space: Space, there: list[Present], dropped: list[Present]) -> None:
    for index in dropped:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(space.schema, index.name)))
    left = {index.method for index in there if index.usable and index not in dropped}
    for method in sorted({index.method for index in dropped} - left):
        forget_profiles(connection, space, method)
    if not left or there[0] in dropped:
        forget_calibration(connection, space)


def drop_if_invalid(connection: Connection, schema: str, name: str) -> bool:
    """Drop an index that a build has left INVALID; returns whether it was one, and nobody is building on its table.

    The connection is autocommit and has the lock of builders, which those who build by hand do not take.
    """
    index = sql.Identifier(schema, name)
    if connection.execute(_INVALID, [index.as_string(connection)]).fetchone() is None:
        return False
    connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(index))
    return True


def check_may_forget(connection: Connection, what: str) -> None:
    """Raise ConfigurationError where `forget_profiles` and `forget_calibration` would fail."""
    connection.execute("SELECT pgvec._check_stores(%s, VARIADIC %s::text[])", [what, _NEEDED])


def forget_profiles(connection: Connection, space: Space, method: str) -> None:
    """End what was measured of an index that is no longer there: tuning profiles become history."""
    connection.execute(
        "UPDATE pgvec.tuning_profiles SET superseded_at = now()"
        " WHERE space_id = %s AND index_method = %s AND superseded_at IS NULL",
        [space.id, method],
    )


def forget_calibration(connection: Connection, space: Space) -> None:
    """End what was measured of the index that searches used."""
    connection.execute("DELETE FROM pgvec.calibrations WHERE space_id = %s", [space.id])
