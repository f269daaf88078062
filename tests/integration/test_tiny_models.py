"""Rerankers, sparse encoders and prompts with models of random weights: what the real ones run through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest
from pgvector import SparseVector

from pgvec_toolkit.database import Database
from pgvec_toolkit.embed.base import checked, distance_of, fingerprint, vector_type_of
from pgvec_toolkit.embed.kinds import load
from pgvec_toolkit.embed.model import kind_of
from pgvec_toolkit.embed.registry import register
from pgvec_toolkit.embed.sentence_transformer import SentenceTransformerEmbedder
from pgvec_toolkit.embed.sparse import Pruned, SparseEncoderEmbedder
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, RerankError
from pgvec_toolkit.rerank.base import load as load_reranker
from pgvec_toolkit.rerank.cross_encoder import CrossEncoderReranker
from pgvec_toolkit.rerank.late_interaction import LateInteractionReranker
from pgvec_toolkit.rerank.stage import rerank
from tests import tiny_models

pytest.importorskip("sentence_transformers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
pytestmark = pytest.mark.embedding

TEXTS = ["rotate the keys", "cook pasta in salt water", "the train to paris", "renew credentials", "a lazy dog"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.tiny_bert(folder / "dense")
    tiny_models.tiny_sparse_encoder(folder / "sparse")
    tiny_models.tiny_cross_encoder(folder / "cross")
    tiny_models.tiny_multi_vector(folder / "late")
    return folder


@pytest.fixture
def sparse(models: Path) -> SparseEncoderEmbedder:
    return SparseEncoderEmbedder(str(models / "sparse"), batch_size=2)


# -- rerankers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "kind"), [("cross", CrossEncoderReranker), ("late", LateInteractionReranker)])
def test_rerankers_by_name(db: Database, models: Path, folder: str, kind: type) -> None:
    reranker = load_reranker(str(models / folder))
    assert isinstance(reranker, kind)
    scores = reranker.scores("rotate secrets", TEXTS)
    assert len(set(scores)) == len(TEXTS)
    assert all(type(score) is float for score in scores)
    alone = [reranker.scores("rotate secrets", [text])[0] for text in TEXTS]
    assert np.allclose(scores, alone, atol=1e-4)

    collection = db.create_collection("docs", dimensions=2)
    collection.upsert([{"id": text, "text": text, "vector": [1, rank]} for rank, text in enumerate(TEXTS)])
    hits = collection.search([1, 0], k=10)
    reranked = rerank(reranker, "rotate secrets", hits, 3, batch_size=2)
    best = sorted(zip(scores, TEXTS, strict=True), reverse=True)[:3]
    assert [hit.text for hit in reranked] == [text for _, text in best]
    assert [hit.score for hit in reranked] == pytest.approx([score for score, _ in best], abs=1e-4)
    assert [hit.first_rank for hit in reranked] == [TEXTS.index(text) + 1 for _, text in best]
    assert (reranked.reranked, reranked.stopped_by) == (True, "k")


def test_maxsim_is_the_sum_of_the_greatest_similarities(models: Path) -> None:
    reranker = LateInteractionReranker(str(models / "late"))
    query = reranker._model.encode_query("rotate keys", show_progress_bar=False).numpy()
    for text, score in zip(TEXTS, reranker.scores("rotate keys", TEXTS), strict=True):
        tokens = reranker._model.encode_document(text, show_progress_bar=False).numpy()
        assert score == pytest.approx((query @ tokens.T).max(axis=1).sum(), abs=1e-4)


def test_max_length_cuts_what_a_cross_encoder_reads(models: Path) -> None:
    reranker = CrossEncoderReranker(str(models / "cross"), max_length=8)
    cut, whole = reranker.scores("keys", ["the cat and the dog and the fox", "the cat and the train"])
    assert cut == pytest.approx(whole)
    assert len(set(load_reranker(str(models / "cross")).scores("keys", ["the cat and the dog", "the cat and"]))) == 2


def test_models_that_cannot_rerank(models: Path, tmp_path: Path) -> None:
    for folder, kind in (("dense", "SentenceTransformer"), ("sparse", "SparseEncoder")):
        with pytest.raises(ConfigurationError, match=f"is a {kind}, which cannot rerank: use a CrossEncoder"):
            load_reranker(str(models / folder))
    with pytest.raises(RerankError, match="has 3 labels: use one that gives a single score"):
        load_reranker(tiny_models.tiny_cross_encoder(tmp_path / "labels", labels=3)).scores("q", TEXTS)
    with pytest.raises(RerankError, match=r"cannot load model nobody/no-such-model.*Give the path of a folder"):
        load_reranker("nobody/no-such-model").scores("q", TEXTS)


# -- sparse encoders -------------------------------------------------------------------------------


def test_what_a_model_makes_is_known_without_its_weights(models: Path, tmp_path: Path) -> None:
    assert [kind_of(str(models / folder)) for folder in ("dense", "sparse")] == ["SentenceTransformer", "SparseEncoder"]
    assert kind_of(str(tmp_path)) is None
    (tmp_path / "config_sentence_transformers.json").write_text("{}")  # as the first versions wrote it
    assert kind_of(str(tmp_path)) == "SentenceTransformer"
    dense, found = load(str(models / "dense")), load(str(models / "sparse"))
    assert (vector_type_of(dense), distance_of(dense)) == (None, None)
    assert (vector_type_of(found), distance_of(found)) == ("sparsevec", "inner_product")
    assert load(f"sparse:{models}/sparse").name == found.name == f"sparse:{models}/sparse"
    late = load(str(models / "late"))
    assert (late.name, vector_type_of(late), distance_of(late)) == (
        f"colbert:{models}/late",
        "vector[]",
        "inner_product",
    )
    with pytest.raises(EmbeddingError, match="is a CrossEncoder, which makes no vector of a text"):
        load(str(models / "cross"))


def test_sparse_vectors_are_what_the_model_makes(sparse: SparseEncoderEmbedder) -> None:
    assert sparse.dimensions == len(tiny_models.vocabulary())
    vectors = sparse.embed_documents(TEXTS)
    expected = sparse._model.encode_document(TEXTS, show_progress_bar=False).to_dense().numpy()
    assert np.allclose([vector.to_numpy() for vector in vectors], expected, atol=1e-5)
    query = sparse.embed_query("rotate secrets").to_numpy()
    assert np.allclose(query, sparse._model.encode_query("rotate secrets").to_dense().numpy(), atol=1e-5)
    assert sparse.embed_documents([]) == []
    assert sparse.pruned == Pruned()


def test_only_the_largest_weights_are_kept_and_what_is_cut_is_counted(
    models: Path, sparse: SparseEncoderEmbedder
) -> None:
    pruning = SparseEncoderEmbedder(str(models / "sparse"), most=10)
    whole, cut = sparse.embed_documents(TEXTS), pruning.embed_documents(TEXTS)
    for before, after in zip(whole, cut, strict=True):
        largest = np.sort(before.to_numpy())[::-1][:10]
        assert sorted(after.values(), reverse=True) == pytest.approx(largest, abs=1e-5)
    assert pruning.pruned == Pruned(len(TEXTS), sum(len(vector.indices()) - 10 for vector in whole))
    assert len(pruning.embed_query("rotate").indices()) == 10
    assert pruning.pruned.vectors == len(TEXTS)
    for wrong in (0, 1001):
        with pytest.raises(
            ConfigurationError, match=f"most must be from 1 to 1,000, which an index holds, not {wrong}"
        ):
            SparseEncoderEmbedder("x", most=wrong)


def test_terms_explain_a_match(sparse: SparseEncoderEmbedder) -> None:
    document, query = sparse.embed_documents(TEXTS)[0], sparse.embed_query("rotate secrets")
    terms = sparse.terms(document)
    assert terms == pytest.approx(dict(sparse._model.decode(sparse._model.encode_document(TEXTS[0]))), abs=1e-5)
    assert list(terms.values()) == sorted(terms.values(), reverse=True)
    matched = sparse.matched_terms(query, document)
    assert set(matched) == set(terms) & set(sparse.terms(query))
    assert list(matched.values()) == sorted(matched.values(), reverse=True)
    assert sum(matched.values()) == pytest.approx(np.dot(query.to_numpy(), document.to_numpy()), rel=1e-5)
    assert sparse.matched_terms(query, SparseVector({}, sparse.dimensions)) == {}


def test_a_sparse_collection_is_searched_by_text(db: Database, models: Path) -> None:
    sparse = SparseEncoderEmbedder(str(models / "sparse"), most=40)
    db.create_collection("docs", dimensions=sparse.dimensions, type="sparsevec", distance="inner_product")
    collection = db.collection("docs", embedder=sparse)
    collection.create_index("hnsw")
    collection.upsert([{"id": text, "text": text} for text in TEXTS])
    collection.ingest([{"id": "blank#", "text": "fox"}])
    query, vectors = sparse.embed_query("rotate"), sparse.embed_documents(TEXTS)
    best = max(zip(vectors, TEXTS, strict=True), key=lambda pair: np.dot(pair[0].to_numpy(), query.to_numpy()))
    hits = [hit for hit in collection.search("rotate", k=6) if hit.text in TEXTS]
    assert hits[0].text == best[1]
    assert hits[0].score == pytest.approx(sum(sparse.matched_terms(query, best[0]).values()), rel=1e-4)


def test_a_sparse_embedder_is_loaded_again_as_it_was(connection: psycopg.Connection, models: Path) -> None:
    embedder = SparseEncoderEmbedder(str(models / "sparse"), most=7)
    register(connection, embedder)
    row = connection.execute("SELECT name, details, fingerprint FROM pgvec.models").fetchone()
    assert row is not None
    again = load(row[0], row[1])
    assert fingerprint(again) == row[2] != fingerprint(load(row[0]))
    assert again.embed_query("rotate") == embedder.embed_query("rotate")


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([SparseVector({0: 1}, 3)], "has 3 dimensions, not 4 dimensions"),
        ([SparseVector({0: float("nan")}, 4)], "contains NaN or infinity"),
        ([SparseVector({0: 1}, 4)] * 2, "returned 2 vectors for 1 texts"),
        (None, "something else than vectors"),
    ],
)
def test_sparse_output_that_does_not_fit(sparse: SparseEncoderEmbedder, vectors: object, problem: str) -> None:
    with pytest.raises(EmbeddingError, match=f"embedder sparse:.*{problem}"):
        checked(vectors, (1, 4), sparse)


# -- prompts ---------------------------------------------------------------------------------------


def test_prompts_are_put_before_texts_and_are_part_of_the_fingerprint(models: Path) -> None:
    name = str(models / "dense")
    plain = SentenceTransformerEmbedder(name)
    prompted = SentenceTransformerEmbedder(name, query_prompt="query: ", document_prompt="the passage: ")
    assert plain.details["prompts"] == {"query": "", "document": ""}
    assert prompted.details["prompts"] == {"query": "query: ", "document": "the passage: "}
    assert fingerprint(prompted) != fingerprint(plain) == fingerprint(SentenceTransformerEmbedder(name))
    assert np.allclose(prompted.embed_query("cat"), plain.embed_query("query: cat"), atol=1e-6)
    assert not np.allclose(prompted.embed_query("cat"), plain.embed_query("cat"), atol=1e-2)
    assert np.allclose(prompted.embed_documents(["cat"]), plain.embed_documents(["the passage: cat"]), atol=1e-6)
    assert (prompted.max_tokens, plain.max_tokens) == (tiny_models.LONGEST - 5, tiny_models.LONGEST - 2)
    assert prompted.details["max_tokens"] == plain.details["max_tokens"]


def test_a_models_own_prompts_win_over_those_of_its_family(tmp_path: Path) -> None:
    path = tiny_models.tiny_bert(tmp_path / "e5-base-v2")
    assert load(path).details["prompts"] == {"query": "query: ", "document": "passage: "}  # type: ignore[attr-defined]
    tiny_models.set_prompts(path, {"query": "search: ", "passage": "text: "})
    own = load(path)
    assert own.details["prompts"] == {"query": "search: ", "document": "text: ", "passage": "text: "}  # type: ignore[attr-defined]
    bare = SentenceTransformerEmbedder(path, query_prompt="", document_prompt="")
    assert np.allclose(own.embed_documents(["cat"]), bare.embed_documents(["text: cat"]), atol=1e-6)


@pytest.mark.parametrize("prompts", [{"query_prompt": "search: ", "document_prompt": "text: "}, {"query_prompt": ""}])
def test_a_collection_opened_by_name_has_the_prompts_it_was_made_with(
    db: Database, tmp_path: Path, prompts: dict[str, str]
) -> None:
    embedder = SentenceTransformerEmbedder(tiny_models.tiny_bert(tmp_path / "e5-small"), **prompts)
    db.create_collection("docs", embedder=embedder).upsert([{"id": text, "text": text} for text in TEXTS])
    again = db.collection("docs")
    found = again.search("rotate", k=3)
    assert np.allclose(again.embedder.embed_query("rotate"), embedder.embed_query("rotate"), atol=1e-6)
    assert fingerprint(again.embedder) == fingerprint(embedder)
    distances = 1 - embedder.embed_documents(TEXTS) @ embedder.embed_query("rotate")
    assert [hit.distance for hit in found] == pytest.approx(np.sort(distances)[:3], abs=1e-5)
    by_name = db.collection("docs", embedder=str(tmp_path / "e5-small"))  # has those prompts, too
    assert by_name.search("rotate", k=3) == found
    other = SentenceTransformerEmbedder(str(tmp_path / "e5-small"), query_prompt="another: ")
    with pytest.raises(EmbeddingError, match="another fingerprint"):
        db.collection("docs", embedder=other).search("rotate")
