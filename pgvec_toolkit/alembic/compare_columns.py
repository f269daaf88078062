"""What autogenerate sees of vector columns: type and dimensions; and how values get from one to the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from alembic.operations import ops
from alembic.util import PriorityDispatchResult
from sqlalchemy.dialects.postgresql import BIT
from sqlalchemy.dialects.postgresql.base import PGDialect

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from sqlalchemy.types import TypeEngine

_KINDS = ("vector", "halfvec", "sparsevec")
_DIALECT = PGDialect()  # type: ignore[no-untyped-call]
_TYPE = re.compile(r'(?:(?:\w+|"[^"]+")\.)?(vector|halfvec|sparsevec|bit)(?:\((\d+)\))?')


class VectorType(NamedTuple):
    """A type of pgvector, or bit(n) of PostgreSQL; dimensions None: any."""

    kind: str
    dimensions: int | None

    def __str__(self) -> str:
        return self.kind if self.dimensions is None else f"{self.kind}({self.dimensions})"


class AlterVectorColumnOp(ops.AlterColumnOp):
    """Alter the type of a column to or from a vector type; rendered with USING."""

    @classmethod
    def of(cls, operation: ops.AlterColumnOp) -> AlterVectorColumnOp:
        """Return the same alteration."""
        altered = cls(operation.table_name, operation.column_name)
        vars(altered).update(vars(operation))
        return altered


def is_vector_change(operation: ops.MigrateOperation) -> bool:
    """Tell whether an operation alters a column to or from a vector type."""
    if not isinstance(operation, ops.AlterColumnOp) or operation.modify_type is None:
        return False
    types = (operation.existing_type, operation.modify_type)
    return any(each is not None and vector_type(each) is not None for each in types)


def vector_type(type: TypeEngine[Any]) -> VectorType | None:
    """Return which type of pgvector it is, or a subclass or decorator of; None if it is none."""
    if type.__class__.__module__.startswith("sqlalchemy.") and not isinstance(type, BIT):
        return None  # what most columns of most projects are, found without compiling it
    try:
        match = _TYPE.fullmatch(type.compile(_DIALECT).lower())
    except sa.exc.CompileError:
        return None
    if match is None:
        return None
    dimensions = int(match[2]) if match[2] else 1 if match[1] == "bit" else None
    return VectorType(match[1], dimensions)


def compare_type(
    context: AutogenContext,
    change: ops.AlterColumnOp,
    schema: str | None,
    table_name: str,
    column_name: str,
    there: sa.Column[Any],
    wanted: sa.Column[Any],
) -> PriorityDispatchResult:
    """Compare the types of a column if one of them is pgvector's."""
    del context, schema, table_name, column_name
    from pgvector.sqlalchemy import BIT as PGVECTOR_BIT

    types = vector_type(there.type), vector_type(wanted.type)
    if isinstance(there.type, sa.types.NullType):
        return PriorityDispatchResult.CONTINUE  # an extension out of the search_path: Alembic says that it cannot tell
    # bit(n) without vectors is not ours: Alembic compares those.
    if not isinstance(wanted.type, PGVECTOR_BIT) and all(each is None or each.kind not in _KINDS for each in types):
        return PriorityDispatchResult.CONTINUE
    if types[0] != types[1]:
        change.modify_type = wanted.type
    return PriorityDispatchResult.STOP


def conversion(column: str, old: TypeEngine[Any], new: TypeEngine[Any], new_sql: str) -> tuple[str, str | None]:
    """Return the expression that makes new values from old ones, and what is to be known about it."""
    before, after = vector_type(old), vector_type(new)
    if before is None or after is None:
        return f"{column}::{new_sql}", None
    same = before.dimensions == after.dimensions
    if before.kind != "bit" and after.kind != "bit" and (same or None in (before.dimensions, after.dimensions)):
        return f"{column}::{after}", None
    if same and before.kind in ("vector", "halfvec") and after.kind == "bit":
        return f"binary_quantize({column})::{after}", f"Of each {before} its signs are kept: no downgrade restores it."
    return (
        f"NULL::{after}",
        f"No {before} can become a {after}: this empties the column, and fails if it is NOT NULL and the table has "
        "rows. Make it nullable first then. Embed the rows again afterwards.",
    )
