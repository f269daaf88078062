"""Searching: against a bare psycopg statement, and, filtered, against forced-exact and iterative scans.

Everything returns the same columns, runs prepared with binary parameters on one connection, and takes
turns query by query, so that the machine's moods hit all alike.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

import pgvec_toolkit as pgvec
from tests.bench import debian
from tests.bench.turns import K, Run, in_turn, prepared, recall

SECTIONS = ["libs", "python", "games", "math", "hamradio", "gnustep"]
PAYLOAD = """d.id, d.document_id, d.text, d.metadata || jsonb_strip_nulls(
    jsonb_build_object('section', d.section, 'size', d.size, 'tags', d.tags)) AS metadata, n.distance,
    1 - n.distance AS similarity, 1 - n.distance AS score,
    (row_number() OVER (ORDER BY n.distance))::integer AS rank"""
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


def unfiltered(packages: pgvec.Collection, connection: psycopg.Connection[Any], queries: NDArray[np.float32]) -> None:
    """Compare with a bare statement at the same ef_search."""
    ef_search = packages.tune(0.95, queries=queries, progress=False).setting
    connection.execute(f"SET hnsw.ef_search = {ef_search}")
    runs: dict[str, Run] = {
        "bare": prepared(connection, BARE, lambda i: [queries[i]]),
        "pgvec": lambda i: packages.search(queries[i], K),
    }
    times, _ = in_turn(runs, 900)
    took = {name: median(milliseconds) for name, milliseconds in times.items()}
    print(
        f"unfiltered, ef_search {ef_search}: bare {took['bare']:.3f} ms, pgvec {took['pgvec']:.3f} ms, "
        f"ratio {took['pgvec'] / took['bare']:.3f}"
    )


def iterative_at(wanted: float, run: Run, connection: psycopg.Connection[Any], truth: list[Any]) -> tuple[int, float]:
    """Return the smallest tried ef_search with which an iterative scan reaches a recall, and that recall."""
    reached, ef_search = 0.0, 0
    for ef_search in (40, 80, 120, 160, 200, 240, 280, 320, 400, 480, 1000):
        connection.execute(f"SET hnsw.ef_search = {ef_search}")
        reached = recall(truth, [run(i) for i in range(len(truth))])
        if reached >= wanted or reached < 0.85:  # far off: more will not do
            break
    return ef_search, reached


def filtered(packages: pgvec.Collection, connection: psycopg.Connection[Any], queries: NDArray[np.float32]) -> None:
    """Compare with the better of forced-exact and, at the recall that pgvec has, iterative scans."""
    connection.execute("SET hnsw.iterative_scan = relaxed_order")
    # Parallel workers are started for an iterative scan by the generic plan; without them it is faster.
    connection.execute("SET max_parallel_workers_per_gather = 0")
    for section in SECTIONS:
        runs: dict[str, Run] = {
            "exact": prepared(connection, EXACT, lambda i, section=section: [queries[i], section]),  # type: ignore[misc]
            "iterative": prepared(connection, ITERATIVE, lambda i, section=section: [queries[i], section]),  # type: ignore[misc]
            "pgvec": lambda i, section=section: packages.search(queries[i], K, {"section": section}),  # type: ignore[misc]
        }
        truth = [runs["exact"](i) for i in range(200)]
        wanted = min(0.99, max(0.95, recall(truth, [runs["pgvec"](i) for i in range(200)])))
        ef_search, reached = iterative_at(wanted, runs["iterative"], connection, truth)
        if reached < wanted:  # no competitor, and its long scans would only leave cold caches to the others
            del runs["iterative"]
        measured, returned = in_turn(runs, 300)
        took = {name: median(milliseconds) for name, milliseconds in measured.items()}
        found = recall(returned["exact"], returned["pgvec"])
        short = sum(len(rows) < K for rows in returned["pgvec"])
        times = ", ".join(f"{name} {milliseconds:.2f} ms" for name, milliseconds in took.items())
        better = min(milliseconds for name, milliseconds in took.items() if name != "pgvec")
        print(
            f"{section:9} {times}; recall {found:.3f}, short {short}; iterative scan: recall {reached:.3f} "
            f"at ef_search {ef_search}; ratio to the better {took['pgvec'] / better:.2f}",
            flush=True,
        )


def sql_function(connection: psycopg.Connection[Any], queries: NDArray[np.float32]) -> None:
    """Measure what psql users get: the statement planned at every call."""
    call = "SELECT id FROM pgvec.search('bench_debian', $1, 10, $2)"
    for name, filter in (("no filter", None), ("section = games", Jsonb({"section": "games"}))):
        took, _ = in_turn(
            {"sql": prepared(connection, call, lambda i, filter=filter: [queries[i], filter])},  # type: ignore[misc]
            300,
        )
        print(f"SQL function, {name}: {median(took['sql']):.2f} ms")


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
