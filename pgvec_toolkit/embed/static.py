"""Static embeddings by model2vec: a text is the mean of its tokens' vectors, which are looked up."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgvec_toolkit.embed.shaping import shaped
from pgvec_toolkit.embed.spec import located, spec_of
from pgvec_toolkit.embed.tokens import tokenizer_digest, unbounded
from pgvec_toolkit.errors import EmbeddingError, MissingDependency, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

PREFIX = "static:"
_CHUNK = 512  # tokens: it reads texts of any length, but the mean of too many words means nothing


class StaticEmbedder:
    """A model2vec, loaded when first used.

    Args:
        name: of the model, or the path of a folder that holds it; "static:" may come before it.
        truncate_dim: how many of a vector's first numbers are kept.
        normalize: whether to make vectors of length 1.
    """

    max_tokens = _CHUNK
    cached = True

    def __init__(self, name: str, *, truncate_dim: int | None = None, normalize: bool = True) -> None:
        self.source = located(name.removeprefix(PREFIX))
        self.truncate_dim = truncate_dim
        self.normalize = normalize
        changes = {"truncate_dim": truncate_dim, "normalize": None if normalize else False}
        self.name = spec_of(PREFIX, self.source, changes)

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self.truncate_dim or int(self._model.dim)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer: chunks are measured by it."""
        from tokenizers import Tokenizer

        return unbounded(Tokenizer.from_str(self._model.tokenizer.to_str()))

    @cached_property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: weights, truncation, normalisation."""
        digest = hashlib.sha256(np.ascontiguousarray(self._model.embedding[:, :16]).tobytes())
        for further in (self._model.weights, self._model.token_mapping):
            digest.update(b"" if further is None else np.ascontiguousarray(further).tobytes())
        cut = {} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}
        tokenizer = tokenizer_digest(self.tokenizer)
        return {"weights": digest.hexdigest(), "tokenizer": tokenizer, "normalized": self.normalize, **cut}

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions)."""
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        found = self._model.encode(list(texts), max_length=None, normalize=False, use_multiprocessing=False)
        return shaped(found, self.name, self.truncate_dim, self.normalize)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,)."""
        return np.asarray(self.embed_documents([text])[0])

    @cached_property
    def _model(self) -> Any:
        try:
            from model2vec import StaticModel
        except ImportError as error:
            raise MissingDependency("model2vec", "static") from error
        try:
            return StaticModel.from_pretrained(self.source, force_download=False)
        except Exception as error:  # model2vec lets through whatever hub and files raise
            hub = "" if Path(self.source).exists() else ", or a name that the model hub knows while it can be reached"
            raise EmbeddingError(
                f"cannot load model2vec {self.source}: {first_line(error)}. Give "
                f"the path of a folder that model2vec saved{hub}"
            ) from error
