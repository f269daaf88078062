"""Long work in threads, which has sessions and threads of its own: cancelling its task is as Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import READY_NONE

from pgvec_toolkit.greenlets import uninterrupted
from pgvec_toolkit.pool import Connection

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_PATIENCE = 0.5  # seconds until the statements of threads that help are cancelled, and cancelled again


class Interrupted(KeyboardInterrupt):
    """The task that this thread works for was cancelled."""


class Work:
    """A call that runs in a thread for a task.

    Attributes:
        connections: those that it has.
        stops: what else ends it.
        interrupted: whether the thread knows that it shall end.
    """

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.stops: list[Callable[[], None]] = []
        self.interrupted = False
        self._cancelled = False

    async def run(self, executor: Executor, call: Callable[[], _Result]) -> _Result:
        """Run the call; when the task is cancelled, the work is, and it has ended before that goes on."""
        submitted = executor.submit(copy_context().run, self._call, call)
        future = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._cancelled = True
            if not submitted.cancel():
                await uninterrupted(self._end(future))
            raise

    def heed(self) -> None:
        """Raise Interrupted, once, if the task was cancelled; for what tidies up thereafter can wait in peace."""
        if self._cancelled and not self.interrupted:
            self.interrupted = True
            raise Interrupted

    def _call(self, call: Callable[[], _Result]) -> _Result:
        _work.set(self)
        return call()

    async def _end(self, future: asyncio.Future[Any]) -> None:
        for stop in tuple(self.stops):
            stop()
        while not (await asyncio.wait([future], timeout=_PATIENCE))[0]:
            # It may be waiting for a thread that helps, or for an embedder.
            for connection in () if self.interrupted else tuple(self.connections):
                with suppress(psycopg.Error):
                    await asyncio.to_thread(connection.cancel_safe, timeout=_PATIENCE)
        future.exception()  # looked at, or asyncio would complain


# Of the thread that does the work; those that help it do not have it, as they do not get Ctrl-C.
_work: ContextVar[Work | None] = ContextVar("pgvec_work", default=None)


@contextmanager
def known(connection: Connection) -> Iterator[Connection]:
    """Have a connection be one of the work's, if this is some, for the length of the block."""
    work = _work.get()
    if work is not None:
        work.connections.add(connection)
    try:
        yield connection
    finally:
        if work is not None:
            work.connections.discard(connection)


@contextmanager
def stopped_by(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Have something called when the work is cancelled, if this is some, for the length of the block: yields `heed`."""
    work = _work.get()
    if work is None:
        yield lambda: None
        return
    work.stops.append(stop)
    try:
        yield work.heed
    finally:
        work.stops.remove(stop)


def heeding(gen: PQGen[_Result]) -> PQGen[_Result]:
    """Return a generator that is interrupted between its steps, if this is work: they are 0.1 s apart at most."""
    work = _work.get()
    return gen if work is None else cast("PQGen[_Result]", _Heeding(gen, work))


class _Heeding:
    """Not a generator: one that has raised cannot go on, as psycopg does when it has cancelled the statement."""

    def __init__(self, gen: Generator[Any, Any, Any], work: Work) -> None:
        self._gen = gen
        self._work = work

    def __iter__(self) -> _Heeding:
        return self

    def __next__(self) -> Any:
        self._work.heed()
        return next(self._gen)

    def send(self, ready: int) -> Any:
        if ready == READY_NONE:
            self._work.heed()
        return self._gen.send(ready)

    def throw(self, *error: Any) -> Any:
        return self._gen.throw(*error)

    def close(self) -> None:
        self._gen.close()
