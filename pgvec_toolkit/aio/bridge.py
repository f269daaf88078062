"""A database whose methods can be called by what a task has spawned, and by threads that work for a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from psycopg_pool import AsyncConnectionPool

from pgvec_toolkit.aio.connections import LoopConnection, SpawnedConnection, WorkConnection
from pgvec_toolkit.aio.work import Work, known, stopped_by
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConnectionFailed
from pgvec_toolkit.greenlets import in_task, spawn, uninterrupted_at_once, wait_for
from pgvec_toolkit.pool import Connection, notice_end

if TYPE_CHECKING:
    from typing import Unpack

    from pgvec_toolkit.pool_options import PoolOptions

_Result = TypeVar("_Result")


class Bridge(Database):
    """What an `AsyncDatabase` calls: it borrows from a pool of the event loop, or, in a thread, from one of threads."""

    _connection_class = WorkConnection

    def __init__(self, dsn: str, **options: Unpack[PoolOptions]) -> None:
        super().__init__(dsn, **options)
        self.loop_pool: AsyncConnectionPool[LoopConnection] = AsyncConnectionPool(
            dsn,
            connection_class=LoopConnection,
            open=False,
            kwargs=self._options,
            configure=self._prepare_for_loop,
            check=_notice_end,
            **self._sizes,
        )
        self._executor = ThreadPoolExecutor(self.most, thread_name_prefix="pgvec-work")

    async def do(self, call: Callable[[], _Result]) -> _Result:
        """Make a call in a thread; it is interrupted when the task is cancelled."""
        if self.loop_pool.closed:
            raise ConnectionFailed("the database is closed: connect_async() opens another")
        return await Work().run(self._executor, call)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Borrow an autocommit connection; its driver errors come out as pgvec's."""
        with super().connection() as connection, known(connection):
            yield connection

    @contextmanager
    def dedicated_connection(self) -> Iterator[Connection]:
        """Open a connection outside the pool, in a thread: no event loop would go on meanwhile."""
        assert not in_task()
        with super().dedicated_connection() as connection, known(connection):
            yield connection

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Have `stop` called when the task is cancelled that the block works for; yields what then raises."""
        with stopped_by(stop) as heed:
            yield heed

    async def lend(self) -> LoopConnection:
        """Take a connection from the pool of tasks, as spawned code does."""
        borrowed = await spawn(self._borrow)
        assert isinstance(borrowed, SpawnedConnection)
        return borrowed.loop_connection

    async def take_back(self, connection: LoopConnection) -> None:
        """Give a connection back to the pool of tasks, which would lose one if it were interrupted meanwhile."""
        if connection.pgconn.pipeline_status:  # cancelled where psycopg had entered it, and let others have a turn
            connection.pgconn.finish()
        await uninterrupted_at_once(self.loop_pool.putconn(connection))

    async def close_all(self) -> None:
        """Close all connections; work that is going on is not waited for."""
        await self.loop_pool.close()
        await asyncio.to_thread(self.close)  # not behind that work
        self._executor.shutdown(wait=False)

    def _take(self, timeout: float) -> Connection:
        if in_task():
            return wait_for(self.loop_pool.getconn(timeout)).spawned
        return super()._take(timeout)

    def _give_back(self, connection: Connection) -> None:
        if isinstance(connection, SpawnedConnection):
            wait_for(self.take_back(connection.loop_connection))
        else:
            super()._give_back(connection)

    async def _prepare_for_loop(self, connection: LoopConnection) -> None:
        connection.spawned.prepare_threshold = connection.prepare_threshold
        # Both would give their prepared statements the same names.
        connection.prepare_threshold = None
        await spawn(connection.spawned.set_autocommit, True)
        await spawn(self._prepare, connection.spawned)


async def _notice_end(connection: LoopConnection) -> None:
    notice_end(connection)
