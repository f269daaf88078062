"""Running the statements of searches: their texts come from the server, are kept for a while, and run prepared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import RawCursor

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.search.kept import Kept

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection

_SETTINGS = b"SELECT set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)"


class Texts:
    """Statements by the shape of the call."""

    def __init__(self) -> None:
        self._texts: Kept[bytes] = Kept()

    def get(self, key: Hashable, fetch: Callable[[], str]) -> bytes:
        """Return the text of a shape, fetched if it is not there or too old."""
        return self._texts.get(key, lambda: fetch().encode())

    def run(
        self,
        connection: Connection,
        key: Hashable,
        fetch: Callable[[], str],
        parameters: Sequence[Any],
        where_sql: str | None,
    ) -> list[tuple[Any, ...]]:
        """Run the statement of a shape; fetched anew if it no longer fits the tables."""
        try:
            return run(connection, self.get(key, fetch), parameters)
        except psycopg.ProgrammingError:
            self.clear()  # dropped and created again, with other columns
            with blamed(where_sql):
                return run(connection, self.get(key, fetch), parameters)
        except psycopg.DataError:
            # A value that the statement cannot read: compiling its filter says which field it is for.
            fetch()
            raise

    def clear(self) -> None:
        """Forget them all."""
        self._texts.clear()


def run(connection: Connection, text: bytes, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a statement with `$1` parameters prepared, with binary parameters."""
    cursor = RawCursor(connection)
    with _settings(connection):
        cursor.execute(text, parameters, prepare=True, binary=True)
    return cursor.fetchall()


def ask(connection: Connection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a statement with `%s` parameters, which calls a function that searches."""
    cursor = connection.cursor(binary=True)
    with _settings(connection):
        cursor.execute(statement.encode(), values)
    return cursor.fetchall()


@contextmanager
def _settings(connection: Connection) -> Iterator[None]:
    """Behind a transaction pooler, set for one statement what `pool` sets for a session: in the same round trip."""
    if connection.prepare_threshold is not None:
        yield
        return
    with connection.pipeline():  # which is one transaction
        connection.execute(_SETTINGS)
        yield


@contextmanager
def blamed(where_sql: str | None) -> Iterator[None]:
    """Say of a statement that does not parse that there is text of the user in it."""
    try:
        yield
    except psycopg.ProgrammingError as error:
        if where_sql is None or (error.sqlstate or "").startswith("PV"):  # pgvec's own say what is wrong
            raise
        raise ConfigurationError(f"where_sql {where_sql!r}: {error.diag.message_primary}") from error
