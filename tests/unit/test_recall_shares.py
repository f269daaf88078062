"""Shares of the truth, and their summary."""

from __future__ import annotations

import numpy as np
import pytest
from pgvector import Bit

from pgvec_toolkit.tune.queries import Queries
from pgvec_toolkit.tune.recall import shares, summarize

TRUTH = np.asarray([[0.1, 0.2, 0.3, 0.4]])


@pytest.mark.parametrize(
    ("found", "share"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1.0),
        ([0.1, 0.2, 0.5, 0.6], 0.5),
        ([0.5, 0.6, 0.7, 0.8], 0.0),
        ([0.1], 0.25),
        ([], 0.0),
        ([0.1, 0.2, 0.3, 0.4 + 1e-6], 1.0),  # another order of adding up
        ([0.1, 0.2, 0.3, 0.4001], 0.75),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 1.0),  # never more than everything
    ],
)
def test_a_share_is_what_is_at_least_as_near(found: list[float], share: float) -> None:
    assert shares(TRUTH, [np.asarray(found)]) == pytest.approx([share])


def test_of_duplicates_any_one_will_do() -> None:
    # Ids would differ here; distances do not.
    assert shares(np.asarray([[0.0, 0.0, 0.0]]), [np.zeros(3)]) == [1.0]


def test_negative_distances_of_the_inner_product() -> None:
    truth = np.asarray([[-900.0, -800.0]])
    assert shares(truth, [np.asarray([-900.0, -799.0])]) == [0.5]
    assert shares(truth, [np.asarray([-900.0, -799.999])]) == [1.0]  # float32 has no more digits there


def test_fewer_rows_than_k() -> None:
    truth = np.asarray([[0.1, 0.2, np.inf, np.inf], [np.inf] * 4])
    assert shares(truth, [np.asarray([0.1, 0.2]), np.asarray([])]).tolist() == [1.0, 1.0]
    assert shares(truth, [np.asarray([0.1]), np.asarray([])]).tolist() == [0.5, 1.0]


def test_summary() -> None:
    truth = [np.asarray([0.1, 0.2])] * 20
    found = [np.asarray([0.1, 0.2])] * 18 + [np.asarray([0.1])] + [np.asarray([0.3, 0.4])]
    summary = summarize(truth, found, 2)
    assert summary.recall == pytest.approx((18 + 0.5 + 0) / 20)
    assert summary.recall_p5 == pytest.approx(np.quantile([1.0] * 18 + [0.5, 0.0], 0.05))
    assert (summary.queries, summary.short_results, summary.k) == (20, 1, 2)


def test_queries_keep_vectors_and_keys_together() -> None:
    queries = Queries(np.arange(6, dtype=np.float32).reshape(3, 2), np.asarray([7, 8, 9]))
    taken = queries.take(np.asarray([2, 0]))
    assert np.asarray(taken.vectors).tolist() == [[4, 5], [0, 1]]
    assert taken.own_keys.tolist() == [9, 7]
    assert Queries.from_vectors(np.ones((2, 3))).own_keys.tolist() == [-1, -1]
    bits = Queries.from_vectors([Bit("00"), Bit("01"), Bit("11")]).take(np.asarray([2, 0]))
    assert (bits.vectors, bits.own_keys.tolist()) == ([Bit("11"), Bit("00")], [-1, -1])
