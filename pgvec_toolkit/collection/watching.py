"""How searches of a collection do over time, and what they are asked."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import Any

from pgvec_toolkit.collection.base import CollectionBase
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.watch import recall_check
from pgvec_toolkit.watch.query_log import QueryLog
from pgvec_toolkit.watch.recall_check import RecallCheck


class Watching(CollectionBase):
    """Methods that watch."""

    def log_queries(self, share: float | None = 0.01, keep: int = 10_000, space: str | None = None) -> None:
        """Log a share of the queries, drawn at random, from now on (SQL: `pgvec.log_queries`).

        What is stored: the vector as text, k, the filter, and when. It is off unless switched on here.

        Args:
            share: of the queries; 1: all of them; None or 0: log no more, and keep what was logged.
            keep: about so many are kept, the newest; at most 100,000.
            space: the vector space; None: the default one.

        Other processes notice within a minute. Who may not write to pgvec.query_log searches unlogged.
        """
        _check_share(share)
        _check_whole("keep", keep)
        values = [self.name, None if share is None else float(share), keep, space]
        self._database.fetch("SELECT pgvec.log_queries($1, $2, $3, $4)", values)
        self._forget_texts()

    def logged_queries(self, space: str | None = None) -> QueryLog:
        """Return what is logged: which share, how many, since when (SQL: `pgvec.logged_queries`)."""
        return QueryLog(*self._database.fetch_one("SELECT * FROM pgvec.logged_queries($1, $2)", [self.name, space]))

    def forget_queries(self, space: str | None = None) -> int:
        """Delete the logged queries and return how many there were (SQL: `pgvec.forget_queries`)."""
        return int(self._database.fetch_one("SELECT pgvec.forget_queries($1, $2)", [self.name, space])[0])

    def watch(self, k: int = 10, queries: int = 50, space: str | None = None) -> RecallCheck:
        """Check once how good searches are now, and store that in the series (SQL: `pgvec.watch`).

        Args:
            k: of recall@k.
            queries: how many: of the newest logged ones, each with its own filter, or stored rows while there are
                fewer than 20 of these. Each takes an exact scan.
            space: the vector space; None: the default one.
        """
        _check_whole("k", k)
        _check_whole("queries", queries)
        return recall_check.check(self._database, self.name, k, queries, space)

    def recall_checks(self, space: str | None = None, limit: int = 100) -> list[RecallCheck]:
        """Return the newest checks, oldest first."""
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}")
        return recall_check.history(self._database, self._space(space).id, limit)

    def plot_recall(self, path: str | Path, space: str | None = None, limit: int = 100) -> None:
        """Draw the newest checks over time; .png, or interactive .html."""
        from pgvec_toolkit.tune.pictures import draw_recall

        draw_recall(self.recall_checks(space, limit), path)

    def set_drift_baseline(self, space: str | None = None, queries: int = 100) -> None:
        """Take what embeddings are like now for what is usual (SQL: `pgvec.set_drift_baseline`).

        The first `watch` does so by itself; call it when a drift that is alarmed about is as it should be.
        """
        _check_whole("queries", queries)
        self._database.fetch("SELECT pgvec.set_drift_baseline($1, $2, $3)", [self.name, space, queries])


def _check_share(share: Any) -> None:
    if share is not None and not isinstance(share, Real):
        raise ConfigurationError(f"share is a number from 0 to 1, or None to log no more, not {share!r}")


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, Integral):
        raise ConfigurationError(f"{name} is a whole number, of how many, not {value!r}")
