"""Filtered searches over a grid of filters: against pgvector by hand, and against an oracle.

    python -m tests.bench.filters --queries 20 --json filters.json     (4 minutes; 100 queries, the default: 15)

plain   the join, the condition, the order and the limit, as one writes them, with default settings
oracle  the fastest, for each filter, of what reaches recall 0.95: forced-exact, joined as the planner likes
        or looking vectors up by key, and iterative scans at several ef_search

Which contenders the oracle chooses from is found on the same queries; the two fastest then take turns with
plain and pgvec. Recall is judged by distance, against an exact scan.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

import pgvec_toolkit as pgvec
from tests.bench import debian, grid
from tests.bench.turns import BLOCK, K, Run, in_turn, prepared, recall

WANTED = 0.95
EF_SEARCH = (40, 80, 160, 320, 640, 1000)
HOPELESS = 3.0  # times as slow as the fastest: not measured further
CHUNKS, VECTORS = grid.NAME, f"{grid.NAME}_dense"
PAYLOAD = """d.id, d.document_id, d.text, d.metadata || jsonb_strip_nulls(jsonb_build_object(
    'section', d.section, 'size', d.size, 'tags', d.tags, 'cluster', d.cluster, 'lot', d.lot)) AS metadata,
    {0}.distance, 1 - {0}.distance AS similarity, 1 - {0}.distance AS score,
    (row_number() OVER (ORDER BY {0}.distance))::integer AS rank"""
PLAIN = f"""SELECT {PAYLOAD.format("d")} FROM (
    SELECT d.*, v.embedding <=> $1 AS distance FROM {CHUNKS} d JOIN {VECTORS} v USING (key)
    WHERE %s ORDER BY v.embedding <=> $1 LIMIT {K}) d ORDER BY d.distance"""
NEAREST = f"""SELECT {PAYLOAD.format("n")} FROM (%s) n JOIN {CHUNKS} d USING (key) ORDER BY n.distance"""
EXACT = f"""SELECT d.key, v.embedding <=> $1 AS distance FROM {CHUNKS} d JOIN {VECTORS} v USING (key)
    WHERE %s ORDER BY (v.embedding <=> $1) + 0 LIMIT {K}"""
EXACT_BY_KEY = f"""SELECT d.key, e.distance FROM {CHUNKS} d CROSS JOIN LATERAL (
        SELECT (v.embedding <=> $1) + 0 AS distance FROM {VECTORS} v WHERE v.key = d.key OFFSET 0) e
    WHERE %s ORDER BY e.distance LIMIT {K}"""
ITERATIVE = f"""SELECT s.key, s.distance FROM (
    SELECT v.key, v.embedding <=> $1 AS distance FROM {VECTORS} v
    WHERE EXISTS (SELECT FROM {CHUNKS} d WHERE d.key = v.key AND (%s) OFFSET 0)
    ORDER BY v.embedding <=> $1 LIMIT {K}) s"""
# Measured: without parallel workers both are faster; planned for its values, the join is.
ALONE = "SET max_parallel_workers_per_gather = 0"
CONTENDERS: dict[str, tuple[str, list[str]]] = {
    "exact": (EXACT, [ALONE, "SET plan_cache_mode = force_custom_plan"]),
    "exact by key": (EXACT_BY_KEY, [ALONE]),
    **{
        f"iterative {ef}": (ITERATIVE, [ALONE, "SET hnsw.iterative_scan = relaxed_order", f"SET hnsw.ef_search = {ef}"])
        for ef in EF_SEARCH
    },
}


@dataclass(frozen=True)
class Row:
    """What was measured for one filter; times are medians, in milliseconds."""

    name: str
    matches: float
    selectivity: float
    oracle: str
    oracle_ms: float
    plain_ms: float
    plain_recall: float
    plain_short: int
    pgvec_ms: float
    pgvec_p95_ms: float
    recall: float
    short: int
    ratio: float

    def __str__(self) -> str:
        return (
            f"{self.name:44}{self.selectivity:8.3f} %{self.matches:8,.0f}  {self.oracle:15}{self.oracle_ms:7.2f}"
            f"  plain{self.plain_ms:7.2f} {self.plain_recall:.3f}"
            f"  pgvec{self.pgvec_ms:7.2f} p95{self.pgvec_p95_ms:7.2f} {self.recall:.3f} short {self.short:2}"
            f"  ratio {self.ratio:5.2f}{'' if self.recall >= WANTED else ' at too low a recall'}"
        )


@dataclass
class Bench:
    """The collection, the queries, and a connection for each competitor."""

    database: pgvec.Database
    packages: pgvec.Collection
    queries: NDArray[np.float32]
    count: int
    centres: NDArray[np.float32] = field(init=False)
    connections: dict[str, psycopg.Connection[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.centres = grid.centres(self.database)
        self.connections = {"plain": self._connect([])}
        self.connections |= {name: self._connect(settings) for name, (_, settings) in CONTENDERS.items()}

    def measure(self, case: grid.Case) -> Row:
        """Measure one filter."""
        asked = self._asked(case)
        seen = [grid.places(query, self.centres) for query in asked]
        wheres = [grid.seen_from(case.where, places) for places in seen]
        values = [[q, *grid.parameters(grid.seen_from(case.values, p))] for q, p in zip(asked, seen, strict=True)]
        runs: dict[str, Run] = {
            name: prepared(self.connections[name], NEAREST % (statement % case.predicate), values.__getitem__)
            for name, (statement, _) in CONTENDERS.items()
        }
        truth = [runs["exact"](i) for i in range(len(asked))]
        self._check(case, asked[0], wheres[0], truth[0])
        finalists = oracles(runs, truth)
        competing: dict[str, Run] = {
            "plain": prepared(self.connections["plain"], PLAIN % case.predicate, values.__getitem__),
            "pgvec": lambda i: self.packages.search(asked[i], K, wheres[i]),
            **{name: runs[name] for name in finalists},
        }
        took, found = in_turn(competing, len(asked), min(BLOCK, len(asked)))
        return judged(case.name, self._matches(case, asked, seen), len(self.packages), took, found, truth)

    def close(self) -> None:
        """Close the connections."""
        for connection in self.connections.values():
            connection.close()

    def _asked(self, case: grid.Case) -> NDArray[np.float32]:
        """Return the queries for a filter: always the same ones, drawn from those in the clusters that it is for."""
        queries = self.queries[np.random.default_rng(2).permutation(len(self.queries))]
        first, last = case.asked_from or (0, grid.CLUSTERS)
        own = (queries @ self.centres.T).argmax(axis=1)
        return np.asarray(queries[(own >= first) & (own <= last)][: self.count])

    def _check(self, case: grid.Case, query: NDArray[np.float32], where: dict[str, Any], truth: list[Any]) -> None:
        """Make sure that the filter and the SQL mean the same."""
        found = self.packages.search(query, K, where, exact=True)
        if len(found) != len(truth) or recall([truth], [found]) < 1 or recall([found], [truth]) < 1:
            raise AssertionError(f"{case.name}: the filter and its SQL match different rows")

    def _matches(self, case: grid.Case, asked: NDArray[np.float32], seen: list[dict[str, Any]]) -> float:
        """Return how many rows match, on average over the queries."""
        counts: dict[str, int] = {}
        statement = f"SELECT count(*) FROM {CHUNKS} d WHERE $1::vector IS NOT NULL AND ({case.predicate})"
        keys = [repr(grid.seen_from(case.values, places)) for places in seen]
        for key, places, query in zip(keys, seen, asked, strict=True):
            if key not in counts:
                values = grid.parameters(grid.seen_from(case.values, places))
                ((counts[key],),) = self.database.fetch(statement, [query, *values])
        return float(np.mean([counts[key] for key in keys]))

    def _connect(self, settings: Iterable[str]) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.database.dsn, autocommit=True)
        register_vector(connection)
        for setting in settings:
            connection.execute(setting)
        return connection


def oracles(runs: dict[str, Run], truth: list[Any]) -> list[str]:
    """Return the two fastest of the contenders that reach the recall."""
    qualified: dict[str, float] = {}
    for name, run in runs.items():
        fastest = min(qualified.values(), default=float("inf"))
        times, found = [], []
        for i in range(-3, len(truth)):  # the first three are not counted
            began = time.perf_counter()
            rows = run(max(i, 0))
            if i >= 0:
                times.append((time.perf_counter() - began) * 1000)
                found.append(rows)
            if len(times) == 5 and median(times) > HOPELESS * fastest:
                break
        if len(found) == len(truth) and recall(truth, found) >= WANTED:
            qualified[name] = median(times)
        elif name.startswith("iterative") and median(times) > HOPELESS * fastest:
            break  # a larger ef_search takes longer still
    return sorted(qualified, key=qualified.__getitem__)[:2]


def judged(
    name: str,
    matches: float,
    rows: int,
    took: dict[str, list[float]],
    found: dict[str, list[Any]],
    truth: list[Any],
) -> Row:
    """Return the row of a filter."""
    middle = {competitor: median(milliseconds) for competitor, milliseconds in took.items()}
    oracle = min((competitor for competitor in middle if competitor not in ("plain", "pgvec")), key=middle.__getitem__)
    short = {
        competitor: sum(len(got) < len(true) for got, true in zip(found[competitor], truth, strict=True))
        for competitor in ("plain", "pgvec")
    }
    return Row(
        name=name,
        matches=matches,
        selectivity=100 * matches / rows,
        oracle=oracle,
        oracle_ms=middle[oracle],
        plain_ms=middle["plain"],
        plain_recall=recall(truth, found["plain"]),
        plain_short=short["plain"],
        pgvec_ms=middle["pgvec"],
        pgvec_p95_ms=float(np.percentile(took["pgvec"], 95)),
        recall=recall(truth, found["pgvec"]),
        short=short["pgvec"],
        ratio=middle["pgvec"] / middle[oracle],
    )


def summary(rows: list[Row]) -> dict[str, Any]:
    """Return the figures over all filters."""
    worst = max(rows, key=lambda row: row.ratio)
    least = min(rows, key=lambda row: row.recall)
    slowest = max(rows, key=lambda row: row.pgvec_ms)
    return {
        "filters": len(rows),
        "worst recall": f"{least.recall:.3f} ({least.name})",
        "filters with recall below 0.95": sum(row.recall < WANTED for row in rows),
        "short results": sum(row.short for row in rows),
        "median ratio to the oracle": round(median(row.ratio for row in rows), 2),
        "worst ratio to the oracle": f"{worst.ratio:.2f} ({worst.name})",
        "median latency, ms": round(median(row.pgvec_ms for row in rows), 2),
        "worst latency, ms": f"{slowest.pgvec_ms:.2f} ({slowest.name})",
        "worst 95th percentile, ms": round(max(row.pgvec_p95_ms for row in rows), 2),
        "plain: filters with recall below 0.95": sum(row.plain_recall < WANTED for row in rows),
        "plain: worst recall": round(min(row.plain_recall for row in rows), 3),
    }


def main() -> None:
    """Measure all filters, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100, help="queries per filter")
    parser.add_argument("--only", default="", help="only filters whose name contains this")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    queries = debian.queries()
    with debian.connect() as database:
        packages = grid.loaded(database)
        profile = packages.tune(WANTED, queries=queries, progress=False)
        print(f"tuned to {WANTED}: {profile.parameter} = {profile.setting}; {options.queries} queries per filter")
        rows = []
        with closing(Bench(database, packages, queries, options.queries)) as bench:
            for case in grid.cases():
                if options.only in case.name:
                    rows.append(bench.measure(case))
                    print(rows[-1], flush=True)
    figures = summary(rows)
    print("\n".join(["", *(f"{name}: {value}" for name, value in figures.items())]))
    if options.json:
        report = {"queries": options.queries, "setting": profile.setting, "summary": figures}
        options.json.write_text(json.dumps({**report, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
