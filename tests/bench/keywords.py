"""Keyword search: the answers of scoring every package? And its time beside ts_rank_cd over GIN, and bm25s in memory.

    python -m tests.bench.keywords [--queries N]

Queries are one to eight words drawn from the descriptions: as they come (common words more often), rare ones, and
the thirty commonest of all; and titles of packages.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import psycopg

import pgvec_toolkit as pgvec
from tests.bench import debian
from tests.bench.turns import Run, in_turn, prepared
from tests.bm25 import K1, B, Exhaustive, lexemes

K = 10
RANKED = """SELECT d.id, ts_rank_cd(d.tsv, q.query) FROM bench_debian d,
    CAST($1 AS tsquery) AS q (query) WHERE d.tsv @@ q.query ORDER BY 2 DESC LIMIT 10"""


def draw(exhaustive: Exhaustive, count: int) -> dict[str, list[str]]:
    """Return the queries of each kind."""
    chosen = random.Random(0)
    # What is an operator or several words to a query is none.
    plain = [lexeme for lexeme in exhaustive.places if lexeme.isalnum()]
    by_count = sorted(plain, key=lambda lexeme: -len(exhaustive.places[lexeme]))
    tokens = [token for each in exhaustive.tokens for token in each if token.isalnum()]
    titles = json.loads((debian.DATA / "queries.json").read_text())

    def several(words: Sequence[str]) -> list[str]:
        return [" ".join({chosen.choice(words) for _ in range(chosen.randint(1, 8))}) for _ in range(count)]

    return {
        "as they come": several(tokens),
        "rare": several(by_count[2000:]),
        "commonest": several(by_count[:30]),
        "titles": [str(title) for title in titles[:count] if '"' not in title],
    }


def compare(
    packages: pgvec.Collection,
    connection: psycopg.Connection[Any],
    exhaustive: Exhaustive,
    memory: Any,
    kind: str,
    texts: list[str],
) -> None:
    """Print how many answers are wrong, and times."""
    queries = [lexemes(connection, text) for text in texts]
    wrong = 0
    for text, words in zip(texts, queries, strict=True):
        truth = np.sort(exhaustive.scores(words))[::-1][:K]
        found = [hit.score for hit in packages.keyword_search(text, K)]
        wrong += len(found) != np.count_nonzero(truth) or not np.allclose(found, truth[truth > 0], rtol=1e-9)
    known = [i for i, words in enumerate(queries) if any(word in exhaustive.places for word in words)]

    def either(i: int) -> list[Any]:
        return [" | ".join("'" + word.replace("'", "''") + "'" for word in queries[known[i]])]

    runs: dict[str, Run] = {
        "pgvec": lambda i: packages.keyword_search(texts[known[i]], K),
        "ts_rank_cd": prepared(connection, RANKED, either),
        "bm25s": lambda i: memory.retrieve([queries[known[i]]], k=K, show_progress=False),
    }
    times, _ = in_turn(runs, min(200, len(known)), 20)
    print(f"{kind}: {wrong} of {len(texts)} differ from scoring everything")
    for name, took in times.items():
        slowest = f"p95 {np.quantile(took, 0.95):7.2f}  max {max(took):7.2f} ms"
        print(f"  {name:10} median {median(took):7.2f}  {slowest}")


def main() -> None:
    """Compare answers, then times."""
    import bm25s

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1000)
    count = parser.parse_args().queries
    with debian.connect() as database, psycopg.connect(database.dsn, autocommit=True) as connection:
        packages = debian.loaded(database)
        connection.execute("CREATE INDEX IF NOT EXISTS bench_debian_tsv ON bench_debian USING gin (tsv)")
        connection.execute("VACUUM ANALYZE bench_debian")
        exhaustive = Exhaustive(connection, "bench_debian")
        memory = bm25s.BM25(k1=K1, b=B, method="lucene")
        memory.index(exhaustive.tokens, show_progress=False)
        for kind, texts in draw(exhaustive, count).items():
            compare(packages, connection, exhaustive, memory, kind, texts)


if __name__ == "__main__":
    main()
