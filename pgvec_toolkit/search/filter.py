"""Filters on their way to the server: made plain JSON, and reduced to the shape that decides a statement's text.

What filters mean is decided in SQL (sql/300_filter.sql), once for everybody.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping
from typing import Any

from pgvec_toolkit.errors import FilterError

Filter = Mapping[str, Any]
_LARGEST_INTEGER = 10**18


def plain(value: Any) -> Any:
    """Return a filter with dates as ISO texts, tuples and sets as lists, numpy scalars as Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and value - value == 0:  # neither NaN nor infinite
        return value
    raise FilterError(f"{value!r} cannot be compared with: use a text, a number, a boolean, a date or None")


def shape(filter: Any) -> Hashable:
    """Return what two filters share that need the same statement: fields, operators, JSON types of the values."""
    if not isinstance(filter, dict):
        return _json_type(filter)
    return tuple(sorted((key, _entry_shape(key, value)) for key, value in filter.items()))


def _entry_shape(key: str, value: Any) -> Any:
    if key in ("$and", "$or") and isinstance(value, list):
        return tuple(repr(shape(item)) for item in value)
    if key == "$not":
        return repr(shape(value))
    if isinstance(value, dict):
        return repr(sorted((operator, _json_type(operand)) for operator, operand in value.items()))
    return _json_type(value)


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) < _LARGEST_INTEGER else "number"
    if isinstance(value, list):
        return "array of " + ", ".join(sorted({_json_type(item) for item in value}))
    return {float: "number", str: "string", type(None): "null"}.get(type(value), "object")
