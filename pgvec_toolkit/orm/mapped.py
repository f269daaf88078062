"""What is searched: a vector column of a model, of an alias of one, or of a Core table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Alias, Column, ColumnElement, Float, FromClause, Table, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedInsp

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.orm.columns import INFO, EmbeddingInfo
from pgvec_toolkit.orm.types import dimensions_of, vector_type_name


@dataclass(frozen=True)
class VectorColumn:
    """A vector column, as statements over its entity name it.

    Attributes:
        entity: the model, alias or table.
        attribute: the column in a statement.
        column: the column of the table.
        table: the table.
        type: the SQL name of its type.
        dimensions: of its vectors; None if the column takes any.
        distance: by which they are compared.
        text: the attribute that is embedded, if the model says so.
        embedder: the model's own one.
    """

    entity: Any
    attribute: ColumnElement[Any]
    column: Column[Any]
    table: Table
    type: str
    dimensions: int | None
    distance: Distance
    text: str | None
    embedder: Embedder | None

    @property
    def is_narrowed(self) -> bool:
        """Whether the entity may be some rows of the table only, as a subclass is."""
        return not isinstance(self.entity, FromClause) and _mapper(self.entity).inherits is not None

    def distance_to(self, query: ColumnElement[Any]) -> ColumnElement[float]:
        """Return the distance to a query that is of the column's own type, or an index would not be used."""
        return self.attribute.op(self.distance.operator, return_type=Float())(query)

    def similarity_of(self, distance: ColumnElement[float]) -> ColumnElement[Any]:
        """Return the similarity that a distance stands for (SQL: `pgvec._distance`)."""
        if self.distance in (Distance.COSINE, Distance.JACCARD):
            return 1 - distance
        if self.distance is Distance.INNER_PRODUCT:
            return -distance
        return 1 - distance / self.dimensions if self.distance is Distance.HAMMING else 1 / (1 + distance)

    def named(self, name: str) -> ColumnElement[Any]:
        """Return another column of the table by its name in the database, as statements name it."""
        return _attribute(self.entity, next(column for column in self.table.columns if column.name == name))

    @property
    def keys(self) -> list[ColumnElement[Any]]:
        """The columns of the table's primary key, as statements name them."""
        return [_attribute(self.entity, column) for column in self.table.primary_key]


def vector_column(entity: Any, space: Any = None) -> VectorColumn:
    """Return the vector column of an entity: the one that is given, by its attribute or its name, or the only one."""
    found = _vectors(entity)
    if space is None:
        name = next(iter(found)) if len(found) == 1 else "embedding"
    else:
        name = space if isinstance(space, str) else str(getattr(space, "key", space))
    if name not in found:
        known = ", ".join(found) or "none: declare one with orm.embedding_column(…)"
        ambiguous = space is None and bool(found)
        asked = "several vector columns: give space=…" if ambiguous else f"no vector column {name!r}"
        raise ConfigurationError(f"{_called(entity)} has {asked}. Its vector columns: {known}")
    column = found[name]
    assert isinstance(column.table, Table)
    type = vector_type_name(column.type)
    assert type is not None
    info = column.info.get(INFO) or EmbeddingInfo(_distance_of_index(column, type))
    return VectorColumn(
        entity,
        _attribute(entity, column),
        column,
        column.table,
        type,
        dimensions_of(column.type),
        info.distance,
        info.text,
        info.embedder,
    )


def vector_columns(entity: Any) -> list[VectorColumn]:
    """Return all vector columns of an entity."""
    return [vector_column(entity, name) for name in _vectors(entity)]


def _vectors(entity: Any) -> dict[str, Column[Any]]:
    return {name: column for name, column in columns_of(entity).items() if vector_type_name(column.type)}


def columns_of(entity: Any) -> dict[str, Column[Any]]:
    """Return the table columns of an entity by the names of its attributes."""
    if isinstance(entity, FromClause):
        table = entity.element if isinstance(entity, Alias) else entity
        return {column.key: column for column in table.columns if isinstance(column, Column)}
    return {
        attribute.key: column
        for attribute in _mapper(entity).column_attrs
        for column in attribute.columns[:1]
        if isinstance(column, Column)
    }


def _mapper(entity: Any) -> Mapper[Any]:
    try:
        found = inspect(entity)
    except NoInspectionAvailable:
        found = None
    found = found.mapper if isinstance(found, AliasedInsp) else found
    if not isinstance(found, Mapper):
        raise ConfigurationError(f"{entity!r} is no mapped class, no alias of one and no table")
    return found


def _attribute(entity: Any, column: Column[Any]) -> ColumnElement[Any]:
    if isinstance(entity, FromClause):
        named: ColumnElement[Any] = entity.c[column.key]
        return named
    attribute: ColumnElement[Any] = getattr(entity, _mapper(entity).get_property_by_column(column).key)
    return attribute


def _called(entity: Any) -> str:
    return str(getattr(entity, "__name__", None) or getattr(entity, "name", entity))


def _distance_of_index(column: Column[Any], type: str) -> Distance:
    """Return the distance that an index on the column says; that of most embeddings, if there is none."""
    for index in column.table.indexes:
        opclass = index.dialect_options["postgresql"]["ops"].get(column.key)
        for distance in Distance:
            if type in distance.types and opclass == distance.opclass(type):
                return distance
    return Distance.HAMMING if type == "bit" else Distance.COSINE
