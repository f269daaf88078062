"""What computes for long, where SQLAlchemy may be run by a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.util.concurrency import await_only, in_greenlet

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def outside(function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
    """Call a function: in a thread if it is for an AsyncSession, whose event loop goes on meanwhile."""
    if in_greenlet():
        return await_only(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)
