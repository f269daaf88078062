"""The search for the cheapest setting of an index that reaches a target recall."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import TuningError
from pgvec_toolkit.tune.filters import FilteredTrials, by_class
from pgvec_toolkit.tune.profile import (
    PARAMETERS,
    FilterRecall,
    TuningProfile,
    interval,
    reaching,
    store,
    storing,
    tuned_index,
)
from pgvec_toolkit.tune.queries import Chosen, permuted
from pgvec_toolkit.tune.targets import check_count
from pgvec_toolkit.tune.trials import Goal, Trials
from pgvec_toolkit.tune.truth import ground_truth

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.indexes import Index
    from pgvec_toolkit.schema.space import Space

LARGEST_EF_SEARCH = 1000
# Of forms that hold less than the vector: how many times k candidates to rescore, from few to many.
_OVERSAMPLINGS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_MOST_PAIRS = 5  # oversamplings that are looked into, from the least one that can do
_RESOLUTION = 50  # the setting is found to one part in so many
_NEAR = 0.08  # of two settings, the logarithm of their quotient
_STEP = 1.04  # beyond an estimate that should be near
_DEPTH = 16  # how many times k the calibration looks
_ENOUGH = 100  # queries for what need not be exact


@dataclass(frozen=True)
class Asked:
    """What tune was asked for.

    Attributes:
        goals: the first of them is what searches get that ask for no recall.
        ks: numbers of neighbours.
        chosen: the queries to tune on.
        filters: of filtered searches to be measured as well, with any query; None: those that queries have of their
            own.
    """

    goals: Sequence[Goal]
    ks: Sequence[int]
    chosen: Chosen
    filters: Sequence[Any] | None = None


class Tuner:
    """Searches for the cheapest setting, and the cheapest oversampling with it."""

    def __init__(self, trials: Trials) -> None:
        self.trials = trials
        self._full = trials.index.form == "full"
        self._hnsw = trials.index.method == "hnsw"

    def cheapest(self, goal: Goal, at_least: int = 1) -> tuple[int, float]:
        """Return the cheapest setting and oversampling that reach a goal.

        Args:
            goal: to be reached.
            at_least: a setting that a lesser goal needs, at oversampling 1.
        """
        if self._full:
            setting = self.least(goal, 1.0, start=at_least)
            if setting is None:
                raise self._unreachable(goal, self.trials.largest, 1.0)
            return self._confirmed(goal, setting, 1.0)
        return self._confirmed(goal, *self.trials.fastest(self._pairs(goal)))

    def least(self, goal: Goal, oversampling: float, *, start: int = 1, enough: int | None = None) -> int | None:
        """Return the least setting that reaches a goal; None if there is none.

        Args:
            goal: to be reached.
            oversampling: how many times k candidates are rescored.
            start: where to begin.
            enough: a setting that is known to reach it.
        """
        floor, largest = self._floor(oversampling), self.trials.largest
        low, high = floor - 1, max(floor, start)
        if enough is not None:
            if self.trials.reaches(goal, floor, oversampling):
                return floor
            low, high = floor, enough
        while enough is None and not self.trials.reaches(goal, high, oversampling):
            if high == largest:
                return None
            low, high = high, min(largest, 2 * high)
        while low < floor < high:  # it was reached at the start
            middle = max(floor, high // 2)
            if not self.trials.reaches(goal, middle, oversampling):
                low = middle
                break
            high = middle
        return self._between(goal, oversampling, low, high)

    def held_back(self, goal: Goal, setting: int, oversampling: float) -> float:
        """Return the recall of each half of the queries with the setting that the other half would have chosen."""
        # A few more settings around it, those that are known if they will do.
        settings = sorted({self._near(setting, factor, oversampling) for factor in (0.85, 1.0, 1.18)})
        each = np.stack([self.trials.measure(near, oversampling).shares for near in settings])
        found = []
        for half in (0, 1):
            chosen_by, judged_by = each[:, half::2], each[:, 1 - half :: 2]
            needed = _crossing(np.log(settings), goal, chosen_by)
            found.append(np.interp(needed, np.log(settings), judged_by.mean(axis=1)))
        return float(np.mean(found))

    def _near(self, setting: int, factor: float, oversampling: float) -> int:
        """Return a setting about so many times as large, if there is one that was measured on all queries."""
        wanted = min(self.trials.largest, max(self._floor(oversampling), round(setting * factor)))
        known = [
            near
            for (near, with_), measured in self.trials.known.items()
            if with_ == oversampling and len(measured.shares) == len(self.trials.queries)
        ]
        closest = min(known, key=lambda near: abs(near - wanted), default=wanted)
        return closest if abs(math.log(closest / wanted)) < _NEAR else wanted

    def _between(self, goal: Goal, oversampling: float, low: int, high: int) -> int:
        """Return the least setting above `low`, which misses the goal, up to `high`, which reaches it."""
        steps = 0
        while high - low > max(1, high // _RESOLUTION):
            middle = round(math.sqrt(max(1, low) * high))
            if steps < 4 and goal.tail_share is None and (low, oversampling) in self.trials.known:
                middle = self._estimate(goal, oversampling, low, high)
            steps += 1
            middle = min(high - 1, max(low + 1, middle))
            if self.trials.reaches(goal, middle, oversampling):
                high = middle
            else:
                low = middle
        return high

    def _estimate(self, goal: Goal, oversampling: float, low: int, high: int) -> int:
        """Return where the goal should be reached: what is missing falls as a power of the setting."""
        below, above = (
            math.log(max(1e-4, 1 - float(self.trials.known[setting, oversampling].shares.mean())))
            for setting in (low, high)
        )
        share = (below - math.log(1 - goal.target)) / max(1e-9, below - above)
        estimate: float = low * (high / low) ** min(1.0, max(0.0, share))
        return round(min(high / _STEP, max(low * _STEP, estimate)))

    def _pairs(self, goal: Goal) -> list[tuple[int, float]]:
        """Return settings that reach a goal, each the least for its oversampling, from the least that can do."""
        for generous in (self._generous, lambda _: self.trials.largest):
            pairs: list[tuple[int, float]] = []
            for position, oversampling in enumerate(_OVERSAMPLINGS):
                enough = pairs[-1][0] if pairs else generous(oversampling)
                floor = self._floor(oversampling)
                if enough < floor:  # to rescore so many takes a larger setting than is needed
                    pairs += self._diagonal(goal, self._floor(pairs[-1][1]), enough)
                    break
                if not pairs and not self.trials.reaches(goal, enough, oversampling):
                    continue
                setting = self._descended(goal, oversampling, enough)
                pairs.append((setting, oversampling))
                if setting <= floor and self._hnsw:
                    pairs += self._diagonal(goal, self._floor(_OVERSAMPLINGS[max(0, position - 1)]), floor)
                    break
                if len(pairs) == _MOST_PAIRS or (len(pairs) > 1 and setting == pairs[-2][0]):
                    break
            if pairs:
                return pairs
        raise self._unreachable(goal, self.trials.largest, _OVERSAMPLINGS[-1])

    def _descended(self, goal: Goal, oversampling: float, enough: int) -> int:
        """Return the least setting, knowing one that is enough, or was with a little less to rescore."""
        while not self.trials.reaches(goal, enough, oversampling):
            enough = min(self.trials.largest, enough + max(1, enough // _RESOLUTION))
            if enough == self.trials.largest:
                return enough
        found = self.least(goal, oversampling, enough=enough)
        assert found is not None
        return found

    def _diagonal(self, goal: Goal, low: int, high: int) -> list[tuple[int, float]]:
        """Return the least pair between two settings at which all that is found is rescored, if there is one."""
        most, k = high, self.trials.k
        while high - low > max(1, high // 20):
            middle = (low + high) // 2
            # Half a candidate less, lest rounding asks for one more than is found.
            if self.trials.reaches(goal, middle, (middle - 0.5) / k):
                high = middle
            else:
                low = middle
        return [] if high == most else [(high, (high - 0.5) / k)]

    def _confirmed(self, goal: Goal, setting: int, oversampling: float) -> tuple[int, float]:
        """Return the first setting from there on that reaches the goal on all queries."""
        while not goal.reached(self.trials.measure(setting, oversampling).shares, all=True):
            if setting == self.trials.largest:
                raise self._unreachable(goal, setting, oversampling)
            setting = min(self.trials.largest, setting + max(1, setting // _RESOLUTION))
        return setting, oversampling

    def _floor(self, oversampling: float) -> int:
        """Return the smallest setting worth trying: an HNSW scan yields no more rows at once than that."""
        return min(self.trials.largest, math.ceil(self.trials.k * oversampling) if self._hnsw else 1)

    def _generous(self, oversampling: float) -> int:
        """Return a setting at which what is missing is missing for want of candidates, hardly of search."""
        largest = self.trials.largest
        return min(largest, max(2 * largest // 5, 4 * self._floor(oversampling)))

    def _unreachable(self, goal: Goal, setting: int, oversampling: float) -> TuningError:
        index, measured = self.trials.index, self.trials.measure(setting, oversampling)
        advice = (
            "rebuild the index with a larger m and ef_construction"
            if self._hnsw
            else "build an HNSW index instead, or IVFFlat with fewer lists"
        )
        if index.form in ("binary", "prefix"):
            advice += ", or in a form that holds more of each vector"
        tail = "" if goal.tail_share is None else f" for {goal.tail_share:.0%} of the queries"
        reached = f"reaches {measured.shares.mean():.3f}"
        if goal.tail_share is not None:
            reached += f", and {goal.target} for {reaching(measured.shares, goal.target):.1%} of them"
        return TuningError(
            f"recall {goal.target}{tail} is out of reach of this index: {PARAMETERS[index.method]} = {setting}"
            f"{'' if self._full else f', oversampling {oversampling:g},'} {reached}. Ask for less, or {advice}"
        )


def _crossing(settings: NDArray[np.float64], goal: Goal, each: NDArray[np.float64]) -> float:
    """Return at which of ascending settings, or between which, these queries reach the goal in the mean."""
    means = np.maximum.accumulate(each.mean(axis=1))
    if goal.reached(each[0], all=True) or means[0] >= goal.target:
        return float(settings[0])
    return float(np.interp(goal.target, means, settings))


def check_rights(connection: Connection) -> None:
    """Raise ConfigurationError if what tune finds could not be stored (SQL: `pgvec._check_stores`)."""
    connection.execute(
        "SELECT pgvec._check_stores('tune', 'SELECT, INSERT, UPDATE ON pgvec.tuning_profiles',"
        " 'SELECT, INSERT, UPDATE ON pgvec.calibrations')"
    )


def tune(
    connection: Connection,
    collection: str,
    space: Space,
    indexes: Sequence[Index],
    asked: Asked,
    advance: Callable[[float], None],
) -> list[TuningProfile]:
    """Tune the index that searches use: for each k, for each goal. All profiles are stored in the end, or none."""
    index, largest = _tunable(collection, indexes)
    at_the_start = tuned_index(connection, collection, space, index.name)
    if not len(asked.chosen.queries):
        raise TuningError(f"collection {collection!r} is empty: load it first")
    check_count(len(asked.chosen.queries))
    filters = by_class(connection, asked.chosen, asked.filters)
    queries, _ = permuted(asked.chosen.queries)
    deepest = max(asked.ks) * max(1, min(_DEPTH, 999 // max(asked.ks)))
    truth = ground_truth(connection, space, queries, deepest)
    profiles: list[TuningProfile] = []
    of_classes: list[TuningProfile] = []
    growth = None
    for k in asked.ks:
        trials = Trials(connection, collection, space, index, k, largest, queries, truth[:, :k], advance)
        # Their truth comes first: a filter that does not fit fails before the work.
        filtered = {
            name: FilteredTrials.of(trials, *of_class, logged=asked.filters is None)
            for name, of_class in filters.items()
        }
        for profile, goal in zip(_tune_goals(Tuner(trials), asked), asked.goals, strict=True):
            measured, better = _tune_filters(filtered, profile, goal)
            profiles.append(replace(profile, filters=measured))
            of_classes += better
        if k == asked.ks[0]:
            growth = _growth(trials, profiles[0], truth)
    with storing(connection, space, at_the_start):
        for profile in (*profiles, *of_classes):
            store(connection, space, at_the_start, profile)
        if growth is not None:
            _calibrate(connection, collection, space, growth)
    return profiles


def _tune_goals(tuner: Tuner, asked: Asked) -> list[TuningProfile]:
    """Return a profile for each goal; the easier ones are tuned first, and spare the others trials."""
    trials, found, setting = tuner.trials, {}, 1
    for goal in sorted(asked.goals, key=lambda goal: goal.target):
        setting, oversampling = tuner.cheapest(goal, setting)
        held_back = tuner.held_back(goal, setting, oversampling)
        measured = trials.measure(setting, oversampling)
        low, high = interval(measured.shares)
        found[goal] = TuningProfile(
            index_method=trials.index.method,
            form=trials.index.form,
            parameter=PARAMETERS[trials.index.method],
            setting=setting,
            oversampling=oversampling,
            k=trials.k,
            target_recall=goal.target,
            recall=float(measured.shares.mean()),
            milliseconds=measured.seconds / len(measured.shares) * 1000,
            queries=len(measured.shares),
            trials=tuple(
                trial.trial(*key, goal) for key, trial in sorted(trials.known.items(), key=lambda known: known[0][::-1])
            ),
            recall_low=low,
            recall_high=high,
            tail_share=goal.tail_share,
            reaching_share=reaching(measured.shares, goal.target),
            held_back=held_back,
            source=asked.chosen.source,
            is_default=goal is asked.goals[0],
        )
    return [found[goal] for goal in asked.goals]


def _tune_filters(
    classes: dict[str, FilteredTrials | None], profile: TuningProfile, goal: Goal
) -> tuple[tuple[FilterRecall, ...], list[TuningProfile]]:
    """Return the recall of each class of filters with a profile, and other profiles for those that miss the goal."""
    measured, found = [], []
    for name, filtered in classes.items():
        if filtered is None:
            continue
        each = filtered.measure(profile.setting, profile.oversampling).shares
        measured.append(FilterRecall(name, float(each.mean()), len(each)))
        if goal.reached(each, all=True):
            continue
        setting = Tuner(filtered).least(goal, profile.oversampling, start=profile.setting)
        if setting is None:
            continue  # out of reach: the profile for all says with which recall
        better = filtered.measure(setting, profile.oversampling)
        low, high = interval(better.shares)
        found.append(
            replace(
                profile,
                setting=setting,
                filter_class=name,
                recall=float(better.shares.mean()),
                recall_low=low,
                recall_high=high,
                milliseconds=better.seconds / len(better.shares) * 1000,
                queries=len(better.shares),
                reaching_share=reaching(better.shares, goal.target),
                held_back=None,
                filters=(),
                trials=tuple(trial.trial(*key, goal) for key, trial in sorted(filtered.known.items())),
            )
        )
    return tuple(measured), found


def _growth(trials: Trials, tuned: TuningProfile, truth: NDArray[np.float32]) -> dict[str, int] | None:
    """Measure how the setting has to grow with the depth that searches look to.

    Filtered searches look deep; so the tuner, whose truth is deeper than its k, is asked for that depth. None: so few
    rows are searched exactly anyhow. Of forms that hold less than the vector it is not measured.
    """
    depth = min(truth.shape[1], trials.k * max(1, min(_DEPTH, 999 // trials.k)))
    if not np.isfinite(truth).all() or depth < 2 * trials.k:
        return None
    if trials.index.form != "full":
        return {}
    few = np.arange(min(_ENOUGH, len(trials.queries)))
    deep = replace(
        trials, k=depth, queries=trials.queries.take(few), truth=truth[few, :depth], known={}, _statements={}
    )
    setting = Tuner(deep).least(Goal(tuned.target_recall), 1.0, start=tuned.setting) or trials.largest
    return {"k": trials.k, "setting": tuned.setting, "deep_k": depth, "deep_setting": setting}


def _calibrate(connection: Connection, collection: str, space: Space, growth: dict[str, int]) -> None:
    """Measure what searches cost, and store it and how the setting has to grow (pgvec.calibrations)."""
    try:
        with connection.transaction():
            connection.execute("SELECT pgvec.calibrate(%s, %s)", [collection, space.name])
    except psycopg.Error as error:
        if error.sqlstate == "PV005":  # too few rows to measure on: they are searched exactly anyhow
            return
        raise
    if growth:
        ratio = growth["deep_setting"] / growth["setting"]
        exponent = math.log(max(1.1, ratio)) / math.log(growth["deep_k"] / growth["k"])
        connection.execute(
            "UPDATE pgvec.calibrations SET exponent = %s, evidence = %s WHERE space_id = %s",
            [exponent, Jsonb(growth), space.id],
        )


def _tunable(collection: str, indexes: Sequence[Index]) -> tuple[Index, int]:
    """Return the index that searches use, and the largest value of its setting."""
    usable = [index for index in indexes if index.usable]
    if not usable:
        raise TuningError(
            f"collection {collection!r} has no vector index to tune: searches are exact. "
            f"Create one with create_index(), or pgvec index create {collection}"
        )
    index = usable[0]
    if index.method == "hnsw":
        return index, LARGEST_EF_SEARCH
    return index, int(dict(option.split("=") for option in index.options).get("lists", "100"))
