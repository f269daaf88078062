"""What autogenerate does before and after it compares: whose tables it leaves alone, and the order of operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.util import PriorityDispatchResult

from pgvec_toolkit.alembic.compare_columns import AlterVectorColumnOp, is_vector_change, vector_type
from pgvec_toolkit.alembic.index_operations import CreateVectorExtensionOp, CreateVectorIndexOp, DropVectorIndexOp
from pgvec_toolkit.alembic.render import TypeRenderer
from pgvec_toolkit.alembic.vector_index import of_model

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

_TABLES = """
SELECT c.schema_name, c.table_name FROM pgvec.collections c UNION
SELECT c.schema_name, s.table_name FROM pgvec.collections c JOIN pgvec.vector_spaces s ON s.collection_id = c.id
"""
# The user's own tables, that searches are served from, and what pgvec has built on them.
_REGISTERED = """
SELECT n.nspname, r.relname FROM pgvec.registered_tables t
JOIN pg_catalog.pg_class r ON r.oid = t.relation JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
"""
_KEYWORDS = """
SELECT n.nspname, r.relname FROM pgvec.keyword_indexes k
JOIN pg_catalog.pg_class r ON r.oid IN (k.keywords, k.lexemes) JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
"""
_BUILT = """
SELECT n.nspname, b.index_name FROM pgvec.index_builds b JOIN pgvec.vector_spaces s ON s.id = b.space_id
JOIN pgvec.registered_tables t ON t.collection_id = s.collection_id
JOIN pg_catalog.pg_class r ON r.oid = t.relation JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
"""
_READABLE = """
SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'pgvec' AND c.relname = :name
"""
_VectorIndexOp = CreateVectorIndexOp | DropVectorIndexOp


def prepare(context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Let vector columns be reflected, and keep pgvec's own tables out."""
    del upgrade_ops
    import pgvector.sqlalchemy  # noqa: F401  makes SQLAlchemy know its types

    TypeRenderer.install(context)
    default = context.dialect.default_schema_name
    tables = _owned_tables(context)
    indexes = _rows(context, "registered_tables", _BUILT)
    models = {
        (table.schema or default, table.name): {str(i.name) for i in table.indexes} for table in context.sorted_tables
    }
    schemas = {schema for schema, _ in models}

    def not_pgvecs(name: str | None, type_: str, parents: Any) -> bool:
        """Tell whether something in the database is the user's; what a model has always is."""
        schema = parents.get("schema_name") or default
        if type_ == "schema":
            return name != "pgvec" or name in schemas
        if type_ == "table":
            return (schema, name) not in tables or (schema, name) in models
        if type_ == "index":
            return (schema, name) not in indexes or name in models.get((schema, parents["table_name"]), ())
        return True

    context._name_filters.append(not_pgvecs)
    return PriorityDispatchResult.CONTINUE


def _owned_tables(context: AutogenContext) -> set[tuple[str, str]]:
    """Return schema and name of the tables of collections, whether they are there or not."""
    own = _rows(context, "collections", _TABLES) - _rows(context, "registered_tables", _REGISTERED)
    kept = ("_keywords", "_lexemes", "_history", "")
    return {(schema, name + suffix) for schema, name in own for suffix in kept} | _rows(
        context, "keyword_indexes", _KEYWORDS
    )


def _rows(context: AutogenContext, catalogue: str, query: str) -> set[tuple[str, str]]:
    """Return schemas and names; nothing if a table of schema pgvec is not there, or not for this role to read."""
    connection = context.connection
    assert connection is not None
    if not connection.scalar(sa.text(_READABLE), {"name": catalogue}):
        return set()
    return {(schema, name) for schema, name in connection.execute(sa.text(query))}


def arrange(context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Order operations: the extension, then indexes that go, then tables and columns, then indexes that come.

    The index of a column whose type changes is in its way. A revision that does nothing but replace indexes of
    tables that are there does so CONCURRENTLY: it may be repeated; others stay in their one transaction.
    """
    dropped: list[DropVectorIndexOp] = []
    created: list[CreateVectorIndexOp] = []
    others = [each for each in upgrade_ops.ops if not _without_indexes(each, dropped, created)]
    extension = [CreateVectorExtensionOp()] if _lacks_extension(context) else []
    if context.opts.get("pgvec_concurrently", True) and not others and not extension:
        dropped, created = _concurrent(dropped, created)
    upgrade_ops.ops = [*extension, *dropped, *others, *created]
    return PriorityDispatchResult.CONTINUE


def _without_indexes(
    operation: ops.MigrateOperation, dropped: list[DropVectorIndexOp], created: list[CreateVectorIndexOp]
) -> bool:
    """Take operations on vector indexes out of those of a table; returns whether nothing is left."""
    if not isinstance(operation, ops.ModifyTableOps):
        return False
    inner = operation.ops
    dropped += [each for each in inner if isinstance(each, DropVectorIndexOp)]
    created += [each for each in inner if isinstance(each, CreateVectorIndexOp)]
    operation.ops = [
        AlterVectorColumnOp.of(each) if isinstance(each, ops.AlterColumnOp) and is_vector_change(each) else each
        for each in inner
        if not isinstance(each, _VectorIndexOp)
    ]
    return operation.is_empty()


def _concurrent(
    dropped: list[DropVectorIndexOp], created: list[CreateVectorIndexOp]
) -> tuple[list[DropVectorIndexOp], list[CreateVectorIndexOp]]:
    """Return operations that block no writer, may be repeated, and replace an index once the new one is built."""

    def place(operation: DropVectorIndexOp | CreateVectorIndexOp) -> tuple[str | None, str, str]:
        return operation.index.schema, operation.index.table, operation.index.name

    old = {place(drop): drop.index for drop in dropped}
    build = [
        CreateVectorIndexOp(each.index, concurrently=True, replace=True, old=old.pop(place(each)))
        if place(each) in old
        else CreateVectorIndexOp(each.index, concurrently=True, if_not_exists=True)
        for each in created
    ]
    drop = [
        DropVectorIndexOp(index, concurrently=True, if_exists=True, reverse=CreateVectorIndexOp(index))
        for index in old.values()
    ]
    return drop, build


def _lacks_extension(context: AutogenContext) -> bool:
    """Tell whether a model needs the extension vector, and the database has none."""
    connection = context.connection
    assert connection is not None
    there = sa.text("SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'vector')")
    return any(map(_needs_extension, context.sorted_tables)) and not connection.scalar(there)


def _needs_extension(table: sa.Table) -> bool:
    kinds = (vector_type(getattr(column.type, "item_type", column.type)) for column in table.columns)
    return any(kind is not None and kind.kind != "bit" for kind in kinds) or any(map(of_model, table.indexes))
