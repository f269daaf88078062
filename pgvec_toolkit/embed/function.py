"""A function of yours as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

PREFIX = "function:"


class FunctionEmbedder:
    """A function from texts to vectors; no name loads it again, so hand it over whenever you open the collection.

    Args:
        function: from a list of texts to an array of shape (n, dimensions), or to a list of vectors; called by one
            thread at a time, which need not be yours.
        name: by which it is known; give another one to another function, and to one that changed.
        dimensions: of the vectors.
        query_function: from a text to its vector, if queries are embedded in another way.
        max_tokens: how long chunks may be, in tokens of the tokenizer.
        tokenizer: of the package tokenizers, by which chunks are cut; None: they are cut at 1,000 characters.
    """

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        *,
        name: str,
        dimensions: int,
        query_function: Callable[[str], Any] | None = None,
        max_tokens: int | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.name = PREFIX + name
        self.dimensions = dimensions
        self.max_tokens = max_tokens
        self.tokenizer = tokenizer
        self._function = function
        self._query_function = query_function

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """Return what the function returns."""
        return self._function(list(texts))

    def embed_query(self, text: str) -> Any:
        """Return the vector of a text."""
        return self._query_function(text) if self._query_function else self._function([text])[0]
