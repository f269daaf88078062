"""What autogenerate does before and after it compares: whose tables it leaves alone, and the order of operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.util import PriorityDispatchResult

from pgvec_toolkit.alembic.compare_columns import AlterVectorColumnOp, is_vector_change, vector_type
from pgvec_toolkit.alembic.index_operations import CreateVectorExtensionOp, CreateVectorIndexOp, DropVectorIndexOp
from pgvec_toolkit.alembic.render import TypeRenderer

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

_TABLES = """
SELECT c.schema_name, t.name || suffix FROM pgvec.collections c
CROSS JOIN LATERAL (SELECT c.table_name AS name UNION ALL
                    SELECT s.table_name FROM pgvec.vector_spaces s WHERE s.collection_id = c.id) t
CROSS JOIN unnest('{"",_keywords,_lexemes,_history}'::text[]) suffix
"""
# The user's own ones, that searches are served from.
_REGISTERED = """
SELECT n.nspname, r.relname FROM pgvec.registered_tables t
JOIN pg_catalog.pg_class r ON r.oid = t.relation JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
"""
_VectorIndexOp = CreateVectorIndexOp | DropVectorIndexOp


def prepare(context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Let vector columns be reflected, and keep pgvec's own tables out."""
    del upgrade_ops
    import pgvector.sqlalchemy  # noqa: F401  makes SQLAlchemy know its types

    TypeRenderer.install(context)
    owned = _owned_tables(context)
    models = {(table.schema or context.dialect.default_schema_name, table.name) for table in context.sorted_tables}
    schemas = {schema for schema, _ in models}

    def not_pgvecs(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "schema":
            return name != "pgvec" or name in schemas
        if type_ != "table":
            return True
        table = (parents.get("schema_name") or context.dialect.default_schema_name, name)
        return table not in owned or table in models

    context._name_filters.append(not_pgvecs)
    return PriorityDispatchResult.CONTINUE


def _owned_tables(context: AutogenContext) -> set[tuple[str, str]]:
    """Return schema and name of the tables of collections, whether they are there or not."""
    connection = context.connection
    assert connection is not None

    def rows(catalogue: str, query: str) -> set[tuple[str, str]]:
        readable = sa.text("SELECT has_table_privilege(to_regclass(:table), 'SELECT')")
        if not connection.scalar(readable, {"table": f"pgvec.{catalogue}"}):
            return set()
        return {(schema, name) for schema, name in connection.execute(sa.text(query))}

    return rows("collections", _TABLES) - rows("registered_tables", _REGISTERED)


def arrange(context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Order operations: the extension, then indexes that go, then tables and columns, then indexes that come.

    The index of a column whose type changes is in its way. A revision that does nothing but replace indexes of
    tables that are there does so CONCURRENTLY: it may be repeated; others stay in their one transaction.
    """
    dropped: list[ops.MigrateOperation] = []
    created: list[ops.MigrateOperation] = []
    others = [each for each in upgrade_ops.ops if not _without_indexes(each, dropped, created)]
    extension = [CreateVectorExtensionOp()] if _lacks_extension(context) else []
    if context.opts.get("pgvec_concurrently", True) and not others and not extension:
        for operation in (*dropped, *created):
            _make_concurrent(operation)
    upgrade_ops.ops = [*extension, *dropped, *others, *created]
    return PriorityDispatchResult.CONTINUE


def _without_indexes(
    operation: ops.MigrateOperation, dropped: list[ops.MigrateOperation], created: list[ops.MigrateOperation]
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


def _make_concurrent(operation: ops.MigrateOperation) -> None:
    assert isinstance(operation, _VectorIndexOp)
    operation.concurrently = True
    if isinstance(operation, CreateVectorIndexOp):
        operation.if_not_exists = True
    else:
        operation.if_exists = True


def _lacks_extension(context: AutogenContext) -> bool:
    """Tell whether a model has a vector column, and the database no extension vector."""
    connection = context.connection
    assert connection is not None
    kinds = (vector_type(column.type) for table in context.sorted_tables for column in table.columns)
    return any(kind is not None and kind.kind != "bit" for kind in kinds) and not connection.scalar(
        sa.text("SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'vector')")
    )
