"""Code that waits for its connections as it always does, run by a task whose event loop goes on meanwhile.

A function runs in a greenlet of its own; where it would block, `wait_for` leaves that greenlet until the task has
awaited what was asked for. So there is one way to search, and two to wait. (Model: SQLAlchemy's asyncio.)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from types import coroutine
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _Spawned(greenlet):  # type: ignore[misc]  # it comes without types
    pass


def in_task() -> bool:
    """Return whether this code was spawned by a task, and so must not block."""
    return isinstance(getcurrent(), _Spawned)


def wait_for(awaitable: Awaitable[_Result]) -> _Result:
    """Have the task await something; to be called by what was spawned."""
    awaited: _Result = getcurrent().parent.switch(awaitable)
    return awaited


async def spawn(
    function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> _Result:
    """Run a function in a greenlet, awaiting what it waits for; what is raised there, cancellation too, it gets."""
    current = getcurrent()
    spawned = _Spawned(function, current)
    spawned.gr_context = current.gr_context
    result: Any = spawned.switch(*args, **kwargs)
    while not spawned.dead:
        try:
            value = await result
        except BaseException:
            result = spawned.throw(*sys.exc_info())
        else:
            result = spawned.switch(value)
    returned: _Result = result
    return returned


def outside(function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
    """Call what computes for long, or blocks: in a thread, if a task is waiting, so that its event loop goes on."""
    if in_task():
        return wait_for(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)


async def uninterrupted(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await something to its end, in a task of its own, however often this one is cancelled meanwhile; then it is."""
    doing = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with _shield():
        while not doing.done():
            try:
                await asyncio.wait([doing])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not doing.cancelled():
            doing.exception()  # looked at, or asyncio would complain
        raise cancelled
    return doing.result()


async def uninterrupted_at_once(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await as `uninterrupted` does what as a rule waits for nothing: then no turn of the event loop is lost.

    If it does wait, it goes on in another task: it must not have asked which one it is in, as timeouts do.
    """
    try:
        pending = work.send(None)
    except StopIteration as done:
        result: _Result = done.value
        return result
    return await uninterrupted(_finished(work, pending))


async def _finished(work: Coroutine[Any, Any, _Result], pending: Any) -> _Result:
    return await _rest(work, pending)


@coroutine
def _rest(work: Coroutine[Any, Any, _Result], pending: Any) -> Generator[Any, Any, _Result]:
    """Go on with what has been begun, and waits for something."""
    while True:
        try:
            try:
                answer = yield pending
            except BaseException as error:
                pending = work.throw(error)
            else:
                pending = work.send(answer)
        except StopIteration as done:
            result: _Result = done.value
            return result


def _shield() -> AbstractContextManager[object]:
    """A cancelled scope of anyio cancels its tasks again and again, unless they are shielded."""
    anyio = sys.modules.get("anyio")  # where it was not imported, nobody has a scope of it
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
