"""Markdown by its headings, and texts by their sentences."""

from __future__ import annotations

import pytest

from pgvec_toolkit.ingest.chunk import Chunking, Cutter
from pgvec_toolkit.ingest.chunk.markdown import outline
from pgvec_toolkit.ingest.chunk.sentences import sentences
from pgvec_toolkit.ingest.document import CONTEXT, Chunk, Document
from tests.tokenized import TokenEmbedder

GUIDE = """# Guide

The key is in the vault.

## Setup ##

```bash
# the key: not a heading
the vault the vault the vault the vault the vault
```

    # nor this, the key of a vault

<h2>Nor this</h2>

Rotate `secret` *keys*
======================

Water and salt.

## A **bold** [link](the) &amp; <b>tag</b> {#anchor}

> # Quoted

- # Listed

Boil the pasta.
"""


def cut(text: str, limit: int = 30, **options: object) -> list[Chunk]:
    return Cutter(TokenEmbedder(limit), Chunking(**options))(Document(0, "a", text, format="markdown"))  # type: ignore[arg-type]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_headings_are_those_of_markdown(line_end: str) -> None:
    found = outline(GUIDE.replace("\n", line_end))
    assert [heading.path for heading in found.headings] == [
        (),
        ("Guide",),
        ("Guide", "Setup"),
        ("Rotate secret keys",),
        ("Rotate secret keys", "A bold link & tag"),
    ]
    assert found.title == "Guide"
    assert [found.text[heading.start : heading.end].split()[:1] for heading in found.headings] == [
        [], ["#"], ["##"], ["Rotate"], ["##"],
    ]  # fmt: skip


def test_a_chunk_knows_the_headings_above_it() -> None:
    chunks = cut(GUIDE, 60)
    assert [(chunk.text.split()[0], chunk.metadata) for chunk in chunks] == [
        ("#", {"headings": ["Guide"]}),
        ("##", {"headings": ["Guide", "Setup"]}),
        ("<h2>Nor", {"headings": ["Guide", "Setup"]}),
        ("Rotate", {"headings": ["Rotate secret keys"]}),
        ("##", {"headings": ["Rotate secret keys", "A bold link & tag"]}),
        ("#", {"headings": ["Rotate secret keys", "A bold link & tag"]}),
    ]


def test_sections_that_fit_are_merged_below_what_they_have_in_common() -> None:
    text = "Before.\n\n# A\n\n## B\n\nthe key\n\n## C\n\nthe vault\n\n# D\n\n" + "the key " * 14
    merged, alone = cut(text)
    assert merged.metadata == {}  # what is before the first heading is below none
    assert alone.metadata == {"headings": ["D"]}
    merged, alone = cut(text.removeprefix("Before.\n\n"))
    assert merged.text == "# A\n\n## B\n\nthe key\n\n## C\n\nthe vault"
    assert merged.metadata == {"headings": ["A"]}
    (single,) = cut("# A\n\n## B\n\nthe key")
    assert single.metadata == {"headings": ["A", "B"]}  # nothing is below A alone


@pytest.mark.parametrize("overlap", [0, 6])
def test_a_heading_stays_with_the_text_below_it(overlap: int) -> None:
    body = " ".join(f"key {number}" for number in range(40))
    text = f"the water the salt\n\n# A\n\n## B\n\n{body}\n\n# End"
    chunks = cut(text, overlap=overlap)
    assert chunks[0].text == "the water the salt"
    assert chunks[1].text.startswith("# A\n\n## B\n\nkey 0 key 1")
    assert {tuple(chunk.metadata["headings"]) for chunk in chunks[1:-1]} == {("A", "B")}
    assert chunks[-1].text.endswith("# End")
    if not overlap:
        assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())


def test_headings_that_leave_no_room_stand_alone() -> None:
    long = "the key " * 12
    chunks = cut(f"water\n\n# {long}\n\n{long * 2}")
    assert len(chunks) > 2
    assert max(TokenEmbedder().length(chunk.text) for chunk in chunks) <= 30


def test_context_is_the_title_and_the_headings() -> None:
    chunks = cut(GUIDE, 90, context=True)
    assert [chunk.metadata[CONTEXT] for chunk in chunks][:2] == ["Guide", "Guide > Setup"]
    assert chunks[-1].metadata[CONTEXT] == "Guide > Rotate secret keys > A bold link & tag"
    assert chunks[1].embedded.startswith("Guide > Setup\n\n## Setup")
    titled = Document(0, "a", GUIDE, {"metadata": {"title": "Vault"}}, "markdown")
    assert Cutter(TokenEmbedder(60), Chunking(context=True))(titled)[0].metadata[CONTEXT] == "Vault > Guide"
    assert Cutter(TokenEmbedder(60), Chunking("recursive", context=True))(titled)[-1].metadata[CONTEXT] == "Vault"
    (plain,) = Cutter(TokenEmbedder(60), Chunking(context=True))(Document(0, "a", "# the key"))
    assert plain.metadata == {}  # there is none


def test_context_takes_a_third_at_most() -> None:
    chunks = cut("# " + "the key of a vault " * 3 + "\n\n" + "water salt " * 40, 30, context=True)
    assert {chunk.metadata[CONTEXT] for chunk in chunks} == {"the key of a vault the key of a vault"}
    assert cut("# Rotate keysvault\n\nthe key", 15, context=True)[0].metadata[CONTEXT] == "Rotate"
    assert {TokenEmbedder().length(chunk.embedded) for chunk in chunks[1:-1]} == {30}
    small = cut("# the key\n\n" + "water salt " * 20, 60, tokens=10, context=True)
    assert max(TokenEmbedder().length(chunk.text) for chunk in small) == 10  # there is room for both


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("He said “Go.” She went (home.) Then (J. R. Key) slept.",
         ["He said “Go.”", "She went (home.)", "Then (J. R. Key) slept."]),
        ("Dr. Key met Mrs. Vault, e.g. in St. Ives, cf. Fig. 3. It cost 3.5 kg.",
         ["Dr. Key met Mrs. Vault, e.g. in St. Ives, cf. Fig. 3.", "It cost 3.5 kg."]),
        ("See pgvec.search. etc. on. Was it 2024. Yes.", ["See pgvec.search. etc. on.", "Was it 2024.", "Yes."]),
        ("1. Open it. 2. Close it.", ["1. Open it.", "2. Close it."]),
        ("钥匙在保险库。盐在水里！好。", ["钥匙在保险库。", "盐在水里！", "好。"]),
        ("A title\n\nOne\nof two lines.\n \n- and a list", ["A title", "One\nof two lines.", "- and a list"]),
        ("", []),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


def test_sentences_without_a_space_between_them_are_told_apart_if_they_are_too_long_together() -> None:
    def texts(tokens: int) -> list[str]:
        document = Document(0, "a", "Rotate the key.Boil water (and salt).The vault.")
        return [chunk.text for chunk in Cutter(TokenEmbedder(60), Chunking("sentences", tokens))(document)]

    assert texts(8) == ["Rotate the key.", "Boil water (and salt).", "The vault."]
    assert len(texts(20)) == 1
