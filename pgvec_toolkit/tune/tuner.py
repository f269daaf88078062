"""The search for the cheapest setting of an index that reaches a target recall."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import psycopg
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
# Of forms that hold less than the vector: how many times k candidates to rescore, from few to many.
_OVERSAMPLINGS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_DEPTH = 16  # how many times k the calibration looks
_ENOUGH = 100  # queries for what need not be exact


@dataclass(frozen=True)
class Trial:
    """One setting, measured on the tuning queries."""

    setting: int
    oversampling: float
    recall: float
    milliseconds: float


@dataclass(frozen=True)
class TuningProfile:
    """What tune found, and on what evidence.

    Attributes:
        index_method: hnsw or ivfflat.
        form: of the index: full, halfvec, binary or prefix.
        parameter: the setting's name.
        setting: its cheapest value that reaches the target.
        oversampling: how many times k candidates searches rescore; 1 for a full index.
        k: number of neighbours it was tuned for.
        target_recall: what was asked for.
        recall: mean recall@k with it, on queries that were held back from the search for it.
        milliseconds: mean latency with it.
        queries: how many queries it was tuned on, and as many checked on.
        trials: all settings that were measured.
    """

    index_method: str
    form: str
    parameter: str
    setting: int
    oversampling: float
    k: int
    target_recall: float
    recall: float
    milliseconds: float
    queries: int
    trials: tuple[Trial, ...]


@dataclass
class Tuner:
    """Measures settings of one index of one collection.

    Attributes:
        k: of recall@k.
        target: the recall to reach.
        largest: value of the setting.
        queries: to measure with, and their true distances.
    """

    connection: Connection
    collection: str
    space: Space
    index: Index
    k: int
    target: float
    largest: int
    queries: Queries
    truth: NDArray[np.float32]
    advance: Callable[[float], None]
    trials: dict[tuple[int, float], Trial] = field(default_factory=dict)

    def cheapest(self) -> Trial:
        """Return the cheapest trial that reaches the target: over the settings, and the oversamplings of a form."""
        if self.index.form == "full":
            return self._bisect(1.0)
        least = self._least_oversampling()
        # A little more to rescore may allow a smaller setting.
        found = [self._bisect(oversampling) for oversampling in _OVERSAMPLINGS[least : least + 3]]
        return min(found, key=lambda trial: trial.milliseconds)

    def confirmed(self, chosen: Trial) -> Trial:
        """Return the first trial, from a chosen one upwards, that reaches the target on these queries as well."""
        full = self.index.form == "full"
        for oversampling in (1.0,) if full else _OVERSAMPLINGS[_OVERSAMPLINGS.index(chosen.oversampling) :]:
            setting = max(chosen.setting, self._least_setting(oversampling))
            generous = self.largest if full else max(setting, self._generous_setting(oversampling))
            while (trial := self.measure(setting, oversampling)).recall < self.target and setting < generous:
                setting = min(generous, setting + max(1, setting // 16))
            if trial.recall >= self.target:
                return trial
        raise _unreachable(self.index, self.target, trial)

    def measure(self, setting: int, oversampling: float = 1.0) -> Trial:
        """Measure recall and latency of a setting."""
        known = self.trials.get((setting, oversampling))
        if known is not None:
            return known
        statement = measuring.nearest_sql(
            self.connection,
            self.collection,
            self.k,
            beyond=int((self.queries.own_keys >= 0).any()),  # a stored row finds itself
            space=self.space.name,
            ef_search=setting,
            oversampling=oversampling,
        )
        warm = self.queries.take(np.arange(min(20, len(self.queries))))
        measuring.found_distances(self.connection, statement, warm, self.k)
        began = time.perf_counter()
        found = measuring.found_distances(self.connection, statement, self.queries, self.k)
        milliseconds = (time.perf_counter() - began) / len(self.queries) * 1000
        self.advance(1)
        trial = Trial(setting, oversampling, float(measuring.shares(self.truth, found).mean()), milliseconds)
        self.trials[setting, oversampling] = trial
        return trial

    def _least_oversampling(self) -> int:
        """Return the position of the smallest oversampling with which a generous setting reaches the target."""
        for position, oversampling in enumerate(_OVERSAMPLINGS):
            trial = self.measure(self._generous_setting(oversampling), oversampling)
            if trial.recall >= self.target:
                return position
        raise _unreachable(self.index, self.target, trial)

    def _least_setting(self, oversampling: float) -> int:
        """Return the smallest setting worth trying: an HNSW scan yields no more rows at once than that."""
        return min(self.largest, math.ceil(self.k * oversampling) if self.index.method == "hnsw" else 1)

    def _generous_setting(self, oversampling: float) -> int:
        """Return a setting at which what is missing is missing for want of candidates, hardly of search."""
        return min(self.largest, max(2 * self.largest // 5, 4 * self._least_setting(oversampling)))

    def _bisect(self, oversampling: float) -> Trial:
        """Double the setting until it reaches the target, then bisect between the last two."""
        low = high = self._least_setting(oversampling)
        while self.measure(high, oversampling).recall < self.target:
            if high == self.largest:
                raise _unreachable(self.index, self.target, self.measure(high, oversampling))
            low, high = high + 1, min(self.largest, 2 * high)
        while low < high:
            middle = (low + high) // 2
            enough = self.measure(middle, oversampling).recall >= self.target
            low, high = (low, middle) if enough else (middle + 1, high)
        return self.measure(high, oversampling)


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
    """Tune the index that searches use, on half of the queries, check on the half held back, and store the profile."""
    index, largest = _tunable(collection, indexes)
    if not len(queries):
        raise TuningError(f"collection {collection!r} is empty: load it first")
    if len(queries) < FEWEST_QUERIES:
        raise TuningError(f"{len(queries)} queries are too few to tune on: at least {FEWEST_QUERIES} are needed")
    deep_truth = measuring.exact_distances(connection, space, queries, k * max(1, min(_DEPTH, 999 // k)))
    halves = np.array_split(np.random.default_rng(0).permutation(len(queries)), 2)
    tuning, held_back = (
        Tuner(
            connection, collection, space, index, k, target, largest, queries.take(half), deep_truth[half, :k], advance
        )
        for half in halves
    )
    chosen = tuning.cheapest()
    check = held_back.confirmed(chosen)
    profile = TuningProfile(
        index_method=index.method,
        form=index.form,
        parameter=PARAMETERS[index.method],
        setting=check.setting,
        oversampling=check.oversampling,
        k=k,
        target_recall=target,
        recall=check.recall,
        milliseconds=check.milliseconds,
        queries=len(tuning.queries),
        trials=tuple(sorted(tuning.trials.values(), key=lambda trial: (trial.oversampling, trial.setting))),
    )
    _store(connection, collection, space, profile)
    _calibrate(connection, tuning, check, deep_truth[halves[0]])
    return profile


def _calibrate(connection: Connection, tuner: Tuner, tuned: Trial, truth: NDArray[np.float32]) -> None:
    """Measure what searches cost, and how the setting has to grow with the depth they look to (pgvec.calibrations).

    Filtered searches look deep; so the tuner, whose truth here is deeper than its k, is asked for that depth.
    """
    depth = truth.shape[1]
    if not np.isfinite(truth).all() or depth < 2 * tuner.k:
        return  # so few rows are searched exactly anyhow
    try:
        connection.execute("SELECT pgvec.calibrate(%s, %s)", [tuner.collection, tuner.space.name])
    except psycopg.Error as error:
        if error.sqlstate == "PV005":  # too few rows to measure on: they are searched exactly anyhow
            return
        raise
    if tuner.index.form != "full":
        return
    few = np.arange(min(_ENOUGH, len(tuner.queries)))
    deep = replace(tuner, k=depth, queries=tuner.queries.take(few), truth=truth[few], trials={})
    try:
        setting = deep.cheapest().setting
    except TuningError:
        setting = tuner.largest
    exponent = math.log(max(1.1, setting / tuned.setting)) / math.log(depth / tuner.k)
    connection.execute(
        "UPDATE pgvec.calibrations SET exponent = %s, evidence = %s WHERE space_id = %s",
        [
            exponent,
            Jsonb({"k": tuner.k, "setting": tuned.setting, "deep_k": depth, "deep_setting": setting}),
            tuner.space.id,
        ],
    )


def _tunable(collection: str, indexes: Sequence[Index]) -> tuple[Index, int]:
    """Return the index that searches use, and the largest value of its setting."""
    usable = [index for index in indexes if index.usable]
    if not usable:
        raise TuningError(
            f"collection {collection!r} has no vector index to tune: searches are exact. Create one with create_index()"
        )
    index = usable[0]
    if index.method == "hnsw":
        return index, LARGEST_EF_SEARCH
    return index, int(dict(option.split("=") for option in index.options).get("lists", "100"))


def _store(connection: Connection, collection: str, space: Space, profile: TuningProfile) -> None:
    """Store a profile; searches read it from then on, those already prepared too."""
    evidence = {
        "queries": profile.queries,
        "milliseconds": round(profile.milliseconds, 3),
        "trials": [
            [trial.setting, trial.oversampling, round(trial.recall, 4), round(trial.milliseconds, 3)]
            for trial in profile.trials
        ],
    }
    with connection.transaction():
        connection.execute(
            "UPDATE pgvec.tuning_profiles SET superseded_at = now() WHERE space_id = %s AND k = %s"
            " AND superseded_at IS NULL",
            [space.id, profile.k],
        )
        connection.execute(
            "INSERT INTO pgvec.tuning_profiles"
            " (space_id, index_method, index_shape, k, target_recall, setting, oversampling, recall, evidence)"
            " SELECT %s, i.method, i.shape, %s::integer, %s::float8, %s::integer, %s::float8, %s::float8, %s::jsonb"
            " FROM pgvec._indexes(pgvec._relation(%s, %s), pgvec._space(%s, %s)) i WHERE i.usable LIMIT 1",
            [
                space.id,
                profile.k,
                profile.target_recall,
                profile.setting,
                profile.oversampling,
                profile.recall,
                Jsonb(evidence),
                space.schema,
                space.vector_table,
                collection,
                space.name,
            ],
        )


def _unreachable(index: Index, target: float, best: Trial) -> TuningError:
    advice = (
        "rebuild the index with a larger m and ef_construction"
        if index.method == "hnsw"
        else "build an HNSW index instead, or IVFFlat with fewer lists"
    )
    if index.form in ("binary", "prefix"):
        advice += ", or in a form that holds more of each vector"
    return TuningError(
        f"recall {target} is out of reach of this index: "
        f"{PARAMETERS[index.method]} = {best.setting}"
        f"{'' if index.form == 'full' else f', oversampling {best.oversampling:g},'} reaches {best.recall:.3f}. "
        f"Ask for less, or {advice}"
    )
