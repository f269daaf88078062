"""Rebuilding a vector index while searches and writes go on.

The new index is built beside the old one, CONCURRENTLY. Then, in one transaction that has the table for itself for
some tenths of a second, the old one is dropped, searches are measured with the new one alone, and it takes the old
name - or all of that is rolled back. Whatever interrupts it, the old index is there, valid, until the new one is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError, IndexBuildError, PgvecError
from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema.build import build
from pgvec_toolkit.schema.index_specs import IndexSpec, index_form, index_spec
from pgvec_toolkit.schema.indexes import check_may_forget, forget_calibration
from pgvec_toolkit.schema.replacements import clear_replacement, replacement_name
from pgvec_toolkit.tune.profile import interval
from pgvec_toolkit.tune.queries import Queries, choose, found_distances, nearest_sql, permuted, sampled
from pgvec_toolkit.tune.recall import shares
from pgvec_toolkit.tune.targets import FEWEST_QUERIES
from pgvec_toolkit.tune.truth import exact_distances
from pgvec_toolkit.vectors import FixedWidth, vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space

DEAD_SHARE = 0.2  # of the rows, from which on an index should be rebuilt
GROWTH = 1.3  # of the size that a fresh index would have, likewise
_SLACK = 16 * 8192  # bytes that a small index may be larger
JUDGED_ON = 1000  # queries; where an index has aged a few of them find nothing, so that fewer would not tell
_JUDGED_FOR = 10.0  # seconds, at most
_CHECKED_ON = 100
_FEWEST = 20  # queries that are measured, however slow they are
_BATCH = 10
_BUDGET = 0.15  # seconds for them, while searches wait
_LONGEST = "10s"  # for which one statement of the switch may run, or its client be silent
_SURE = 3.0  # standard errors by which the new index has to be worse to be refused
_LEAST_TOLERANCE = 0.01


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found and did.

    Attributes:
        name: of the index.
        rebuilt: whether it was rebuilt.
        reasons: why it was needed; if nothing made it so, what was found.
        size_before: bytes on disk.
        size_after: bytes on disk.
        recall_before: recall@k of searches with the old index, of the queries of recall_after; None if the space is
            empty.
        recall_after: with the new one, measured before it took over; None if there is none.
        k: of recall@k.
        seconds: that it took.
        stalled: seconds for which searches had to wait.
        lapsed: (k, target recall, tail_share) of tuning profiles that no longer apply, as the lists are others; the
            default last.
        notes: what is left to do.
    """

    name: str
    rebuilt: bool
    reasons: tuple[str, ...]
    size_before: int
    size_after: int
    recall_before: float | None
    recall_after: float | None
    k: int
    seconds: float
    stalled: float = 0.0
    lapsed: tuple[tuple[int, float, float | None], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Old:
    """The index that searches use, and the profile they use it by: of several the one nearest to k = 10.

    Attributes:
        target: None if it is not tuned.
    """

    name: str
    method: str
    form: str
    dimensions: int
    options: dict[str, int]
    size: int
    shape: str
    k: int
    target: float | None
    setting: int


def rebuild(
    database: Pool,
    collection: str,
    space: Space,
    *,
    name: str | None = None,
    if_needed: bool = False,
    m: int | None = None,
    ef_construction: int | None = None,
    lists: int | None = None,
    queries: Queries | str | None = None,
    progress: bool | None = None,
) -> Rebuilt:
    """Rebuild the index that searches use, with the parameters it has unless others are given.

    Raises:
        ConfigurationError: there is no such index, or several that the planner could choose from.
        IndexBuildError: the new index is worse than the old one, or could not be built, or a transaction of others
            lasted too long. The old one is as it was.
    """
    with database.dedicated_connection() as connection:
        locks.lock(connection, locks.REBUILD, space)
        try:
            clear_replacement(connection, space)
            old = _old(connection, collection, space, name)
            spec = _spec(old, m, ef_construction, lists)
            # Of types that are no matrix, the truth of each query is a scan of the table.
            many = JUDGED_ON if if_needed and isinstance(vector_type(space.type), FixedWidth) else _CHECKED_ON
            # Those that pgvec.watch would take.
            chosen = choose(connection, collection, space, queries, many, enough=FEWEST_QUERIES)
            judged, _ = permuted(sampled(connection, space, many) if chosen is None else chosen.queries)
            switch = _Switch(connection, collection, space, old, spec, judged)
            if switch.shape_changes:
                check_may_forget(connection, "rebuild_index")
            return _rebuild(database, switch, if_needed, progress)
        finally:
            # A session ends some moments after its connection.
            with suppress(psycopg.Error):
                connection.execute("SELECT pg_advisory_unlock_all()")


def _rebuild(database: Pool, switch: _Switch, if_needed: bool, progress: bool | None) -> Rebuilt:
    began = time.perf_counter()
    connection, space, old = switch.connection, switch.space, switch.old
    switch.measure_old()
    before = _mean(switch.before)
    needed, reasons = _reasons(connection, switch.collection, space, old, switch.before)
    if if_needed and not needed:
        return Rebuilt(old.name, False, reasons, old.size, old.size, before, before, old.k, time.perf_counter() - began)
    try:
        # An index that is there is served: others may write.
        form = index_form(space, old.form, old.dimensions if old.form == "prefix" else None)
        build(database, space, switch.spec, form, name=switch.new, beside=True, concurrently=True, progress=progress)
        locks.lock(connection, locks.BUILD, space)  # which our own build had
        shares_after = switch.carry_out()
    except BaseException:
        _clear(database, connection, space)
        raise
    lapsed = _lapse(connection, space, old) if switch.shape_changes else ()
    # Now, not before: of the old index it would have had to repair the graph.
    connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(space.vectors))
    size, seconds = _size(connection, space, old.name), time.perf_counter() - began
    before, after = _mean(switch.before[: len(shares_after)]), _mean(shares_after)
    return Rebuilt(
        old.name, True, reasons, old.size, size, before, after, old.k, seconds, stalled=switch.stalled, lapsed=lapsed
    )


@dataclass
class _Switch:
    """The transaction in which the new index takes over.

    Attributes:
        queries: in random order, of which as many are measured as there is time for.
        before: recall of the first of them with the old index, each.
        stalled: the longest time for which searches had to wait, in seconds.
    """

    connection: Connection
    collection: str
    space: Space
    old: _Old
    spec: IndexSpec
    queries: Queries
    before: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    stalled: float = 0.0

    @property
    def new(self) -> str:
        """The name that the new index has until then."""
        return replacement_name(self.space)

    @cached_property
    def checked(self) -> Queries:
        """Those of the queries that the new index is measured with."""
        return self.queries.take(np.arange(min(_CHECKED_ON, len(self.queries))))

    @property
    def shape_changes(self) -> bool:
        """Whether profiles of the old index do not fit the new one: probes of other lists."""
        return self.old.method == "ivfflat" and self.spec.options(0) != self.old.options

    def measure_old(self) -> None:
        """Measure recall with the old index, while others write."""
        if len(self.queries):
            with self.connection.transaction():
                self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                self.before = self._shares(self.queries, self._truth(self.queries), None, _JUDGED_FOR)

    def carry_out(self) -> NDArray[np.float64]:
        """Have the new index take over; return its recall, each."""
        with self.connection.transaction():
            # In one snapshot truth stays true while others write.
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # While it measures no VACUUM comes in between.
            locks.lock_table(self.connection, self.space.vectors, "SHARE UPDATE EXCLUSIVE")
            truth = self._truth(self.checked)
            self._measure(truth)  # so that its functions are planned
            after, self.stalled, began = locks.briefly_alone(
                self.connection, self.space.vectors, lambda: self._take_over(truth), "rebuild again"
            )
        self.stalled = max(self.stalled, time.perf_counter() - began)
        return after

    def _take_over(self, truth: NDArray[np.float32]) -> NDArray[np.float64]:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            self.connection.execute("SELECT set_config(%s, %s, true)", [setting, _LONGEST])
        old, new = (sql.Identifier(self.space.schema, name) for name in (self.old.name, self.new))
        self.connection.execute(sql.SQL("DROP INDEX {}").format(old))
        try:
            after = self._measure(truth)
        except psycopg.errors.QueryCanceled as error:
            raise self._refusal(f"a search with the new one takes more than {_LONGEST}") from error
        self._refuse_if_worse(after)
        self.connection.execute(sql.SQL("ALTER INDEX {} RENAME TO {}").format(new, sql.Identifier(self.old.name)))
        with suppress(psycopg.errors.InsufficientPrivilege), self.connection.transaction():
            self.connection.execute(
                "UPDATE pgvec.index_builds SET index_name = %s"
                " WHERE id = (SELECT max(b.id) FROM pgvec.index_builds b WHERE b.space_id = %s AND b.index_name = %s)",
                [self.old.name, self.space.id, self.new],
            )
        return after

    def _measure(self, truth: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the recall of each query, of as many as there is time for."""
        if not len(truth):
            return np.empty(0)
        setting = None
        if self.shape_changes:  # the share of the lists that searches read by now
            setting = math.ceil(self.old.setting * self.spec.options(0)["lists"] / self.old.options["lists"])
        return self._shares(self.checked, truth, setting, _BUDGET)

    def _truth(self, queries: Queries) -> NDArray[np.float32]:
        return exact_distances(self.connection, self.space, queries, self.old.k)

    def _shares(
        self, queries: Queries, truth: NDArray[np.float32], setting: int | None, budget: float
    ) -> NDArray[np.float64]:
        """Search until the queries, or the seconds, are used up."""
        statement = nearest_sql(
            self.connection,
            self.collection,
            self.old.k,
            beyond=int((queries.own_keys >= 0).any()),  # a stored row finds itself
            space=self.space.name,
            ef_search=setting,
        )
        found: list[NDArray[Any]] = []
        began = time.perf_counter()
        while len(found) < len(truth) and (len(found) < _FEWEST or time.perf_counter() - began < budget):
            some = np.arange(len(found), min(len(found) + _BATCH, len(truth)))
            found += found_distances(self.connection, statement, queries.take(some), self.old.k)
        return shares(truth[: len(found)], found)

    def _refuse_if_worse(self, after: NDArray[np.float64]) -> None:
        if not len(after):
            return
        before = self.before[: len(after)]  # of the same queries
        if is_worse(before, after, self.old.target):
            wanted = min(float(before.mean()), self.old.target or 1.0)
            raise self._refusal(
                f"with the new one searches reach recall@{self.old.k} {after.mean():.3f} on {len(after)} queries, "
                f"where {wanted:.3f} is wanted; with the old one {before.mean():.3f}"
            )

    def _refusal(self, reason: str) -> IndexBuildError:
        advice = "a larger m and ef_construction" if self.old.method == "hnsw" else "fewer lists"
        return IndexBuildError(
            f"index {self.old.name} was not rebuilt: {reason}. The old one goes on serving; rebuild with {advice}"
        )


def is_worse(before: NDArray[np.float64], after: NDArray[np.float64], target: float | None) -> bool:
    """Return whether queries surely find less than before, each compared with itself, and less than the target."""
    paired = min(len(before), len(after))

    def surely(lost: NDArray[np.float64]) -> bool:
        return bool(lost.mean() > max(_LEAST_TOLERANCE, _SURE * float(lost.std()) / math.sqrt(len(lost))))

    return surely(before[:paired] - after[:paired]) and (target is None or surely(target - after))


def _old(connection: Connection, collection: str, space: Space, name: str | None) -> _Old:
    """Return the index that searches use, or say why it cannot be rebuilt."""
    rows = connection.execute(
        "SELECT i.name::text, i.method::text, i.form, i.dimensions, i.options, pg_relation_size(i.oid), i.shape,"
        " coalesce(i.lists, 0)"
        " FROM pgvec._indexes(pgvec._relation(%s, %s), pgvec._space(%s, %s)) i WHERE i.usable",
        [space.schema, space.vector_table, collection, space.name],
    ).fetchall()
    if not rows:
        raise ConfigurationError(
            f"{space.vector_table} has no index that searches use: create_index(), or pgvec index create {collection}, "
            "builds one"
        )
    used, method, form, dimensions, built_with, size, shape, lists = rows[0]
    if name not in (None, used):
        raise ConfigurationError(f"searches use {used}, not {name!r}: drop what is not used, with drop_index")
    rivals = [row[0] for row in rows[1:] if row[2:4] == (form, dimensions)]
    if rivals:
        raise ConfigurationError(
            f"{space.vector_table} has {used} and {', '.join(rivals)}, of which PostgreSQL may choose any: keep one"
        )
    if used == replacement_name(space):
        used = _renamed(connection, space, method)
    options = {key: int(value) for key, _, value in (option.partition("=") for option in built_with)}
    profile = connection.execute(
        "SELECT k, target_recall, setting FROM pgvec.tuning_profiles WHERE space_id = %s AND index_method = %s"
        " AND index_shape = %s AND filter_class = '' AND is_default AND superseded_at IS NULL ORDER BY abs(k - 10), k",
        [space.id, method, shape],
    ).fetchone()
    k, target, setting = profile or (10, None, math.ceil(math.sqrt(lists)))
    # What PostgreSQL does not list was left at pgvector's default.
    options = {"lists": lists} if method == "ivfflat" else {"m": 16, "ef_construction": 64} | options
    return _Old(used, method, form, dimensions, options, size, shape, k, target, setting)


def _renamed(connection: Connection, space: Space, method: str) -> str:
    """Give an index that is a replacement by its name, and all there is, a name of its own."""
    name = f"{space.index_stem}_{method}"
    connection.execute(
        sql.SQL("ALTER INDEX {} RENAME TO {}").format(
            sql.Identifier(space.schema, replacement_name(space)), sql.Identifier(name)
        )
    )
    return name


def _spec(old: _Old, m: int | None, ef_construction: int | None, lists: int | None) -> IndexSpec:
    """Return what to build: as it was, but for what is given."""
    if old.method == "ivfflat":
        given = old.options["lists"] if lists is None else lists
        return index_spec("ivfflat", m=m, ef_construction=ef_construction, lists=given)
    m = old.options["m"] if m is None else m
    if ef_construction is None:
        ef_construction = max(2 * m, old.options["ef_construction"])
    return index_spec("hnsw", m=m, ef_construction=ef_construction, lists=lists)


def _reasons(
    connection: Connection, collection: str, space: Space, old: _Old, recall: NDArray[np.float64]
) -> tuple[bool, tuple[str, ...]]:
    """Judge an index: whether it should be rebuilt, and why; or what was found."""
    row = connection.execute(
        "SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE relid = %s::regclass",
        [space.vectors.as_string(connection)],
    ).fetchone()
    dead = row[0] / max(1, sum(row)) if row else 0.0
    findings = [(dead >= DEAD_SHARE, f"{dead:.0%} of the rows of {space.vector_table} are dead")]
    fresh = _fresh_size(connection, collection, space, old)
    text = f"the index has {old.size / 2**20:.1f} MB, a fresh one would have {fresh / 2**20:.1f} MB"
    findings.append((old.size > GROWTH * fresh + _SLACK, text))
    if len(recall):
        least, most = interval(recall)
        text = f"recall@{old.k} is {recall.mean():.3f} ({least:.3f} to {most:.3f})"
        low = old.target is not None and most < old.target
        findings.append((low, text if old.target is None else f"{text}, the target of its profile {old.target}"))
    bad = tuple(text for is_bad, text in findings if is_bad)
    return bool(bad), bad or tuple(text for _, text in findings)


def _fresh_size(connection: Connection, collection: str, space: Space, old: _Old) -> int:
    """Return the bytes that an index built now would have (SQL: `pgvec.plan_index`)."""
    row = connection.execute(
        "SELECT disk_bytes FROM pgvec.plan_index(%s, method => %s, form => %s, prefix => %s::integer, m => %s::integer,"
        " ef_construction => %s::integer, lists => %s::integer, space => %s)",
        [
            *(collection, old.method, old.form, old.dimensions if old.form == "prefix" else None),
            *(old.options.get(option) for option in ("m", "ef_construction", "lists")),
            space.name,
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])


def _size(connection: Connection, space: Space, name: str) -> int:
    row = connection.execute(
        "SELECT pg_relation_size(%s::regclass)", [sql.Identifier(space.schema, name).as_string(connection)]
    ).fetchone()
    assert row is not None
    return int(row[0])


def _lapse(connection: Connection, space: Space, old: _Old) -> tuple[tuple[int, float, float | None], ...]:
    """End the profiles of an index of another shape; return what they were for."""
    ended: Sequence[tuple[Any, ...]] = connection.execute(
        "UPDATE pgvec.tuning_profiles SET superseded_at = now() WHERE space_id = %s AND index_method = %s"
        " AND index_shape = %s AND superseded_at IS NULL"
        " RETURNING k, target_recall, is_default, filter_class, tail_share",
        [space.id, old.method, old.shape],
    ).fetchall()
    forget_calibration(connection, space)
    ended = sorted(ended, key=lambda row: (row[0], row[2]))
    return tuple((k, target, tail_share) for k, target, _, kind, tail_share in ended if not kind)


def _mean(shares: NDArray[np.float64]) -> float | None:
    return float(shares.mean()) if len(shares) else None


def _clear(database: Pool, connection: Connection, space: Space) -> None:
    """Leave nothing beside the old index; what fails here the next rebuild does."""
    with suppress(psycopg.Error, PgvecError):
        if not connection.broken and not connection.closed:
            clear_replacement(connection, space)
            return
        with database.dedicated_connection() as fresh:
            clear_replacement(fresh, space)
