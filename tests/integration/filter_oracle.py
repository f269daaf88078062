"""What filters mean, in Python: the rows that the filter tests load, and which of them a filter matches."""

from __future__ import annotations

import datetime as dt
import operator
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database

COLUMNS: dict[str, Any] = {
    "section": str,
    "year": int,
    "price": float,
    "active": bool,
    "day": dt.date,
    "at": dt.datetime,
    "tags": list[str],
}
TEXT_FIELDS = ("section", "text", "id", "document_id")
FIELDS = {*COLUMNS, *TEXT_FIELDS, "position"}  # the others are keys of metadata
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
JSON: list[Any] = [0, 1, 1.0, 2020.5, -3, 10**20, 10**400, "1", "alpha", "beta", "", "ü'\"\\", True, False, None]
JSON += [
    [],
    [1, "a"],
    ["a", 1],
    ["alpha"],
    ["alpha", "beta", "alpha"],
    [1, None, True],
    [[1, 2], []],
    [{"a": 1, "b": 2}],
]
JSON += [{}, {"a": {"b": [1]}}, {"a": 1}, {"a": 1, "b": [{"c": None}, "alpha"]}]
ODD_KEYS = [
    "plain",
    "with.dot",
    "a,b",
    "{b}",
    "back\\slash",
    "it's",
    'quo"te',
    "%s",
    "%1$s",
    "sp ace",
    "日本",
    "'; DROP TABLE docs; --",
]
ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
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
SIZE = 120


def make_rows() -> list[dict[str, Any]]:
    choose = random.Random(7)
    rows = []
    for number in range(SIZE):
        row: dict[str, Any] = {
            "section": choose.choice(TEXTS),
            "year": choose.choice(YEARS),
            "price": choose.choice(PRICES),
            "active": choose.choice([True, False]),
            "day": choose.choice(DAYS),
            "at": choose.choice(MOMENTS),
            "tags": choose.sample(TEXTS, choose.randrange(4)),
            "text": " ".join(choose.sample(TEXTS, 2)),
        }
        for name in row:
            if choose.random() < 0.15:
                row[name] = None
        for name in ("mixed", "other", *ODD_KEYS):
            if choose.random() < 0.85:
                row[name] = choose.choice(JSON)
        rows.append({**row, "id": str(number), "document_id": str(number), "position": 0})
    return rows


ROWS = make_rows()


@contextmanager
def loaded(
    server_dsn: str, template: str, janitor: Callable[..., Any], name: str, *, index: bool = True
) -> Iterator[Collection]:
    """Load the rows into a database; every plan is generic, as prepared statements end up with."""
    with janitor(name, template):
        dsn = psycopg.conninfo.make_conninfo(
            server_dsn, dbname=name, options="-c plan_cache_mode=force_generic_plan -c TimeZone=America/New_York"
        )
        with Database(dsn) as database:
            collection = database.create_collection("docs", dimensions=3, distance="l2", columns=COLUMNS)
            collection.upsert(
                {
                    "vector": [number, 1, 0],
                    "metadata": {name: value for name, value in row.items() if name not in FIELDS},
                    **{name: value for name, value in row.items() if name in FIELDS and name != "position"},
                }
                for number, row in enumerate(ROWS)
            )
            if index:
                collection.create_index()
        with Database(dsn, max_size=1) as database:
            yield database.collection("docs")


def found(collection: Collection, where: Any, *, exact: bool = False) -> set[int]:
    hits = collection.search([0] * collection.space.dimensions, SIZE + 1, where, exact=exact)
    assert len({hit.id for hit in hits}) == len(hits)
    return {int(hit.id) for hit in hits}


def expected(where: dict[str, Any]) -> set[int]:
    return {number for number, row in enumerate(ROWS) if matches(row, where)}


# -- the meaning -----------------------------------------------------------------------------------


def matches(row: dict[str, Any], where: dict[str, Any]) -> bool:
    """Tell whether a row matches: the documented meaning, in Python."""
    for key, value in where.items():
        if key == "$and":
            fits = all(matches(row, each) for each in value)
        elif key == "$or":
            fits = any(matches(row, each) for each in value)
        elif key == "$not":
            fits = not matches(row, value)
        else:
            fits = field_matches(row, key, value if isinstance(value, dict) and value else {"$eq": value})
        if not fits:
            return False
    return True


def field_matches(row: dict[str, Any], field: str, conditions: dict[str, Any]) -> bool:
    return all(
        not field_matches(row, field, value) if name == "$not" else holds(row, field, name, value)
        for name, value in conditions.items()
    )


def holds(row: dict[str, Any], field: str, name: str, value: Any) -> bool:
    if name in ("$ne", "$nin"):  # exact complements
        return not holds(row, field, "$eq" if name == "$ne" else "$in", value)
    actual = row.get(field)
    there = actual is not None if field in FIELDS else field in row
    if name == "$exists":
        return there is value
    if name == "$eq" and value is None:
        return actual is None
    return there and MEANING[name](field, actual, converted(field, value))


def is_equal(field: str, actual: Any, value: Any) -> bool:
    return value in actual if field == "tags" and isinstance(value, str) else equal(actual, value)


def is_between(_: str, actual: Any, ends: list[Any]) -> bool:
    return json_type(actual) is json_type(ends[0]) and bool(ends[0] <= actual <= ends[1])


def is_like(_: str, actual: Any, pattern: str, flags: int = 0) -> bool:
    if not isinstance(actual, str):
        return False
    parts = re.findall(r"\\.|.|\\$", pattern, re.DOTALL)
    made = [
        re.escape(part[1:] or part) if part[0] == "\\" else {"%": ".*", "_": "."}.get(part) or re.escape(part)
        for part in parts
    ]
    return re.fullmatch("".join(made), actual, re.DOTALL | flags) is not None


def has_any(_: str, actual: Any, values: list[Any]) -> bool:
    return any(equal(item, value) for item in (actual if isinstance(actual, list) else [actual]) for value in values)


def has_all(field: str, actual: Any, values: list[Any]) -> bool:
    if not values:
        return field in FIELDS or isinstance(actual, list)
    return all(has_any(field, actual, [value]) for value in values)


def contains(_: str, actual: Any, value: Any) -> bool:
    if isinstance(actual, str):
        return isinstance(value, str) and value in actual
    if isinstance(actual, list):
        return json_contains(actual, value if isinstance(value, list) else [value])
    return isinstance(actual, dict) and isinstance(value, dict) and json_contains(actual, value)


def json_contains(left: Any, right: Any) -> bool:
    """Do as the operator @> of jsonb does."""
    if isinstance(left, dict) and isinstance(right, dict):
        return all(key in left and json_contains(left[key], right[key]) for key in right)
    if isinstance(left, list) and isinstance(right, list):
        return all(any(json_contains(item, wanted) for item in left) for wanted in right)
    return not isinstance(left, dict | list) and equal(left, right)


MEANING: dict[str, Callable[[str, Any, Any], bool]] = {
    "$eq": is_equal,
    "$in": lambda field, actual, values: (
        has_any(field, actual, values) if field == "tags" else any(equal(actual, value) for value in values)
    ),
    "$between": is_between,
    "$like": is_like,
    "$ilike": lambda field, actual, pattern: is_like(field, actual, pattern, re.IGNORECASE),
    "$contains": contains,
    "$any": has_any,
    "$all": has_all,
}
for _name, _compare in ORDER.items():
    MEANING[_name] = lambda _, actual, value, compare=_compare: (  # type: ignore[misc]
        json_type(actual) is json_type(value) and bool(compare(actual, value))
    )
OPERATORS = [*MEANING, "$ne", "$nin", "$exists"]


def converted(field: str, value: Any) -> Any:
    if isinstance(value, list) and field in ("day", "at"):
        return [converted(field, item) for item in value]
    if field == "day" and isinstance(value, str):
        return dt.date.fromisoformat(value)
    if field == "at":
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


# -- random filters --------------------------------------------------------------------------------


def random_filter(choose: random.Random, depth: int) -> dict[str, Any]:
    """Make a filter that is good, and whose meaning does not hang on a collation."""
    kind = choose.random()
    if depth and kind < 0.45:
        parts = [random_filter(choose, depth - 1) for _ in range(choose.randint(1, 3))]
        return {"$not": parts[0]} if kind < 0.15 else {choose.choice(["$and", "$or"]): parts}
    where: dict[str, Any] = {}
    for field in choose.sample([*VALUES, "text"], choose.choice([1, 1, 2])):
        conditions = dict(random_condition(choose, field) for _ in range(choose.choice([1, 1, 2])))
        where[field] = {"$not": conditions} if choose.random() < 0.2 else conditions
    if depth and choose.random() < 0.2:
        where["$not"] = random_filter(choose, depth - 1)
    return where


def random_condition(choose: random.Random, field: str) -> tuple[str, Any]:
    values = [value for value in VALUES.get(field, TEXTS) if value is not None]
    name = choose.choice(OPERATORS)
    ordered = [0, 1, 2020.5] if field == "mixed" else values
    if name in ("$in", "$nin", "$any", "$all"):
        return name, choose.sample(values, min(len(values), choose.choice([0, 1, 1, 2, 3, 18])))
    if name == "$exists":
        return name, choose.choice([True, False])
    if name in (*ORDER, "$between") and field not in ("section", "active", "tags", "text"):
        return name, choose.choice(ordered) if name != "$between" else choose.choices(ordered, k=2)
    if name in ("$like", "$ilike") and field in ("section", "mixed", "text"):
        return name, choose.choice(
            ["%a%", "_eta", "%ALPHA%", "", "%", "back\\\\slash%", "a\\", "%\\%s%", "b_t_", "%'%"]
        )
    if name == "$contains" and field in ("section", "text", "mixed", "tags"):
        value = choose.choice([*values, "a", "lph"])
        return name, [*choose.sample(TEXTS, 2)] if field == "tags" and choose.random() < 0.5 else without_nulls(value)
    return choose.choice(["$eq", "$ne"]), choose.choice([*values, None])


def without_nulls(value: Any) -> Any:
    return [item for item in value if item is not None] if isinstance(value, list) else value
