"""The chunker that cuts Markdown at its headings, and knows of each piece which headings are above it."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from pgvec_toolkit.ingest.chunk.split import Span, recursive, spans, splitters
from pgvec_toolkit.ingest.chunk.tokens import Ruler

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_MAY_HAVE_HEADINGS = re.compile(r"^ {0,3}(#{1,6}([ \t]|$)|=+[ \t]*$|-+[ \t]*$)", re.MULTILINE)
_LINE_END = re.compile(r"\r\n?|\n")
_ANCHOR = re.compile(r"\s*\{#[^{}]*\}$")


@dataclass(frozen=True)
class Heading:
    """A heading of a document, or its beginning.

    Attributes:
        start: of its lines.
        end: of its lines: what it heads begins here.
        path: its text, after those of the headings above it.
        level: from 1 to 6; 0: the beginning of the document.
    """

    start: int
    end: int
    path: tuple[str, ...]
    level: int


@dataclass(frozen=True)
class Outline:
    """The headings of a document, in their order, after its beginning."""

    text: str
    headings: list[Heading] = field(default_factory=lambda: [Heading(0, 0, (), 0)])

    @property
    def title(self) -> str | None:
        """Its first heading of the first level."""
        return next((heading.path[-1] for heading in self.headings if heading.level == 1 and heading.path), None)

    def above(self, start: int, end: int) -> list[str]:
        """Return the headings that all of a piece is below; its own, if it holds the text of one section only."""
        first, last = self._at(start), self._at(end - 1)
        paths = [
            self.headings[place].path
            for place in range(first, last + 1)
            if self._body(place, start, end).strip() or (place == last and first == last)
        ] or [self.headings[last].path]
        common = 0
        for names in zip(*paths, strict=False):
            if len(set(names)) > 1:
                break
            common += 1
        return list(paths[0][:common])

    def headings_at_end(self, start: int, end: int) -> int | None:
        """Return where the headings start that a piece ends with; None if it ends with text."""
        place, found = self._at(end - 1), None
        while place > 0 and self.headings[place].start >= start and not self._body(place, start, end).strip():
            found = self.headings[place].start
            place -= 1
        return found

    def _at(self, position: int) -> int:
        return bisect_right(self.headings, position, key=lambda heading: heading.start) - 1

    def _body(self, place: int, start: int, end: int) -> str:
        """Return what a piece has of the text below a heading."""
        below = self.headings[place + 1].start if place + 1 < len(self.headings) else len(self.text)
        return self.text[max(start, self.headings[place].end) : min(end, below)]


def outline(text: str) -> Outline:
    """Return the headings of a Markdown text: those with # and the underlined ones; none in code or HTML."""
    found = Outline(text)
    if not _MAY_HAVE_HEADINGS.search(text):
        return found
    lines = [0, *(end.end() for end in _LINE_END.finditer(text)), len(text)]
    above: list[tuple[int, str]] = []
    tokens = _parser().parse(text)
    for position, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            level = int(token.tag[1])
            above = [(depth, name) for depth, name in above if depth < level]
            above.append((level, _plain(tokens[position + 1].content)))
            path = tuple(name for _, name in above if name)
            found.headings.append(Heading(lines[token.map[0]], lines[token.map[1]], path, level))
    return found


def markdown(ruler: Ruler, most: int, overlap: int, headings: Outline) -> list[Span]:
    """Cut at headings, then at blocks, sentences, words; sections that fit together are kept together."""
    splitter = splitters().MarkdownSplitter.from_callback(ruler.length, most, overlap)
    found, carried = [], None
    pieces = spans(splitter.chunk_indices(ruler.text))
    for position, (start, end) in enumerate(pieces):
        parts = [(start, end)] if carried is None else _below(carried, (start, end), ruler, most, overlap)
        *whole, (start, end) = parts
        found += whole
        carried = headings.headings_at_end(start, end) if position + 1 < len(pieces) else None
        if carried is not None:
            end = start + len(ruler.text[start:carried].rstrip())
        if start < end:
            found.append((start, end))
    return found


def _below(heading: int, piece: Span, ruler: Ruler, most: int, overlap: int) -> list[Span]:
    """Return a piece with the headings that were cut off before it, in parts if it is too long with them."""
    start, end = piece
    if start <= heading:  # they are in the overlap
        return [piece]
    if ruler.between(heading, end) <= most:
        return [(heading, end)]
    room = most - ruler.between(heading, start)
    alone = (heading, heading + len(ruler.text[heading:start].rstrip()))
    if room < most // 2 or room <= overlap:
        return [alone, piece]
    parts = recursive(ruler.part(start, end), room, overlap)
    (_, first), *others = [(start + begin, start + stop) for begin, stop in parts]
    return [(heading, first), *others]


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").disable("inline")


@cache
def _inline_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _plain(content: str) -> str:
    """Return the text of a heading without its markup."""
    (inline,) = _inline_parser().parseInline(_ANCHOR.sub("", content))
    shown = [child for child in inline.children or [] if child.type != "html_inline"]
    return " ".join("".join(" " if child.type.endswith("break") else child.content for child in shown).split())
