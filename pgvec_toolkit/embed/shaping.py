"""What is done to vectors of any source: cut to their first numbers, made of length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pgvec_toolkit.errors import EmbeddingError, RejectedText

if TYPE_CHECKING:
    from numpy.typing import NDArray


def shaped(vectors: Any, name: str, truncate_dim: int | None, normalize: bool) -> NDArray[np.float32]:
    """Return vectors as float32 of shape (n, dimensions), cut, and with length 1 if wanted.

    Raises:
        RejectedText: the vector of a text is zero, so it has no direction to search in.
    """
    found = np.asarray(vectors, dtype=np.float32)
    if truncate_dim is not None:
        if truncate_dim > found.shape[1]:
            raise EmbeddingError(f"embedder {name} makes {found.shape[1]} dimensions: truncate_dim is at most that")
        found = found[:, :truncate_dim]
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    zero = np.flatnonzero(lengths[:, 0] == 0)
    if len(zero):
        raise RejectedText(
            f"embedder {name} knows no word of {len(zero)} of {len(found)} texts: their vectors would be zero",
            tuple(zero.tolist()),
        )
    return found / lengths if normalize else found
