"""What is fetched from the server and kept for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

# The gate follows the table's size, and an index may appear: a thing is asked for again after this many seconds.
_LIFETIME = 60.0
_MOST = 500
_Value = TypeVar("_Value")


class Kept(Generic[_Value]):
    """Things by what they were asked for by."""

    def __init__(self) -> None:
        self._values: dict[Hashable, tuple[_Value, float]] = {}

    def get(self, key: Hashable, fetch: Callable[[], _Value]) -> _Value:
        """Return a thing, fetched if it is not there or too old."""
        now = time.monotonic()
        kept = self._values.get(key)
        if kept is not None and now - kept[1] <= _LIFETIME:
            return kept[0]
        if len(self._values) >= _MOST:
            self._values.clear()
        value = fetch()
        self._values[key] = (value, now)
        return value

    def clear(self) -> None:
        """Forget them all."""
        self._values.clear()
