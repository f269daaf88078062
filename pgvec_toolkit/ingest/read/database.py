"""Rows of another database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgvec_toolkit.errors import ConfigurationError, ConnectionFailed

ROWS_AT_ONCE = 1000
_LIBPQ = re.compile(r"postgres(ql)?://|(?!\w[\w+]*:)")  # a URL of its own, or name=value pairs


@dataclass(frozen=True)
class Query:
    """The rows of a query; every time they are iterated over, it is run.

    Attributes:
        sql: the query.
        dsn: of the database.
        parameters: of the query.
    """

    sql: str
    dsn: str = field(repr=False)  # passwords are in there
    parameters: Sequence[Any] | Mapping[str, Any] | None = None

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self._from_postgres() if _LIBPQ.match(self.dsn) else self._from_sqlalchemy()

    def _from_postgres(self) -> Iterator[Mapping[str, Any]]:
        import psycopg
        from psycopg.rows import dict_row

        try:
            connection = psycopg.connect(self.dsn, row_factory=dict_row)
        except psycopg.Error as error:
            raise ConnectionFailed(f"no connection to the database to read from: {str(error).strip()}") from error
        with connection:
            connection.read_only = True
            try:
                with connection.cursor("pgvec_read") as cursor:
                    cursor.itersize = ROWS_AT_ONCE
                    cursor.execute(self.sql.encode(), self.parameters)
                    yield from cursor
            except psycopg.Error as error:
                raise _failed(error) from error

    def _from_sqlalchemy(self) -> Iterator[Mapping[str, Any]]:
        import sqlalchemy

        try:
            engine = sqlalchemy.create_engine(self.dsn, poolclass=sqlalchemy.NullPool)
        except sqlalchemy.exc.ArgumentError as error:
            raise ConfigurationError(
                "the database to read from is named by a DSN of PostgreSQL or a URL of SQLAlchemy, as "
                f"mysql+pymysql://user@host/name: {error}"
            ) from error
        except ImportError as error:
            raise ConfigurationError(f"the driver of the database to read from is not installed: {error}") from error
        try:
            connection = engine.connect().execution_options(yield_per=ROWS_AT_ONCE)
        except sqlalchemy.exc.DBAPIError as error:
            raise ConnectionFailed(f"no connection to the database to read from: {error.orig}") from error
        with connection:
            try:
                yield from map(dict, connection.execute(sqlalchemy.text(self.sql), self.parameters).mappings())
            except sqlalchemy.exc.SQLAlchemyError as error:
                raise _failed(getattr(error, "orig", None) or error) from error


def _failed(error: BaseException) -> ConfigurationError:
    return ConfigurationError(f"the database that is read from says: {str(error).strip()}")


def read_sql(sql: str, dsn: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Query:
    """Return the rows of a query against any database, to be ingested or upserted; they are streamed.

    Args:
        sql: the query; name its columns `id` and `text`, or say which they are when you ingest it.
        dsn: of PostgreSQL, or a URL of SQLAlchemy for whatever that has a driver of.
        parameters: of the query: for PostgreSQL as psycopg takes them (`%s`, `%(name)s`), else by name (`:name`).

    Raises:
        ConnectionFailed, ConfigurationError: when the rows are read.
    """
    return Query(sql, dsn, parameters)
