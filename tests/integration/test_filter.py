"""What filters mean, for every operator and type, against a reference implementation of a page."""

from __future__ import annotations

import datetime as dt
import operator
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

COLUMNS: dict[str, Any] = {
    "section": str,
    "year": int,
    "price": float,
    "active": bool,
    "day": dt.date,
    "at": dt.datetime,
    "tags": list[str],
}
TEXTS = ["alpha", "beta", "gamma", "O'Hara", 'say "hi"', "naïve 日本", "a,b", "{x}", "back\\slash", "%s $1 {}", ""]
WORDS = ["alpha", "beta", "gamma", "delta"]  # the same order in every collation
YEARS = [1999, 2020, 2021, 0, -5, 2**53 + 1, 10**18, 2**63 - 1]
PRICES = [0.0, 0.1, -2.5, 1e16, 1e300]
DAYS = [dt.date(2020, 2, 29), dt.date(2024, 1, 1), dt.date(1970, 1, 1)]
MOMENTS = [
    dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC),
    dt.datetime(2024, 3, 1, 12, 0, 0, 1, tzinfo=dt.UTC),
    dt.datetime(2023, 12, 31, 23, 59, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
]
JSON = [0, 1, 1.0, 2020.5, -3, 10**20, "1", "alpha", "beta", "", "ü'\"\\", True, False, None]
JSON += [[], [1, "a"], ["a", 1], ["alpha"], {}, {"a": {"b": [1]}}, {"a": 1}]
ODD_KEYS = [
    "plain",
    "with.dot",
    "a,b",
    "{b}",
    "back\\slash",
    "it's",
    'quo"te',
    "%s",
    "sp ace",
    "日本",
    "'; DROP TABLE docs; --",
]
ORDER = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
SIZE = 200


# -- the reference ---------------------------------------------------------------------------------


def matches(row: dict[str, Any], where: dict[str, Any]) -> bool:
    """Tell whether a row matches: the documented meaning, in Python."""
    for key, value in where.items():
        if key == "$and":
            found = all(matches(row, each) for each in value)
        elif key == "$or":
            found = any(matches(row, each) for each in value)
        elif key == "$not":
            found = not matches(row, value)
        else:
            conditions = value if isinstance(value, dict) and value else {"$eq": value}
            found = all(holds(row, key, *condition) for condition in conditions.items())
        if not found:
            return False
    return True


def holds(row: dict[str, Any], field: str, name: str, value: Any) -> bool:
    if name in ("$ne", "$nin"):  # exact complements
        return not holds(row, field, "$eq" if name == "$ne" else "$in", value)
    if name == "$exists":
        there = row.get(field) is not None if field in COLUMNS else field in row
        return there is value
    actual = row.get(field)
    if name == "$in":
        if field == "tags":
            return actual is not None and bool(set(actual) & set(value))
        return field in row and any(equal(actual, converted(field, item)) for item in value)
    value = converted(field, value)
    if name == "$eq":
        if field == "tags" and isinstance(value, str):
            return actual is not None and value in actual
        return equal(actual, value)
    return json_type(actual) == json_type(value) and bool(ORDER[name](actual, value))


def converted(field: str, value: Any) -> Any:
    if field == "day" and isinstance(value, str):
        return dt.date.fromisoformat(value)
    if field == "at" and value is not None:
        moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return value


def json_type(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def equal(left: Any, right: Any) -> bool:
    if json_type(left) is not json_type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return bool(left == right)


# -- the rows --------------------------------------------------------------------------------------


def make_rows() -> list[dict[str, Any]]:
    choose = random.Random(7)
    rows = []
    for _ in range(SIZE):
        row: dict[str, Any] = {
            "section": choose.choice(TEXTS),
            "year": choose.choice(YEARS),
            "price": choose.choice(PRICES),
            "active": choose.choice([True, False]),
            "day": choose.choice(DAYS),
            "at": choose.choice(MOMENTS),
            "tags": choose.sample(TEXTS, choose.randrange(4)),
        }
        for name in row:
            if choose.random() < 0.15:
                row[name] = None
        for name in ("mixed", "other", *ODD_KEYS):
            if choose.random() < 0.8:
                row[name] = choose.choice(JSON)
        rows.append(row)
    return rows


ROWS = make_rows()


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    """The rows, indexed; every plan is generic, as prepared statements end up with."""
    with janitor("t_filter_rows", template):
        dsn = psycopg.conninfo.make_conninfo(
            server_dsn,
            dbname="t_filter_rows",
            options="-c plan_cache_mode=force_generic_plan -c TimeZone=America/New_York",
        )
        with Database(dsn) as database:
            collection = database.create_collection("docs", dimensions=3, distance="l2", columns=COLUMNS)
            collection.upsert(
                {
                    "id": str(number),
                    "vector": [number, 1, 0],
                    "metadata": {name: value for name, value in row.items() if name not in COLUMNS},
                    **{name: row[name] for name in COLUMNS},
                }
                for number, row in enumerate(ROWS)
            )
            collection.create_index()
        with Database(dsn, max_size=1) as database:
            yield database.collection("docs")


def found(collection: Collection, where: dict[str, Any]) -> set[int]:
    hits = collection.search([0] * collection.space.dimensions, SIZE + 1, where)
    assert len({hit.id for hit in hits}) == len(hits)
    return {int(hit.id) for hit in hits}


def expected(where: dict[str, Any]) -> set[int]:
    return {number for number, row in enumerate(ROWS) if matches(row, where)}


VALUES: dict[str, list[Any]] = {
    "section": [*TEXTS, "nowhere"],
    "year": [*YEARS, 2020.0, 2020.5, 1e16, -(10**30), 2**64, 2**53 + 2],
    "price": [*PRICES, 1, 10**16, 0.30000000000000004],
    "active": [True, False],
    "day": [*DAYS, "2020-02-29", "2021-06-30"],
    "at": [
        *MOMENTS,
        dt.datetime(2024, 3, 1, 12),
        "2024-03-01T12:00:00",
        "2024-03-01 14:00:00+02:00",
        dt.date(2024, 1, 1),
    ],
    "tags": [*TEXTS, "nowhere"],
    "mixed": JSON,
}


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
        wanted = expected(where)
        assert found(docs, where) == wanted, where
        seen.add(len(wanted))
    assert seen - {0, SIZE} or (name in ORDER and field in ("active", "tags"))


@pytest.mark.parametrize("field", VALUES)
def test_lists(docs: Collection, field: str) -> None:
    choose = random.Random(field)
    for count in (0, 1, 2, 5):
        for _ in range(4):
            values = [value for value in VALUES[field] if value is not None]
            chosen = choose.sample(values, min(count, len(values)))
            for name in ("$in", "$nin"):
                assert found(docs, {field: {name: chosen}}) == expected({field: {name: chosen}}), (field, name, chosen)


@pytest.mark.parametrize("field", [*COLUMNS, "mixed", "nobody_has_it"])
def test_null_and_absence(docs: Collection, field: str) -> None:
    for where in (
        {field: None},
        {field: {"$eq": None}},
        {field: {"$ne": None}},
        {field: {"$exists": True}},
        {field: {"$exists": False}},
        {"$not": {field: {"$exists": True}}},
    ):
        assert found(docs, where) == expected(where), where
    assert found(docs, {field: None}) | found(docs, {field: {"$ne": None}}) == set(range(SIZE))


def test_whole_lists_of_texts(docs: Collection) -> None:
    stored = next(row["tags"] for row in ROWS if row["tags"] and len(row["tags"]) > 1)
    for value in (stored, stored[::-1], stored[:1], []):
        for name in ("$eq", "$ne"):
            assert found(docs, {"tags": {name: value}}) == expected({"tags": {name: value}}), (name, value)
    assert found(docs, {"tags": stored})


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_is_a_metadata_key(docs: Collection, key: str) -> None:
    for value in JSON:
        for name in ("$eq", "$ne"):
            assert found(docs, {key: {name: value}}) == expected({key: {name: value}}), (key, name, value)
    for where in (
        {key: {"$in": ["alpha", 1]}},
        {key: {"$gte": 0}},
        {key: {"$exists": False}},
        {"$or": [{"$not": {key: {"$lt": 5}}}, {key: True}]},
    ):
        assert found(docs, where) == expected(where), where


def random_filter(choose: random.Random, depth: int) -> dict[str, Any]:
    kind = choose.random()
    if depth and kind < 0.45:
        parts = [random_filter(choose, depth - 1) for _ in range(choose.randint(1, 3))]
        return {"$not": parts[0]} if kind < 0.15 else {choose.choice(["$and", "$or"]): parts}
    where: dict[str, Any] = {}
    for field in choose.sample(list(VALUES), choose.choice([1, 1, 2])):
        values = [value for value in VALUES[field] if json_type(value) in (float, str, bool) or field in ("day", "at")]
        name = choose.choice(["$eq", "$ne", "$in", "$nin", "$exists", *ORDER])
        if name in ORDER and field in ("section", "active", "tags", "mixed"):
            name, values = ("$gt", [0, 1, 2020.5]) if field == "mixed" else ("$ne", values)
        value = choose.choice(values)
        if name in ("$in", "$nin"):
            value = choose.sample(values, min(len(values), choose.randint(0, 3)))
        if name == "$exists":
            value = choose.choice([True, False])
        where[field] = {name: value}
        if name == "$gt" and choose.random() < 0.5:
            where[field]["$ne"] = choose.choice(values)
    if depth and choose.random() < 0.2:
        where["$not"] = random_filter(choose, depth - 1)
    return where


@pytest.mark.parametrize("seed", range(6))
def test_random_nested_filters(docs: Collection, seed: int) -> None:
    choose = random.Random(seed)
    telling = 0
    for _ in range(60):
        where = random_filter(choose, 3)
        wanted = expected(where)
        assert found(docs, where) == wanted, where
        telling += 0 < len(wanted) < SIZE
    assert telling > 20


def test_a_filter_and_its_negation_divide_the_rows(docs: Collection) -> None:
    choose = random.Random(11)
    for _ in range(40):
        where = random_filter(choose, 2)
        assert found(docs, where) == set(range(SIZE)) - found(docs, {"$not": where}), where


def test_chunk_fields_can_be_filtered_on(docs: Collection) -> None:
    assert found(docs, {"id": {"$in": ["3", "7"]}}) == {3, 7}
    assert found(docs, {"document_id": "5"}) == {5}
    assert found(docs, {"position": 0}) == set(range(SIZE))
    assert found(docs, {"position": {"$lt": 2**31}}) == set(range(SIZE))
    assert found(docs, {"position": {"$in": [2**40, 0]}}) == set(range(SIZE))
    assert found(docs, {"position": {"$gt": -0.5}}) == set(range(SIZE))
    assert found(docs, {"text": None}) == set(range(SIZE))


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
            wanted = expected(where)
            rows = connection.execute(
                "SELECT id FROM pgvec.search('docs', '[0,0,0]', 1000, %s)",
                [Jsonb(plain(where))],
            ).fetchall()
            assert {int(id) for (id,) in rows} == wanted, where


def test_empty_filters(docs: Collection) -> None:
    everything = set(range(SIZE))
    for where in ({}, {"$and": [{}]}, {"$or": [{}, {"year": 1}]}, {"$not": {"$not": {}}}):
        assert found(docs, where) == everything, where
    assert found(docs, {"$not": {}}) == set()
    assert len(docs.search([0, 0, 0], 5, None)) == 5


@pytest.mark.parametrize("value", ["'; DROP TABLE docs; --", "$2", "' OR true --", "\\'; SELECT 1; --", "%L", "{0}"])
def test_injection_finds_nothing_and_does_nothing(docs: Collection, value: str) -> None:
    assert found(docs, {"section": value}) == set()
    assert found(docs, {"tags": {"$in": [value]}}) == set()
    assert found(docs, {"no such " + value: 1}) == set()
    assert found(docs, {"mixed": {"$in": [value, {value: value}]}}) == set()
    with pytest.raises(FilterError):
        docs.search([0, 0, 0], 5, {"mixed": {"$" + value: 1}})
    assert len(docs) == SIZE


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"year": {"$near": 1}}, r"\$near"),
        ({"mixed": {"$regex": "x"}}, r"\$regex"),
        ({"$nor": [{"year": 1}]}, r"\$nor"),
        ({"year": {"plain": 1}}, "plain"),
        ({"year": {"$gt": 1, "x": 2}}, "'x'"),
        ({"year": "2020"}, "year"),
        ({"year": True}, "year"),
        ({"year": [2020]}, "year"),
        ({"year": {"$in": [2020, "2021"]}}, "year"),
        ({"price": "cheap"}, "price"),
        ({"price": {"$gt": 10**400}}, "price"),
        ({"section": 5}, "section"),
        ({"section": {"$gt": None}}, "section"),
        ({"section": {}}, "section"),
        ({"active": 1}, "active"),
        ({"active": {"$gt": False}}, "active"),
        ({"day": "yesteryear"}, "day"),
        ({"day": "2023-02-29"}, "day"),
        ({"day": 20200101}, "day"),
        ({"at": "25 o'clock"}, "at"),
        ({"at": {"$in": ["2024-01-01", "?"]}}, "at"),
        ({"tags": 1}, "tags"),
        ({"tags": {"$gt": "a"}}, "tags"),
        ({"tags": {"$in": ["a", 1]}}, "tags"),
        ({"mixed": {"$gt": [1]}}, "mixed"),
        ({"mixed": {"$lte": True}}, "mixed"),
        ({"mixed": {"$in": 1}}, "mixed"),
        ({"mixed": {"$in": [1, None]}}, "mixed"),
        ({"mixed": {"$exists": 1}}, "mixed"),
        ({"metadata": {"a": 1}}, "."),
        ({"metadata": None}, "metadata"),
        ({"key": 1}, "key"),
        ({"tsv": "x"}, "tsv"),
        ({"$and": []}, r"\$and"),
        ({"$or": {"year": 1}}, r"\$or"),
        ({"$or": None}, r"\$or"),
        ({"$or": [1]}, "object"),
        ({"$not": [{"year": 1}]}, "object"),
        (["year", 2020], "object"),
        ("year = 2020", "object"),
        ({"price": float("nan")}, "price"),
        ({"$or": [{"mixed": {"$lt": float("inf")}}]}, r"mixed.*\$lt"),
        ({"year": object()}, "year"),
        ({"section": "a\0b"}, "section"),
        ({"section": {"$in": ["\ud800"]}}, "section"),
        ({"a\0b": 1}, "PostgreSQL"),
    ],
)
def test_a_bad_filter_is_an_error_that_names_its_part(docs: Collection, where: Any, named: str) -> None:
    for _ in range(2):
        with pytest.raises(FilterError, match=named):
            docs.search([0, 0, 0], 5, where)
    assert len(docs.search([0, 0, 0], 5, {"year": {"$exists": True}})) == 5


@pytest.mark.parametrize(
    ("good", "bad", "field"),
    [
        ({"day": {"$gt": "2020-01-01"}}, {"day": {"$gt": "tomorrowish"}}, "day"),
        ({"day": "2020-01-01"}, {"day": "2020-13-01"}, "day"),
        ({"at": {"$lte": "2020-01-01T00:00:00Z"}}, {"at": {"$lte": "2020-01-01T99:00:00Z"}}, "at"),
        ({"at": {"$in": ["2020-01-01"]}}, {"at": {"$in": ["2020-01-01", "nope"]}}, "at"),
        ({"price": {"$gt": 10**20}}, {"price": {"$gt": 10**400}}, "price"),
    ],
)
def test_a_bad_value_in_a_shape_that_is_prepared_already(
    docs: Collection, good: dict[str, Any], bad: dict[str, Any], field: str
) -> None:
    for _ in range(7):
        docs.search([0, 0, 0], 5, good)
    for _ in range(2):
        with pytest.raises(FilterError, match=f"'{field}'"):
            docs.search([0, 0, 0], 5, bad)
    assert found(docs, good) == found(docs, {"$and": [good]})


# -- one statement a shape -------------------------------------------------------------------------


def prepared(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'WITH nearest%'", prepare=False
    ).fetchone()
    assert row is not None
    return int(row[0])


SAME_SHAPE = [
    [{"year": 2020}, {"year": -1}, {"year": 10**17}],
    [{"year": {"$gte": 1}, "section": "a"}, {"section": "ü'", "year": {"$gte": 2}}],
    [{"section": {"$in": ["a"]}}, {"section": {"$in": ["b", "c", "d"]}}],
    [{"$or": [{"year": 1}, {"mixed": "x"}]}, {"$or": [{"year": 2}, {"mixed": "y"}]}],
    [{"at": dt.datetime(2024, 1, 1)}, {"at": "2023-01-01T00:00:00+01:00"}],
]


@pytest.mark.parametrize("group", SAME_SHAPE)
def test_filters_of_one_shape_share_a_prepared_statement(docs: Collection, group: list[dict[str, Any]]) -> None:
    with docs._database.connection() as connection:
        connection.execute("DEALLOCATE ALL")
        connection._prepared.clear()
    docs._searcher.forget_texts()
    for where in group * 3:
        assert found(docs, where) == expected(where), where
    with docs._database.connection() as connection:
        assert prepared(connection) == 1


DIFFERENT_SHAPES: list[list[dict[str, Any]]] = [
    [{"mixed": 1}, {"mixed": "1"}, {"mixed": True}, {"mixed": None}, {"mixed": [1]}, {"mixed": {}}],
    [{"$or": [{"mixed": 1}, {"other": "alpha"}]}, {"$or": [{"other": "alpha"}, {"mixed": 1}]}],
    [{"mixed": {"$eq": 1}}, {"mixed": {"$ne": 1}}, {"mixed": {"$gt": 1}}, {"mixed": {"$in": [1]}}],
    [{"year": 2020}, {"year": 2020.5}, {"year": 2**70}, {"year": 1e16}, {"year": 2020.0}],
    [{"year": {"$in": [2020]}}, {"year": {"$in": [2020.5, 2020]}}, {"year": {"$in": [1e16]}}, {"year": {"$in": []}}],
    [{"$and": [{"mixed": 1, "other": 1}]}, {"$and": [{"mixed": 1}, {"other": 1}]}, {"$not": {"mixed": 1, "other": 1}}],
    [{"tags": "alpha"}, {"tags": ["alpha"]}, {"tags": None}],
]


@pytest.mark.parametrize("group", DIFFERENT_SHAPES)
def test_filters_of_different_shapes_do_not_collide(docs: Collection, group: list[dict[str, Any]]) -> None:
    docs._searcher.forget_texts()
    for where in [*group, *reversed(group)]:
        assert found(docs, where) == expected(where), where
    docs._searcher.forget_texts()
    for where in reversed(group):  # whichever comes first
        assert found(docs, where) == expected(where), where


# -- tables that are not quite as pgvec made them --------------------------------------------------


def test_columns_added_by_the_user(db: Database, connection: psycopg.Connection) -> None:
    docs = db.create_collection("docs", dimensions=2, distance="l2")
    docs.upsert({"id": [str(number) for number in range(4)], "vector": np.eye(4, 2) + 1})
    connection.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');"
        "ALTER TABLE docs ADD small smallint, ADD money numeric(10, 2), ADD ratio real, ADD code varchar(9),"
        " ADD mood mood;"
        "UPDATE docs SET small = id::int, money = id::int + 0.5, ratio = id::int / 2.0, code = 'c' || id,"
        " mood = CASE id WHEN '1' THEN 'sad' ELSE 'glad' END::mood"
    )
    for where, ids in (
        ({"small": {"$gte": 2}}, {2, 3}),
        ({"small": {"$lt": 70_000}}, {0, 1, 2, 3}),
        ({"small": {"$in": [1, 2.0, 10**30]}}, {1, 2}),
        ({"money": 1.5}, {1}),
        ({"money": {"$gt": 1}}, {1, 2, 3}),
        ({"ratio": {"$in": [0.5, 1]}}, {1, 2}),
        ({"code": "c3"}, {3}),
        ({"mood": "sad"}, {1}),
    ):
        assert found(docs, where) == ids, where
    with pytest.raises(FilterError, match="mood"):
        docs.search([1, 1], 1, {"mood": "indifferent"})


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
            assert found(docs, {"at": {"$lt": "2024-03-01T07:00:00.5-05:00"}}) == {0}
