"""The search for the cheapest setting of an index that reaches a target recall."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import TuningError
from pgvec_toolkit.tune import recall as measuring
from pgvec_toolkit.tune.recall import Queries

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.indexes import Index
    from pgvec_toolkit.schema.space import Space

LARGEST_EF_SEARCH = 1000
FEWEST_QUERIES = 20
PARAMETERS = {"hnsw": "hnsw.ef_search", "ivfflat": "ivfflat.probes"}


@dataclass(frozen=True)
class Trial:
    """One setting, measured on the tuning queries."""

    setting: int
    recall: float
    milliseconds: float


@dataclass(frozen=True)
class TuningProfile:
    """What tune found, and on what evidence.

    Attributes:
        index_method: hnsw or ivfflat.
        parameter: the setting's name.
        setting: its cheapest value that reaches the target.
        k: number of neighbours it was tuned for.
        target_recall: what was asked for.
        recall: mean recall@k with it, on queries that were held back from the search for it.
        milliseconds: mean latency with it.
        queries: how many queries it was tuned on, and as many checked on.
        trials: all settings that were measured.
    """

    index_method: str
    parameter: str
    setting: int
    k: int
    target_recall: float
    recall: float
    milliseconds: float
    queries: int
    trials: tuple[Trial, ...]


@dataclass
class Tuner:
    """Measures settings of one index of one collection."""

    connection: Connection
    collection: str
    index_method: str
    k: int
    largest: int
    advance: Callable[[float], None]

    def tune(self, queries: Queries, truth: NDArray[np.float32], target: float) -> TuningProfile:
        """Bisect over the settings on half of the queries, and check on the half held back."""
        halves = np.random.default_rng(0).permutation(len(queries))
        tuning, held_back = np.array_split(halves, 2)
        trials: dict[int, Trial] = {}

        def reaches(setting: int) -> bool:
            if setting not in trials:
                trials[setting] = self._measure(setting, queries.take(tuning), truth[tuning])
            return trials[setting].recall >= target

        setting = self._cheapest(reaches, trials, target)
        check = self._measure(setting, queries.take(held_back), truth[held_back])
        while check.recall < target and setting < self.largest:
            setting = min(self.largest, setting + max(1, setting // 16))
            check = self._measure(setting, queries.take(held_back), truth[held_back])
        if check.recall < target:
            raise _unreachable(self.index_method, target, check)
        return TuningProfile(
            self.index_method,
            PARAMETERS[self.index_method],
            setting,
            self.k,
            target,
            check.recall,
            check.milliseconds,
            len(tuning),
            tuple(sorted(trials.values(), key=lambda trial: trial.setting)),
        )

    def _cheapest(self, reaches: Callable[[int], bool], trials: dict[int, Trial], target: float) -> int:
        """Double the setting until it reaches the target, then bisect between the last two."""
        low = high = min(self.largest, self.k if self.index_method == "hnsw" else 1)
        while not reaches(high):
            if high == self.largest:
                raise _unreachable(self.index_method, target, trials[high])
            low, high = high + 1, min(self.largest, 2 * high)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle) else (middle + 1, high)
        return high

    def _measure(self, setting: int, queries: Queries, truth: NDArray[np.float32]) -> Trial:
        statement = measuring.nearest_sql(self.connection, self.collection, self.k + 1, setting=setting)
        measuring.found_distances(self.connection, statement, queries.take(np.arange(min(20, len(queries)))), self.k)
        began = time.perf_counter()
        found = measuring.found_distances(self.connection, statement, queries, self.k)
        milliseconds = (time.perf_counter() - began) / len(queries) * 1000
        self.advance(1)
        return Trial(setting, float(measuring.shares(truth, found).mean()), milliseconds)


def tune(
    connection: Connection,
    collection: str,
    space: Space,
    indexes: Sequence[Index],
    queries: Queries,
    k: int,
    target: float,
    advance: Callable[[float], None],
) -> TuningProfile:
    """Tune the index that searches use, and store the profile."""
    method, largest = _tunable(collection, indexes)
    if not len(queries):
        raise TuningError(f"collection {collection!r} is empty: load it first")
    if len(queries) < FEWEST_QUERIES:
        raise TuningError(f"{len(queries)} queries are too few to tune on: at least {FEWEST_QUERIES} are needed")
    truth = measuring.exact_distances(connection, space, queries, k)
    profile = Tuner(connection, collection, method, k, largest, advance).tune(queries, truth, target)
    _store(connection, space.id, profile)
    return profile


def _tunable(collection: str, indexes: Sequence[Index]) -> tuple[str, int]:
    """Return the method of the index that searches use, and the largest value of its setting."""
    valid = [index for index in indexes if index.valid]
    if not valid:
        raise TuningError(
            f"collection {collection!r} has no vector index to tune: searches are exact. Create one with create_index()"
        )
    index = valid[0]
    if index.method == "hnsw":
        return "hnsw", LARGEST_EF_SEARCH
    return "ivfflat", int(dict(option.split("=") for option in index.options).get("lists", "100"))


def _store(connection: Connection, space_id: int, profile: TuningProfile) -> None:
    """Store a profile; searches read it from then on, those already prepared too."""
    evidence = {
        "queries": profile.queries,
        "milliseconds": round(profile.milliseconds, 3),
        "trials": [[trial.setting, round(trial.recall, 4), round(trial.milliseconds, 3)] for trial in profile.trials],
    }
    connection.execute(
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, k, target_recall, setting, recall, evidence)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (space_id, index_method, k) DO UPDATE SET"
        " target_recall = excluded.target_recall, setting = excluded.setting, recall = excluded.recall,"
        " evidence = excluded.evidence, tuned_at = now()",
        [
            space_id,
            profile.index_method,
            profile.k,
            profile.target_recall,
            profile.setting,
            profile.recall,
            Jsonb(evidence),
        ],
    )


def _unreachable(method: str, target: float, best: Trial) -> TuningError:
    advice = (
        "rebuild the index with a larger m and ef_construction"
        if method == "hnsw"
        else "build an HNSW index instead, or IVFFlat with fewer lists"
    )
    return TuningError(
        f"recall {target} is out of reach of this index: "
        f"{PARAMETERS[method]} = {best.setting} reaches {best.recall:.3f}. "
        f"Ask for less, or {advice}"
    )
