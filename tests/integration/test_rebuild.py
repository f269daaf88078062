"""Rebuilding an index: under fire, with other parameters, refused, only if needed, and what a killed one leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, IndexBuildError
from pgvec_toolkit.schema import locks
from pgvec_toolkit.tune import rebuild
from tests.conftest import random_vectors
from tests.fire import Fire

DIMENSIONS, ROWS = 16, 1000
INDEXES = """
SELECT i.relname::text, x.indisvalid, coalesce(array_to_string(i.reloptions, ' '), '')
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
WHERE a.amname IN ('hnsw', 'ivfflat') ORDER BY 1
"""
STORED = random_vectors(ROWS, DIMENSIONS)
OTHERS = random_vectors(ROWS, DIMENSIONS, seed=1)
Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "JUDGED_ON", 150)
    # All queries on a slow machine, too, and no refusal by chance: by itself one in a thousand is.
    monkeypatch.setattr(rebuild, "_BUDGET", 5.0)
    monkeypatch.setattr(rebuild, "_LEAST_TOLERANCE", 0.1)


@pytest.fixture(scope="module")
def indexed(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[str]:
    """Name of a database with a collection and its index, to clone."""
    name = "t_rebuild_indexed"
    with janitor(name, template):
        with Database(make_conninfo(server_dsn, dbname=name)) as database:
            made = database.create_collection("docs", dimensions=DIMENSIONS)
            made.upsert({"id": [str(row) for row in range(ROWS)], "vector": STORED})
            made.create_index(m=12, ef_construction=60)
        yield name


@pytest.fixture
def origin(request: pytest.FixtureRequest, template: str) -> str:
    return request.getfixturevalue("indexed") if "docs" in request.fixturenames else template


@pytest.fixture
def docs(db: Database) -> pgvec.Collection:
    return db.collection("docs")


def churn(connection: Connection) -> None:
    """Delete 40 % of the rows, insert others, and have statistics know."""
    connection.execute("DELETE FROM docs WHERE key % 5 < 2")
    with connection.cursor() as cursor:
        cursor.executemany(
            "WITH made AS (INSERT INTO docs (id, document_id) VALUES (%s, 'x') RETURNING key)"
            " INSERT INTO docs_dense SELECT key, %s::text::vector FROM made",
            [(f"x{row}", str(vector.tolist())) for row, vector in enumerate(OTHERS[: 2 * ROWS // 5])],
        )
    connection.execute("SELECT pg_stat_force_next_flush()")


@pytest.fixture
def searchers(dsn: str, docs: pgvec.Collection) -> Iterator[list[Callable[[int], None]]]:
    """Searches in Python, in SQL, and by a statement that was prepared once; none may fail or come back short."""
    with (
        Database(dsn) as other,
        psycopg.connect(dsn, autocommit=True) as by_sql,
        psycopg.connect(dsn, autocommit=True) as prepared,
    ):
        collection = other.collection(docs.name)
        text = prepared.execute("SELECT pgvec.search_sql('docs', 10)").fetchone()
        assert text is not None
        prepared.execute("SET plan_cache_mode = force_generic_plan")
        prepared.execute(f"PREPARE near AS {text[0]}".encode())

        def in_python(number: int) -> None:
            assert len(collection.search(OTHERS[-1 - number % 500], 10)) == 10

        def in_sql(number: int) -> None:
            found = by_sql.execute(
                "SELECT count(*) FROM pgvec.search('docs', %s::text, 10)", [str(OTHERS[-1 - number % 500].tolist())]
            )
            assert found.fetchone() == (10,)

        def by_statement(number: int) -> None:
            vector = str(OTHERS[-1 - number % 500].tolist())
            assert len(prepared.execute(f"EXECUTE near ('{vector}')".encode()).fetchall()) == 10

        yield [in_python, in_sql, by_statement]


# -- under fire ------------------------------------------------------------------------------------


def test_it_is_rebuilt_under_fire(
    docs: pgvec.Collection, dsn: str, connection: Connection, searchers: list[Callable[[int], None]]
) -> None:
    profile = docs.tune(0.9, sample=200)
    with psycopg.connect(dsn, autocommit=True) as writer:

        def write(number: int) -> None:
            writer.execute("DELETE FROM docs WHERE id = %s", [f"w{number - 50}"])
            writer.execute(
                "WITH made AS (INSERT INTO docs (id, document_id) VALUES (%s, 'w') RETURNING key)"
                " INSERT INTO docs_dense SELECT key, %s::text::vector FROM made",
                [f"w{number}", str(OTHERS[number % ROWS].tolist())],
            )

        with Fire(*searchers, write) as fire:
            # More dead rows than churn makes: on a slow machine these alone were close to what is a reason.
            connection.execute("UPDATE docs_dense SET key = key WHERE key % 5 > 2")
            churn(connection)
            done = docs.rebuild_index(if_needed=True)
            before = list(fire.rounds)
            done_again = docs.rebuild_index()
    assert fire.failures == []
    assert min(before) > 0
    assert min(now - then for now, then in zip(fire.rounds, before, strict=True)) > 0
    for each in (done, done_again):
        assert (each.name, each.rebuilt, each.k, each.lapsed) == ("docs_dense_hnsw", True, 10, ())
        assert 0 < each.stalled < each.seconds
    assert "of the rows of docs_dense are dead" in done.reasons[0]
    assert connection.execute(INDEXES).fetchall() == [("docs_dense_hnsw", True, "m=12 ef_construction=60")]
    measured = docs.recall(sample=300)
    assert (measured.short_results, measured.recall > 0.8) == (0, True)
    assert done.recall_after is not None
    assert done.recall_after > 0.8
    # The profile is that of before, and it is used.
    assert connection.execute("SELECT setting FROM pgvec.tuning_profiles WHERE superseded_at IS NULL").fetchall() == [
        (profile.setting,)
    ]


def test_it_sees_what_others_have_not_committed(docs: pgvec.Collection, dsn: str, connection: Connection) -> None:
    """A writer's transaction, and a reader's, are waited for; neither fails, and nothing is lost."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            docs.rebuild_index()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    with psycopg.connect(dsn) as writer:
        writer.execute("UPDATE docs_dense SET embedding = %s::text::vector WHERE key = 1", [str(OTHERS[0].tolist())])
        thread.start()
        for _ in range(3000):
            if connection.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None:
                break
            connection.execute("SELECT pg_sleep(0.005)")
        assert docs.search(OTHERS[0], 1)[0].id != "0"
        writer.commit()
        thread.join()
    assert failures == []
    assert docs.search(OTHERS[0], 1)[0].id == "0"


# -- only if it is needed --------------------------------------------------------------------------


def test_if_needed_says_why(docs: pgvec.Collection, connection: Connection) -> None:
    fresh = docs.rebuild_index(if_needed=True)
    assert (fresh.rebuilt, fresh.size_after, fresh.recall_after) == (False, fresh.size_before, fresh.recall_before)
    assert fresh.reasons[0] == "0% of the rows of docs_dense are dead"
    assert "recall@10 is" in fresh.reasons[-1]

    churn(connection)
    done = docs.rebuild_index(if_needed=True)
    assert done.rebuilt
    assert len(done.reasons) == 1
    assert done.reasons[0].endswith("% of the rows of docs_dense are dead")
    assert not docs.rebuild_index(if_needed=True).rebuilt


def test_recall_below_its_target_is_a_reason_and_is_restored(docs: pgvec.Collection, connection: Connection) -> None:
    connection.execute(
        "DROP INDEX docs_dense_hnsw;"
        "CREATE INDEX ON docs_dense USING hnsw (embedding vector_cosine_ops) WITH (m = 2, ef_construction = 4);"
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall)"
        " SELECT id, 'hnsw', 'full', 10, 0.95, 40, 0.96 FROM pgvec.vector_spaces"
    )
    done = docs.rebuild_index(if_needed=True, m=12, ef_construction=60)
    assert done.recall_before is not None
    assert done.recall_after is not None
    assert done.reasons == (done.reasons[0],)
    assert done.reasons[0].startswith("recall@10 is 0.")
    assert done.reasons[0].endswith(", the target of its profile 0.95")
    assert done.recall_before < 0.9
    assert done.recall_after > 0.95
    assert done.name == "docs_dense_embedding_idx"
    assert connection.execute(INDEXES).fetchall() == [(done.name, True, "m=12 ef_construction=60")]


def test_an_index_that_has_grown_is_rebuilt(docs: pgvec.Collection, connection: Connection) -> None:
    assert not docs.rebuild_index(if_needed=True).rebuilt
    docs.upsert({"id": [f"x{row}" for row in range(ROWS)], "vector": OTHERS})
    connection.execute("DELETE FROM docs WHERE id LIKE 'x%'")
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("VACUUM docs_dense")
    (index,) = docs.indexes()
    done = docs.rebuild_index(if_needed=True)
    assert done.rebuilt
    (reason,) = done.reasons
    assert reason.startswith(f"the index has {index.size / 2**20:.1f} MB, a fresh one would have ")
    assert done.size_after < 0.7 * index.size


# -- other parameters ------------------------------------------------------------------------------


def test_other_parameters(docs: pgvec.Collection, connection: Connection) -> None:
    done = docs.rebuild_index("docs_dense_hnsw", m=33)
    assert (done.rebuilt, done.notes) == (True, ())
    assert connection.execute(INDEXES).fetchall() == [("docs_dense_hnsw", True, "m=33 ef_construction=66")]
    with pytest.raises(ConfigurationError, match="lists belongs to ivfflat"):
        docs.rebuild_index(lists=7)


def test_other_lists_are_tuned_for(docs: pgvec.Collection, connection: Connection) -> None:
    docs.drop_index()
    docs.create_index("ivfflat", lists=8)
    docs.tune(0.85, k=5, sample=100)
    docs.tune(0.9, tail_share=0.7, sample=100)
    done = docs.rebuild_index(lists=40)
    assert (done.lapsed, done.notes) == (((5, 0.85, None), (10, 0.9, 0.7)), ())
    assert [profile.tail_share for profile in docs.profiles()] == [None, 0.7]
    assert connection.execute(INDEXES).fetchall() == [("docs_dense_ivfflat", True, "lists=40")]
    current = "SELECT k, target_recall, index_shape FROM pgvec.tuning_profiles WHERE superseded_at IS NULL ORDER BY k"
    assert connection.execute(current).fetchall() == [(5, 0.85, "full lists=40"), (10, 0.9, "full lists=40")]
    assert docs.rebuild_index().lapsed == ()
    assert connection.execute(INDEXES).fetchall() == [("docs_dense_ivfflat", True, "lists=40")]


def test_what_cannot_be_tuned_after_a_rebuild_is_a_note(
    docs: pgvec.Collection, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.drop_index()
    docs.create_index("ivfflat", lists=8)
    docs.tune(0.3, queries=OTHERS[:20])  # so little that no other lists are refused
    role = f"owner_{connection.info.backend_pid}"
    connection.execute(
        f"CREATE ROLE {role}; GRANT ALL ON SCHEMA public TO {role};"
        f"GRANT USAGE ON SCHEMA pgvec TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {role};"
        f"GRANT UPDATE, DELETE ON pgvec.tuning_profiles, pgvec.calibrations TO {role};"
        f"ALTER TABLE docs OWNER TO {role}; ALTER TABLE docs_dense OWNER TO {role}".encode()
    )
    try:
        monkeypatch.setenv("PGOPTIONS", f"-c role={role}")
        with Database(connection.info.dsn) as owners:
            done = owners.collection("docs").rebuild_index(lists=4, queries=OTHERS[:20])
    finally:
        connection.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert done.rebuilt
    (note,) = done.notes
    assert note.startswith("searches for 10 are no longer tuned: tune stores what it measures, and role")
    assert f"GRANT SELECT, INSERT, UPDATE ON pgvec.tuning_profiles TO {role}" in note


def test_it_judges_by_the_queries_that_watch_takes(db: Database, connection: Connection) -> None:
    """Two mirrored clusters, each a list: of what lies between them a search of one list misses half."""
    half = np.column_stack([np.full(100, 10), np.arange(100) / 100]).astype(np.float32)
    docs = db.create_collection("docs", dimensions=2, distance="l2")
    docs.upsert({"id": [str(row) for row in range(200)], "vector": np.concatenate([half, half * [-1, 1]])})
    docs.create_index("ivfflat", lists=2)
    connection.execute(
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall)"
        " SELECT id, 'ivfflat', 'full lists=2', 10, 0.95, 1, 1 FROM pgvec.vector_spaces"
    )

    def log(values: str) -> None:
        connection.execute(
            "INSERT INTO pgvec.query_log (space_id, query, k)"
            f" SELECT s.id, format('[0,%s]', y), 10 FROM pgvec.vector_spaces s, {values}".encode()
        )

    log("generate_series(0.1, 0.82, 0.04) y, generate_series(1, 3)")  # 19 different ones, each three times
    kept = docs.rebuild_index(if_needed=True)
    assert (kept.rebuilt, kept.recall_before) == (False, 1)
    log("generate_series(0.86, 0.86) y")
    assert docs.recall(queries="log").queries == 20
    assert docs.recall(queries="log").recall < 0.7
    done = docs.rebuild_index(if_needed=True)
    assert done.rebuilt
    assert done.reasons[0].startswith("recall@10 is 0.")
    assert done.recall_before == pytest.approx(done.recall_after, abs=0.1)


def test_queries_are_compared_with_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of them are hard: how many of these are among the few that are measured is no matter."""
    monkeypatch.setattr(rebuild, "_LEAST_TOLERANCE", 0.01)
    before = np.asarray([0.2] * 10 + [1.0] * 90)
    assert not rebuild.is_worse(before, before[:20], None)
    assert rebuild.is_worse(before, before - 0.05, None)
    assert rebuild.is_worse(before, before - 0.05, 0.99)
    assert not rebuild.is_worse(before, before - 0.05, 0.8)
    assert not rebuild.is_worse(before, before - 0.005, 0.99)


def test_every_form_and_any_name(docs: pgvec.Collection, connection: Connection) -> None:
    for form, prefix in (("halfvec", None), ("binary", None), ("prefix", 12)):
        docs.drop_index()
        docs.create_index(form=form, prefix=prefix, m=8)
        connection.execute("ALTER INDEX docs_dense_hnsw RENAME TO mine")
        assert docs.rebuild_index().name == "mine"
        (index,) = docs.indexes()
        assert (index.name, index.form, index.dimensions) == ("mine", form, prefix or DIMENSIONS)
        assert len(docs.search(STORED[0], 5)) == 5


def test_an_empty_collection(db: Database) -> None:
    made = db.create_collection("docs", dimensions=2)
    with pytest.raises(ConfigurationError, match="has no index that searches use: create_index\\(\\), or "):
        made.rebuild_index()
    made.create_index()
    done = made.rebuild_index()
    assert (done.rebuilt, done.recall_before, done.recall_after) == (True, None, None)
    made.upsert([{"id": "a", "vector": [1, 0]}])
    assert [hit.id for hit in made.search([1, 0])] == ["a"]


# -- refused ---------------------------------------------------------------------------------------


def test_a_worse_index_is_refused(docs: pgvec.Collection, connection: Connection) -> None:
    oid = "SELECT 'docs_dense_hnsw'::regclass::oid"
    before = connection.execute(oid).fetchone()
    complaint = r"recall@10 0\.\d+ on \d+ queries, where \d\.\d+ is wanted.* goes on serving"
    with pytest.raises(IndexBuildError, match=complaint):
        docs.rebuild_index(m=2, ef_construction=4)
    assert connection.execute(INDEXES).fetchall() == [("docs_dense_hnsw", True, "m=12 ef_construction=60")]
    assert connection.execute(oid).fetchone() == before
    assert docs.recall().recall > 0.9
    docs.rebuild_index()
    assert [build.index for build in docs.builds()] == ["docs_dense_hnsw", "docs_dense_ccnew", "docs_dense_hnsw"]


def test_what_cannot_be_rebuilt(docs: pgvec.Collection, connection: Connection) -> None:
    with pytest.raises(ConfigurationError, match="searches use docs_dense_hnsw, not 'other'"):
        docs.rebuild_index("other")
    connection.execute("CREATE INDEX second ON docs_dense USING hnsw (embedding vector_cosine_ops)")
    with pytest.raises(ConfigurationError, match="docs_dense_hnsw and second, of which PostgreSQL may choose any"):
        docs.rebuild_index()


def test_a_second_rebuild_is_refused(docs: pgvec.Collection, connection: Connection) -> None:
    connection.execute("SELECT pg_advisory_lock(hashtext('pgvec.rebuild_index'), %s)", [docs.space.id])
    with pytest.raises(IndexBuildError, match="another session is rebuilding"):
        docs.rebuild_index()
    connection.execute("SELECT pg_advisory_unlock_all()")
    connection.execute("SELECT pg_advisory_lock(hashtext('pgvec.build_index'), %s)", [docs.space.id])
    with pytest.raises(IndexBuildError, match="another session is building"):
        docs.rebuild_index()


def test_who_never_lets_go_is_named(
    docs: pgvec.Collection, dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that keeps its lock on the table: it is tried briefly, several times, and then given up."""
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    with psycopg.connect(dsn, autocommit=True) as idle:
        # Begun while the index is built, or CREATE INDEX CONCURRENTLY would wait for it already.
        original = rebuild.build

        def build(*arguments: Any, **options: Any) -> str:
            name = original(*arguments, **options)
            idle.execute("BEGIN; LOCK TABLE docs_dense IN ACCESS SHARE MODE")
            return name

        def clear(*_: Any) -> None:
            idle.execute("ROLLBACK")
            originally_clear(*_)

        originally_clear = rebuild._clear
        monkeypatch.setattr(rebuild, "build", build)
        monkeypatch.setattr(rebuild, "_clear", clear)
        with pytest.raises(IndexBuildError, match=rf"in use by others .*\b{idle.info.backend_pid}\b.*rebuild again"):
            docs.rebuild_index()
    assert connection.execute(INDEXES).fetchall() == [("docs_dense_hnsw", True, "m=12 ef_construction=60")]


# -- what is left when it is killed ----------------------------------------------------------------


def test_what_a_killed_rebuild_left_is_cleared(docs: pgvec.Collection, connection: Connection) -> None:
    left = "CREATE INDEX docs_dense_ccnew ON docs_dense USING hnsw (embedding vector_cosine_ops) WITH (m = 4);"
    invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'docs_dense_ccnew'::regclass;"
    only = [("docs_dense_hnsw", True, "m=12 ef_construction=60")]
    connection.execute(left)  # before the switch: either is right
    assert len(docs.search(STORED[0], 10)) == 10
    with pytest.raises(IndexBuildError, match="docs_dense_hnsw exists already"):
        docs.create_index()
    assert connection.execute(INDEXES).fetchall() == only
    connection.execute(left)
    assert not docs.rebuild_index(if_needed=True).rebuilt
    assert connection.execute(INDEXES).fetchall() == only
    connection.execute(left + invalid)  # before the build was complete
    assert docs.rebuild_index().rebuilt
    assert connection.execute(INDEXES).fetchall() == only


def test_a_replacement_is_not_in_use_before_it_takes_over(docs: pgvec.Collection, connection: Connection) -> None:
    """Neither for searches, to which other lists are another shape, nor for who looks what to drop."""
    built = "CREATE INDEX {} ON docs_dense USING ivfflat (embedding vector_cosine_ops) WITH (lists = {});"
    connection.execute(
        f"DROP INDEX docs_dense_hnsw; {built.format('docs_dense_ivfflat', 4)} {built.format('docs_dense_ccnew', 8)}"
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall)"
        " SELECT id, 'ivfflat', 'full lists=4', 10, 0.9, 4, 1 FROM pgvec.vector_spaces".encode()
    )
    assert len(docs.search(STORED[0], 10, recall=0.9)) == 10
    assert [index.name for index in docs.indexes()] == ["docs_dense_ivfflat", "docs_dense_ccnew"]
    (several,) = connection.execute("SELECT subject, finding FROM pgvec._health_several()").fetchall()
    assert several[0].endswith("docs_dense_ccnew")
    assert "tuned for docs_dense_ivfflat" in several[1]


def test_a_replacement_that_is_alone_is_an_index(docs: pgvec.Collection, connection: Connection) -> None:
    """The old one was dropped by hand, after a rebuild had been killed between its build and the switch."""
    connection.execute("ALTER INDEX docs_dense_hnsw RENAME TO docs_dense_ccnew")
    with pytest.raises(IndexBuildError, match="has a vector index, docs_dense_ccnew: drop it first"):
        docs.create_index()
    assert docs.rebuild_index().name == "docs_dense_hnsw"
    assert connection.execute(INDEXES).fetchall() == [("docs_dense_hnsw", True, "m=12 ef_construction=60")]
