"""Recall over time: that a watch sees what is, alarms when it is bad, and only then."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from math import comb
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.tune.profile import interval

ROWS, DIMENSIONS, K = 1200, 16, 10
STORED, OTHERS = np.random.default_rng(3).normal(size=(2, ROWS, DIMENSIONS)).astype(np.float32)
FEW = 60  # of them a watch can take all for queries: nothing is left to chance


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    """Structureless vectors: what an index has its trouble with."""
    dsn = make_conninfo(server_dsn, dbname="t_watch", options="-c enable_seqscan=off")
    with janitor("t_watch", template), Database(dsn) as database:
        docs = database.create_collection("docs", dimensions=DIMENSIONS, distance="l2", columns={"group": int})
        ids = [str(number) for number in range(ROWS)]
        docs.upsert({"id": ids, "vector": STORED, "group": [number % 3 for number in range(ROWS)]})
        yield docs


@pytest.fixture
def clean(docs: Collection) -> Iterator[Collection]:
    yield docs
    docs.log_queries(None)
    with docs.database.connection() as connection:
        for table in ("query_log", "tuning_profiles", "recall_checks", "drift_baselines"):
            connection.execute(f"DELETE FROM pgvec.{table}".encode())
    docs.drop_index()


def promise(docs: Collection, setting: int, target: float = 0.95, tail_share: float | None = None) -> None:
    """Store a profile by hand."""
    with docs.database.connection() as connection:
        connection.execute("UPDATE pgvec.tuning_profiles SET superseded_at = now()")
        connection.execute(
            "INSERT INTO pgvec.tuning_profiles (space_id, index_method, k, target_recall, tail_share, setting, recall)"
            " VALUES (%s, 'hnsw', %s, %s, %s, %s, 1)",
            [docs.space.id, K, target, tail_share, setting],
        )


def few(db: Database, type: str = "vector", distance: str = "l2") -> tuple[Collection, NDArray[Any]]:
    docs = db.create_collection("docs", dimensions=8, type=type, distance=distance)
    vectors = np.random.default_rng(1).normal(size=(FEW, 8)).astype(np.float32)
    given: Any = ["".join("01"[int(x > 0)] for x in vector) for vector in vectors] if type == "bit" else vectors
    docs.upsert({"id": [str(number) for number in range(FEW)], "vector": given})
    return docs, vectors


def ask(docs: Collection, queries: NDArray[Any], where: dict[str, Any] | None = None) -> None:
    docs.log_queries(1)
    for query in queries:
        docs.search(query, 1, where)


# -- recall ------------------------------------------------------------------------------------------


def test_a_watch_notices_a_bad_index_and_its_rebuild(clean: Collection) -> None:
    docs = clean
    docs.create_index(m=2, ef_construction=4)
    promise(docs, 40, tail_share=0.9)
    bad = docs.watch(queries=40)
    assert bad.recall_low < bad.recall < bad.recall_high < bad.target_recall == 0.95  # type: ignore[operator]
    assert float(bad.alarms[0].split()[1]) == pytest.approx(bad.recall, abs=0.0051)
    assert bad.alarms[0].endswith("is below the target 0.95: tune again, or rebuild the index")
    assert "not 0.9 of them" in bad.alarms[1]
    assert len(bad.alarms) == 2

    docs.drop_index()
    docs.create_index(m=16, ef_construction=64)
    promise(docs, 400, tail_share=0.9)
    good = docs.watch(queries=40)
    assert good.recall > 0.98
    assert not [alarm for alarm in good.alarms if "recall" in alarm]
    assert [check.recall for check in docs.recall_checks()] == [bad.recall, good.recall]
    assert docs.recall_checks(limit=1) == [good]


def test_a_watch_notices_a_bad_setting(clean: Collection) -> None:
    clean.create_index(m=4, ef_construction=8)
    promise(clean, 1)
    assert "recall" in clean.watch(queries=40).alarms[0]
    assert clean.watch(k=1, queries=40).target_recall == 0.95  # searches for 1 use the profile for 10
    promise(clean, 1, target=0.01)
    assert not [alarm for alarm in clean.watch(queries=40).alarms if "recall" in alarm]


def test_the_figures(clean: Collection) -> None:
    docs = clean
    docs.create_index(m=4, ef_construction=8)
    promise(docs, 20, target=0.8)
    ask(docs, OTHERS[:30])
    ask(docs, OTHERS[:5])  # again: each query counts once
    check = docs.watch(queries=1000)
    found = [[hit.distance for hit in docs.search(query, K)] for query in OTHERS[:30]]
    truth = np.sort(np.linalg.norm(OTHERS[:30, None] - STORED[None], axis=2))[:, K - 1]
    shares = np.array([np.mean(np.asarray(d) <= t + 1e-5) for d, t in zip(found, truth, strict=True)])
    assert (check.source, check.queries, check.k, check.short_results) == ("log", 30, K, 0)
    assert check.recall == pytest.approx(shares.mean())
    assert check.recall < 1
    assert (check.recall_low, check.recall_high) == pytest.approx(interval(shares))
    assert check.reaching_share == pytest.approx(np.mean(shares >= 0.8))
    assert check.milliseconds > 0
    assert docs.recall_checks()[-1] == check


def test_logged_queries_have_their_own_filters(clean: Collection) -> None:
    docs = clean
    ask(docs, OTHERS[:19])
    assert docs.watch(queries=5).source == "stored"  # too few
    ask(docs, OTHERS[:5], {"group": 1})
    ask(docs, OTHERS[:3], {"group": 77})  # which nothing matches
    with docs.database.connection() as connection:
        connection.execute(
            'UPDATE pgvec.query_log SET filter = \'{"group": {"$was": 1}}\' WHERE filter @> \'{"group": 77}\''
        )
        connection.execute("DELETE FROM pgvec.drift_baselines")
    check = docs.watch(queries=100)
    assert (check.source, check.queries, check.recall) == ("log", 24, 1)  # a filter that cannot be is left out
    distances = np.linalg.norm(OTHERS[:19, None] - STORED[None], axis=2)
    nearest = np.sort([*distances.min(axis=1), *distances[:5, np.arange(ROWS) % 3 == 1].min(axis=1)])
    with docs.database.connection() as connection:
        row = connection.execute("SELECT distances FROM pgvec.drift_baselines").fetchone()
    assert row is not None
    assert row[0] == pytest.approx(nearest, rel=1e-5)


def test_who_may_not_read_the_log_watches_by_stored_rows(clean: Collection) -> None:
    ask(clean, OTHERS[:25])
    with clean.database.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute(b"CREATE ROLE watcher; GRANT USAGE ON SCHEMA pgvec TO watcher")
        connection.execute(b"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec, public TO watcher")
        connection.execute(b"GRANT INSERT, UPDATE ON pgvec.recall_checks, pgvec.drift_baselines TO watcher")
        for rights, source in ((b"", "log"), (b"REVOKE ALL ON pgvec.query_log FROM watcher", "stored")):
            if rights:
                connection.execute(rights)
            connection.execute(b"SET LOCAL ROLE watcher")
            row = connection.execute("SELECT source FROM pgvec.watch('docs', queries => 20)").fetchone()
            connection.execute(b"RESET ROLE")
            assert row == (source,)


def test_without_an_index_searches_are_exact(clean: Collection) -> None:
    check = clean.watch(queries=5)
    assert (check.recall, check.recall_low, check.recall_high, check.alarms) == (1, interval(np.ones(5))[0], 1, ())
    assert (check.target_recall, check.tail_share, check.reaching_share) == (None, None, None)


# With 50 queries a deviation of 0.1 leaves a standard error of 0.015, 3.72 of which are 0.056; near 1 it is less up.
ALARMS = [
    ({"recall": 0.91, "target_recall": 0.95}, []),
    ({"recall": 0.8, "target_recall": 0.95, "queries": 2}, []),
    ({"recall": 0.89, "recall_low": 0.86, "recall_high": 0.94, "target_recall": 0.95}, ["recall 0.89 (0.86 to 0.94)"]),
    ({"target_recall": 0.9, "reaching_share": 0.4, "tail_share": None}, []),
    ({"target_recall": 0.9, "reaching_share": 0.4, "tail_share": 0.64}, []),  # Wilson: up to 0.6508
    ({"target_recall": 0.9, "reaching_share": 0.4, "tail_share": 0.66}, ["0.40 of the queries (0.19 to 0.65) reach"]),
    ({"target_recall": 0.9, "reaching_share": 0.0, "tail_share": 0.05}, []),
    ({"short_results": 2}, ["2 searches returned fewer rows than match"]),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "wanted"), ALARMS)
def test_alarms(connection: psycopg.Connection, seen: dict[str, Any], wanted: list[str]) -> None:
    row = {"queries": 50, "recall": 1, "short_results": 0} | seen
    (alarms,) = connection.execute(
        "SELECT pgvec._recall_alarms(jsonb_populate_record(NULL::pgvec.recall_checks, %s), 0.1)", [Jsonb(row)]
    ).fetchone() or ([],)
    assert len(alarms) == len(wanted)
    assert all(alarm.startswith(start) for alarm, start in zip(alarms, wanted, strict=True))
    drift = connection.execute("SELECT count(*) FROM unnest(%s::text[]) a WHERE pgvec._is_drift(a)", [alarms])
    assert drift.fetchone() == (0,)


@pytest.mark.parametrize("shares", [[0.9], [1, 1], [0.9, 0.9], [0.9, 0.91], [0, 1, 1], [0.1, 0.2, 0.3], [0] * 9])
def test_watch_and_tune_have_one_interval(connection: psycopg.Connection, shares: list[float]) -> None:
    bounds = "SELECT i.* FROM pgvec._recall_interval(%s, %s, %s, 1.96) i"
    deviation = np.std(shares, ddof=1) if len(shares) > 1 else None
    row = connection.execute(bounds, [float(np.mean(shares)), deviation, len(shares)]).fetchone()
    assert row == pytest.approx(interval(np.asarray(shares, float)))


@pytest.mark.parametrize("deviation", [0, 0.007])
def test_two_queries_are_no_alarm_however_alike(connection: psycopg.Connection, deviation: float) -> None:
    seen = Jsonb({"queries": 2, "recall": 0.9, "target_recall": 0.95, "short_results": 0})
    statement = "SELECT pgvec._recall_alarms(jsonb_populate_record(NULL::pgvec.recall_checks, %s), %s)"
    assert connection.execute(statement, [seen, deviation]).fetchone() == ([],)


def test_what_cannot_be_stored_is_not_measured(clean: Collection) -> None:
    calls = {
        "pgvec.watch('docs')": (
            "SELECT, INSERT ON pgvec.recall_checks",
            "SELECT, INSERT, UPDATE ON pgvec.drift_baselines",
        ),
        "pgvec.set_drift_baseline('docs')": ("SELECT, INSERT, UPDATE ON pgvec.drift_baselines",),
        "pgvec.plan_index('docs', calibrate => true)": ("SELECT, INSERT, UPDATE ON pgvec.build_calibrations",),
    }
    with clean._database.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute(
            b"CREATE ROLE onlooker; GRANT USAGE ON SCHEMA pgvec TO onlooker;"
            b"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec, public TO onlooker"
        )
        for call, needed in calls.items():
            for setting, message in (("ROLE onlooker", "may not"), ("transaction_read_only = on", "is read-only")):
                with connection.transaction(force_rollback=True):
                    connection.execute(f"SET LOCAL {setting}".encode())
                    with pytest.raises(psycopg.Error, match=message) as caught, connection.transaction():
                        connection.execute(f"SELECT {call}".encode())
                assert caught.value.sqlstate == "PV005"
                if setting.startswith("ROLE"):
                    assert all(f"GRANT {grant} TO onlooker;" in str(caught.value) for grant in needed)


def test_nothing_to_watch(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=4)
    for call in (docs.watch, docs.set_drift_baseline):
        with pytest.raises(ConfigurationError, match="Load it first"):
            call()
    docs.upsert([{"id": "a", "vector": [1, 0, 0, 0]}, {"id": "b", "vector": [0, 1, 0, 0]}])
    assert docs.watch(queries=1).recall_low < 0.3  # of one nearly nothing follows
    assert docs.watch().queries == 2
    for wrong in ({"k": 0}, {"k": 1000}, {"queries": 0}, {"queries": 10_001}):
        with pytest.raises(ConfigurationError, match="must be"):
            docs.watch(**wrong)
    with pytest.raises(ConfigurationError, match="at least 1"):
        docs.recall_checks(limit=0)
    with pytest.raises(ConfigurationError, match="from 20"):
        docs.set_drift_baseline(queries=5)


def test_checks_older_than_a_year_are_deleted_by_who_may(db: Database) -> None:
    docs, _ = few(db)
    docs.add_space("other", dimensions=8)
    aged = (
        "INSERT INTO pgvec.recall_checks (space_id, k, source, queries, recall, recall_low, recall_high, short_results,"
        " milliseconds, checked_at) SELECT s.id, 10, 'log', 5, 1, 1, 1, 0, 1, now() - days * interval '1 day'"
        " FROM pgvec.vector_spaces s, unnest('{364, 367}'::integer[]) days"
    )
    db.fetch(aged)
    with db.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute(b"CREATE ROLE watcher; GRANT USAGE ON SCHEMA pgvec TO watcher")
        connection.execute(b"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec, public TO watcher")
        connection.execute(b"GRANT INSERT, UPDATE ON pgvec.recall_checks, pgvec.drift_baselines TO watcher")
        connection.execute(b"SET LOCAL ROLE watcher")
        connection.execute("SELECT pgvec.watch('docs', queries => 5)")
        assert connection.execute("SELECT count(*) FROM pgvec.recall_checks").fetchone() == (5,)
    docs.watch(queries=5)
    ages = [(dt.datetime.now(dt.UTC) - check.checked_at).days for check in docs.recall_checks()]
    assert ages == [364, 0]
    assert len(docs.recall_checks("other")) == 2


# -- drift -------------------------------------------------------------------------------------------


def are_drift(db: Database, alarms: list[str]) -> list[bool]:
    """What pgvec.health takes them for: they are mended by a new baseline, not by tuning."""
    return [drift for (drift,) in db.fetch("SELECT pgvec._is_drift(a) FROM unnest($1::text[]) a", [alarms])]


def test_drift_of_what_is_stored(db: Database) -> None:
    docs, vectors = few(db)
    first, calm = docs.watch(queries=FEW), docs.watch(queries=FEW)
    assert (first.mean_shift, first.distance_shift, first.out_of_range) == (None, None, None)
    assert (calm.mean_shift, calm.distance_shift, calm.out_of_range, calm.alarms) == (0, 0, 0, ())

    moved = vectors + np.float32(0.6)  # all by the same: their distances stay
    docs.upsert({"id": [str(number) for number in range(FEW)], "vector": moved})
    spread = np.sqrt(((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1).mean())
    shift = float(0.6 * np.sqrt(8) / spread)
    drifted = docs.watch(queries=FEW)
    assert drifted.mean_shift == pytest.approx(shift, rel=1e-4)
    assert shift < 4 * np.sqrt(2 / FEW)  # of so few rows it could be chance
    assert drifted.alarms == ()
    docs.upsert({"id": [str(number) for number in range(FEW)], "vector": moved + np.float32(0.4)})
    (alarm,) = docs.watch(queries=FEW).alarms
    assert alarm.startswith(f"drift: the stored embeddings have moved by {shift / 0.6:.2f} of their spread since ")
    assert are_drift(db, [alarm]) == [True]

    docs.set_drift_baseline()
    accepted = docs.watch(queries=FEW)
    assert (accepted.mean_shift, accepted.distance_shift, accepted.alarms) == (0, 0, ())


def test_drift_of_what_is_asked(db: Database) -> None:
    docs, vectors = few(db)
    docs.watch(queries=FEW)
    asked = np.random.default_rng(2).normal(size=(40, 8)).astype(np.float32)
    ask(docs, asked)
    assert docs.watch().distance_shift is None  # logged queries are nothing to compare with stored rows
    assert docs.watch().distance_shift == 0  # but with themselves
    docs.forget_queries()
    ask(docs, asked * 1.6)
    drifted = docs.watch()
    before, after = (
        np.sort(np.linalg.norm(q[:, None] - vectors[None], axis=2).min(axis=1)) for q in (asked, asked * 1.6)
    )
    both = np.concatenate([before, after])
    gaps = np.searchsorted(before, both, "right") / 40 - np.searchsorted(after, both, "right") / 40
    assert drifted.distance_shift == pytest.approx(np.abs(gaps).max())
    assert drifted.out_of_range == pytest.approx((after > before[-1]).mean())
    farther, beyond = drifted.alarms
    assert farther.startswith("drift: queries are farther from their nearest than on ")
    assert beyond.startswith(
        f"drift: {drifted.out_of_range:.2f} of the queries are farther from their nearest than 0.99 were on "
    )
    docs.forget_queries()
    ask(docs, asked * 0.01)
    (nearer,) = docs.watch().alarms
    assert nearer.startswith("drift: queries are nearer to their nearest than on ")
    assert all(are_drift(db, [farther, beyond, nearer]))


@pytest.mark.parametrize(("type", "distance"), [("halfvec", "cosine"), ("sparsevec", "l2"), ("bit", "hamming")])
def test_drift_of_other_types(db: Database, type: str, distance: str) -> None:
    docs, _ = few(db, type, distance)
    docs.watch(queries=FEW)
    check = docs.watch(queries=FEW)
    assert (check.distance_shift, check.alarms) == (0, ())
    assert check.mean_shift == (0 if type == "halfvec" else None)


def test_out_of_range_is_no_more_than_chance(db: Database) -> None:
    """Against the urn: of 10 + 20 values in any order, how often are so many new ones above the largest old one."""
    statement = "SELECT share, chance FROM pgvec._out_of_range($1::float8[], $2::float8[])"
    for beyond in range(6):
        present = [0.0] * (20 - beyond) + [2.0] * beyond
        row = db.fetch_one(statement, [[1.0] * 10, present])
        assert row == (beyond / 20, pytest.approx(comb(20, beyond) / comb(30, beyond)))
    # The 99th percentile of 250 is the third largest: if 4 new ones are beyond, of the 6 largest at most 2 are old.
    old = np.arange(250.0).tolist()
    for beyond in (4, 100):
        row = db.fetch_one(statement, [old, [500.0] * beyond + [0.0] * (100 - beyond)])
        largest = beyond + 2
        chance = sum(comb(250, i) * comb(100, largest - i) for i in range(3)) / comb(350, largest)
        assert row == (beyond / 100, pytest.approx(chance))
