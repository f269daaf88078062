"""Lengths as an embedder measures them: in tokens of its own tokenizer; in characters, if it has none."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgvec_toolkit.embed import base

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pgvec_toolkit.embed.base import Embedder

_BACK = 1 << 12  # characters: what overlaps is asked for again


@dataclass
class Ruler:
    """Measures the pieces of one text, which is read by the tokenizer once.

    A piece that begins or ends within a word may have some tokens more when it is read alone.

    Attributes:
        text: the text.
        starts: where its tokens start.
        ends: where they end.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    _last: int = field(default=0, init=False, repr=False, compare=False)  # where the last piece was found

    def length(self, piece: str) -> int:
        """Return the length of a piece: wherever it stands in the text, it is as long."""
        # Not from the beginning: who cuts asks for pieces from there to the end, many at each place.
        start = self.text.find(piece, max(0, self._last - _BACK))
        if start < 0:
            start = self.text.find(piece)
        self._last = start
        return self.between(start, start + len(piece))

    def between(self, start: int, end: int) -> int:
        """Return the length of the piece from one character to another."""
        return max(0, bisect_left(self.starts, end) - bisect_right(self.ends, start))

    def part(self, start: int, end: int) -> Ruler:
        """Return what measures pieces of a part of the text."""
        tokens = slice(bisect_right(self.ends, start), bisect_left(self.starts, end))
        starts, ends = ([place - start for place in places[tokens]] for places in (self.starts, self.ends))
        return Ruler(self.text[start:end], starts, ends)


class Meter:
    """Measures texts.

    Args:
        tokenizer: counts their tokens; None: their characters are counted.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._ruled = ("", 0)  # the text that a ruler was asked for last, and its length: mostly it is a chunk as it is

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the length of each text; special tokens are not counted."""
        if self._tokenizer is None:
            return [len(text) for text in texts]
        if len(texts) == 1 and texts[0] == self._ruled[0]:
            return [self._ruled[1]]
        # Some at a time: what is returned of a text takes much more memory than the text.
        return [
            len(encoding.ids)
            for start in range(0, len(texts), 256)
            for encoding in self._tokenizer.encode_batch_fast(
                list(texts[start : start + 256]), add_special_tokens=False
            )
        ]

    def ruler(self, text: str) -> Ruler:
        """Return what measures pieces of a text."""
        if self._tokenizer is None:
            return Ruler(text, range(len(text)), range(1, len(text) + 1))
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        self._ruled = (text, len(offsets))
        return Ruler(text, [start for start, _ in offsets], [end for _, end in offsets])

    def beginning(self, text: str, most: int) -> str:
        """Return the longest beginning of a text that is no longer than this."""
        ends = self.ruler(text).ends
        kept = most
        # Read alone, a beginning may have another last token, or one more; and a character may have several.
        while len(ends) > most and kept > 0:
            text = text[: ends[kept - 1]].rstrip()
            ends = self.ruler(text).ends
            kept -= 1
        return text if len(ends) <= most else ""


def fitted(embedder: Embedder, texts: Sequence[str]) -> tuple[list[str], dict[int, int]]:
    """Return texts, those that are longer than the embedder reads cut off; and how long these were, by position."""
    limit, tokenizer = base.max_tokens(embedder), base.tokenizer(embedder)
    fitting = list(texts)
    if limit is None or tokenizer is None:
        return fitting, {}
    meter = Meter(tokenizer)
    too_long = {position: length for position, length in enumerate(meter.lengths(fitting)) if length > limit}
    for position in too_long:
        fitting[position] = meter.beginning(fitting[position], limit)
    return fitting, too_long
