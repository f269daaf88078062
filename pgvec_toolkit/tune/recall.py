"""Recall: how much of the truth a search returns, judged by distance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg import RawCursor, sql
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import TuningError
from pgvec_toolkit.vectors import FixedWidth, vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

# PostgreSQL and BLAS add up in different orders; two float32 sums differ by less than this.
TOLERANCE = 5e-6
_ROWS_PER_BLOCK = 4096
_NUMBERS_PER_BLOCK = 2**22  # a block of long vectors has fewer rows


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
class Recall:
    """Recall@k of searches.

    Attributes:
        recall: mean over the queries.
        recall_p5: what all but the worst 5 % of them reach.
        queries: how many were measured.
        short_results: how many returned fewer rows than exist.
        k: of recall@k.
    """

    recall: float
    recall_p5: float
    queries: int
    short_results: int
    k: int


def sampled(connection: Connection, space: Space, count: int) -> Queries:
    """Draw stored rows to be queries; fewer if there are not so many."""
    row = connection.execute(
        "SELECT pgvec._sample_sql(%s, %s, %s)", [space.schema, space.vector_table, count]
    ).fetchone()
    assert row is not None
    rows = connection.execute(str(row[0]).encode(), binary=True).fetchall()
    kind = vector_type(space.type)
    return Queries([kind.loaded(vector) for _, vector in rows], np.asarray([key for key, _ in rows], dtype=np.int64))


def exact_distances(connection: Connection, space: Space, queries: Queries, k: int) -> NDArray[np.float32]:
    """Return the distances of the k nearest of each query, ascending, of shape (n, k); inf where there are fewer.

    All vectors are read once, by binary COPY, and compared block by block: memory stays flat. Of types that are
    no matrix PostgreSQL scans them, once a query.
    """
    best = np.full((len(queries), k), np.inf, dtype=np.float32)
    kind = vector_type(space.type)
    if not isinstance(kind, FixedWidth):
        for row, found in enumerate(_scanned(connection, space, queries, k)):
            best[row, : len(found)] = found
        return best
    matrix = kind.matrix(queries.vectors, space.dimensions)
    for keys, vectors in _stored_vectors(connection, space, kind):
        distances = space.distance.matrix(matrix, vectors)
        distances[queries.own_keys[:, None] == keys[None, :]] = np.inf
        candidates = np.concatenate([best, distances], axis=1)
        best = np.partition(candidates, k - 1, axis=1)[:, :k]
    return np.sort(best, axis=1)


def _scanned(connection: Connection, space: Space, queries: Queries, k: int) -> list[NDArray[np.float64]]:
    """Return what `exact_distances` does, by an exact search for each query."""
    row = connection.execute("SELECT name FROM pgvec.collections WHERE id = %s", [space.collection_id]).fetchone()
    assert row is not None
    # One more, for the query itself.
    statement = nearest_sql(connection, row[0], k + 1, exact=True, space=space.name)
    return found_distances(connection, statement, queries, k)


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


def nearest_sql(
    connection: Connection, collection: str, k: int, *, beyond: int = 0, space: str | None = None, **options: Any
) -> str:
    """Return the statement that finds (key, distance, exact) of the k nearest, and some beyond, as a search for k does.

    Options that are not None decide its text: filter, ef_search, oversampling, exact.
    """
    given = {name: value for name, value in options.items() if value is not None}
    row = connection.execute(
        "SELECT pgvec._nearest_sql(pgvec._collection(%s), pgvec._space(%s, %s), %s, %s::integer, %s::integer)",
        [collection, collection, space, Jsonb(given), k, beyond],
    ).fetchone()
    assert row is not None
    return str(row[0])


def shares(truth: Sequence[NDArray[Any]] | NDArray[Any], found: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the recall of each query: the share of its true nearest that are matched in distance.

    By distance, not by key: of exact duplicates, any one is as good as another.
    """
    result = []
    for true, got in zip(truth, found, strict=True):
        reachable = true[np.isfinite(true)]
        if len(reachable):
            bound = reachable[-1] + TOLERANCE * max(1.0, abs(float(reachable[-1])))
            result.append(min(1.0, float((got <= bound).sum()) / len(reachable)))
        else:
            result.append(1.0)
    return np.asarray(result, dtype=np.float64)


def summarize(truth: Sequence[NDArray[Any]] | NDArray[Any], found: Sequence[NDArray[Any]], k: int) -> Recall:
    """Return mean and 5th percentile of recall, and the number of short results."""
    each = shares(truth, found)
    short = sum(len(got) < np.isfinite(true).sum() for true, got in zip(truth, found, strict=True))
    return Recall(float(each.mean()), float(np.quantile(each, 0.05)), len(each), int(short), k)


def measure(
    connection: Connection, collection: str, space: Space, queries: Queries, k: int, filter: Any = None
) -> Recall:
    """Measure recall@k of searches as they are, for queries that are given."""
    statement = nearest_sql(connection, collection, k, filter=filter, space=space.name)
    found = found_distances(connection, statement, queries, k, filter)
    if filter is None:
        return summarize(exact_distances(connection, space, queries, k), found, k)
    exact = nearest_sql(connection, collection, k, filter=filter, exact=True, space=space.name)
    return summarize(found_distances(connection, exact, queries, k, filter), found, k)


def measure_sample(
    connection: Connection, collection: str, space: Space, count: int, k: int, filter: Any = None
) -> Recall:
    """Measure recall@k for stored rows drawn at random (SQL: `pgvec.recall`)."""
    row = connection.execute(
        "SELECT recall, recall_p5, queries_measured, short_results"
        " FROM pgvec.recall(%s, %s::integer, %s::integer, %s, %s)",
        [collection, k, count, None if filter is None else Jsonb(filter), space.name],
    ).fetchone()
    if row is None or row[0] is None:
        raise TuningError(f"collection {collection!r} holds too little to measure recall on")
    share, share_p5, measured, short = row
    return Recall(share, share_p5, measured, short, k)


def _stored_vectors(
    connection: Connection, space: Space, kind: FixedWidth
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    statement = sql.SQL("COPY {} (key, embedding) TO STDOUT (FORMAT binary)").format(space.vectors)
    rows = max(1, min(_ROWS_PER_BLOCK, _NUMBERS_PER_BLOCK // space.dimensions))
    with connection.cursor().copy(statement) as copy:
        yield from kind.read_rows((bytes(block) for block in copy), space.dimensions, rows)
