"""A statement of SQLAlchemy's as SQL with its values in it, for what cannot be given parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from psycopg import sql
from sqlalchemy import Dialect, Select, create_engine


@cache
def _dialect() -> Dialect:
    return create_engine("postgresql+psycopg://").dialect


def literal_sql(statement: Select[Any], schemas: Mapping[str | None, str | None] | None = None) -> str:
    """Return the text of a statement; psycopg quotes the values.

    Args:
        statement: what to render.
        schemas: in which schema tables are, if not where their models say.
    """
    translated: dict[str, Any] = {"schema_translate_map": schemas, "render_schema_translate": True} if schemas else {}
    compiled = statement.compile(dialect=_dialect(), compile_kwargs={"render_postcompile": True}, **translated)
    processors: Any = compiled._bind_processors
    values = {
        name: sql.Literal(processors[name](value) if name in processors else value).as_string(None)
        for name, value in compiled.params.items()
    }
    return str(compiled) % values
