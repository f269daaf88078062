"""Texts into vectors, for what is stored: each text once, none that the database's cache has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.embed import base
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.embed.cache import EmbeddingCache
from pgvec_toolkit.errors import RejectedText

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection

_KEPT_AT_ONCE = 256  # texts after which their vectors enter the cache: what an interruption can cost


@dataclass
class TextCounts:
    """How texts became vectors.

    Attributes:
        embedded: texts that the embedder was given.
        cached: texts whose vectors were in the cache.
        duplicates: texts that were there before in the same call.
    """

    embedded: int = 0
    cached: int = 0
    duplicates: int = 0


def embed_texts(
    embedder: Embedder, texts: Sequence[str], connection: Connection | None = None, counts: TextCounts | None = None
) -> Any:
    """Return the vectors of some texts, as `base.checked` returns them.

    Args:
        embedder: which one.
        texts: the more at once, the better they can be sorted by length.
        connection: to the database whose cache is asked, and added to at once, whatever becomes of the texts; None,
            or one in a transaction: no cache.
        counts: is added to.

    Raises:
        RejectedText: the embedder will never take some of the texts; the vectors of others may be in the cache.
    """
    different = list(dict.fromkeys(texts))
    cache = EmbeddingCache.of(embedder, connection)
    found = cache.find(different) if cache else {}
    missing = [text for text in different if text not in found]
    cached = len(found)
    for some in _parts(missing, by_length=cache is not None):
        try:
            vectors = base.checked(embedder.embed_documents(some), (len(some), embedder.dimensions), embedder)
        except RejectedText as error:
            rejected = {some[position] for position in error.positions}
            positions = tuple(position for position, text in enumerate(texts) if text in rejected)
            raise RejectedText(str(error), positions) from error
        if cache is not None:
            cache.keep(some, vectors)
        found.update(zip(some, vectors, strict=True))
    if counts is not None:
        counts.embedded += len(missing)
        counts.cached += cached
        counts.duplicates += len(texts) - len(different)
    return _together([found[text] for text in texts], embedder)


def _parts(texts: list[str], *, by_length: bool) -> Iterator[list[str]]:
    """Cut texts into what is embedded at once; sorted, or embedders could put less of one length together."""
    if len(texts) <= _KEPT_AT_ONCE or not by_length:
        yield from [texts] if texts else []
        return
    texts = sorted(texts, key=len, reverse=True)  # the longest first: should memory not do, it is known at once
    for start in range(0, len(texts), _KEPT_AT_ONCE):
        yield texts[start : start + _KEPT_AT_ONCE]


def _together(vectors: list[Any], embedder: Embedder) -> Any:
    import numpy as np

    if base.vector_type_of(embedder) is not None:
        return vectors
    return np.stack(vectors) if vectors else np.empty((0, embedder.dimensions), dtype=np.float32)
