"""op.create_collection, op.add_vector_space, op.register_table, their reverses, and op.migrate_pgvec."""

from __future__ import annotations

import io
import json
import re
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations
from sqlalchemy.dialects.postgresql import JSONB

from pgvec_toolkit.alembic.vector_index import sql_of

Model = Mapping[str, Any]
_NAME = re.compile(r'"((?:[^"]|"")+)"|([^".\s]+)')
_FOLDED = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_CASTS = {"relation": "regclass"}


@Operations.register_operation("unregister_table")
@Operations.register_operation("register_table")
@Operations.register_operation("drop_vector_space")
@Operations.register_operation("add_vector_space")
@Operations.register_operation("drop_collection")
@Operations.register_operation("create_collection")
class CallOp(MigrateOperation):
    """Call a function of schema pgvec.

    Attributes:
        name: of the operation.
        function: of schema pgvec.
        arguments: as the function names them; those that are None are left out.
        model: the embedding model, an entry of pgvec.models, of what is created.
    """

    def __init__(
        self,
        name: str,
        function: str,
        arguments: Mapping[str, Any],
        model: Model | None = None,
        reverse: CallOp | None = None,
    ) -> None:
        self.name = name
        self.function = function
        self.arguments = {key: value for key, value in arguments.items() if value is not None}
        self.model = model
        self._reverse = reverse

    def reverse(self) -> CallOp:
        if self._reverse is None:
            raise ValueError(f"what {self.name} undoes is not known: write the downgrade by hand")
        return self._reverse

    def to_diff_tuple(self) -> tuple[str, dict[str, Any]]:
        return (self.name, self.arguments)

    @classmethod
    def creation(cls, name: str, arguments: Mapping[str, Any], model: Model | None = None) -> CallOp:
        """Return the operation that creates a collection; its reverse drops it."""
        drop = cls("drop_collection", "drop_collection", {"name": name})
        return cls("create_collection", "create_collection", {"name": name, **arguments}, model, drop)

    @classmethod
    def space_addition(
        cls, collection: str, name: str, arguments: Mapping[str, Any], model: Model | None = None
    ) -> CallOp:
        """Return the operation that adds a vector space; its reverse drops it."""
        named = {"collection": collection, "name": name}
        drop = cls("drop_vector_space", "drop_space", named)
        return cls("add_vector_space", "add_space", named | dict(arguments), model, drop)

    @classmethod
    def registration(cls, arguments: Mapping[str, Any], model: Model | None = None) -> CallOp:
        """Return the operation that registers a table; its reverse forgets that."""
        known_as = arguments["name"] or table_name(arguments["relation"])
        forget = cls("unregister_table", "unregister_table", {"name": known_as})
        return cls("register_table", "register_table", arguments, model, forget)

    @classmethod
    def create_collection(
        cls,
        operations: Operations,
        name: str,
        *,
        dimensions: int,
        columns: Mapping[str, object] | None = None,
        type: str | None = None,
        distance: str | None = None,
        space: str | None = None,
        language: str | None = None,
        schema: str | None = None,
        keywords: bool | None = None,
        model: Model | None = None,
    ) -> None:
        """Create a collection (SQL: `pgvec.create_collection`).

        `model` is what `pgvec collection create --revision` writes of an embedder; without one you bring vectors.
        """
        from pgvec_toolkit.schema.columns import sql_types

        arguments = {
            "dimensions": dimensions,
            "columns": None if columns is None else sql_types(columns),
            "type": type,
            "distance": distance,
            "space": space,
            "language": language,
            "schema": schema,
            "keywords": keywords,
        }
        operations.invoke(cls.creation(name, arguments, model))

    @classmethod
    def drop_collection(cls, operations: Operations, name: str, *, if_exists: bool | None = None) -> None:
        """Drop a collection with all that is in it (SQL: `pgvec.drop_collection`)."""
        operations.invoke(cls("drop_collection", "drop_collection", {"name": name, "if_exists": if_exists}))

    @classmethod
    def add_vector_space(
        cls,
        operations: Operations,
        collection: str,
        name: str,
        *,
        dimensions: int,
        type: str | None = None,
        distance: str | None = None,
        model: Model | None = None,
    ) -> None:
        """Add a vector space to a collection (SQL: `pgvec.add_space`)."""
        arguments = {"dimensions": dimensions, "type": type, "distance": distance}
        operations.invoke(cls.space_addition(collection, name, arguments, model))

    @classmethod
    def drop_vector_space(cls, operations: Operations, collection: str, name: str) -> None:
        """Drop a vector space with its vectors (SQL: `pgvec.drop_space`)."""
        operations.invoke(cls("drop_vector_space", "drop_space", {"collection": collection, "name": name}))

    @classmethod
    def register_table(
        cls,
        operations: Operations,
        relation: str,
        *,
        embedding: str | None = None,
        text: str | None = None,
        key: str | None = None,
        id: str | None = None,
        name: str | None = None,
        metadata: str | None = None,
        distance: str | None = None,
        space: str | None = None,
        language: str | None = None,
        keywords: bool | None = None,
        model: Model | None = None,
    ) -> None:
        """Register a table as a collection (SQL: `pgvec.register_table`).

        Args:
            relation: the table, as SQL has it: products, or shop."Price list".
            embedding: its vector column; "embedding" unless told.
            text: its column of texts.
            key: its column of unique whole numbers; the primary key unless told.
            id: the column that hits name rows by; the key unless told.
            name: of the collection; the table's unless told.
            metadata: a jsonb column whose keys can be filtered by.
        """
        arguments = {
            "relation": relation,
            "embedding": embedding,
            "text": text,
            "key": key,
            "id": id,
            "name": name,
            "metadata": metadata,
            "distance": distance,
            "space": space,
            "language": language,
            "keywords": keywords,
        }
        operations.invoke(cls.registration(arguments, model))

    @classmethod
    def unregister_table(cls, operations: Operations, name: str) -> None:
        """Forget that a table is a collection; the table stays (SQL: `pgvec.unregister_table`)."""
        operations.invoke(cls("unregister_table", "unregister_table", {"name": name}))


@Operations.register_operation("migrate_pgvec")
class MigratePgvecOp(MigrateOperation):
    """Bring schema pgvec to the version of the library, as `pgvec migrate` does."""

    @classmethod
    def migrate_pgvec(cls, operations: Operations) -> None:
        """Bring schema pgvec to the version of this library, in the same transaction; its version table is its own.

        There is nothing to undo: a downgrade leaves schema pgvec as it is. With --sql this begins at nothing, as
        `pgvec migrate --sql` does.
        """
        operations.invoke(cls())


def table_name(relation: str) -> str:
    """Return the name of a table that is written as SQL has it, as products, or shop."Price list"."""
    quoted, plain = _NAME.findall(relation)[-1]
    return str(quoted.replace('""', '"') or plain.translate(_FOLDED))


@Operations.implementation_for(CallOp)
def _call(operations: Operations, operation: CallOp) -> None:
    arguments, model = operation.arguments, operation.model
    named = [f"{key} => CAST(:{key} AS {_CASTS[key]})" if key in _CASTS else f"{key} => :{key}" for key in arguments]
    values = dict(arguments)
    if model is not None:
        from pgvec_toolkit.embed.registry import REGISTER

        _execute(operations, re.sub(r"%\((\w+)\)s", r":\1", REGISTER), model)
        named.append("model_id => (SELECT m.id FROM pgvec.models m WHERE m.fingerprint = :fingerprint)")
        values["fingerprint"] = model["fingerprint"]
    _execute(operations, f"SELECT pgvec.{operation.function}({', '.join(named)})", values)


@Operations.implementation_for(MigratePgvecOp)
def _migrate(operations: Operations, _: MigratePgvecOp) -> None:
    from pgvec_toolkit.schema import migrate

    context = operations.migration_context
    with _nested():
        if not context.as_sql:
            migrate.upgrade_within(operations.get_bind())
            return
        migrate.write_sql(script := io.StringIO())
    with context.autocommit_block():  # the script has a transaction of its own
        context.impl.static_output(script.getvalue())


@contextmanager
def _nested() -> Iterator[None]:
    """Put Alembic's `op` and `context` back: when a run within a run ends, it forgets those of the outer one."""
    from alembic import context, op

    outer = [getattr(module, "_proxy", None) for module in (context, op)]
    try:
        yield
    finally:
        for proxy in outer:
            if proxy is not None:
                proxy._install_proxy()


def _execute(operations: Operations, sql: str, values: Mapping[str, Any]) -> None:
    objects = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    statement = sa.text(sql)
    if operations.migration_context.as_sql:
        texts = {key: json.dumps(value) for key, value in objects.items()}
        script = sql_of(statement.bindparams(**{**values, **texts}))
        operations.migration_context.impl.static_output(f"{script};")
    else:
        types = [sa.bindparam(key, type_=JSONB) for key in objects]
        operations.get_bind().execute(statement.bindparams(*types), values)
