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


def plain(value: Any, place: str = "") -> Any:
    """Return a filter with dates as ISO texts, tuples and sets as lists, numpy scalars as Python's.

    `place` says in errors where in the filter the value stands.
    """
    if isinstance(value, Mapping):
        return {
            _text(str(key), place): plain(item, f"{place}.{key}" if place else str(key)) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, place) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist(), place)
    if isinstance(value, str):
        return _text(value, place)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and value - value == 0:  # neither NaN nor infinite
        return value
    raise FilterError(
        f"filter {place!r}: {value!r} cannot be compared with: use a text, a number, a boolean, a date or None"
    )


def _text(value: str, place: str) -> str:
    """Return the text, unless it is one that jsonb cannot hold: with NUL, or with half of a surrogate pair."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise FilterError(f"filter {place!r}: {value!r} holds a character that PostgreSQL cannot store")
    return value


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
    if isinstance(value, float) and "e+" in repr(value):  # 1e16: jsonb writes its digits out, as an integer's
        return _json_type(int(value))
    if isinstance(value, list):
        return "array of " + ", ".join(sorted({_json_type(item) for item in value}))
    return {float: "number", str: "string", type(None): "null"}.get(type(value), "object")
