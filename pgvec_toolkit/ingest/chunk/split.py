"""The chunkers that cut a text wherever it is, at the places that matter most: paragraphs, sentences, words.

Each returns spans (from, to) of the text. semantic-text-splitter does the cutting; it asks for the lengths of many
pieces, which a ruler tells without having the tokenizer read them all again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pgvec_toolkit.errors import MissingDependency
from pgvec_toolkit.ingest.chunk.tokens import Meter, Ruler

Span = tuple[int, int]
# Grammars whose modules hold more than one, or call it otherwise: language -> (module, function).
_GRAMMARS = {
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "php": ("tree_sitter_php", "language_php"),
}


def splitters() -> Any:
    """Return the module that cuts."""
    try:
        import semantic_text_splitter
    except ImportError as error:
        raise MissingDependency("semantic-text-splitter", "embed") from error
    return semantic_text_splitter


def spans(pieces: Iterable[tuple[int, str]]) -> list[Span]:
    """Return what a splitter found as spans, without blank ones."""
    return [(start, start + len(piece)) for start, piece in pieces if piece.strip()]


def recursive(ruler: Ruler, most: int, overlap: int = 0) -> list[Span]:
    """Cut at the longest runs of line ends by which pieces fit, then at sentences, words, characters."""
    return spans(splitters().TextSplitter.from_callback(ruler.length, most, overlap).chunk_indices(ruler.text))


def exactly(text: str, most: int, meter: Meter) -> list[str]:
    """Cut a text as `recursive`, each piece measured alone: slower, and right within words, too."""

    def length(piece: str) -> int:
        return meter.lengths([piece])[0]

    pieces: list[str] = splitters().TextSplitter.from_callback(length, most).chunks(text)
    return [piece for piece in pieces if piece.strip()]


def grammar(language: str) -> Callable[[], object] | None:
    """Return what loads the grammar of a programming language; None if it is not installed."""
    module, function = _GRAMMARS.get(language, (f"tree_sitter_{language}", "language"))
    if not language.isidentifier() or find_spec(module) is None:
        return None
    found: Callable[[], object] | None = getattr(import_module(module), function, None)
    return found


def code(ruler: Ruler, most: int, overlap: int, load: Callable[[], object]) -> list[Span]:
    """Cut at the largest syntactic units that fit: classes, functions, statements."""
    splitter = splitters().CodeSplitter.from_callback(load(), ruler.length, most, overlap)
    return spans(splitter.chunk_indices(ruler.text))


def fixed(ruler: Ruler, most: int, overlap: int) -> list[Span]:
    """Cut every so many tokens, less what would cut a word; words longer than half of that are cut."""
    found, first, tokens = [], 0, len(ruler.starts)
    while first < tokens:
        last = _end_of_word(ruler, first, min(first + most, tokens))
        found.append((ruler.starts[first], ruler.ends[last - 1]))
        if last == tokens:
            break
        first = max(first + 1, _start_of_word(ruler, last - overlap, last))
    return [(start, end) for start, end in found if ruler.text[start:end].strip()]


def _within_character(ruler: Ruler, token: int) -> bool:
    """Tell whether a token begins within the character with which the one before it ends."""
    return 0 < token < len(ruler.starts) and ruler.starts[token] < ruler.ends[token - 1]


def _within_word(ruler: Ruler, token: int) -> bool:
    """Tell whether a token goes on with the word of the one before it."""
    if not 0 < token < len(ruler.starts):
        return False
    before, start = ruler.ends[token - 1], ruler.starts[token]
    return before > start or (before == start and ruler.text[start - 1 : start + 1].isalnum())


def _end_of_word(ruler: Ruler, first: int, last: int) -> int:
    """Return where a piece from one token to before another is to end, so that no word is cut."""
    end = last
    while end > first + (last - first + 1) // 2 and _within_word(ruler, end):
        end -= 1
    if not _within_word(ruler, end):
        return end
    end = last
    while end > first and _within_character(ruler, end):
        end -= 1
    if end == first:  # a character that has more tokens than a piece
        end = last
        while _within_character(ruler, end):
            end += 1
    return end


def _start_of_word(ruler: Ruler, token: int, latest: int) -> int:
    """Return the first token from there on that begins a word; none that is further than the latest."""
    while token < latest and _within_word(ruler, token):
        token += 1
    return token
