"""Searches by words and by several legs, reranking, sparse spaces and prompts on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.embed import kinds
from pgvec_toolkit.rerank import spec
from pgvec_toolkit.rerank.base import load
from tests.cli.outcome import Outcome, Run
from tests.sparse_words import SparseWords


def last_number_first(query: str, texts: list[str]) -> list[float]:
    del query
    return [float(re.findall(r"\d+", text)[-1]) for text in texts]


@pytest.fixture
def reranker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any reranker that is asked for by name orders by the numbers in texts."""
    monkeypatch.setattr(spec, "load", lambda _: load(last_number_first))


def wrong_usage(outcome: Outcome, wanted: str) -> None:
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert re.search(wanted, re.sub(r"[\s│]+", " ", outcome.err)), outcome.err


# -- modes -----------------------------------------------------------------------------------------


def test_a_keyword_search(docs: Run) -> None:
    hits = docs("search", "docs", "boil potatoes", "--mode", "keyword", "-k", "3", "--json").json
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert {hit["metadata"]["section"] for hit in hits} == {"kitchen"}
    assert set(hits[0]["legs"]["keyword"]["terms"]) == {"boil", "potato"}
    assert (hits[0]["distance"], hits[0]["first_rank"]) == (None, None)
    shown = docs("search", "docs", "boil potatoes", "-m", "keyword", "-k", "2")
    assert (shown.code, shown.err) == (0, "")
    assert "found by" in shown.out
    assert re.search(r"potato, boil|boil, potato", shown.out)
    assert docs("search", "docs", "unheard", "-m", "keyword") == Outcome(0, "", "nothing matches\n")
    filtered = docs("search", "docs", "boil", "-m", "keyword", "-w", '{"year": {"$lt": 2004}}', "--json").json
    assert sorted(hit["metadata"]["year"] for hit in filtered) == [2001, 2003]


def test_a_hybrid_search(docs: Run) -> None:
    hits = docs("search", "docs", "rotate credentials 12", "--mode", "hybrid", "-k", "3", "--json").json
    assert hits[0]["id"] == "handbook/12.md#0"
    assert set(hits[0]["legs"]) == {"dense", "keyword"}
    assert "12" in hits[0]["legs"]["keyword"]["terms"]
    shown = docs("search", "docs", "rotate credentials 12", "-m", "hybrid", "-k", "1").out
    assert "dense #" in shown
    assert "keyword #1; 12" in shown
    options = ["--leg", "keyword", "--leg", "dense", "--fusion", "rrf", "--depth", "20", "--weight", "dense=0"]
    weighted = docs("search", "docs", "rotate credentials 12", "-m", "hybrid", *options, "-k", "3", "--json").json
    keyword = docs("search", "docs", "rotate credentials 12", "-m", "keyword", "-k", "3", "--json").json
    assert [hit["id"] for hit in weighted] == [hit["id"] for hit in keyword]
    excluded = docs("search", "docs", "rotate", "-m", "hybrid", "--exclude", hits[0]["id"], "-k", "40", "--json").json
    assert hits[0]["id"] not in {hit["id"] for hit in excluded}


def test_the_sql_of_a_hybrid_search_runs(docs: Run, connection: psycopg.Connection, embedder: Any) -> None:
    words = ["search", "docs", "rotate 12", "-m", "hybrid", "-k", "3", "-w", '{"section": "security"}']
    text = docs(*words, "--sql").out
    connection.execute(f"PREPARE printed (text, jsonb, jsonb, text[], jsonb, vector) AS {text}".encode())
    query = "[" + ",".join(map(str, embedder.embed_query("rotate 12"))) + "]"
    values = f"'rotate 12', '{{\"section\": \"security\"}}', NULL, NULL, '{{}}', '{query}'"
    rows = connection.execute(f"EXECUTE printed ({values})".encode()).fetchall()
    assert [row[0] for row in rows] == [hit["id"] for hit in docs(*words, "--json").json]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--fusion", "rrf"], "--fusion: goes with --mode hybrid"),
        (["-m", "keyword", "--depth", "5"], "--depth: goes with --mode hybrid"),
        (["--leg", "keyword"], "--leg: goes with --mode hybrid"),
        (["-m", "keyword", "--weight", "dense=1"], "--weight: goes with --mode hybrid"),
        (["-m", "hybrid", "--space", "dense"], "--space: goes with --mode dense"),
        (["-m", "hybrid", "--ef-search", "50"], "--ef-search: goes with --mode dense"),
        (["-m", "keyword", "--group-by", "document"], "--group-by: goes with --mode dense"),
        (["-m", "keyword", "--exact"], "--exact: goes with --mode dense"),
        (["-m", "hybrid", "--vector"], "--vector: goes with --mode dense"),
        (["-m", "hybrid", "--weight", "dense"], "--weight: 'dense' is not like keyword=0.5"),
        (["-m", "hybrid", "--weight", "dense=much"], "--weight: 'dense=much' is not like"),
        (["-m", "fuzzy"], "--mode.*dense.*keyword.*hybrid"),
        (["--budget", "1"], "--budget: goes with --rerank"),
        (["--rerank-depth", "5", "-m", "hybrid"], "--rerank-depth.*: goes with --rerank"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together(bare: Run, options: list[str], wanted: str) -> None:
    """Without a server: nothing is connected to before."""
    wrong_usage(bare("search", "docs", "rotate", *options), wanted)


def test_searches_that_are_no_single_statement(docs: Run) -> None:
    wrong_usage(docs("search", "docs", "rotate", "-m", "keyword", "--sql"), "--sql: call pgvec.keyword_search")
    wrong_usage(docs("search", "docs", "rotate", "--rerank", "x", "--sql"), "--sql: no statement reranks")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--leg", "nothing"], "has no vector space 'nothing'"),
        (["--fusion", "mean"], "mean"),
        (["--weight", "title=1"], "there is a weight for 'title'; the legs of the search are"),
        (["--weight", "dense=-1"], "the weight of dense must be a number, at least 0, not -1.0"),
        (["--weight", "dense=nan"], "the weight of dense must be a number, at least 0, not nan"),
        (["--depth", "10001"], "the depth.* must be from 1 to 10000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_hybrid_options_that_cannot_be(docs: Run, options: list[str], wanted: str) -> None:
    outcome = docs("search", "docs", "rotate", "-m", "hybrid", *options)
    assert (outcome.code, outcome.out) == (1, "")
    assert re.fullmatch(f"pgvec: [^\n]*{wanted}[^\n]*\n", outcome.err), outcome.err


# -- reranking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["dense", "keyword", "hybrid"])
def test_reranking(docs: Run, reranker: None, mode: str) -> None:
    del reranker
    words = ["search", "docs", "rotate credentials", "--mode", mode]
    before = {hit["id"]: hit for hit in docs(*words, "-k", "40", "--json").json}
    outcome = docs(*words, "-k", "2", "--rerank", "any", "--json")
    assert outcome.err == ""
    assert [hit["score"] for hit in outcome.json] == sorted((hit["score"] for hit in outcome.json), reverse=True)
    assert outcome.json[0]["score"] == max(last_number_first("", [hit["text"] for hit in before.values()]))
    for hit in outcome.json:
        assert hit["first_rank"] == before[hit["id"]]["rank"]
        assert hit["legs"] == before[hit["id"]]["legs"]
    shallow = docs(*words, "-k", "2", "--rerank", "any", "--rerank-depth", "3", "--json").json
    assert {hit["first_rank"] for hit in shallow} < {1, 2, 3}
    assert docs(*words, "-k", "2", "--rerank", "any").code == 0


def test_a_budget_that_is_over_is_said(docs: Run, reranker: None) -> None:
    del reranker
    words = ["search", "docs", "rotate credentials", "-k", "3"]
    outcome = docs(*words, "--rerank", "any", "--budget", "0.000001", "--json")
    assert outcome.json == docs(*words, "--json").json
    assert re.fullmatch(
        r"reranking stopped: its budget of 1e-06 s was over after 0 of 40 chunks; this is the order of the search\n",
        outcome.err,
    )
    assert docs(*words, "--rerank", "any", "--budget", "60").err == ""
    refused = docs(*words, "--rerank", "any", "--budget", "0")
    assert (refused.code, "a budget more than 0 seconds" in refused.err) == (1, True)


# -- keyword indexes -------------------------------------------------------------------------------


def test_the_life_of_a_keyword_index(run: Run, words: None, handbook: Path) -> None:
    del words
    assert run("collection", "create", "docs", "--embedder", "w", "--no-keywords").code == 0
    assert run("ingest", "docs", str(handbook)).code == 0
    without = run("search", "docs", "boil", "-m", "keyword")
    assert (without.code, without.out) == (1, "")
    assert "keyword index" in without.err
    made = run("index", "create-keyword", "docs", "--k1", "0.9", "--b", "0.4")
    assert re.fullmatch(r"the keyword index of docs was built in \d+\.\d s\n", made.err)
    assert len(run("search", "docs", "boil", "-m", "keyword", "--json").json) == 10
    assert run("index", "create-keyword", "docs").code == 1
    assert run("index", "drop-keyword", "docs").err == "the keyword index of docs was dropped\n"
    assert run("index", "drop-keyword", "docs").err == "docs has no keyword index\n"
    assert run("search", "docs", "boil", "-m", "keyword").code == 1
    assert len(run("search", "docs", "boil", "--json").json) == 10


# -- sparse spaces ---------------------------------------------------------------------------------


def test_a_sparse_space(docs: Run, monkeypatch: pytest.MonkeyPatch, embedder: Any) -> None:
    monkeypatch.setattr(kinds, "load", lambda name, *_, **__: SparseWords(1) if name == "test/sparse" else embedder)
    added = docs("collection", "add-space", "docs", "splade", "--embedder", "test/sparse")
    assert added == Outcome(
        0, "", "vector space splade of collection docs is there; fill it: pgvec collection embed docs splade\n"
    )
    filled = docs("collection", "embed", "docs", "splade")
    assert filled.err == (
        "40 chunks embedded into splade\n20 sparse vectors lost 20 entries, their smallest: an index holds 1,000 each\n"
    )
    assert docs("collection", "embed", "docs", "splade").err == "0 chunks embedded into splade\n"
    hit = docs("search", "docs", "rotate", "--space", "splade", "-k", "1", "--json").json[0]
    assert (hit["metadata"]["section"], hit["score"]) == ("security", 1)
    assert docs("index", "create", "docs", "--space", "splade").code == 0
    explained = docs("explain", "docs", "rotate", "--space", "splade", "-k", "1").out
    assert re.search(r"^Hit 1, handbook/\d+\.md#0: rotate \(1\.00\)$", explained, re.MULTILINE)
    legs = ("--leg", "dense", "--leg", "keyword", "--leg", "splade")
    fused = docs("search", "docs", "rotate", "-m", "hybrid", *legs, "-k", "1", "--json").json
    assert "splade" in fused[0]["legs"]


def test_what_ingesting_prunes_is_said(run: Run, monkeypatch: pytest.MonkeyPatch, handbook: Path) -> None:
    monkeypatch.setattr(kinds, "load", lambda *_, **__: SparseWords(1))
    made = run("collection", "create", "docs", "--embedder", "test/sparse")
    assert made.err == "collection docs is there: sparsevec(16), inner_product\n"
    assert run("ingest", "docs", str(handbook)).err.splitlines()[1:] == [
        "20 sparse vectors lost 20 entries, their smallest: an index holds 1,000 each"
    ]


def test_a_space_without_an_embedder_is_not_embedded(docs: Run) -> None:
    assert docs("collection", "add-space", "docs", "own", "--dimensions", "3").err.endswith(
        "; fill it with set_vectors in Python\n"
    )
    refused = docs("collection", "embed", "docs", "own")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("pgvec: vector space 'own' of collection 'docs' has no embedder: give vectors")


# -- with models -----------------------------------------------------------------------------------


@pytest.mark.embedding
def test_models_by_their_paths(run: Run, handbook: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
    from tests import tiny_models

    dense, sparse = tiny_models.tiny_bert(tmp_path / "e5-small"), tiny_models.tiny_sparse_encoder(tmp_path / "sparse")
    prompts = ["--query-prompt", "search: ", "--document-prompt", ""]
    assert run("collection", "create", "docs", "--embedder", dense, *prompts).code == 0
    assert run("ingest", "docs", str(handbook)).code == 0
    found = run("search", "docs", "rotate keys", "-k", "3", "--json").json
    from pgvec_toolkit.embed.sentence_transformer import SentenceTransformerEmbedder

    embedder = SentenceTransformerEmbedder(dense, query_prompt="search: ", document_prompt="")
    vector = str(embedder.embed_query("rotate keys").tolist())
    by_vector = run("search", "docs", vector, "--vector", "-k", "3", "--json").json
    assert [hit["id"] for hit in found] == [hit["id"] for hit in by_vector]
    assert [hit["distance"] for hit in found] == pytest.approx([hit["distance"] for hit in by_vector], abs=1e-6)

    refused = run("collection", "create", "other", "--embedder", sparse, "--query-prompt", "search: ")
    wrong_usage(refused, "--query-prompt, --document-prompt: go with a dense model only")
    cross = tiny_models.tiny_cross_encoder(tmp_path / "cross")
    assert "is a CrossEncoder" in run("collection", "create", "other", "--embedder", cross).err
    hits = run("search", "docs", "rotate keys", "-m", "hybrid", "-k", "3", "--rerank", cross, "--json").json
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(hit["first_rank"] for hit in hits)
    assert "which cannot rerank: use a CrossEncoder" in run("search", "docs", "rotate", "--rerank", dense).err
