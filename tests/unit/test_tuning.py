"""What tuning computes without a server: the nearest by blocks, intervals, when a goal is reached."""

from __future__ import annotations

import numpy as np
import pytest

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.tune.nearest import Nearest
from pgvec_toolkit.tune.profile import interval, reaching, standard_error
from pgvec_toolkit.tune.trials import Goal

RANDOM = np.random.default_rng(11)


def by_the_book(distance: Distance, query: np.ndarray, stored: np.ndarray) -> np.ndarray:
    query, stored = query.astype(np.float64), stored.astype(np.float64)
    if distance is Distance.L2:
        return np.sqrt(((stored - query) ** 2).sum(axis=1))
    if distance is Distance.L1:
        return np.abs(stored - query).sum(axis=1)
    if distance is Distance.INNER_PRODUCT:
        return -(stored @ query)
    if distance is Distance.COSINE:
        return 1 - stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
    unlike = np.abs(stored - query).sum(axis=1)
    return unlike if distance is Distance.HAMMING else unlike / np.maximum(stored, query).sum(axis=1)


@pytest.mark.parametrize("distance", list(Distance))
@pytest.mark.parametrize(("rows", "block", "k"), [(1000, 100, 7), (1000, 1000, 150), (40, 7, 30), (3, 2, 5)])
def test_the_nearest_by_blocks(distance: Distance, rows: int, block: int, k: int) -> None:
    bits = "bit" in distance.types
    stored, queries = RANDOM.normal(size=(rows, 24)), RANDOM.normal(size=(9, 24))
    if bits:
        stored, queries = (stored > 0).astype(float), (queries > 0).astype(float)
    else:
        # Far from the origin, and some almost the same: what float32 products cannot tell apart.
        stored, queries = stored + 100, queries + 100
        stored[: rows // 2] = queries[0] + RANDOM.normal(scale=1e-3, size=(rows // 2, 24))
    stored, queries = stored.astype(np.float32), queries.astype(np.float32)
    own_keys = np.full(9, -1)
    own_keys[1] = rows - 1  # this one is a stored row
    queries[1] = stored[rows - 1]
    nearest = Nearest(distance, queries, own_keys, k)
    for start in range(0, rows, block):
        nearest.add(np.arange(rows)[start : start + block], stored[start : start + block])
    for row, query in enumerate(queries):
        others = stored[np.arange(rows) != own_keys[row]]
        wanted = np.sort(by_the_book(distance, query, others))[:k]
        np.testing.assert_allclose(nearest.distances[row][: len(wanted)], wanted, rtol=2e-6, atol=1e-6)
        assert np.isinf(nearest.distances[row][len(wanted) :]).all()


def test_an_interval_holds_the_true_mean() -> None:
    """Of 2,000 samples 95 % should: 93 to 97 % are four standard errors."""
    held, random = 0, np.random.default_rng(12)
    for _ in range(2000):
        each = random.binomial(10, 0.93, size=100) / 10
        low, high = interval(each)
        assert 0 <= low < each.mean() < high <= 1
        held += low <= 0.93 <= high
    assert 0.93 <= held / 2000 <= 0.97


def test_an_interval_where_all_agree() -> None:
    low, high = interval(np.ones(300))
    assert 0.98 < low < 0.99
    assert high == pytest.approx(1)
    assert interval(np.zeros(300))[0] == 0
    assert interval(np.ones(1))[0] < 0.3


def test_a_goal_is_reached_a_part_of_the_error_above_it() -> None:
    each = np.asarray([1.0, 0.9] * 200)  # mean 0.95, standard error 0.0025
    assert standard_error(each) == pytest.approx(0.0025, rel=0.01)
    assert [Goal(target).reached(each, all=True) for target in (0.949, 0.95, 0.951)] == [True, False, False]
    assert [Goal(target).reached(each, all=False) for target in (0.94, 0.949, 0.951, 0.96)] == [True, None, None, False]
    assert reaching(each, 0.9) == 1
    assert reaching(each, 0.91) == 0.5
    assert Goal(0.9, 0.99).reached(each, all=True) is True
    assert Goal(0.91, 0.6).reached(each, all=True) is False
    assert Goal(0.91, 0.4).reached(each, all=True) is True
    assert Goal(0.91, 0.8).reached(each, all=False) is False
    assert Goal(0.99).reached(np.ones(10), all=False) is None
