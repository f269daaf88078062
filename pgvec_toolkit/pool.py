"""Connections to PostgreSQL: the pool, what the server can do, and how its errors become ours."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout

from pgvec_toolkit import adapters, pool_options
from pgvec_toolkit.errors import (
    CollectionExists,
    CollectionNotFound,
    ConfigurationError,
    ConnectionFailed,
    FilterError,
    InvalidName,
    NotMigrated,
    PgvecError,
    UnsupportedFeature,
)
from pgvec_toolkit.greenlets import outside

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack

    from pgvec_toolkit.pool_options import PoolOptions

Connection = psycopg.Connection[tuple[Any, ...]]

# SQLSTATEs: PV… are raised by the functions of schema pgvec (sql/100_catalogue.sql).
_ERRORS: dict[str, type[PgvecError]] = {
    "PV001": CollectionNotFound,
    "PV002": CollectionExists,
    "PV003": InvalidName,
    "PV004": FilterError,
    "PV005": ConfigurationError,
    "3F000": NotMigrated,  # invalid_schema_name
    "42501": ConfigurationError,  # insufficient_privilege
    "42602": InvalidName,  # of a table that is looked up
    "22003": ConfigurationError,  # numeric_value_out_of_range: k, mostly
    "22007": FilterError,  # invalid_datetime_format: a date in a filter, read only when the search runs
    "22008": FilterError,  # datetime_field_overflow
    "57P01": ConnectionFailed,  # admin_shutdown
    "57P02": ConnectionFailed,  # crash_shutdown
    "57P03": ConnectionFailed,  # cannot_connect_now
}
_HINTS = {
    "42501": "An administrator can grant what is missing: docs/sql.md#permissions says what each task needs",
    "42602": 'Names with capitals, spaces or dots are written in double quotes, as shop."Price list"',
}
MINIMUM_VECTOR_VERSION = (0, 8, 0)  # iterative index scans
_CONNECT_TIMEOUT = 10  # seconds, unless the DSN or PGCONNECT_TIMEOUT says otherwise
# Those that the server has: of transactions from version 17 on.
_NO_TIMEOUTS = """
SELECT set_config(s.name, '0', false) FROM pg_catalog.pg_settings s
WHERE s.name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout',
                 'idle_in_transaction_session_timeout')
"""
_PATIENCE = 1.0  # seconds until we ask why the pool has no connection for us


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn driver errors that have a name of ours into it; the driver's error stays as the cause."""
    try:
        yield
    except psycopg.Error as error:
        _raise_translated(error)
        raise


def _raise_translated(error: psycopg.Error) -> None:
    ours = _ERRORS.get(error.sqlstate or "")
    if ours is not None:
        hint = error.diag.message_hint or _HINTS.get(error.sqlstate or "")
        raise ours(f"{error.diag.message_primary}{f'. {hint}' if hint else ''}") from error
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        raise ConnectionFailed(f"no connection to PostgreSQL: {str(error).strip()}") from error


@dataclass(frozen=True)
class Capabilities:
    """What the server and its extension can do.

    Attributes:
        server: the server's version, as it prints it.
        vector: version of the extension vector.
        replica: whether the server is a read-only standby.
    """

    server: str
    vector: tuple[int, ...]
    replica: bool


class Pool:
    """Connections to one database, shared by threads; the options are those of `PoolOptions`."""

    _connection_class: type[Connection] = psycopg.Connection

    def __init__(self, dsn: str, **options: Unpack[PoolOptions]) -> None:
        self.dsn = dsn
        self._sizes, prepared = pool_options.checked(options)
        self._options: dict[str, Any] = {"autocommit": True, **prepared}
        if "connect_timeout" not in conninfo_to_dict(dsn) and "PGCONNECT_TIMEOUT" not in os.environ:
            self._options["connect_timeout"] = _CONNECT_TIMEOUT
        self._capabilities: Capabilities | None = None
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        # No idle minimum unless asked for: a script that forgets to close leaves no connection and no thread waiting.
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            dsn,
            connection_class=self._connection_class,
            open=False,
            kwargs=self._options,
            configure=self._prepare,
            check=notice_end,
            **self._sizes,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def most(self) -> int:
        """How many connections there are at most."""
        return self._pool.max_size

    @property
    def keeps_sessions(self) -> bool:
        """Whether a connection has a session of its own; not with a transaction pooler (`prepare_threshold=None`)."""
        return self._options.get("prepare_threshold", 0) is not None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Borrow an autocommit connection from the pool; its driver errors come out as pgvec's."""
        try:
            borrowed = self._borrow()
            try:
                yield borrowed
            finally:
                self._give_back(borrowed)
        except psycopg.Error as error:
            _raise_translated(error)
            raise

    @contextmanager
    def dedicated_connection(self) -> Iterator[Connection]:
        """Open a connection outside the pool, for long work in a session of its own: it ends there if we are killed.

        It is autocommit, no timeout of the role or the database is for it, and its driver errors come out as pgvec's.
        """
        with translated_errors():
            connection = self._connection_class.connect(self.dsn, **self._options)
            with closing(connection), connection:  # one that is interrupted as it commits would not be closed
                if not self.keeps_sessions:
                    _check_session(connection)
                self._prepare(connection)
                connection.execute(_NO_TIMEOUTS)
                with suppress(psycopg.Error):  # not on every system
                    connection.execute("SET client_connection_check_interval = '1s'")
                yield connection

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[Callable[[], None]]:  # noqa: ARG002
        """Have `stop` called if the block, which waits for other things than the server, is to end before its time.

        Yields what then raises, as Ctrl-C does; to be called between what it waits for.
        """
        yield lambda: None  # here Ctrl-C ends it

    def own_processes(self) -> list[int]:
        """Return the server processes of this pool's sessions, lent and dedicated ones too."""
        return [connection.info.backend_pid for connection in list(self._connections) if not connection.closed]

    def fetch(
        self, sql: str, parameters: list[Any] | tuple[Any, ...] = (), *, prepare: bool | None = None
    ) -> list[Any]:
        """Run one statement with `$1` parameters on a pooled connection and return its rows."""
        with self.connection() as connection:
            cursor = RawCursor(connection)
            cursor.format = psycopg.pq.Format.BINARY
            cursor.execute(sql.encode(), parameters, prepare=prepare)
            return cursor.fetchall() if cursor.description else []

    def fetch_one(self, sql: str, parameters: list[Any] | tuple[Any, ...] = ()) -> Any:
        """Return the first row, or None."""
        rows = self.fetch(sql, parameters)
        return rows[0] if rows else None

    def drain(self) -> None:
        """Replace all connections: those opened before the extension was there do not know its types."""
        if self._pool.closed:
            self._pool.open()
        self._pool.drain()

    @property
    def capabilities(self) -> Capabilities:
        """The server's and the extension's versions; raises UnsupportedFeature if the extension is too old."""
        # Not a cached_property: that of Python 3.11 has a lock, which a task would hold while it waits for the server.
        if self._capabilities is None:
            self._capabilities = self._ask_capabilities()
        return self._capabilities

    def _ask_capabilities(self) -> Capabilities:
        server, vector, replica = self.fetch_one(
            "SELECT current_setting('server_version'),"
            " (SELECT extversion FROM pg_extension WHERE extname = 'vector'), pg_is_in_recovery()"
        )
        if vector is None:
            raise NotMigrated("the extension vector is not installed in this database: run `pgvec migrate`")
        found = tuple(int(part) for part in vector.split(".") if part.isdigit())
        if found < MINIMUM_VECTOR_VERSION:
            raise UnsupportedFeature(
                f"pgvec needs pgvector 0.8.0 or newer (iterative index scans), the server has {vector}: "
                "install a newer one and run ALTER EXTENSION vector UPDATE"
            )
        return Capabilities(server, found, replica)

    def _prepare(self, connection: Connection) -> None:
        _configure(connection)
        self._connections.add(connection)

    def _take(self, timeout: float) -> Connection:
        """Take a connection from the pool; raises PoolTimeout."""
        if self._pool.closed:
            self._pool.open()
        return self._pool.getconn(timeout)

    def _give_back(self, connection: Connection) -> None:
        self._pool.putconn(connection)

    def _borrow(self) -> Connection:
        """Take a connection from the pool; say at once why there is none if the server is to blame."""
        timeout = self._pool.timeout
        patience = min(_PATIENCE, timeout)
        try:
            return self._take(patience)
        except PoolTimeout:
            outside(self._try_to_connect)
        try:
            return self._take(max(0.0, timeout - patience))
        except PoolTimeout as error:
            outside(self._try_to_connect)
            raise ConnectionFailed(
                "all connections of the pool are in use: raise max_size, or close what you borrow"
            ) from error

    def _try_to_connect(self) -> None:
        """Connect once, outside the pool, which keeps to itself what is wrong."""
        try:
            psycopg.connect(self.dsn, **self._options).close()
        except psycopg.Error as error:
            raise ConnectionFailed(f"no connection to PostgreSQL: {str(error).strip()}") from error


def _configure(connection: Connection) -> None:
    """Prepare a new connection: vector types, and plans made once.

    Our statements are written for generic plans; to plan a filtered search costs as much as to run it, and
    so does JIT, which the server would start for the branches that are switched off. Behind a transaction pooler
    the session is not ours: what is set there would reach others (see `search.statements`).
    """
    if connection.prepare_threshold is not None:
        connection.execute("SET jit = off")
        connection.execute("SET plan_cache_mode = force_generic_plan")
    schema = connection.execute(
        "SELECT quote_ident(n.nspname) FROM pg_catalog.pg_extension e"
        " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    if schema is not None:
        with connection.transaction():  # for its length only: the types may live off the session's search_path
            connection.execute("SELECT set_config('search_path', %s, true)", schema)
            adapters.register(connection)


def _check_session(connection: Connection) -> None:
    """Raise ConfigurationError if somebody is between us and the server, who lends sessions for a transaction."""
    pid = connection.execute("SELECT pg_backend_pid()").fetchone()
    if pid != (connection.info.backend_pid,):
        raise ConfigurationError(
            "this takes a session of its own, for locks and settings that outlive a transaction, which a transaction "
            "pooler has not: for this, connect to PostgreSQL itself, by the DSN that the pooler has of it"
        )


def notice_end(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise if the server has ended an idle connection: its farewell waits to be read. It takes no round trip."""
    for _ in range(2):  # the reason, then the end
        connection.pgconn.consume_input()
