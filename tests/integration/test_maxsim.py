"""Late interaction: the sum of the best similarities, a search in two stages, and a real encoder of tokens."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError
from tests.conftest import random_vectors

Floats = NDArray[Any]
ROWS, FIRST, TOKENS, K = 300, 12, 6, 10


def maxsim(query: Floats, document: Floats, distance: str = "inner_product") -> float:
    """Return late interaction by the book."""
    q, d = query.astype(np.float64), document.astype(np.float64)
    if distance == "cosine":
        q, d = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (q, d))
    return float((q @ d.T).max(axis=1).sum())


def in_sql(connection: psycopg.Connection[Any], query: Any, document: Any, *distance: str) -> float | None:
    arguments = ", ".join(["%s::vector[]", "%s::vector[]", *["cosine => %s"] * len(distance)])
    given = [query, document, *[each == "cosine" for each in distance]]
    row = connection.execute(f"SELECT pgvec.maxsim({arguments})".encode(), given).fetchone()
    assert row is not None
    return None if row[0] is None else float(row[0])


def array(vectors: Floats) -> str:
    return "{" + ",".join(f'"{vector.tolist()}"' for vector in vectors) + "}"


# -- the function --------------------------------------------------------------------------------

BY_HAND: list[tuple[str, str, str, float]] = [
    ('{"[1,0]"}', '{"[1,0]"}', "inner_product", 1),
    ('{"[1,0]","[0,1]"}', '{"[1,0]","[0.6,0.8]"}', "inner_product", 1.8),
    ('{"[1,0]","[1,0]"}', '{"[2,0]"}', "inner_product", 4),  # equal tokens count twice
    ('{"[1,0]","[1,0]"}', '{"[2,0]"}', "cosine", 2),
    ('{"[1,0]"}', '{"[-3,0]","[-1,0]"}', "inner_product", -1),
    ('{"[1,0]"}', '{"[-3,0]","[0,5]"}', "cosine", 0),
    ('{"[3,4]"}', '{"[1,0]","[0,1]"}', "cosine", 0.8),
    ('{"[3,4]"}', '{"[1,0]","[0,1]"}', "inner_product", 4),
]


@pytest.mark.parametrize(("query", "document", "distance", "expected"), BY_HAND)
def test_by_hand(connection: psycopg.Connection, query: str, document: str, distance: str, expected: float) -> None:
    assert in_sql(connection, query, document, distance) == pytest.approx(expected, abs=1e-6)
    if distance == "inner_product":
        assert in_sql(connection, query, document) == in_sql(connection, query, document, distance)


def test_what_is_missing_has_no_score(connection: psycopg.Connection) -> None:
    some = '{"[1,0]"}'
    for query, document in ((None, some), (some, None), ("{}", some), (some, "{}"), (None, None), ("{}", "{}")):
        assert in_sql(connection, query, document) is None
        assert in_sql(connection, query, document, "cosine") is None


def test_against_numpy(connection: psycopg.Connection) -> None:
    random = np.random.default_rng(2)
    for _ in range(40):
        query, document = (random.normal(size=(random.integers(1, 9), 5)).astype(np.float32) for _ in range(2))
        for distance in ("inner_product", "cosine"):
            found = in_sql(connection, array(query), array(document), distance)
            assert found == pytest.approx(maxsim(query, document, distance), rel=1e-5, abs=1e-5)


def test_a_token_without_direction_counts_nothing(connection: psycopg.Connection) -> None:
    assert in_sql(connection, '{"[1,0]","[0,1]"}', '{"[0,0]","[2,0]"}', "cosine") == 1


# -- the search ----------------------------------------------------------------------------------


def tokens_of(rows: int, seed: int = 3) -> list[Floats]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(random.integers(1, 12), TOKENS)).astype(np.float32) for _ in range(rows)]


def load(database: Database, distance: str, holes: bool = False) -> tuple[Collection, Floats, list[Floats]]:
    first, tokens = random_vectors(ROWS, FIRST), tokens_of(ROWS)
    docs = database.create_collection("docs", dimensions=FIRST, columns={"half": bool})
    names = [str(row) for row in range(ROWS)]
    docs.upsert({"id": names, "vector": first, "half": [row % 2 == 0 for row in range(ROWS)]})
    docs.add_space("tokens", dimensions=TOKENS, type="vector[]", distance=distance)
    kept = [row for row in range(ROWS) if not (holes and row % 4 == 0)]
    assert docs.set_vectors("tokens", [names[row] for row in kept], [tokens[row] for row in kept]) == len(kept)
    return docs, first, tokens


@pytest.mark.parametrize("distance", ["inner_product", "cosine"])
@pytest.mark.parametrize("index", [False, True])
def test_a_search_in_two_stages(db: Database, distance: str, index: bool) -> None:
    docs, first, tokens = load(db, distance)
    if index:
        docs.create_index(m=32)
    for seed in range(4):
        query, asked = random_vectors(1, FIRST, seed=20 + seed)[0], tokens_of(1, seed=30 + seed)[0]
        scores = np.asarray([maxsim(asked, each, distance) for each in tokens])
        order = np.argsort(1 - first @ query, kind="stable")
        for candidates, where in ((None, None), (25, None), (ROWS, None), (40, {"half": True}), (3, None)):
            matching = [row for row in order.tolist() if where is None or row % 2 == 0]
            pool = matching[: max(K, candidates or 100)]
            expected = sorted(pool, key=lambda row: -scores[row])[:K]
            hits = docs.maxsim(query, asked, K, where, space="tokens", candidates=candidates)
            assert [int(hit.id) for hit in hits] == expected
            np.testing.assert_allclose([hit.score for hit in hits], scores[expected], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose([hit.distance for hit in hits], (1 - first @ query)[expected], atol=1e-5)
            assert [hit.similarity for hit in hits] == pytest.approx([1 - hit.distance for hit in hits])
            assert [hit.rank for hit in hits] == list(range(1, K + 1))
            assert hits.stopped_by == "k"
    assert docs.maxsim(query, asked, 400, space="tokens").stopped_by == "complete"
    assert docs.maxsim(query, asked, 3, {"half": None}, space="tokens") == []


def test_chunks_without_tokens_come_last(db: Database) -> None:
    docs, first, tokens = load(db, "inner_product", holes=True)
    query, asked = first[0], tokens_of(1, seed=9)[0]
    hits = docs.maxsim(query, asked, ROWS, space="tokens", candidates=ROWS)
    kept = [int(hit.id) for hit in hits if hit.score is not None]
    assert len(hits) == ROWS
    assert [int(hit.id) % 4 == 0 for hit in hits] == [False] * len(kept) + [True] * (ROWS - len(kept))
    assert kept == sorted(kept, key=lambda row: -maxsim(asked, tokens[row]))
    distances = [hit.distance for hit in hits[len(kept) :]]
    assert distances == sorted(distances)


def test_another_space_comes_first(db: Database, connection: psycopg.Connection) -> None:
    docs, first, tokens = load(db, "inner_product")
    names = [str(row) for row in range(ROWS)]
    docs.add_space("bits", dimensions=FIRST, type="bit")
    docs.set_vectors("bits", names[:50], first[:50] > 0)
    asked = tokens_of(1, seed=9)[0]
    hits = docs.maxsim(first[0] > 0, asked, K, space="tokens", first_space="bits")
    expected = sorted(range(50), key=lambda row: -maxsim(asked, tokens[row]))[:K]
    assert [int(hit.id) for hit in hits] == expected
    rows = connection.execute(
        "SELECT id FROM pgvec.maxsim_search('docs', %s, %s::vector[], 'tokens', k => %s, first_space => 'bits')",
        ["".join(str(int(bit)) for bit in first[0] > 0), array(asked), K],
    ).fetchall()
    assert [int(id) for (id,) in rows] == expected


def test_what_cannot_be_searched_for(db: Database, connection: psycopg.Connection) -> None:
    docs, first, _ = load(db, "cosine")
    one = np.ones((1, TOKENS))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tokens": np.ones((2, TOKENS + 1))}, r"has shape \(2, 7\)"),
        ({"tokens": np.ones(TOKENS)}, r"has shape \(6,\)"),
        ({"tokens": []}, "holds no vector"),
        ({"tokens": [[0] * TOKENS]}, "holds a vector that is zero"),
        ({"tokens": [[float("nan")] * TOKENS]}, "NaN"),
        ({"query": [1, 2]}, "the query vector"),
        ({"k": 0}, "k must be from 1"),
        ({"candidates": 0}, "candidates must be from 1"),
        ({"candidates": 10_001}, "candidates must be from 1"),
        ({"first_space": "tokens", "query": one}, "holds several vectors a chunk"),
    ]
    for given, problem in wrong:
        with pytest.raises(ConfigurationError, match=problem):
            docs.maxsim(**({"query": first[0], "tokens": one, "space": "tokens"} | given))
    with pytest.raises(CollectionNotFound):
        docs.maxsim(first[0], one, space="none")
    for tokens in ("{}", '{"[1,2]"}', '{"[1,1,1,1,1,1]","[1,2]"}', '{"[1,1,1,1,1,1]",NULL}', "{NULL}", None, "[1,2]"):
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(
                "SELECT * FROM pgvec.maxsim_search('docs', %s, %s::text::vector[], 'tokens')",
                [str(first[0].tolist()), tokens],
            )
        assert caught.value.sqlstate in ("PV005", "22P02"), tokens


def test_a_space_of_another_type_cannot_rescore(db: Database) -> None:
    docs, first, _ = load(db, "cosine")
    docs.add_space("bits", dimensions=FIRST, type="bit")
    for space, type in (("dense", "vector"), ("bits", "bit")):
        with pytest.raises(ConfigurationError, match=rf"'{space}' is of type {type}: maxsim needs .* vector\[\]"):
            docs.maxsim(first[0], first[:2], space=space)


# -- a real encoder of tokens ----------------------------------------------------------------------

WORDS = ["cat", "dog", "bird", "tree", "river", "train", "bread", "stone", "song", "night", "runs", "sings", "sleeps"]
WORDS += ["falls", "the", "a", "under", "over", "near", "by"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tiny ColBERT with random weights: a BERT, a projection, vectors of length 1; nothing is downloaded."""
    st = pytest.importorskip(
        "sentence_transformers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'"
    )
    if not hasattr(st, "MultiVectorEncoder"):
        pytest.skip("needs sentence-transformers 6")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("colbert")
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(folder)
        yield st.MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


@pytest.mark.embedding
def test_an_encoder_of_tokens(db: Database, encoder: Any) -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, size=random.integers(3, 9))) for _ in range(30)]
    tokens = encoder.encode_document(texts, convert_to_numpy=True, show_progress_bar=False)
    dimensions = tokens[0].shape[1]
    assert len({each.shape for each in tokens}) > 1
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(tokens), axis=1), 1, atol=1e-5)
    means = np.stack([each.mean(axis=0) for each in tokens])
    docs = db.create_collection("docs", dimensions=dimensions)
    names = [str(row) for row in range(30)]
    docs.upsert({"id": names, "text": texts, "vector": means})
    docs.add_space("tokens", dimensions=dimensions, type="vector[]")
    assert docs.set_vectors("tokens", names, tokens) == 30
    assert docs.set_vectors("tokens", names, tokens) == 0
    docs.create_index()
    for asked in ("the cat sleeps", texts[7], "a train near the river"):
        [vectors] = encoder.encode_query([asked], convert_to_numpy=True, show_progress_bar=False)
        scores = np.asarray([maxsim(vectors, each, "cosine") for each in tokens])
        hits = docs.maxsim(vectors.mean(axis=0), vectors, 5, space="tokens", candidates=30)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:5], atol=1e-4)
        np.testing.assert_allclose([scores[int(hit.id)] for hit in hits], np.sort(scores)[::-1][:5], atol=1e-4)
        if asked == texts[7]:
            assert hits[0].text == asked
            assert hits[0].score == pytest.approx(len(vectors), abs=1e-3)  # each token finds itself
