"""What autogenerate sees of vector indexes: all that CREATE INDEX says of them, but for the tablespace.

Definitions are compared as the server has them: those of a model are created on an empty temporary table, in a
savepoint that is rolled back, so that no parser of expressions and conditions is needed here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from alembic.operations import ops
from alembic.util import PriorityDispatchResult, sqla_compat
from sqlalchemy.schema import CreateIndex

from pgvec_toolkit.alembic.compare_columns import vector_type
from pgvec_toolkit.alembic.index_operations import CreateVectorIndexOp, DropVectorIndexOp
from pgvec_toolkit.alembic.vector_index import METHODS, VectorIndex, escaped, of_model, with_defaults

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

log = logging.getLogger(__name__)
_SCRATCH = "pgvec_compared"
_TEMPORARY_NAME = re.compile(r"_cc(new|old)\d*$")
_FOUND = """
SELECT i.relname, a.amname, i.reloptions, o.opcname, f.attname AS "column",
       pg_get_indexdef(i.oid, 1, false) AS expression, pg_get_expr(x.indpred, x.indrelid) AS condition,
       format_type(t.atttypid, t.atttypmod) AS type, x.indisvalid, s.spcname
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_am a ON a.oid = i.relam
JOIN pg_catalog.pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_catalog.pg_attribute t ON t.attrelid = i.oid AND t.attnum = 1
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = i.reltablespace
LEFT JOIN pg_catalog.pg_attribute f ON f.attrelid = x.indrelid AND f.attnum = x.indkey[0]
JOIN pg_catalog.pg_class r ON r.oid = x.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
WHERE r.relname = :table
AND CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(r.oid) ELSE n.nspname = CAST(:schema AS text) END
"""


class Definition(NamedTuple):
    """An index as the server has it; `type` is what it holds, with dimensions."""

    method: str
    options: dict[str, str]
    opclass: str
    expression: str
    condition: str | None
    type: str
    valid: bool


class _Named(sa.types.UserDefinedType[Any]):
    """A type of which no more is known than what a CREATE TABLE calls it."""

    cache_ok = True

    def __init__(self, sql: str) -> None:
        self.sql = sql

    def get_col_spec(self, **_: Any) -> str:
        return self.sql


class Found(NamedTuple):
    """An index of the database."""

    vector_index: VectorIndex
    definition: Definition


def compare(
    context: AutogenContext,
    changes: ops.ModifyTableOps,
    schema: str | None,
    table_name: str,
    there: sa.Table | None,
    wanted: sa.Table | None,
) -> PriorityDispatchResult:
    """Put operations on vector indexes in the place of those that Alembic thought of."""
    of_models = _of_models(context, wanted)
    found: dict[str, Found] = {}
    if there is not None and (of_models or any(vector_type(column.type) for column in there.columns)):
        found = _found(context, schema, table_name)
    vector = {name for name, each in found.items() if each.definition.method in METHODS}
    ours = vector | of_models.keys()
    changes.ops = [
        each
        for each in changes.ops
        if not (isinstance(each, ops.CreateIndexOp | ops.DropIndexOp) and each.index_name in ours)
    ]
    ours -= {name for name in vector - of_models.keys() if _TEMPORARY_NAME.search(name)}
    common = of_models.keys() & found.keys()
    normal = _normalised(context, wanted, {name: of_models[name] for name in common}) if wanted is not None else {}
    for name in sorted(ours):
        model = of_models.get(name)
        if model is not None and name not in found:
            _added(context, changes, model)
        elif model is None:
            _removed(context, changes, found[name], wanted)
        elif name in normal and normal[name] != found[name].definition:
            _changed(context, changes, model, found[name])
    return PriorityDispatchResult.CONTINUE


def _of_models(context: AutogenContext, table: sa.Table | None) -> dict[str, tuple[sa.Index, VectorIndex]]:
    """Return the vector indexes of a model by name."""
    found = ((index, of_model(index)) for index in (table.indexes if table is not None else ()))
    named = ((sqla_compat._get_constraint_final_name(index, context.dialect), index, it) for index, it in found if it)
    return {name: (index, replace(it, name=name)) for name, index, it in named if name is not None}


def _found(context: AutogenContext, schema: str | None, table_name: str) -> dict[str, Found]:
    """Return the indexes of a table of the database by name."""
    connection = context.connection
    assert connection is not None
    found = {}
    for row in connection.execute(sa.text(_FOUND), {"table": table_name, "schema": schema}):
        parents: dict[Any, str | None] = {"table_name": table_name, "schema_name": schema}
        if not context.run_name_filters(row.relname, "index", parents):
            continue
        definition = _definition(row)
        target = row.column if row.column is not None else sa.text(escaped(row.expression))
        options = {key: int(value) if value.isdigit() else value for key, value in _pairs(row.reloptions).items()}
        found[row.relname] = Found(
            VectorIndex(
                row.relname, table_name, target, row.amname, options, row.opcname, row.condition, schema, row.spcname
            ),
            definition,
        )
    return found


def _definition(row: sa.Row[Any]) -> Definition:
    options = with_defaults(row.amname, _pairs(row.reloptions))
    return Definition(row.amname, options, row.opcname, row.expression, row.condition, row.type, row.indisvalid)


def _pairs(options: Iterable[str] | None) -> dict[str, str]:
    return {name: value for name, _, value in (each.partition("=") for each in options or ())}


def _normalised(
    context: AutogenContext, table: sa.Table, indexes: Mapping[str, tuple[sa.Index, VectorIndex]]
) -> dict[str, Definition]:
    """Return what the server makes of a model's indexes; those are left out of which it makes nothing."""
    connection = context.connection
    assert connection is not None
    normal: dict[str, Definition] = {}
    if not indexes:
        return normal
    try:
        with _undone(connection):
            _create_scratch(connection, table)
            for name, (_, index) in indexes.items():
                if (definition := _on_scratch(connection, index)) is not None:
                    normal[name] = definition
    except sa.exc.DBAPIError as error:
        log.warning("vector indexes of %s are not compared: %s", table.name, _reason(error))
    return normal


@contextmanager
def _undone(connection: sa.Connection) -> Iterator[None]:
    """Roll back what is done in the block, on a connection that is AUTOCOMMIT, too."""
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        connection.exec_driver_sql("BEGIN")
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")
        return
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


def _create_scratch(connection: sa.Connection, table: sa.Table) -> None:
    """Create an empty table with the columns of a model, but those whose type is yet to be created."""
    types = {column.name: column.type.compile(connection.dialect) for column in table.columns}
    known = connection.execute(
        sa.select(*(sa.func.to_regtype(type).is_not(None).label(f"c{n}") for n, type in enumerate(types.values())))
    ).one()
    # By the names of their types: an Enum would be created with the table.
    columns = [sa.Column(name, _Named(type)) for (name, type), there in zip(types.items(), known, strict=True) if there]
    scratch = sa.Table(_SCRATCH, sa.MetaData(), *columns, prefixes=["TEMPORARY"])
    scratch.create(connection, checkfirst=False)


def _on_scratch(connection: sa.Connection, index: VectorIndex) -> Definition | None:
    copy = replace(index, table=_SCRATCH, schema="pg_temp")
    savepoint = connection.begin_nested()
    try:
        connection.execute(CreateIndex(copy.to_index()))
        parameters = {"table": _SCRATCH, "schema": None, "name": index.name}
        rows = connection.execute(sa.text(_FOUND + " AND i.relname = :name"), parameters)
        return _definition(rows.one())
    except sa.exc.DBAPIError as error:
        log.warning("index %s is not compared, as the server refuses its definition: %s", index.name, _reason(error))
        return None
    finally:
        savepoint.rollback()


def _reason(error: sa.exc.DBAPIError) -> str:
    return next(iter(str(error.orig).splitlines()), "")


def _added(context: AutogenContext, changes: ops.ModifyTableOps, model: tuple[sa.Index, VectorIndex]) -> None:
    index, definition = model
    if context.run_object_filters(index, definition.name, "index", False, None):
        changes.ops.append(CreateVectorIndexOp(definition))
        log.info("Detected added vector index %r on %r", definition.name, definition.table)


def _removed(context: AutogenContext, changes: ops.ModifyTableOps, found: Found, wanted: sa.Table | None) -> None:
    """Drop an index that the model does not have, or has as one of another kind."""
    other = next((i for i in (wanted.indexes if wanted is not None else ()) if i.name == found.vector_index.name), None)
    if not context.run_object_filters(found.vector_index.to_index(), found.vector_index.name, "index", True, other):
        return
    changes.ops.append(DropVectorIndexOp(found.vector_index, reverse=CreateVectorIndexOp(found.vector_index)))
    log.info("Detected removed vector index %r on %r", found.vector_index.name, found.vector_index.table)
    if other is not None:
        changes.ops.append(ops.CreateIndexOp.from_index(other))


def _changed(
    context: AutogenContext, changes: ops.ModifyTableOps, model: tuple[sa.Index, VectorIndex], found: Found
) -> None:
    index, definition = model
    if not context.run_object_filters(index, definition.name, "index", False, found.vector_index.to_index()):
        return
    log.info("Detected changed vector index %r on %r", definition.name, definition.table)
    if found.definition.method in METHODS:
        changes.ops.append(DropVectorIndexOp(found.vector_index, reverse=CreateVectorIndexOp(found.vector_index)))
    else:
        changes.ops.append(_drop_other(context, found.vector_index))
    changes.ops.append(CreateVectorIndexOp(definition))


def _drop_other(context: AutogenContext, index: VectorIndex) -> ops.DropIndexOp:
    """Drop an index of another kind, as Alembic does, to be created again as it reflects it."""
    reflected = next(
        each for each in context.inspector.get_indexes(index.table, index.schema) if each["name"] == index.name
    )
    names = reflected["column_names"]
    expressions = reflected.get("expressions", [])
    columns = [sa.text(escaped(expressions[n])) if name is None else name for n, name in enumerate(names)]
    options = reflected.get("dialect_options", {})
    create = ops.CreateIndexOp(
        index.name, index.table, columns, schema=index.schema, unique=reflected["unique"], **options
    )
    return ops.DropIndexOp(index.name, index.table, schema=index.schema, _reverse=create)
