"""Filters made plain, and the shape that decides which statement they share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pgvec_toolkit.errors import FilterError
from pgvec_toolkit.search.filter import plain, shape


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"a": 1, "b": [1.5, "x", None, True]}, {"a": 1, "b": [1.5, "x", None, True]}),
        ({"a": ("x", "y")}, {"a": ["x", "y"]}),
        ({"a": {"x"}}, {"a": ["x"]}),
        ({"a": dt.date(2024, 3, 1)}, {"a": "2024-03-01"}),
        ({"a": dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)}, {"a": "2024-03-01T12:00:00+00:00"}),
        ({"a": np.int32(3)}, {"a": 3}),
        ({"a": np.asarray([1, 2])}, {"a": [1, 2]}),
        ({"a": np.bool_(False)}, {"a": False}),
        ({1: 2}, {"1": 2}),
        ({"$or": ({"a": frozenset({1})},)}, {"$or": [{"a": [1]}]}),
        ({"a": 10**400}, {"a": 10**400}),
    ],
)
def test_plain(given: Any, made: Any) -> None:
    assert plain(given) == made


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        np.float32("nan"),
        object(),
        b"bytes",
        1j,
        "nul\0",
        "\udc00",
        [[float("-inf")]],
        2**3000,
    ],
)
def test_what_json_cannot_hold_is_named(value: Any) -> None:
    with pytest.raises(FilterError, match=r"price\.\$gt"):
        plain({"$and": [{"price": {"$gt": value}}]})


@pytest.mark.parametrize(
    "wrap", [lambda value: {"$not": value}, lambda value: [value], lambda value: {"$and": [value]}]
)
def test_what_is_nested_too_deeply_is_refused(wrap: Callable[[Any], Any]) -> None:
    value: Any = {"a": 1}
    for _ in range(45):
        value = wrap(value)
    assert plain(value) == value
    for _ in range(100_000):
        value = wrap(value)
    with pytest.raises(FilterError, match="nested deeper than 100"):
        plain(value)


@pytest.mark.parametrize(
    "filter", [{10**5000: 1}, {1: 1, "1": 1}, {"a": {object(): 1}}, {float("nan"): 1}, {"x" * 10**6: b""}]
)
def test_errors_are_of_readable_length(filter: Any) -> None:
    with pytest.raises(FilterError) as caught:
        plain(filter)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 999}),
        ({"a": "x"}, {"a": ""}),
        ({"a": 1, "b": "x"}, {"b": "y", "a": 2}),
        ({"a": {"$gte": 1, "$lt": 2}}, {"a": {"$lt": 5, "$gte": 4}}),
        ({"a": {"$in": [1, 2]}}, {"a": {"$in": [2, 3]}}),
        ({"a": {"$in": [1, "x", 2]}}, {"a": {"$in": ["y", 3, 4]}}),
        ({"a": {"$in": [1] * 17}}, {"a": {"$in": list(range(999))}}),
        ({"a": {"$not": {"$gt": 1}}}, {"a": {"$not": {"$gt": 2}}}),
        ({"a": {"$contains": {"b": 1}}}, {"a": {"$contains": {"c": "x"}}}),
        ({"$or": [{"a": 1}, {"b": 2}]}, {"$or": [{"a": 3}, {"b": 4}]}),
        ({"a": 1.5}, {"a": 10**18}),
        ({"a": 10**18 - 1}, {"a": -(10**18) + 1}),
        ({"a": 1e16}, {"a": 5}),  # jsonb writes both without a point
        ({"a": 1e18}, {"a": 2020.0}),
    ],
)
def test_the_same_shape(one: Any, other: Any) -> None:
    assert shape(one) == shape(other)
    assert hash(shape(one)) == hash(shape(other))


def test_different_shapes() -> None:
    filters: list[Any] = [
        {},
        {"a": 1},
        {"a": "1"},
        {"a": True},
        {"a": None},
        {"a": 1.5},
        {"a": []},
        {"a": [1]},
        {"a": ["1"]},
        {"a": [1, "1"]},
        {"a": {}},
        {"b": 1},
        {"a": 1, "b": 1},
        {"a": {"$eq": 1}},
        {"a": {"$ne": 1}},
        {"a": {"$in": [1]}},
        {"a": {"$in": [1.5]}},
        {"a": {"$in": []}},
        {"a": {"$in": [1, 2]}},
        {"a": {"$in": [1] * 16}},
        {"a": {"$in": [1] * 17}},
        {"a": {"$not": {"$gt": 1}}},
        {"a": {"$not": {"$gt": "1"}}},
        {"a": {"$not": {"$lt": 1}}},
        {"a": {"$not": {"$not": {"$lt": 1}}}},
        {"a": {"$gt": 1, "$lt": 1}},
        {"$or": [{"a": 1}, {"b": 2}]},
        {"$or": [{"b": 1}, {"a": 2}]},
        {"$or": [{"a": 1, "b": 2}]},
        {"$or": [{"a": 1}]},
        {"$or": [{"a": 1}, {"b": 2}, {"b": 2}]},
        {"$and": [{"a": 1}, {"b": 2}]},
        {"$and": [{"$or": [{"a": 1}]}, {"b": 2}]},
        {"$not": {"a": 1}},
        {"$not": {"$not": {"a": 1}}},
        {"$not": {"a": "1"}},
        {"$or": [{"a": "x', 'integer'), ('b"}]},
        {"a', 'integer'), ('b": 1},
    ]
    assert len({shape(each) for each in filters}) == len(filters)
