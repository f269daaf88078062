"""What turns text into vectors, and how one is found by its name."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pgvec_toolkit.errors import EmbeddingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

DEFAULT_EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"


@runtime_checkable
class Embedder(Protocol):
    """Text to vectors. Prompts and normalisation live in it: these two methods are the only entry points."""

    @property
    def name(self) -> str:
        """Name under which it is stored with the collection, and loaded again if pgvec knows how."""

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions)."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,)."""


def load(name: str) -> Embedder:
    """Load an embedder by name: a sentence-transformers model, from this machine or its hub."""
    from pgvec_toolkit.embed.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(name)


def max_tokens(embedder: Embedder) -> int | None:
    """Return how many tokens the embedder reads of a text, special ones not counted; None if it does not say."""
    return getattr(embedder, "max_tokens", None)


def tokenizer(embedder: Embedder) -> Tokenizer | None:
    """Return the embedder's own tokenizer, by which chunks are measured; None if it has none."""
    return getattr(embedder, "tokenizer", None)


def fingerprint(embedder: Embedder) -> str:
    """Return a hash over all that changes a vector: vectors of different fingerprints cannot be compared."""
    details: dict[str, Any] = {"name": embedder.name, "dimensions": embedder.dimensions}
    details |= getattr(embedder, "details", {})
    return hashlib.sha256(json.dumps(details, sort_keys=True).encode()).hexdigest()


def checked(vectors: NDArray[np.float32], shape: tuple[int, ...], embedder: Embedder) -> NDArray[np.float32]:
    """Return an embedder's output as float32, or raise EmbeddingError if it is not of the shape it promised."""
    import numpy as np

    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(f"embedder {embedder.name} returned something else than vectors: {error}") from error
    if array.shape != shape or not np.isfinite(array).all():
        problem = f"shape {array.shape}, not {shape}" if array.shape != shape else "NaN or infinity"
        raise EmbeddingError(f"embedder {embedder.name} returned vectors with {problem}")
    return array
