"""Running searches: the statement's text comes from SQL once per shape and is then a prepared statement.

The statement carries its own settings (sql/400_search.sql), so it runs in one round trip on any
autocommit connection and leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import RawCursor
from psycopg.types.json import Jsonb

from pgvec_toolkit.search.filter import Filter, plain, shape
from pgvec_toolkit.search.hit import Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pgvec_toolkit.pool import Connection, Pool

# The gate follows the table's size, and an index may appear: a text is asked for again after this many seconds.
_TEXT_LIFETIME = 60.0


@dataclass(frozen=True)
class Options:
    """What decides, together with the shape of the filter, the text of a search statement."""

    k: int = 10
    space: str | None = None
    ef_search: int | None = None
    exact: bool = False


class Searcher:
    """Searches of one collection."""

    def __init__(self, database: Pool, collection: str) -> None:
        self._database = database
        self._collection = collection
        self._texts: dict[tuple[Options, Hashable], tuple[bytes, float]] = {}

    def search(self, query: NDArray[np.float32], where: Filter | None, options: Options) -> list[Hit]:
        """Return the hits of a query vector of shape (dimensions,)."""
        filter = None if where is None else plain(where)
        parameters: list[Any] = [query] if filter is None else [query, Jsonb(filter)]
        with self._database.connection() as connection:
            try:
                rows = _run(connection, self._text(connection, filter, options), parameters)
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
                self.forget_texts()  # dropped and created again, with other columns
                rows = _run(connection, self._text(connection, filter, options), parameters)
            except psycopg.DataError:
                # A value that the statement cannot read: compiling its filter says which field it is for.
                search_sql(connection, self._collection, filter, options)
                raise
        return [Hit(*row) for row in rows]

    def forget_texts(self) -> None:
        """Ask for statements anew; to be called when an index has been built or dropped."""
        self._texts.clear()

    def _text(self, connection: Connection, filter: Any, options: Options) -> bytes:
        key = (options, shape(filter))
        now = time.monotonic()
        text, fetched = self._texts.get(key, (b"", 0.0))
        if not text or now - fetched > _TEXT_LIFETIME:
            text = search_sql(connection, self._collection, filter, options).encode()
            self._texts[key] = (text, now)
        return text


def search_sql(connection: Connection, collection: str, filter: Any, options: Options) -> str:
    """Return the text of the statement (SQL: `pgvec.search_sql`)."""
    row = connection.execute(
        "SELECT pgvec.search_sql(%s, %s::integer, %s, %s, %s::integer, %s)",
        [
            collection,
            options.k,
            None if filter is None else Jsonb(filter),
            options.space,
            options.ef_search,
            options.exact,
        ],
    ).fetchone()
    assert row is not None
    return str(row[0])


def _run(connection: Connection, text: bytes, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    return RawCursor(connection).execute(text, parameters, prepare=True, binary=True).fetchall()
