"""The cache of embeddings in the database: what was embedded once is not embedded, or paid for, again.

SQL: `pgvec.embedding_cache`, bounded by `pgvec.cache_embeddings`, emptied by `pgvec.forget_embeddings`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus

from pgvec_toolkit.embed import base
from pgvec_toolkit.embed.base import Embedder

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection

_FORMS = (None, "sparsevec")  # types of vectors that can be packed


class EmbeddingCache:
    """Embeddings that a database keeps of one embedder.

    Args:
        connection: autocommit, and in no transaction.
        embedder: whose vectors they are.
    """

    def __init__(self, connection: Connection, embedder: Embedder) -> None:
        self._connection = connection
        self._embedder = embedder
        self._fingerprint = base.fingerprint(embedder)

    @classmethod
    def of(cls, embedder: Embedder, connection: Connection | None) -> EmbeddingCache | None:
        """Return the cache of a database; None if it is not for this embedder, or not now."""
        if connection is None or not base.is_cached(embedder) or base.vector_type_of(embedder) not in _FORMS:
            return None
        if connection.info.transaction_status != TransactionStatus.IDLE:
            return None  # in a transaction what is kept would be lost with it, and others would wait for its end
        return cls(connection, embedder)

    def find(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the vectors that are kept, by text."""
        if not texts:
            return {}
        by_hash = dict(zip(_hashes(texts), texts, strict=True))
        cursor = self._connection.cursor(binary=True)
        cursor.execute(
            "SELECT text_hash, embedding FROM pgvec._cached_embeddings(%s, %b)", [self._fingerprint, list(by_hash)]
        )
        found = ((by_hash[hash], self._unpacked(packed)) for hash, packed in cursor)
        return {text: vector for text, vector in found if vector is not None}

    def keep(self, texts: Sequence[str], vectors: Iterable[Any]) -> None:
        """Add the vectors of some texts, at once and for good; those that others have added meanwhile stay."""
        self._connection.execute(
            "SELECT pgvec._keep_embeddings(%s, %b, %b)",
            [self._fingerprint, _hashes(texts), [self._packed(vector) for vector in vectors]],
        )

    def _packed(self, vector: Any) -> bytes:
        if base.vector_type_of(self._embedder) is None:
            return bytes(vector.astype("<f4", copy=False).tobytes())
        return bytes(vector.to_binary())

    def _unpacked(self, packed: bytes) -> Any:
        """Return a vector; None if it is none of the embedder's."""
        import numpy as np
        from pgvector import SparseVector

        if base.vector_type_of(self._embedder) is None:
            vector = np.frombuffer(packed, dtype="<f4").astype(np.float32, copy=False) if len(packed) % 4 == 0 else None
            return vector if vector is not None and vector.shape == (self._embedder.dimensions,) else None
        try:
            sparse = SparseVector.from_binary(packed)
        except struct.error:
            return None
        return sparse if sparse.dimensions() == self._embedder.dimensions else None


def _hashes(texts: Iterable[str]) -> list[bytes]:
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
