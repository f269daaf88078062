"""Distances: one value knows what it applies to, its operator classes, and how it is computed over matrices."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from pgvec_toolkit.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Distance(StrEnum):
    """A distance of pgvector; the SQL side of the same table is `pgvec._distance`."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "inner_product"
    L1 = "l1"
    HAMMING = "hamming"
    JACCARD = "jaccard"

    @property
    def types(self) -> tuple[str, ...]:
        """The vector types it applies to; to `vector[]` as the distance of two of its vectors."""
        if self in _OF_BITS:
            return ("bit",)
        numbers = ("vector", "halfvec", "sparsevec")
        return (*numbers, "vector[]") if self in _OF_SEVERAL else numbers

    @property
    def operator(self) -> str:
        """The operator by which pgvector computes it."""
        return _OPERATORS[self]

    def opclass(self, type: str) -> str:
        """Return the operator class of an HNSW or IVFFlat index on a vector type."""
        if type not in self.types or type == "vector[]":
            raise ConfigurationError(f"there is no index of type {type} by distance {self}")
        return f"{type}_{_SUFFIXES.get(self, self)}_ops"

    def supports_ivfflat(self, type: str) -> bool:
        """Whether pgvector has an IVFFlat operator class for it."""
        if type == "bit":
            return self is Distance.HAMMING
        return type in ("vector", "halfvec") and self in (Distance.L2, Distance.INNER_PRODUCT, Distance.COSINE)

    def matrix(self, queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return all distances, shape (queries, vectors), by one BLAS product where there is one.

        Bits are given as float32 zeros and ones.
        """
        import numpy as np

        distances: NDArray[np.float32]
        if self is Distance.L1:
            return np.stack([np.abs(vectors - query).sum(axis=1) for query in queries])
        if self is Distance.L2:
            # Far from the origin the squares cancel: of float32 nothing would be left.
            left, right = queries.astype(np.float64), vectors.astype(np.float64)
            squares = np.add.outer((left**2).sum(axis=1), (right**2).sum(axis=1))
            distances = np.sqrt(np.maximum(squares - 2 * (left @ right.T), 0)).astype(np.float32)
            return distances
        products: NDArray[np.float32] = queries @ vectors.T
        if self is Distance.INNER_PRODUCT:
            return -products
        if self is Distance.COSINE:
            lengths = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(vectors, axis=1))
            return (1 - products / lengths).astype(np.float32)
        # Of zeros and ones the product counts the bits set in both; whole numbers up to 2 ** 24 are exact.
        either: NDArray[np.float32] = np.add.outer(queries.sum(axis=1), vectors.sum(axis=1)) - products
        if self is Distance.HAMMING:
            return either - products
        return (1 - products / np.maximum(either, 1)).astype(np.float32)


_OF_BITS = (Distance.HAMMING, Distance.JACCARD)
_OF_SEVERAL = (Distance.COSINE, Distance.INNER_PRODUCT)
_SUFFIXES = {Distance.INNER_PRODUCT: "ip"}
_OPERATORS = {
    Distance.COSINE: "<=>",
    Distance.L2: "<->",
    Distance.INNER_PRODUCT: "<#>",
    Distance.L1: "<+>",
    Distance.HAMMING: "<~>",
    Distance.JACCARD: "<%>",
}
