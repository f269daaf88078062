"""Preparing the next item while the last one is being dealt with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def prepared_ahead(items: Iterable[_In], prepare: Callable[[_In], _Out]) -> Iterator[_Out]:
    """Yield prepare(item) for each item, one of them prepared in a thread while the caller is busy.

    The items themselves are drawn in the caller's thread: they may come from what belongs to it, as
    a SQLite cursor does. Whatever fails, fails after all items before it have been yielded.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="pgvec-prepare") as executor:
        pending: Future[_Out] | None = None
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception:
                if pending is not None:
                    yield pending.result()
                raise
            following = executor.submit(prepare, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
