"""Reranking hits: their new order, what cannot be ranked, time budgets, rerankers that misbehave."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, RerankError
from pgvec_toolkit.rerank import stage
from pgvec_toolkit.rerank.base import CallableReranker, Reranker, load
from pgvec_toolkit.rerank.stage import rerank
from pgvec_toolkit.search.hit import Hit, Hits


class Clock:
    """Time that passes only when a reranker takes it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Judge:
    """A reranker that reads the score in a text, and takes its time."""

    name = "test/judge"

    def __init__(self, clock: Clock | None = None, *, load: float = 0, text: float = 0) -> None:
        self.clock = clock or Clock()
        self.load, self.text = load, text
        self.batches: list[int] = []

    def prepare(self) -> None:
        self.clock.now += self.load

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        del query
        self.batches.append(len(texts))
        self.clock.now += self.text * len(texts)
        return [float(text) for text in texts]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stage, "time", clock)
    return clock


def hits_of(texts: Sequence[str | None], stopped_by: str = "complete") -> Hits:
    return Hits(
        [
            Hit(f"c{rank}", f"d{rank}", text, {}, 0.1 * rank, 1 - 0.1 * rank, 1 - 0.1 * rank, rank)
            for rank, text in enumerate(texts, start=1)
        ],
        stopped_by,
    )


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


# -- order -----------------------------------------------------------------------------------------


def test_the_best_come_first_and_tell_where_they_were() -> None:
    hits = hits_of(["0.2", "0.9", "0.5", "0.9"])
    before = [replace(hit) for hit in hits]
    reranked = rerank(Judge(), "q", hits, 3)
    assert [(hit.id, hit.score, hit.rank, hit.first_rank) for hit in reranked] == [
        ("c2", 0.9, 1, 2),
        ("c4", 0.9, 2, 4),
        ("c3", 0.5, 3, 3),
    ]
    assert (reranked.reranked, reranked.note, reranked.stopped_by) == (True, None, "k")
    assert reranked[0].similarity == hits[1].similarity
    assert list(hits) == before


@pytest.mark.parametrize("stopped_by", ["k", "complete", "threshold"])
def test_what_is_not_cut_ends_where_the_search_ended(stopped_by: str) -> None:
    assert rerank(Judge(), "q", hits_of(["1", "2"], stopped_by), 2).stopped_by == stopped_by
    assert rerank(Judge(), "q", hits_of(["1", "2"], stopped_by), 1).stopped_by == "k"


def test_chunks_without_a_text_come_last_as_they_were() -> None:
    reranked = rerank(Judge(), "q", hits_of([None, "-3", " ", "2", None]), 10)
    assert [(hit.id, hit.score, hit.rank, hit.first_rank) for hit in reranked] == [
        ("c4", 2.0, 1, 4),
        ("c2", -3.0, 2, 2),
        ("c1", None, 3, 1),
        ("c3", None, 4, 3),
        ("c5", None, 5, 5),
    ]


def test_with_no_text_at_all_the_order_of_the_search_stays_and_a_note_says_why() -> None:
    judge = Judge()
    reranked = rerank(judge, "q", hits_of([None, None, ""]), 2)
    assert (ids(reranked), reranked.reranked, judge.batches) == (["c1", "c2"], False, [])
    assert reranked.note == "reranking had nothing to read: no chunk that was found has a text"


def test_of_nothing_nothing_is_reranked() -> None:
    reranked = rerank(Judge(), "q", hits_of([]), 5)
    assert (list(reranked), reranked.reranked, reranked.stopped_by) == ([], True, "complete")


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.none() | st.integers(-3, 3).map(str), max_size=40), st.integers(1, 12), st.integers(1, 50))
def test_any_hits_are_ordered_as_by_sorting(texts: list[str | None], batch_size: int, k: int) -> None:
    hits = hits_of(texts)
    reranked = rerank(Judge(), "q", hits, k, batch_size=batch_size)
    if not any(texts):
        assert ids(reranked) == ids(hits)[:k]
        return
    key: Callable[[Hit], Any] = lambda hit: (hit.text is None, -float(hit.text or 0), hit.rank)  # noqa: E731
    assert ids(reranked) == [hit.id for hit in sorted(hits, key=key)][:k]
    assert [hit.rank for hit in reranked] == list(range(1, len(reranked) + 1))


def test_texts_are_scored_in_batches() -> None:
    judge = Judge()
    rerank(judge, "q", hits_of([str(number) for number in range(70)]), 5)
    rerank(judge, "q", hits_of([str(number) for number in range(5)]), 5, batch_size=2)
    assert judge.batches == [32, 32, 6, 2, 2, 1]


# -- budgets ---------------------------------------------------------------------------------------

HUNDRED = [str(number) for number in range(100)]


def test_a_budget_that_is_over_leaves_the_order_of_the_search(clock: Clock) -> None:
    reranked = rerank(Judge(clock, text=0.25 / 32), "q", hits_of(HUNDRED), 10, budget=0.2)
    assert reranked.note == (
        "reranking stopped: its budget of 0.2 s was over after 32 of 100 chunks; this is the order of the search"
    )
    assert (ids(reranked), reranked.reranked, reranked.stopped_by) == ([f"c{n}" for n in range(1, 11)], False, "k")
    assert [(hit.rank, hit.first_rank) for hit in reranked[:2]] == [(1, None), (2, None)]
    assert reranked[0].score == pytest.approx(0.9)


def test_a_batch_that_would_not_end_in_time_is_not_begun(clock: Clock) -> None:
    judge = Judge(clock, text=0.01)
    reranked = rerank(judge, "q", hits_of(HUNDRED), 10, budget=0.9)
    assert judge.batches == [32, 32]
    assert clock.now == pytest.approx(1000.64)
    assert "after 64 of 100 chunks" in str(reranked.note)


def test_a_smaller_last_batch_is_expected_to_take_less(clock: Clock) -> None:
    judge = Judge(clock, text=0.01)
    assert rerank(judge, "q", hits_of(HUNDRED), 10, budget=1.01).reranked
    assert judge.batches == [32, 32, 32, 4]


def test_loading_counts_but_is_not_taken_for_scoring(clock: Clock) -> None:
    assert rerank(Judge(clock, load=5, text=0.001), "q", hits_of(HUNDRED), 10, budget=5.2).reranked
    judge = Judge(clock, load=5, text=0.001)
    reranked = rerank(judge, "q", hits_of(HUNDRED), 10, budget=5)
    assert (judge.batches, reranked.reranked) == ([], False)
    assert "its budget of 5 s was over after 0 of 100 chunks" in str(reranked.note)


def test_without_a_budget_it_takes_as_long_as_it_takes(clock: Clock) -> None:
    assert rerank(Judge(clock, load=1e6, text=1e6), "q", hits_of(HUNDRED), 10).reranked


class Within(Judge):
    """A reranker that can give up."""

    def scores_within(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        if self.text * len(texts) > seconds:
            self.clock.now += seconds
            raise TimeoutError
        return self.scores(query, texts)


def test_a_reranker_that_can_give_up_gets_the_rest_of_the_budget(clock: Clock) -> None:
    reranked = rerank(Within(clock, load=0.5, text=0.1), "q", hits_of(HUNDRED), 10, budget=2)
    assert "after 0 of 100 chunks" in str(reranked.note)
    assert clock.now == pytest.approx(1002)
    assert rerank(Within(clock, text=0.1), "q", hits_of(HUNDRED), 10).reranked


# -- what goes wrong -------------------------------------------------------------------------------


def broken(query: str, texts: Sequence[str]) -> Sequence[float]:
    del query
    raise TimeoutError(f"no answer for {len(texts)} texts")


@pytest.mark.parametrize("budget", [None, 10])
def test_a_reranker_that_fails_is_an_error(budget: float | None) -> None:
    with pytest.raises(RerankError, match="reranker broken failed: TimeoutError: no answer for 2 texts") as raised:
        rerank(load(broken), "q", hits_of(["1", "2"]), 1, budget=budget)
    assert isinstance(raised.value.__cause__, TimeoutError)


def test_errors_of_pgvec_stay_what_they_are() -> None:
    def missing(query: str, texts: Sequence[str]) -> Sequence[float]:
        raise EmbeddingError(f"{query} {len(texts)}")

    with pytest.raises(EmbeddingError, match="q 1"):
        rerank(load(missing), "q", hits_of(["1"]), 1)


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ([1.0], "1 scores for 2 texts"),
        ([1.0, 2.0, 3.0], "3 scores for 2 texts"),
        ([1.0, math.nan], "the score nan"),
        ([1.0, -math.inf], "the score -inf"),
        (["one", "two"], "something else than scores"),
        ([[1.0, 2.0], [3.0, 4.0]], "something else than scores"),
        (None, "something else than scores"),
    ],
)
def test_scores_that_do_not_fit_are_an_error(output: Any, problem: str) -> None:
    def odd(query: str, texts: Sequence[str]) -> Any:
        del query, texts
        return output

    with pytest.raises(RerankError, match=f"odd returned {problem}"):
        rerank(load(odd), "q", hits_of(["1", "2"]), 1)


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"batch_size": 0}, {"budget": 0}, {"budget": -1}, {"budget": math.nan}, {"query": " "}]
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        rerank(**({"reranker": Judge(), "query": "q", "hits": hits_of(["1"]), "k": 1} | wrong))


# -- finding one -----------------------------------------------------------------------------------


def test_functions_and_objects_are_rerankers() -> None:
    judge = Judge()
    assert load(judge) is judge
    assert isinstance(load(broken), CallableReranker)
    assert isinstance(load(broken), Reranker)
    assert load(broken).name == "broken"
    with pytest.raises(ConfigurationError, match=r"7 is no reranker: give the name of a cross-encoder"):
        load(7)
