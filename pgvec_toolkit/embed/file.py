"""What embedders that run a file of weights have in common, whatever runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.embed.folder import ModelFolder, file_digest, scales_by_batch
from pgvec_toolkit.embed.prompts import Prompts
from pgvec_toolkit.embed.tokens import room, tokenizer_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer


class FileEmbedder(ABC):
    """An embedder whose vectors are decided by a file, its tokenizer, prompts, and how it is pooled and cut."""

    normalize: bool
    truncate_dim: int | None

    @abstractmethod
    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions)."""

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without truncation or padding: chunks are measured by it."""

    @property
    @abstractmethod
    def _path(self) -> Path:
        """The file."""

    @property
    @abstractmethod
    def _folder(self) -> ModelFolder | None:
        """The folder that says how vectors of tokens are pooled; None: nothing does."""

    @property
    @abstractmethod
    def _prompts(self) -> Prompts: ...

    @property
    @abstractmethod
    def _sequence(self) -> int:
        """Tokens that are read, but for special ones."""

    @cached_property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return int(self.embed_documents(["a"]).shape[1])

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads of a document; its special ones and its prompt are not counted."""
        return room(self._sequence, self.tokenizer, self._prompts.document)

    @cached_property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: the file, prompts, truncation, normalisation."""
        folder = self._folder
        said = {} if folder is None else {"pooling": folder.pooling, "lower_case": folder.lower_case}
        return {
            "weights": file_digest(self._path),
            "tokenizer": tokenizer_digest(self.tokenizer),
            **{name: value for name, value in said.items() if value},
            "prompts": dict(self._prompts._asdict()),
            "max_tokens": self._sequence,
            "normalized": self.normalize,
            **({} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}),
        }

    @cached_property
    def cached(self) -> bool:
        """Whether databases keep the vectors: if they depend on nothing but the text."""
        return not scales_by_batch(self._path)
