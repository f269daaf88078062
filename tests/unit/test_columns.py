"""Typed columns: names of types, and values that are not of the type."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.schema.columns import column_type, int4_field, sql_types

NOT_OF_THE_TYPE = (TypeError, ValueError, OverflowError)


def test_python_types_have_sql_names() -> None:
    wanted = {"a": str, "b": int, "c": float, "d": bool, "e": dt.date, "f": dt.datetime, "g": list, "h": list[str]}
    assert list(sql_types(wanted).values()) == [
        "text",
        "bigint",
        "double precision",
        "boolean",
        "date",
        "timestamp with time zone",
        "text[]",
        "text[]",
    ]


def test_names_of_types_are_left_to_the_server() -> None:
    assert sql_types({"a": "timestamptz"}) == {"a": "timestamptz"}


@pytest.mark.parametrize("wanted", [bytes, dict, list[int], ["str"], None, 5])
def test_other_types_are_refused(wanted: object) -> None:
    with pytest.raises(ConfigurationError, match=r"'tags'.*use one of str, int"):
        sql_types({"tags": wanted})


def test_column_of_a_foreign_type_cannot_be_loaded() -> None:
    with pytest.raises(ConfigurationError, match="inet"):
        column_type("inet")


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("text", 5),
        ("text", b"bytes"),
        ("text", "nul \0"),
        ("text", "half of a pair \ud800"),
        ("bigint", "5"),
        ("bigint", b"5"),
        ("bigint", 2.5),
        ("bigint", True),
        ("bigint", 2**63),
        ("bigint", -(2**63) - 1),
        ("bigint", float("inf")),
        ("bigint", []),
        ("double precision", "1.5"),
        ("double precision", b"1.5"),
        ("double precision", True),
        ("boolean", 1),
        ("boolean", "true"),
        ("date", 5),
        ("date", "yesterday"),
        ("date", b"2024-01-01"),
        ("timestamp with time zone", 1700000000),
        ("timestamp with time zone", "2024-13-01"),
        ("text[]", "text"),
        ("text[]", b"bytes"),
        ("text[]", 5),
        ("text[]", ["a", 1]),
        ("text[]", ["a", None]),
        ("text[]", {"a": 1}),
        ("text[]", ["nul \0"]),
    ],
)
def test_values_of_another_type_are_refused(sql: str, value: Any) -> None:
    with pytest.raises(NOT_OF_THE_TYPE):
        column_type(sql).field(value)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 1.5, "1", True])
def test_positions_are_integers_of_32_bits(value: Any) -> None:
    with pytest.raises(NOT_OF_THE_TYPE, match=r"whole number|does not fit into an integer of 32 bits"):
        int4_field(value)
