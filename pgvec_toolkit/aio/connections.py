"""Connections that are waited for in other ways than by blocking until the server answers.

psycopg keeps what it says to the server (generators) apart from waiting for the answers (`wait`): only that differs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus

from pgvec_toolkit.aio.work import heeding
from pgvec_toolkit.greenlets import uninterrupted, wait_for
from pgvec_toolkit.pool import Connection

_Result = TypeVar("_Result")
_INTERVAL = 0.1  # seconds, as psycopg has it
_PATIENCE = 5.0  # seconds for the server to cancel a statement


class LoopConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection of the event loop; cancelled, its statement is cancelled on the server, also in scopes of anyio.

    Attributes:
        spawned: the same session, for code that a task has spawned.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spawned = SpawnedConnection(self)

    async def wait(self, gen: PQGen[_Result], interval: float = _INTERVAL, timeout: float | None = None) -> _Result:
        """Await the answers that a generator waits for."""
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await uninterrupted(self._end(gen))
            raise

    async def _end(self, gen: PQGen[_Result]) -> None:
        """Cancel the statement, and read what the server says to that; or close the connection."""
        try:
            await self.cancel_safe(timeout=_PATIENCE)
            with suppress(psycopg.errors.QueryCanceled):
                await waiting.wait_async(gen, self.pgconn.socket, _INTERVAL, _PATIENCE)
        except psycopg.Error:  # of an unknown state
            self.pgconn.finish()


class SpawnedConnection(psycopg.Connection[tuple[Any, ...]]):
    """The session of a `LoopConnection`, which has the task wait for its answers."""

    def __init__(self, connection: LoopConnection) -> None:
        handlers = connection.pgconn.notice_handler, connection.pgconn.notify_handler
        super().__init__(connection.pgconn)
        # Those of the connection that is lent to users, which these have taken the place of.
        connection.pgconn.notice_handler, connection.pgconn.notify_handler = handlers
        self._pool = None  # the other one warns, if it is not closed
        self.loop_connection = connection

    @property
    def adapters(self) -> AdaptersMap:
        """How values are dumped and loaded."""
        return self.loop_connection.adapters

    def wait(self, gen: PQGen[_Result], interval: float = _INTERVAL, timeout: float | None = None) -> _Result:
        """Have the task await the answers that a generator waits for."""
        return wait_for(self.loop_connection.wait(gen, interval, timeout))


class WorkConnection(Connection):
    """A connection of a thread that works for a task: when the task is cancelled, it is as if by Ctrl-C."""

    def wait(self, gen: PQGen[_Result], interval: float = _INTERVAL, timeout: float | None = None) -> _Result:
        """Wait for the answers that a generator waits for."""
        return super().wait(heeding(gen), interval, timeout)
