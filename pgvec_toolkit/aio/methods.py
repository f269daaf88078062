"""Making the awaited method of a method: its signature and its documentation are those of the method."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from pgvec_toolkit.greenlets import spawn

if TYPE_CHECKING:
    from pgvec_toolkit.aio.bridge import Bridge

_Made = TypeVar("_Made")
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Awaited(Generic[_Made]):
    """What has the methods of something else, awaited."""

    def __init__(self, bridge: Bridge, called: _Made) -> None:
        self._bridge = bridge
        self._called = called


def awaited(
    method: Callable[Concatenate[_Made, _Parameters], _Result],
) -> Callable[Concatenate[Awaited[_Made], _Parameters], Coroutine[Any, Any, _Result]]:
    """Return a method that the task runs itself, awaiting the server: what computes is not for it."""

    @wraps(method)
    async def call(self: Awaited[_Made], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        return await spawn(method, self._called, *args, **kwargs)

    return call


def in_thread(
    method: Callable[Concatenate[_Made, _Parameters], _Result],
) -> Callable[Concatenate[Awaited[_Made], _Parameters], Coroutine[Any, Any, _Result]]:
    """Return a method that runs in a thread: one that computes, or has threads and sessions of its own."""

    @wraps(method)
    async def call(self: Awaited[_Made], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        return await self._bridge.do(partial(method, self._called, *args, **kwargs))

    return call


def iterated(
    method: Callable[Concatenate[_Made, _Parameters], Iterator[_Result]],
) -> Callable[Concatenate[Awaited[_Made], _Parameters], AsyncIterator[_Result]]:
    """Return a method that yields what another yields."""

    @wraps(method)
    async def iterate(
        self: Awaited[_Made], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> AsyncIterator[_Result]:
        iterator = method(self._called, *args, **kwargs)
        while found := await spawn(lambda: list(islice(iterator, 1))):
            yield found[0]

    return iterate
