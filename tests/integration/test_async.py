"""The awaited database and collection: the same names, the same rows, and an event loop that goes on."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

import pgvec_toolkit as pgvec
from pgvec_toolkit import AsyncCollection, AsyncDatabase, Collection
from pgvec_toolkit.aio import database as module
from pgvec_toolkit.collection import base
from pgvec_toolkit.database import Database
from pgvec_toolkit.embed.registry import embedder_of
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, ConnectionFailed, NotMigrated
from tests.words import WordEmbedder

pytestmark = pytest.mark.anyio
Vectors = Callable[..., NDArray[np.float32]]
TEXTS = ["a red fox", "a brown fox", "a red house", "an old house", "a wide sea"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def adb(dsn: str) -> AsyncIterator[AsyncDatabase]:
    async with await pgvec.connect_async(dsn) as database:
        yield database


@pytest.fixture
async def docs(adb: AsyncDatabase) -> AsyncCollection:
    made = await adb.create_collection("docs", embedder=WordEmbedder(), columns={"year": int})
    await made.upsert([{"id": str(row), "text": text, "year": row} for row, text in enumerate(TEXTS)])
    return made


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_nothing_public_is_missing() -> None:
    # How it is made, and the sync database that it is in.
    assert _public(Collection) - _public(AsyncCollection) == {"create", "open", "register", "database"}
    assert _public(AsyncCollection) - _public(Collection) == {"name", "space", "count"}  # attributes there, and len()
    # For work in threads; psycopg.AsyncConnection.connect(db.dsn) opens a session that is awaited.
    assert _public(Database) - _public(AsyncDatabase) == {"dedicated_connection", "stopping"}
    assert _public(AsyncDatabase) - _public(Database) == {"dsn"}  # an attribute there


@pytest.mark.parametrize(("awaited", "plain"), [(AsyncCollection, Collection), (AsyncDatabase, Database)])
def test_signatures_and_documentation_are_those_of_the_sync_methods(awaited: type, plain: type) -> None:
    compared = 0
    for name in _public(awaited) & _public(plain):
        ours, theirs = getattr(awaited, name), getattr(plain, name)
        if hasattr(ours, "__wrapped__") and name != "connection":
            assert inspect.signature(ours) == inspect.signature(theirs)
            assert ours.__doc__ == theirs.__doc__
            assert ours.__name__ == name
            assert inspect.iscoroutinefunction(ours) or inspect.isasyncgenfunction(ours)
            compared += 1
        elif inspect.isfunction(theirs) and name not in ("close", "drain", "own_processes"):
            assert str(inspect.signature(ours)).split(" ->")[0] == str(inspect.signature(theirs)).split(" ->")[0]
    assert compared > 15


async def test_searches_return_what_those_of_a_collection_do(db: Database, docs: AsyncCollection) -> None:
    plain = db.collection("docs", embedder=WordEmbedder())
    where = {"year": {"$lte": 3}}
    assert await docs.search("red fox", 3) == plain.search("red fox", 3)
    assert await docs.search("fox", 3, where, exclude=["0"]) == plain.search("fox", 3, where, exclude=["0"])
    assert await docs.keyword_search("house") == plain.keyword_search("house")
    assert await docs.hybrid_search("red house", 3, where) == plain.hybrid_search("red house", 3, where)
    assert await docs.search_many(["fox", "sea"], 2) == plain.search_many(["fox", "sea"], 2)
    assert await docs.similar("0", 2, unlike="4") == plain.similar("0", 2, unlike="4")
    assert await docs.search_sql(3, where) == plain.search_sql(3, where)
    assert await docs.hybrid_search_sql(3) == plain.hybrid_search_sql(3)
    assert [page async for page in docs.pages("fox", 2)] == list(plain.pages("fox", 2))
    reranked = await docs.search("fox", 2, rerank=lambda _, texts: [len(text) for text in texts])
    assert [hit.text for hit in reranked] == ["an old house", "a brown fox"]
    assert "rows" in await docs.explain("fox", 2)
    assert (await docs.count(), await docs.columns()) == (len(plain), plain.columns)
    assert await docs.keyword_index() == plain.keyword_index
    assert (docs.name, docs.space) == ("docs", plain.space)


async def test_late_interaction_and_the_past(adb: AsyncDatabase) -> None:
    docs = await adb.create_collection("docs", dimensions=2)
    await docs.upsert({"id": ["a", "b"], "vector": np.eye(2)})
    await docs.add_space("tokens", dimensions=2, type="vector[]")
    await docs.set_vectors("tokens", ["a", "b"], [np.eye(2), np.eye(2)[:1]])
    assert [hit.id for hit in await docs.maxsim([1, 1], np.eye(2), 2, space="tokens")] == ["a", "b"]
    await docs.create_history()
    (now,) = await adb.fetch_one("SELECT now()::text")
    assert await docs.delete(["a"]) == 1
    assert [hit.id for hit in await docs.search_as_of([1, 0], now)] == ["a", "b"]
    assert await docs.restore(["a"], now) == 1
    assert await docs.drop_history()


async def test_the_life_of_a_collection(adb: AsyncDatabase, tmp_path: Path, vectors: Vectors) -> None:
    docs = await adb.create_collection("docs", embedder=WordEmbedder(8))
    stored = vectors(400, 8)
    written = await docs.upsert({"id": [str(row) for row in range(400)], "vector": stored}, connections=2)
    assert written.inserted == 400
    assert await docs.create_index(m=8, ef_construction=32, progress=False) == "docs_dense_hnsw"
    profile = await docs.tune(0.9, queries=stored[:30], progress=False)
    assert [each.setting for each in await docs.profiles()] == [profile.setting]
    assert (await docs.recall(queries=stored[:30])).recall >= 0.9
    (tmp_path / "note.md").write_text("# A lighthouse\n\nby the sea")
    assert (await docs.ingest(tmp_path, progress=False)).documents == 1
    (tmp_path / "note.md").unlink()
    (tmp_path / "other.md").write_text("another lighthouse")
    synced = await docs.sync(tmp_path, force=True, progress=False)
    assert (synced.added, synced.deleted) == (1, 1)
    (note,) = await docs.keyword_search("lighthouse")
    assert note.text == "another lighthouse"
    assert await docs.failures() == []
    assert await docs.delete([note.document_id]) == 1
    assert await adb.collections() == ["docs"]
    assert await adb.health() == await asyncio.to_thread(_health, adb.dsn)
    assert await adb.drop_collection("docs")


async def test_what_the_task_runs_itself_needs_no_thread(adb: AsyncDatabase, vectors: Vectors) -> None:
    docs = await adb.create_collection("docs", dimensions=8)
    await docs.upsert({"id": [str(row) for row in range(100)], "vector": vectors(100, 8)})
    assert (await docs.plan_index(calibrate=False))[0].form == "full"
    assert (await docs.builds(), await docs.recall_checks(), await docs.model_swap()) == ([], [], None)
    await docs.log_queries(1.0)
    await docs.search([1.0] * 8)
    assert ((await docs.logged_queries()).queries, await docs.forget_queries()) == (1, 1)
    assert (await docs.watch(queries=5)).recall == 1
    await docs.set_drift_baseline()
    assert (await docs.prewarm())[0].relation
    assert (await docs.calibrate()) is not None
    assert await docs.drop_keyword_index()
    await docs.create_keyword_index()
    await docs.add_space("more", dimensions=2)
    await docs.drop_space("more")
    async with adb.connection() as connection:
        await connection.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
        await connection.execute("CREATE TABLE shop (id int PRIMARY KEY, embedding vector(2), other vector(2))")
        await connection.execute("INSERT INTO shop VALUES (1, '[1,0]', '[0,1]'), (2, '[0,1]', '[1,0]')")
    shop = await adb.register_table("shop")
    await shop.register_space("other")
    assert [hit.id for hit in await shop.search([1, 0], space="other")] == ["2", "1"]
    await adb.unregister_table("shop")
    followed = await adb.attach("notes", "body", embedder=WordEmbedder(8))
    assert [lag.collection for lag in await adb.attachments()] == [followed.name]
    assert await adb.requeue("notes") == 0
    await adb.work(embedder=WordEmbedder(8))
    assert await adb.detach("notes", drop=True) == followed.name
    assert [model.name for model in await adb.models()] == ["test/words"]
    assert await adb.advisories() == await asyncio.to_thread(_advisories, adb.dsn)
    assert "Scan" in await adb.explain_sql(
        "SELECT * FROM docs_dense ORDER BY embedding <=> '[1,1,1,1,1,1,1,1]' LIMIT 5"
    )
    assert (await adb.capabilities()).replica is False
    await adb.drain()
    assert await adb.collections() == ["docs"]


def _advisories(dsn: str) -> list[str]:
    with Database(dsn) as database:
        return database.advisories()


def _health(dsn: str) -> Any:
    with Database(dsn) as database:
        return database.health()


@pytest.mark.usefixtures("docs")
async def test_many_tasks_share_few_connections(dsn: str) -> None:
    async with await pgvec.connect_async(dsn, max_size=2) as adb:
        shared = await adb.collection("docs", embedder=WordEmbedder())
        found = await asyncio.gather(*(shared.search(text, 1) for text in TEXTS * 20))
        assert [hits[0].text for hits in found] == TEXTS * 20
        assert len(adb.own_processes()) <= 2


async def test_the_event_loop_goes_on_while_a_text_is_embedded(adb: AsyncDatabase) -> None:
    let_go = threading.Event()

    class Slow(WordEmbedder):
        def embed_query(self, text: str) -> NDArray[np.float32]:
            assert let_go.wait(60)  # for what the loop does meanwhile
            return super().embed_query(text)

    docs = await adb.create_collection("docs", embedder=Slow())
    search = asyncio.create_task(docs.search("fox"))
    assert await adb.collections() == ["docs"]
    assert not search.done()
    let_go.set()
    assert await search == []


async def test_first_searches_load_the_model_once(adb: AsyncDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(*arguments: Any) -> Any:
        loaded.append(arguments)
        return embedder_of(*arguments)

    monkeypatch.setattr(base, "embedder_of", load)
    await adb.create_collection("docs", embedder=WordEmbedder())
    docs = await adb.collection("docs", embedder=WordEmbedder())
    loaded.clear()
    await asyncio.gather(*(docs.search("fox") for _ in range(20)))
    assert len(loaded) == 1


async def test_driver_connections_are_lent_too(adb: AsyncDatabase, docs: AsyncCollection) -> None:
    for _ in range(2):  # prepared statements of both live in one session
        await docs.search("fox")
        async with adb.connection() as connection:
            cursor = await connection.execute("SELECT embedding FROM docs_dense", prepare=True, binary=True)
            rows = await cursor.fetchall()
        assert {(vector.dtype, vector.shape) for (vector,) in rows} == {(np.dtype(np.float32), (64,))}
    assert len(adb.own_processes()) <= 2  # one of each pool
    with pytest.raises(ConnectionFailed, match="terminating connection"):
        async with adb.connection() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert len(await docs.search("fox")) == 5


async def test_handlers_of_a_lent_connection_are_called(adb: AsyncDatabase) -> None:
    async with adb.connection() as connection:
        said: list[str] = []
        connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        connection.add_notify_handler(lambda notify: said.append(notify.payload))
        await connection.execute("DO $$ BEGIN RAISE NOTICE 'look'; END $$")
        await connection.execute("LISTEN here")
        await connection.execute("NOTIFY here, 'listen'")
        assert said == ["look", "listen"]


async def test_closing_waits_for_no_work_and_may_be_repeated(dsn: str) -> None:
    begun, let_go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(WordEmbedder):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            loop.call_soon_threadsafe(begun.set)
            assert let_go.wait(60)
            return super().embed_documents(texts)

    adb = await pgvec.connect_async(dsn, max_size=1)
    docs = await adb.create_collection("docs", embedder=Slow())
    upsert = asyncio.create_task(docs.upsert([{"id": "x", "text": "x"}], progress=False))
    await begun.wait()
    async with asyncio.timeout(30):
        await adb.close()
        await adb.close()
    with pytest.raises(ConnectionFailed, match="closed"):
        await docs.upsert([{"id": "y", "text": "y"}])
    let_go.set()
    await upsert


async def test_a_session_ended_while_idle_is_not_noticed(docs: AsyncCollection, connection: psycopg.Connection) -> None:
    assert len(await docs.search("fox")) == 5
    others = "pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname = current_database()"
    connection.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {others}".encode())
    assert len(await docs.search("fox")) == 5


async def test_errors_are_those_of_the_sync_side(dsn: str, adb: AsyncDatabase) -> None:
    with pytest.raises(CollectionNotFound, match="nothing"):
        await adb.collection("nothing")
    with pytest.raises(ConnectionFailed, match="port 1 failed"):
        await pgvec.connect_async("host=127.0.0.1 port=1")
    with pytest.raises(ConfigurationError, match="max_size must be a whole number, at least 1, not 0"):
        await pgvec.connect_async(dsn, max_size=0)
    async with adb.connection() as connection:
        await connection.execute("DROP SCHEMA pgvec CASCADE")
    with pytest.raises(NotMigrated, match="pgvec migrate"):
        await pgvec.connect_async(dsn)


async def test_without_a_dsn_it_is_the_embedded_server_migrated(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGVEC_DSN", raising=False)
    monkeypatch.setattr(module, "embedded_dsn", lambda: empty_dsn)
    async with await pgvec.connect_async() as adb:
        docs = await adb.create_collection("docs", dimensions=2)
        assert await docs.search([1, 0]) == []


def test_another_event_loop_is_refused() -> None:
    connecting = pgvec.connect_async("host=nowhere")
    with pytest.raises(ConfigurationError, match="event loop of asyncio"):
        connecting.send(None)  # as trio does


@pytest.mark.usefixtures("docs")
async def test_a_fastapi_application(dsn: str) -> None:
    from fastapi import FastAPI
    from httpx import ASGITransport, AsyncClient

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with await pgvec.connect_async(dsn) as database:
            app.state.docs = await database.collection("docs", embedder=WordEmbedder())
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/search")
    async def search(text: str, k: int = 3) -> list[dict[str, Any]]:
        return [hit.to_dict() for hit in await app.state.docs.search(text, k)]

    async with app.router.lifespan_context(app), AsyncClient(transport=ASGITransport(app), base_url="http://t") as web:
        answers = await asyncio.gather(*(web.get("/search", params={"text": text, "k": 1}) for text in TEXTS))
    assert [answer.json()[0]["text"] for answer in answers] == TEXTS
