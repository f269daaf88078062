"""Distances: one value knows its operator, its operator class, and how it becomes a similarity."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Distance(StrEnum):
    """A distance of pgvector; the SQL side of the same table is `pgvec._distance`."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "inner_product"
    L1 = "l1"

    @property
    def operator(self) -> str:
        """The operator; `<#>` is the *negative* inner product, so smaller is nearer for all four."""
        return _OPERATORS[self]

    @property
    def opclass(self) -> str:
        """The operator class of an HNSW or IVFFlat index on type `vector`."""
        return f"vector_{_OPCLASSES[self]}_ops"

    @property
    def supports_ivfflat(self) -> bool:
        """Whether pgvector has an IVFFlat operator class for it."""
        return self is not Distance.L1

    def matrix(self, queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return all distances, shape (queries, vectors), by one BLAS product where there is one."""
        import numpy as np

        if self is Distance.L1:
            return np.stack([np.abs(vectors - query).sum(axis=1) for query in queries])
        if self is not Distance.L2:
            products: NDArray[np.float32] = queries @ vectors.T
            if self is Distance.INNER_PRODUCT:
                return -products
            lengths = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(vectors, axis=1))
            return (1 - products / lengths).astype(np.float32)
        # Far from the origin the squares cancel: of float32 nothing would be left.
        left, right = queries.astype(np.float64), vectors.astype(np.float64)
        squares = np.add.outer((left**2).sum(axis=1), (right**2).sum(axis=1))
        distances: NDArray[np.float32] = np.sqrt(np.maximum(squares - 2 * (left @ right.T), 0)).astype(np.float32)
        return distances


_OPERATORS = {Distance.COSINE: "<=>", Distance.L2: "<->", Distance.INNER_PRODUCT: "<#>", Distance.L1: "<+>"}
_OPCLASSES = {Distance.COSINE: "cosine", Distance.L2: "l2", Distance.INNER_PRODUCT: "ip", Distance.L1: "l1"}
