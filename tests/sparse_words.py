"""A sparse encoder that needs no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pgvector import SparseVector

from pgvec_toolkit.embed.base import Pruned

VOCABULARY = [
    *("rotate", "the", "keys", "cook", "pasta", "in", "salt", "water"),
    *("train", "to", "paris", "renew", "credentials", "a", "lazy", "dog"),
]


class SparseWords:
    """A dimension for each word of the vocabulary; how often a text has it is its weight.

    Args:
        most: entries that a document's vector keeps.
        failing_after: batches after which it is interrupted.
    """

    name, type, distance, dimensions = "test/sparse", "sparsevec", "inner_product", len(VOCABULARY)

    def __init__(self, most: int = 1000, failing_after: int | None = None) -> None:
        self.most, self.pruned, self.batches, self.failing_after = most, Pruned(), 0, failing_after

    def embed_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        self.batches += 1
        if self.failing_after is not None and self.batches > self.failing_after:
            raise KeyboardInterrupt
        vectors = [self.embed_query(text) for text in texts]
        for at, vector in enumerate(vectors):
            lost = len(vector.indices()) - self.most
            if lost > 0:
                kept = list(zip(vector.indices(), vector.values(), strict=True))[: self.most]
                vectors[at] = SparseVector(dict(kept), self.dimensions)
                self.pruned += Pruned(1, lost)
        return vectors

    def embed_query(self, text: str) -> SparseVector:
        counts = Counter(VOCABULARY.index(word) for word in text.split() if word in VOCABULARY)
        return SparseVector({place: float(count) for place, count in counts.items()}, self.dimensions)

    def terms(self, vector: SparseVector) -> dict[str, float]:
        return {VOCABULARY[at]: value for at, value in zip(vector.indices(), vector.values(), strict=True)}
