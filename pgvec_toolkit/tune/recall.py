"""Recall: how much of the truth a search returns, judged by distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import TuningError
from pgvec_toolkit.tune.queries import Queries, found_distances, nearest_sql
from pgvec_toolkit.tune.truth import exact_distances

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

# PostgreSQL and BLAS add up in different orders; two float32 sums differ by less than this.
TOLERANCE = 5e-6


@dataclass(frozen=True)
class Recall:
    """Recall@k of searches.

    Attributes:
        recall: mean over the queries.
        recall_p5: what all but the worst 5 % of them reach.
        queries: how many were measured.
        short_results: how many returned fewer rows than exist.
        k: of recall@k.
    """

    recall: float
    recall_p5: float
    queries: int
    short_results: int
    k: int


def shares(truth: Sequence[NDArray[Any]] | NDArray[Any], found: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the recall of each query: the share of its true nearest that are matched in distance.

    By distance, not by key: of exact duplicates, any one is as good as another.
    """
    result = []
    for true, got in zip(truth, found, strict=True):
        reachable = true[np.isfinite(true)]
        if len(reachable):
            bound = reachable[-1] + TOLERANCE * max(1.0, abs(float(reachable[-1])))
            result.append(min(1.0, float((got <= bound).sum()) / len(reachable)))
        else:
            result.append(1.0)
    return np.asarray(result, dtype=np.float64)


def summarize(truth: Sequence[NDArray[Any]] | NDArray[Any], found: Sequence[NDArray[Any]], k: int) -> Recall:
    """Return mean and 5th percentile of recall, and the number of short results."""
    each = shares(truth, found)
    short = sum(len(got) < np.isfinite(true).sum() for true, got in zip(truth, found, strict=True))
    return Recall(float(each.mean()), float(np.quantile(each, 0.05)), len(each), int(short), k)


def measure(
    connection: Connection, collection: str, space: Space, queries: Queries, k: int, filter: Any = None
) -> Recall:
    """Measure recall@k of searches as they are, for queries that are given."""
    statement = nearest_sql(connection, collection, k, filter=filter, space=space.name)
    found = found_distances(connection, statement, queries, k, filter)
    if filter is None:
        return summarize(exact_distances(connection, space, queries, k), found, k)
    exact = nearest_sql(connection, collection, k, filter=filter, exact=True, space=space.name)
    return summarize(found_distances(connection, exact, queries, k, filter), found, k)


def measure_sample(
    connection: Connection, collection: str, space: Space, count: int, k: int, filter: Any = None
) -> Recall:
    """Measure recall@k for stored rows drawn at random (SQL: `pgvec.recall`)."""
    row = connection.execute(
        "SELECT recall, recall_p5, queries_measured, short_results"
        " FROM pgvec.recall(%s, %s::integer, %s::integer, %s, %s)",
        [collection, k, count, None if filter is None else Jsonb(filter), space.name],
    ).fetchone()
    if row is None or row[0] is None:
        raise TuningError(f"collection {collection!r} holds too little to measure recall on")
    share, share_p5, measured, short = row
    return Recall(share, share_p5, measured, short, k)
