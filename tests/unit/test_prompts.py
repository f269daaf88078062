"""Prompts of families of models, told by their names, and which of several prompts is used."""

from __future__ import annotations

import pytest

from pgvec_toolkit.embed.prompts import Prompts, effective, preset

SEARCHING = Prompts("Represent this sentence for searching relevant passages: ", "")
E5 = Prompts("query: ", "passage: ")
INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("intfloat/e5-base-v2", E5),
        ("intfloat/e5-large", E5),
        ("intfloat/multilingual-e5-small", E5),
        ("/models/multilingual-e5-large/", E5),
        ("intfloat/multilingual-e5-large-instruct", Prompts(f"{INSTRUCT} ", "")),
        ("BAAI/bge-small-en-v1.5", SEARCHING),
        ("mixedbread-ai/mxbai-embed-large-v1", SEARCHING),
        ("Snowflake/snowflake-arctic-embed-m", SEARCHING),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", SEARCHING),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", Prompts("query: ", "")),
        ("nomic-ai/nomic-embed-text-v1", Prompts("search_query: ", "search_document: ")),
        ("nomic-ai/nomic-embed-text-v1.5", Prompts("search_query: ", "search_document: ")),
        ("nomic-embed-text:latest", Prompts("search_query: ", "search_document: ")),
        ("google/embeddinggemma-300m", Prompts("task: search result | query: ", "title: none | text: ")),
        ("Qwen/Qwen3-Embedding-0.6B", Prompts(INSTRUCT, "")),
        ("sentence-transformers/all-MiniLM-L6-v2", Prompts()),
        ("thenlper/gte-base", Prompts()),
        ("BAAI/bge-m3", Prompts()),
        ("jinaai/jina-embeddings-v3", Prompts()),
        ("me/bge-small-en-v1.5-tuned", Prompts()),
        ("me/my-e5-base", Prompts()),
    ],
)
def test_families(name: str, prompts: Prompts) -> None:
    assert preset(name) == prompts


@pytest.mark.parametrize(
    ("own", "given", "prompts"),
    [
        ({}, (None, None), E5),
        ({"query": "", "document": ""}, (None, None), E5),
        ({"query": "q: ", "document": ""}, (None, None), Prompts("q: ", "")),
        ({"query": "", "document": "", "passage": "p: "}, (None, None), Prompts("", "p: ")),
        ({"clustering": "c: "}, (None, None), E5),
        ({"query": "q: "}, ("mine: ", None), Prompts("mine: ", "")),
        ({}, (None, "mine: "), Prompts("query: ", "mine: ")),
        ({"query": "q: ", "document": "d: "}, ("", ""), Prompts("", "")),
    ],
    ids=["family", "empty ones are none", "own", "own passage", "other tasks", "one given", "and family", "given none"],
)
def test_given_ones_win_then_the_models_own_then_those_of_its_family(
    own: dict[str, str], given: tuple[str | None, str | None], prompts: Prompts
) -> None:
    assert effective("intfloat/e5-base", own, *given) == prompts
