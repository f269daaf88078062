"""Hybrid search: nDCG@10 of each leg and of their fusions on judged queries, and its time beside that of its legs.

    python -m tests.bench.hybrid [--fusion rrf relative dbsf] [--queries N]

SciFact and Cranfield, with the vectors of all-MiniLM-L6-v2 that lie beside them; times on the Debian packages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from statistics import median

import numpy as np
import psycopg

import pgvec_toolkit as pgvec
from pgvec_toolkit.evaluate.beir import read_corpus, read_qrels, read_queries
from pgvec_toolkit.evaluate.fit import fit_weights
from pgvec_toolkit.search.hit import Hits
from tests.bench import debian
from tests.bench.turns import Run, in_turn

SETS = debian.DATA.parent


def loaded(database: pgvec.Database, name: str) -> pgvec.Collection:
    """Return the collection of a judged set, made if it is not there."""
    if f"bench_{name}" in database.collections():
        return database.collection(f"bench_{name}")
    vectors = np.load(SETS / name / "corpus_minilm.f16.npy").astype(np.float32)
    corpus = read_corpus(SETS / name / "corpus.jsonl")
    made = database.create_collection(f"bench_{name}", dimensions=vectors.shape[1])
    made.upsert({**record, "vector": vector} for record, vector in zip(corpus, vectors, strict=True))
    return made


def searches(docs: pgvec.Collection, name: str, fusions: list[str]) -> dict[str, Callable[[str], Hits]]:
    """Return the modes to compare, as functions of a query's text."""
    texts = read_queries(SETS / name / "queries.jsonl")
    vectors = dict(zip(texts.values(), np.load(SETS / name / "queries_minilm.f32.npy"), strict=True))
    found: dict[str, Callable[[str], Hits]] = {
        "keyword": lambda text: docs.keyword_search(text, 100),
        "dense": lambda text: docs.search(vectors[text], 100),
    }
    for fusion in fusions:
        found[fusion] = lambda text, fusion=fusion: docs.hybrid_search(  # type: ignore[misc]
            text, 100, queries={"dense": vectors[text]}, fusion=fusion
        )
    return found


def reference(docs: pgvec.Collection, name: str) -> dict[str, list[str]]:
    """Return the rankings of bm25s for the same tokens."""
    import bm25s

    tokens = "SELECT u.lexeme FROM unnest({}) u, generate_series(1, cardinality(u.positions))"
    with psycopg.connect(docs.database.dsn) as connection:
        rows = connection.execute(
            f"SELECT d.document_id, ARRAY({tokens.format('d.tsv')}) FROM bench_{name} d".encode()
        ).fetchall()
        queries = {
            id: connection.execute(
                f"SELECT ARRAY({tokens.format('''to_tsvector('english', %s)''')})".encode(), [text]
            ).fetchone()
            for id, text in read_queries(SETS / name / "queries.jsonl").items()
        }
    memory = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    memory.index([words for _, words in rows], show_progress=False)
    return {
        id: [rows[place][0] for place in memory.retrieve([found[0]], k=100, show_progress=False)[0][0]]
        for id, found in queries.items()
        if found is not None
    }


def quality(database: pgvec.Database, name: str, fusions: list[str]) -> None:
    """Print what the modes reach, and what fitted weights add."""
    from pgvec_toolkit.evaluate.metrics import ndcg

    docs = loaded(database, name)
    queries, qrels = SETS / name / "queries.jsonl", SETS / name / "qrels" / "test.tsv"
    modes = searches(docs, name, fusions)
    evaluation = docs.evaluate(queries, qrels, modes=modes, progress=False)
    for row in evaluation.table():
        if row.metric == "ndcg@10":
            print(f"{name} {row.mode:10} nDCG@10 {row.mean:.4f} [{row.low:.4f}, {row.high:.4f}]")
    judged = read_qrels(qrels)
    ranked = reference(docs, name)
    means = [ndcg(ranked[id], judged[id], 10) for id in evaluation.queries]
    print(f"{name} bm25s      nDCG@10 {np.mean(means):.4f}")
    legs = {leg: modes[leg] for leg in ("dense", "keyword")}
    for fusion in fusions:
        fitted = fit_weights(docs, queries, qrels, legs=legs, fusion=fusion, progress=False)
        weights = ", ".join(f"{leg} {weight:.2f}" for leg, weight in fitted.weights.items())
        held_out = f"held out {fitted.held_out:.4f}, default {fitted.held_out_default:.4f}"
        print(f"{name} {fusion:8} fitted {weights}; {held_out}")


def speed(database: pgvec.Database, count: int) -> None:
    """Print the times of a hybrid search and of its legs at the same depth."""
    packages = debian.loaded(database)
    texts = [str(title) for title in json.loads((debian.DATA / "queries.json").read_text())]
    vectors = debian.queries()
    packages.tune(0.95, k=100, queries=vectors[:200], progress=False)
    runs: dict[str, Run] = {
        "hybrid": lambda i: packages.hybrid_search(texts[i], 10, queries={"dense": vectors[i]}),
        "dense": lambda i: packages.search(vectors[i], 100),
        "keyword": lambda i: packages.keyword_search(texts[i], 100),
    }
    times, _ = in_turn(runs, count, 20)
    took = {name: median(each) for name, each in times.items()}
    print(", ".join(f"{name} {each:.2f} ms" for name, each in took.items()), end="; ")
    print(f"hybrid / sum of its legs: {took['hybrid'] / (took['dense'] + took['keyword']):.2f}")


def main() -> None:
    """Compare quality, then times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fusion", nargs="+", default=["rrf", "relative", "dbsf"])
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    with debian.connect() as database:
        for name in ("scifact", "cranfield"):
            quality(database, name, arguments.fusion)
        speed(database, arguments.queries)


if __name__ == "__main__":
    main()
