"""Preparing what comes next while the last is being dealt with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_PATIENCE = 2.0  # seconds for what is being prepared when nobody wants it any more


def prepared_ahead(items: Iterable[_In], prepare: Callable[[_In], _Out], ahead: int = 1) -> Iterator[_Out]:
    """Yield prepare(item) for each item, some of them prepared in a thread while the caller is busy.

    Args:
        items: are drawn in the caller's thread: they may come from what belongs to it, as a SQLite cursor does.
        prepare: is called in the thread, for one item after the other.
        ahead: how many are drawn before the caller is done with the last.

    Whatever fails, fails after all items before it have been yielded. A caller that may stop before the end closes
    the iterator (`contextlib.closing`): then nothing more is prepared, and what is being prepared is waited for a
    moment and then left behind.
    """
    source = iter(items)
    pending: deque[Future[_Out]] = deque()
    thread = _Preparing(prepare)
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception:
                yield from _results(pending)
                raise
            pending.append(thread.submit(item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        yield from _results(pending)
    finally:
        for future in pending:
            future.cancel()
        thread.end()


def _results(pending: deque[Future[_Out]]) -> Iterator[_Out]:
    while pending:
        yield pending.popleft().result()


class _Preparing(Generic[_In, _Out]):
    """A thread that prepares items; it keeps no process from ending."""

    def __init__(self, prepare: Callable[[_In], _Out]) -> None:
        self._tasks: SimpleQueue[tuple[Future[_Out], _In] | None] = SimpleQueue()
        self._thread = Thread(target=_prepare_all, args=(self._tasks, prepare), name="pgvec-prepare", daemon=True)

    def submit(self, item: _In) -> Future[_Out]:
        if not self._thread.is_alive():
            self._thread.start()
        future: Future[_Out] = Future()
        self._tasks.put((future, item))
        return future

    def end(self) -> None:
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)


def _prepare_all(tasks: SimpleQueue[tuple[Future[_Out], _In] | None], prepare: Callable[[_In], _Out]) -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(prepare(item))
            except BaseException as error:  # it is raised where the result is asked for
                future.set_exception(error)
        del task, future, item  # or the last one would be kept until the next is there
