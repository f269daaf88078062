"""Trials of settings: how good each is, on no more queries than it takes to tell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgvec_toolkit.tune.profile import Trial, reaching, standard_error
from pgvec_toolkit.tune.queries import Queries, found_distances, nearest_sql
from pgvec_toolkit.tune.recall import shares

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.indexes import Index
    from pgvec_toolkit.schema.space import Space

_BATCHES = (100, 300)  # after so many queries a setting that is clearly good or bad needs no more
_CLEARLY = 3.0  # standard errors
# The mean over the queries at hand is as likely too high as too low: what is compared is less by so much of its error.
# With a quarter, unseen queries reach the target in the mean, for a tenth more than they would have chosen themselves.
_GUARD = 0.25
_WARM = 10  # queries before the time counts


@dataclass(frozen=True)
class Goal:
    """What is to be reached.

    Attributes:
        target: mean recall.
        tail_share: the share of queries that reach it each; None: any.
    """

    target: float
    tail_share: float | None = None

    def reached(self, each: NDArray[np.float64], *, all: bool) -> bool | None:
        """Return whether queries with these recalls reach it; None: more have to tell, if they are not `all`."""
        wanted = [(float(each.mean()) - self.target, standard_error(each))]
        if self.tail_share is not None:
            share = reaching(each, self.target)
            wanted.append((share - self.tail_share, math.sqrt(share * (1 - share) / len(each))))
        if all:
            return min(margin - _GUARD * error for margin, error in wanted) >= 0
        # Where all queries agree, one in their number may yet differ.
        clear = [margin if abs(margin) > _CLEARLY * max(error, 1 / len(each)) else 0 for margin, error in wanted]
        if min(clear) < 0:
            return False
        return True if min(clear) > 0 else None


@dataclass
class Measured:
    """What is known of a setting: the recall of each of the first queries, and the time that they took."""

    shares: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    seconds: float = 0.0

    def trial(self, setting: int, oversampling: float, goal: Goal) -> Trial:
        """Return it as it is reported."""
        return Trial(
            setting,
            oversampling,
            float(self.shares.mean()),
            self.seconds / len(self.shares) * 1000,
            reaching(self.shares, goal.target),
            len(self.shares),
            standard_error(self.shares),
        )


@dataclass
class Trials:
    """Settings of one index, measured for one k.

    Attributes:
        largest: value of the setting.
        queries: to measure with, in random order.
        truth: their true distances.
        advance: is told of each measurement.
    """

    connection: Connection
    collection: str
    space: Space
    index: Index
    k: int
    largest: int
    queries: Queries
    truth: Sequence[NDArray[Any]] | NDArray[Any]
    advance: Callable[[float], None]
    known: dict[tuple[int, float], Measured] = field(default_factory=dict)
    _statements: dict[Hashable, str] = field(default_factory=dict)

    def reaches(self, goal: Goal, setting: int, oversampling: float = 1.0) -> bool:
        """Whether a setting reaches a goal, from as few queries as tell."""
        for count in (*_BATCHES, len(self.queries)):
            measured = self.measure(setting, oversampling, count)
            verdict = goal.reached(measured.shares, all=len(measured.shares) == len(self.queries))
            if verdict is not None:
                return verdict
        raise AssertionError("all queries tell")

    def measure(self, setting: int, oversampling: float = 1.0, count: int | None = None) -> Measured:
        """Measure a setting on the first queries, beyond those that it was measured on already."""
        measured = self.known.setdefault((setting, oversampling), Measured())
        start, end = len(measured.shares), min(len(self.queries), count or len(self.queries))
        if end > start:
            if not start:
                self.found(setting, oversampling, 0, min(_WARM, end))
            began = time.perf_counter()
            found = self.found(setting, oversampling, start, end)
            measured.seconds += time.perf_counter() - began
            measured.shares = np.concatenate([measured.shares, shares(self.truth[start:end], found)])
            self.advance(1)
        return measured

    def fastest(self, settings: Sequence[tuple[int, float]], rounds: int = 3) -> tuple[int, float]:
        """Return the fastest of some settings, timed by turns: what else the machine does hits all alike."""
        if len(settings) == 1:
            return settings[0]
        least = dict.fromkeys(settings, math.inf)
        for _ in range(rounds):
            for setting, oversampling in settings:
                began = time.perf_counter()
                self.found(setting, oversampling, 0, min(100, len(self.queries)))
                took = time.perf_counter() - began
                least[setting, oversampling] = min(least[setting, oversampling], took)
        return min(least, key=lambda setting: least[setting])

    def found(self, setting: int, oversampling: float, start: int, end: int) -> list[NDArray[np.float64]]:
        """Return the distances that some of the queries find with a setting."""
        statement = self.statement((setting, oversampling), ef_search=setting, oversampling=oversampling)
        return found_distances(self.connection, statement, self.queries.take(np.arange(start, end)), self.k)

    def statement(self, key: Hashable, **options: Any) -> str:
        """Return the statement that searches with some options, fetched once for each key."""
        if key not in self._statements:
            self._statements[key] = nearest_sql(
                self.connection,
                self.collection,
                self.k,
                beyond=int((self.queries.own_keys >= 0).any()),  # a stored row finds itself
                space=self.space.name,
                **options,
            )
        return self._statements[key]
