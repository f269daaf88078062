"""Prompts: what retrieval models were trained to see before a query, and before a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import NamedTuple


class Prompts(NamedTuple):
    """What is put before a query, and before a document."""

    query: str = ""
    document: str = ""


_SEARCHING = Prompts("Represent this sentence for searching relevant passages: ")
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

# Of models whose cards ask for prompts which not every copy of their configuration has; matched with the whole last
# part of the name, for what was trained further may have been trained without. From the models' cards.
_FAMILIES = {
    r"(multilingual-)?e5-(small|base|large)(-v2)?": Prompts("query: ", "passage: "),
    r"multilingual-e5-large-instruct": Prompts(f"{_WEB_SEARCH} "),
    r"bge-(small|base|large)-en-v1\.5": _SEARCHING,
    r"mxbai-embed-large-v1": _SEARCHING,
    r"snowflake-arctic-embed-(xs|s|m|l|m-long|m-v1\.5)": _SEARCHING,
    r"snowflake-arctic-embed-[ml]-v2\.0": Prompts("query: "),
    r"nomic-embed-text(-v1(\.5)?)?": Prompts("search_query: ", "search_document: "),
    r"embeddinggemma-300m": Prompts("task: search result | query: ", "title: none | text: "),
    r"qwen3-embedding-(0\.6|4|8)b": Prompts(_WEB_SEARCH),
}
_OWN_FOR_DOCUMENTS = ("document", "passage", "corpus")  # names that sentence-transformers knows


def preset(name: str) -> Prompts:
    """Return the prompts of a family of models, told by the model's name; none if it is not known."""
    last = PurePath(name).name.partition(":")[0]  # Ollama puts a tag behind a name
    found = (prompts for pattern, prompts in _FAMILIES.items() if re.fullmatch(pattern, last, re.IGNORECASE))
    return next(found, Prompts())


def effective(name: str, own: Mapping[str, str], query: str | None, document: str | None) -> Prompts:
    """Return the prompts to use: given ones; else the model's own; else, if it has none, those of its family."""
    configured = Prompts(own.get("query", ""), next(filter(None, map(own.get, _OWN_FOR_DOCUMENTS)), ""))
    default = configured if any(configured) else preset(name)
    return Prompts(default.query if query is None else query, default.document if document is None else document)
