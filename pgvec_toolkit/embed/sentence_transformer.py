"""Dense embeddings by sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pgvec_toolkit.embed import prompts
from pgvec_toolkit.embed.model import Model, full_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class SentenceTransformerEmbedder(Model):
    """A sentence-transformers model, loaded when first used; vectors come out with length 1.

    Args:
        name: of the model, or the path of a folder that holds it.
        batch_size: texts that are embedded at once, at most; on a CPU fewer long ones.
        query_prompt: put before queries; None: the model's own, or that of its family (see prompts.py).
        document_prompt: put before documents; likewise.
    """

    kind = "SentenceTransformer"

    def __init__(
        self, name: str, *, batch_size: int = 32, query_prompt: str | None = None, document_prompt: str | None = None
    ) -> None:
        super().__init__(full_name(name), full_name(name), batch_size)
        self._given_prompts = (query_prompt, document_prompt)

    @property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: weights, prompts, truncation, normalisation."""
        return {**super().details, "normalized": True}

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions)."""

        def embed(some: list[str]) -> NDArray[Any]:
            vectors: NDArray[Any] = self._model.encode_document(
                some, batch_size=len(some), normalize_embeddings=True, show_progress_bar=False
            )
            return vectors

        found = self._in_batches(embed, texts)
        return np.asarray(found, dtype=np.float32).reshape(len(texts), self.dimensions)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,), made with the model's query prompt if it has one."""
        vector = self._model.encode_query(text, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vector, dtype=np.float32)

    def _loaded(self) -> Any:
        model = super()._loaded()
        # Whatever its own are called, these are the names that are looked for first.
        model.prompts |= prompts.effective(self.source, model.prompts, *self._given_prompts)._asdict()
        return model
