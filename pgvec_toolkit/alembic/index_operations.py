"""op.create_vector_index, op.drop_vector_index, op.create_vector_extension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations

from pgvec_toolkit.alembic.vector_index import VectorIndex, checked, sql_of
from pgvec_toolkit.errors import ConfigurationError, IndexBuildError

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

# Of the builds of others a role sees little more than that they are, but of locks everything.
_INVALID = """
SELECT i.oid::regclass::text, EXISTS (
    SELECT FROM pg_catalog.pg_stat_progress_create_index p JOIN pg_catalog.pg_locks l ON l.pid = p.pid
    WHERE l.relation = x.indrelid AND l.database = p.datid AND l.mode = 'ShareUpdateExclusiveLock')
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass(:table) AND i.relname = :name AND NOT x.indisvalid
"""
_REFUSE_INVALID = """DO $pgvec$ BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
               WHERE x.indrelid = to_regclass({table}) AND i.relname = {name} AND NOT x.indisvalid) THEN
        RAISE EXCEPTION 'index % is INVALID: its build has failed, or goes on', {name}
            USING HINT = 'Unless somebody is building it: DROP INDEX CONCURRENTLY, then run this script again.';
    END IF;
END $pgvec$"""


@Operations.register_operation("create_vector_index")
class CreateVectorIndexOp(MigrateOperation):
    """Create a vector index."""

    def __init__(
        self,
        index: VectorIndex,
        *,
        concurrently: bool = False,
        if_not_exists: bool = False,
        replace: bool = False,
        old: VectorIndex | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.index = index
        self.concurrently = concurrently
        self.if_not_exists = if_not_exists
        self.replace = replace
        self.old = old
        self.settings = {name: str(value) for name, value in (settings or {}).items() if value is not None}

    @classmethod
    def create_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        column_or_expression: str | sa.TextClause,
        *,
        method: str = "hnsw",
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        distance: str | None = None,
        opclass: str | None = None,
        cast: str | None = None,
        where: str | None = None,
        schema: str | None = None,
        tablespace: str | None = None,
        concurrently: bool = False,
        if_not_exists: bool = False,
        replace: bool = False,
        maintenance_work_mem: str | None = None,
        workers: int | None = None,
    ) -> None:
        """Create a vector index.

        Args:
            column_or_expression: a column, or as sa.text() an expression, in parentheses unless it is a function call.
            distance: cosine, l2, inner_product, l1, of bits hamming or jaccard: names the operator class for a column
                of type vector, or for the type of `cast`. For others say `opclass`.
            cast: what the index holds instead of the column: halfvec(768), or bit(768), which are the signs.
            where: condition of a partial index, as SQL.
            tablespace: where its files are; that of the database unless told.
            concurrently: without blocking writers, which needs a transaction of its own: what the revision did
                before is committed. A failure leaves no INVALID index behind, and the revision may run again.
            replace: in the place of the index of that name, if there is one; `concurrently`, that one serves until
                the new one is built.
            maintenance_work_mem: memory of the build, as "2GB".
            workers: processes that help to build it.
        """
        given = {"m": m, "ef_construction": ef_construction, "lists": lists}
        options = {key: value for key, value in given.items() if value is not None}
        index = VectorIndex(
            index_name, table_name, column_or_expression, method, options, opclass, where, schema, tablespace
        )
        settings = {"maintenance_work_mem": maintenance_work_mem, "max_parallel_maintenance_workers": workers}
        index = checked(index, distance, cast)
        operation = cls(
            index, concurrently=concurrently, if_not_exists=if_not_exists, replace=replace, settings=settings
        )
        operations.invoke(operation)

    def reverse(self) -> CreateVectorIndexOp | DropVectorIndexOp:
        if self.replace and self.old is not None:
            return CreateVectorIndexOp(self.old, concurrently=self.concurrently, replace=True, old=self.index)
        return DropVectorIndexOp(self.index, concurrently=self.concurrently, if_exists=self.if_not_exists, reverse=self)

    def to_diff_tuple(self) -> Any:
        added = ("add_index", self.index.to_index())
        return added if self.old is None else [("remove_index", self.old.to_index()), added]


@Operations.register_operation("drop_vector_index")
class DropVectorIndexOp(MigrateOperation):
    """Drop a vector index."""

    def __init__(
        self,
        index: VectorIndex,
        *,
        concurrently: bool = False,
        if_exists: bool = False,
        reverse: CreateVectorIndexOp | None = None,
    ) -> None:
        self.index = index
        self.concurrently = concurrently
        self.if_exists = if_exists
        self._reverse = reverse

    @classmethod
    def drop_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        concurrently: bool = False,
        if_exists: bool = False,
    ) -> None:
        """Drop a vector index; `concurrently` as in create_vector_index."""
        index = VectorIndex(index_name, table_name, sa.text(""), schema=schema)
        operations.invoke(cls(index, concurrently=concurrently, if_exists=if_exists))

    def reverse(self) -> CreateVectorIndexOp:
        if self._reverse is None:
            raise ValueError(f"how index {self.index.name} was created is not known: write the downgrade by hand")
        self._reverse.concurrently, self._reverse.if_not_exists = self.concurrently, self.if_exists
        return self._reverse

    def to_diff_tuple(self) -> tuple[str, sa.Index]:
        return ("remove_index", self.index.to_index())


@Operations.register_operation("create_vector_extension")
class CreateVectorExtensionOp(MigrateOperation):
    """Create the extension vector where it is not there."""

    @classmethod
    def create_vector_extension(cls, operations: Operations) -> None:
        """Create the extension vector unless it is there."""
        operations.invoke(cls())

    def reverse(self) -> KeepVectorExtensionOp:
        return KeepVectorExtensionOp()

    def to_diff_tuple(self) -> tuple[str, str]:
        return ("add_extension", "vector")


class KeepVectorExtensionOp(MigrateOperation):
    """Do nothing: other tables may use the extension. What a downgrade renders for its creation."""

    def reverse(self) -> CreateVectorExtensionOp:
        return CreateVectorExtensionOp()


@Operations.implementation_for(CreateVectorIndexOp)
def _create(operations: Operations, operation: CreateVectorIndexOp) -> None:
    index, settings = operation.index, operation.settings
    if operation.concurrently:
        with _alone(operations.migration_context), _session_settings(operations, settings):
            if operation.replace:
                _replace(operations, index)
            else:
                _build(operations, index, operation.if_not_exists)
        return
    for name, value in settings.items():
        operations.execute(_setting(name, value, local=True))
    if operation.replace:
        operations.impl.drop_index(index.to_index(), if_exists=True)
    operations.impl.create_index(index.to_index(), if_not_exists=operation.if_not_exists or None)


def _build(operations: Operations, index: VectorIndex, if_not_exists: bool) -> None:
    """Build outside of a transaction."""
    context = operations.migration_context
    _clear_invalid(context, index)
    try:
        operations.impl.create_index(index.to_index(concurrently=True), if_not_exists=if_not_exists or None)
    except sa.exc.DBAPIError:
        with suppress(IndexBuildError):
            _clear_invalid(context, index)
        raise


def _replace(operations: Operations, index: VectorIndex) -> None:
    """Build under another name, drop the old one, take its name; may be repeated wherever it ended."""
    name = index.name.encode()[:57].decode(errors="ignore")  # what PostgreSQL would cut off of the whole, in bytes
    new = replace(index, name=f"{name}_ccnew")
    _clear_invalid(operations.migration_context, new)
    operations.impl.drop_index(new.to_index(concurrently=True), if_exists=True)  # it may be of another definition
    _build(operations, new, if_not_exists=False)
    operations.impl.drop_index(index.to_index(concurrently=True), if_exists=True)
    quote = operations.migration_context.dialect.identifier_preparer.quote
    known = ".".join(quote(part) for part in (index.schema, new.name) if part is not None)
    operations.execute(_verbatim(f"ALTER INDEX {known} RENAME TO {quote(index.name)}"))


@Operations.implementation_for(DropVectorIndexOp)
def _drop(operations: Operations, operation: DropVectorIndexOp) -> None:
    index = operation.index.to_index(concurrently=operation.concurrently)
    if not operation.concurrently:
        operations.impl.drop_index(index, if_exists=operation.if_exists or None)
        return
    with _alone(operations.migration_context):
        operations.impl.drop_index(index, if_exists=operation.if_exists or None)


@Operations.implementation_for(CreateVectorExtensionOp)
def _create_extension(operations: Operations, _: CreateVectorExtensionOp) -> None:
    operations.execute("CREATE EXTENSION IF NOT EXISTS vector")


@contextmanager
def _alone(context: MigrationContext) -> Iterator[None]:
    """Leave the transaction: CONCURRENTLY waits for all others, and cannot run in one."""
    if not context.as_sql and context._in_external_transaction:
        raise ConfigurationError(
            "concurrently=True has to leave the transaction, but env.py was given a connection that is in one: "
            "hand over a connection without, or use concurrently=False"
        )
    with context.autocommit_block():
        yield


@contextmanager
def _session_settings(operations: Operations, settings: dict[str, str]) -> Iterator[None]:
    """Set for the session, as SET LOCAL does nothing outside of a transaction; afterwards put back what was there."""
    before: dict[str, str | None] = dict.fromkeys(settings)
    if not operations.migration_context.as_sql:
        before = {name: operations.get_bind().scalar(sa.text(f"SHOW {name}")) for name in settings}
    for name, value in settings.items():
        operations.execute(_setting(name, value))
    try:
        yield
    finally:
        for name, old in before.items():
            operations.execute(f"RESET {name}" if old is None else _setting(name, old))


def _setting(name: str, value: str, *, local: bool = False) -> sa.TextClause:
    return _verbatim(f"SET {'LOCAL ' if local else ''}{name} = {_literal(value)}")


def _verbatim(sql: str) -> sa.TextClause:
    return sa.text(sql.replace(":", r"\:"))


def _clear_invalid(context: MigrationContext, index: VectorIndex) -> None:
    """Drop what a build that failed has left under this name; offline, have the script refuse it."""
    table = context.dialect.identifier_preparer.format_table(sa.table(index.table, schema=index.schema))
    if context.as_sql:
        statement = _REFUSE_INVALID.format(table=_literal(table), name=_literal(index.name))
        context.impl.static_output(f"{statement};")
        return
    connection = context.connection
    assert connection is not None
    found = connection.execute(sa.text(_INVALID), {"table": table, "name": index.name}).one_or_none()
    if found is None:
        return
    if found[1]:
        raise IndexBuildError(f"index {found[0]} is being built by another session: wait for it, then upgrade again")
    context.impl.drop_index(index.to_index(concurrently=True))


def _literal(value: str) -> str:
    return sql_of(sa.literal(value))
