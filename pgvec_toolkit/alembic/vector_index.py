"""What a vector index is, in a revision, in a model and in the database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGDialect

from pgvec_toolkit.errors import ConfigurationError

METHODS = ("hnsw", "ivfflat")
_OPTIONS = {"hnsw": {"m": 16, "ef_construction": 64}, "ivfflat": {"lists": 100}}
_CAST = re.compile(r"(vector|halfvec|sparsevec|bit)\s*\(\s*\d+\s*\)", re.IGNORECASE)
# By this one % stays %; the dialects of drivers double it.
_DIALECT = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class VectorIndex:
    """The definition of a vector index.

    Attributes:
        target: the name of a column, or as sa.text() what CREATE INDEX has between its parentheses.
        options: storage parameters; those left out have pgvector's defaults.
        opclass: operator class; None if `target` has it, or the default one is meant.
        where: the condition of a partial index, as SQL.
    """

    name: str
    table: str
    target: str | sa.TextClause
    method: str = "hnsw"
    options: Mapping[str, int | str] = field(default_factory=dict)
    opclass: str | None = None
    where: str | None = None
    schema: str | None = None
    tablespace: str | None = None

    def to_index(self, *, concurrently: bool = False) -> sa.Index:
        """Return it as SQLAlchemy has indexes, of a table that has no more than the name."""
        table = sa.Table(self.table, sa.MetaData(), schema=self.schema)
        expression: sa.ColumnElement[Any]
        if isinstance(self.target, str):
            expression = sa.Column(self.target)
            table.append_column(expression)
        else:
            sql = sql_of(self.target)
            expression = sa.literal_column(sql if self.opclass is None else f"{sql} {self.opclass}")
        return sa.Index(
            self.name,
            expression,
            _table=table,
            postgresql_using=self.method,
            postgresql_with=dict(self.options),
            postgresql_ops={self.target: self.opclass} if isinstance(self.target, str) and self.opclass else {},
            postgresql_where=None if self.where is None else sa.literal_column(self.where),
            postgresql_tablespace=self.tablespace,
            postgresql_concurrently=concurrently,
        )


def checked(index: VectorIndex, distance: str | None, cast: str | None) -> VectorIndex:
    """Return the index with the operator class of a distance, of a cast of its column; or raise ConfigurationError."""
    from pgvec_toolkit.schema.index_specs import index_spec

    given: dict[str, Any] = dict(index.options)
    index_spec(index.method, **(_OPTIONS["hnsw"] if index.method == "hnsw" else {}) | given)
    target, type = index.target, "vector"
    if cast is not None:
        if not isinstance(target, str) or not (match := _CAST.fullmatch(cast)):
            raise ConfigurationError(f"cast={cast!r}: say a column, and a type with its dimensions, as halfvec(768)")
        type = match[1].lower()
        column = _DIALECT.identifier_preparer.quote(target)
        target = sa.text(f"(binary_quantize({column})::{cast})" if type == "bit" else f"({column}::{cast})")
    return replace(index, target=target, opclass=_opclass(index, target, distance, type))


def _opclass(index: VectorIndex, target: str | sa.TextClause, distance: str | None, type: str) -> str | None:
    from pgvec_toolkit.distance import Distance

    opclass = index.opclass
    if opclass is not None and distance is not None:
        raise ConfigurationError("say opclass or distance, not both")
    if distance is not None:
        if distance not in list(Distance):
            raise ConfigurationError(f"unknown distance {distance!r}: use {', '.join(Distance)}")
        return Distance(distance).opclass(type)
    if opclass is not None and not re.fullmatch(r'(?:[\w$]+|"[^"]+")(?:\.(?:[\w$]+|"[^"]+"))?', opclass):
        raise ConfigurationError(f"{opclass!r} is not the name of an operator class, as vector_cosine_ops is")
    if opclass is None and index.method == "hnsw" and isinstance(target, str):
        raise ConfigurationError(
            "no operator class is the default of hnsw: say distance='cosine' for a column of type vector, else "
            "opclass='halfvec_cosine_ops' or the like"
        )
    return opclass


def of_model(index: sa.Index) -> VectorIndex | None:
    """Return the definition of a model's index; None if it is no vector index."""
    own = index.dialect_options["postgresql"]
    method = str(own["using"] or "").lower()
    if method not in METHODS or len(index.expressions) != 1 or index.table is None:
        return None
    (expression,) = index.expressions
    target: str | sa.TextClause
    assert not isinstance(expression, str)
    if isinstance(expression, sa.Column):
        target = expression.name
    else:
        # As CREATE INDEX has it: SQLAlchemy groups what needs parentheses.
        grouped = expression if isinstance(expression, sa.ColumnClause) else expression.self_group()
        target = sa.text(escaped(sql_of(grouped)))
    where = own["where"]
    return VectorIndex(
        str(index.name),
        index.table.name,
        target,
        method,
        {key: int(value) if str(value).isdigit() else value for key, value in (own["with"] or {}).items()},
        (own["ops"] or {}).get(getattr(expression, "key", None)),
        None if where is None else where if isinstance(where, str) else sql_of(where),
        index.table.schema,
        own["tablespace"],
    )


def escaped(sql: str) -> str:
    """Return SQL as sa.text() takes it, to whom a colon before a word is a parameter."""
    return re.sub(r"(?<![:\w\\]):(?=\w)", r"\\:", sql)


def with_defaults(method: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return all storage parameters, those that were left out as well."""
    return {key: str(value) for key, value in {**_OPTIONS.get(method, {}), **options}.items()}


def sql_of(clause: sa.ClauseElement) -> str:
    """Return SQL with its values in it."""
    return str(clause.compile(dialect=_DIALECT, compile_kwargs={"include_table": False, "literal_binds": True}))
