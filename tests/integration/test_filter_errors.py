"""Bad filters are errors that name the field, the operator and what would be right; large ones are refused in time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.errors import FilterError
from tests.integration.filter_oracle import OPERATORS, SIZE, found, loaded


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    with loaded(server_dsn, template, janitor, "t_filter_errors") as collection:
        yield collection


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
        ({"year": {"$between": [1]}}, r"\$between of field 'year' takes a list \[lowest, highest\]"),
        ({"year": {"$between": [1, 2, 3]}}, r"year.*\[1, 2, 3\]"),
        ({"mixed": {"$between": [1, None]}}, r"\$between.*mixed"),
        ({"mixed": {"$between": [1, "2"]}}, r"\$between.*mixed.*two numbers or two texts"),
        ({"mixed": {"$between": 1}}, r"\$between.*mixed"),
        ({"mixed": {"$between": [True, False]}}, r"\$between.*mixed"),
        ({"year": {"$between": ["1", "2"]}}, "year.*bigint.*number"),
        ({"day": {"$between": ["2020-01-01", "soonish"]}}, "day.*soonish"),
        ({"tags": {"$between": ["a", "b"]}}, r"tags.*\$between"),
        ({"year": {"$like": "2%"}}, r"year.*bigint.*\$like.*\$eq \$ne"),
        ({"tags": {"$like": "2%"}}, r"tags.*\$like.*\$contains"),
        ({"day": {"$ilike": "2%"}}, r"day.*\$ilike"),
        ({"section": {"$like": 5}}, r"\$like.*section.*a text"),
        ({"mixed": {"$ilike": ["a"]}}, r"\$ilike.*mixed.*a text"),
        ({"year": {"$contains": 2}}, r"year.*\$contains"),
        ({"section": {"$contains": ["a"]}}, r"section.*\$contains"),
        ({"tags": {"$contains": 2}}, r"tags.*\$contains"),
        ({"tags": {"$contains": ["a", 2]}}, r"tags.*2 is not a text"),
        ({"mixed": {"$contains": None}}, r"\$contains.*mixed"),
        ({"mixed": {"$contains": [1, None]}}, r"\$contains.*mixed.*without nulls"),
        ({"mixed": {"$any": "a"}}, r"\$any.*mixed.*a list without nulls"),
        ({"mixed": {"$all": [None]}}, r"\$all.*mixed.*a list without nulls"),
        ({"year": {"$any": ["a"]}}, "year.*number"),
        ({"year": {"$not": 5}}, r"\$not.*year.*\$ne"),
        ({"year": {"$not": {}}}, r"\$not.*year"),
        ({"year": {"$not": {"$near": 1}}}, r"\$near.*year"),
        ({"year": {"$and": [{"$gt": 1}]}}, r"\$and.*year"),
        ({"author": {"name": "x"}}, r'author.*\{"author": \{"\$contains": \{"name": "x"\}\}\}'),
        ({"mixed": {"$gt": 1, "x": {"y": 2}}}, r'mixed.*"\$contains": \{"x": \{"y": 2\}\}'),
        ({"price": 10**400}, "price"),
        ({"price": {"$in": [1, 10**400]}}, "price"),
        ({"price": {"$lt": 10**5000}}, r"price\.\$lt"),
        ({10**5000: 1}, "bits"),
        ({1: 1, "1": 2}, "twice"),
        ({"x" * 1000: {"$in": [1, {"y" * 5000: None}, None]}}, r"\.\.\."),
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


def test_the_hint_of_an_unknown_operator_names_them_all(docs: Collection) -> None:
    with pytest.raises(FilterError) as caught:
        docs.search([0, 0, 0], 5, {"year": {"$near": 1}})
    named = set(re.findall(r"\$\w+", str(caught.value).partition("One of")[2]))
    assert named == {*OPERATORS, "$and", "$or", "$not"}
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert named <= set(re.findall(r"\$\w+", readme.partition("## Filters")[2].partition("\n## ")[0]))


# -- limits ----------------------------------------------------------------------------------------


def nested(kind: str, levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"$lt": 0} if kind == "field" else {"year": {"$lt": 0}}
    for _ in range(levels):
        where = {kind: [where, {"year": 1}]} if kind in ("$and", "$or") else {"$not": where}
    return {"year": where} if kind == "field" else where


@pytest.mark.parametrize("kind", ["$and", "$or", "$not", "field"])
def test_nesting_ends_at_32_levels(docs: Collection, kind: str) -> None:
    assert len(found(docs, nested(kind, 32))) < SIZE
    for levels in (33, 49, 60, 500, 100_000):
        with pytest.raises(FilterError, match="nested deeper"):
            docs.search([0, 0, 0], 5, nested(kind, levels))
    with docs._database.connection() as connection:
        for levels in (33, 60, 150):
            with pytest.raises(psycopg.Error, match="nested deeper") as caught:
                connection.execute(
                    "SELECT FROM pgvec.search('docs', '[0,0,0]', filter => %s)", [json.dumps(nested(kind, levels))]
                )
            assert caught.value.sqlstate == "PV004"


def test_values_nested_too_deeply_are_refused(docs: Collection) -> None:
    value: Any = []
    for _ in range(90):
        value = [value]
    assert found(docs, {"mixed": value}) == set()
    for _ in range(100_000):
        value = [value]
    with pytest.raises(FilterError, match="nested deeper"):
        docs.search([0, 0, 0], 5, {"mixed": value})
    endless: list[Any] = []
    endless.extend([endless, endless])
    with pytest.raises(FilterError, match="nested deeper"):
        docs.search([0, 0, 0], 5, {"mixed": {"$in": endless}})
    with docs._database.connection() as connection:
        for name in ("$eq", "$contains", "$in"):
            deep = "[" * 1500 + "]" * 1500
            with pytest.raises(psycopg.Error, match="nested deeper") as caught:
                connection.execute(
                    "SELECT FROM pgvec.search('docs', '[0,0,0]', filter => %s)", [f'{{"mixed": {{"{name}": {deep}}}}}']
                )
            assert caught.value.sqlstate == "PV004"


def test_a_thousand_conditions_are_enough(docs: Collection) -> None:
    assert len(found(docs, {"$or": [{"year": number} for number in range(1000)]})) > 0
    assert found(docs, {f"no {number}": None for number in range(1000)}) == set(range(SIZE))
    assert found(docs, {"mixed": {"$nin": [{"no": number} for number in range(3000)]}}) == set(range(SIZE))
    pairs = [{"year": {"$gt": number, "$lt": number}} for number in range(501)]
    many: list[Any] = [{"$or": [{"year": 1}] * 1001}, {"$and": [{"$or": pairs}, {}]}, {"$not": {"$or": pairs}}]
    many += [{str(number): number for number in range(1001)}, {"$or": [{"year": {"$not": {"$gt": 1, "$lt": 2}}}] * 501}]
    for where in many:
        with pytest.raises(FilterError, match=r"100[12] conditions, more than 1000"):
            docs.search([0, 0, 0], 5, where)


def test_numbers_no_column_can_hold(docs: Collection) -> None:
    with docs._database.connection() as connection:
        for number in ("1e400", "-1e400", "1e-400", "1e131071", "1e-16383"):
            for field, fits in (("price", False), ("year", True), ("position", True), ("mixed", True)):
                for name in ("$eq", "$ne", "$gt", "$lt"):
                    where = f'{{"{field}": {{"{name}": {number}}}}}'
                    query = "SELECT count(*) FROM pgvec.search('docs', '[0,0,0]', 1000, filter => %s)"
                    if fits:
                        assert connection.execute(query, [where]).fetchone() is not None
                        continue
                    with pytest.raises(psycopg.Error, match="'price'") as caught:
                        connection.execute(query, [where])
                    assert caught.value.sqlstate == "PV004"
                    assert len(str(caught.value)) < 2000
