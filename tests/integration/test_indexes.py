"""Building vector indexes on a real server: as asked, with what memory, and what an interrupted build leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, IndexBuildError
from pgvec_toolkit.schema import build as building
from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema.index_specs import Hnsw, IvfFlat
from tests.conftest import random_vectors

DIMENSIONS, ROWS = 64, 800
KINDS = [("hnsw", False), ("hnsw", True), ("ivfflat", False), ("ivfflat", True)]
VECTOR_INDEXES = """
SELECT i.relname, x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
WHERE a.amname IN ('hnsw', 'ivfflat')
"""


@pytest.fixture(scope="module")
def loaded(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[str]:
    """Name of a database with a collection, to clone."""
    name = "t_indexes_loaded"
    with janitor(name, template):
        with Database(make_conninfo(server_dsn, dbname=name)) as database:
            made = database.create_collection("docs", dimensions=DIMENSIONS)
            made.upsert({"id": [str(row) for row in range(ROWS)], "vector": random_vectors(ROWS, DIMENSIONS)})
        yield name


@pytest.fixture
def origin(request: pytest.FixtureRequest, template: str) -> str:
    return request.getfixturevalue("loaded") if "docs" in request.fixturenames else template


@pytest.fixture
def docs(db: Database) -> pgvec.Collection:
    return db.collection("docs")


@pytest.fixture
def many(docs: pgvec.Collection, connection: psycopg.Connection) -> pgvec.Collection:
    """8,800 rows: enough for a build to be interrupted."""
    connection.execute("INSERT INTO docs (id, document_id) SELECT 'x' || i, 'x' FROM generate_series(1, 8000) i")
    connection.execute(
        "INSERT INTO docs_dense SELECT key, (SELECT array_agg(sin(key * j)) FROM generate_series(1, 64) j)::vector"
        " FROM docs WHERE document_id = 'x'"
    )
    return docs


# -- as asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "concurrently"), KINDS)
def test_an_index_is_built_and_used(docs: pgvec.Collection, method: str, concurrently: bool) -> None:
    query = np.ones(DIMENSIONS)
    exact = [hit.id for hit in docs.search(query, exact=True)]
    name = docs.create_index(method, concurrently=concurrently)
    (index,) = docs.indexes()
    assert (index.name, index.method, index.valid, index.usable) == (name, method, True, True)
    assert (index.form, index.dimensions) == ("full", DIMENSIONS)
    assert index.name == f"docs_dense_{method}"
    assert docs.recall(sample=50).recall > 0.6
    assert len(set(exact) & {hit.id for hit in docs.search(query, ef_search=1000)}) == 10


def test_options_are_those_asked_for(docs: pgvec.Collection) -> None:
    docs.create_index("hnsw", m=8, ef_construction=40)
    assert [(index.method, index.options) for index in docs.indexes()] == [("hnsw", ["m=8", "ef_construction=40"])]
    with pytest.raises(IndexBuildError, match="has a vector index, docs_dense_hnsw: drop it first"):
        docs.create_index("ivfflat", lists=7)
    docs.drop_index()
    docs.create_index("ivfflat", lists=7)
    assert [(index.method, index.options) for index in docs.indexes()] == [("ivfflat", ["lists=7"])]


def test_two_builds_at_once_do_not_take_each_other_for_leftovers(
    docs: pgvec.Collection, connection: psycopg.Connection
) -> None:
    connection.execute("SELECT pg_advisory_lock(hashtext('pgvec.build_index'), %s)", [docs.space.id])
    with pytest.raises(IndexBuildError, match="another session is building"):
        docs.create_index()
    connection.execute("SELECT pg_advisory_unlock_all()")
    docs.create_index()


def test_sizes_are_those_on_disk(docs: pgvec.Collection, connection: psycopg.Connection) -> None:
    assert docs.indexes() == []
    name = docs.create_index()
    (index,) = docs.indexes()
    assert (index.size,) == connection.execute("SELECT pg_relation_size(%s::regclass)", [name]).fetchone()
    assert index.size > ROWS * 4 * DIMENSIONS


@pytest.mark.parametrize("distance", ["cosine", "l2", "inner_product", "l1"])
def test_the_operator_class_is_that_of_the_distance(db: Database, distance: str) -> None:
    made = db.create_collection("some", dimensions=2, distance=distance)
    made.upsert([{"id": str(row), "vector": [row + 1, 1]} for row in range(50)])
    made.create_index("hnsw")
    assert len(made.search([1, 2], k=5)) == 5
    made.drop_index()
    if distance == "l1":
        with pytest.raises(ConfigurationError, match="no IVFFlat index for type vector and distance l1: use hnsw"):
            made.create_index("ivfflat")
    else:
        made.create_index("ivfflat")
    found = [hit.distance for hit in made.search([1, 2], k=5)]
    assert found == sorted(found)
    assert len(found) == 5


@pytest.mark.parametrize("method", ["hnsw", "ivfflat"])
def test_an_empty_collection_can_be_indexed(db: Database, method: str) -> None:
    made = db.create_collection("empty", dimensions=2)
    made.create_index(method)
    assert made.search([1, 0]) == []
    made.upsert([{"id": "a", "vector": [1, 0]}])
    assert [hit.id for hit in made.search([1, 0])] == ["a"]


def test_a_second_index_of_the_name_is_refused(docs: pgvec.Collection) -> None:
    docs.create_index(m=8)
    before = docs.indexes()
    with pytest.raises(IndexBuildError, match="docs_dense_hnsw exists already: drop it first"):
        docs.create_index(m=16)
    assert docs.indexes() == before


def test_something_else_of_the_name_is_left_alone(docs: pgvec.Collection, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE public.docs_dense_hnsw (theirs int)")
    with pytest.raises(IndexBuildError, match="already exists"):
        docs.create_index()
    assert connection.execute("SELECT count(theirs) FROM public.docs_dense_hnsw").fetchone() == (0,)


def test_dropping(docs: pgvec.Collection) -> None:
    docs.create_index("hnsw")
    with pytest.raises(ConfigurationError, match=r"no vector index 'docs_pkey'.*docs_dense_hnsw"):
        docs.drop_index("docs_pkey")
    assert docs.drop_index("docs_dense_hnsw") == ["docs_dense_hnsw"]
    docs.create_index("ivfflat")
    assert docs.drop_index() == ["docs_dense_ivfflat"]
    assert docs.drop_index() == []
    with pytest.raises(ConfigurationError, match="it has none"):
        docs.drop_index("docs_dense_hnsw")
    assert docs.recall(sample=20).recall == 1


@pytest.mark.parametrize("lock", ["pgvec.build_index", "pgvec.rebuild_index"])
def test_nothing_is_dropped_while_others_build(
    docs: pgvec.Collection, connection: psycopg.Connection, lock: str
) -> None:
    docs.create_index()
    connection.execute("SELECT pg_advisory_lock(hashtext(%s), %s)", [lock, docs.space.id])
    with pytest.raises(IndexBuildError, match=r"another session is .*build.*wait for it"):
        docs.drop_index()
    assert len(docs.indexes()) == 1
    connection.execute("SELECT pg_advisory_unlock_all()")
    assert docs.drop_index() == ["docs_dense_hnsw"]
    docs.create_index()


def test_dropping_makes_nobody_queue(
    docs: pgvec.Collection, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.create_index(m=4)
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    info = connection.info
    with psycopg.connect(info.dsn, password=info.password) as reader:
        reader.execute("SET idle_in_transaction_session_timeout = '10s'")  # for ever, but for a test that fails
        reader.execute("SELECT FROM docs_dense LIMIT 1")
        with pytest.raises(IndexBuildError, match=rf"docs_dense .*pid: {reader.info.backend_pid}\): drop it again"):
            docs.drop_index()
        assert len(docs.indexes()) == 1
        reader.rollback()
    assert docs.drop_index() == ["docs_dense_hnsw"]


def test_others_can_write_during_a_concurrent_build_only(
    docs: pgvec.Collection, connection: psycopg.Connection
) -> None:
    """By the lock that the build waits for: SHARE UPDATE EXCLUSIVE lets writers in, SHARE does not."""
    for concurrently, mode in ((True, "ShareUpdateExclusiveLock"), (False, "ShareLock")):
        with _held_up(docs, connection, concurrently) as pid:
            modes = connection.execute(
                "SELECT mode FROM pg_locks WHERE pid = %s AND relation = 'docs_dense'::regclass", [pid]
            ).fetchall()
            assert (mode,) in modes
        docs.drop_index()


# -- afterwards ------------------------------------------------------------------------------------


def test_statistics_and_visibility_are_fresh(docs: pgvec.Collection, connection: psycopg.Connection) -> None:
    pages = "SELECT reltuples, relallvisible FROM pg_class WHERE oid = %s::regclass"
    assert connection.execute(pages, ["docs"]).fetchone() == (-1, 0)
    docs.create_index()
    rows, visible = connection.execute(pages, ["docs"]).fetchone() or (0, 0)
    assert rows == ROWS
    assert visible > 0
    assert (connection.execute(pages, ["docs_dense"]).fetchone() or (0,))[0] == ROWS
    analysed = connection.execute(
        "SELECT count(*) FROM pg_stats WHERE tablename = 'docs' AND attname = 'id'"
    ).fetchone()
    assert analysed == (1,)


WITHOUT_MEMORY = "CREATE INDEX ON docs_dense USING ivfflat (embedding vector_cosine_ops) WITH (lists = 200)"
RECORD_MEMORY = """
CREATE TABLE public.memory (bytes bigint);
CREATE FUNCTION public.record_memory() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.memory SELECT pg_size_bytes(current_setting('maintenance_work_mem'));
END $$;
CREATE EVENT TRIGGER record_memory ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
    EXECUTE FUNCTION public.record_memory();
"""


@pytest.mark.parametrize("concurrently", [False, True])
def test_memory_is_set_for_the_build_and_for_nothing_else(
    docs: pgvec.Collection, db: Database, connection: psycopg.Connection, concurrently: bool
) -> None:
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET maintenance_work_mem = '1MB'")
    with Database(db.dsn) as fresh:
        indexed = fresh.collection(docs.name)
        if concurrently:
            # 10,000 samples against 200 lists do not fit into a megabyte: without its memory the build is refused.
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="memory required"):
                connection.execute("SET maintenance_work_mem = '1MB'; " + WITHOUT_MEMORY)
            indexed.create_index("ivfflat", lists=200, concurrently=True)
        else:  # an event trigger's function runs in a transaction, which CONCURRENTLY cannot be in
            connection.execute(RECORD_MEMORY)
            indexed.create_index("ivfflat", lists=2, concurrently=False)
            recorded = connection.execute("SELECT bytes FROM public.memory").fetchall()
            assert recorded == [(64 * 2**20,)]
        for _ in range(5):
            assert fresh.fetch("SHOW maintenance_work_mem") == [("1MB",)]


def test_progress_goes_from_nothing_to_all(
    docs: pgvec.Collection, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[float | None, str]] = []

    @contextmanager
    def recorded(description: str, show: bool | None = None) -> Iterator[Callable[..., None]]:
        assert (description, show) == ("building docs_dense_hnsw", True)
        yield lambda share, phase, _left: shown.append((share, phase))

    monkeypatch.setattr(building, "share_bar", recorded)
    monkeypatch.setattr(building, "_WATCH_INTERVAL", 0.001)
    docs.create_index("hnsw", ef_construction=1000, progress=True)  # long enough to be seen
    shares = [share for share, _ in shown if share is not None]
    assert len(shown) > 1
    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares)
    assert shown[-1] == (1.0, "done")
    assert any(phase.startswith("building index") for _, phase in shown)

    shown.clear()
    docs.drop_index()
    connection.execute("CREATE TABLE public.docs_dense_hnsw ()")
    monkeypatch.setattr(building, "share_bar", lambda *_: _recorder(shown))
    with pytest.raises(IndexBuildError):
        docs.create_index("hnsw", progress=True)
    assert (1.0, "done") not in shown


@contextmanager
def _recorder(shown: list[tuple[float | None, str]]) -> Iterator[Callable[..., None]]:
    yield lambda share, phase, _left: shown.append((share, phase))


# -- interrupted -----------------------------------------------------------------------------------


def _building_pid(connection: psycopg.Connection) -> int:
    """Wait until a build waits for a lock or works, and return its session."""
    for _ in range(30_000):
        row = connection.execute("SELECT pid FROM pg_stat_progress_create_index").fetchone()
        if row is not None:
            return int(row[0])
        connection.execute("SELECT pg_sleep(0.005)")
    raise AssertionError("no build began")


@contextmanager
def _held_up(docs: pgvec.Collection, connection: psycopg.Connection, concurrently: bool) -> Iterator[int]:
    """Have an index built in a thread that waits for a writer's transaction; yields its session's process."""
    failures: list[BaseException] = []

    def build() -> None:
        try:
            docs.create_index("hnsw", concurrently=concurrently)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=build)
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as writer:
        writer.execute("UPDATE docs_dense SET key = key WHERE key = 1")
        thread.start()
        try:
            for _ in range(30_000):
                row = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
                ).fetchone()
                if row is not None:
                    break
                connection.execute("SELECT pg_sleep(0.005)")
            assert row is not None, failures
            yield int(row[0])
        finally:
            writer.rollback()
            thread.join()
    assert not failures


@pytest.mark.parametrize(
    ("how", "method", "concurrently"),
    [*(("pg_cancel_backend", *kind) for kind in KINDS), ("pg_terminate_backend", "hnsw", True)],
)
def test_an_interrupted_build_leaves_no_index(
    many: pgvec.Collection, connection: psycopg.Connection, how: str, method: str, concurrently: bool
) -> None:
    options: dict[str, Any] = {"ef_construction": 1000, "m": 64} if method == "hnsw" else {"lists": 1000}
    failures: list[Exception] = []

    def build() -> None:
        try:
            many.create_index(method, concurrently=concurrently, **options)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    pid = _building_pid(connection)
    connection.execute(f"SELECT {how}(%s)", [pid])
    thread.join()
    (failure,) = failures
    assert isinstance(failure, IndexBuildError), repr(failure)
    assert "was not built" in str(failure)
    assert isinstance(failure.__cause__, psycopg.Error)
    assert connection.execute(VECTOR_INDEXES).fetchall() == []
    assert many.indexes() == []


INTERRUPTED = """
import sys
import pgvec_toolkit as pgvec
with pgvec.connect(sys.argv[1]) as database:
    database.collection("docs").create_index("hnsw", m=64, ef_construction=1000, concurrently=True)
"""


def test_ctrl_c_ends_the_build_on_the_server_too(many: pgvec.Collection, connection: psycopg.Connection) -> None:
    command = [sys.executable, "-c", INTERRUPTED, many._database.dsn]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        _building_pid(connection)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in complaints
    assert connection.execute(VECTOR_INDEXES).fetchall() == []
    assert connection.execute("SELECT count(*) FROM pg_stat_progress_create_index").fetchone() == (0,)


def test_what_a_killed_program_left_is_cleared(docs: pgvec.Collection, connection: psycopg.Connection) -> None:
    """An INVALID index, as a CONCURRENTLY build of a program killed at a bad moment leaves it."""
    name = docs.create_index("hnsw", m=8)
    connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [name])
    (index,) = docs.indexes()
    assert not index.valid
    assert docs.recall(sample=20).recall == 1  # searches do without it
    docs.create_index("hnsw", m=16)
    (index,) = docs.indexes()
    assert (index.valid, index.options[0]) == (True, "m=16")


def test_specs_name_their_methods() -> None:
    assert (Hnsw.method, IvfFlat.method) == ("hnsw", "ivfflat")
