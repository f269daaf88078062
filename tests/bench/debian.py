"""What the benchmarks share: the Debian packages, and a server to put them in.

    python -m tests.bench.upsert        (from the repository's root; likewise .search, .tune, .filters, .forms)

They use the data sets in ../shared/data, and the server of PGVEC_BENCH_DSN or else an embedded one in
PGVEC_HOME. Figures are ratios of things measured side by side in one run: absolute times are the machine's.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pgvec_toolkit as pgvec

DATA = Path(__file__).parents[3] / "shared" / "data" / "debian"
COLUMNS = {"section": str, "size": int, "tags": list[str]}


def connect() -> pgvec.Database:
    """Connect to the server to measure on."""
    return pgvec.connect(os.environ.get("PGVEC_BENCH_DSN"))


def vectors() -> NDArray[np.float32]:
    """Return the unit vectors of all packages, of shape (63440, 384)."""
    stored = np.load(DATA / "embeddings.f16.npy").astype(np.float32)
    return stored / np.linalg.norm(stored, axis=1, keepdims=True)


def queries() -> NDArray[np.float32]:
    """Return the query vectors, of shape (1000, 384)."""
    return np.load(DATA / "queries.f32.npy")


def packages() -> Iterator[dict[str, Any]]:
    """Yield the packages as they are in the file."""
    with lzma.open(DATA / "packages.jsonl.xz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def records(fields: Iterable[str] = ("priority", "installed_kib")) -> Iterator[dict[str, Any]]:
    """Yield the packages as records with vectors; of their other fields, these go to metadata."""
    for package, vector in zip(packages(), vectors(), strict=True):
        yield {
            "id": package["id"],
            "text": f"{package['title']}. {package['body']}",
            "vector": vector,
            "section": package["section"],
            "size": package["size"],
            "tags": package["tags"],
            **{field: package[field] for field in fields if package.get(field) not in (None, "")},
        }


def loaded(database: pgvec.Database, name: str = "bench_debian") -> pgvec.Collection:
    """Return the collection of all packages with an HNSW index, made if it is not there."""
    if name in database.collections():
        return database.collection(name)
    packages = database.create_collection(name, dimensions=384, columns=COLUMNS)
    packages.upsert(records())
    packages.create_index("hnsw")
    return packages
