"""The chunker that cuts between sentences."""

from __future__ import annotations

import re
from itertools import pairwise

from pgvec_toolkit.ingest.chunk.split import Span
from pgvec_toolkit.ingest.chunk.tokens import Ruler

# A sentence ends with a mark and what closes after it, before white space; or, where there is none between
# sentences, with a mark of Chinese or Japanese; or with its paragraph.
_ENDS = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？｡]+["'”’»」』）)\]]*|(?=[^\S\n]*\n[^\S\n]*\n)""")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|Mt|Hr|Fr|Nr|No|Nos|Fig|Figs|Eq|Eqs|Sec|Ch|Vol|Art|Inc|Ltd|Co|Corp|Gen|Col"
    r"|vs|cf|al|approx|ca|bzw|vgl|usw|ff|pp?|e\.g|i\.e|z\.\s?B|d\.\s?h|u\.\s?a)|\b[A-Z]|^\s*\d{1,3})\.$"
)
# Of a sentence that is too long: its parts may stand together without a space, as in abstracts that were pasted.
_WITHOUT_SPACE = re.compile(r"(?<=[\w)\]][^\W_A-Z]|.[)\]])[.!?](?=[A-ZÀ-ÖØ-Þ])")
_GOES_ON = re.compile(r"\s*[\"'“‘«(\[]*[a-zà-öø-ÿ,;:]")


def sentences(text: str) -> list[Span]:
    """Return the sentences of a text: spans without the white space around them."""
    found, start = [], 0
    for mark in _ENDS.finditer(text):
        end = mark.end()
        if mark[0] and mark[0][0] in ".!?…" and not _ends(text, start, mark):
            continue
        found.append(_stripped(text, start, end))
        start = end
    found.append(_stripped(text, start, len(text)))
    return [(start, end) for start, end in found if start < end]


def packed(ruler: Ruler, most: int, overlap: int) -> list[Span]:
    """Return runs of whole sentences that fit; a sentence that does not is a run of its own.

    What runs have in common is whole sentences, too: as many of the last ones as the overlap holds.
    """
    whole = [part for sentence in sentences(ruler.text) for part in _in_parts(ruler, sentence, most)]
    runs, first = [], 0
    while first < len(whole):
        last = first + 1
        while last < len(whole) and ruler.between(whole[first][0], whole[last][1]) <= most:
            last += 1
        runs.append((whole[first][0], whole[last - 1][1]))
        if last == len(whole):
            break
        end, again = whole[last - 1][1], last
        while (
            again - 1 > first
            and ruler.between(whole[again - 1][0], end) <= overlap
            and ruler.between(whole[again - 1][0], whole[last][1]) <= most
        ):
            again -= 1
        first = again
    return runs


def _in_parts(ruler: Ruler, sentence: Span, most: int) -> list[Span]:
    start, end = sentence
    if ruler.between(start, end) <= most:
        return [sentence]
    places = [start, *(mark.end() for mark in _WITHOUT_SPACE.finditer(ruler.text, start, end)), end]
    return [(place, following) for place, following in pairwise(places) if place < following]


def _ends(text: str, start: int, mark: re.Match[str]) -> bool:
    """Tell whether a mark ends a sentence, and not an abbreviation, an initial or the number of a list."""
    if _GOES_ON.match(text, mark.end()):
        return False
    return mark[0] != "." or not _ABBREVIATION.search(text[max(start, mark.start() - 12) : mark.end()])


def _stripped(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, max(start, start + len(piece.strip()))
