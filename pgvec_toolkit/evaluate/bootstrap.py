"""Bootstrap intervals: how far a mean would move with other queries of the same kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_COUNTS_PER_BLOCK = 2**22


def interval(
    values: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % percentile interval of the mean of each column: the lower ends and the upper ends.

    All columns share their resamples. Of a column of differences that makes it the paired bootstrap.

    Args:
        values: of shape (queries, columns).
        resamples: how often queries are drawn, with replacement.
        seed: the same one gives the same intervals.
    """
    random = np.random.default_rng(seed)
    queries = len(values)
    means = np.empty((resamples, values.shape[1]))
    rows = max(1, _COUNTS_PER_BLOCK // queries)  # memory stays flat
    for start in range(0, resamples, rows):
        block = means[start : start + rows]
        # How often each query is drawn is all that a mean depends on.
        counts = random.multinomial(queries, np.full(queries, 1 / queries), size=len(block))
        block[:] = counts @ values / queries
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return low, high


def excludes_zero(low: float, high: float) -> bool:
    """Tell whether an interval of a difference is on one side of 0."""
    return bool(low > 0 or high < 0)
