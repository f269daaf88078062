"""Tuning for several targets at once, on queries from anywhere, with what is known of the truth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, FilterError, TuningError
from pgvec_toolkit.tune import truth, tuner
from pgvec_toolkit.tune.queries import Queries
from pgvec_toolkit.tune.truth import exact_distances, ground_truth

ROWS, DIMENSIONS = 1200, 12
RANDOM = np.random.default_rng(8)
STORED = RANDOM.normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
GIVEN = RANDOM.normal(size=(120, DIMENSIONS)).astype(np.float32)


@pytest.fixture(scope="module")
def tunable(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    """A sparse graph, in which recall takes a large setting."""
    with janitor("t_targets", template):
        dsn = make_conninfo(server_dsn, dbname="t_targets", options="-c enable_seqscan=off")
        with Database(dsn) as database:
            docs = database.create_collection("docs", dimensions=DIMENSIONS, distance="l2", columns={"n": int})
            docs.upsert({"id": [str(n) for n in range(ROWS)], "vector": STORED, "n": list(range(ROWS))})
            docs.create_index(m=5, ef_construction=12)
            yield docs


@pytest.fixture
def docs(tunable: Collection) -> Iterator[Collection]:
    """The collection, untuned."""
    yield tunable
    with tunable._database.connection() as connection:
        connection.execute("DELETE FROM pgvec.tuning_profiles")
        connection.execute("DELETE FROM pgvec.query_log")


def defaults(docs: Collection) -> dict[tuple[int, float], bool]:
    return {(profile.k, profile.target_recall): profile.is_default for profile in docs.profiles()}


def test_several_targets_and_several_k(docs: Collection) -> None:
    profiles = docs.tune([0.9, 0.97, 0.8], k=[10, 5], queries=GIVEN[:80])
    assert isinstance(profiles, list)
    assert [(each.k, each.target_recall) for each in profiles] == [
        (k, target) for k in (10, 5) for target in (0.9, 0.97, 0.8)
    ]
    for k in (10, 5):
        by_target = {each.target_recall: each for each in profiles if each.k == k}
        assert by_target[0.8].setting < by_target[0.9].setting < by_target[0.97].setting
        assert all(each.recall >= target for target, each in by_target.items())
        assert [each.is_default for each in by_target.values()] == [True, False, False]
    stored = docs.profiles()
    assert defaults(docs) == {(k, target): target == 0.9 for k in (5, 10) for target in (0.8, 0.9, 0.97)}
    for profile in profiles:
        (same,) = (each for each in stored if (each.k, each.target_recall) == (profile.k, profile.target_recall))
        assert (same.setting, same.source, same.queries) == (profile.setting, "given", 80)
        assert len(same.trials) == len(profile.trials)
        assert same.recall_low == profile.recall_low <= profile.recall <= profile.recall_high == same.recall_high
    for target in (0.8, 0.9, 0.97):
        measured = docs._database.fetch_one(
            "SELECT recall FROM pgvec.recall('docs', queries => 200, target => $1::double precision)", [target]
        )
        # Tuned on 80 queries, whose mean has a standard error of 0.02, and measured on 200 with one of 0.014.
        assert measured[0] >= target - 0.1

    single = docs.tune(0.97, queries=GIVEN)  # the other targets for this k stay, but not as the default
    assert not isinstance(single, list)
    assert defaults(docs) == {
        (5, 0.8): False, (5, 0.9): True, (5, 0.97): False, (10, 0.8): False, (10, 0.9): False, (10, 0.97): True,
    }  # fmt: skip
    history = docs._database.fetch_one("SELECT count(*) FROM pgvec.tuning_profiles WHERE superseded_at IS NOT NULL", [])
    assert history == (1,)


def test_a_share_of_the_queries_reaches_the_target(docs: Collection) -> None:
    mean = docs.tune(0.9, queries=GIVEN)
    tail = docs.tune(0.9, tail_share=0.95, queries=GIVEN)
    assert tail.setting > mean.setting
    assert mean.reaching_share < 0.95 <= tail.reaching_share <= 1
    assert (mean.tail_share, tail.tail_share) == (None, 0.95)
    (stored,) = docs.profiles()
    assert (stored.tail_share, stored.reaching_share) == (0.95, tail.reaching_share)
    with pytest.raises(TuningError, match="tail_share"):
        docs.tune(0.9, tail_share=1.1, queries=GIVEN)
    for targets in ([], [0.9, 0.9]):
        with pytest.raises(TuningError, match="none of them twice"):
            docs.tune(targets, queries=GIVEN)


def test_queries_of_the_log(docs: Collection) -> None:
    for measure in (docs.tune, docs.recall):
        with pytest.raises(TuningError, match="no queries are logged"):
            measure(queries="log")
    with pytest.raises(ConfigurationError, match="list of texts"):
        docs.tune(queries="logs")

    def log(vectors: np.ndarray, filter: str | None = None) -> None:
        with docs._database.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO pgvec.query_log (space_id, query, k, filter) VALUES (%s, %s, 10, %s)",
                [(docs.space.id, str(vector.tolist()), filter) for vector in vectors],
            )

    log(np.repeat(GIVEN[:60], 2, axis=0))
    assert docs.tune(0.8, queries="log").queries == 60  # what was asked twice is no more evidence
    assert docs.recall(queries="log", sample=50).queries == 50
    assert docs.tune(0.8, sample=50).source == "stored"  # so few are no better than stored rows
    assert docs._advised_queries(None, None) is None
    log(GIVEN[60:90], '{"n": {"$gte": 600}}')
    log(GIVEN[90:], '{"n": {"$lt": 600}}')
    profile = docs.tune(0.8)
    assert (profile.source, profile.queries) == ("log", 120)
    assert len(docs._advised_queries(None, None)) == 120
    assert [(each.filter_class, each.queries) for each in profile.filters] == [("n $gte", 30), ("n $lt", 30)]
    assert docs.tune(0.8, queries="log", sample=40).queries == 40
    separate = docs.tune(0.8, queries="log", filters=[{"n": {"$gte": 600}}])
    assert (separate.source, [each.queries for each in separate.filters]) == ("log", [120])
    # Those that came before a column changed its type no longer fit.
    log(-GIVEN[:20], '{"n": {"$gte": "much"}}')
    log(-GIVEN[20:40], '{"n": {"$lt": [1]}}')
    profile = docs.tune(0.8)
    assert profile.queries == 160
    assert [(each.filter_class, each.queries) for each in profile.filters] == [("n $gte", 30), ("n $lt", 30)]


def test_a_class_of_filters_that_misses_the_target_has_a_setting_of_its_own(dsn: str) -> None:
    """All that matches lies apart from the queries, and the law of depth is set to know nothing of that."""
    with Database(make_conninfo(dsn, options="-c enable_seqscan=off")) as database:
        docs = database.create_collection("docs", dimensions=DIMENSIONS, distance="l2", columns={"n": int})
        by_first = STORED[np.argsort(STORED[:, 0])]
        docs.upsert({"id": [str(n) for n in range(ROWS)], "vector": by_first, "n": list(range(ROWS))})
        docs.create_index("ivfflat", lists=30)
        with database.connection() as connection:
            connection.execute(
                "INSERT INTO pgvec.calibrations (space_id, exact_us, scan_us, exponent) VALUES (%s, 1000, 0.01, 0.001)",
                [docs.space.id],
            )
        queries = GIVEN[:60] - 2 * np.eye(1, DIMENSIONS, dtype=np.float32)
        profile = docs.tune(0.8, queries=queries, filters=[{"n": {"$gte": ROWS // 2}}, {"n": {"$gte": ROWS // 2 + 1}}])
        (measured,) = profile.filters
        assert (measured.filter_class, measured.queries) == ("n $gte", 60)
        assert measured.recall < 0.8
        found = {each.filter_class: each for each in docs.profiles()}
        assert found["n $gte"].setting > profile.setting == found[""].setting
        assert found["n $gte"].recall >= 0.8
        (same,) = (each for each in found.values() if not each.filter_class)
        assert same.filters[0].filter_class == "n $gte"
        docs.tune(0.8, queries=queries)  # what was found for filters is no longer known to be true
        assert [each.filter_class for each in docs.profiles()] == [""]


# -- what is stored --------------------------------------------------------------------------------


def stored(docs: Collection) -> int:
    (row,) = docs.database.fetch("SELECT count(*) FROM pgvec.tuning_profiles")
    return int(row[0])


def test_nothing_is_stored_unless_all_is_measured(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tuner._tune_goals

    def failing(searching: tuner.Tuner, asked: tuner.Asked) -> Any:
        if searching.trials.k == 5:
            raise TuningError("out of reach")
        return original(searching, asked)

    monkeypatch.setattr(tuner, "_tune_goals", failing)
    with pytest.raises(TuningError, match="out of reach"):
        docs.tune(0.8, k=[10, 5], queries=GIVEN[:40])
    assert stored(docs) == 0


@pytest.mark.parametrize(
    "then", ["", "CREATE INDEX docs_dense_hnsw ON docs_dense USING hnsw (embedding vector_l2_ops)"]
)
def test_no_profile_is_stored_for_an_index_that_was_not_measured(
    docs: Collection, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The index is dropped, and another made, when all is measured; a drop in progress is waited for."""
    original, dropping = tuner._tune_goals, psycopg.connect(docs.database.dsn)

    def interrupted(*arguments: Any) -> Any:
        found = original(*arguments)
        dropping.execute(f"DROP INDEX docs_dense_hnsw; {then}".encode())
        if then:
            dropping.commit()
        else:
            threading.Timer(0.5, dropping.commit).start()
        return found

    monkeypatch.setattr(tuner, "_tune_goals", interrupted)
    try:
        with pytest.raises(TuningError, match="docs_dense was replaced, or dropped, meanwhile: tune again"):
            docs.tune(0.8, queries=GIVEN[:40])
    finally:
        dropping.close()
        docs.drop_index()
        docs.create_index(m=5, ef_construction=12)
    assert stored(docs) == 0


def test_two_may_tune_at_once(docs: Collection) -> None:
    """The other one has found the same and is about to commit."""
    insert = (
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall)"
        " VALUES (%s, 'hnsw', 'full', 10, 0.8, 20, 0.8)"
    )
    with psycopg.connect(docs.database.dsn) as other, ThreadPoolExecutor() as threads:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('pgvec.tune'), %s)", [docs.space.id])
        other.execute(insert, [docs.space.id])
        tuning = threads.submit(docs.tune, 0.8, queries=GIVEN[:40])
        while not docs.database.fetch("SELECT pid FROM pg_locks WHERE NOT granted") and not tuning.done():
            time.sleep(0.01)
        other.commit()
        profile = tuning.result()
    assert stored(docs) == 2
    assert [each.setting for each in docs.profiles()] == [profile.setting]


def test_who_may_not_store_is_told_before_the_work(db: Database, connection: Any) -> None:
    db.create_collection("docs", dimensions=2)
    role = f"reader_{connection.info.backend_pid}"
    connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}".encode())
    connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec, public TO {role}".encode())
    try:
        for options, complaint in (
            (
                f"-c role={role}",
                f"GRANT SELECT, INSERT, UPDATE ON pgvec.tuning_profiles TO {role}; GRANT .* ON pgvec.cal",
            ),
            ("-c default_transaction_read_only=on", "tune stores what it measures, and this transaction is read-only"),
        ):
            with (
                Database(make_conninfo(db.dsn, options=options)) as theirs,
                pytest.raises(ConfigurationError, match=complaint),
            ):
                theirs.collection("docs").tune()
    finally:
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("sample", [0, -1, 1.5, float("nan"), "many"])
def test_an_impossible_sample_is_refused(docs: Collection, sample: Any) -> None:
    with pytest.raises(TuningError, match="sample, the number of queries, must be a whole number from 1 on"):
        docs.tune(sample=sample)
    with pytest.raises(ConfigurationError, match="sample at least 1"):
        docs.recall(sample=sample)


@pytest.mark.parametrize("queries", [None, GIVEN[:3]])
def test_recall_at_0_is_none(docs: Collection, queries: Any) -> None:
    with pytest.raises(ConfigurationError, match="k must be from 1 to 999"):
        docs.recall(k=0, queries=queries)


def test_a_filter_that_does_not_fit_fails_before_the_work(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tuner, "_tune_goals")
    with pytest.raises(FilterError, match="much"):
        docs.tune(0.8, queries=GIVEN[:20], filters=[{"n": {"$gte": "much"}}])


# -- the truth -------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    computed: list[int] = []

    def count(connection: Any, space: Any, queries: Queries, k: int) -> Any:
        computed.append(k)
        return exact_distances(connection, space, queries, k)

    monkeypatch.setattr(truth, "exact_distances", count)
    return computed


def test_the_truth_is_kept_until_a_row_changes(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = counted(monkeypatch)
    docs = db.create_collection("docs", dimensions=DIMENSIONS, distance="l2")
    docs.upsert({"id": [str(n) for n in range(300)], "vector": STORED[:300]})
    queries = Queries.from_vectors(GIVEN[:20])
    with db.connection() as connection:

        def asked(k: int = 10, given: Queries = queries) -> int:
            """Return how often the truth was computed for this; what is returned is always right."""
            before = len(computed)
            found = ground_truth(connection, docs.space, given, k)
            np.testing.assert_array_equal(found, exact_distances(connection, docs.space, given, k))
            return len(computed) - before

        assert [asked(), asked(), asked(3), asked(11), asked(10)] == [1, 0, 0, 1, 0]
        assert asked(10, Queries(GIVEN[:20], np.arange(20))) == 1  # now they are stored rows
        changes = (
            "DELETE FROM docs_dense WHERE key = (SELECT max(key) FROM docs_dense)",
            "UPDATE docs_dense SET embedding = embedding WHERE key = (SELECT min(key) FROM docs_dense)",
            "INSERT INTO docs_dense SELECT key, (SELECT embedding FROM docs_dense LIMIT 1) FROM docs"
            " WHERE key NOT IN (SELECT key FROM docs_dense)",
        )
        for change in changes:
            connection.execute(change.encode())
            assert [asked(), asked()] == [1, 0]
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM docs_dense")
        docs.create_index()
        assert asked() == 0  # nothing was committed, and an index changes no row
        for number in range(12):
            ground_truth(connection, docs.space, Queries.from_vectors(GIVEN[number : number + 2]), 2)
        assert connection.execute("SELECT count(*) FROM pgvec.ground_truths").fetchone() == (8,)


def test_who_may_not_keep_the_truth_computes_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = counted(monkeypatch)
    docs = db.create_collection("docs", dimensions=DIMENSIONS, distance="l2")
    docs.upsert({"id": [str(n) for n in range(50)], "vector": STORED[:50]})
    queries = Queries.from_vectors(GIVEN[:5])
    with db.connection() as connection:
        role = sql.Identifier("reader_" + connection.info.dbname)
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA pgvec TO {}").format(role))
            connection.execute(sql.SQL("GRANT SELECT ON docs, docs_dense, pgvec.vector_spaces TO {}").format(role))
            for grants in ("nothing", "SELECT"):
                if grants == "SELECT":
                    connection.execute(sql.SQL("GRANT SELECT ON pgvec.ground_truths TO {}").format(role))
                connection.execute(sql.SQL("SET ROLE {}").format(role))
                assert ground_truth(connection, docs.space, queries, 3).shape == (5, 3)
                connection.execute("RESET ROLE")
            assert computed == [3, 3]
            assert connection.execute("SELECT count(*) FROM pgvec.ground_truths").fetchone() == (0,)
        finally:
            connection.execute("RESET ROLE")
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_tuning_again_takes_no_truth(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = counted(monkeypatch)
    docs.tune(0.8, sample=60)
    docs.tune(0.85, sample=60)  # the same stored rows are drawn
    assert computed == [160]
