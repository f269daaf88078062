"""Reranking as the last stage of every search of a collection; the rerankers themselves are tested elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, RerankError
from pgvec_toolkit.rerank import spec
from pgvec_toolkit.rerank.spec import Rerank
from pgvec_toolkit.search.hit import Hits
from tests.words import WordEmbedder

COUNT = 60
Search = Callable[..., Hits]


def last_number_first(query: str, texts: Sequence[str]) -> list[float]:
    """Score texts by the number that they end with."""
    del query
    return [float(text.rpartition(" ")[2]) for text in texts]


@pytest.fixture
def docs(db: Database, embedder: WordEmbedder) -> Collection:
    """Chunks d0 to d59: the higher the number, the more other words are in them."""
    made = db.create_collection("docs", embedder=embedder, columns={"even": bool})
    made.upsert(
        {
            "id": f"d{number}",
            "text": f"rotate keys {'and then some more of it all ' * (number // 4)}{number}",
            "even": number % 2 == 0,
        }
        for number in range(COUNT)
    )
    return made


@pytest.fixture(params=["search", "keyword_search", "hybrid_search"])
def search(docs: Collection, request: pytest.FixtureRequest) -> Search:
    """Each of the searches that can be reranked."""
    found: Search = getattr(docs, request.param)
    return found


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


def test_the_order_is_the_rerankers(search: Search) -> None:
    first = search("rotate keys", 50)
    places = {hit.id: hit.rank for hit in first}
    hits = search("rotate keys", 5, rerank=last_number_first)
    assert ids(hits) == sorted(places, key=lambda id: -int(id[1:]))[:5]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in hits] == [float(hit.id[1:]) for hit in hits]
    assert [hit.first_rank for hit in hits] == [places[hit.id] for hit in hits]
    assert (hits.reranked, hits.note, hits.stopped_by) == (True, None, "k")
    before = {hit.id: (hit.distance, hit.legs, hit.metadata) for hit in first}
    assert {hit.id: (hit.distance, hit.legs, hit.metadata) for hit in hits}.items() <= before.items()


def test_the_depth_is_how_many_are_reranked(search: Search) -> None:
    best = ids(search("rotate keys", 8))
    for depth, expected in ((8, best), (2, best[:4]), (COUNT, [f"d{number}" for number in range(COUNT)])):
        hits = search("rotate keys", 4, rerank=Rerank(last_number_first, depth=depth))
        assert ids(hits) == sorted(expected, key=lambda id: -int(id[1:]))[:4]


def test_fewer_match_than_were_asked_for(search: Search) -> None:
    chosen = {"id": {"$in": ["d1", "d2", "d3"]}, "even": False}
    hits = search("rotate keys", 10, chosen, rerank=last_number_first)
    assert ids(hits) == ["d3", "d1"]
    assert (hits.reranked, hits.complete) == (True, True)
    nothing = search("rotate keys", 10, {"id": "absent"}, rerank=last_number_first)
    assert (nothing, nothing.complete) == ([], True)
    without = search("rotate keys", 3, rerank=last_number_first, exclude=[f"d{number}" for number in range(50, COUNT)])
    assert ids(without) == ["d49", "d48", "d47"]


def test_when_the_budget_is_over_the_search_has_the_last_word(search: Search) -> None:
    plain = search("rotate keys", 5)
    hits = search("rotate keys", 5, rerank=Rerank(last_number_first, budget=1e-9))
    assert list(hits) == list(plain)
    assert all(hit.first_rank is None for hit in hits)
    assert (hits.reranked, hits.stopped_by) == (False, "k")
    assert hits.note == (
        "reranking stopped: its budget of 1e-09 s was over after 0 of 50 chunks; this is the order of the search"
    )
    assert search("rotate keys", 5, rerank=Rerank(last_number_first, budget=60)).reranked


def test_a_reranker_that_fails(search: Search) -> None:
    def failing(_: str, __: Sequence[str]) -> list[float]:
        raise ValueError("out of order")

    def short(_: str, __: Sequence[str]) -> list[float]:
        return [1.0]

    for reranker, problem in (
        (failing, r"reranker test_.*failing failed: ValueError: out of order"),
        (short, r"reranker test_.*short returned 1 scores for 32 texts: one each is needed"),
        (lambda _, texts: [float("nan")] * len(texts), r"returned the score nan: it cannot be ranked by"),
        (lambda _, texts: ["a"] * len(texts), r"returned something else than scores: could not convert"),
    ):
        with pytest.raises(RerankError, match=problem):
            search("rotate keys", rerank=reranker)


@pytest.mark.parametrize(
    ("stage", "problem"),
    [
        (5, "5 is no reranker: give the name of a cross-encoder, a URL, a function"),
        (Rerank(5), "5 is no reranker"),  # type: ignore[arg-type]
        (Rerank(last_number_first, depth=0), "the depth of reranking must be from 1 to 10000, not 0"),
        (Rerank(last_number_first, depth=10_001), "the depth of reranking must be from 1 to 10000, not 10001"),
        (Rerank(last_number_first, budget=0), "a budget more than 0 seconds"),
        (Rerank(last_number_first, batch_size=0), "batch_size must be at least 1"),
    ],
)
def test_a_stage_that_cannot_be(search: Search, stage: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        search("rotate keys", rerank=stage)


def test_what_a_reranker_cannot_work_with(docs: Collection, search: Search) -> None:
    with pytest.raises(ConfigurationError, match="the query is empty"):
        search(" ", rerank=last_number_first)
    with pytest.raises(ConfigurationError, match="k must be from 1 to 10000, not 0"):
        search("rotate", 0, rerank=last_number_first)
    vector = np.ones(64)
    for call in (
        lambda: docs.search(vector, rerank=last_number_first),
        lambda: docs.hybrid_search(vector, legs=["dense"], rerank=last_number_first),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError, match="a reranker reads the query: give it as a text"):
            call()
    for options in ({"group_by": "document"}, {"diversity": 0.5}):
        with pytest.raises(ConfigurationError, match="leave group_by and diversity out"):
            docs.search("rotate", rerank=last_number_first, **options)


def test_bits_are_no_query_to_read(db: Database) -> None:
    docs = db.create_collection("bits", dimensions=4, type="bit")
    docs.upsert([{"id": "a", "text": "1", "vector": "0101"}])
    with pytest.raises(ConfigurationError, match="a reranker reads the query: give it as a text"):
        docs.search("0101", rerank=last_number_first)


def test_chunks_without_a_text_come_last(docs: Collection, embedder: WordEmbedder) -> None:
    docs.upsert({"id": ["bare"], "vector": [embedder.embed_query("rotate keys")]})
    hits = docs.search("rotate keys", COUNT + 1, rerank=last_number_first)
    assert (hits[-1].id, hits[-1].score, hits[-1].first_rank) == ("bare", None, 1)
    assert ids(hits)[:2] == ["d59", "d58"]


def test_a_reranker_is_loaded_once(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    load = spec.load
    monkeypatch.setattr(spec, "load", lambda given: asked.append(given) or load(last_number_first))
    for _ in range(2):
        docs.search("rotate", rerank="a/model")
        docs.keyword_search("rotate", rerank=Rerank("a/model", depth=5))
        docs.hybrid_search("rotate", rerank="another/model")
    assert asked == ["a/model", "another/model"]


# -- with a model ----------------------------------------------------------------------------------


@pytest.mark.embedding
def test_a_cross_encoder_by_its_path(docs: Collection, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
    from pgvec_toolkit.rerank.cross_encoder import CrossEncoderReranker
    from tests import tiny_models

    path = tiny_models.tiny_cross_encoder(tmp_path / "cross")
    model = CrossEncoderReranker(path)
    query = "rotate secret keys"
    for search in (docs.search, docs.keyword_search, docs.hybrid_search):
        first = search(query, 8)
        scores = dict(zip(ids(first), model.scores(query, [hit.text or "" for hit in first]), strict=True))
        hits = search(query, 3, rerank=Rerank(path, depth=8))
        assert ids(hits) == sorted(scores, key=lambda id: -scores[id])[:3]
        assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], abs=1e-4)
    with pytest.raises(RerankError, match=r"cannot load model nobody/nothing.*Give the path of a folder"):
        docs.search(query, rerank="nobody/nothing")
