"""Sparse embeddings by sentence-transformers: a weight for each token of a vocabulary, most of them zero."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pgvector import SparseVector

from pgvec_toolkit.embed.base import Pruned
from pgvec_toolkit.embed.model import Model
from pgvec_toolkit.embed.spec import located
from pgvec_toolkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "sparse:"  # of names: what follows it is the name of a SparseEncoder
_MOST_INDEXED = 1000  # entries of a vector that an HNSW index of pgvector takes


class SparseEncoderEmbedder(Model):
    """A SparseEncoder of sentence-transformers, such as SPLADE, loaded when first used.

    Args:
        name: of the model, or the path of a folder that holds it; "sparse:" may come before it.
        most: entries that a vector keeps, those of the largest weights; an index holds no more than 1,000.
        batch_size: texts that are embedded at once, at most; on a CPU fewer long ones.

    Attributes:
        type: of its vectors.
        distance: by which they are compared.
        pruned: what documents lost so far; set it to `Pruned()` to count anew.
    """

    kind = "SparseEncoder"
    type = "sparsevec"
    distance = "inner_product"

    def __init__(self, name: str, *, most: int = _MOST_INDEXED, batch_size: int = 32) -> None:
        if not 1 <= most <= _MOST_INDEXED:
            raise ConfigurationError(f"most must be from 1 to {_MOST_INDEXED:,}, which an index holds, not {most}")
        source = located(name.removeprefix(PREFIX))
        super().__init__(PREFIX + source, source, batch_size)
        self.most = most
        self.pruned = Pruned()

    @cached_property
    def dimensions(self) -> int:
        """Length of the vectors: the size of the vocabulary."""
        # Asked before its first text, a SPLADE tells the size of its hidden layer instead.
        return int(self._model.encode_document(["a"], show_progress_bar=False).shape[1])

    @property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: weights, prompts, truncation, pruning."""
        return {**super().details, "type": self.type, "most": self.most}

    def embed_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return a vector for each text, each of length `dimensions`; `pruned` counts what they lost."""
        vectors = []
        for places, weights in self._in_batches(partial(self._encoded, self._model.encode_document), texts):
            vectors.append(self._vector(places, weights))
            if len(places) > self.most:
                self.pruned += Pruned(1, len(places) - self.most)
        return vectors

    def embed_query(self, text: str) -> SparseVector:
        """Return a vector of length `dimensions`."""
        return self._vector(*self._encoded(self._model.encode_query, [text])[0])

    def terms(self, vector: SparseVector) -> dict[str, float]:
        """Return the tokens that a vector stands for with their weights, largest first."""
        return self._named(dict(zip(vector.indices(), vector.values(), strict=True)))

    def matched_terms(self, query: SparseVector, document: SparseVector) -> dict[str, float]:
        """Return the tokens of both with what each adds to their inner product, largest first."""
        weights = dict(zip(document.indices(), document.values(), strict=True))
        pairs = zip(query.indices(), query.values(), strict=True)
        return self._named({place: weight * weights[place] for place, weight in pairs if place in weights})

    def _encoded(self, encode: Any, texts: Sequence[str]) -> list[tuple[Any, Any]]:
        """Return the dimensions and weights of each text's entries, in the order of dimensions."""
        if not texts:
            return []
        found = encode(list(texts), batch_size=len(texts), save_to_cpu=True, show_progress_bar=False).coalesce()
        rows, places = found.indices().numpy()
        ends = np.searchsorted(rows, np.arange(1, len(texts)))
        return list(zip(np.split(places, ends), np.split(found.values().float().numpy(), ends), strict=True))

    def _vector(self, places: Any, weights: Any) -> SparseVector:
        kept = np.argsort(-np.abs(weights), kind="stable")[: self.most]
        entries = zip(places[kept].tolist(), weights[kept].tolist(), strict=True)
        return SparseVector(dict(entries), self.dimensions)

    def _named(self, weights: dict[int, float]) -> dict[str, float]:
        # With fewer dimensions than tokens, dimensions are something else: what an autoencoder found.
        tokens = self.dimensions >= self.tokenizer.get_vocab_size()
        name = self.tokenizer.id_to_token if tokens else lambda _: None
        ranked = sorted(weights.items(), key=lambda entry: -entry[1])
        return {name(place) or f"#{place}": weight for place, weight in ranked}
