"""Filters on their way to the server: made plain JSON, and reduced to the shape that decides a statement's text.

What filters mean is decided in SQL (sql/300_filter.sql), once for everybody.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping
from typing import Any

from pgvec_toolkit.errors import FilterError

Filter = Mapping[str, Any]
_DEEPEST = 100  # lists and objects in one another; of $and, $or and $not SQL allows 32
_LONGEST_NUMBER = 2048  # bits: far beyond every float
_LARGEST_INTEGER = 10**18
_FEW = 16  # lists up to this length may have a text for each length


def plain(value: Any, place: str = "", depth: int = 0) -> Any:
    """Return a filter with dates as ISO texts, tuples and sets as lists, numpy scalars as Python's.

    `place` and `depth` say where in the filter the value stands: in errors, and how deep.
    """
    if depth > _DEEPEST:
        raise FilterError(f"filter {_shown(place)}: nested deeper than {_DEEPEST} levels of lists and objects")
    if isinstance(value, Mapping):
        return _plain_mapping(value, place, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, place, depth + 1) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist(), place, depth + 1)
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        raise FilterError(f"filter {_shown(place)}: a number of {value.bit_length()} bits is too long to compare with")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and value - value == 0:  # neither NaN nor infinite
        return value
    raise FilterError(
        f"filter {_shown(place)}: {_shown(value)} cannot be compared with: "
        "use a text, a number, a boolean, a date or None"
    )


def _plain_mapping(value: Mapping[Any, Any], place: str, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else str(plain(key, place, depth + 1))
        if name in made:
            raise FilterError(f"filter {_shown(place)}: {_shown(name)} is there twice, once not as a text")
        inner = f"{place}.{name}" if place else name
        made[_text(name, place)] = plain(item, inner, depth + 1)
    return made


def _text(value: str, place: str) -> str:
    """Return the text, unless it is one that jsonb cannot hold: with NUL, or with half of a surrogate pair."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise FilterError(f"filter {_shown(place)}: {_shown(value)} holds a character that PostgreSQL cannot store")
    return value


def _shown(value: Any) -> str:
    """Return what an error says of a value; texts that no terminal can print, and long ones, are escaped and cut."""
    shown = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


def shape(filter: Any) -> Hashable:
    """Return what two filters share that need the same statement: fields, operators, kinds of the operands."""
    if not isinstance(filter, dict):
        return _kind(filter)
    return tuple(sorted((key, _entry_shape(key, value)) for key, value in filter.items()))


def _entry_shape(key: str, value: Any) -> Hashable:
    if key in ("$and", "$or") and isinstance(value, list):
        return tuple(shape(item) for item in value)
    if key == "$not" or not key.startswith("$"):  # a filter, or {operator: operand, ...} of a field
        return shape(value)
    return _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) < _LARGEST_INTEGER else "number"
    if isinstance(value, float) and "e+" in repr(value):  # 1e16: jsonb writes its digits out, as an integer's
        return _kind(int(value))
    if isinstance(value, list):
        length = len(value) if len(value) <= _FEW else "many"
        return f"array of {length}: " + ", ".join(sorted({_kind(item) for item in value}))
    return {float: "number", str: "string", type(None): "null"}.get(type(value), "object")
