"""Tuning: how long it takes, and what recall the tuned setting has on all queries."""

from __future__ import annotations

import time

import numpy as np

from tests.bench import debian


def main() -> None:
    """Tune on the given queries, and judge by the ground truth that comes with the data."""
    queries = debian.queries()
    truth = np.load(debian.DATA / "ground_truth_100.npy")[:, :10]
    stored = debian.vectors()
    with debian.connect() as database:
        packages = debian.loaded(database)
        began = time.perf_counter()
        profile = packages.tune(0.95, queries=queries, progress=False)
        seconds = time.perf_counter() - began
        shares = []
        for query, nearest in zip(queries, truth, strict=True):
            furthest = 1 - float((stored[nearest] @ (query / np.linalg.norm(query))).min())
            shares.append(sum(hit.distance <= furthest + 5e-6 for hit in packages.search(query)) / 10)
    print(
        f"tuned in {seconds:.1f} s: {profile.parameter} = {profile.setting}; recall@10 on the {len(queries)} "
        f"queries {np.mean(shares):.4f}, on those held back {profile.recall:.4f}"
    )


if __name__ == "__main__":
    main()
