"""The last stage of a search: its hits in a reranker's order, within a time budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pgvec_toolkit.errors import ConfigurationError, PgvecError, RerankError
from pgvec_toolkit.rerank.base import Reranker, checked
from pgvec_toolkit.search.hit import Hit, Hits


def rerank(
    reranker: Reranker, query: str, hits: Hits, k: int, *, batch_size: int = 32, budget: float | None = None
) -> Hits:
    """Return the k best hits by a reranker's scores; those without a text come last, with score None.

    Args:
        reranker: as `rerank.base.load` returns it.
        query: what was asked, as a text.
        hits: of a search, usually more than k of them.
        k: how many to return.
        batch_size: texts that are scored at once; the time is looked at between batches.
        budget: seconds for all of it, loading a model included. A batch that is not expected to end in time is not
            begun; the hits then keep the order of the search, and `note` says so. None: as long as it takes.

    Raises:
        RerankError: the reranker failed, or its scores do not fit.
    """
    if k < 1 or batch_size < 1 or (budget is not None and not budget > 0):
        raise ConfigurationError("k and batch_size must be at least 1, a budget more than 0 seconds")
    if not query.strip():
        raise ConfigurationError("the query is empty: a reranker needs it as a text")
    stopped_by = "k" if len(hits) > k else hits.stopped_by
    texts = [hit.text for hit in hits if _readable(hit.text)]
    if hits and not texts:
        return Hits(hits[:k], stopped_by, note="reranking had nothing to read: no chunk that was found has a text")
    try:
        scores = _Scoring(reranker, query, batch_size, budget, time.monotonic()).scores([text or "" for text in texts])
    except _OverBudget as over:
        note = f"reranking stopped: its budget of {budget:g} s was over after {over.done} of {len(texts)} chunks; "
        return Hits(hits[:k], stopped_by, note=note + "this is the order of the search")
    except PgvecError:
        raise
    except Exception as error:
        raise RerankError(f"reranker {reranker.name} failed: {type(error).__name__}: {error}") from error
    return Hits(_ranked(hits, scores)[:k], stopped_by, reranked=True)


def _readable(text: str | None) -> bool:
    return text is not None and bool(text.strip())


def _ranked(hits: Hits, scores: list[float]) -> list[Hit]:
    given = iter(scores)
    scored = [(next(given) if _readable(hit.text) else None, hit) for hit in hits]
    # The sort is stable: of equal scores, what the search ranked first comes first.
    scored.sort(key=lambda pair: (pair[0] is None, -(pair[0] or 0)))
    return [
        replace(hit, score=score, rank=rank, first_rank=hit.rank) for rank, (score, hit) in enumerate(scored, start=1)
    ]


class _OverBudget(Exception):
    """The time is over, or will be before the next batch is done."""

    def __init__(self, done: int) -> None:
        super().__init__(done)
        self.done = done


@dataclass(frozen=True)
class _Scoring:
    """A reranker at work on a query; `started` is when the budget began to run."""

    reranker: Reranker
    query: str
    batch_size: int
    budget: float | None
    started: float

    def scores(self, texts: list[str]) -> list[float]:
        """Return a score for each text, or raise _OverBudget."""
        prepare = getattr(self.reranker, "prepare", None)
        if prepare is not None:
            prepare()
        scores: list[float] = []
        begun = time.monotonic()
        while len(scores) < len(texts):
            done = len(scores)
            batch = texts[done : done + self.batch_size]
            if self.budget is None:
                found = self.reranker.scores(self.query, batch)
            else:
                taken = time.monotonic() - begun
                found = self._in_time(batch, done, taken * len(batch) / done if done else 0)
            scores += checked(found, len(batch), self.reranker)
        return scores

    def _in_time(self, batch: list[str], done: int, expected: float) -> Sequence[float]:
        """Return the scores of a batch, or raise _OverBudget: a batch cannot be interrupted, an HTTP request can."""
        assert self.budget is not None
        rest = self.started + self.budget - time.monotonic()
        if rest <= expected:
            raise _OverBudget(done)
        within = getattr(self.reranker, "scores_within", None)
        if within is None:
            return self.reranker.scores(self.query, batch)
        try:
            found: Sequence[float] = within(self.query, batch, rest)
        except TimeoutError as error:
            raise _OverBudget(done) from error
        return found
