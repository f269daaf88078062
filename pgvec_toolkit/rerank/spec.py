"""What a search is told of its reranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pgvec_toolkit.rerank.base import Reranker, load
from pgvec_toolkit.rerank.stage import rerank
from pgvec_toolkit.search.hit import Hits
from pgvec_toolkit.search.options import MOST_ROWS, check_options


@dataclass(frozen=True)
class Rerank:
    """A reranker, how many hits it is given, and how long it may take.

    Attributes:
        reranker: the name of a cross-encoder, a URL, a function (query, texts) -> scores, or a `Reranker`.
        depth: how many hits of the search it orders, at least k; None: twice k, at least 50.
        budget: seconds, those included in which a model is loaded for its first search; when they are over, the hits
            keep the order of the search, and `Hits.note` says so.
        batch_size: texts scored at once.
    """

    reranker: Reranker | Callable[[str, Sequence[str]], Sequence[float]] | str
    depth: int | None = None
    budget: float | None = None
    batch_size: int = 32

    def candidates(self, k: int) -> int:
        """Return how many hits the search has to find."""
        if self.depth is not None:
            check_options(self.depth, {}, "the depth of reranking")
        return max(k, min(MOST_ROWS, max(50, 2 * k)) if self.depth is None else self.depth)

    def rerank(self, query: str, hits: Hits, k: int, loaded: dict[Any, Reranker]) -> Hits:
        """Return the k best of the hits; what is loaded for a name stays in `loaded`."""
        if not isinstance(self.reranker, str):
            return rerank(load(self.reranker), query, hits, k, batch_size=self.batch_size, budget=self.budget)
        if self.reranker not in loaded:
            loaded[self.reranker] = load(self.reranker)
        return rerank(loaded[self.reranker], query, hits, k, batch_size=self.batch_size, budget=self.budget)
