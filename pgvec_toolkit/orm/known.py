"""What the database knows of a mapped table, asked for now and then."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy import Connection, Pool, Select, Table, text
from sqlalchemy.exc import DBAPIError

from pgvec_toolkit.embed import kinds
from pgvec_toolkit.embed.base import Embedder, fingerprint
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError
from pgvec_toolkit.orm.conditions import check_names
from pgvec_toolkit.orm.literal import literal_sql
from pgvec_toolkit.orm.mapped import VectorColumn
from pgvec_toolkit.orm.waiting import outside
from pgvec_toolkit.pool import translated_errors
from pgvec_toolkit.search.kept import Kept

# Nothing here fails where the schema is absent, or closed: that would end the user's transaction.
_INSTALLED = text(
    "SELECT pg_catalog.to_regprocedure('pgvec._mapped(regclass,name)') IS NOT NULL"
    " AND pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('pgvec'), 'USAGE')"
    " AND pg_catalog.has_table_privilege(pg_catalog.to_regclass('pgvec.registered_tables'), 'SELECT')"
)
_MAPPED = text("SELECT m.* FROM pgvec._mapped(pg_catalog.to_regclass(:relation), :column) m")
_TEXT = text(
    "SELECT pgvec._mapped_sql(pg_catalog.to_regclass(:relation), :column, CAST(:k AS integer),"
    " CAST(:beyond AS integer), CAST(:keys AS text), pg_catalog.current_setting('search_path'), CAST(:recall AS"
    " double precision), CAST(:ef_search AS integer))"
)


@dataclass(frozen=True)
class Mapped:
    """What a vector column is registered as.

    Attributes:
        collection: its name.
        schema: of the table.
        key: the key column of the table.
        model: the embedder's name; None: vectors come from elsewhere.
        details: what it takes to load the embedder.
        fingerprint: of the embedder.
    """

    collection: str
    schema: str
    key: str
    model: str | None
    details: dict[str, Any]
    fingerprint: str | None


class Known:
    """What is known of one database: of what one connection pool connects to."""

    def __init__(self) -> None:
        self.installed: Kept[bool] = Kept()
        self.mapped: Kept[Mapped | None] = Kept()
        self.texts: Kept[str | None] = Kept()
        self.embedders: dict[str, Embedder] = {}


_KNOWN: WeakKeyDictionary[Pool, Known] = WeakKeyDictionary()
_LOADING = Lock()  # a model is large: one at a time


def known(connection: Connection) -> Known:
    """Return what is known of the database of a connection."""
    return _KNOWN.setdefault(connection.engine.pool, Known())


def forget(connection: Connection) -> None:
    """Ask anew; to be called when a table has been registered, or an index built or tuned."""
    _KNOWN.pop(connection.engine.pool, None)


def is_installed(connection: Connection) -> bool:
    """Return whether there is a schema pgvec, of this version, that whoever is connected may read."""
    return known(connection).installed.get((), lambda: bool(connection.scalar(_INSTALLED)))


def mapped(connection: Connection, searched: VectorColumn) -> Mapped | None:
    """Return what a column is registered as; None if it is not, or if there is no schema pgvec."""
    if not is_installed(connection):
        return None
    relation = relation_name(connection, searched.table)

    def fetch() -> Mapped | None:
        with our_errors():
            row = connection.execute(_MAPPED, {"relation": relation, "column": searched.column.name}).first()
        if row is None:
            return None
        if row.distance != searched.distance:
            raise ConfigurationError(
                f"column {searched.column} is registered in collection {row.collection!r} with distance "
                f"{row.distance}, and the model says {searched.distance}"
            )
        return Mapped(row.collection, row.schema, row.key, row.model, row.details or {}, row.fingerprint)

    return known(connection).mapped.get((*_path(connection), relation, searched.column.name), fetch)


def nearest_text(
    connection: Connection,
    searched: VectorColumn,
    numbers: tuple[int, int],
    keys: Select[Any] | None,
    recall: float | None,
    ef_search: int | None,
) -> str | None:
    """Return the text of a search (SQL: `pgvec._mapped_sql`); None if there is no index to search.

    Args:
        connection: to the database.
        searched: the column, which is registered.
        numbers: how many rows are wanted, and how many beyond them.
        keys: the keys of matching rows; None: all match.
        recall: the target, if not the default one.
        ef_search: instead of the tuned setting.
    """
    relation = relation_name(connection, searched.table)
    shape: Hashable = None
    if keys is not None:
        cache_key = keys._generate_cache_key()
        shape = cache_key.key if cache_key is not None else literal_sql(keys)

    def fetch() -> str | None:
        if keys is not None:
            check_names(keys)
        with our_errors():
            found = connection.scalar(
                _TEXT,
                {
                    "relation": relation,
                    "column": searched.column.name,
                    "k": numbers[0],
                    "beyond": numbers[1],
                    "keys": None if keys is None else literal_sql(keys, schemas(connection)),
                    "recall": recall,
                    "ef_search": ef_search,
                },
            )
        return None if found is None else str(found)

    key = (*_path(connection), relation, searched.column.name, numbers, shape, recall, ef_search)
    return known(connection).texts.get(key, fetch)


def embedder_for(connection: Connection, searched: VectorColumn) -> Embedder:
    """Return the embedder of a column: the model's own one, or that of its collection."""
    if searched.embedder is not None:
        return searched.embedder
    found = mapped(connection, searched)
    if found is None or found.model is None:
        why = "is not registered" if found is None else f"is in collection {found.collection!r}, which has no embedder"
        raise EmbeddingError(
            f"no embedder for column {searched.column}: the model names none, and the column {why}. Give a vector, or "
            "embedder=… to the model"
        )
    embedders = known(connection).embedders
    assert found.fingerprint is not None
    if found.fingerprint not in embedders:
        outside(_load, found, embedders)
    return embedders[found.fingerprint]


def _load(found: Mapped, embedders: dict[str, Embedder]) -> None:
    assert found.model is not None
    assert found.fingerprint is not None
    with _LOADING:
        if found.fingerprint in embedders:  # another thread was first
            return
        loaded = kinds.load(found.model, found.details)
        if fingerprint(loaded) != found.fingerprint:
            raise EmbeddingError(
                f"collection {found.collection!r} holds vectors of {found.model}, and the one that is installed has "
                "another fingerprint, so its vectors cannot be compared with them"
            )
        embedders[found.fingerprint] = loaded


def relation_name(connection: Connection, table: Table) -> str:
    """Return the quoted name of a table, as the connection knows it."""
    preparer = connection.dialect.identifier_preparer
    schema = schemas(connection).get(table.schema, table.schema)
    return f"{preparer.quote(schema)}.{preparer.quote(table.name)}" if schema else str(preparer.quote(table.name))


def schemas(connection: Connection) -> dict[str | None, str | None]:
    """Return in which schemas a connection has tables, where it is not as their models say."""
    return dict(connection.get_execution_options().get("schema_translate_map") or {})


def _path(connection: Connection) -> tuple[Hashable, ...]:
    """Return what decides which table a name means, as far as the driver is told (by PostgreSQL 18 and later)."""
    info: Any = getattr(connection.connection.driver_connection, "info", None)
    return (info.parameter_status("search_path"),) if hasattr(info, "parameter_status") else ()


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn what SQL raises on purpose into our errors; others stay SQLAlchemy's."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        try:
            with translated_errors():
                raise error.orig
        except psycopg.Error:
            raise error from None
