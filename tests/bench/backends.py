"""One model run by PyTorch, as an ONNX file and as one quantised to 8 bits: texts/s, and nDCG@10 on SciFact.

The files are written by `pgvec models export` first. Throughput is that of Debian package texts, all kinds in
turn for each slice of them; nDCG is of an exact search by cosine, so that it is the vectors' alone.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pgvec_toolkit.embed import kinds
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER
from pgvec_toolkit.embed.export import export_onnx
from pgvec_toolkit.evaluate.beir import read_corpus, read_qrels, read_queries
from pgvec_toolkit.evaluate.metrics import ndcg
from tests.bench import debian

SCIFACT = debian.DATA.parent / "scifact"


def scifact(embedder: Any) -> float:
    """Return the mean nDCG@10 of the test queries."""
    documents = list(read_corpus(SCIFACT / "corpus.jsonl"))
    qrels = read_qrels(SCIFACT / "qrels" / "test.tsv")
    queries = {id: text for id, text in read_queries(SCIFACT / "queries.jsonl").items() if id in qrels}
    ids = [document["id"] for document in documents]
    vectors = embedder.embed_documents([document["text"] for document in documents])
    scores = np.stack([embedder.embed_query(text) for text in queries.values()]) @ vectors.T
    best = np.argsort(-scores, axis=1)[:, :10]
    return statistics.mean(
        ndcg([ids[row] for row in ranked], qrels[id], 10) for id, ranked in zip(queries, best, strict=True)
    )


def main() -> None:
    """Measure in turn, and print texts/s, ratios and nDCG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--slices", type=int, default=4)
    options = parser.parse_args()
    packages = itertools.islice(debian.packages(), 0, None, max(1, 63_440 // options.rows))
    texts = [f"{p['title']}. {p['body']}" for p in itertools.islice(packages, options.rows)]
    with tempfile.TemporaryDirectory() as folder:
        specs = {
            "torch": DEFAULT_EMBEDDER,
            "onnx": export_onnx(DEFAULT_EMBEDDER, Path(folder)).spec,
            "int8": export_onnx(DEFAULT_EMBEDDER, Path(folder), int8=True).spec,
        }
        embedders: dict[str, Any] = {name: kinds.load(spec) for name, spec in specs.items()}
        took: dict[str, list[float]] = {name: [] for name in specs}
        vectors: dict[str, list[Any]] = {name: [] for name in specs}
        for embedder in embedders.values():
            embedder.embed_documents(texts[:8])
        for part in range(options.slices):
            for name, embedder in embedders.items():
                began = time.perf_counter()
                vectors[name].append(embedder.embed_documents(texts[part :: options.slices]))
                took[name].append(time.perf_counter() - began)
        print(f"{len(texts):,} texts\n{'':6} {'texts/s':>8} {'/ torch':>8} {'least cosine':>13} {'nDCG@10':>8}")
        torch = np.concatenate(vectors["torch"])
        for name, embedder in embedders.items():
            ratio = statistics.median(t / s for t, s in zip(took["torch"], took[name], strict=True))
            cosine = np.einsum("ij,ij->i", torch, np.concatenate(vectors[name])).min()
            print(
                f"{name:6} {len(texts) / sum(took[name]):8,.1f} {ratio:8.2f} {cosine:13.4f} {scifact(embedder):8.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
