"""How many texts are embedded together: many sort well by length, few are not long in coming and soon committed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

_SECONDS = 10.0  # of work: what an interruption can cost, and how often progress is seen
_LEAST, _MOST = 64, 1024  # texts: with the latter, one token in a hundred is padding
_DOCUMENTS = 1024  # that are held in memory, if few of them have anything to embed


class _Work(Protocol):
    """Documents on their way."""

    @property
    def read(self) -> int:
        """How many were read."""

    @property
    def texts(self) -> int:
        """How many texts are to be embedded."""


class Window:
    """As many texts as are embedded in some seconds, by what the last ones took."""

    def __init__(self) -> None:
        self.texts = _LEAST

    def is_full(self, works: Sequence[_Work]) -> bool:
        """Return whether these are to be embedded now: they are enough, or there is nothing to embed."""
        texts = sum(work.texts for work in works)
        return not texts or texts >= self.texts or sum(work.read for work in works) >= _DOCUMENTS

    @contextmanager
    def timed(self, works: Sequence[_Work]) -> Iterator[None]:
        """Take the time that these take to be embedded; the next window is of a size that fits."""
        texts, began = sum(work.texts for work in works), time.perf_counter()
        yield
        if texts:
            fitting = texts / max(time.perf_counter() - began, 1e-6) * _SECONDS
            self.texts = int(min(max(fitting, _LEAST), 4 * self.texts, _MOST))
