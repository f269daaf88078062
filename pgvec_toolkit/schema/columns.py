"""Typed columns: the Python type, the SQL type, and the bytes of a value in a binary COPY."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from pgvec_toolkit.errors import ConfigurationError

NULL = b"\xff\xff\xff\xff"
LONGEST_INDEXED_TEXT = 2600
_INT32, _INT64 = struct.Struct(">ii"), struct.Struct(">iq")
_DOUBLE = struct.Struct(">id")
_LENGTH = struct.Struct(">i")
_EPOCH_DATE = dt.date(2000, 1, 1).toordinal()
_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Cell(str):
    """A value of a file in which everything is text, as CSV; a typed column reads it as a value of its own type."""

    __slots__ = ()


def text_field(value: str) -> bytes:
    """Encode a text with its length; PostgreSQL cannot store NUL."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    if "\0" in value:
        raise ValueError("contains a NUL byte, which PostgreSQL cannot store: remove it")
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def indexed_text_field(value: str) -> bytes:
    """Encode a text of which an index holds the whole: a btree or GIN entry is at most a third of a page."""
    field = text_field(value)
    if len(field) - 4 > LONGEST_INDEXED_TEXT:
        raise ValueError(
            f"is {len(field) - 4:,} bytes long, and an indexed text holds {LONGEST_INDEXED_TEXT:,}: shorten it, "
            "or leave it out of the typed columns (metadata has no such limit)"
        )
    return field


def int4_field(value: int | Cell) -> bytes:
    """Encode an integer of 32 bits."""
    return _INT32.pack(4, _whole(value, 32))


def int8_field(value: int | Cell) -> bytes:
    """Encode an integer of 64 bits."""
    return _INT64.pack(8, _whole(value, 64))


def _whole(value: float | Cell, bits: int) -> int:
    """Return a whole number as an int; 3.0 is one, for pandas makes integers floats where some are missing."""
    if isinstance(value, Cell):
        value = int(value)
    if isinstance(value, bool | str) or int(value) != value:
        raise TypeError(f"{value!r} is not a whole number")
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise OverflowError(f"{value!r} does not fit into an integer of {bits} bits")
    return int(value)


def bytes_field(value: bytes) -> bytes:
    """Encode raw bytes with their length."""
    return _LENGTH.pack(len(value)) + value


def _float_field(value: float | Cell) -> bytes:
    if isinstance(value, Cell):
        value = float(value)
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{value!r} is not a number")
    return _DOUBLE.pack(8, float(value))


def _bool_field(value: bool | Cell) -> bytes:
    if isinstance(value, Cell) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return b"\0\0\0\1\1" if value else b"\0\0\0\1\0"


def _date_field(value: dt.date | str) -> bytes:
    if isinstance(value, str):
        value = dt.date.fromisoformat(value)
    if isinstance(value, dt.datetime):
        value = value.date()
    if not isinstance(value, dt.date):
        raise TypeError(f"{value!r} is not a date")
    return _INT32.pack(4, value.toordinal() - _EPOCH_DATE)


def _timestamp_field(value: dt.datetime | dt.date | str) -> bytes:
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if not isinstance(value, dt.date):
        raise TypeError(f"{value!r} is not a timestamp")
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.UTC)
    return _INT64.pack(8, (value - _EPOCH) // _MICROSECOND)


def _text_array_field(value: Any) -> bytes:
    if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
        raise TypeError(f"{value!r} is not a list of texts")
    items = [indexed_text_field(item) for item in value]
    # dimensions, has-nulls flag, element type (25 = text), then length and lower bound
    head = struct.pack(">iiiii", 1, 0, 25, len(items), 1) if items else struct.pack(">iii", 0, 0, 25)
    return bytes_field(head + b"".join(items))


@dataclass(frozen=True)
class ColumnType:
    """A type that a typed column can have.

    Attributes:
        sql: its SQL name, as PostgreSQL prints it.
        field: encodes one value as a field of a binary COPY; raises TypeError, ValueError,
            OverflowError or struct.error if the value is not of the type.
    """

    sql: str
    field: Callable[[Any], bytes]


_TYPES = {
    column_type.sql: column_type
    for column_type in (
        ColumnType("text", indexed_text_field),
        ColumnType("bigint", int8_field),
        ColumnType("double precision", _float_field),
        ColumnType("boolean", _bool_field),
        ColumnType("date", _date_field),
        ColumnType("timestamp with time zone", _timestamp_field),
        ColumnType("text[]", _text_array_field),
    )
}
_PYTHON_TYPES: dict[object, str] = {
    str: "text",
    int: "bigint",
    float: "double precision",
    bool: "boolean",
    dt.date: "date",
    dt.datetime: "timestamp with time zone",
    list: "text[]",
    list[str]: "text[]",
}


def column_type(sql: str) -> ColumnType:
    """Return the type of a column by its SQL name."""
    if sql not in _TYPES:
        raise ConfigurationError(
            f"pgvec cannot load into a column of type {sql}: it knows {', '.join(_TYPES)}. "
            "Give the column a default and leave it out of the records."
        )
    return _TYPES[sql]


def sql_types(columns: Mapping[str, type | str | object]) -> dict[str, str]:
    """Return SQL type names for {"section": str, "year": "int"}; names are checked by the server."""
    resolved = {}
    for name, wanted in columns.items():
        sql = wanted if isinstance(wanted, str) else _PYTHON_TYPES.get(wanted) if isinstance(wanted, Hashable) else None
        if sql is None:
            known = ", ".join(getattr(kind, "__name__", str(kind)) for kind in _PYTHON_TYPES)
            raise ConfigurationError(f"column {name!r} cannot be of type {wanted!r}: use one of {known}")
        resolved[name] = sql
    return resolved
