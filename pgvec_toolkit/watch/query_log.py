"""What is logged of the queries of a space."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True)
class QueryLog:
    """The state of a query log (SQL: `pgvec.logged_queries`); the queries themselves are in pgvec.query_log.

    Attributes:
        share: of the queries, logged; None: logging is off.
        keep: how many are kept, about; None likewise.
        queries: how many there are.
        filtered: how many of them have a filter.
        oldest: when the first of them was asked; None if there is none.
        newest: when the last of them was asked.
    """

    share: float | None
    keep: int | None
    queries: int
    filtered: int
    oldest: dt.datetime | None
    newest: dt.datetime | None
