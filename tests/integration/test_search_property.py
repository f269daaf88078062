"""Python and a plain SQL connection answer alike, and rightly: random queries, filters and k, by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from tests.conftest import random_vectors

ROWS, DIMENSIONS = 2000, 8
RANDOM = np.random.default_rng(11)
SECTIONS = [None if number == 5 else f"s{number}" for number in RANDOM.integers(6, size=ROWS)]
YEARS = [None if row % 13 == 0 else int(year) for row, year in enumerate(RANDOM.integers(2000, 2030, size=ROWS))]
DRAFTS = [bool(number) for number in RANDOM.integers(2, size=ROWS)]
COLOURS = [("red", "green", None)[number] for number in RANDOM.integers(3, size=ROWS)]
Mask = NDArray[np.bool_]
Condition = tuple[dict[str, Any], Mask]  # a filter, and which rows it matches


@dataclass
class Paths:
    """The same collection through Python and through a connection that nobody has set up."""

    docs: Collection
    plain: psycopg.Connection[Any]
    vectors: NDArray[np.float32]


@pytest.fixture(scope="module")
def paths(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Paths]:
    vectors = random_vectors(ROWS, DIMENSIONS)
    with janitor("t_search_property", template):
        dsn = make_conninfo(server_dsn, dbname="t_search_property")
        with Database(dsn, max_size=2) as database, psycopg.connect(dsn, autocommit=True) as plain:
            columns = {"section": str, "year": int, "draft": bool}
            docs = database.create_collection("docs", dimensions=DIMENSIONS, columns=columns)
            docs.upsert(
                {
                    "id": [str(row) for row in range(ROWS)],
                    "vector": vectors,
                    "section": SECTIONS,
                    "year": YEARS,
                    "draft": DRAFTS,
                    "metadata": [{} if colour is None else {"colour": colour} for colour in COLOURS],
                }
            )
            docs.create_index()
            docs.tune(0.99, sample=100)
            yield Paths(docs, plain, vectors)


def mask(test: Callable[[Any], bool], values: list[Any]) -> Mask:
    return np.asarray([value is not None and test(value) for value in values], dtype=bool)


def comparison(field: str, operator: str, value: Any) -> Condition:
    values: list[Any] = {"section": SECTIONS, "year": YEARS, "draft": DRAFTS, "colour": COLOURS}[field]
    tests: dict[str, Callable[[Any], bool]] = {
        "$eq": lambda each: bool(each == value),
        "$gte": lambda each: bool(each >= value),
        "$lt": lambda each: bool(each < value),
        "$in": lambda each: each in value,
    }
    if operator == "$ne":
        return {field: {operator: value}}, ~mask(tests["$eq"], values)
    if operator == "$nin":
        return {field: {operator: value}}, ~mask(tests["$in"], values)
    if operator == "$exists":
        return {field: {operator: value}}, mask(lambda _: True, values) == value
    return {field: {operator: value}}, mask(tests[operator], values)


def conditions(field: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Condition]:
    one = st.tuples(st.sampled_from(["$eq", "$ne"] + (["$gte", "$lt"] if field != "draft" else [])), values)
    several = st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(values, min_size=1, max_size=4))
    there = st.tuples(st.just("$exists"), st.booleans())
    return st.one_of(one, several, there).map(lambda pair: comparison(field, *pair))


LEAVES = st.one_of(
    conditions("section", st.sampled_from(["s0", "s1", "s2", "s3", "s4", "absent"])),
    conditions("year", st.integers(1998, 2031)),
    conditions("draft", st.booleans()),
    conditions("colour", st.sampled_from(["red", "green", "blue"])),
)
FILTERS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(
            lambda all: ({"$and": [each[0] for each in all]}, np.logical_and.reduce([each[1] for each in all]))
        ),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda any: ({"$or": [each[0] for each in any]}, np.logical_or.reduce([each[1] for each in any]))
        ),
        inner.map(lambda one: ({"$not": one[0]}, ~one[1])),
    ),
    max_leaves=4,
)
EVERYTHING: Condition = ({}, np.ones(ROWS, dtype=bool))


def vector(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)


QUERIES = st.integers(0, 10_000).map(vector)
QUICK = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def by_sql(paths: Paths, query: NDArray[np.float32], k: int, where: Any, more: str = "") -> list[str]:
    statement = f"SELECT id FROM pgvec.search('docs', %s, %s, %s{more})"
    filter = None if where is None else Jsonb(where)
    return [id for (id,) in paths.plain.execute(statement.encode(), [str(query.tolist()), k, filter])]


@QUICK
@given(query=QUERIES, condition=st.one_of(st.just(EVERYTHING), FILTERS), k=st.integers(1, 60))
def test_two_paths_one_answer(paths: Paths, query: NDArray[np.float32], condition: Condition, k: int) -> None:
    where, matching = condition
    hits = paths.docs.search(query, k, where or None)
    found = [hit.id for hit in hits]
    assert by_sql(paths, query, k, where or None) == found
    assert len(set(found)) == len(found) == min(k, int(matching.sum()))
    assert all(matching[int(id)] for id in found)
    distances = [hit.distance for hit in hits]
    assert distances == sorted(distances)
    assert hits.stopped_by == ("k" if len(hits) == k else "complete")


@QUICK
@given(
    query=QUERIES,
    condition=FILTERS,
    k=st.integers(1, 40),
    shape=st.sampled_from(
        [{"exact": True}, {"within": 0.7}, {"exclude": ["1", "2", "3"]}, {"group_by": "section"}, {"diversity": 0.5}]
    ),
)
def test_two_paths_one_answer_in_every_shape(
    paths: Paths, query: NDArray[np.float32], condition: Condition, k: int, shape: dict[str, Any]
) -> None:
    where, matching = condition
    literal = {
        "exact": "true",
        "within": "0.7",
        "exclude": "ARRAY['1','2','3']",
        "group_by": "'section'",
        "diversity": "0.5",
    }
    [name] = shape
    hits = paths.docs.search(query, k, where, **shape)
    found = [hit.id for hit in hits]
    assert by_sql(paths, query, k, where, f", {name} => {literal[name]}") == found
    assert all(matching[int(id)] for id in found)
    if name == "exact":
        v, q = paths.vectors.astype(np.float64), query.astype(np.float64)
        truth = np.sort((1 - v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q))[matching])[:k]
        np.testing.assert_allclose([hit.distance for hit in hits], truth, atol=1e-6)
    elif name == "group_by":
        sections = {SECTIONS[row] for row in np.flatnonzero(matching)} - {None}
        assert len(hits) == min(k, len(sections))
        assert len({hit.metadata["section"] for hit in hits}) == len(hits)
    elif name == "diversity":
        assert len(set(found)) == len(found) == min(k, int(matching.sum()))
