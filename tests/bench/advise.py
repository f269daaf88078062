"""The advisor's choice against pgvector's default index: queries per second at the same recall, size, time to build.

    PGVEC_SHARED_BUFFERS=2GB python -m tests.bench.advise        (--rows 5000 --queries 60 for a quick look)

The advisor is asked about the Debian packages, with some of the queries. Then the default index (HNSW, m = 16,
ef_construction = 64) and its choice are built on all rows, each on a narrow table of its own. Both are timed in turns,
on queries that the advisor has not seen, each at its cheapest ef_search that reaches the recall on them, asked for
ids only by the bare statement.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pgvec_toolkit.cli.advise import _print as print_advice
from psycopg import RawCursor

import pgvec_toolkit as pgvec
from pgvec_toolkit.tune.advice import Option
from pgvec_toolkit.tune.advisor import run, typical
from pgvec_toolkit.tune.queries import nearest_sql
from tests.bench import debian
from tests.bench.turns import TOLERANCE, K

NAME = "bench_advise"
TARGETS = (0.95, 0.99)
GOALS = (1.4, 2.3)  # times the speed of the default
DEFAULT = {"method": "hnsw", "form": "full", "m": 16, "ef_construction": 64}
ROUNDS = 7


@dataclass(frozen=True)
class Row:
    """An index at the cheapest setting that reaches a recall."""

    index: str
    target: float
    setting: int
    oversampling: float
    recall: float
    queries_per_second: float
    megabytes: float
    build_seconds: float


def loaded(database: pgvec.Database, vectors: Any) -> pgvec.Collection:
    """Return a collection of vectors, twice: for each index a table."""
    database.drop_collection(NAME, if_exists=True)
    packages = database.create_collection(NAME, dimensions=vectors.shape[1], keywords=False)
    packages.upsert({"id": [str(row) for row in range(len(vectors))], "vector": vectors})
    packages.add_space("chosen", dimensions=vectors.shape[1])
    with database.connection() as connection:
        connection.execute(f"INSERT INTO {NAME}_chosen SELECT key, embedding FROM {NAME}_dense".encode())
    return packages


def built(packages: pgvec.Collection, arguments: dict[str, Any]) -> tuple[float, float]:
    """Build an index; return its seconds and megabytes."""
    began = time.perf_counter()
    packages.create_index(**arguments, progress=False)
    seconds = time.perf_counter() - began
    (index,) = packages.indexes(space=arguments["space"])
    return seconds, index.size / 2**20


def recall(connection: Any, statement: str, queries: Any, furthest: Any) -> float:
    """Return mean recall, judged by distance."""
    cursor, shares = RawCursor(connection), []
    for query, bound in zip(queries, furthest, strict=True):
        found = cursor.execute(statement.encode(), [query], prepare=True, binary=True).fetchall()
        shares.append(sum(distance <= bound + TOLERANCE for _, distance, _ in found) / K)
    return float(np.mean(shares))


def cheapest(connection: Any, space: str, oversampling: float, target: float, queries: Any, furthest: Any) -> int:
    """Return the smallest ef_search that reaches a recall on these queries, by bisection."""
    low, high = K, 1000
    while low < high:
        middle = (low + high) // 2 if high < 1000 else min(2 * low, 999)  # small ones first: they are quick
        statement = nearest_sql(connection, NAME, K, space=space, ef_search=middle, oversampling=oversampling)
        enough = recall(connection, statement, queries, furthest) >= target
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def compare(database: pgvec.Database, advised: Option, queries: Any, furthest: Any) -> list[Row]:
    """Build both indexes, find their settings, and time them in turns."""
    packages = database.collection(NAME)
    sides = {"default": DEFAULT | {"space": "dense"}, "advised": advised.arguments | {"space": "chosen"}}
    costs = {side: built(packages, arguments) for side, arguments in sides.items()}
    settings, statements = {}, {}
    with database.connection() as connection:
        for side, target in itertools.product(sides, TARGETS):
            space = sides[side]["space"]
            oversampling = 1.0 if side == "default" else advised.profiles[target].oversampling
            setting = cheapest(connection, space, oversampling, target, queries, furthest)
            settings[side, target] = setting, oversampling
            statements[side, target] = nearest_sql(
                connection, NAME, K, space=space, ef_search=setting, oversampling=oversampling
            )
        rounds: dict[tuple[str, float], list[list[float]]] = {key: [] for key in statements}
        for statement in statements.values():
            run(connection, statement, queries)  # into the cache
        for number in range(ROUNDS):
            for key in list(statements)[:: -1 if number % 2 else 1]:
                rounds[key].append(run(connection, statements[key], queries))
        shares = {key: recall(connection, statement, queries, furthest) for key, statement in statements.items()}
    return [
        Row(
            *(side, target, *settings[side, target], shares[side, target]),
            *(1000 / typical(rounds[side, target]), costs[side][1], costs[side][0]),
        )
        for target in TARGETS
        for side in sides
    ]


def report(rows: list[Row]) -> None:
    """Print both sides at each recall, and how many times the default the choice is."""
    print(f"{'':9}{'recall':>7}  {'setting':12}{'measured':>9}{'queries/s':>11}{'size':>10}{'build':>9}")
    for default, advised in zip(rows[::2], rows[1::2], strict=True):
        for row in (default, advised):
            setting = f"{row.setting}" + (f" x {row.oversampling:g}" if row.oversampling > 1 else "")
            print(
                f"{row.index:9}{row.target:7}  {setting:12}{row.recall:9.4f}{row.queries_per_second:11,.0f}"
                f"{row.megabytes:7,.0f} MB{row.build_seconds:7.1f} s"
            )
        ratio = advised.queries_per_second / default.queries_per_second
        print(
            f"{'':9}{default.target:7}  {ratio:.2f} x the speed (goal {GOALS[TARGETS.index(default.target)]}), "
            f"{advised.megabytes / default.megabytes:.2f} x the size, "
            f"{advised.build_seconds / default.build_seconds:.1f} x the time to build"
        )


def main() -> None:
    """Ask the advisor, then compare its choice with the default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="only so many packages")
    parser.add_argument("--sample", type=int, default=50_000, help="rows that the advisor builds on")
    parser.add_argument("--queries", type=int, default=400, help="to tune on, and as many others to measure with")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    began = time.perf_counter()
    random = np.random.default_rng(6)
    vectors = debian.vectors()
    vectors = vectors[random.permutation(len(vectors))[: options.rows]]
    queries = debian.queries()[random.permutation(1000)]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    tuning, unseen = queries[: options.queries], queries[options.queries : 2 * options.queries]
    furthest = 1 + np.partition(-(unseen @ vectors.T), K - 1, axis=1)[:, K - 1]
    with debian.connect() as database:
        packages = loaded(database, vectors)
        asked = time.perf_counter()
        advice = packages.advise(TARGETS, k=K, queries=tuning, sample=options.sample, progress=False)
        print_advice(advice)
        took = time.perf_counter() - asked
        print(f"advised in {took:.0f} s\n", flush=True)
        rows = compare(database, advice.recommended, list(unseen), furthest)
        database.drop_collection(NAME)
    report(rows)
    total = time.perf_counter() - began
    print(f"{len(vectors):,} rows, {len(unseen)} unseen queries, {total:.0f} s in all")
    if options.json:
        found = {"advice": advice.to_dict(), "advised_seconds": took, "seconds": total}
        options.json.write_text(json.dumps(found | {"rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
