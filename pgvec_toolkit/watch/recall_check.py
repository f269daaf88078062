"""Recall over time: one check, and the series of them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Pool

_COLUMNS = """checked_at, k, source, queries, recall, recall_low, recall_high, reaching_share, short_results,
    milliseconds, target_recall, tail_share, mean_shift, distance_shift, out_of_range, alarms"""


@dataclass(frozen=True)
class RecallCheck:
    """How good searches were when it was checked, and how far the embeddings had drifted.

    Attributes:
        checked_at: when.
        k: of recall@k.
        source: "log": queries of users; "stored": rows, which are easier, and left out themselves.
        queries: how many were searched.
        recall: mean over them.
        recall_low: with `recall_high` its 95 % confidence interval.
        recall_high: likewise.
        reaching_share: the share of queries that reached the target each; None without a profile.
        short_results: searches that returned fewer rows than match.
        milliseconds: mean of a search, planning included.
        target_recall: what the tuning profile promises; None without one.
        tail_share: the share of queries that are to reach it each, if that was asked for.
        mean_shift: of the stored vectors' mean since the baseline, in units of their spread; None at the baseline
            itself, and for types that have no mean.
        distance_shift: of the queries' distances to their nearest, 0 to 1 (Kolmogorov-Smirnov).
        out_of_range: the share of queries farther from their nearest than 99 % were at the baseline.
        alarms: what is wrong, beyond chance; empty is good.
    """

    checked_at: dt.datetime
    k: int
    source: str
    queries: int
    recall: float
    recall_low: float
    recall_high: float
    reaching_share: float | None
    short_results: int
    milliseconds: float
    target_recall: float | None
    tail_share: float | None
    mean_shift: float | None
    distance_shift: float | None
    out_of_range: float | None
    alarms: tuple[str, ...]


def check(database: Pool, collection: str, k: int, queries: int, space: str | None) -> RecallCheck:
    """Check once (SQL: `pgvec.watch`)."""
    return _read(
        database.fetch_one(f"SELECT {_COLUMNS} FROM pgvec.watch($1, $2, $3, $4)", [collection, k, queries, space])
    )


def history(database: Pool, space_id: int, limit: int) -> list[RecallCheck]:
    """Return the newest checks of a space, oldest first."""
    rows = database.fetch(
        f"SELECT {_COLUMNS} FROM pgvec.recall_checks WHERE space_id = $1 ORDER BY checked_at DESC, id DESC LIMIT $2",
        [space_id, limit],
    )
    return [_read(row) for row in reversed(rows)]


def _read(row: Any) -> RecallCheck:
    read: tuple[Any, ...] = (*row[:-1], tuple(row[-1]))
    return RecallCheck(*read)
