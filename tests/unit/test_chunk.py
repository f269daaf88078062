"""Cutting documents: nothing is lost, nothing is too long, nothing is cut off in silence."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.chunk import CHUNKERS, Chunking, Cutter
from pgvec_toolkit.ingest.chunk.split import recursive
from pgvec_toolkit.ingest.chunk.tokens import Ruler, fitted
from pgvec_toolkit.ingest.document import CONTEXT, Chunk, Document, written_with
from tests.tokenized import TokenEmbedder, bytewise, wordpiece
from tests.words import WordEmbedder

TOKENIZERS = {"wordpiece": wordpiece(), "bytewise": bytewise()}
PARAGRAPHS = [f"Paragraph {number} " + "speaks of many things. " * (number % 7 + 1) for number in range(60)]
SENTENCES = " ".join(f"Key {number} is in the vault." for number in range(30))


def cut(text: str, format: str = "text") -> list[str]:
    return [chunk.text for chunk in Cutter(WordEmbedder())(Document(0, "a", text, format=format))]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("format", ["text", "markdown"])
def test_no_word_is_lost_and_none_is_doubled(format: str) -> None:
    text = "\n\n".join(f"## Heading\n\n{paragraph}" for paragraph in PARAGRAPHS)
    chunks = cut(text, format)
    assert len(chunks) > 1
    assert max(map(len, chunks)) <= 1000
    assert words(" ".join(chunks)) == words(text)


@pytest.mark.parametrize("overlap", [0, 200])
def test_a_long_text_is_not_searched_from_its_beginning_for_each_piece(overlap: int) -> None:
    searched = []

    class Text(str):
        def find(self, piece: str, start: int = 0) -> int:  # type: ignore[override]
            searched.append(super().find(piece, start) - start)
            return searched[-1] + start

    text = Text("\n\n".join(f"{number}. {paragraph}" for number, paragraph in enumerate(PARAGRAPHS * 20)))
    found = recursive(Ruler(text, range(len(text)), range(1, len(text) + 1)), 1000, overlap)
    assert len(found) > 100
    assert max(searched) < 10_000 < len(text)


def test_markdown_is_cut_at_headings() -> None:
    text = "# One\n\n" + "a " * 300 + "\n\n# Two\n\n" + "b " * 300
    first, second = cut(text, "markdown")
    assert (first[:5], second[:5]) == ("# One", "# Two")


@pytest.mark.parametrize("chunker", [name for name in CHUNKERS if name != "fixed"])
@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff \u3000"])
def test_blank_text_has_no_chunks(text: str, chunker: str) -> None:
    chunks = Cutter(WordEmbedder(), Chunking(chunker))(Document(0, "a", text))
    assert all(chunk.text.strip() for chunk in chunks)
    assert len(chunks) == (1 if text.strip() else 0)


def test_text_without_any_place_to_cut_is_cut() -> None:
    chunks = cut("x" * 2500)
    assert "".join(chunks) == "x" * 2500
    assert max(map(len, chunks)) <= 1000


PARTS = ["the vault", "rotate key", "Water, salt.", "Embeddings", "x" * 23, "# Head", "## Sub", "Sub\n---", "```", "🚀"]
PARTS += ["向量检索。", "\n", "\n\n", "\r\n", "\n\n\n", "    indented", "- item", "> quote", "<h2>No</h2>", "Dr. 3."]


@given(
    st.lists(st.sampled_from(PARTS), max_size=30).map(" ".join),
    st.sampled_from([name for name in CHUNKERS if name != "none"]),
    st.sampled_from(["text", "markdown"]),
    st.sampled_from(sorted(TOKENIZERS)),
    st.integers(8, 40),
    st.booleans(),
)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_any_text_is_in_chunks_that_are_read_whole(
    text: str, chunker: str, format: str, tokenizer: str, limit: int, context: bool
) -> None:
    embedder = TokenEmbedder(limit, TOKENIZERS[tokenizer])
    cutter = Cutter(embedder, Chunking(chunker, context=context))
    chunks = cutter(Document(0, "a", text, {"title": "The vault"}, format))
    assert max((embedder.length(chunk.embedded) for chunk in chunks), default=0) <= limit
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())
    assert cutter.truncated == 0
    assert all(("The vault" in chunk.embedded.partition("\n\n")[0]) for chunk in chunks if context and limit >= 27)


@given(st.sampled_from(["recursive", "sentences", "fixed", "markdown"]), st.integers(20, 60), st.integers(0, 19))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_overlap_repeats_the_end_of_the_chunk_before(chunker: str, tokens: int, overlap: int) -> None:
    embedder = TokenEmbedder(100)
    chunks = [c.text for c in Cutter(embedder, Chunking(chunker, tokens, overlap))(Document(0, "a", SENTENCES))]
    assert max(map(embedder.length, chunks)) <= tokens
    places = [SENTENCES.index(chunk) for chunk in chunks]  # each sentence has a number: it stands once
    repeated = []
    for (chunk, start), following in zip(zip(chunks, places, strict=True), places[1:], strict=False):
        assert start < following
        assert not SENTENCES[start + len(chunk) : following].strip()  # nothing is between them
        repeated.append(embedder.length(SENTENCES[following : start + len(chunk)]))
    assert places[0] == 0
    assert places[-1] + len(chunks[-1]) == len(SENTENCES)
    assert max(repeated) <= overlap
    if chunker == "fixed":
        assert max(repeated) >= overlap - 2  # what would cut a word is left out
    elif overlap >= 12:
        assert max(repeated) >= 6


def test_fixed_chunks_have_as_many_tokens() -> None:
    embedder = TokenEmbedder(30)
    chunks = Cutter(embedder, Chunking("fixed", 10))(Document(0, "a", "the key of a vault " * 20))
    assert [embedder.length(chunk.text) for chunk in chunks] == [10] * 10


def test_none_makes_a_document_a_chunk() -> None:
    text = "  The key.\n\nThe vault. "
    assert Cutter(TokenEmbedder(), Chunking("none"))(Document(0, "a", text)) == [Chunk(text)]


def test_code_is_cut_at_its_functions() -> None:
    pytest.importorskip("tree_sitter_python", reason="needs the extra code: pip install 'pgvec-toolkit[code]'")
    functions = [f"def f{number}(a, b):\n    c = a\n\n\n    return c\n" for number in range(6)]
    embedder = TokenEmbedder(27)
    chunks = Cutter(embedder)(Document(0, "a.py", "\n".join(functions), format="python"))
    assert [chunk.text for chunk in chunks] == [text.rstrip() for text in functions]
    as_text = Cutter(embedder, Chunking("recursive"))(Document(0, "a.py", "\n".join(functions), format="python"))
    assert [chunk.text for chunk in as_text] != [chunk.text for chunk in chunks]


@pytest.mark.parametrize(
    ("module", "language", "text"),
    [
        ("tree_sitter_typescript", "tsx", "const a = <b>{c}</b>;"),
        ("tree_sitter_typescript", "typescript", "type A<B> = { c: B };"),
        ("tree_sitter_php", "php", "<?php echo 1;"),
    ],
)
def test_grammars_that_are_called_otherwise_are_found(module: str, language: str, text: str) -> None:
    pytest.importorskip(module, reason="needs the extra code: pip install 'pgvec-toolkit[code]'")
    cutter = Cutter(TokenEmbedder())
    assert cutter(Document(0, "a", text, format=language)) == [Chunk(text)]
    assert cutter.notes == []


@pytest.mark.parametrize("chunker", ["auto", "code"])
def test_a_language_without_grammar_is_cut_as_text_and_that_is_said_once(chunker: str) -> None:
    cutter = Cutter(TokenEmbedder(), Chunking(chunker))
    for text in ("one", "two"):
        assert cutter(Document(0, "a", text, format="no_such_one")) == [Chunk(text)]
    (note,) = cutter.notes
    assert "no_such_one is cut as text" in note
    assert "pip install tree-sitter-no-such-one" in note
    assert Cutter(TokenEmbedder(), Chunking("code"))(Document(0, "a", "text")) == [Chunk("text")]


LONG = "the key " * 20  # 40 tokens
SHORT = "the vault"


@dataclass(frozen=True)
class ByLine:
    """A chunker of a user's."""

    comment: str = "#"

    def cut(self, document: Document) -> list[Chunk]:
        lines = enumerate(document.text.splitlines())
        return [Chunk(line, {"line": number}) for number, line in lines if not line.startswith(self.comment)]


@pytest.mark.parametrize("chunker", ["none", "fixed", "sentences", ByLine()])
def test_what_is_longer_than_the_embedder_reads_is_split_truncated_or_refused(chunker: Any) -> None:
    tokens = 40 if chunker == "fixed" else None
    document, embedder = Document(7, "a.txt", LONG), TokenEmbedder(30)
    splitting = Cutter(embedder, Chunking(chunker, tokens))
    parts = splitting(document)
    assert (len(parts), splitting.split, splitting.truncated) == (2, 1, 0)
    assert " ".join(part.text for part in parts) == LONG.strip()

    truncating = Cutter(embedder, Chunking(chunker, tokens, too_long="truncate"))
    (whole,) = truncating(document)
    assert (whole.text.strip(), truncating.split, truncating.truncated) == (LONG.strip(), 0, 1)
    assert truncating.texts([whole, Chunk(SHORT)]) == ["the key " * 14 + "the key", SHORT]

    with pytest.raises(InvalidRecord, match=r"row 7, .*'a\.txt' has 40 tokens, and embedder test/tokens reads 30"):
        Cutter(embedder, Chunking(chunker, tokens, too_long="error"))(document)
    strict = Cutter(embedder, Chunking(chunker, tokens, too_long="error"))
    assert [chunk.text for chunk in strict(replace(document, text=SHORT))] == [SHORT]


def test_context_counts_against_the_limit() -> None:
    embedder = TokenEmbedder(30)
    cutter = Cutter(embedder, Chunking("none", context=True))
    fits = Document(0, "a", "the key " * 15)
    assert len(cutter(fits)) == 1
    parts = cutter(replace(fits, fields={"title": "vault"}))
    assert (len(parts), cutter.split) == (2, 1)
    assert [part.metadata for part in parts] == [{CONTEXT: "vault"}] * 2


def test_a_character_that_has_more_tokens_than_the_embedder_reads_is_counted() -> None:
    cutter = Cutter(TokenEmbedder(3, bytewise()))
    assert [chunk.text for chunk in cutter(Document(0, "a", "abc🚀"))] == ["abc", "🚀"]
    assert cutter.truncated == 1


def test_a_sentence_that_the_embedder_reads_stays_whole() -> None:
    cutter = Cutter(TokenEmbedder(60), Chunking("sentences", 5, too_long="error"))
    assert [chunk.text for chunk in cutter(Document(0, "a", f"The key. Of {LONG.strip()}."))] == [
        "The key.",
        f"Of {LONG.strip()}.",
    ]


def test_texts_are_fitted_to_what_an_embedder_reads() -> None:
    assert fitted(TokenEmbedder(4), [SHORT, LONG]) == ([SHORT, "the key the key"], {1: 40})
    assert fitted(TokenEmbedder(3, bytewise()), ["a🚀", "abc"]) == (["a", "abc"], {0: 5})
    assert fitted(WordEmbedder(), [LONG]) == ([LONG], {})


def test_a_users_chunks_have_its_metadata_and_the_context() -> None:
    document = Document(0, "a", "# not this\nthe key\n\nthe vault", {"title": " My\nkeys ", "line": "?"})
    chunks = Cutter(TokenEmbedder(), Chunking(ByLine(), context=True))(document)
    assert chunks == [
        Chunk("the key", {"line": 1, CONTEXT: "My keys"}),
        Chunk("the vault", {"line": 3, CONTEXT: "My keys"}),
    ]
    assert chunks[0].embedded == "My keys\n\nthe key"
    assert written_with(document, chunks[0]) == {"title": " My\nkeys ", "line": 1, CONTEXT: "My keys"}


def test_metadata_of_a_chunk_and_of_its_document_are_one() -> None:
    document = Document(0, "a", "text", {"year": 1, "metadata": {"a": 1, "b": 2}})
    chunk = Chunk("text", {"metadata": {"b": 3}, "headings": ["One"]})
    assert written_with(document, chunk) == {"year": 1, "metadata": {"a": 1, "b": 3}, "headings": ["One"]}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("text", "returned a str among the chunks of document 'a'"),
        (Chunk("a", {"id": 1}), "metadata 'id', which ingest"),
    ],
)
def test_what_a_users_chunker_may_not_return_is_said(made: Any, message: str) -> None:
    class Wrong:
        def cut(self, document: Document) -> list[Any]:
            assert document.id == "a"
            return [made]

    with pytest.raises(ConfigurationError, match=message):
        Cutter(TokenEmbedder(), Chunking(Wrong()))(Document(0, "a", "text"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunker": "words"}, "give auto, recursive, markdown, sentences, code, fixed or none, or one of yours"),
        ({"chunker": ByLine}, "an object with a method cut"),
        ({"chunker": print}, "an object with a method cut"),
        ({"tokens": 0}, "at least 1, not 0"),
        ({"tokens": -1}, "at least 1"),
        ({"overlap": -1}, "at least 0 tokens"),
        ({"too_long": "ignore"}, "too_long is error, split or truncate, not 'ignore'"),
        ({"chunker": "none", "tokens": 5}, "leave chunk_tokens out"),
        ({"chunker": ByLine(), "overlap": 5}, "leave overlap out"),
        ({"tokens": 31}, "chunk_tokens 31 is more than the 30 tokens that embedder test/tokens reads"),
        ({"tokens": 10, "overlap": 10}, "overlap 10 is too much for chunks of 10 tokens"),
        ({"overlap": 20, "context": True}, "overlap 20 is too much for chunks of 20 tokens: of the 30"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_cut(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        Cutter(TokenEmbedder(30), Chunking(**options))


@pytest.mark.parametrize("options", [{"tokens": 100}, {"overlap": 5}, {"chunker": "fixed"}])
def test_tokens_need_a_tokenizer_to_be_counted(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="test/words has no tokenizer"):
        Cutter(WordEmbedder(), Chunking(**options))


def test_a_tokenizer_suffices_to_count_by() -> None:
    chunks = Cutter(TokenEmbedder(None), Chunking(tokens=10))(Document(0, "a", LONG))
    assert len(chunks) == 4
    assert len(Cutter(TokenEmbedder(None))(Document(0, "a", LONG * 10))) == 2  # characters: more than 1,000


def test_the_identity_of_a_chunking_tells_what_documents_become() -> None:
    class Bare:
        def cut(self, document: Document) -> list[Chunk]:
            return [Chunk(document.text)]

    different = [Chunking(), Chunking("none"), Chunking(tokens=9), Chunking(overlap=9), Chunking(context=True)]
    different += [Chunking(too_long="error"), Chunking(ByLine()), Chunking(ByLine("//")), Chunking(Bare())]
    assert len({str(chunking.identity) for chunking in different}) == len(different)
    assert Chunking(ByLine("//")).identity == Chunking(ByLine("//")).identity
    assert Chunking(Bare()).identity == Chunking(Bare()).identity
