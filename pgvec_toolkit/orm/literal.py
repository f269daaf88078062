"""A statement of SQLAlchemy's as SQL with its values in it, for what cannot be given parameters."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any

from psycopg import sql
from sqlalchemy import Dialect, Select, create_engine


@cache
def _dialect() -> Dialect:
    return create_engine("postgresql+psycopg://").dialect


def literal_sql(statement: Select[Any], schema_of: Callable[[Any], str | None] | None = None) -> str:
    """Return the text of a statement; psycopg quotes the values.

    Args:
        statement: what to render.
        schema_of: returns in which schema a table is, if not where its model says.
    """
    dialect = _dialect()
    if schema_of is not None:
        dialect = copy(dialect)
        dialect.identifier_preparer = preparer = copy(dialect.identifier_preparer)
        preparer.schema_for_object = schema_of  # type: ignore[assignment]  # whose own one returns None, too
    compiled: Any = statement.compile(dialect=dialect)
    expanded = compiled.construct_expanded_state()  # IN (...) has a parameter for each of its values, with a processor
    processors = {compiled.escaped_bind_names.get(name, name): it for name, it in compiled._bind_processors.items()}
    processors |= expanded.processors
    values = {
        name: sql.Literal(processors[name](value) if name in processors else value).as_string(None)
        for name, value in expanded.parameters.items()
    }
    return str(expanded.statement % values)
