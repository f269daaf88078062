"""A task that is cancelled: so is on the server what it waited for, and its connection is as good as before.

PGVEC_CANCELLATIONS=1000 cancels that many searches, and then makes as many; 100 unless told.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any

import anyio
import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

import pgvec_toolkit as pgvec
from pgvec_toolkit import AsyncCollection, AsyncDatabase
from pgvec_toolkit.greenlets import uninterrupted
from tests.words import WordEmbedder

pytestmark = pytest.mark.anyio
CANCELLATIONS = int(os.environ.get("PGVEC_CANCELLATIONS", "100"))
OTHERS = "pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname = current_database()"
ROWS = 1000
Vectors = Callable[..., NDArray[np.float32]]
Cancel = Callable[[Coroutine[Any, Any, object], Coroutine[Any, Any, object]], Coroutine[Any, Any, None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return options of `connect_async`: none, unless the test says otherwise."""
    return getattr(request, "param", {})


@pytest.fixture
async def adb(dsn: str, options: dict[str, Any]) -> AsyncIterator[AsyncDatabase]:
    async with await pgvec.connect_async(dsn, max_size=4, **options) as database:
        yield database


@pytest.fixture
async def docs(adb: AsyncDatabase, vectors: Vectors) -> AsyncCollection:
    made = await adb.create_collection("docs", embedder=WordEmbedder(16), columns={"year": int})
    ids = [str(row) for row in range(ROWS)]
    rows = {"id": ids, "text": ids, "year": [row % 20 for row in range(ROWS)], "vector": vectors(ROWS, 16)}
    await made.upsert(rows, progress=False)
    return made


@pytest.fixture
def locked(dsn: str, docs: AsyncCollection) -> Iterator[psycopg.Connection]:
    """A connection that locks the tables: whoever wants anything of them waits until it is closed."""
    assert docs.name == "docs"
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE docs, docs_dense IN ACCESS EXCLUSIVE MODE")
        yield connection


async def by_task(doomed: Coroutine[Any, Any, object], until: Coroutine[Any, Any, object]) -> None:
    """Cancel a task, as asyncio does it."""
    task = asyncio.create_task(doomed)
    await until
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_scope(doomed: Coroutine[Any, Any, object], until: Coroutine[Any, Any, object]) -> None:
    """Cancel a scope of anyio, which cancels again and again until the tasks have left it."""
    finished = False

    async def run() -> None:
        nonlocal finished
        await doomed
        finished = True

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await until
        group.cancel_scope.cancel()
    assert not finished


async def waiting(connection: psycopg.Connection, count: int = 1) -> None:
    """Return when so many sessions wait for a lock."""
    query = "SELECT count(DISTINCT pid) >= %s FROM pg_locks WHERE NOT granted"
    while connection.execute(query, [count]).fetchone() != (True,):
        await asyncio.sleep(0.01)


def running(connection: psycopg.Connection) -> list[str]:
    """Return what other sessions are doing, the one that locks aside."""
    query = f"SELECT query FROM pg_stat_activity WHERE state <> 'idle' AND {OTHERS} AND query NOT LIKE 'LOCK%'"
    return [text for (text,) in connection.execute(query.encode()).fetchall()]


@pytest.mark.parametrize(
    ("cancel", "options"), [(by_task, {}), (by_scope, {}), (by_task, {"prepare_threshold": None})], indirect=["options"]
)
async def test_a_storm(
    docs: AsyncCollection,
    adb: AsyncDatabase,
    connection: psycopg.Connection,
    cancel: Cancel,
    options: dict[str, Any],
) -> None:
    draw = random.Random(7)
    stored = dict(await adb.fetch("SELECT d.id, v.embedding FROM docs d JOIN docs_dense v USING (key)"))
    await asyncio.gather(*(docs.search(stored["0"], 1) for _ in range(8)))
    sessions = set(adb.own_processes())

    async def some_turns() -> None:
        for _ in range(draw.randrange(12)):  # of the event loop: at the pool, between statements, in the middle of one
            await asyncio.sleep(0)
        await asyncio.sleep(draw.random() * 0.004)

    async def cancelled(row: int) -> bool:
        where = {"year": row % 20} if row % 2 else None
        with suppress(AssertionError, pytest.fail.Exception):  # it may have been quicker
            await cancel(docs.search(stored[str(row % ROWS)], 5, where), some_turns())
            return True
        return False

    count = 0
    for start in range(0, CANCELLATIONS, 10):
        count += sum(await asyncio.gather(*(cancelled(row) for row in range(start, start + 10))))
    assert count > CANCELLATIONS / 10
    assert running(connection) == []
    for start in range(0, CANCELLATIONS, 10):
        rows = [str(row % ROWS) for row in range(start, start + 10)]
        found = await asyncio.gather(*(docs.search(stored[row], 1) for row in rows))
        assert [hits[0].id for hits in found] == rows
    assert options or set(adb.own_processes()) >= sessions  # none was thrown away, unless it was left in a pipeline
    assert len(adb.own_processes()) <= 4 + 1  # and that of the loading thread
    statistics = adb._bridge.loop_pool.get_stats()
    assert statistics["pool_available"] == statistics["pool_size"] <= 4
    assert options or statistics.get("connections_lost", 0) == statistics.get("returns_bad", 0) == 0


async def test_what_is_not_interrupted_has_its_own_timeouts() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await uninterrupted(impatient())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("options", [{"prepare_threshold": None}], indirect=True)
async def test_a_pipeline_that_was_not_left_is_not_lent(docs: AsyncCollection, adb: AsyncDatabase) -> None:
    def busy() -> None:  # for so long that psycopg lets others have a turn where it need not wait
        until = time.monotonic() + 0.006
        while time.monotonic() < until:
            pass

    for turns in range(1, 4):  # it is entered in one of them
        assert len(await docs.search([1.0] * 16)) == 10
        search = asyncio.create_task(docs.search([1.0] * 16))
        for _ in range(turns):
            busy()
            await asyncio.sleep(0)
        search.cancel()
        with suppress(asyncio.CancelledError):
            await search
        assert await adb.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize("cancel", [by_task, by_scope])
async def test_a_search_ends_on_the_server(
    docs: AsyncCollection, locked: psycopg.Connection, connection: psycopg.Connection, cancel: Cancel
) -> None:
    await cancel(docs.search([1.0] * 16), waiting(connection))
    assert running(connection) == []
    locked.close()
    assert len(await docs.search([1.0] * 16)) == 10


@pytest.mark.usefixtures("docs")
async def test_who_waits_for_a_connection_gives_up(dsn: str, connection: psycopg.Connection) -> None:
    async with await pgvec.connect_async(dsn, max_size=1) as adb:
        docs = await adb.collection("docs")
        async with adb.connection():
            await by_task(docs.search([1.0] * 16), asyncio.sleep(0.05))
            await by_scope(docs.search([1.0] * 16), asyncio.sleep(0.05))
        assert len(await docs.search([1.0] * 16)) == 10
        assert running(connection) == []


async def test_who_waits_for_an_embedding_gives_up(docs: AsyncCollection, adb: AsyncDatabase) -> None:
    begun, let_go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(WordEmbedder):
        def embed_query(self, text: str) -> NDArray[np.float32]:
            loop.call_soon_threadsafe(begun.set)
            assert let_go.wait(60)
            return super().embed_query(text)

    slow = await adb.collection(docs.name, embedder=Slow(16))
    await by_task(slow.search("fox"), begun.wait())
    let_go.set()
    assert len(await slow.search("fox")) == 10


WORK: dict[str, Callable[[AsyncCollection], Coroutine[Any, Any, object]]] = {
    "upsert": lambda docs: docs.upsert([{"id": "x", "text": "x"}], connections=1, progress=False),
    "upsert by threads that help": lambda docs: docs.upsert(
        [{"id": f"x{row}", "text": "x"} for row in range(20)], connections=2, batch_size=5, progress=False
    ),
    "ingest": lambda docs: docs.ingest([{"id": "x", "text": "x"}], progress=False),
    "index": lambda docs: docs.create_index(progress=False),
    "evaluate": lambda docs: docs.evaluate({"q": "fox"}, {"q": {"0": 1}}, modes=["dense"], progress=False),
}


@pytest.mark.parametrize(
    ("work", "cancel"), [*((work, by_task) for work in WORK), ("upsert by threads that help", by_scope)]
)
async def test_long_work_ends_on_the_server_and_here(
    docs: AsyncCollection, locked: psycopg.Connection, connection: psycopg.Connection, work: str, cancel: Cancel
) -> None:
    await cancel(WORK[work](docs), waiting(connection))
    assert running(connection) == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pgvec-write")] == []
    locked.close()
    assert await docs.count() == ROWS
    await docs.upsert([{"id": "y", "text": "y"}], progress=False)
    assert await docs.count() == ROWS + 1


@pytest.mark.parametrize("connections", [1, 2])
async def test_nothing_is_written_of_what_is_embedded_meanwhile(
    docs: AsyncCollection, adb: AsyncDatabase, connections: int
) -> None:
    begun, let_go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    embedded = 0

    class Slow(WordEmbedder):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            nonlocal embedded
            embedded += 1
            loop.call_soon_threadsafe(begun.set)
            assert let_go.wait(60)
            return super().embed_documents(texts)

    slow = await adb.collection(docs.name, embedder=Slow(16))
    records = [{"id": f"x{row}", "text": f"word{row}"} for row in range(10)]
    upsert = asyncio.create_task(slow.upsert(records, batch_size=1, connections=connections, progress=False))
    await begun.wait()
    upsert.cancel()
    loop.call_soon(let_go.set)  # once the task has heard of it
    with pytest.raises(asyncio.CancelledError):
        await upsert
    assert (embedded, await docs.count()) == (1, ROWS)


async def test_a_worker_that_sleeps_is_woken_to_end(adb: AsyncDatabase, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    await adb.attach("notes", "body", embedder=WordEmbedder(8))

    async def asleep() -> None:
        query = (
            "SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = hashtext('pgvec.sleep')::oid AND granted"
        )
        while connection.execute(query).fetchone() is None:
            await asyncio.sleep(0.01)

    await by_task(adb.work(once=False, embedder=WordEmbedder(8)), asleep())
    assert running(connection) == []


async def test_work_that_has_not_begun_never_does(docs: AsyncCollection, locked: psycopg.Connection) -> None:
    busy = [asyncio.create_task(docs.upsert([{"id": "x", "text": "x"}], connections=1)) for _ in range(4)]
    await by_task(docs.upsert([{"id": "z", "text": "z"}]), asyncio.sleep(0.05))
    locked.close()
    await asyncio.gather(*busy)
    assert await docs.count() == ROWS + 1
