"""Embeddings of tokens by sentence-transformers: several vectors a text, for late interaction (ColBERT)."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pgvec_toolkit.embed.model import Model
from pgvec_toolkit.embed.spec import located

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PREFIX = "colbert:"


class MultiVectorEmbedder(Model):
    """A MultiVectorEncoder of sentence-transformers, loaded when first used; for a vector space of type vector[].

    Args:
        name: of the model, or the path of a folder that holds it; "colbert:" may come before it.
        batch_size: texts that are embedded at once, at most; on a CPU fewer long ones.

    Attributes:
        cached: databases keep none of them, which are too large.
        type: of its vectors.
        distance: by which they are compared.
    """

    kind = "MultiVectorEncoder"
    cached = False
    type = "vector[]"
    distance = "inner_product"

    def __init__(self, name: str, *, batch_size: int = 32) -> None:
        source = located(name.removeprefix(PREFIX))
        super().__init__(PREFIX + source, source, batch_size)

    @cached_property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return int(self.embed_query("a").shape[1])

    @property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: weights, prompts, truncation."""
        return {**super().details, "type": self.type}

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return for each text its vectors, of shape (tokens, dimensions)."""
        return self._in_batches(partial(self._encoded, self._model.encode_document), texts)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return vectors of shape (tokens, dimensions)."""
        return self._encoded(self._model.encode_query, [text])[0]

    def _encoded(self, encode: Any, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        found = encode(list(texts), batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False)
        return [np.asarray(each, dtype=np.float32) for each in found]
