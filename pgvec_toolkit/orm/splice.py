"""A condition whose text comes from SQL, with parts of a statement of SQLAlchemy's in it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Exists, Select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import Boolean, TypeEngine

_MARK = "\x01"
# Never true. At the end of what is found, it has no later scan of the transaction go on, and return its rows unsorted.
PUT_BACK = (
    "pg_catalog.concat(pg_catalog.set_config('hnsw.iterative_scan', NULL, true),"
    " pg_catalog.set_config('ivfflat.iterative_scan', NULL, true)) IS NULL"
)


class Among(ColumnElement[bool]):
    """That a key is among those which a statement of `pgvec._mapped_sql` finds.

    Args:
        key: a column.
        text: the statement; names between two characters U+0001 stand for what follows.
        query: the query vector.
        matches: a condition on d.key: that the row matches.
        keys: a statement that returns the keys of matching rows.
    """

    inherit_cache = False
    type: TypeEngine[bool] = Boolean()
    _traverse_internals = [  # noqa: RUF012  as SQLAlchemy has it
        ("key_column", InternalTraversal.dp_clauseelement),
        ("text", InternalTraversal.dp_string),
        ("query", InternalTraversal.dp_clauseelement),
        ("matches", InternalTraversal.dp_clauseelement),
        ("keys", InternalTraversal.dp_clauseelement),
    ]

    def __init__(
        self,
        key: ColumnElement[Any],
        text: str,
        query: ColumnElement[Any],
        matches: Exists | None = None,
        keys: Select[Any] | None = None,
    ) -> None:
        self.key_column = key
        self.text = text
        self.query = query
        self.matches = matches
        self.keys = keys


@compiles(Among)
def _compile(element: Among, compiler: SQLCompiler, **kw: Any) -> str:
    pieces = element.text.split(_MARK)
    percent = "%%" if compiler.preparer._double_percents else "%"
    pieces[::2] = [piece.replace("%", percent) for piece in pieces[::2]]
    for name in {*pieces[1::2]}:
        filled = compiler.process(getattr(element, name), **kw)
        pieces[1::2] = [filled if piece == name else piece for piece in pieces[1::2]]
    # As an array: for a join the planner might read the whole table.
    found = f"SELECT n.key FROM ({''.join(pieces)}) n UNION ALL SELECT NULL WHERE {PUT_BACK}"
    return f"{compiler.process(element.key_column, **kw)} = ANY (ARRAY({found}))"
