"""A PostgreSQL with pgvec in it, as code with an event loop sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from pgvec_toolkit.aio.bridge import Bridge
from pgvec_toolkit.aio.collection import AsyncCollection
from pgvec_toolkit.aio.methods import Awaited, awaited, in_thread
from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database, embedded_dsn, resolve_dsn
from pgvec_toolkit.errors import ConfigurationError, NotMigrated
from pgvec_toolkit.greenlets import spawn, uninterrupted
from pgvec_toolkit.pool import Capabilities, translated_errors

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack

    import psycopg

    from pgvec_toolkit.pool_options import PoolOptions

_Parameters = ParamSpec("_Parameters")


def _opening(
    method: Callable[Concatenate[Database, _Parameters], Collection], *, thread: bool = True
) -> Callable[Concatenate[AsyncDatabase, _Parameters], Coroutine[Any, Any, AsyncCollection]]:
    """Return a method that returns the collection that another returns, awaited."""

    @wraps(method)
    async def call(self: AsyncDatabase, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> AsyncCollection:
        open_it = partial(method, self._called, *args, **kwargs)
        return AsyncCollection(self._bridge, await (self._bridge.do(open_it) if thread else spawn(open_it)))

    return call


class AsyncDatabase(Awaited[Database]):
    """A `Database` of which the methods are awaited; get one from `connect_async`, and use it with one event loop.

    It has two pools of at most `max_size` connections each: one for what tasks wait for themselves, one for long work.
    """

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge, bridge)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def dsn(self) -> str:
        """What it is connected by."""
        return self._called.dsn

    @property
    def most(self) -> int:
        """How many connections each of its pools has at most."""
        return self._called.most

    @property
    def keeps_sessions(self) -> bool:
        """Whether a connection has a session of its own; not with a transaction pooler (`prepare_threshold=None`)."""
        return self._called.keeps_sessions

    async def close(self) -> None:
        """Close all connections."""
        await uninterrupted(self._bridge.close_all())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        """Borrow an autocommit connection from the pool; its driver errors come out as pgvec's."""
        with translated_errors():
            borrowed = await self._bridge.lend()
            try:
                yield borrowed
            finally:
                await self._bridge.take_back(borrowed)

    async def migrate(self) -> None:
        """Bring schema `pgvec` to this library's version. Idempotent; any number of processes may do it at once."""
        await self._bridge.do(self._called.migrate)
        await self._bridge.loop_pool.drain()

    async def drain(self) -> None:
        """Replace all connections: those opened before the extension was there do not know its types."""
        await self._bridge.do(self._called.drain)
        await self._bridge.loop_pool.drain()

    async def capabilities(self) -> Capabilities:
        """Return the server's and the extension's versions; raises UnsupportedFeature if the extension is too old."""
        return await spawn(lambda: self._called.capabilities)

    def own_processes(self) -> list[int]:
        """Return the server processes of its sessions, lent ones too."""
        return self._called.own_processes()

    check_migrated = awaited(Database.check_migrated)
    fetch = awaited(Database.fetch)
    fetch_one = awaited(Database.fetch_one)

    create_collection = _opening(Database.create_collection)
    collection = _opening(Database.collection, thread=False)
    collections = awaited(Database.collections)
    drop_collection = awaited(Database.drop_collection)
    models = awaited(Database.models)

    register_table = _opening(Database.register_table)
    unregister_table = awaited(Database.unregister_table)

    attach = _opening(Database.attach)
    detach = awaited(Database.detach)
    attachments = awaited(Database.attachments)
    requeue = awaited(Database.requeue)
    work = in_thread(Database.work)

    explain_sql = awaited(Database.explain_sql)
    advisories = awaited(Database.advisories)
    health = awaited(Database.health)
    doctor = in_thread(Database.doctor)
    mend = in_thread(Database.mend)


async def connect_async(dsn: str | None = None, **options: Unpack[PoolOptions]) -> AsyncDatabase:
    """Connect to PostgreSQL from an event loop of asyncio; as `connect` does, with the same options.

    Args:
        dsn: a libpq connection string or URI; None: PGVEC_DSN, libpq's environment, or the embedded PostgreSQL.
        **options: of its two pools of connections: see `PoolOptions`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigurationError(
            "connect_async takes an event loop of asyncio, for psycopg knows no other: run it by asyncio.run(…), or "
            'anyio.run(…, backend="asyncio")'
        ) from error
    resolved = resolve_dsn(dsn)
    own = resolved is None
    bridge = Bridge(await asyncio.to_thread(embedded_dsn) if resolved is None else resolved, **options)
    database = AsyncDatabase(bridge)
    await bridge.loop_pool.open()
    try:
        try:
            await database.check_migrated()
        except NotMigrated:
            if not own:
                raise
            await database.migrate()
    except BaseException:
        await database.close()
        raise
    return database
