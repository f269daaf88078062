"""Ground truth: how far the nearest really are; kept, as long as the data stay as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from pgvec_toolkit.tune.nearest import Nearest
from pgvec_toolkit.tune.queries import Queries, found_distances, nearest_sql
from pgvec_toolkit.vectors import FixedWidth, vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

_ROWS_PER_BLOCK = 8192
_NUMBERS_PER_BLOCK = 2**23  # a block of long vectors, or for many queries, has fewer rows
_KEPT = 8  # ground truths of a space
_MAY_KEEP = """
SELECT has_table_privilege('pgvec.ground_truths', 'SELECT'),
       has_table_privilege('pgvec.ground_truths', 'INSERT') AND has_table_privilege('pgvec.ground_truths', 'UPDATE')
       AND has_table_privilege('pgvec.ground_truths', 'DELETE')
       AND NOT current_setting('default_transaction_read_only')::boolean AND NOT pg_is_in_recovery()
"""
_KEEP = """
INSERT INTO pgvec.ground_truths AS g (space_id, queries_hash, k, data_version, distances) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (space_id, queries_hash) DO UPDATE SET
    k = excluded.k, data_version = excluded.data_version, distances = excluded.distances, computed_at = now()
"""
_FORGET = """
DELETE FROM pgvec.ground_truths WHERE space_id = %s AND queries_hash NOT IN (
    SELECT g.queries_hash FROM pgvec.ground_truths g WHERE g.space_id = %s ORDER BY g.computed_at DESC LIMIT %s)
"""


def ground_truth(connection: Connection, space: Space, queries: Queries, k: int) -> NDArray[np.float32]:
    """Return what `exact_distances` does; from pgvec.ground_truths, if nothing was written since it was computed.

    A role that may not write there computes it each time.
    """
    may_keep = connection.execute(_MAY_KEEP).fetchone()
    assert may_keep is not None
    if not may_keep[0]:
        return exact_distances(connection, space, queries, k)
    digest = _digest(space, queries)
    with connection.transaction():
        # The version is of what is compared.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        row = connection.execute("SELECT pgvec._data_version(%s, %s)", [space.schema, space.vector_table]).fetchone()
        assert row is not None
        known = connection.execute(
            "SELECT k, distances FROM pgvec.ground_truths"
            " WHERE space_id = %s AND queries_hash = %s AND data_version = %s AND k >= %s",
            [space.id, digest, row[0], k],
        ).fetchone()
        if known is not None:
            return np.frombuffer(known[1], dtype="<f4").reshape(len(queries), known[0])[:, :k].astype(np.float32)
        truth = exact_distances(connection, space, queries, k)
    if may_keep[1]:
        with connection.transaction():
            connection.execute(_KEEP, [space.id, digest, k, row[0], truth.astype("<f4").tobytes()])
            connection.execute(_FORGET, [space.id, space.id, _KEPT])
    return truth


def exact_distances(connection: Connection, space: Space, queries: Queries, k: int) -> NDArray[np.float32]:
    """Return the distances of the k nearest of each query, ascending, of shape (n, k); inf where there are fewer.

    All vectors are read once, by binary COPY, and compared block by block: memory stays flat. Of types that are
    no matrix PostgreSQL scans them, once a query.
    """
    kind = vector_type(space.type)
    if not isinstance(kind, FixedWidth):
        best = np.full((len(queries), k), np.inf, dtype=np.float32)
        for row, found in enumerate(_scanned(connection, space, queries, k)):
            best[row, : len(found)] = found
        return best
    nearest = Nearest(space.distance, kind.matrix(queries.vectors, space.dimensions), queries.own_keys, k)
    rows = max(1, min(_ROWS_PER_BLOCK, _NUMBERS_PER_BLOCK // max(space.dimensions, len(queries))))
    for keys, vectors in stored_vectors(connection, space, kind, rows):
        nearest.add(keys, vectors)
    return nearest.distances


def stored_vectors(
    connection: Connection, space: Space, kind: FixedWidth, rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield all vectors of a space, so many at a time, and their keys."""
    statement = sql.SQL("COPY (SELECT v.key::bigint, v.embedding FROM {} v) TO STDOUT (FORMAT binary)").format(
        space.vector_rows
    )
    with connection.cursor().copy(statement) as copy:
        yield from kind.read_rows((bytes(block) for block in copy), space.dimensions, rows)


def _scanned(connection: Connection, space: Space, queries: Queries, k: int) -> list[NDArray[np.float64]]:
    """Return what `exact_distances` does, by an exact search for each query."""
    row = connection.execute("SELECT name FROM pgvec.collections WHERE id = %s", [space.collection_id]).fetchone()
    assert row is not None
    # One more, for the query itself.
    statement = nearest_sql(connection, row[0], k + 1, exact=True, space=space.name)
    return found_distances(connection, statement, queries, k)


def _digest(space: Space, queries: Queries) -> bytes:
    """Return what tells sets of queries apart."""
    kind = vector_type(space.type)
    digest = hashlib.sha256(f"{space.type} {space.dimensions} {space.distance} {len(queries)} ".encode())
    digest.update(queries.own_keys.astype("<i8").tobytes())
    if isinstance(kind, FixedWidth):
        digest.update(kind.matrix(queries.vectors, space.dimensions).astype("<f4").tobytes())
    else:
        for vector in queries.vectors:
            digest.update(str(vector).encode())
    return digest.digest()
