"""Measures of rankings by hand and by trec_eval, and intervals by their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import numpy as np
import pytest

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.evaluate.bootstrap import excludes_zero, interval
from pgvec_toolkit.evaluate.fit import Weights, best_weights
from pgvec_toolkit.evaluate.metrics import (
    METRICS,
    average_precision,
    ndcg,
    parse_metric,
    recall,
    reciprocal_rank,
)

GRADES = {"a": 3, "b": 1, "c": 2, "d": 0, "e": -1}
RANKED = ["x", "c", "d", "a", "e", "b"]


def test_ndcg_by_hand() -> None:
    ideal = 3 + 2 / log2(3) + 1 / log2(4)
    assert ndcg(RANKED, GRADES, 6) == pytest.approx((2 / log2(3) + 3 / log2(5) + 1 / log2(7)) / ideal)
    assert ndcg(RANKED, GRADES, 2) == pytest.approx((2 / log2(3)) / (3 + 2 / log2(3)))
    assert ndcg(["a", "c", "b"], GRADES, 10) == 1


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(RANKED, GRADES, 10) == 1 / 2
    assert reciprocal_rank(RANKED, GRADES, 1) == 0
    assert reciprocal_rank(["d", "e", "b"], GRADES, 10) == 1 / 3  # neither 0 nor -1 is relevant


def test_recall_by_hand() -> None:
    assert [recall(RANKED, GRADES, k) for k in (1, 2, 4, 6)] == [0, 1 / 3, 2 / 3, 1]


def test_average_precision_by_hand() -> None:
    assert average_precision(RANKED, GRADES, 6) == pytest.approx((1 / 2 + 2 / 4 + 3 / 6) / 3)
    assert average_precision(RANKED, GRADES, 4) == pytest.approx((1 / 2 + 2 / 4) / 3)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_found_or_nothing_to_find_is_zero(name: str) -> None:
    assert METRICS[name]([], GRADES, 10) == 0
    assert METRICS[name](["a"], {}, 10) == 0
    assert METRICS[name](["d", "e"], {"d": 0, "e": -1}, 10) == 0


def test_metrics_by_name() -> None:
    assert parse_metric("ndcg@10") == (ndcg, 10)
    assert parse_metric("map@100") == (average_precision, 100)
    for wrong in ("ndcg", "ndcg@0", "ndcg@x", "f1@10", "@10", ""):
        with pytest.raises(ConfigurationError, match="ndcg@10"):
            parse_metric(wrong)


def test_they_are_those_of_trec_eval() -> None:
    trec = pytest.importorskip("pytrec_eval", reason="needs pytrec-eval-terrier")
    random = np.random.default_rng(7)
    ids = [f"d{number}" for number in range(60)]
    qrels: dict[str, dict[str, int]] = {}
    runs: dict[str, list[str]] = {}
    for query in map(str, range(200)):
        judged = random.choice(ids, size=random.integers(1, 40), replace=False).tolist()
        qrels[query] = {id: int(random.integers(-1, 4)) for id in judged}
        runs[query] = random.choice(ids, size=random.integers(1, 50), replace=False).tolist()
    for k in (1, 3, 10, 100):
        names = {"ndcg": f"ndcg_cut_{k}", "recall": f"recall_{k}", "map": f"map_cut_{k}", "mrr": "recip_rank"}
        asked = {f"ndcg_cut.{k}", f"recall.{k}", f"map_cut.{k}", "recip_rank"}
        # Its reciprocal rank has no cut: it gets no more than k.
        cut = {query: {id: float(-rank) for rank, id in enumerate(ranked[:k])} for query, ranked in runs.items()}
        theirs = trec.RelevanceEvaluator(qrels, asked).evaluate(cut)
        for query, ranked in runs.items():
            for name, metric in METRICS.items():
                assert metric(ranked, qrels[query], k) == pytest.approx(theirs[query][names[name]]), (name, k, query)


# -- intervals ---------------------------------------------------------------------------------------


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    samples = random.exponential(size=(60, 400))
    low, high = interval(samples, resamples=1000)
    covered = ((low <= 1) & (high >= 1)).mean()
    assert 0.88 < covered < 0.97  # a percentile interval of a skewed sample covers a little less
    normal = 1.96 * samples.std(axis=0, ddof=1) / np.sqrt(60)
    assert ((high - low) / 2).mean() == pytest.approx(normal.mean(), rel=0.05)


def test_an_interval_is_the_same_for_the_same_seed_and_its_columns_share_resamples() -> None:
    values = np.random.default_rng(1).random((40, 3))
    values[:, 2] = values[:, 0] + 1
    low, high = interval(values, seed=4)
    assert [low.tolist(), high.tolist()] == [end.tolist() for end in interval(values, seed=4)]
    assert low.tolist() != interval(values, seed=5)[0].tolist()
    assert low[2] == pytest.approx(low[0] + 1)
    assert high[2] == pytest.approx(high[0] + 1)


def test_a_paired_difference_is_sharper_than_its_sides() -> None:
    random = np.random.default_rng(2)
    first = random.random(100)
    second = first + 0.02 + random.normal(scale=0.02, size=100)
    low, high = interval(np.stack([first, second, second - first], axis=1))
    assert low[1] < high[0]  # they overlap
    assert excludes_zero(float(low[2]), float(high[2]))


def test_no_difference_does_not_differ() -> None:
    low, high = interval(np.zeros((30, 1)))
    assert (low[0], high[0]) == (0, 0)
    assert not excludes_zero(0, 0)
    assert not excludes_zero(-0.1, 0.2)
    assert excludes_zero(-0.2, -0.1)


# -- the search for weights --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [{"a": 0.7, "b": 0.3}, {"a": 0.0, "b": 1.0}, {"a": 0.2, "b": 0.5, "c": 0.3}, {"a": 1.0, "b": 0.0, "c": 0.0}],
)
def test_the_best_weights_are_found(target: Weights) -> None:
    asked: list[Weights] = []

    def means(several: Sequence[Weights]) -> list[float]:
        asked.extend(several)
        return [-sum((weights[leg] - target[leg]) ** 2 for leg in target) for weights in several]

    assert best_weights(list(target), means) == pytest.approx(target, abs=0.06)
    assert all(sum(weights.values()) == pytest.approx(1, abs=1e-3) for weights in asked)
    assert all(weight >= 0 for weights in asked for weight in weights.values())


def test_of_equally_good_weights_the_most_equal_stay() -> None:
    assert best_weights(["a", "b"], lambda several: [0.5] * len(several)) == {"a": 0.5, "b": 0.5}
    high = best_weights(["a", "b"], lambda several: [float(weights["a"] > 0.72) for weights in several])
    assert high == {"a": 0.75, "b": 0.25}
