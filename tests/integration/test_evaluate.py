"""Searches judged by labelled queries: the figures by hand, the counts, the files, fitted weights."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, MissingDependency, TuningError
from pgvec_toolkit.evaluate.beir import read_run, write_qrels, write_queries
from pgvec_toolkit.evaluate.evaluation import documents, evaluate
from pgvec_toolkit.evaluate.fit import fit_weights
from pgvec_toolkit.evaluate.metrics import ndcg
from pgvec_toolkit.search.hit import Hit, Hits
from tests.words import WordEmbedder

DOCUMENTS = 60
_random = np.random.default_rng(3)
_WORDS = ["".join(letters) for letters in _random.choice(list("abcdefghijklmnopqrstuvwxyz"), size=(400, 6))]
_TEXTS = [[" ".join(_random.choice(_WORDS, 12)) for _ in range(3)] for _ in range(DOCUMENTS)]
# A query shares words with one chunk of its document, and adds others.
QUERIES = {
    f"q{number}": " ".join([*_random.choice(_TEXTS[number][number % 3].split(), 3), *_random.choice(_WORDS, 3)])
    for number in range(40)
}
QRELS = {f"q{number}": {f"d{number}": 2, f"d{number + 1}": 1, f"d{number + 2}": 0} for number in range(40)}


class Embedder(WordEmbedder):
    """Shared words make texts near, and no two are equally near to a third."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        own = np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimensions)
        vector = super().embed_query(text) + 0.01 * own.astype(np.float32)
        return vector / np.linalg.norm(vector)


EMBEDDER = Embedder()


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    """Sixty documents of three chunks."""
    with janitor("t_evaluate", template), Database(make_conninfo(server_dsn, dbname="t_evaluate")) as database:
        collection = database.create_collection("docs", embedder=EMBEDDER)
        collection.upsert(
            [
                {"id": f"{document:02}#{position}", "document_id": f"d{document}", "position": position, "text": text}
                for document, texts in enumerate(_TEXTS)
                for position, text in enumerate(texts)
            ]
        )
        yield collection


def hits(*found: tuple[str, str, float | None]) -> Hits:
    """Hits of (id, document id, score)."""
    ranked = enumerate(found, 1)
    return Hits([Hit(id, document, None, {}, None, None, score, rank) for rank, (id, document, score) in ranked], "k")


def test_documents_are_ranked_by_their_best_chunk() -> None:
    found = hits(("a#1", "a", 0.9), ("b#0", "b", 0.8), ("a#0", "a", 0.7), ("c#0", "c", 0.7))
    assert documents(found) == [("a", 0.9), ("b", 0.8), ("c", 0.7)]
    assert documents(hits()) == []


def test_scores_of_a_run_give_its_order() -> None:
    assert documents(hits(("a", "a", 0.5), ("b", "b", None))) == [("a", 1), ("b", 1 / 2)]
    assert documents(hits(("a", "a", 0.5), ("b", "b", 0.6), ("c", "c", 0.1))) == [("a", 1), ("b", 1 / 2), ("c", 1 / 3)]


def test_modes_are_compared_with_the_first(docs: Collection) -> None:
    stored = [(f"d{document}", EMBEDDER.embed_query(text)) for document, texts in enumerate(_TEXTS) for text in texts]

    def by_hand(text: str) -> list[str]:
        query = EMBEDDER.embed_query(text)
        near = sorted(stored, key=lambda chunk: -float(chunk[1] @ query))
        return list(dict.fromkeys(document for document, _ in near))

    evaluation = evaluate(
        docs,
        QUERIES,
        QRELS,
        modes={"dense": "dense", "again": "dense", "backwards": lambda text: Hits(docs.search(text, 180)[::-1], "k")},
    )
    expected = [ndcg(by_hand(text), QRELS[id], 10) for id, text in QUERIES.items()]
    assert [each["ndcg@10"] for each in evaluation.results["dense"].values()] == pytest.approx(expected)
    dense, again, backwards = evaluation.table()[:3]
    assert [dense.mode, again.mode, backwards.mode] == evaluation.modes == ["dense", "again", "backwards"]
    assert {row.metric for row in (dense, again, backwards)} == {"ndcg@10"}
    assert dense.mean == pytest.approx(np.mean(expected))
    assert dense.low < dense.mean < dense.high
    assert (dense.difference, dense.difference_low, dense.difference_high, dense.differs) == (None,) * 4
    assert (again.mean, again.low, again.high) == (dense.mean, dense.low, dense.high)
    assert (again.difference, again.difference_low, again.difference_high, again.differs) == (0, 0, 0, False)
    assert backwards.difference == pytest.approx(backwards.mean - dense.mean)
    assert backwards.difference_low is not None
    assert backwards.difference_high is not None
    assert backwards.difference_low < backwards.difference_high < 0
    assert backwards.differs
    assert (evaluation.skipped, evaluation.unknown, evaluation.absent) == (0, 0, 0)


def test_the_named_modes(docs: Collection) -> None:
    evaluation = evaluate(docs, QUERIES, QRELS, modes=("dense", "keyword", "hybrid", "space:dense"))
    dense, keyword, hybrid, space = (evaluation.runs[mode] for mode in evaluation.modes)
    assert dense == space
    for id, text in QUERIES.items():
        assert keyword[id] == documents(docs.keyword_search(text, 100))
        assert hybrid[id] == documents(docs.hybrid_search(text, 100))
    assert evaluation.results["hybrid"].keys() == QUERIES.keys()


def test_what_is_not_judged_is_counted(docs: Collection) -> None:
    queries = {"q0": QUERIES["q0"], "q1": QUERIES["q1"], "zero": "x", "unjudged": "x"}
    qrels = {
        "q0": {"d0": 1, "gone": 1, "gone too": 0},
        "q1": {"d1": 1},
        "zero": {"d0": 0, "d1": -1},
        "other": {"gone": 1},
    }
    evaluation = evaluate(docs, queries, qrels, modes=["dense"], k=5)
    assert evaluation.queries == ["q0", "q1"]
    assert (evaluation.skipped, evaluation.unknown, evaluation.absent) == (2, 1, 1)
    assert evaluation.results["dense"]["q0"]["recall@5"] <= 0.5
    assert evaluation.short == {"dense": 0}
    chunks = hits(("a", "a", 5), ("b", "b", 4), ("c", "a", 3))
    shallow = evaluate(
        docs, queries, qrels, modes={"full": lambda _: chunks, "end": lambda _: Hits(chunks[:2], "k")}, k=3, depth=3
    )
    assert shallow.short == {"full": 2, "end": 0}  # three chunks of two documents; two chunks, there are no more
    assert json.loads(json.dumps(evaluation.to_dict()))["queries"] == 2


def test_files_in_and_out(docs: Collection, tmp_path: Path) -> None:
    write_queries(tmp_path / "queries.jsonl", QUERIES)
    write_qrels(tmp_path / "qrels.tsv", QRELS)
    modes = {"space:a/b": "dense", "dense": "dense"}
    evaluation = evaluate(docs, tmp_path / "queries.jsonl", str(tmp_path / "qrels.tsv"), modes=modes)
    assert evaluation == evaluate(docs, QUERIES, QRELS, modes=modes)
    first, second = evaluation.write_runs(tmp_path / "new" / "runs")
    assert (first.name, second.name) == ("space%3Aa%2Fb.run", "dense.run")
    assert read_run(second) == evaluation.runs["dense"]
    with pytest.raises(ConfigurationError, match="cannot make folder"):
        evaluation.write_runs(tmp_path / "qrels.tsv")


def test_a_picture(docs: Collection, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    evaluation = evaluate(docs, QUERIES, QRELS, modes={"_a": "dense", "b$": lambda text: docs.search(text, 20)})
    evaluation.plot(tmp_path / "figure")
    assert (tmp_path / "figure").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigurationError, match="cannot write"):
        evaluation.plot(tmp_path / "absent" / "figure.png")


def test_a_picture_without_matplotlib(docs: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    evaluation = evaluate(docs, QUERIES, QRELS, modes=["dense"])
    with pytest.raises(MissingDependency, match=r"pgvec-toolkit\[plot\]"):
        evaluation.plot(tmp_path / "figure.png")


def test_what_cannot_be_evaluated_is_refused(docs: Collection) -> None:
    with pytest.raises(ConfigurationError, match="none of the 40 queries is judged"):
        evaluate(docs, QUERIES, {"q0": {"d0": 0}, "other": {"d0": 1}}, modes=["dense"])
    with pytest.raises(ConfigurationError, match="unknown mode 'sparse': there are dense, keyword, hybrid and space:"):
        evaluate(docs, QUERIES, QRELS, modes=["dense", "sparse"])
    for modes in ("dense", [], {}):
        with pytest.raises(ConfigurationError, match="a list of at least one"):
            evaluate(docs, QUERIES, QRELS, modes=modes)
    with pytest.raises(CollectionNotFound, match="title"):
        evaluate(docs, QUERIES, QRELS, modes=["space:title"])
    for k in (0, 101):
        with pytest.raises(ConfigurationError, match="k must be from 1 to the depth of 100"):
            evaluate(docs, QUERIES, QRELS, modes=["dense"], k=k)


# -- fitted weights ----------------------------------------------------------------------------------


def noise(_: str) -> Hits:
    """Chunks that have nothing to do with the query."""
    return hits(*((f"{59 - rank}#0", f"d{59 - rank}", 1 - rank / 30) for rank in range(30)))


@pytest.mark.parametrize("fusion", ["rrf", "relative", "dbsf", "weighted"])
def test_the_better_leg_gets_the_weight(docs: Collection, fusion: str) -> None:
    legs = {"dense": "dense", "noise": noise}
    fitted = fit_weights(docs, QUERIES, QRELS, fusion=fusion, legs=legs, depth=30)
    assert fitted.weights["dense"] > 0.7
    assert sum(fitted.weights.values()) == pytest.approx(1)
    assert (fitted.train_queries, fitted.held_out_queries, fitted.metric) == (20, 20, "ndcg@10")
    assert fitted.train >= fitted.train_default
    assert fitted.difference == pytest.approx(fitted.held_out - fitted.held_out_default)
    assert fitted.difference_low <= fitted.difference <= fitted.difference_high
    assert fitted == fit_weights(docs, QUERIES, QRELS, fusion=fusion, legs=legs, depth=30)
    assert json.loads(json.dumps(fitted.to_dict()))["weights"] == fitted.weights


def test_three_legs(docs: Collection) -> None:
    legs = {"one": noise, "two": "dense", "three": lambda _: Hits([], "complete")}
    some = dict(list(QUERIES.items())[:25])
    fitted = fit_weights(docs, some, QRELS, legs=legs, metric="mrr@5", train=0.6, depth=30)
    assert fitted.weights["two"] > fitted.weights["one"]
    assert (fitted.train_queries, fitted.held_out_queries) == (15, 10)


def test_fitted_is_what_hybrid_searches_get(docs: Collection) -> None:
    # Equal scores go by id here and by row there: these ids are in the order of the rows.
    fitted = fit_weights(docs, QUERIES, QRELS, depth=30)
    searched = evaluate(
        docs,
        QUERIES,
        QRELS,
        modes={
            "default": lambda text: docs.hybrid_search(text, 30, depth=30),
            "fitted": lambda text: docs.hybrid_search(text, 30, depth=30, weights=fitted.weights),
        },
    )
    default, weighted = (row.mean for row in searched.table()[:2])
    assert (fitted.train_default + fitted.held_out_default) / 2 == pytest.approx(default)
    assert (fitted.train + fitted.held_out) / 2 == pytest.approx(weighted)


def test_what_cannot_be_fitted_is_refused(docs: Collection) -> None:
    legs = {"a": "dense", "b": "dense"}
    few = dict(list(QUERIES.items())[:19])
    with pytest.raises(TuningError, match=r"of 19, a share of 0\.5 leaves"):
        fit_weights(docs, few, QRELS, legs=legs)
    for train in (0, 1, 2, -1):
        with pytest.raises(TuningError, match=f"a share of {train} leaves"):
            fit_weights(docs, QUERIES, QRELS, legs=legs, train=train)
    with pytest.raises(ConfigurationError, match="at least two legs"):
        fit_weights(docs, QUERIES, QRELS, legs=["dense"])
    with pytest.raises(CollectionNotFound, match="title"):
        fit_weights(docs, QUERIES, QRELS, legs=["title", "keyword"])
    with pytest.raises(ConfigurationError, match="unknown metric 'f1@10'"):
        fit_weights(docs, QUERIES, QRELS, legs=legs, metric="f1@10")
    with pytest.raises(ConfigurationError, match="nonsense"):
        fit_weights(docs, QUERIES, QRELS, legs=legs, fusion="nonsense")
