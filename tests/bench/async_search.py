"""Searching by many tasks at once: against bare psycopg's async side at the same ef_search, and against threads.

All have a pool of the same size, and take turns: a block of searches each, several times over. The bare statement finds
the same columns, prepared and binary; "bare" sets ef_search for its transaction, as a pool needs it, "session" once for
each connection, which leaves it behind there.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from typing import Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg_pool import AsyncConnectionPool

import pgvec_toolkit as pgvec
from tests.conftest import random_vectors

ROWS, DIMENSIONS, K, CONNECTIONS = 20_000, 384, 10, 8
TASKS = (1, 8, 32)
NAME = "bench_async"
STATEMENT = f"""SELECT d.id, d.document_id, d.text, d.metadata, n.distance, 1 - n.distance AS similarity,
    1 - n.distance AS score, (row_number() OVER (ORDER BY n.distance))::integer AS rank
FROM (SELECT v.key, v.embedding <=> %s AS distance FROM {NAME}_dense v ORDER BY v.embedding <=> %s LIMIT {K}) n
JOIN {NAME} d USING (key) ORDER BY n.distance"""
QUERIES = random_vectors(500, DIMENSIONS, seed=1)

Search = Callable[[int], Awaitable[Any]]


@asynccontextmanager
async def bare(dsn: str, ef_search: int, *, session: bool) -> AsyncIterator[Search]:
    """Yield a search as one writes it by hand."""
    setting = f"SET {'' if session else 'LOCAL '}hnsw.ef_search = {ef_search}".encode()

    async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
        await register_vector_async(connection)
        if session:
            await connection.execute(setting)

    async def search(i: int) -> Any:
        query = QUERIES[i % len(QUERIES)]
        async with pool.connection() as connection:
            if session:
                cursor = await connection.execute(STATEMENT, [query, query], prepare=True, binary=True)
                return await cursor.fetchall()
            async with connection.transaction():
                await connection.execute(setting)
                cursor = await connection.execute(STATEMENT, [query, query], prepare=True, binary=True)
                return await cursor.fetchall()

    async with AsyncConnectionPool(
        dsn, min_size=0, max_size=CONNECTIONS, configure=configure, kwargs={"autocommit": True}, open=False
    ) as pool:
        yield search


async def block(search: Search, tasks: int, count: int, start: int) -> tuple[float, list[float]]:
    """Run so many searches by so many tasks; return the seconds of all, and those of each."""
    numbers = iter(range(start, start + count))
    took: list[float] = []

    async def run() -> None:
        for i in numbers:
            began = time.perf_counter()
            await search(i)
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(tasks)))
    return time.perf_counter() - began, took


async def measure(sides: dict[str, Search], tasks: int, count: int, rounds: int) -> None:
    """Have the sides take turns, and print the medians of their blocks."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    latencies: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):  # one more than is counted: everything is prepared in it
        for name, search in sides.items():
            seconds, took = await block(search, tasks, count, number * count)
            if number >= 0:
                rates[name].append(count / seconds)
                latencies[name] += took
    reference = {name: (median(rates[name]), median(latencies[name])) for name in sides}
    for name, (rate, latency) in reference.items():
        print(
            f"{tasks:3} tasks  {name:8} {rate:7.0f} searches/s, median {latency * 1000:6.2f} ms; "
            f"pgvec / {name}: {reference['pgvec'][0] / rate:.2f} x the throughput, "
            f"{reference['pgvec'][1] / latency:.2f} x the latency"
        )


def prepare(database: pgvec.Database) -> int:
    """Make the collection unless it is there; return the ef_search it is tuned to."""
    if NAME not in database.collections():
        docs = database.create_collection(NAME, dimensions=DIMENSIONS, keywords=False)
        ids = [str(i) for i in range(ROWS)]
        docs.upsert({"id": ids, "text": ids, "vector": random_vectors(ROWS, DIMENSIONS)}, progress=False)
        docs.create_index("hnsw", progress=False)
        docs.tune(0.95, progress=False)
    return database.collection(NAME).profiles()[0].setting


async def main() -> None:
    """Measure all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dsn", nargs="?", help="of a database that is migrated; the embedded one unless given")
    parser.add_argument("--searches", type=int, default=400, help="of each side's block")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with pgvec.connect(options.dsn, max_size=CONNECTIONS) as database:
        ef_search = prepare(database)
        print(f"{ROWS} rows, {DIMENSIONS} dimensions, k = {K}, ef_search {ef_search}, {CONNECTIONS} connections")
        threaded = database.collection(NAME)
        with ThreadPoolExecutor(max(TASKS)) as threads:
            async with (
                await pgvec.connect_async(database.dsn, max_size=CONNECTIONS) as awaited,
                bare(database.dsn, ef_search, session=False) as by_hand,
                bare(database.dsn, ef_search, session=True) as session,
            ):
                docs = await awaited.collection(NAME)

                async def in_thread(i: int) -> Any:
                    search = partial(threaded.search, QUERIES[i % len(QUERIES)], K)
                    return await asyncio.get_running_loop().run_in_executor(threads, search)

                sides: dict[str, Search] = {
                    "pgvec": lambda i: docs.search(QUERIES[i % len(QUERIES)], K),
                    "bare": by_hand,
                    "session": session,
                    "threads": in_thread,
                }
                for tasks in TASKS:
                    await measure(sides, tasks, options.searches, options.rounds)


if __name__ == "__main__":
    asyncio.run(main())
