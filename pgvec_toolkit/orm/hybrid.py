"""Statements that find rows by their words and by their vectors at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    Integer,
    Select,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import JSONB

from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError
from pgvec_toolkit.orm.conditions import bare, check_names, is_filtered, wanted
from pgvec_toolkit.orm.known import Mapped, embedder_for, mapped, relation_name, schema_of
from pgvec_toolkit.orm.literal import literal_sql
from pgvec_toolkit.orm.mapped import VectorColumn, vector_column
from pgvec_toolkit.orm.nearest import OPTION, check, checked_query, embedded_query, marked

_Model = TypeVar("_Model")
_Statement = TypeVar("_Statement", bound="Select[*tuple[Any, ...]]")
_SCHEMA = sql_text(
    "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = pg_catalog.to_regclass(:relation)"
)


@dataclass(frozen=True)
class Hybrid:
    """How a statement of `hybrid` wants to be run.

    Attributes:
        searched: the vector column.
        text: what is searched for.
        query: a vector for it; None: the text is embedded.
        key: name of the column by which hits are found.
    """

    searched: VectorColumn
    text: str
    query: Any
    key: str


def hybrid(
    entity: type[_Model],
    text: str,
    k: int = 10,
    *,
    query: Any = None,
    space: Any = None,
    key: Any = None,
    fusion: str = "relative",
    weights: Mapping[str, float] | None = None,
    depth: int = 100,
    recall: float | None = None,
) -> Select[_Model]:
    """Select the k best rows by a fusion of keyword search and vectors (SQL: `pgvec.hybrid_search`).

    Columns `score` and `rank` are those of the fusion, whose order the rows have. The table is a registered collection
    with a keyword index. Conditions are those of the search itself: k rows come back if k match. They are rendered as
    text, in which functions of other extensions have to be named with their schema.

    Args:
        entity: the model.
        text: words for the keyword leg; embedded for the other one.
        k: how many.
        query: a vector, instead of that of the text.
        space: the vector column, if the model has several.
        key: the key column of the collection, if it is not the primary key.
        fusion: relative, dbsf, rrf or weighted.
        weights: of the legs, "keyword" and the name of the vector space.
        depth: how many each leg finds.
        recall: of the vector leg, if not the default target.
    """
    searched = vector_column(entity, space)
    check(k, {"recall": recall})
    if not text.strip():
        raise ConfigurationError("the query is empty")
    if query is not None:
        query = checked_query(searched, query)
    key_column = _key(searched, key)
    options = (
        fusion,
        cast(None if weights is None else dict(weights), JSONB(none_as_null=True)),
        cast(depth, Integer),
        cast(recall, Float(53)),
    )
    hits = _hits(searched, text, k, options)
    return (
        select(entity, hits.c.score.label("score"), hits.c.rank.label("rank"))
        .where(marked(searched.named(key_column) == hits.c.key))
        .order_by(marked(hits.c.rank))
        .limit(k)
        .execution_options(**{OPTION: Hybrid(searched, text, query, key_column)})
    )


def _hits(searched: VectorColumn, text: str, k: int, options: tuple[Any, ...]) -> TableValuedAlias:
    """Return the hits as a table of a statement; `tuned_hybrid` fills in what is None here."""
    return func.pgvec._mapped_hybrid(
        func.pg_catalog.to_regclass(bindparam("pgvec_relation", None, Text)),
        searched.column.name,
        text,
        cast(bindparam("pgvec_query", None, searched.column.type), Text),
        bindparam("pgvec_k", k, Integer),
        *options,
        bindparam("pgvec_where", None, Text),
    ).table_valued(column("key", BigInteger), column("score", Float(53)), column("rank", Integer), name="hit")


def tuned_hybrid(connection: Connection, statement: _Statement, wish: Hybrid) -> _Statement:
    """Return a statement of `hybrid` with what only the database knows in it, and its conditions within the search."""
    searched = wish.searched
    found = mapped(connection, searched)
    if found is None:
        raise CollectionNotFound(
            f"column {searched.column} is not registered as a collection, which hybrid searches need: "
            "orm.register(session, Model, text=…, keywords=True)"
        )
    if found.key != wish.key:
        raise ConfigurationError(
            f"the key of collection {found.collection!r} is column {found.key}, not {wish.key}: give key={found.key!r}"
        )
    query = wish.query
    if query is None:
        query = embedded_query(searched, embedder_for(connection, searched), wish.text)
    values = {
        "pgvec_relation": relation_name(connection, searched.table),
        "pgvec_query": query,
        "pgvec_k": wanted(statement),
        "pgvec_where": _where_sql(connection, statement, searched, found) if is_filtered(statement, searched) else None,
    }
    return statement.params({name: value for name, value in values.items() if value is not None})


def _where_sql(connection: Connection, statement: Select[Any], searched: VectorColumn, found: Mapped) -> str:
    """Return the statement's conditions as one on the key of d; as it is read with another search_path, tables have
    their schemas.
    """
    key = searched.named(found.key)
    check_names(statement)
    matching = bare(statement).with_only_columns(key).where(key == literal_column("d.key"))

    @cache
    def named_or_found(table: Table) -> str | None:
        return schema_of(connection, table) or connection.scalar(
            _SCHEMA, {"relation": relation_name(connection, table)}
        )

    return f"EXISTS ({literal_sql(matching, named_or_found)})"


def _key(searched: VectorColumn, given: Any) -> str:
    if given is not None:
        named = given if isinstance(given, str) else str(getattr(given, "key", given))
        return next((one.name for one in searched.table.columns if named in (one.key, one.name)), named)
    keys = list(searched.table.primary_key)
    if len(keys) != 1 or not isinstance(keys[0].type, Integer):
        raise ConfigurationError(
            f"the primary key of table {searched.table.name} is not one column of integers: give the collection's key=…"
        )
    return str(keys[0].name)
