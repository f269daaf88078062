"""Cutting documents: nothing is lost, nothing is too long. The real tokenizer is in test_embedding.py."""

from __future__ import annotations

import re

import pytest

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.chunk import chunker
from pgvec_toolkit.ingest.document import Document
from tests.words import WordEmbedder


def cut(text: str, format: str = "text") -> list[str]:
    return [chunk.text for chunk in chunker(WordEmbedder())(Document(0, "a", text, format=format))]


PARAGRAPHS = [f"Paragraph {number} " + "speaks of many things. " * (number % 7 + 1) for number in range(60)]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("format", ["text", "markdown"])
def test_no_word_is_lost_and_none_is_doubled(format: str) -> None:
    text = "\n\n".join(f"## Heading\n\n{paragraph}" for paragraph in PARAGRAPHS)
    chunks = cut(text, format)
    assert len(chunks) > 1
    assert max(map(len, chunks)) <= 1000
    assert words(" ".join(chunks)) == words(text)


def test_markdown_is_cut_at_headings() -> None:
    text = "# One\n\n" + "a " * 300 + "\n\n# Two\n\n" + "b " * 300
    first, second = cut(text, "markdown")
    assert (first[:5], second[:5]) == ("# One", "# Two")


@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff \u3000"])
def test_blank_text_has_no_chunks(text: str) -> None:
    chunks = cut(text)
    assert all(chunk.strip() for chunk in chunks)
    assert len(chunks) == (1 if text.strip() else 0)


def test_text_without_any_place_to_cut_is_cut() -> None:
    chunks = cut("x" * 2500)
    assert "".join(chunks) == "x" * 2500
    assert max(map(len, chunks)) <= 1000


def test_tokens_need_a_tokenizer_to_be_counted() -> None:
    with pytest.raises(ConfigurationError, match="test/words has no tokenizer"):
        chunker(WordEmbedder(), 100)


@pytest.mark.parametrize("tokens", [0, -1])
def test_chunks_have_at_least_a_token(tokens: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        chunker(WordEmbedder(), tokens)
