"""Spaces of sparse vectors: filled, searched, indexed and explained, with an encoder of the tests' own and a SPLADE."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from pgvector import SparseVector

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.embed.base import Pruned
from pgvec_toolkit.errors import EmbeddingError, IndexBuildError, InvalidRecord
from pgvec_toolkit.ingest import space_embedding
from pgvec_toolkit.ingest.space_embedding import Embedded
from tests.sparse_words import VOCABULARY, SparseWords
from tests.words import WordEmbedder

TEXTS = ["rotate the keys", "cook pasta in salt water", "the train to paris", "renew the credentials", "a lazy dog dog"]


@pytest.fixture
def docs(db: Database, embedder: WordEmbedder) -> Collection:
    """Five chunks in a dense space, and a sparse one that is empty."""
    made = db.create_collection("docs", embedder=embedder)
    made.upsert([{"id": f"d{row}", "text": text} for row, text in enumerate(TEXTS)])
    made.add_space("splade", embedder=SparseWords())
    return made


def found(hits: Any) -> list[str]:
    return [hit.id for hit in hits]


def stored(collection: Collection) -> set[str]:
    rows = collection._database.fetch("SELECT d.id FROM docs d JOIN docs_splade USING (key)")
    return {id for (id,) in rows}


# -- filling ---------------------------------------------------------------------------------------


def test_a_sparse_embedder_as_the_default(db: Database) -> None:
    docs = db.create_collection("docs", embedder=SparseWords(most=2))
    assert (docs.space.type, docs.space.distance, docs.space.dimensions) == ("sparsevec", "inner_product", 16)
    docs.upsert([{"id": f"d{row}", "text": text} for row, text in enumerate(TEXTS)])
    assert docs.embedder.pruned == Pruned(5, 8)  # type: ignore[attr-defined]
    assert found(docs.search("lazy dog", k=1)) == ["d4"]
    assert docs.search("lazy dog", k=1)[0].score == 1
    done = docs.ingest([{"id": "more", "text": "water train to paris"}])
    assert (done.chunks, done.pruned_vectors, done.pruned_entries) == (1, 1, 2)
    done = docs.ingest([{"id": "more", "text": "water train to paris"}])
    assert (done.chunks, done.pruned_vectors, done.pruned_entries) == (0, 0, 0)


def test_a_space_is_embedded_and_searched_by_text(docs: Collection) -> None:
    assert docs.search("dog", space="splade") == []
    assert docs.embed_space("splade") == Embedded(5)
    assert docs.embed_space("splade") == Embedded(0)
    hits = docs.search("lazy dog", k=2, space="splade")
    assert [(hit.id, hit.score, hit.distance) for hit in hits][:1] == [("d4", 3, -3)]
    assert docs.search("lazy dog", k=1, space="splade", where={"id": "d0"})[0].id == "d0"
    fused = docs.hybrid_search("the keys", k=3, legs=["dense", "keyword", "splade"])
    assert found(fused)[0] == "d0"
    assert set(fused[0].legs) == {"dense", "keyword", "splade"}
    assert (fused[0].legs["splade"]["rank"], fused[0].legs["splade"]["score"]) == (1, 2)
    many = docs.search_many(["lazy dog", "cook"], 1, space="splade")
    assert [found(each) for each in many] == [["d4"], ["d1"]]
    assert len(docs.similar("d0", k=2, space="splade")) == 2


def test_what_is_interrupted_goes_on(db: Database, docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_embedding, "_TEXTS_AT_ONCE", 2)
    docs._given["splade"] = SparseWords(failing_after=1)
    with pytest.raises(KeyboardInterrupt):
        docs.embed_space("splade")
    assert stored(docs) == {"d0", "d1"}
    rest = SparseWords()
    docs = db.collection("docs")
    docs._given["splade"] = rest
    assert docs.embed_space("splade", progress=True) == Embedded(3)
    assert rest.batches == 2


def test_chunks_that_come_later_and_blank_ones(docs: Collection) -> None:
    docs.embed_space("splade")
    docs.upsert([{"id": "blank", "text": " \n"}, {"id": "new", "text": "salt"}])
    docs.upsert({"id": ["bare"], "vector": np.ones((1, 64))})
    assert docs.embed_space("splade") == Embedded(1)
    assert stored(docs) == {"d0", "d1", "d2", "d3", "d4", "new"}


def test_a_chunk_that_gets_another_text_loses_what_was_made_of_the_old_one(docs: Collection) -> None:
    docs.add_space("own", dimensions=2)
    docs.set_vectors("own", ["d0", "d1"], np.ones((2, 2)))
    docs.embed_space("splade")
    docs.upsert([{"id": "d0", "text": "lazy paris"}, {"id": "d1", "text": TEXTS[1], "note": "new"}])
    assert stored(docs) == {"d1", "d2", "d3", "d4"}
    assert docs.embed_space("splade") == Embedded(1)
    assert found(docs.search("lazy paris", k=1, space="splade")) == ["d0"]
    assert len(docs.search([1, 1], space="own")) == 2  # nobody knows what these were made of


def test_chunks_that_change_while_they_are_embedded_are_left_for_the_next_time(docs: Collection, db: Database) -> None:
    class Overtaken(SparseWords):
        def embed_documents(self, texts: Sequence[str]) -> list[SparseVector]:
            if not self.batches:
                other = db.collection("docs", embedder=WordEmbedder())
                other.upsert([{"id": "d0", "text": "lazy paris"}])
                other.delete(["d1"])
            return super().embed_documents(texts)

    docs._given["splade"] = Overtaken()
    assert docs.embed_space("splade") == Embedded(3)
    assert stored(docs) == {"d2", "d3", "d4"}
    assert docs.embed_space("splade") == Embedded(1)
    assert found(docs.search("lazy paris", k=1, space="splade")) == ["d0"]


def test_what_is_pruned_is_told(docs: Collection) -> None:
    docs.drop_space("splade")
    docs.add_space("splade", embedder=SparseWords(most=2))
    assert docs.embed_space("splade") == Embedded(5, pruned_vectors=5, pruned_entries=8)
    assert docs.embed_space("splade") == Embedded()


def test_vectors_without_entries_are_stored_and_come_last(docs: Collection) -> None:
    docs.upsert([{"id": "none", "text": "quick brown fox"}])
    docs.embed_space("splade")
    docs.create_index(space="splade")
    hits = docs.search("dog", k=6, space="splade")
    assert found(hits)[0] == "d4"
    assert {hit.id: hit.score for hit in hits}["none"] == 0
    assert {hit.score for hit in docs.search("unknown words", k=6, space="splade")} == {0}


def test_a_vector_that_cannot_be_stored_is_told_by_its_chunk(docs: Collection) -> None:
    docs.add_space("cosine", embedder=SparseWords(), distance="cosine")
    docs.upsert([{"id": "none", "text": "quick brown fox"}])
    with pytest.raises(EmbeddingError, match="embedder test/sparse: its vector of chunk 'none' is zero"):
        docs.embed_space("cosine")


# -- indexes ---------------------------------------------------------------------------------------


def test_more_entries_than_an_index_holds(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=2)
    docs.add_space("splade", dimensions=3000, type="sparsevec", distance="inner_product")
    docs.upsert({"id": ["a", "b"], "vector": np.ones((2, 2))})
    many, few = (SparseVector(dict.fromkeys(range(count), 1.0), 3000) for count in (1001, 1000))
    docs.set_vectors("splade", ["a"], [many])
    with pytest.raises(IndexBuildError, match=r"more than 1000 non-zero elements.*Keep the 1,000 largest numbers"):
        docs.create_index(space="splade")
    docs.set_vectors("splade", ["a"], [few])
    docs.create_index(space="splade")
    problem = "has 1,001 non-zero numbers, and the HNSW index of its space holds 1,000: keep the largest, or drop"
    with pytest.raises(InvalidRecord, match=f"row 1, field 'vector': {problem}"):
        docs.set_vectors("splade", ["a", "b"], [few, many])
    alone = db.create_collection("alone", dimensions=3000, type="sparsevec", distance="inner_product")
    alone.create_index()
    for _ in range(2):
        with pytest.raises(InvalidRecord, match=f"row 1, field 'vector': {problem}"):
            alone.upsert({"id": ["a", "b"], "vector": [few, many]})
        assert len(alone) < 2
        alone.upsert({"id": ["b"], "vector": [few]})


# -- explained -------------------------------------------------------------------------------------


def test_what_two_vectors_have_in_common(connection: psycopg.Connection) -> None:
    def overlap(query: str, document: str) -> list[Any]:
        return connection.execute("SELECT * FROM pgvec.sparse_overlap(%s, %s)", [query, document]).fetchall()

    assert overlap("{1:2,3:1,4:-1}/5", "{1:0.5,2:1,3:4,4:1}/5") == [(3, 4), (1, 1), (4, -1)]
    assert overlap("{1:1e-05}/5", "{1:2}/5") == [(1, pytest.approx(2e-5))]
    assert overlap("{1:1}/5", "{2:1}/5") == overlap("{}/5", "{2:1}/5") == overlap("{}/5", "{}/5") == []
    assert connection.execute("SELECT * FROM pgvec.sparse_overlap(NULL, '{1:1}/5')").fetchall() == []
    with pytest.raises(psycopg.Error, match="the vectors have 5 and 6 dimensions") as caught:
        overlap("{1:1}/5", "{1:1}/6")
    assert caught.value.sqlstate == "PV005"


def test_the_words_that_match_are_explained(docs: Collection, connection: psycopg.Connection) -> None:
    docs.embed_space("splade")
    by_python = docs.explain("the lazy dog", space="splade", where={"id": {"$in": ["d4", "d0", "d1"]}}).splitlines()[
        -3:
    ]
    assert by_python == [
        "Hit 1, d4: dog (2.00), lazy (1.00)",
        "Hit 2, d0: the (1.00)",
        "Hit 3, d1: nothing in common",
    ]
    lines = connection.execute("SELECT pgvec.explain('docs', '{1:3,2:1}/16', space => 'splade')").fetchall()
    assert lines[-3][0] == "Hit 1, d0: 1 (3.00), 2 (1.00)"
    docs.create_index(space="splade")
    assert docs.explain("paris", k=1, space="splade").splitlines()[-1] == "Hit 1, d2: paris (1.00)"
    vector = SparseWords().embed_query("paris")
    assert (
        Collection.open(docs._database, "docs", embedder=None)
        .explain(vector, k=1, space="splade")
        .endswith(f"Hit 1, d2: {VOCABULARY.index('paris') + 1} (1.00)")
    )
    assert "Hit 1" not in docs.explain("paris")


def test_many_words_are_cut(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=20, type="sparsevec")
    docs.upsert({"id": ["a: 1 (2)"], "vector": [dict.fromkeys(range(10), 1.0)]})
    line = docs.explain(dict.fromkeys(range(20), 1.0)).splitlines()[-1]
    assert line.startswith("Hit 1, a: 1 (2): 1 (1.00), 2 (1.00)")
    assert line.endswith("8 (1.00) and 2 more")


# -- with a model ----------------------------------------------------------------------------------


@pytest.mark.embedding
def test_a_splade_from_adding_to_explaining(db: Database, embedder: WordEmbedder, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
    from pgvec_toolkit.embed.sparse import SparseEncoderEmbedder
    from tests import tiny_models

    name = tiny_models.tiny_sparse_encoder(tmp_path / "sparse")
    docs = db.create_collection("docs", embedder=embedder)
    docs.upsert([{"id": text, "text": text} for text in TEXTS])
    docs.add_space("splade", embedder=SparseEncoderEmbedder(name, most=40))
    done = docs.embed_space("splade")
    assert (done.chunks, done.pruned_vectors, done.pruned_entries > 0) == (5, 5, True)
    docs.create_index(space="splade")
    again = db.collection("docs", embedder=embedder)  # the space's own is loaded by what the registry has
    again.upsert([{"id": "new", "text": "fox"}])
    assert again.embed_space("splade").pruned_vectors == 1
    model = SparseEncoderEmbedder(name, most=40)
    query = model.embed_query("rotate")
    scores = {text: sum(model.matched_terms(query, model.embed_documents([text])[0]).values()) for text in TEXTS}
    hits = again.search("rotate", k=6, space="splade", exact=True)
    assert {hit.id: hit.score for hit in hits if hit.id != "new"} == pytest.approx(scores, rel=1e-4)
    best = model.matched_terms(query, model.embed_documents([hits[0].text or ""])[0])
    shown = next(line for line in again.explain("rotate", space="splade", exact=True).splitlines() if "Hit 1" in line)
    words = re.findall(r"(\S+) \(", shown.removeprefix(f"Hit 1, {hits[0].id}: "))
    assert words == list(best)[: len(words)]
    assert len(words) == 8
    fused = again.hybrid_search("rotate", k=3, legs=["dense", "keyword", "splade"])
    assert len(fused) == 3
    # a default embedder with pruning of its own is found again by the model's name, with or without its prefix
    alone = db.create_collection("alone", embedder=SparseEncoderEmbedder(name, most=7))
    alone.upsert([{"id": "a", "text": "rotate"}])
    for given in (name, f"sparse:{name}"):
        opened = db.collection("alone", embedder=given)
        assert found(opened.search("rotate")) == ["a"]
        assert opened.embedder.most == 7  # type: ignore[attr-defined]


# -- real vectors ----------------------------------------------------------------------------------


def test_recall_on_real_splade_vectors(db: Database, shared_data: Path) -> None:
    weights = splade_vectors(shared_data, 660)
    vocabulary = {token: at for at, token in enumerate(sorted({token for each in weights for token in each}))}
    vectors = [SparseVector({vocabulary[t]: float(n) for t, n in each.items()}, len(vocabulary)) for each in weights]
    stored, queries, examples = vectors[:600], vectors[600:620], vectors[620:]
    docs = db.create_collection(
        "docs", dimensions=len(vocabulary), type="sparsevec", distance="inner_product", keywords=False
    )
    docs.upsert({"id": list(range(600)), "vector": stored})
    matrix = np.stack([vector.to_numpy() for vector in stored]).astype(np.float64)
    truths = [np.sort(matrix @ query.to_numpy())[::-1][:10] for query in queries]
    exact = docs.search_many(queries, 10, exact=True)
    for hits, truth in zip(exact, truths, strict=True):
        assert [hit.score for hit in hits] == pytest.approx(truth.tolist(), rel=1e-6)
    docs.create_index()
    assert docs.tune(0.9, queries=examples).recall >= 0.9
    tuned = docs.search_many(queries, 10)
    shares = [np.mean([hit.score >= truth[-1] for hit in hits]) for hits, truth in zip(tuned, truths, strict=True)]
    assert np.mean(shares) >= 0.75  # the target, less what chance may take of 20 queries


def splade_vectors(shared_data: Path, count: int) -> list[Counter[str]]:
    """Return vectors by SPLADE++ of queries: a token is there as often as its weight says."""
    path = shared_data / "splade" / "topics.msmarco-passage.dev-subset.splade-pp-ed.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [Counter(next(file).partition("\t")[2].split()) for _ in range(count)]
