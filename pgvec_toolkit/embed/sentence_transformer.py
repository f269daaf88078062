"""Dense embeddings by sentence-transformers, which runs models with PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pgvec_toolkit.embed import prompts
from pgvec_toolkit.embed.model import Model, full_name, trusted
from pgvec_toolkit.embed.spec import spec_of
from pgvec_toolkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_DTYPES = ("float32", "float16", "bfloat16")


class SentenceTransformerEmbedder(Model):
    """A sentence-transformers model, loaded when first used; vectors come out with length 1 unless told otherwise.

    Args:
        name: of the model, or the path of a folder that holds it.
        batch_size: texts that are embedded at once, at most; on a CPU fewer long ones.
        query_prompt: put before queries; None: the model's own, or that of its family (see prompts.py).
        document_prompt: put before documents; likewise.
        truncate_dim: how many of a vector's first numbers are kept, of a model trained for that (Matryoshka).
        dtype: of the weights: float32, float16, bfloat16; None: as the model was saved.
        normalize: whether to make vectors of length 1; else they are as the model has them.
        revision: commit, branch or tag on the hub.
        trust_remote_code: whether the model may bring code, which then runs on this machine; None: as the environment
            variable PGVEC_TRUST_REMOTE_CODE says. It is never stored.
    """

    kind = "SentenceTransformer"

    def __init__(
        self,
        name: str,
        *,
        batch_size: int = 32,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        truncate_dim: int | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] | None = None,
        normalize: bool = True,
        revision: str | None = None,
        trust_remote_code: bool | None = None,
    ) -> None:
        if dtype not in (None, *_DTYPES):
            raise ConfigurationError(f"there is no dtype {dtype!r} of weights: use {', '.join(_DTYPES)}")
        source = full_name(name)
        changes = {"truncate_dim": truncate_dim, "dtype": dtype, "revision": revision}
        super().__init__(
            spec_of("", source, {**changes, "normalize": None if normalize else False}),
            source,
            batch_size,
            truncate_dim=truncate_dim,
            revision=revision,
            model_kwargs=None if dtype is None else {"dtype": dtype},
            trust_remote_code=True if (trusted() if trust_remote_code is None else trust_remote_code) else None,
        )
        self.normalize = normalize
        self._given_prompts = (query_prompt, document_prompt)
        self._changes = {option: value for option, value in changes.items() if value is not None}

    @property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: weights, prompts, truncation, normalisation."""
        return {**super().details, "normalized": self.normalize, **self._changes}

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions)."""

        def embed(some: list[str]) -> NDArray[Any]:
            vectors: NDArray[Any] = self._model.encode_document(
                some, batch_size=len(some), normalize_embeddings=self.normalize, show_progress_bar=False
            )
            return vectors

        found = self._in_batches(embed, texts)
        return np.asarray(found, dtype=np.float32).reshape(len(texts), self.dimensions)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,), made with the model's query prompt if it has one."""
        vector = self._model.encode_query(text, normalize_embeddings=self.normalize, show_progress_bar=False)
        return np.asarray(vector, dtype=np.float32)

    def _loaded(self) -> Any:
        model = super()._loaded()
        # Whatever its own are called, these are the names that are looked for first.
        model.prompts |= prompts.effective(self.source, model.prompts, *self._given_prompts)._asdict()
        return model
