"""What the database knows of a mapped table, asked for now and then."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import psycopg
from sqlalchemy import Connection, Pool, Select, Table, Transaction, text
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
    "SELECT CASE WHEN pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
    " THEN pg_catalog.to_regprocedure('pgvec._mapped(regclass,name)') IS NOT NULL"
    " AND pg_catalog.has_table_privilege(pg_catalog.to_regclass('pgvec.registered_tables'), 'SELECT') END"
    " FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgvec'"
)
_READER = text("SELECT CAST(ROW(pg_catalog.current_schemas(true), current_user) AS text)")
_REPORTED = ("search_path", "session_authorization", "is_superuser")
_OPTION = "pgvec_reader"  # the execution option that keeps what `_reader` returns, while a statement is asked for
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
        key: the key column of the table.
        model: the embedder's name; None: vectors come from elsewhere.
        details: what it takes to load the embedder.
        fingerprint: of the embedder.
    """

    collection: str
    key: str
    model: str | None
    details: dict[str, Any]
    fingerprint: str | None


class Known:
    """What is known of one database: of what one connection pool connects to.

    Args:
        before: whose place it takes.
    """

    def __init__(self, before: Known | None = None) -> None:
        self.installed: Kept[bool] = Kept()
        self.mapped: Kept[Mapped | None] = Kept()
        self.texts: Kept[str | None] = Kept()
        # By their fingerprints, so they never change.
        self.embedders: dict[str, Embedder] = before.embedders if before is not None else {}
        # Transactions whose changes others do not see yet, and may never see.
        self.changing: list[ref[Transaction]] = [] if before is None else [t for t in before.changing if _is_open(t)]


_KNOWN: WeakKeyDictionary[Pool, Known] = WeakKeyDictionary()
_LOADING = Lock()  # a model is large: one at a time


def known(connection: Connection) -> Known:
    """Return what is known of the database of a connection."""
    pool = connection.engine.pool
    found = _KNOWN.setdefault(pool, Known())
    if not all(map(_is_open, found.changing)):
        found = _KNOWN[pool] = Known(found)
    transaction = connection.get_transaction()
    return Known(found) if any(changing() is transaction for changing in found.changing) else found


def forget(connection: Connection) -> None:
    """Ask anew, each time until the transaction ends, and then once more: it may be rolled back.

    To be called when a table has been registered, or an index built or tuned.
    """
    pool = connection.engine.pool
    found = _KNOWN[pool] = Known(_KNOWN.get(pool))
    transaction = connection.get_transaction()
    if transaction is not None:
        found.changing.append(ref(transaction))


def _is_open(changing: ref[Transaction]) -> bool:
    transaction = changing()
    return transaction is not None and transaction.is_active


def is_installed(connection: Connection) -> bool:
    """Return whether there is a schema pgvec, of this version, that whoever is connected may read."""
    return known(connection).installed.get(_reader(connection), lambda: bool(connection.scalar(_INSTALLED)))


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
        return Mapped(row.collection, row.key, row.model, row.details or {}, row.fingerprint)

    return known(connection).mapped.get((_reader(connection), relation, searched.column.name), fetch)


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
                    "keys": None if keys is None else literal_sql(keys, partial(schema_of, connection)),
                    "recall": recall,
                    "ef_search": ef_search,
                },
            )
        return None if found is None else str(found)

    key = (_reader(connection), relation, searched.column.name, numbers, shape, recall, ef_search)
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
    schema = schema_of(connection, table)
    return f"{preparer.quote(schema)}.{preparer.quote(table.name)}" if schema else str(preparer.quote(table.name))


def schema_of(connection: Connection, table: Table) -> str | None:
    """Return in which schema a connection has a table; None: in one of its search_path."""
    translated: dict[str | None, str | None] = connection.get_execution_options().get("schema_translate_map") or {}
    return translated.get(table.schema, table.schema)


@contextmanager
def asking(connection: Connection, options: Mapping[str, Any]) -> Iterator[None]:
    """Ask what is known for a statement that is run with these options, as if the connection had them."""
    before = connection._execution_options
    schemas = options.get("schema_translate_map")
    # Not by execution_options(), which cannot take an option back.
    connection._execution_options = before.union({"schema_translate_map": schemas, _OPTION: []})
    try:
        yield
    finally:
        connection._execution_options = before


def _reader(connection: Connection) -> Hashable:
    """Return what decides which table a name means, and whether pgvec may be read: the search path and the role.

    The driver is told by PostgreSQL 18 and later (of SET ROLE only if a superuser becomes an ordinary role, or becomes
    one again); others are asked, once a statement.
    """
    info: Any = getattr(connection.connection.driver_connection, "info", None)
    reported = [info.parameter_status(name) for name in _REPORTED] if hasattr(info, "parameter_status") else [None]
    if reported[0] is not None:
        return tuple(reported)
    asked: list[Any] | None = connection.get_execution_options().get(_OPTION)
    if not asked:
        asked = [] if asked is None else asked
        asked.append(connection.scalar(_READER))
    return str(asked[0])


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
