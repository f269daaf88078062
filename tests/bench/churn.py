"""An index ages under churn: watch notices, a rebuild restores, searches go on all the while.

    python -m tests.bench.churn        (--rows 20000 for less)
    python -m tests.bench.churn --rows 20000 --data topics --lists 400
    python -m tests.bench.churn --rows 10000 --data clusters --m 8 --ef-construction 48

A part of the packages is loaded, indexed and tuned; 40 % of it are deleted and others inserted, while two threads
search. Recall is what `watch` measures, on the queries, which were logged as they were asked. Of the packages those
that come are like those that go; of topics, libraries go and packages of programming languages come; of clusters,
which are made up, in 48 dimensions, others come than go.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pgvec_toolkit as pgvec
from pgvec_toolkit.tune.rebuild import Rebuilt
from tests.bench import debian
from tests.fire import Fire

Vectors = NDArray[np.float32]
GO = ("libs", "libdevel", "doc", "devel")
STAY = ("utils", "net", "admin", "science", "games", "x11", "text", "misc", "sound", "graphics", "fonts")
COME = ("python", "perl", "haskell", "rust", "golang", "javascript", "ruby", "java", "gnu-r", "php")
K, SEARCHERS, DIMENSIONS = 10, 2, 48


class Searchers(Fire):
    """Threads that search until the block ends: how many results were short, and the longest wait, in milliseconds."""

    def __init__(self, docs: pgvec.Collection, queries: Vectors) -> None:
        super().__init__(*(partial(self._search, thread) for thread in range(SEARCHERS)))
        self.short, self.longest = 0, 0.0
        self._docs, self._queries = docs, queries

    @property
    def searches(self) -> int:
        """How many there were."""
        return sum(self.rounds)

    def _search(self, thread: int, number: int) -> None:
        query = self._queries[(thread + SEARCHERS * number) % len(self._queries)]
        began = time.perf_counter()
        self.short += len(self._docs.search(query, k=K)) < K
        self.longest = max(self.longest, (time.perf_counter() - began) * 1000)


def clustered(rows: int) -> tuple[Vectors, Vectors]:
    """Return unit vectors, those that come later in clusters of their own, and queries near to both."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(rows // 100, DIMENSIONS))

    def near(count: int, low: int, high: int) -> Vectors:
        made = centres[random.integers(low, high, size=count)] + 0.6 * random.normal(size=(count, DIMENSIONS))
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    half = len(centres) // 2
    return np.concatenate([near(rows, 0, half), near(rows, half, len(centres))]), near(1000, 0, len(centres))


def topics(rows: int) -> tuple[Vectors, Vectors]:
    """Return packages such that libraries are those which churn deletes, and of languages those which it inserts."""
    sections = np.asarray([package["section"] for package in debian.packages()])
    random = np.random.default_rng(0)
    go, stay, come = (random.permutation(np.flatnonzero(np.isin(sections, of))) for of in (GO, STAY, COME))
    first = np.empty(rows, dtype=np.intp)
    goes = _goes(np.arange(rows))
    first[goes], first[~goes] = go[: goes.sum()], stay[: (~goes).sum()]
    return debian.vectors()[np.concatenate([first, come[: goes.sum()]])], debian.queries()


DATA: dict[str, Callable[[int], tuple[Vectors, Vectors]]] = {
    "packages": lambda _: (debian.vectors(), debian.queries()),
    "topics": topics,
    "clusters": clustered,
}


def _goes(rows: Any) -> Any:
    """Tell which rows churn deletes: two of five."""
    return rows % 5 < 2


def churn(docs: pgvec.Collection, vectors: Vectors, rows: int) -> None:
    """Delete two rows of five, and insert as many others."""
    gone = [str(row) for row in range(rows) if _goes(row)]
    docs.delete(gone)
    others = range(rows, rows + len(gone))
    docs.upsert({"id": [str(row) for row in others], "vector": vectors[others.start : others.stop]})


def vacuum(database: pgvec.Database) -> None:
    """Do what autovacuum does sooner or later: the graph is mended where rows have gone."""
    with database.connection() as connection:
        connection.execute("VACUUM bench_churn_dense")


def step(name: str, searchers: Searchers, work: Callable[[], object], docs: pgvec.Collection) -> None:
    """Do something while others search, then check recall."""
    before, began = searchers.searches, time.perf_counter()
    result = work()
    seconds, searched = time.perf_counter() - began, searchers.searches - before
    check = docs.watch(k=K, queries=1000)
    print(
        f"{name:10} {seconds:6.1f} s, {searched:6,} searches  recall {check.recall:.3f} "
        f"({check.recall_low:.3f} to {check.recall_high:.3f}) {check.source}  {'; '.join(check.alarms) or 'no alarm'}"
    )
    if isinstance(result, Rebuilt):
        print(f"{'':10} {'; '.join(result.reasons)}; searches waited {result.stalled:.2f} s")


def main() -> None:
    """Load, tune, churn, rebuild."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=64)
    parser.add_argument("--lists", type=int, help="of an IVFFlat index in the place of HNSW")
    parser.add_argument("--data", choices=DATA, default="packages")
    parser.add_argument("--target", type=float, default=0.95, help="recall to tune for")
    options = parser.parse_args()
    rows = options.rows
    vectors, queries = DATA[options.data](rows)
    hnsw = {"m": options.m, "ef_construction": options.ef_construction}
    index: dict[str, Any] = hnsw if options.lists is None else {"method": "ivfflat", "lists": options.lists}
    with debian.connect() as database:
        database.drop_collection("bench_churn", if_exists=True)
        docs = database.create_collection("bench_churn", dimensions=vectors.shape[1], keywords=False)
        docs.upsert({"id": [str(row) for row in range(rows)], "vector": vectors[:rows]})
        docs.create_index(**index)
        docs.tune(options.target, k=K, queries=queries[::2], progress=False)
        docs.log_queries(share=1, keep=2000)
        for query in queries:
            docs.search(query, k=K)
        docs.log_queries(share=None)
        with Searchers(docs, queries) as searchers:
            step("fresh", searchers, lambda: time.sleep(1), docs)
            step("churned", searchers, lambda: churn(docs, vectors, rows), docs)
            step("vacuumed", searchers, lambda: vacuum(database), docs)
            step("if needed", searchers, lambda: docs.rebuild_index(if_needed=True, progress=False), docs)
            step("tuned", searchers, lambda: docs.tune(options.target, k=K, queries=queries[::2], progress=False), docs)
        print(
            f"{searchers.searches:,} searches, {len(searchers.failures)} errors, {searchers.short} short, "
            f"the longest {searchers.longest:.0f} ms"
        )
        database.drop_collection("bench_churn")


if __name__ == "__main__":
    main()
