"""Queries to measure with: where they come from, and running them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg import RawCursor
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import TuningError
from pgvec_toolkit.vectors import vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

ENOUGH_LOGGED = 100  # different queries, for the log to be preferred to stored rows


@dataclass(frozen=True)
class Queries:
    """Query vectors, and which stored row each is, if it is one and must not find itself.

    Attributes:
        vectors: of length n, as `VectorType.query` returns them; of type vector they may be one matrix.
        own_keys: int64 of shape (n,); -1 for a query that is not a stored row.
    """

    vectors: NDArray[np.float32] | list[Any]
    own_keys: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: NDArray[np.intp]) -> Queries:
        """Return some of the queries."""
        vectors = self.vectors
        taken = [vectors[row] for row in rows] if isinstance(vectors, list) else vectors[rows]
        return Queries(taken, self.own_keys[rows])

    @classmethod
    def from_vectors(cls, vectors: NDArray[np.float32] | list[Any]) -> Queries:
        """Return queries that are not stored rows."""
        if not isinstance(vectors, list):
            vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        return cls(vectors, np.full(len(vectors), -1))


@dataclass(frozen=True)
class Chosen:
    """Queries, and where they are from.

    Attributes:
        queries: at least one, unless they are of an empty space.
        source: given, log or stored.
        filters: of logged ones the filter of each, or None.
    """

    queries: Queries
    source: str
    filters: Sequence[Any] = ()


def choose(
    connection: Connection,
    collection: str,
    space: Space,
    asked: Queries | str | None,
    count: int,
    *,
    enough: int = ENOUGH_LOGGED,
) -> Chosen | None:
    """Return the queries to measure with, or None: stored rows have to do.

    Args:
        connection: to read with.
        collection: its name.
        space: of the collection.
        asked: queries that are given; "log"; or None: the log, if it may be read and has enough different queries.
        count: of the log the newest.
        enough: see there.

    Raises:
        TuningError: nothing is logged.
    """
    if isinstance(asked, Queries):
        return Chosen(asked, "given")
    if asked is None:
        row = connection.execute("SELECT has_table_privilege('pgvec.query_log', 'SELECT')").fetchone()
        if row != (True,):
            return None
    found, filters = logged(connection, collection, space, max(count, enough))
    if asked is None and len(found) < enough:
        return None
    if not len(found):
        raise TuningError("no queries are logged: log_queries(), or pgvec log --share, samples them; or give some")
    return Chosen(found.take(np.arange(min(count, len(found)))), "log", filters[:count])


def sampled(connection: Connection, space: Space, count: int, *, same: bool = False) -> Queries:
    """Draw stored rows to be queries; fewer if there are not so many. `same`: those of the last time."""
    function = "_stored_sql" if same else "_sample_sql"
    row = connection.execute(
        f"SELECT pgvec.{function}(pgvec._collection(c.name), pgvec._current_space(s), %s::integer)"
        " FROM pgvec.vector_spaces s JOIN pgvec.collections c ON c.id = s.collection_id WHERE s.id = %s".encode(),
        [count, space.id],
    ).fetchone()
    assert row is not None
    rows = connection.execute(str(row[0]).encode(), binary=True).fetchall()
    kind = vector_type(space.type)
    return Queries([kind.loaded(vector) for _, vector in rows], np.asarray([key for key, _ in rows], dtype=np.int64))


def logged(connection: Connection, collection: str, space: Space, count: int) -> tuple[Queries, list[Any]]:
    """Return the newest different queries of the log (SQL: table pgvec.query_log), and the filter of each or None."""
    row = connection.execute(
        "SELECT pgvec._logged_sql(pgvec._space(%s, %s), %s::integer)", [collection, space.name, count]
    ).fetchone()
    assert row is not None
    rows = connection.execute(str(row[0]).encode(), binary=True).fetchall()
    kind = vector_type(space.type)
    return Queries.from_vectors([kind.loaded(vector) for vector, _ in rows]), [filter for _, filter in rows]


def nearest_sql(
    connection: Connection, collection: str, k: int, *, beyond: int = 0, space: str | None = None, **options: Any
) -> str:
    """Return the statement that finds (key, distance, exact) of the k nearest, and some beyond, as a search for k does.

    Options that are not None decide its text: filter, ef_search, oversampling, exact, recall; base, in the place of
    the tuned setting.
    """
    given = {name: value for name, value in options.items() if value is not None}
    row = connection.execute(
        "SELECT pgvec._nearest_sql(pgvec._collection(%s), pgvec._space(%s, %s), %s, %s::integer, %s::integer)",
        [collection, collection, space, Jsonb(given), k, beyond],
    ).fetchone()
    assert row is not None
    return str(row[0])


def found_distances(
    connection: Connection, statement: str, queries: Queries, k: int, filter: Any = None
) -> list[NDArray[np.float64]]:
    """Run a statement of `pgvec._nearest_sql` for each query; return distances, ascending, at most k."""
    text = statement.encode()
    found = []
    for vector, own_key in zip(queries.vectors, queries.own_keys, strict=True):
        parameters = [vector] if filter is None else [vector, Jsonb(filter)]
        rows = RawCursor(connection).execute(text, parameters, prepare=True, binary=True).fetchall()
        found.append(np.sort([distance for key, distance, _ in rows if key != own_key])[:k])
    return found


def permuted(queries: Queries, filters: Sequence[Any] = ()) -> tuple[Queries, list[Any]]:
    """Return queries, and what goes with each, in an order that says nothing: the first n are a sample of all."""
    order = np.random.default_rng(0).permutation(len(queries))
    return queries.take(order), [filters[row] for row in order] if filters else []
