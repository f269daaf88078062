"""Behind a transaction pooler: what works leaves no trace on sessions, which others get; the rest says so."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from tests.pooler import pgbouncer
from tests.words import WordEmbedder

Vectors = Callable[..., NDArray[np.float32]]
# Those of the transaction are set anew when one begins.
SETTINGS = """SELECT name, setting FROM pg_settings
WHERE source = 'session' AND name <> 'client_encoding' AND NOT starts_with(name, 'transaction_')
UNION ALL SELECT 'prepared statement', statement FROM pg_prepared_statements
UNION ALL SELECT 'advisory lock', objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"""


@pytest.fixture
def pooled(dsn: str) -> Iterator[str]:
    # Not tmp_path, which is closed to the user that it runs as.
    with tempfile.TemporaryDirectory() as folder, pgbouncer(dsn, Path(folder)) as pooled:
        yield pooled


def _traces(pooled: str) -> list[tuple[str, str]]:
    """Return what is left on the sessions of the pooler: it has two, here both are in use at once."""
    with psycopg.connect(pooled, prepare_threshold=None) as one, psycopg.connect(pooled, prepare_threshold=None) as two:
        pids = [connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (one, two)]
        assert len(set(pids)) == 2
        return [row for connection in (one, two) for row in connection.execute(SETTINGS).fetchall()]


def test_searches_and_loads_at_once_behind_two_sessions(pooled: str, tmp_path: Path, vectors: Vectors) -> None:
    stored = vectors(600, 64)
    with pgvec.connect(pooled, prepare_threshold=None) as db:
        docs = db.create_collection("docs", embedder=WordEmbedder(), columns={"year": int})
        ids = [str(row) for row in range(600)]
        docs.upsert({"id": ids, "text": ids, "year": [row % 9 for row in range(600)], "vector": stored})
        # An index, and what it is tuned to: the pooler's DSN does not do for building one.
        with db.connection() as connection:
            connection.execute("CREATE INDEX ON docs_dense USING hnsw (embedding vector_cosine_ops)")
        assert docs.tune(0.9, queries=stored[:40]).target_recall == 0.9
        (tmp_path / "note.md").write_text("# Notes\n\nabout a lighthouse")

        def search(row: int) -> bool:
            found = [
                docs.search(stored[row], 1),
                docs.search(stored[row], 1, {"year": row % 9}),
                docs.similar([ids[row]], 1),
            ]
            docs.hybrid_search("lighthouse", 1)
            docs.keyword_search("lighthouse", 1)
            return [hits[0].id for hits in found[:2]] == [ids[row]] * 2

        with ThreadPoolExecutor(8) as threads:
            searches = threads.map(search, range(60))
            loads = threads.submit(docs.upsert, [{"id": f"x{row}", "text": f"more {row}"} for row in range(300)])
            ingested = docs.ingest(tmp_path)
            assert all(searches)
            assert loads.result().inserted == 300
        assert ingested.documents == 1
        assert docs.keyword_search("lighthouse")[0].text is not None
        assert docs.recall(queries=stored[:20]).recall > 0.5
    assert _traces(pooled) == []


def test_tasks_at_once_and_cancelled_ones(pooled: str, dsn: str, vectors: Vectors) -> None:
    stored = vectors(200, 8)

    async def run() -> None:
        async with await pgvec.connect_async(pooled, prepare_threshold=None) as db:
            docs = await db.create_collection("docs", dimensions=8)
            await docs.upsert({"id": [str(row) for row in range(200)], "vector": stored})
            with psycopg.connect(dsn) as locked:
                locked.execute("LOCK TABLE docs_dense IN ACCESS EXCLUSIVE MODE")
                tasks = [asyncio.create_task(docs.search(stored[row], 1, {})) for row in range(4)]
                with psycopg.connect(dsn, autocommit=True) as watching:
                    while watching.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is None:
                        await asyncio.sleep(0.01)
                for task in tasks:
                    task.cancel()
                assert all(
                    isinstance(each, asyncio.CancelledError)
                    for each in await asyncio.gather(*tasks, return_exceptions=True)
                )
            found = await asyncio.gather(*(docs.search(stored[row], 1) for row in range(200)))
            assert [hits[0].id for hits in found] == [str(row) for row in range(200)]

    asyncio.run(run())
    assert _traces(pooled) == []


def test_what_takes_a_session_of_its_own_says_so(pooled: str, db: Database) -> None:
    db.create_collection("docs", dimensions=2).upsert({"id": ["a"], "vector": np.ones((1, 2))})
    with pgvec.connect(pooled, prepare_threshold=None) as pool:
        docs = pool.collection("docs")
        for work in (
            docs.create_index,
            docs.drop_index,
            lambda: docs.promote("key", str),
            docs.rebuild_index,
            pool.work,
            pool.mend,
            docs.switch_model,
        ):
            with pytest.raises(ConfigurationError, match="connect to PostgreSQL itself"):
                work()
        with pytest.raises(ConfigurationError, match="there can be 1"):
            docs.upsert({"id": ["b"], "vector": np.ones((1, 2))}, connections=2)
        assert docs.search([1, 1])[0].id == "a"
    assert _traces(pooled) == []
    # Without a pooler in between, statements that are not prepared do no harm.
    with pgvec.connect(db.dsn, prepare_threshold=None) as direct:
        assert direct.collection("docs").create_index() == "docs_dense_hnsw"


def test_a_pooler_can_be_migrated_through(empty_dsn: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pgbouncer(empty_dsn, Path(folder)) as pooled:
        with Database(pooled, prepare_threshold=None) as db:
            db.migrate()
            assert db.collections() == []
        assert _traces(pooled) == []
