"""Forms of index, side by side at the same recall: queries per second, size, time to build.

    python -m tests.bench.forms --json forms.json       (--dimensions 384 and --forms full halfvec for less)

The packages with their 384 dimensions, and turned into 1,536 by a fixed random rotation and a little noise, so that
the neighbours stay. Each form is built alone and tuned to each recall; then one connection asks one query after
another. Recall is judged against exact distances of the vectors as they were given, whatever the form stores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pgvec_toolkit as pgvec
from pgvec_toolkit.errors import TuningError
from tests.bench import debian
from tests.bench.turns import TOLERANCE, K

Vectors = NDArray[np.float32]
RECALLS = (0.95, 0.99)
NOISE = 0.05  # length of the noise added to a unit vector
ROUNDS = 3


@dataclass(frozen=True)
class Form:
    """A form of index: the type that the collection stores, and the arguments of create_index."""

    name: str
    stored: str
    method: str
    form: str | None = None

    def options(self, dimensions: int) -> dict[str, Any]:
        """Return the arguments of create_index beyond the method."""
        if self.form is None:
            return {}
        return {"form": self.form, **({"prefix": dimensions // 2} if self.form == "prefix" else {})}


FORMS = (
    Form("full", "vector", "hnsw", "full"),
    Form("halfvec", "vector", "hnsw", "halfvec"),
    Form("binary", "vector", "hnsw", "binary"),
    Form("prefix", "vector", "hnsw", "prefix"),
    Form("ivfflat", "vector", "ivfflat"),
    Form("halfvec-stored", "halfvec", "hnsw", "full"),
)


@dataclass(frozen=True)
class Data:
    """Vectors and queries of some dimensions, and how far the k-th nearest of each query is."""

    dimensions: int
    vectors: Vectors
    queries: Vectors
    furthest: Vectors

    @classmethod
    def make(cls, dimensions: int, count: int, rows: int | None = None) -> Data:
        """Return the packages, or the first rows of them, in so many dimensions, and that many of their queries."""
        vectors, queries = debian.vectors()[:rows], debian.queries()
        queries = queries[np.random.default_rng(3).permutation(len(queries))[:count]]
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        if dimensions != vectors.shape[1]:
            vectors, queries = raised(vectors, dimensions, NOISE), raised(queries, dimensions, 0)
        nearest = -np.partition(-(queries @ vectors.T), K - 1, axis=1)[:, K - 1]
        return cls(dimensions, vectors, queries, 1 - nearest)

    def recall(self, found: list[list[pgvec.Hit]], rows: dict[str, int]) -> float:
        """Return mean recall; `rows` says which row of the vectors has which id."""
        shares = []
        for query, furthest, hits in zip(self.queries, self.furthest, found, strict=True):
            true = 1 - self.vectors[[rows[hit.id] for hit in hits]] @ query
            shares.append(int((true <= furthest + TOLERANCE).sum()) / K)
        return float(np.mean(shares))


@dataclass(frozen=True)
class Row:
    """What was measured of one form at one recall; without a setting, that recall is out of reach."""

    dimensions: int
    form: str
    megabytes: float
    build_seconds: float
    target: float
    setting: int | None = None
    oversampling: float | None = None
    recall: float | None = None
    queries_per_second: float | None = None

    def __str__(self) -> str:
        start = (
            f"{self.dimensions:6,}  {self.form:15}{self.megabytes:8,.0f} MB{self.build_seconds:8.1f} s  {self.target}"
        )
        if self.setting is None:
            return f"{start}  out of reach"
        oversampling = "" if self.oversampling is None else f" x {self.oversampling:g}"
        return f"{start}  {f'{self.setting}{oversampling}':12}{self.recall:7.4f}{self.queries_per_second:8,.0f} / s"


def raised(vectors: Vectors, dimensions: int, noise: float) -> Vectors:
    """Return unit vectors of more dimensions: rotated, which keeps all angles, and with noise of that length."""
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.standard_normal((dimensions, vectors.shape[1])))[0].astype(np.float32)
    higher = vectors @ basis.T
    if noise:
        higher += rng.standard_normal(higher.shape, dtype=np.float32) * np.float32(noise / dimensions**0.5)
    return np.asarray(higher / np.linalg.norm(higher, axis=1, keepdims=True))


def records(data: Data) -> Iterator[dict[str, Any]]:
    """Yield the packages with these vectors."""
    for record, vector in zip(itertools.islice(debian.records(), len(data.vectors)), data.vectors, strict=True):
        yield {**record, "vector": vector}


def loaded(database: pgvec.Database, data: Data, stored: str) -> pgvec.Collection:
    """Return the collection of these vectors stored as a type, made if it is not there; it may have any indexes."""
    name = f"bench_forms_{data.dimensions}_{stored}"
    if name in database.collections():
        packages = database.collection(name)
        if len(packages) == len(data.vectors):
            return packages
        database.drop_collection(name)  # loading was interrupted
    packages = database.create_collection(name, dimensions=data.dimensions, type=stored, columns=debian.COLUMNS)
    packages.upsert(records(data))
    return packages


def speed(packages: pgvec.Collection, queries: Vectors) -> tuple[float, list[list[pgvec.Hit]]]:
    """Return queries per second in the best of some rounds, and the hits; the first round is not counted."""
    best = float("inf")
    found: list[list[pgvec.Hit]] = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        again = [packages.search(query, K) for query in queries]
        if found:
            best = min(best, time.perf_counter() - began)
        found = again
    return len(queries) / best, found


def measure(packages: pgvec.Collection, data: Data, form: Form, rows: dict[str, int]) -> Iterator[Row]:
    """Build one form and yield what it does at each recall."""
    packages.drop_index()
    began = time.perf_counter()
    packages.create_index(form.method, **form.options(data.dimensions))
    took = time.perf_counter() - began
    (index,) = packages.indexes()
    for target in RECALLS:
        built = (data.dimensions, form.name, index.size / 2**20, took, target)
        try:
            profile = packages.tune(target, queries=data.queries, progress=False)
        except TuningError:
            yield Row(*built)
            continue
        rate, found = speed(packages, data.queries)
        yield Row(*built, profile.setting, profile.oversampling, data.recall(found, rows), rate)
    packages.drop_index()


def main() -> None:
    """Measure all forms, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=400, help="queries to tune on, and to measure with")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 1536])
    names = [form.name for form in FORMS]
    parser.add_argument("--forms", nargs="+", default=names, choices=names, metavar="FORM", help=", ".join(names))
    parser.add_argument("--rows", type=int, help="only so many packages")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    places = {package["id"]: row for row, package in enumerate(debian.packages())}
    measured: list[Row] = []
    print(f"{'':6}  {'form':15}{'size':>11}{'build':>10}  target  setting     recall    speed")
    with debian.connect() as database:
        for dimensions in options.dimensions:
            data = Data.make(dimensions, options.queries, options.rows)
            for form in FORMS:
                if form.name in options.forms:
                    for row in measure(loaded(database, data, form.stored), data, form, places):
                        measured.append(row)
                        print(row, flush=True)
    if options.json:
        report = {"queries": options.queries, "k": K, "rows": [asdict(row) for row in measured]}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
