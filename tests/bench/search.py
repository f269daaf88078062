"""Searching: against a bare psycopg statement, and, filtered, against forced-exact and iterative scans.

Everything returns the same columns, runs prepared with binary parameters on one connection, and takes
turns query by query, so that the machine's moods hit all alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import RawCursor
from psycopg.types.json import Jsonb

import pgvec_toolkit as pgvec
from tests.bench import debian

SECTIONS = ["libs", "python", "games", "math", "hamradio", "gnustep"]
K = 10
PAYLOAD = """d.id, d.document_id, d.text, d.metadata || jsonb_strip_nulls(
    jsonb_build_object('section', d.section, 'size', d.size, 'tags', d.tags)) AS metadata, n.distance"""
BARE = f"""SELECT {PAYLOAD} FROM (
    SELECT v.key, v.embedding <=> $1 AS distance FROM bench_debian_dense v ORDER BY v.embedding <=> $1 LIMIT {K}
) n JOIN bench_debian d USING (key) ORDER BY n.distance"""
EXACT = f"""SELECT {PAYLOAD} FROM (
    SELECT d.key, v.embedding <=> $1 AS distance FROM bench_debian d JOIN bench_debian_dense v USING (key)
    WHERE d.section = $2 ORDER BY (v.embedding <=> $1) + 0 LIMIT {K}
) n JOIN bench_debian d USING (key) ORDER BY n.distance"""
ITERATIVE = f"""SELECT {PAYLOAD} FROM (SELECT s.key, s.distance FROM (
    SELECT v.key, v.embedding <=> $1 AS distance FROM bench_debian_dense v
    WHERE EXISTS (SELECT FROM bench_debian d WHERE d.key = v.key AND d.section = $2 OFFSET 0)
    ORDER BY v.embedding <=> $1 LIMIT {K}) s
) n JOIN bench_debian d USING (key) ORDER BY n.distance"""

Run = Callable[[int], list[Any]]


def prepared(connection: psycopg.Connection[Any], statement: str, parameters: Callable[[int], list[Any]]) -> Run:
    """Return a run of a statement with the parameters of the i-th query."""
    cursor = RawCursor(connection)
    text = statement.encode()
    return lambda i: cursor.execute(text, parameters(i), prepare=True, binary=True).fetchall()


def in_turn(runs: dict[str, Run], count: int, warm_up: int = 100) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Run all for each query in turn; return median milliseconds and what each returned."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    returned: dict[str, list[Any]] = {name: [] for name in runs}
    for i in [*range(warm_up), *range(count)]:
        for name, run in runs.items():
            began = time.perf_counter()
            rows = run(i)
            took[name].append((time.perf_counter() - began) * 1000)
            returned[name].append(rows)
    return (
        {name: statistics.median(times[warm_up:]) for name, times in took.items()},
        {name: rows[warm_up:] for name, rows in returned.items()},
    )


def distances(rows: list[Any]) -> list[float]:
    """Return the distances of rows or hits."""
    return [row.distance if isinstance(row, pgvec.Hit) else row[4] for row in rows]


def recall(truth: list[Any], found: list[Any]) -> float:
    """Return mean recall, by distance."""
    shares = [
        sum(d <= distances(true)[-1] + 5e-6 for d in distances(got)) / len(true)
        for true, got in zip(truth, found, strict=True)
    ]
    return float(np.mean(shares))


def unfiltered(packages: pgvec.Collection, connection: psycopg.Connection[Any], queries: NDArray[np.float32]) -> None:
    """Compare with a bare statement at the same ef_search."""
    ef_search = packages.tune(0.95, queries=queries, progress=False).setting
    connection.execute(f"SET hnsw.ef_search = {ef_search}")
    runs: dict[str, Run] = {
        "bare": prepared(connection, BARE, lambda i: [queries[i]]),
        "pgvec": lambda i: packages.search(queries[i], K),
    }
    took, _ = in_turn(runs, 900)
    print(
        f"unfiltered, ef_search {ef_search}: bare {took['bare']:.3f} ms, pgvec {took['pgvec']:.3f} ms, "
        f"ratio {took['pgvec'] / took['bare']:.3f}"
    )


def iterative_at(
    recall_wanted: float, run: Run, connection: psycopg.Connection[Any], truth: list[Any]
) -> tuple[int, float]:
    """Return the smallest tried ef_search with which an iterative scan reaches a recall, and that recall."""
    reached, ef_search = 0.0, 40
    for ef_search in (40, 60, 80, 120, 160, 240, 320, 480, 640, 1000):
        connection.execute(f"SET hnsw.ef_search = {ef_search}")
        reached = recall(truth, [run(i) for i in range(len(truth))])
        if reached >= recall_wanted:
            break
    return ef_search, reached


def filtered(packages: pgvec.Collection, connection: psycopg.Connection[Any], queries: NDArray[np.float32]) -> None:
    """Compare with the better of forced-exact and iterative scans, section by section."""
    connection.execute("SET hnsw.iterative_scan = relaxed_order")
    # Parallel workers are started for an iterative scan by the generic plan; without them it is faster.
    connection.execute("SET max_parallel_workers_per_gather = 0")
    for section in SECTIONS:
        runs: dict[str, Run] = {
            "exact": prepared(connection, EXACT, lambda i, section=section: [queries[i], section]),  # type: ignore[misc]
            "iterative": prepared(connection, ITERATIVE, lambda i, section=section: [queries[i], section]),  # type: ignore[misc]
            "pgvec": lambda i, section=section: packages.search(queries[i], K, {"section": section}),  # type: ignore[misc]
        }
        truth = [runs["exact"](i) for i in range(100)]
        ef_search, reached = iterative_at(0.95, runs["iterative"], connection, truth)
        took, returned = in_turn(runs, 200)
        found = recall(returned["exact"], returned["pgvec"])
        short = sum(len(rows) < K for rows in returned["pgvec"])
        better = min(took["exact"], took["iterative"] if reached >= 0.95 else np.inf)
        print(
            f"{section:9} exact {took['exact']:7.2f} ms  iterative {took['iterative']:7.2f} ms "
            f"(ef_search {ef_search}, recall {reached:.3f})  pgvec {took['pgvec']:6.2f} ms, recall {found:.3f}, "
            f"short {short}, ratio to the better {took['pgvec'] / better:.2f}"
        )


def sql_function(connection: psycopg.Connection[Any], queries: NDArray[np.float32]) -> None:
    """Measure what psql users get: the statement planned at every call."""
    call = "SELECT id FROM pgvec.search('bench_debian', $1, 10, $2)"
    for name, filter in (("no filter", None), ("section = games", Jsonb({"section": "games"}))):
        took, _ = in_turn(
            {"sql": prepared(connection, call, lambda i, filter=filter: [queries[i], filter])},  # type: ignore[misc]
            300,
        )
        print(f"SQL function, {name}: {took['sql']:.2f} ms")


def main() -> None:
    """Measure all."""
    queries = debian.queries()
    with debian.connect() as database:
        packages = debian.loaded(database)
        with database.dedicated_connection() as connection:
            unfiltered(packages, connection, queries)
            filtered(packages, connection, queries)
            sql_function(connection, queries)


if __name__ == "__main__":
    main()
