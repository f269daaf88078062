"""Tuning profiles: what tune found and on what evidence, as they are stored and read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import TuningError

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

PARAMETERS = {"hnsw": "hnsw.ef_search", "ivfflat": "ivfflat.probes"}
_REACHED = 1e-9  # a recall of 9 / 10 reaches the target 0.9, whatever the floats


@dataclass(frozen=True)
class Trial:
    """One setting, measured on the tuning queries.

    Attributes:
        setting: of the index.
        oversampling: how many times k candidates were rescored.
        recall: mean over the queries.
        milliseconds: mean latency.
        reaching_share: the share of queries that reach the target each.
        queries: how many; fewer than there are where these told enough.
        error: the standard error of recall.
    """

    setting: int
    oversampling: float
    recall: float
    milliseconds: float
    reaching_share: float = 1.0
    queries: int = 0
    error: float = 0.0


@dataclass(frozen=True)
class FilterRecall:
    """Recall of filtered searches of a class, with the profile of unfiltered ones.

    Attributes:
        filter_class: of the filters (SQL: `pgvec.filter_class`).
        recall: mean over the queries.
        queries: how many.
    """

    filter_class: str
    recall: float
    queries: int


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
        recall: mean recall@k with it, on all queries.
        milliseconds: mean latency with it.
        queries: how many queries it was tuned on.
        trials: all settings that were measured.
        recall_low: with recall_high the 95 % confidence interval of recall.
        recall_high: see there.
        tail_share: the share of queries that was asked to reach the target each; None: their mean only.
        reaching_share: the share that does. A query reaches the target if its own recall is at least that: for k = 10
            and a target of 0.95, only if all 10 are found.
        held_back: mean recall that each half of the queries has with the setting that the other half alone would have
            chosen: what queries get that nothing was tuned on.
        source: of the queries: given, log or stored (rows drawn at random).
        filter_class: the class of filters it is for; empty: without a filter.
        is_default: whether searches that ask for no recall use it.
        filters: recall of the classes of filters that were measured with it.
        tuned_at: when.
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
    recall_low: float = 0.0
    recall_high: float = 1.0
    tail_share: float | None = None
    reaching_share: float = 1.0
    held_back: float | None = None
    source: str = "given"
    filter_class: str = ""
    is_default: bool = True
    filters: tuple[FilterRecall, ...] = field(default=())
    tuned_at: dt.datetime | None = None

    def plot(self, path: str | Path) -> None:
        """Draw queries per second against recall, of all settings that were measured; .png, or interactive .html."""
        from pgvec_toolkit.tune.pictures import draw_profiles

        draw_profiles(self, path)


def reaching(shares: NDArray[np.float64], target: float) -> float:
    """Return the share of queries whose own recall is at least the target."""
    return float((shares >= target - _REACHED).mean())


def standard_error(shares: NDArray[np.float64]) -> float:
    """Return the standard error of mean recall."""
    return float(shares.std(ddof=1) / np.sqrt(len(shares))) if len(shares) > 1 else 1.0


def interval(shares: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % confidence interval of mean recall.

    It is Wilson's, of as many tries as the spread of the queries is worth: unlike mean and error it stays below 1, and
    says something where all queries have the same recall. As pgvec._recall_interval.
    """
    mean, n, z = float(shares.mean()), len(shares), 1.96
    most = max(0.0, mean * (1 - mean))  # the variance if each query found all or nothing
    # As if one more query had that: the spread of few says little of what others would have.
    variance = (float(((shares - mean) ** 2).sum()) + most) / n
    tries = n * most / variance if most > 0 else float(n)
    centre = (mean + z * z / (2 * tries)) / (1 + z * z / tries)
    half = z / (1 + z * z / tries) * float(np.sqrt(most / tries + z * z / (4 * tries * tries)))
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


@dataclass(frozen=True)
class TunedIndex:
    """The index that is tuned, as it was at the start.

    Attributes:
        oid: of the index; one that takes its place has another.
        method: hnsw or ivfflat.
        shape: what profiles of it go by.
        circumstances: of the evidence: the options of the index, how many rows there are, versions.
    """

    oid: int
    method: str
    shape: str
    circumstances: dict[str, Any]


def tuned_index(connection: Connection, collection: str, space: Space, name: str) -> TunedIndex:
    """Return what is known of an index; TuningError if it is no longer there."""
    row = connection.execute(
        "SELECT i.oid, i.method::text, i.shape, jsonb_build_object("
        " 'index', i.name, 'options', i.options, 'rows', greatest(c.reltuples, 0),"
        " 'versions', jsonb_build_object('pgvector', e.extversion, 'postgresql', current_setting('server_version')))"
        " FROM pgvec._indexes(pgvec._relation(%s, %s), pgvec._space(%s, %s)) i, pg_extension e, pg_class c"
        " WHERE i.name = %s AND e.extname = 'vector' AND c.oid = pgvec._relation(%s, %s)",
        [space.schema, space.vector_table, collection, space.name, name, space.schema, space.vector_table],
    ).fetchone()
    if row is None:
        raise _replaced(space)
    return TunedIndex(*row)


@contextmanager
def storing(connection: Connection, space: Space, index: TunedIndex) -> Iterator[None]:
    """Begin the transaction that stores what was found of an index, one tuner at a time.

    Raises:
        TuningError: the index is no longer there.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('pgvec.tune'), %s)", [space.id])
        # Who is dropping the index is waited for; who comes later ends the profiles that are stored by then.
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(space.vectors))
        if connection.execute("SELECT FROM pg_class WHERE oid = %s", [index.oid]).fetchone() is None:
            raise _replaced(space)
        yield


def _replaced(space: Space) -> TuningError:
    return TuningError(f"the index of {space.vector_table} was replaced, or dropped, meanwhile: tune again")


def store(connection: Connection, space: Space, index: TunedIndex, profile: TuningProfile) -> None:
    """Store a profile; searches read it from then on, those already prepared too.

    The one before it for this target becomes history; those for other targets stay, but not as the default.
    """
    key = [space.id, index.method, index.shape, profile.k]
    same = " WHERE space_id = %s AND index_method = %s AND index_shape = %s AND k = %s AND superseded_at IS NULL"
    # What was found for filters depends on what is found without: tuning that begins anew.
    later = "AND filter_class = %s" if profile.filter_class else "AND (filter_class = %s OR filter_class <> '')"
    connection.execute(
        f"UPDATE pgvec.tuning_profiles SET superseded_at = now(){same} AND target_recall = %s {later}".encode(),
        [*key, profile.target_recall, profile.filter_class],
    )
    if profile.is_default:
        connection.execute(
            f"UPDATE pgvec.tuning_profiles SET is_default = false{same} {later}".encode(),
            [*key, profile.filter_class],
        )
    connection.execute(
        "INSERT INTO pgvec.tuning_profiles"
        " (space_id, index_method, index_shape, k, target_recall, setting, oversampling, recall, recall_low,"
        " recall_high, tail_share, reaching_share, filter_class, is_default, evidence)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *key,
            profile.target_recall,
            profile.setting,
            profile.oversampling,
            profile.recall,
            profile.recall_low,
            profile.recall_high,
            profile.tail_share,
            profile.reaching_share,
            profile.filter_class,
            profile.is_default,
            Jsonb(_evidence(profile) | index.circumstances),
        ],
    )


def current(connection: Connection, collection: str, space: str | None) -> list[TuningProfile]:
    """Return the profiles that searches use (SQL: `pgvec.profiles`)."""
    rows = connection.execute(
        "SELECT method, split_part(shape, ' ', 1), setting, oversampling, k, target_recall, recall, evidence,"
        " coalesce(recall_low, 0), coalesce(recall_high, 1), tail_share, coalesce(reaching_share, 1), filter_class,"
        " is_default, tuned_at FROM pgvec.profiles(%s, %s)",
        [collection, space],
    ).fetchall()
    return [_profile(*row) for row in rows]


def _profile(
    method: str,
    form: str,
    setting: int,
    oversampling: float,
    k: int,
    target: float,
    recall: float,
    evidence: dict[str, Any],
    *rest: Any,
) -> TuningProfile:
    low, high, tail_share, share, filter_class, is_default, tuned_at = rest
    return TuningProfile(
        index_method=method,
        form=form,
        parameter=PARAMETERS[method],
        setting=setting,
        oversampling=oversampling,
        k=k,
        target_recall=target,
        recall=recall,
        milliseconds=evidence.get("milliseconds", 0.0),
        queries=evidence.get("queries", 0),
        trials=tuple(Trial(*trial) for trial in evidence.get("trials", ())),
        recall_low=low,
        recall_high=high,
        tail_share=tail_share,
        reaching_share=share,
        held_back=evidence.get("held_back"),
        source=evidence.get("source", "given"),
        filter_class=filter_class,
        is_default=is_default,
        filters=tuple(FilterRecall(*measured) for measured in evidence.get("filters", ())),
        tuned_at=tuned_at,
    )


def _evidence(profile: TuningProfile) -> dict[str, Any]:
    def rounded(values: Sequence[Any]) -> list[Any]:
        return [round(value, 4) if isinstance(value, float) else value for value in values]

    return {
        "queries": profile.queries,
        "source": profile.source,
        "milliseconds": round(profile.milliseconds, 3),
        "held_back": None if profile.held_back is None else round(profile.held_back, 4),
        "trials": [rounded(list(vars(trial).values())) for trial in profile.trials],
        "filters": [rounded(list(vars(measured).values())) for measured in profile.filters],
    }
