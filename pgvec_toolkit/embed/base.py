"""What turns text into vectors: the protocol, and what may be asked of one."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pgvec_toolkit.errors import EmbeddingError, InvalidRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pgvector import SparseVector
    from tokenizers import Tokenizer

DEFAULT_EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"


@runtime_checkable
class Embedder(Protocol):
    """Text to vectors. Prompts and normalisation live in it: these two methods are the only entry points.

    They are called by one thread at a time, but not always by the same one: `upsert` has threads of its own.

    It may have more, which the functions below ask for: `details`, what else changes a vector; `options`, what else it
    takes to load it again; `max_tokens` and `tokenizer`, by which chunks are cut; `type` and `distance`, "sparsevec"
    and "inner_product" if its vectors are sparse: then both methods return `pgvector.SparseVector`, the first one a
    list of them; `pruned`, what these lost so far, and `terms(vector)`, the words that a sparse vector stands for, with
    their weights; `cached`, true if a database is to keep its vectors: `details` must then tell all that changes one.
    Of type "vector[]" are several vectors a text: an array of shape (n, dimensions), or a list of them.
    """

    @property
    def name(self) -> str:
        """Name under which it is stored with the collection, and loaded again if pgvec knows how."""

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""

    def embed_documents(
        self, texts: Sequence[str]
    ) -> NDArray[np.float32] | list[SparseVector] | list[NDArray[np.float32]]:
        """Return vectors of shape (len(texts), dimensions).

        Raises:
            RejectedText: it will never take some of the texts; `positions` says which.
            EmbedderUnavailable: it cannot be asked now.
        """

    def embed_query(self, text: str) -> NDArray[np.float32] | SparseVector:
        """Return a vector of shape (dimensions,)."""


@dataclass(frozen=True)
class Pruned:
    """What was cut off document vectors, so that an index can hold them.

    Attributes:
        vectors: how many had too many entries.
        entries: how many entries they lost.
    """

    vectors: int = 0
    entries: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(self.vectors + other.vectors, self.entries + other.entries)

    def __sub__(self, other: Pruned) -> Pruned:
        return Pruned(self.vectors - other.vectors, self.entries - other.entries)


def vector_type_of(embedder: Embedder) -> str | None:
    """Return the type of the embedder's vectors; None: numbers at all dimensions, vector or halfvec."""
    return getattr(embedder, "type", None)


def distance_of(embedder: Embedder) -> str | None:
    """Return the distance by which the embedder's vectors are compared; None: cosine."""
    return getattr(embedder, "distance", None)


def max_tokens(embedder: Embedder) -> int | None:
    """Return how many tokens the embedder reads of a text, special ones not counted; None if it does not say."""
    return getattr(embedder, "max_tokens", None)


def tokenizer(embedder: Embedder) -> Tokenizer | None:
    """Return the embedder's own tokenizer, by which chunks are measured; None if it has none."""
    return getattr(embedder, "tokenizer", None)


def pruned(embedder: Embedder) -> Pruned:
    """Return what the embedder's document vectors lost so far."""
    return getattr(embedder, "pruned", Pruned())


def with_terms(explained: str, embedder: Embedder, dimensions: int) -> str:
    """Return what `pgvec.explain` says of a sparse search, with words for dimensions if the embedder knows them."""
    if not hasattr(embedder, "terms"):
        return explained
    from pgvector import SparseVector

    def word(entry: re.Match[str]) -> str:
        vector = SparseVector({int(entry[1]) - 1: 1.0}, dimensions)  # SQL counts from 1
        return f"{next(iter(embedder.terms(vector)), entry[1])} ("

    def line(found: re.Match[str]) -> str:
        return found[1] + re.sub(r"(\d+) \(", word, found[2])

    return re.sub(r"^(Hit \d, .*: )(\d+ \(.*\).*)$", line, explained, flags=re.MULTILINE)


def is_cached(embedder: Embedder) -> bool:
    """Return whether the embedder's document vectors are kept in the cache of the database that they are for."""
    return bool(getattr(embedder, "cached", False))


def fingerprint(embedder: Embedder) -> str:
    """Return a hash over all that changes a vector: vectors of different fingerprints cannot be compared."""
    return hashlib.sha256(json.dumps(identity(embedder), sort_keys=True).encode()).hexdigest()


def identity(embedder: Embedder) -> dict[str, Any]:
    """Return all that changes a vector: what a fingerprint is a hash of."""
    return {"name": embedder.name, "dimensions": embedder.dimensions, **getattr(embedder, "details", {})}


def stored_details(embedder: Embedder) -> dict[str, Any]:
    """Return what the registry keeps beside the name: what changes a vector, and what it takes to load it again."""
    options = getattr(embedder, "options", {})
    return {**getattr(embedder, "details", {}), **({"options": dict(options)} if options else {})}


def checked(vectors: Any, shape: tuple[int, ...], embedder: Embedder) -> Any:
    """Return an embedder's output as float32, as SparseVectors if it is sparse, as arrays if it is of type vector[].

    Raises:
        EmbeddingError: it is not of the shape that the embedder promised.
    """
    import numpy as np

    kind = vector_type_of(embedder)
    if kind in ("sparsevec", "vector[]"):
        return _checked_one_by_one(vectors, kind, shape, embedder)
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(f"embedder {embedder.name} returned something else than vectors: {error}") from error
    if array.shape != shape or not np.isfinite(array).all():
        problem = f"shape {array.shape}, not {shape}" if array.shape != shape else "NaN or infinity"
        raise EmbeddingError(f"embedder {embedder.name} returned vectors with {problem}")
    return array


def _checked_one_by_one(vectors: Any, kind: str, shape: tuple[int, ...], embedder: Embedder) -> Any:
    from pgvec_toolkit.distance import Distance
    from pgvec_toolkit.vectors import vector_type

    one = len(shape) == 1
    try:
        found = vector_type(kind).stack([vectors] if one else vectors, shape[-1], Distance.INNER_PRODUCT, 0)
    except TypeError as error:
        raise EmbeddingError(f"embedder {embedder.name} returned something else than vectors: {error}") from error
    except InvalidRecord as error:
        raise EmbeddingError(f"embedder {embedder.name} returned a vector that does not fit: {error}") from error
    if not one and len(found) != shape[0]:
        raise EmbeddingError(f"embedder {embedder.name} returned {len(found)} vectors for {shape[0]} texts")
    return found[0] if one else list(found)
