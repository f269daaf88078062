"""Pools: what they can be told, how they authenticate, and that searches leave nothing behind on their connections.

PGVEC_SEARCHES=10000 makes that many searches of mixed kinds; 120 unless told.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import conninfo_to_dict

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, ConnectionFailed, PgvecError
from tests.words import WordEmbedder

Vectors = Callable[..., NDArray[np.float32]]
SEARCHES = int(os.environ.get("PGVEC_SEARCHES", "120"))
ALL = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'in_hot_standby'"
LOAD = "LOAD 'vector'"  # its settings are there as soon as something has used it
OURS = ("jit", "plan_cache_mode", "search_path", "hnsw.ef_search", "hnsw.iterative_scan", "ivfflat.probes")


# -- what they can be told -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": -1}, "min_size must be a whole number, at least 0, not -1"),
        ({"max_size": 0}, "max_size must be a whole number, at least 1, not 0"),
        ({"max_size": True}, "max_size must be a whole number"),
        ({"max_size": 2.5}, r"not 2\.5"),
        ({"min_size": 20}, "min_size is 20: more than max_size, which is 10"),
        ({"timeout": 0}, "timeout is a number of seconds, more than 0, not 0"),
        ({"max_idle": "1h"}, "max_idle is a number of seconds"),
        ({"max_lifetime": float("nan")}, "max_lifetime is a number of seconds"),
        ({"prepare_threshold": -1}, "prepare_threshold must be a whole number, at least 0, or None, not -1"),
        ({"pool_size": 3}, "unknown option 'pool_size' of a pool: there are min_size, max_size"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        pgvec.connect("host=nowhere", **options)
    with pytest.raises(ConfigurationError, match=message):
        asyncio.run(pgvec.connect_async("host=nowhere", **options))


def test_options_reach_both_pools(dsn: str) -> None:
    options: dict[str, Any] = {"min_size": 1, "max_size": 3, "timeout": 5, "max_idle": 60, "max_lifetime": 90}

    async def told() -> list[Any]:
        async with await pgvec.connect_async(dsn, **options) as database:
            pool = database._bridge.loop_pool
            return [getattr(pool, name) for name in options]

    with pgvec.connect(dsn, **options) as database:
        assert [getattr(database._pool, name) for name in options] == list(options.values()) == asyncio.run(told())
        assert database.most == 3


@pytest.mark.parametrize("threshold", [0, 2, None])
def test_statements_are_prepared_when_they_were_run_so_often(dsn: str, threshold: int | None) -> None:
    prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 12345'"
    with pgvec.connect(dsn, max_size=1, prepare_threshold=threshold) as database:
        found = []
        for _ in range(4):
            database.fetch("SELECT 12345")
            found.append(database.fetch(prepared, prepare=False)[0][0])
    assert found == {0: [1, 1, 1, 1], 2: [0, 0, 1, 1], None: [0, 0, 0, 0]}[threshold]


# -- passwords and TLS are libpq's -----------------------------------------------------------------


def test_a_passfile_and_a_service_file(
    dsn: str, connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("DROP ROLE IF EXISTS pools_guest")
    connection.execute("CREATE ROLE pools_guest LOGIN SUPERUSER PASSWORD 'a:secret'")
    try:
        known = conninfo_to_dict(dsn)
        server = {name: known[name] for name in ("host", "port", "dbname") if known.get(name)}
        passfile = tmp_path / "passfile"
        passfile.write_text(f"*:*:{server['dbname']}:pools_guest:a\\:secret\n")
        passfile.chmod(0o600)
        lines = [f"{name}={value}" for name, value in server.items()]
        (tmp_path / "services").write_text("\n".join(["[shop]", *lines, "user=pools_guest", ""]))
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        monkeypatch.setenv("PGPASSFILE", str(passfile))
        monkeypatch.setenv("PGSERVICE", "shop")

        async def role() -> Any:
            async with await pgvec.connect_async() as database:
                return await database.fetch("SELECT current_user::text")

        with pgvec.connect() as database:
            assert database.fetch("SELECT current_user::text") == asyncio.run(role()) == [("pools_guest",)]
        passfile.write_text(f"*:*:{server['dbname']}:pools_guest:wrong\n")
        with pytest.raises(ConnectionFailed, match=r"password authentication failed|no password supplied"):
            pgvec.connect()
    finally:
        connection.execute("DROP ROLE pools_guest")


def test_tls_that_the_server_has_not_is_said() -> None:
    def answer() -> None:
        with suppress(OSError):  # closed below
            while True:
                client, _ = server.accept()
                with client:
                    client.recv(8)  # the request for TLS
                    client.sendall(b"N")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        dsn = f"host=127.0.0.1 port={server.getsockname()[1]} sslmode=require"
        with pytest.raises(ConnectionFailed, match="server does not support SSL, but SSL was required"):
            pgvec.connect(dsn, timeout=0.1)
        with pytest.raises(ConnectionFailed, match="server does not support SSL, but SSL was required"):
            asyncio.run(pgvec.connect_async(dsn, timeout=0.1))
        server.shutdown(socket.SHUT_RDWR)


# -- nothing is left behind ------------------------------------------------------------------------


def _settings(rows: list[Any]) -> dict[str, str]:
    found = dict(rows)
    assert set(OURS) <= found.keys()
    return found


@pytest.fixture
def docs(db: Database, vectors: Vectors) -> pgvec.Collection:
    """A collection with an index and a profile, so that searches have settings."""
    made = db.create_collection("docs", embedder=WordEmbedder(16), columns={"year": int})
    ids = [str(row) for row in range(800)]
    rows = {"id": ids, "text": [f"text {row % 30}" for row in range(800)], "vector": vectors(800, 16)}
    made.upsert({**rows, "year": [row % 40 for row in range(800)]}, progress=False)
    made.create_index(m=8, ef_construction=32, progress=False)
    made.tune(0.9, queries=vectors(40, 16), progress=False)
    return made


def _kinds(docs: Any, number: int, query: NDArray[np.float32]) -> Any:
    """Return the call of one kind of search or another; some of them fail."""
    year: Mapping[str, Any] = {"year": {"$lt": number % 40 + 1}}
    kinds: list[Callable[[], Any]] = [
        lambda: docs.search(query, 5),
        lambda: docs.search(query, 5, year),
        lambda: docs.search(query, 5, year, ef_search=200),
        lambda: docs.search(query, 5, exact=True),
        lambda: docs.search(query, 3, within=0.5, group_by="year"),
        lambda: docs.search_many([query, query], 3, year),
        lambda: docs.similar("1", 3),
        lambda: docs.hybrid_search(f"text {number % 30}", 3, year),
        lambda: docs.keyword_search("text", 3),
        lambda: docs.explain(query, 3, year),
        lambda: docs.search(query, 5, where_sql="1 / (d.year - d.year) > 0"),  # fails while it runs
        lambda: docs.search(query, 5, {"year": {"$nearly": 1}}),
    ]
    return kinds[number % len(kinds)]()


def test_searches_leave_no_setting_behind(dsn: str, docs: pgvec.Collection, vectors: Vectors) -> None:
    queries = vectors(50, 16, 3)
    assert docs.profiles()
    with pgvec.connect(dsn, max_size=1) as database:
        collection = database.collection("docs", embedder=WordEmbedder(16))
        database.fetch(LOAD)
        before = _settings(database.fetch(ALL))
        failed = 0
        for number in range(SEARCHES):
            try:
                _kinds(collection, number, queries[number % 50])
            except (PgvecError, psycopg.Error):
                failed += 1
        assert failed == sum(number % 12 >= 10 for number in range(SEARCHES))
        assert _settings(database.fetch(ALL)) == before
        assert len(database.own_processes()) == 1


def test_awaited_searches_leave_no_setting_behind(dsn: str, docs: pgvec.Collection, vectors: Vectors) -> None:
    queries = vectors(50, 16, 3)
    assert docs.profiles()

    async def run() -> None:
        async with await pgvec.connect_async(dsn, max_size=3) as database:
            collection = await database.collection("docs", embedder=WordEmbedder(16))
            await database.fetch(LOAD)
            before = _settings(await database.fetch(ALL))
            numbers = count()

            async def search() -> None:
                while (number := next(numbers)) < SEARCHES:
                    task = asyncio.ensure_future(_kinds(collection, number, queries[number % 50]))
                    if number % 5 == 0:
                        asyncio.get_running_loop().call_later(0.001 * (number % 4), task.cancel)
                    with suppress(PgvecError, psycopg.Error, asyncio.CancelledError):
                        await task

            await asyncio.gather(*(search() for _ in range(6)))
            together = asyncio.Barrier(3)

            async def look() -> tuple[int, dict[str, str]]:
                async with database.connection() as connection:
                    await together.wait()  # so each looks at another connection
                    await connection.execute(LOAD)
                    rows = await (await connection.execute(ALL)).fetchall()
                    return connection.info.backend_pid, _settings(rows)

            looks = await asyncio.gather(*(look() for _ in range(3)))
            assert len({pid for pid, _ in looks}) == 3
            assert [settings for _, settings in looks] == [before] * 3

    asyncio.run(run())
