"""Tuning: the recall that unseen queries get, its price beside the cheapest setting that reaches it, and the time.

    python -m tests.bench.tune --indexes hnsw ivfflat halfvec binary
    python -m tests.bench.tune --large          (500,000 x 128: how long truth and tuning take)

On the packages, tuned on a random half of the 1,000 queries and judged on the other half, several times. The cheapest
setting is found on the half that judges, by trying all of a fine grid: a yardstick that knows the answers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pgvec_toolkit as pgvec
from pgvec_toolkit.tune.queries import Queries, found_distances, nearest_sql
from pgvec_toolkit.tune.recall import shares
from pgvec_toolkit.tune.truth import exact_distances, ground_truth
from tests.bench import debian

K = 10
INDEXES = {
    "hnsw": ("hnsw", "full"),
    "ivfflat": ("ivfflat", "full"),
    "halfvec": ("hnsw", "halfvec"),
    "binary": ("hnsw", "binary"),
}
OVERSAMPLINGS = {
    "hnsw": (1.0,),
    "ivfflat": (1.0,),
    "halfvec": (1.0, 1.2, 1.5, 2.0),
    "binary": (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0),
}
SIFT = Path(__file__).parents[3] / "shared" / "data" / "bigann10k" / "base_u8.npy"
Pair = tuple[int, float]


class Grid:
    """Recall of every query, and latency, at settings of one index, measured once each."""

    def __init__(self, packages: pgvec.Collection, queries: Queries, truth: NDArray[np.float32]) -> None:
        self._packages, self._queries, self._truth = packages, queries, truth
        self._known: dict[Pair, tuple[NDArray[np.float64], float]] = {}

    def measure(self, setting: int, oversampling: float) -> tuple[NDArray[np.float64], float]:
        """Return the recall of each query, and the milliseconds of one."""
        if (setting, oversampling) not in self._known:
            with self._packages.database.connection() as connection:
                statement = nearest_sql(
                    connection, self._packages.name, K, ef_search=setting, oversampling=oversampling
                )
                found_distances(connection, statement, self._queries.take(np.arange(20)), K)
                began = time.perf_counter()
                found = found_distances(connection, statement, self._queries, K)
                took = time.perf_counter() - began
            each = shares(self._truth, found)
            self._known[setting, oversampling] = each, took / len(self._queries) * 1000
        return self._known[setting, oversampling]

    def cheapest(self, rows: NDArray[np.intp], target: float, oversampling: float, floor: int, most: int) -> int | None:
        """Return the least setting with which some queries reach a target at an oversampling."""
        if self.measure(min(most, 400), oversampling)[0][rows].mean() < target:
            return None  # for want of candidates
        low, high = floor - 1, floor
        while self.measure(high, oversampling)[0][rows].mean() < target:
            if high >= most:
                return None
            low, high = high, min(most, max(high + 1, round(high * 1.5)))
        while high - low > max(1, high // 50):
            middle = (low + high) // 2
            low, high = (
                (low, middle) if self.measure(middle, oversampling)[0][rows].mean() >= target else (middle, high)
            )
        return high


def timed(packages: pgvec.Collection, pairs: list[Pair], queries: Queries, rounds: int = 5) -> list[float]:
    """Return milliseconds of a search at each of some settings, measured by turns, the best of some rounds."""
    best = [float("inf")] * len(pairs)
    with packages.database.connection() as connection:
        statements = [
            nearest_sql(connection, packages.name, K, ef_search=setting, oversampling=oversampling)
            for setting, oversampling in pairs
        ]
        for _ in range(rounds):
            for place, statement in enumerate(statements):
                began = time.perf_counter()
                found_distances(connection, statement, queries, K)
                best[place] = min(best[place], (time.perf_counter() - began) / len(queries) * 1000)
    return best


def judge(packages: pgvec.Collection, name: str, targets: list[float], splits: int) -> None:
    """Tune on halves of the queries and judge by the others."""
    method, form = INDEXES[name]
    packages.drop_index()
    packages.create_index(method, **({} if method == "ivfflat" else {"form": form, "m": 16, "ef_construction": 64}))
    given = debian.queries()
    queries = Queries.from_vectors(given)
    with packages.database.connection() as connection:
        truth = exact_distances(connection, packages.space, queries, K)
    grid = Grid(packages, queries, truth)
    most = 1000 if method == "hnsw" else 63
    for target in targets:
        rows = []
        for split in range(splits):
            order = np.random.default_rng(split).permutation(len(given))
            tuned_on, unseen = np.sort(order[:500]), np.sort(order[500:])
            began = time.perf_counter()
            profile = packages.tune(target, queries=given[tuned_on], progress=False)
            seconds = time.perf_counter() - began
            got = float(grid.measure(profile.setting, profile.oversampling)[0][unseen].mean())
            pairs: list[Pair] = []
            for oversampling in OVERSAMPLINGS[name]:
                floor = int(np.ceil(K * oversampling)) if method == "hnsw" else 1
                setting = grid.cheapest(unseen, target, oversampling, floor, most)
                if setting is not None:
                    pairs.append((setting, oversampling))
            times = timed(packages, [(profile.setting, profile.oversampling), *pairs], queries.take(unseen[:200]))
            best = int(np.argmin(times[1:]))
            rows.append((got, times[0] / times[1 + best], profile.setting / pairs[best][0], seconds))
            print(
                f"{name:8} {target}  {profile.setting:4} x {profile.oversampling:<4g} cheapest {pairs[best][0]:4} x "
                f"{pairs[best][1]:<4g} recall {profile.recall:.4f} held back {profile.held_back:.4f} unseen {got:.4f}  "
                f"latency {rows[-1][1]:.2f} x, setting {rows[-1][2]:.2f} x  {seconds:.1f} s",
                flush=True,
            )
        each = np.asarray(rows)
        print(
            f"{name:8} {target}  of {splits}: unseen {each[:, 0].mean():.4f}, at least target - 0.005 in "
            f"{int((each[:, 0] >= target - 0.005).sum())}; latency {each[:, 1].mean():.3f} x, at most 1.15 in "
            f"{int((each[:, 1] <= 1.15).sum())}; setting {each[:, 2].mean():.3f} x; {each[:, 3].mean():.1f} s",
            flush=True,
        )


def large(database: pgvec.Database, rows: int) -> None:
    """Measure how long truth and tuning take on many vectors."""
    name = f"bench_sift_{rows}"
    rng = np.random.default_rng(0)
    base = np.load(SIFT).astype(np.float32)
    if name not in database.collections():
        sift = database.create_collection(name, dimensions=128, distance="l2")
        for start in range(0, rows, 50_000):
            part = min(50_000, rows - start)
            vectors = base[rng.integers(0, len(base), part)] + rng.normal(0, 15, (part, 128)).astype(np.float32)
            sift.upsert({"id": [str(start + row) for row in range(part)], "vector": vectors}, progress=False)
    sift = database.collection(name)
    rng = np.random.default_rng(1)
    given = base[rng.integers(0, len(base), 1000)] + rng.normal(0, 15, (1000, 128)).astype(np.float32)
    queries = Queries.from_vectors(given)
    with database.connection() as connection:
        connection.execute("DELETE FROM pgvec.ground_truths")
        for what in ("computed", "known"):
            began, busy = time.perf_counter(), time.process_time()
            ground_truth(connection, sift.space, queries, 160)
            print(
                f"truth of 1,000 queries, the nearest 160 of {rows:,}, {what}: {time.perf_counter() - began:.2f} s, "
                f"{time.process_time() - busy:.2f} s of this process"
            )
    if not sift.indexes():
        began = time.perf_counter()
        sift.create_index(m=16, ef_construction=64)
        print(f"index built in {time.perf_counter() - began:.0f} s")
    for target in (0.95, 0.99):
        began = time.perf_counter()
        profile = sift.tune(target, queries=given, progress=False)
        print(
            f"tuned for {target} in {time.perf_counter() - began:.1f} s: {profile.setting}, recall {profile.recall:.4f}"
        )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--indexes", nargs="*", default=list(INDEXES), choices=[*INDEXES], help="of the packages")
    parser.add_argument("--targets", nargs="+", type=float, default=[0.95, 0.99])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--large", type=int, nargs="?", const=500_000, help="so many vectors instead")
    options = parser.parse_args()
    with debian.connect() as database:
        if options.large:
            large(database, options.large)
            return
        packages = debian.loaded(database)
        for name in options.indexes:
            judge(packages, name, options.targets, options.splits)


if __name__ == "__main__":
    main()
