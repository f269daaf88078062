"""What filters mean, for every operator and type, against a reference implementation (filter_oracle.py)."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import FilterError
from pgvec_toolkit.search.filter import plain
from tests.integration.filter_oracle import (
    COLUMNS,
    FIELDS,
    JSON,
    ODD_KEYS,
    ORDER,
    ROWS,
    SIZE,
    TEXTS,
    VALUES,
    WORDS,
    expected,
    found,
    json_type,
    loaded,
    random_filter,
    without_nulls,
)


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    with loaded(server_dsn, template, janitor, "t_filter_rows") as collection:
        yield collection


def agree(docs: Collection, where: dict[str, Any]) -> int:
    """Assert that a filter finds what it should, and so does its negation; return how many that are."""
    wanted = expected(where)
    assert found(docs, where) == wanted, where
    assert found(docs, {"$not": where}) == set(range(SIZE)) - wanted, where
    return len(wanted)


@pytest.mark.parametrize("name", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "bare"])
@pytest.mark.parametrize("field", VALUES)
def test_comparisons(docs: Collection, field: str, name: str) -> None:
    seen = set()
    for value in VALUES[field]:
        if name in ORDER and (field in ("active", "tags") or json_type(value) in (bool, type(None), list, dict)):
            continue
        if name in ORDER and field == "section" and value not in WORDS:
            continue  # what a collation makes of punctuation is its own business
        where = {field: value} if name == "bare" else {field: {name: value}}
        if name in ORDER and field in ("section", "mixed") and isinstance(value, str):
            # Only words against words, for the same reason.
            where = {"$and": [where, {field: {"$in": WORDS}}]}
        if name == "bare" and isinstance(value, dict) and value:
            continue  # would be read as operators
        seen.add(agree(docs, where))
    assert seen - {0, SIZE} or (name in ORDER and field in ("active", "tags"))


@pytest.mark.parametrize("name", ["$in", "$nin", "$any", "$all"])
@pytest.mark.parametrize("field", [*VALUES, "nobody_has_it"])
def test_lists(docs: Collection, field: str, name: str) -> None:
    choose = random.Random(field)
    values = [value for value in VALUES.get(field, JSON) if value is not None]
    for count in (0, 1, 1, 2, 2, 5, 16, 17, 40):
        agree(docs, {field: {name: choose.choices(values, k=count)}})


@pytest.mark.parametrize("name", ["$in", "$nin", "$any", "$all"])
def test_lists_of_scalars_short_and_long_mean_the_same(docs: Collection, name: str) -> None:
    scalars = [value for value in JSON if value is not None and not isinstance(value, list | dict)]
    for few in ([1], [1.0, "1"], ["alpha"], ["alpha", "beta"], [True, 10**400], ["a", 1], scalars[:8]):
        short, long = {"mixed": {name: few}}, {"mixed": {name: few * 20}}
        agree(docs, short)
        assert found(docs, short) == found(docs, long), short


@pytest.mark.parametrize("field", ["year", "price", "day", "at", "position", "mixed", "nobody_has_it"])
def test_between(docs: Collection, field: str) -> None:
    values = {"position": [0, -1, 2.5], "mixed": [0, 1, 2020.5, -3, 10**20, 10**400]}.get(
        field, VALUES.get(field, [0, 1])
    )
    seen = {agree(docs, {field: {"$between": [low, high]}}) for low in values for high in values}
    assert len(seen) > 1 or field == "nobody_has_it"
    for low in WORDS:
        where = {"section": {"$between": [low, "beta"], "$in": WORDS}, "mixed": {"$between": [low, "c"], "$in": WORDS}}
        agree(docs, {"$or": [{key: value} for key, value in where.items()]})


PATTERNS = [
    "%a%",
    "A%",
    "_eta",
    "%ALPHA%",
    "",
    "%",
    "_",
    "back\\\\%",
    "back\\",
    "\\",
    "\\\\",
    "%\\%s%",
    "b_t_",
    "%'%",
    '%"%',
]


@pytest.mark.parametrize("name", ["$like", "$ilike"])
@pytest.mark.parametrize("field", ["section", "text", "id", "document_id", "mixed", "nobody_has_it"])
def test_patterns(docs: Collection, field: str, name: str) -> None:
    for pattern in [*PATTERNS, "1_", "%5%"]:
        agree(docs, {field: {name: pattern}})


@pytest.mark.parametrize("field", ["section", "text", "id", "document_id", "tags", "mixed", "nobody_has_it"])
def test_contains(docs: Collection, field: str) -> None:
    operands: list[Any] = [*TEXTS, "a", "lph", "LPH", "%", "_", "\\", "'", "5", "日"]
    if field == "tags":
        operands += [[], ["alpha"], ["alpha", "beta"], ["alpha", "alpha"], ["nowhere", "alpha"]]
    elif field not in FIELDS:
        operands += [
            *map(without_nulls, JSON[:-1]),
            [[1]],
            [[2, 1]],
            [{"a": 1}],
            {"b": [{}]},
            {"b": [{"c": None}]},
            2,
            [[]],
        ]
    seen = {agree(docs, {field: {"$contains": operand}}) for operand in operands if operand is not None}
    assert len(seen) > 1 or field == "nobody_has_it"


def test_field_level_negation(docs: Collection) -> None:
    for where in (
        {"year": {"$not": {"$gt": 2019, "$lt": 2021}}},
        {"year": {"$not": {"$not": {"$gt": 2020}}, "$exists": True}},
        {"mixed": {"$not": {"$gt": 0}}},
        {"mixed": {"$not": {"$in": [1, "alpha"]}, "$ne": None}},
        {"tags": {"$not": {"$all": ["alpha", "beta"]}}},
        {"nobody_has_it": {"$not": {"$like": "%"}}},
    ):
        assert agree(docs, where)


@pytest.mark.parametrize("field", [*COLUMNS, "text", "mixed", "nobody_has_it"])
def test_null_and_absence(docs: Collection, field: str) -> None:
    for where in (
        {field: None},
        {field: {"$eq": None}},
        {field: {"$ne": None}},
        {field: {"$exists": True}},
        {field: {"$exists": False}},
        {"$not": {field: {"$exists": True}}},
    ):
        agree(docs, where)
    assert found(docs, {field: None}) | found(docs, {field: {"$ne": None}}) == set(range(SIZE))


def test_whole_lists_of_texts(docs: Collection) -> None:
    stored = next(row["tags"] for row in ROWS if row["tags"] and len(row["tags"]) > 1)
    for value in (stored, stored[::-1], stored[:1], []):
        for name in ("$eq", "$ne"):
            agree(docs, {"tags": {name: value}})
    assert found(docs, {"tags": stored})


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_is_a_metadata_key(docs: Collection, key: str) -> None:
    for value in JSON[ODD_KEYS.index(key) % 4 :: 4]:
        for name in ("$eq", "$ne"):
            assert found(docs, {key: {name: value}}) == expected({key: {name: value}}), (key, name, value)
    for where in (
        {key: {"$in": ["alpha", 1]}},
        {key: {"$any": ["alpha", 1]}},
        {key: {"$all": ["alpha"]}},
        {key: {"$contains": "a"}},
        {key: {"$like": "%a%"}},
        {key: {"$gte": 0}},
        {key: {"$between": [0, 1]}},
        {key: {"$exists": False}},
        {"$or": [{"$not": {key: {"$lt": 5}}}, {key: True}]},
    ):
        agree(docs, where)


@pytest.mark.parametrize("seed", range(6))
def test_random_nested_filters(docs: Collection, seed: int) -> None:
    choose = random.Random(seed)
    telling = 0
    for _ in range(40):
        where = random_filter(choose, 3)
        telling += 0 < agree(docs, where) < SIZE
    assert telling > 13


def test_chunk_fields_can_be_filtered_on(docs: Collection) -> None:
    for where in (
        {"id": {"$in": ["3", "7"]}},
        {"document_id": "5"},
        {"position": 0},
        {"position": {"$lt": 2**31}},
        {"position": {"$in": [2**40, 0]}},
        {"position": {"$gt": -0.5}},
        {"text": None},
    ):
        assert agree(docs, where), where


def test_python_values_become_plain(docs: Collection) -> None:
    assert found(docs, {"year": np.int64(2020)}) == expected({"year": 2020})
    assert found(docs, {"price": {"$gte": np.float32(0.5)}}) == expected({"price": {"$gte": 0.5}})
    assert found(docs, {"section": {"$in": ("alpha", "beta")}}) == expected({"section": {"$in": ["alpha", "beta"]}})
    assert found(docs, {"year": {"$in": {2020, 2021}}}) == expected({"year": {"$in": [2020, 2021]}})
    assert found(docs, {"active": np.bool_(True)}) == expected({"active": True})


def test_sql_function_gives_the_same_rows(docs: Collection) -> None:
    choose = random.Random(13)
    with docs._database.connection() as connection:
        for _ in range(30):
            where = random_filter(choose, 2)
            rows = connection.execute(
                "SELECT id FROM pgvec.search('docs', '[0,0,0]', 1000, %s)", [Jsonb(plain(where))]
            ).fetchall()
            assert {int(id) for (id,) in rows} == expected(where), where


def test_empty_filters(docs: Collection) -> None:
    everything = set(range(SIZE))
    for where in ({}, {"$and": [{}]}, {"$or": [{}, {"year": 1}]}, {"$not": {"$not": {}}}):
        assert found(docs, where) == everything, where
    assert found(docs, {"$not": {}}) == set()
    assert len(docs.search([0, 0, 0], 5, None)) == 5


@pytest.mark.parametrize("value", ["'; DROP TABLE docs; --", "$2", "' OR true --", "\\'; SELECT 1; --", "%L", "{0}"])
def test_injection_finds_nothing_and_does_nothing(docs: Collection, value: str) -> None:
    for name in ("$eq", "$like", "$ilike", "$contains", "$gt"):
        agree(docs, {"section": {name: value}} if name != "$gt" else {"section": {"$in": [value]}})
    assert found(docs, {"tags": {"$in": [value]}}) == set()
    assert found(docs, {"no such " + value: 1}) == set()
    assert found(docs, {"mixed": {"$in": [value, {value: value}]}}) == set()
    with pytest.raises(FilterError):
        docs.search([0, 0, 0], 5, {"mixed": {"$" + value: 1}})
    assert len(docs) == SIZE


# -- tables that are not quite as pgvec made them --------------------------------------------------


def test_columns_added_by_the_user(db: Database, connection: psycopg.Connection) -> None:
    docs = db.create_collection("docs", dimensions=2, distance="l2")
    docs.upsert({"id": [str(number) for number in range(4)], "vector": np.eye(4, 2) + 1})
    connection.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');"
        "ALTER TABLE docs ADD small smallint, ADD money numeric(10, 2), ADD ratio real, ADD code varchar(9),"
        ' ADD mood mood, ADD "odd %1$s ""name""" date;'
        "UPDATE docs SET small = id::int, money = id::int + 0.5, ratio = id::int / 2.0, code = 'c' || id,"
        " mood = CASE id WHEN '1' THEN 'sad' ELSE 'glad' END::mood, \"odd %1$s \"\"name\"\"\" = '2024-01-01'"
    )
    for where, ids in (
        ({"small": {"$gte": 2}}, {2, 3}),
        ({"small": {"$lt": 70_000}}, {0, 1, 2, 3}),
        ({"small": {"$in": [1, 2.0, 10**30]}}, {1, 2}),
        ({"small": {"$between": [0.5, 2]}}, {1, 2}),
        ({"small": {"$any": [1, 3]}}, {1, 3}),
        ({"money": 1.5}, {1}),
        ({"money": {"$gt": 1}}, {1, 2, 3}),
        ({"ratio": {"$in": [0.5, 1]}}, {1, 2}),
        ({"code": "c3"}, {3}),
        ({"code": {"$like": "_3"}}, {3}),
        ({"code": {"$contains": "c"}}, {0, 1, 2, 3}),
        ({"mood": "sad"}, {1}),
        ({'odd %1$s "name"': {"$between": ["2024-01-01", dt.date(2024, 1, 2)]}}, {0, 1, 2, 3}),
    ):
        assert found(docs, where) == ids, where
    for where in ({"mood": "indifferent"}, {"mood": {"$like": "%"}}, {"ratio": {"$gt": 10**50}}):
        with pytest.raises(FilterError, match=next(iter(where))):
            docs.search([1, 1], 1, where)


def test_a_moment_without_zone_is_utc_in_every_session(dsn: str) -> None:
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        with Database(psycopg.conninfo.make_conninfo(dsn, options=f"-c TimeZone={zone}")) as database:
            database.drop_collection("docs", if_exists=True)
            docs = database.create_collection("docs", dimensions=2, distance="l2", columns={"at": dt.datetime})
            docs.upsert([{"id": "0", "vector": [1, 0], "at": dt.datetime(2024, 3, 1, 12)}])
            docs.upsert([{"id": "1", "vector": [1, 0], "at": "2024-03-01T12:00:01"}])
            assert found(docs, {"at": dt.datetime(2024, 3, 1, 12)}) == {0}
            assert found(docs, {"at": {"$gt": "2024-03-01T12:00:00"}}) == {1}
            assert found(docs, {"at": {"$in": ["2024-03-01 12:00", "2024-03-01T12:00:01Z"]}}) == {0, 1}
            assert found(docs, {"at": {"$between": ["2024-03-01T12:00", "2024-03-01T12:00:00.9"]}}) == {0}
            assert found(docs, {"at": {"$lt": "2024-03-01T07:00:00.5-05:00"}}) == {0}
