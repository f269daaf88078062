"""A collection for trying indexes on: rows of another one, each index beside the others on a table of its own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import RawCursor, sql

from pgvec_toolkit.errors import PgvecError
from pgvec_toolkit.vectors import vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space

PREFIX = "pgvec_advice_"  # as `pgvec._scratch_names` has it; a user's own collection may begin like that
_HELD = "held"
_LOCK = "hashtext('pgvec.advise'), hashtext(%s)"


@dataclass
class Scratch:
    """A collection that lives for the length of a comparison.

    Its default space holds the rows that are held back: to ask for, and to insert. Each index gets a space with a
    copy of the rows, unlogged, so that a standby has nothing to copy.

    Attributes:
        database: where it is.
        source: the space whose rows it has.
        name: of the collection.
        rows: copied into each space.
        held: rows held back.
    """

    database: Pool
    source: Space
    name: str
    rows: int = 0
    held: int = 0

    def draw(self, most: int | None, held: int) -> None:
        """Choose rows of the source, the same ones each time, and hold some of them back."""
        with self.database.connection() as connection:
            RawCursor(connection).execute(  # names may have a % in them
                sql.SQL(
                    "INSERT INTO {chunks} (key, id, document_id, position) "
                    "SELECT d.key, d.key::text, '', (d.place <= $1)::integer FROM ("
                    "SELECT v.key, row_number() OVER (ORDER BY hashint8(v.key), v.key) AS place FROM {source} v) d "
                    "WHERE d.place <= coalesce($2::bigint, d.place)"
                ).format(chunks=self._table(), source=self.source.vector_rows),
                [held, None if most is None else most + held],
            )
            self.held = self._copy(connection, self.source.vector_rows, _HELD, 1)

    def add(self, space: str) -> None:
        """Add a space with a copy of the rows that are not held back."""
        with self.database.connection() as connection:
            first = not self.rows
            self._add_space(connection, space)
            origin = self.source.vector_rows if first else self._table("c0")
            self.rows = self._copy(connection, origin, space, 0)

    def held_back(self, count: int) -> list[Any]:
        """Return vectors that are held back, as queries are bound."""
        kind = vector_type(self.source.type)
        statement = sql.SQL("SELECT v.embedding FROM {} v ORDER BY hashint8(v.key) LIMIT {}").format(
            self._table(_HELD), sql.Literal(count)
        )
        with self.database.connection() as connection:
            return [kind.loaded(vector) for (vector,) in connection.execute(statement, binary=True).fetchall()]

    def insert(self, space: str, count: int) -> float:
        """Insert rows that were held back into the indexed table of a space; return milliseconds a row."""
        statement = sql.SQL(
            "INSERT INTO {} (key, embedding) SELECT v.key, v.embedding FROM {} v ORDER BY hashint8(v.key) LIMIT {}"
        ).format(self._table(space), self._table(_HELD), sql.Literal(count))
        with self.database.connection() as connection:
            began = time.perf_counter()
            inserted = connection.execute(statement).rowcount
            return (time.perf_counter() - began) / max(1, inserted) * 1000

    def _add_space(self, connection: Connection, space: str) -> None:
        source = self.source
        connection.execute(
            "SELECT pgvec.add_space(%s, %s, %s::integer, %s, %s)",
            [self.name, space, source.dimensions, source.type, str(source.distance)],
        )
        connection.execute(sql.SQL("ALTER TABLE {} SET UNLOGGED").format(self._table(space)))

    def _copy(self, connection: Connection, origin: sql.Composable, space: str, position: int) -> int:
        """Copy chosen rows into a space, inside the server; return how many."""
        return connection.execute(
            sql.SQL(
                "INSERT INTO {} (key, embedding) SELECT v.key, v.embedding FROM {} v JOIN {} c ON c.key = v.key "
                "WHERE c.position = {}"
            ).format(self._table(space), origin, self._table(), sql.Literal(position))
        ).rowcount

    def _table(self, space: str | None = None) -> sql.Identifier:
        return sql.Identifier(self.source.schema, self.name if space is None else f"{self.name}_{space}")


@contextmanager
def scratch(database: Pool, source: Space) -> Iterator[Scratch]:
    """Make a scratch collection beside a source, and drop it in the end, whatever happens.

    Its session holds a lock by its name: what a killed process left is not locked, and the next one drops it.
    """
    made = Scratch(database, source, f"{PREFIX}{secrets.token_hex(4)}")
    with database.dedicated_connection() as guard:
        _drop_leftovers(guard)
        guard.execute(f"SELECT pg_advisory_lock({_LOCK})".encode(), [made.name])
        try:
            guard.execute(
                "SELECT pgvec.create_collection(%s, %s::integer, distance => %s, space => %s, language => 'simple',"
                " schema => %s, type => %s, keywords => false)",
                [made.name, source.dimensions, str(source.distance), _HELD, source.schema, source.type],
            )
            yield made
        finally:
            guard.execute("SELECT pgvec.drop_collection(%s, true)", [made.name])


def _drop_leftovers(guard: Connection) -> None:
    """Drop scratch collections that nobody is using."""
    there = guard.execute("SELECT name FROM pgvec.collections WHERE name ~ pgvec._scratch_names()").fetchall()
    for (name,) in there:
        if guard.execute(f"SELECT pg_try_advisory_lock({_LOCK})".encode(), [name]).fetchone() == (True,):
            # Another role's, it may be: then that one will drop it.
            with suppress(psycopg.Error, PgvecError):
                guard.execute("SELECT pgvec.drop_collection(%s, true)", [name])
            guard.execute(f"SELECT pg_advisory_unlock({_LOCK})".encode(), [name])
