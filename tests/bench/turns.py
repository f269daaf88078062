"""What the benchmarks of searching share: prepared statements, fair turns, recall by distance.

Everything returns the same columns, runs prepared with binary parameters, and takes turns query by query,
so that the machine's moods hit all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
from psycopg import RawCursor

import pgvec_toolkit as pgvec

K = 10
BLOCK = 50
TOLERANCE = 5e-6  # of distances: duplicates are ties, and a sum depends on the order it is added up in

Run = Callable[[int], list[Any]]


def prepared(connection: psycopg.Connection[Any], statement: str, parameters: Callable[[int], list[Any]]) -> Run:
    """Return a run of a statement with the parameters of the i-th query."""
    cursor = RawCursor(connection)
    text = statement.encode()
    return lambda i: cursor.execute(text, parameters(i), prepare=True, binary=True).fetchall()


def in_turn(
    runs: dict[str, Run], count: int, block: int = BLOCK
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Run blocks of queries in turn; return the milliseconds, and what each returned for query 0, 1, ...

    Each has a server process of its own, which like a client's is busy for a while before another is; and
    at any moment each is at other queries: the second to search for a thing finds it in the caches.
    """
    took: dict[str, list[float]] = {name: [] for name in runs}
    returned: dict[str, dict[int, list[Any]]] = {name: {} for name in runs}
    for start in range(-block, count, block):  # one block more than is counted: everything is prepared in it
        for position, (name, run) in enumerate(runs.items()):
            for step in range(start, start + block):
                i = (step + position * count // len(runs)) % count
                began = time.perf_counter()
                rows = run(i)
                if step >= 0:
                    took[name].append((time.perf_counter() - began) * 1000)
                returned[name][i] = rows
    return took, {name: [rows[i] for i in range(count)] for name, rows in returned.items()}


def distances(rows: list[Any]) -> list[float]:
    """Return the distances of rows or hits."""
    return [row.distance if isinstance(row, pgvec.Hit) else row[4] for row in rows]


def recall(truth: list[Any], found: list[Any]) -> float:
    """Return mean recall, by distance; where nothing matches, nothing can be missed."""
    shares = [
        sum(d <= distances(true)[-1] + TOLERANCE for d in distances(got)) / len(true) if true else 1.0
        for true, got in zip(truth, found, strict=True)
    ]
    return float(np.mean(shares))
