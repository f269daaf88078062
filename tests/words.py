"""An embedder without a model: quick to import, for programs that tests start, too."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class WordEmbedder:
    """A real, tiny embedder: words are hashed onto the axes. Texts that share words are near. It counts its calls."""

    name = "test/words"

    def __init__(self, dimensions: int = 64) -> None:
        self.dimensions = dimensions
        self.embedded: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.extend(texts)
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector = np.full(self.dimensions, 1e-3, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()):
            vector[sum(map(ord, word)) * 31 % self.dimensions] += 1
        return vector / np.linalg.norm(vector)
