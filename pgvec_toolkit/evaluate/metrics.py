"""Measures of a ranking against judgements, as trec_eval has them: of one query, from 0 to 1.

`ranked` are document ids, best first, each once; `grades` what the judged documents are worth. Grades of 0 and
below are not relevant, nor is what was not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from pgvec_toolkit.errors import ConfigurationError

Grades = Mapping[str, int]
Metric = Callable[[Sequence[str], Grades, int], float]


def ndcg(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """Return nDCG@k; the gain of a document is its grade (trec_eval: ndcg_cut)."""
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    if not ideal:
        return 0.0
    return _discounted(max(grades.get(id, 0), 0) for id in ranked[:k]) / _discounted(ideal)


def reciprocal_rank(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """Return 1 / the rank of the first relevant document; 0 if that is beyond k (trec_eval: recip_rank)."""
    return next((1 / rank for rank, id in enumerate(ranked[:k], 1) if grades.get(id, 0) > 0), 0.0)


def recall(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """Return the share of the relevant documents that are among the first k (trec_eval: recall)."""
    relevant = _relevant(grades)
    return sum(grades.get(id, 0) > 0 for id in ranked[:k]) / relevant if relevant else 0.0


def average_precision(ranked: Sequence[str], grades: Grades, k: int) -> float:
    """Return the mean of the precision at each relevant document; 0 at those beyond k (trec_eval: map_cut)."""
    relevant, found, total = _relevant(grades), 0, 0.0
    for rank, id in enumerate(ranked[:k], 1):
        if grades.get(id, 0) > 0:
            found += 1
            total += found / rank
    return total / relevant if relevant else 0.0


METRICS: dict[str, Metric] = {"ndcg": ndcg, "mrr": reciprocal_rank, "recall": recall, "map": average_precision}


def parse_metric(name: str) -> tuple[Metric, int]:
    """Return the measure of a name like ndcg@10, and its k."""
    metric, _, k = name.partition("@")
    if metric not in METRICS or not k.isdecimal() or int(k) < 1:
        raise ConfigurationError(f"unknown metric {name!r}: there are {', '.join(f'{each}@10' for each in METRICS)}")
    return METRICS[metric], int(k)


def _relevant(grades: Grades) -> int:
    return sum(grade > 0 for grade in grades.values())


def _discounted(gains: Iterable[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
