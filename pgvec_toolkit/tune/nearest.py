"""The distances to the nearest of many vectors that come block by block: one matrix product a block, flat memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgvec_toolkit.distance import Distance

Vectors = NDArray[np.float32]
_NUMBERS_PER_CHUNK = 2**21  # of vectors gathered to be compared one by one
_EPSILON = 2e-6  # of a product of unit vectors in float32; ten times what is seen at 2,000 dimensions


class Nearest:
    """The k least distances so far from each of some queries to the vectors that were added.

    A product in float32 tells which vectors of a block can be among the nearest, allowing for its error. Of these
    few the distance is computed as it is defined.
    """

    def __init__(self, distance: Distance, queries: Vectors, own_keys: NDArray[np.int64], k: int) -> None:
        self._distance = distance
        self._queries = queries
        self._own_keys = own_keys
        self._stored = bool((own_keys >= 0).any())
        self._k = k
        self._best = np.full((len(queries), k), np.inf, dtype=np.float32)
        self._centre: Vectors | None = None
        if distance is Distance.COSINE:
            self._queries = _normalized(queries)

    @property
    def distances(self) -> NDArray[np.float32]:
        """The distances, ascending, of shape (queries, k); inf where there are fewer."""
        return np.sort(self._best, axis=1)

    def add(self, keys: NDArray[np.int64], vectors: Vectors) -> None:
        """Compare the queries with a block of vectors."""
        if self._distance is Distance.COSINE:
            vectors = _normalized(vectors)
        if self._distance is Distance.L2:
            vectors = self._centred(vectors)
        rough, limit, slack = self._rough(vectors)
        candidates = np.flatnonzero(rough <= limit[:, None])
        if len(candidates) > 4 * self._k * len(rough) and self._k + 1 < len(vectors):
            # Too many, as all of the first block are: the nearest of the block, and the query itself, bound the rest.
            limit = np.minimum(limit, np.partition(rough, self._k, axis=1)[:, self._k] + slack)
            candidates = np.flatnonzero(rough <= limit[:, None])
        queries, rows = np.divmod(candidates, len(vectors))
        if self._stored:
            others = self._own_keys[queries] != keys[rows]
            queries, rows = queries[others], rows[others]
        if len(queries):
            self._merge(queries, self._exact(queries, rows, vectors, rough))

    def _centred(self, vectors: Vectors) -> Vectors:
        """Return vectors as seen from among them: far from the origin their squares would leave nothing of float32."""
        if self._centre is None:
            self._centre = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
            self._queries = self._queries - self._centre
        return vectors - self._centre

    def _rough(self, vectors: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Return what orders the vectors of a block for each query; up to which they count; twice its error."""
        bound = self._best.max(axis=1)
        if self._distance is Distance.L2:
            squares = np.einsum("ij,ij->i", vectors, vectors)
            own = np.einsum("ij,ij->i", self._queries, self._queries)
            rough = (-2 * self._queries) @ vectors.T
            rough += squares
            slack = _EPSILON * 2 * (own + squares.max(initial=0))
            return rough, bound.astype(np.float64) ** 2 - own + slack, slack
        if self._distance in (Distance.COSINE, Distance.INNER_PRODUCT):
            rough = -self._queries @ vectors.T
            longest = np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max(initial=0))
            slack = _EPSILON * 2 * longest * np.linalg.norm(self._queries, axis=1)
            return rough, bound - (1 if self._distance is Distance.COSINE else 0) + slack, slack
        return self._distance.matrix(self._queries, vectors), bound, np.zeros_like(bound)

    def _exact(
        self, queries: NDArray[np.intp], rows: NDArray[np.intp], vectors: Vectors, rough: Vectors
    ) -> NDArray[np.float64]:
        """Return the distances of pairs of a query and a row."""
        if self._distance not in (Distance.L2, Distance.COSINE, Distance.INNER_PRODUCT):
            return rough[queries, rows].astype(np.float64)
        found = np.empty(len(queries))
        step = max(1, _NUMBERS_PER_CHUNK // vectors.shape[1])
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            left, right = self._queries[queries[part]], vectors[rows[part]]
            if self._distance is Distance.L2:
                left -= right
                found[part] = np.sqrt(np.einsum("ij,ij->i", left, left, dtype=np.float64))
            else:
                found[part] = -np.einsum("ij,ij->i", left, right, dtype=np.float64)
        return found + 1 if self._distance is Distance.COSINE else found

    def _merge(self, queries: NDArray[np.intp], distances: NDArray[np.float64]) -> None:
        """Take in distances of queries, which are in ascending order."""
        counts = np.bincount(queries, minlength=len(self._best))
        touched = np.flatnonzero(counts)
        found = np.full((len(touched), self._k + counts.max()), np.inf, dtype=np.float32)
        found[:, : self._k] = self._best[touched]
        places = self._k + np.arange(len(queries)) - (np.cumsum(counts) - counts)[queries]
        found[np.searchsorted(touched, queries), places] = distances
        self._best[touched] = np.partition(found, self._k - 1, axis=1)[:, : self._k]


def _normalized(vectors: Vectors) -> Vectors:
    """Return vectors of length 1; what has no direction is at the distance NaN, as PostgreSQL has it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            vectors / np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None], np.float32
        )
