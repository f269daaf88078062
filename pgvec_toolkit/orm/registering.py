"""Registering the table of a model as a collection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Column, Connection, Engine, text
from sqlalchemy.orm import Session

from pgvec_toolkit.embed import registry
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import ConfigurationError, NotMigrated
from pgvec_toolkit.orm.known import forget, is_installed, mapped, our_errors, relation_name
from pgvec_toolkit.orm.mapped import VectorColumn, columns_of, vector_column, vector_columns

_TABLE = text(
    "SELECT pgvec.register_table(CAST(:relation AS regclass), embedding => :embedding, text => :text, key => :key,"
    " id => :id, name => :name, distance => :distance, language => :language, model_id => CAST(:model AS integer),"
    " keywords => :keywords, metadata => :metadata)"
)
_SPACE = text(
    "SELECT pgvec.register_space(:collection, embedding => :embedding, distance => :distance,"
    " model_id => CAST(:model AS integer))"
)


def register(
    bind: Session | Connection | Engine,
    entity: type[Any],
    *,
    name: str | None = None,
    space: Any = None,
    text: str | None = None,
    key: str | None = None,
    id: str | None = None,
    metadata: str | None = None,
    language: str = "english",
    keywords: bool = False,
) -> str:
    """Register the table of a model as a collection, and return its name (SQL: `pgvec.register_table`).

    All its vector columns become vector spaces; what is registered already stays as it is. A Session or a Connection
    is left in its transaction.

    Args:
        bind: where to.
        entity: the model.
        name: of the collection; None: that of the table.
        space: the vector column that searches use unless told, if the model has several.
        text: the attribute of its text; None: what the column is the embedding of.
        key: the attribute of a whole number that is unique and not null; None: the primary key.
        id: the attribute that hits name rows by; None: the key.
        metadata: a jsonb attribute, whose keys can be filtered by.
        language: text search configuration by which texts become words.
        keywords: whether it gets a keyword index, which `hybrid` needs.
    """
    first = vector_column(entity, space)
    known = columns_of(entity)
    named = {"text": text or first.text, "key": key, "id": id, "metadata": metadata}
    with _connected(bind) as connection, our_errors():
        forget(connection)
        if not is_installed(connection):
            raise NotMigrated("there is no schema pgvec in this database, or it is an older one: run pgvec migrate")
        found = mapped(connection, first)
        collection = found.collection if found is not None else None
        if collection is None:
            options: dict[str, Any] = {part: _named(known, attribute, entity) for part, attribute in named.items()}
            options |= {"name": name, "language": language, "keywords": keywords, **_described(connection, first)}
            collection = str(connection.scalar(_TABLE, options))
        for other in vector_columns(entity):
            forget(connection)
            if mapped(connection, other) is None:
                connection.execute(_SPACE, {"collection": collection, **_described(connection, other)})
        forget(connection)
    return collection


@contextmanager
def _connected(bind: Session | Connection | Engine) -> Iterator[Connection]:
    if isinstance(bind, Engine):
        with bind.begin() as connection:
            yield connection
    else:
        yield bind.connection() if isinstance(bind, Session) else bind


def _named(known: dict[str, Column[Any]], attribute: str | None, entity: type[Any]) -> str | None:
    if attribute is None:
        return None
    if attribute not in known:
        raise ConfigurationError(f"{entity.__name__} has no column {attribute!r}: it has {', '.join(known)}")
    return str(known[attribute].name)


def _described(connection: Connection, searched: VectorColumn) -> dict[str, Any]:
    return {
        "relation": relation_name(connection, searched.table),
        "embedding": searched.column.name,
        "distance": str(searched.distance),
        "model": None if searched.embedder is None else _model(connection, searched.embedder),
    }


def _model(connection: Connection, embedder: Embedder) -> int:
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise ConfigurationError("a model with an embedder is registered through a synchronous psycopg engine")
    return registry.register(driver, embedder)
