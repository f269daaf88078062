"""pgvec.prewarm: after a restart it reads what searches read, as far as it fits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.embedded import EmbeddedServer
from tests.conftest import random_vectors

ROWS = 3000
METHODS = {"graph": "hnsw", "lists": "ivfflat"}
READ = """
SELECT coalesce(sum(heap_blks_read + idx_blks_read), 0), coalesce(sum(heap_blks_hit + idx_blks_hit), 0)
FROM pg_statio_user_tables WHERE relname = ANY (%s)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server of its own, to be restarted, with a collection for each method of index."""
    home = Path(tempfile.mkdtemp(prefix="pgvec-warm-"))
    home.chmod(0o711)
    server = EmbeddedServer(home)
    try:
        with Database(server.start()) as database:
            database.migrate()
            vectors = random_vectors(ROWS, 32)
            for name, method in METHODS.items():
                docs = database.create_collection(name, dimensions=32, columns={"year": int})
                docs.upsert(
                    {"id": str(i), "text": f"text {i}", "year": i, "views": i, "vector": vectors[i]}
                    for i in range(ROWS)
                )
                docs.create_index(method, lists=30 if method == "ivfflat" else None, progress=False)
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


def _restarted(server: EmbeddedServer) -> Database:
    server.stop()
    return Database(server.start(), max_size=1)


def _blocks_of_searches(database: Database, name: str) -> tuple[int, int]:
    """Search, and return how many blocks were read for it and how many were there."""
    docs = database.collection(name)
    database.fetch("SELECT pg_stat_force_next_flush()")  # of what its session did before
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        before = connection.execute(READ, [[name, f"{name}_dense"]]).fetchone() or (0, 0)
    for query in random_vectors(20, 32, seed=1):
        docs.search(query, k=10)
        docs.search(query, k=10, where={"year": {"$lt": 100}})
    database.fetch("SELECT pg_stat_force_next_flush()")
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        after = connection.execute(READ, [[name, f"{name}_dense"]]).fetchone() or (0, 0)
    return int(after[0] - before[0]), int(after[1] - before[1])


@pytest.mark.parametrize("name", METHODS)
def test_searches_after_it_read_nothing_from_disk(server: EmbeddedServer, name: str) -> None:
    with _restarted(server) as database:
        read, hit = _blocks_of_searches(database, name)
        assert read > 100
        cold = database.fetch("SELECT subject, mend FROM pgvec._health_cold(blocks => 1, share => 0.001)")
        assert (f"index public.{name}_dense_{METHODS[name]}", f"SELECT * FROM pgvec.prewarm('{name}');") in cold
    with _restarted(server) as database:
        warmed = {relation.relation: relation for relation in database.collection(name).prewarm()}
        assert all(relation.complete for relation in warmed.values())
        index = warmed[f"public.{name}_dense_{METHODS[name]}"]
        # All of an HNSW graph can be reached; IVFFlat has a page that only builds read.
        assert index.blocks - 1 <= index.read <= index.blocks
        assert warmed[f"public.{name}_dense"].read == warmed[f"public.{name}_dense"].blocks
        read, hit = _blocks_of_searches(database, name)
        assert (read, hit > 1000) == (0, True)
        again = database.collection(name).prewarm()
        assert sum(relation.read for relation in again) == 0


@pytest.mark.parametrize("name", METHODS)
def test_what_does_not_fit_is_left_out_and_said(server: EmbeddedServer, name: str) -> None:
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET shared_buffers = '1MB'")
    try:
        with _restarted(server) as database, psycopg.connect(database.dsn, autocommit=True) as connection:
            notices: list[str] = []
            connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
            rows = connection.execute("SELECT blocks, read, complete FROM pgvec.prewarm(%s)", [name]).fetchall()
            assert rows[0][1] + rows[1][1] > 0  # the vector index before all else
            assert [(read, complete) for _, read, complete in rows[2:]] == [(0, False)] * len(rows[2:])
            assert any("shared_buffers" in notice for notice in notices)
    finally:
        with psycopg.connect(server.start(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET shared_buffers")
        server.stop()


def test_settings_are_as_before(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=3)
    docs.upsert({"id": str(i), "vector": [1, i, 0]} for i in range(100))
    docs.create_index("hnsw", progress=False)
    with psycopg.connect(db.dsn) as connection:
        connection.execute("SET hnsw.ef_search = 77")
        connection.execute("SELECT * FROM pgvec.prewarm('docs')")
        shown = connection.execute(
            "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'),"
            " current_setting('hnsw.max_scan_tuples'), current_setting('enable_seqscan')"
        ).fetchone()
    assert shown == ("77", "off", "20000", "on")


def test_a_collection_without_index_or_rows(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=3)
    assert "public.docs_dense" not in [relation.relation for relation in docs.prewarm()]
    docs.upsert({"id": str(i), "vector": [1, i, 0]} for i in range(10))
    docs.add_space("other", dimensions=2)
    assert "public.docs_dense" in [relation.relation for relation in docs.prewarm()]
    assert "public.docs_dense" not in [relation.relation for relation in docs.prewarm(space="other")]
