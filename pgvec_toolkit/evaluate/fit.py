"""Weights of a fusion, fitted to labelled queries and judged by others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import ConfigurationError, TuningError
from pgvec_toolkit.evaluate.beir import Qrels
from pgvec_toolkit.evaluate.bootstrap import RESAMPLES, excludes_zero, interval
from pgvec_toolkit.evaluate.evaluation import Judged, Mode, Searched, functions, run_all
from pgvec_toolkit.evaluate.metrics import parse_metric
from pgvec_toolkit.search.hybrid import KEYWORD

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Pool

_FEWEST_QUERIES = 10  # of each half
_COARSE = tuple(step / 10 for step in range(11))
_FINE = (-0.05, 0.05)
_MOST_ROUNDS = 5
_QUERIES_PER_STATEMENT = 200

Weights = dict[str, float]
Ranking = list[tuple[str, float | None, str]]  # (chunk id, score, document id), best first


@dataclass(frozen=True)
class Fitted:
    """Weights that were fitted, and what they are worth.

    Attributes:
        fusion: which one.
        metric: what was maximised, as ndcg@10.
        weights: leg to weight; they add up to 1.
        train_queries: how many queries they were fitted to.
        held_out_queries: how many others they are judged by.
        train: mean of the metric on the first, with the weights.
        train_default: and with the default ones.
        held_out: mean on the others, with the weights.
        held_out_default: and with the default ones.
        difference: held_out minus held_out_default.
        difference_low: lower end of its 95 % interval, by the paired bootstrap.
        difference_high: upper end.
        differs: whether that interval excludes 0; where it does not, the default weights may be as good.
    """

    fusion: str
    metric: str
    weights: Weights
    train_queries: int
    held_out_queries: int
    train: float
    train_default: float
    held_out: float
    held_out_default: float
    difference: float
    difference_low: float
    difference_high: float
    differs: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict, for JSON."""
        return asdict(self)


def fit_weights(
    collection: Searched,
    queries: Mapping[str, str] | str | Path,
    qrels: Qrels | str | Path,
    *,
    fusion: str = "relative",
    legs: Sequence[str] | Mapping[str, str | Mode] | None = None,
    metric: str = "ndcg@10",
    train: float = 0.5,
    depth: int = 100,
    rrf_k: float = 60,
    seed: int = 0,
    progress: bool | None = None,
) -> Fitted:
    """Find the weights of a fusion that are best for some of the queries, and judge them by the others.

    Each leg is searched once; what is tried are fusions of the rankings (SQL: `pgvec.fuse`), in steps of a twentieth.

    Args:
        collection: what the named legs search.
        queries: as `evaluate` takes them.
        qrels: as `evaluate` takes them.
        fusion: relative, dbsf, rrf or weighted.
        legs: at least two of those of `hybrid_search`, "keyword" and names of vector spaces; or a mapping, as the
            modes of `evaluate`. None: the default space and keyword.
        metric: what to maximise: ndcg, mrr, recall or map, @k.
        train: the share of the queries that the weights are fitted to.
        depth: how many chunks each leg brings.
        rrf_k: of rrf.
        seed: of the split and of the bootstrap.
        progress: whether to show a bar; None: on a terminal.

    Raises:
        TuningError: there are too few judged queries.
    """
    parse_metric(metric)
    if not isinstance(legs, str | Mapping):
        named = (collection.space.name, KEYWORD) if legs is None else legs
        legs = {leg: leg if leg == KEYWORD else f"space:{leg}" for leg in named}
    searches = functions(collection, legs, depth, fusion)
    if len(searches) < 2:
        raise ConfigurationError("a fusion has at least two legs")
    judged = Judged.of(queries, qrels)
    order = np.random.default_rng(seed).permutation(len(judged.texts)).tolist()
    ids = [list(judged.texts)[place] for place in order]
    split = round(train * len(ids))
    if min(split, len(ids) - split) < _FEWEST_QUERIES:
        raise TuningError(
            f"fitting needs {_FEWEST_QUERIES} judged queries and as many to judge by; "
            f"of {len(ids)}, a share of {train} leaves {max(0, split)} and {max(0, len(ids) - split)}"
        )
    found = run_all(
        searches, judged.texts, lambda hits: [(hit.id, hit.score, hit.document_id) for hit in hits], progress
    )
    bench = _Bench(collection.database, found, judged.grades, fusion, metric, rrf_k)
    weights = best_weights(list(searches), lambda several: bench.means(ids[:split], several))
    return _judged(bench, ids[:split], ids[split:], weights, seed)


class _Bench:
    """Rankings of the legs, to be fused with weights and measured."""

    def __init__(
        self,
        database: Pool,
        found: Mapping[str, Mapping[str, Ranking]],
        grades: Qrels,
        fusion: str,
        metric: str,
        rrf_k: float,
    ) -> None:
        self.fusion = fusion
        self.metric = metric
        self._database = database
        self._found = found
        self._grades = grades
        self._rrf_k = rrf_k
        self._documents = {
            id: document for leg in found.values() for ranking in leg.values() for id, _, document in ranking
        }

    def means(self, ids: Sequence[str], several: Sequence[Weights | None]) -> list[float]:
        """Return the mean of the metric for each of several weights."""
        means: list[float] = self.values(ids, several).mean(axis=1).tolist()
        return means

    def values(self, ids: Sequence[str], several: Sequence[Weights | None]) -> NDArray[np.float64]:
        """Return the metric of each query with each weights, of shape (weights, queries); None: the default."""
        measure, k = parse_metric(self.metric)
        values = np.zeros((len(several), len(ids)))
        for start in range(0, len(ids), _QUERIES_PER_STATEMENT):
            batch = ids[start : start + _QUERIES_PER_STATEMENT]
            for weights, query, chunks in self._fused(batch, several):
                ranked = list(dict.fromkeys(self._documents[chunk] for chunk in chunks))
                values[weights, start + query] = measure(ranked, self._grades[batch[query]], k)
        return values

    def _fused(self, ids: Sequence[str], several: Sequence[Weights | None]) -> list[tuple[int, int, list[str]]]:
        """Return (number of the weights, number of the query, ids of chunks, best first)."""
        rankings = [
            {leg: [[chunk, score] for chunk, score, _ in found[id]] for leg, found in self._found.items()} for id in ids
        ]
        return self._database.fetch(
            "SELECT w.number::integer - 1, q.number::integer - 1, f.ids"
            " FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS q (rankings, number)"
            " CROSS JOIN jsonb_array_elements($2::jsonb) WITH ORDINALITY AS w (weights, number)"
            " CROSS JOIN LATERAL (SELECT coalesce(array_agg(id ORDER BY rank), '{}') AS ids FROM pgvec.fuse("
            "q.rankings, $3::text, nullif(w.weights, 'null'::jsonb), $4::double precision)) AS f",
            [Jsonb(rankings), Jsonb(several), self.fusion, self._rrf_k],
        )


def best_weights(legs: Sequence[str], means: Callable[[Sequence[Weights]], list[float]]) -> Weights:
    """Search the weights of the legs, which add up to 1, one coordinate after the other.

    Of equally good weights, the most equal ones are taken.

    Args:
        legs: their names.
        means: what to maximise, of each of several weights.
    """
    best = dict.fromkeys(legs, 1 / len(legs))
    (value,) = means([best])
    for _ in range(_MOST_ROUNDS):
        before = best
        for leg in legs if len(legs) > 2 else legs[:1]:  # of two legs, the other one has the rest
            for fine in (False, True):
                shares = [best[leg] + step for step in _FINE] if fine else _COARSE
                tried = [_with(best, leg, share) for share in shares if 0 <= share <= 1]
                reached = [(value, best), *zip(means(tried), tried, strict=True)]
                value, best = max(reached, key=lambda pair: (pair[0], -_imbalance(pair[1])))
        if best == before or len(legs) == 2:
            break
    return best


def _with(weights: Weights, leg: str, share: float) -> Weights:
    """Give a leg its share; the others divide the rest as they did."""
    others = sum(weight for name, weight in weights.items() if name != leg)
    changed = {
        name: (1 - share) * (weight / others if others else 1 / (len(weights) - 1)) for name, weight in weights.items()
    }
    return {name: round(weight, 4) for name, weight in (changed | {leg: share}).items()}


def _imbalance(weights: Weights) -> float:
    return sum((weight - 1 / len(weights)) ** 2 for weight in weights.values())


def _judged(bench: _Bench, train: Sequence[str], held_out: Sequence[str], weights: Weights, seed: int) -> Fitted:
    train_fitted, train_default = bench.means(train, [weights, None])
    fitted, default = bench.values(held_out, [weights, None])
    low, high = interval((fitted - default)[:, None], resamples=RESAMPLES, seed=seed)
    return Fitted(
        fusion=bench.fusion,
        metric=bench.metric,
        weights=weights,
        train_queries=len(train),
        held_out_queries=len(held_out),
        train=train_fitted,
        train_default=train_default,
        held_out=float(fitted.mean()),
        held_out_default=float(default.mean()),
        difference=float((fitted - default).mean()),
        difference_low=float(low[0]),
        difference_high=float(high[0]),
        differs=excludes_zero(float(low[0]), float(high[0])),
    )
