"""Ingesting texts: `ingest`, with all that it does, against bare `SentenceTransformer.encode`, which only embeds.

bare            SentenceTransformer.encode(texts) with default settings
embed           the embedder of pgvec alone, on the same texts
ingest          docs.ingest of them as documents: cut, embedded, written, no vector known
cache           the same into another collection: every vector is in the cache of the database

Texts are documents: those longer than the model reads are cut by `ingest`, and cut off by the others. texts/CPU s
counts this process alone: on a machine that others use, too, it says more than texts/s.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pgvec_toolkit.database import Database
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER
from pgvec_toolkit.embed.model import loaded
from pgvec_toolkit.embed.sentence_transformer import SentenceTransformerEmbedder
from pgvec_toolkit.errors import EmbeddingError
from tests.bench import debian

NAME = "bench_ingest"


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds that a run takes, those of processors in this process, and what it returns."""
    began, worked = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - began, time.process_time() - worked, result


def peak(forget: bool = False) -> float:
    """Return the most memory of this process, in MB; since it was last asked to forget it."""
    if forget:
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def ingest(database: Database, embedder: SentenceTransformerEmbedder, texts: list[str], *, known: bool) -> None:
    """Ingest texts into an empty collection, with an empty cache unless their vectors are to be known."""
    database.drop_collection(NAME, if_exists=True)
    docs = database.create_collection(NAME, embedder=embedder)
    if not known:
        database.fetch("SELECT pgvec.forget_embeddings()")
    done = docs.ingest(({"id": str(row), "text": text} for row, text in enumerate(texts)), progress=False)
    assert done.documents == len(texts), done
    assert not done.failed, done.failed


def main() -> None:
    """Measure in turn, and print texts/s and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    # Of all packages, not the first: these would be of few sections.
    every = max(1, 63_440 // options.rows)
    packages = itertools.islice(debian.packages(), 0, None, every)
    texts = [f"{p['title']}. {p['body']}" for p in itertools.islice(packages, options.rows)]
    print(f"{len(texts):,} texts, {len(texts) - len(set(texts)):,} of them duplicates; {os.cpu_count()} cores")
    model = loaded("SentenceTransformer", DEFAULT_EMBEDDER, EmbeddingError)
    embedder = SentenceTransformerEmbedder(DEFAULT_EMBEDDER)
    model.encode(texts[:8])
    embedder.embed_documents(texts[:8])
    with debian.connect() as database:
        runs: dict[str, Callable[[], Any]] = {
            "bare": lambda: model.encode(texts),
            "embed": lambda: embedder.embed_documents(texts),
            "ingest": lambda: ingest(database, embedder, texts, known=False),
            "cache": lambda: ingest(database, embedder, texts, known=True),
        }
        took: dict[str, list[float]] = {name: [] for name in runs}
        worked: dict[str, list[float]] = {name: [] for name in runs}
        memory: dict[str, float] = {}
        vectors: dict[str, Any] = {}
        for _ in range(options.rounds):
            for name, run in runs.items():
                peak(forget=True)
                seconds, cpu_seconds, vectors[name] = timed(run)
                took[name].append(seconds)
                worked[name].append(cpu_seconds)
                memory[name] = max(memory.get(name, 0.0), peak())
                print(f"{name:8} {len(texts) / seconds:8,.1f} texts/s", flush=True)
        print(f"\n{'':8} {'texts/s':>9} {'/ bare':>7} {'texts/CPU s':>12} {'/ bare':>7} {'peak MB':>8}")
        for name in runs:
            columns = []
            for seconds in (took, worked):
                columns.append(len(texts) / statistics.median(seconds[name]))
                columns.append(statistics.median(b / s for b, s in zip(seconds["bare"], seconds[name], strict=True)))
            rate, ratio, work_rate, work_ratio = columns
            print(f"{name:8} {rate:9,.1f} {ratio:7.2f} {work_rate:12,.1f} {work_ratio:7.2f} {memory[name]:8,.0f}")
        apart = 1 - np.einsum("ij,ij->i", vectors["bare"], vectors["embed"]).min()
        print(f"largest cosine distance between a vector of bare and one of embed: {apart:.1e}")
        database.drop_collection(NAME)


if __name__ == "__main__":
    main()
