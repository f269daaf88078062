"""Operations and types as revisions have them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alembic.autogenerate.render import renderers
from alembic.operations import ops

from pgvec_toolkit.alembic.collection_operations import CallOp, MigratePgvecOp
from pgvec_toolkit.alembic.compare_columns import AlterVectorColumnOp, conversion, vector_type
from pgvec_toolkit.alembic.index_operations import (
    CreateVectorExtensionOp,
    CreateVectorIndexOp,
    DropVectorIndexOp,
    KeepVectorExtensionOp,
)

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

_PLAIN = ("pgvector.", "pgvec_toolkit.")


class TypeRenderer:
    """Renders pgvector's types, and pgvec's that are made of them, as `pgvector.sqlalchemy.VECTOR(384)`."""

    def __init__(self, users: Callable[[str, Any, AutogenContext], Any] | None) -> None:
        self._users = users

    @classmethod
    def install(cls, context: AutogenContext) -> None:
        """Go before Alembic's own, after the user's `render_item`."""
        users = context.opts.get("render_item")
        if not isinstance(users, cls):
            context.opts["render_item"] = cls(users)

    def __call__(self, kind: str, item: Any, context: AutogenContext) -> Any:
        rendered = self._users(kind, item, context) if self._users is not None else False
        if rendered is not False or kind != "type" or not type(item).__module__.startswith(_PLAIN):
            return rendered
        if (found := vector_type(item)) is None:
            return False
        context.imports.add("import pgvector.sqlalchemy")
        return f"pgvector.sqlalchemy.{found.kind.upper()}({'' if found.dimensions is None else found.dimensions})"


def call(context: AutogenContext, name: str, *arguments: str, **options: object) -> str:
    """Return a call of an operation; options that are None or False are left out."""
    prefix = context.opts.get("alembic_module_prefix", "op.")
    said = [f"{key}={value!r}" for key, value in options.items() if value is not None and value is not False]
    return f"{prefix}{name}({', '.join([*arguments, *said])})"


@renderers.dispatch_for(CreateVectorIndexOp)
def _create_vector_index(context: AutogenContext, operation: CreateVectorIndexOp) -> str:
    index = operation.index
    if isinstance(index.target, str):
        target = repr(str(index.target))
    else:
        target = f"{context.opts.get('sqlalchemy_module_prefix', 'sa.')}text({index.target.text!r})"
    return call(
        context,
        "create_vector_index",
        repr(index.name),
        repr(str(index.table)),
        target,
        method=index.method,
        **index.options,
        opclass=index.opclass,
        where=index.where,
        schema=index.schema,
        tablespace=index.tablespace,
        concurrently=operation.concurrently,
        if_not_exists=operation.if_not_exists,
        replace=operation.replace,
    )


@renderers.dispatch_for(DropVectorIndexOp)
def _drop_vector_index(context: AutogenContext, operation: DropVectorIndexOp) -> str:
    index = operation.index
    options = {"concurrently": operation.concurrently, "if_exists": operation.if_exists}
    return call(context, "drop_vector_index", repr(index.name), repr(str(index.table)), schema=index.schema, **options)


@renderers.dispatch_for(CreateVectorExtensionOp)
def _create_vector_extension(context: AutogenContext, _: CreateVectorExtensionOp) -> str:
    return call(context, "create_vector_extension")


@renderers.dispatch_for(KeepVectorExtensionOp)
def _keep_vector_extension(_: AutogenContext, __: KeepVectorExtensionOp) -> str:
    return "pass  # the extension vector stays: other tables may use it"


@renderers.dispatch_for(AlterVectorColumnOp)
def _alter_vector_column(context: AutogenContext, operation: AlterVectorColumnOp) -> list[str]:
    preparer = context.dialect.identifier_preparer
    assert operation.existing_type is not None
    assert operation.modify_type is not None
    using, remark = conversion(
        preparer.quote(operation.column_name),
        operation.existing_type,
        operation.modify_type,
        operation.modify_type.compile(context.dialect),
    )
    plain: Callable[[Any, Any], str] = renderers.dispatch(ops.AlterColumnOp)
    rendered = plain(context, operation)
    comment = [f"# {line}" for line in textwrap.wrap(remark or "", 100)]
    return [*comment, f"{rendered.removesuffix(')')},\n{' ' * 11}postgresql_using={using!r})"]


@renderers.dispatch_for(CallOp)
def _pgvec_call(context: AutogenContext, operation: CallOp) -> str:
    required = ("collection", "name") if operation.function.endswith("space") else ("name",)
    if operation.function == "register_table":
        required = ("relation",)
    arguments = operation.arguments
    options = {key: value for key, value in arguments.items() if key not in required}
    said = [f"{key}={value!r}" for key, value in options.items()]
    if operation.model is not None:
        said.append(f"model={dict(operation.model)!r}")
    prefix = context.opts.get("alembic_module_prefix", "op.")
    return f"{prefix}{operation.name}({', '.join([*(repr(arguments[key]) for key in required), *said])})"


@renderers.dispatch_for(MigratePgvecOp)
def _migrate_pgvec(context: AutogenContext, _: MigratePgvecOp) -> str:
    return call(context, "migrate_pgvec")
