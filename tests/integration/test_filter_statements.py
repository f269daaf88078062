"""The statements of filters: one a shape, its values kept out of the text, and the indexes that serve it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.search.filter import plain, shape
from tests.integration.filter_oracle import OPERATORS, expected, found, loaded


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    with loaded(server_dsn, template, janitor, "t_filter_statements") as collection:
        yield collection


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
    [{"mixed": {name: values}} for name in ("$in", "$any", "$all") for values in ([], [1], [1, "1"], [1] * 17, [[1]])],
    [{"mixed": {"$not": {"$gt": 1}}}, {"mixed": {"$not": {"$gt": "1"}}}, {"mixed": {"$not": {"$lt": 1}}}],
    [{"mixed": {"$contains": value}} for value in ("alpha", 1, ["alpha"], [], {"a": 1}, [{"a": 1}])],
    [{"mixed": {"$between": [0, 1]}}, {"mixed": {"$between": ["a", "b"]}}, {"mixed": {"$in": [0, 1]}}],
    [{"year": {"$between": [0, 2020]}}, {"year": {"$between": [0.5, 2020]}}, {"year": {"$between": [0, 10**30]}}],
]


@pytest.mark.parametrize("group", DIFFERENT_SHAPES)
def test_filters_of_different_shapes_do_not_collide(docs: Collection, group: list[dict[str, Any]]) -> None:
    docs._searcher.forget_texts()
    for where in [*group, *reversed(group)]:
        assert found(docs, where) == expected(where), where
    docs._searcher.forget_texts()
    for where in reversed(group):  # whichever comes first
        assert found(docs, where) == expected(where), where


FIELDS = ["section", "year", "price", "active", "day", "tags", "text", "mixed", "it's"]
TEXT = st.one_of(
    st.sampled_from(["a", "2024-01-01", "", "' OR true --", "%s", "\\"]), st.text("ab'\"\\%_$ \n\tü日🚀", max_size=4)
)
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "number": st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.integers(10**17, 10**19)),
    "string": TEXT,
    "list": st.lists(st.one_of(st.integers(), TEXT, st.floats(-9, 9), st.just([1]), st.just({})), max_size=20),
    "numbers": st.lists(st.one_of(st.integers(-(10**19), 10**19), st.floats(-9, 9)), max_size=20),
    "pair": st.lists(st.integers(-5, 10**19), min_size=2, max_size=2),
    "strings": st.lists(TEXT, max_size=20),
    "object": st.dictionaries(TEXT, st.integers(), max_size=2),
}
# What is not refused: of operators, and of fields, where that is not everything.
LISTS = {"list", "numbers", "strings", "pair"}
TEXTS = {"null", "string", "strings"}
NUMBERS = {"null", "number", "numbers", "pair"}
OF_OPERATORS = {"$in": LISTS, "$nin": LISTS, "$any": LISTS, "$all": LISTS, "$between": {"pair"}}
OF_OPERATORS |= {"$exists": {"boolean"}, "$like": {"string"}, "$ilike": {"string"}}
OF_FIELDS = {"section": TEXTS, "text": TEXTS, "tags": TEXTS, "year": NUMBERS, "price": NUMBERS}
OF_FIELDS |= {"active": {"null", "boolean"}}


def operands(field: str, operator: str) -> list[str]:
    """Return the kinds of operands that make a good filter, as far as kinds tell."""
    possible = OF_OPERATORS.get(operator, set(LEAVES))
    return sorted(possible & OF_FIELDS.get(field, possible) or possible)


@st.composite
def twins(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw two filters that differ in their values only."""
    kind = draw(st.sampled_from(["field", "field", "$and", "$or", "$not"] if depth else ["field"]))
    if kind == "$not":
        one, other = draw(twins(depth - 1))
        return {kind: one}, {kind: other}
    if kind != "field":
        pairs = draw(st.lists(twins(depth - 1), min_size=1, max_size=3))
        return {kind: [one for one, _ in pairs]}, {kind: [other for _, other in pairs]}
    field, name = draw(st.sampled_from(FIELDS)), draw(st.sampled_from(OPERATORS))
    leaf = LEAVES[draw(st.sampled_from(operands(field, name)))]
    one, other = {name: draw(leaf)}, {name: draw(leaf)}
    if draw(st.booleans()):
        one, other = {"$not": one}, {"$not": other}
    return {field: one}, {field: other}


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(pair=twins())
def test_filters_of_one_shape_have_one_text(docs: Collection, pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    filters = [plain(each) for each in without_surrogates(pair)]
    assume(shape(filters[0]) == shape(filters[1]))
    with docs._database.connection() as connection:
        texts = {compiled(connection, each) for each in filters}
    assume(None not in texts)  # a date that is none has the shape of one that is
    assert len(texts) == 1, pair


def compiled(connection: psycopg.Connection[Any], where: Any) -> str | None:
    """Return the predicate, or None if the filter is a bad one."""
    try:
        row = connection.execute("SELECT pgvec._filter_sql('docs', %s)", [Jsonb(where)]).fetchone()
    except psycopg.Error as error:
        if error.sqlstate != "PV004":
            raise
        return None
    return str(row[0]) if row else None


def without_surrogates(value: Any) -> Any:
    return json.loads(json.dumps(value).replace("\\ud", "\\u00").replace("\\u0000", ""))


# -- which indexes serve them ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def big(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[psycopg.Connection]:
    """A collection of 3,000 rows, large enough for every condition below to be worth an index."""
    with janitor("t_filter_indexes", template):
        dsn = psycopg.conninfo.make_conninfo(server_dsn, dbname="t_filter_indexes")
        columns = {"section": str, "year": int, "day": dt.date, "at": dt.datetime, "tags": list[str]}
        with Database(dsn) as database:
            database.create_collection("docs", dimensions=2, columns=columns)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO docs (id, document_id, section, year, day, at, tags, metadata)"
                " SELECT i, i, 's' || i % 500, i, date '2000-01-01' + i,"
                " timestamptz '2000-01-01Z' + i * interval '1 day', ARRAY['t' || i % 300],"
                """ format('{"one": %s, "many": [%s, "t%s"], "deep": {"n": %s}}', i, i, i, i)::jsonb"""
                " FROM generate_series(1, 3000) i"
            )
            connection.execute("VACUUM ANALYZE docs")
            connection.execute("SET plan_cache_mode = force_generic_plan")
            yield connection


SERVED: list[tuple[dict[str, Any], str]] = [
    ({"section": "s1"}, "docs_section_key_idx"),
    ({"section": {"$in": ["s1", "s2"]}}, "docs_section_key_idx"),
    ({"section": {"$any": ["s1", "s2"]}}, "docs_section_key_idx"),
    ({"year": 5}, "docs_year_key_idx"),
    ({"year": {"$gt": 2990}}, "docs_year_key_idx"),
    ({"year": {"$between": [5, 9]}}, "docs_year_key_idx"),
    ({"day": {"$between": ["2001-01-01", "2001-01-05"]}}, "docs_day_key_idx"),
    ({"at": {"$between": ["2001-01-01", "2001-01-05"]}}, "docs_at_key_idx"),
    ({"at": {"$in": ["2001-01-01", "2001-01-05"]}}, "docs_at_key_idx"),
    ({"document_id": {"$in": ["5", "6"]}}, "docs_document_id_idx"),
    ({"id": "5"}, "docs_id_key"),
    ({"tags": "t1"}, "docs_tags_idx"),
    ({"tags": ["t1"]}, "docs_tags_idx"),
    ({"tags": {"$in": ["t1", "t2"]}}, "docs_tags_idx"),
    ({"tags": {"$contains": "t1"}}, "docs_tags_idx"),
    ({"tags": {"$contains": ["t1"]}}, "docs_tags_idx"),
    ({"tags": {"$any": ["t1", "t2"]}}, "docs_tags_idx"),
    ({"tags": {"$all": ["t1"]}}, "docs_tags_idx"),
    ({"one": 5}, "docs_metadata_idx"),
    ({"one": {"$in": list(range(16))}}, "docs_metadata_idx"),
    ({"many": {"$contains": ["t5"]}}, "docs_metadata_idx"),
    ({"many": {"$contains": 5}}, "docs_metadata_idx"),
    ({"deep": {"$contains": {"n": 5}}}, "docs_metadata_idx"),
    ({"many": {"$any": ["t5", "t6", 7]}}, "docs_metadata_idx"),
    ({"many": {"$all": ["t5", 5]}}, "docs_metadata_idx"),
    ({"$or": [{"one": {"$in": [1, 2]}}, {"year": 5}, {"tags": "t1"}]}, "docs_metadata_idx"),
]


@pytest.mark.parametrize(("where", "index"), SERVED, ids=[str(where) for where, _ in SERVED])
def test_an_index_serves(big: psycopg.Connection, where: dict[str, Any], index: str) -> None:
    """The generic plan, as of a prepared statement: no value is known to the planner."""
    row = big.execute("SELECT pgvec._filter_sql('docs', %s)", [Jsonb(where)]).fetchone()
    assert row is not None
    statement = f"PREPARE served (integer, jsonb) AS SELECT d.key FROM docs d WHERE {row[0]}"
    big.execute(statement.encode())
    try:
        with big.transaction():
            big.execute("SET LOCAL enable_seqscan = off")
            literal = psycopg.sql.Literal(json.dumps(where)).as_string(big)
            plan = [
                line for (line,) in big.execute(f"EXPLAIN (ANALYZE, COSTS OFF) EXECUTE served (0, {literal})".encode())
            ]
    finally:
        big.execute("DEALLOCATE served")
    used = [number for number, line in enumerate(plan) if f" on {index}" in line or f" using {index} " in line]
    assert used, "\n".join(plan)
    assert "Index Cond" in plan[used[0] + 1] + plan[used[0] + 2], "\n".join(plan)
    assert not any("Seq Scan on docs" in line for line in plan), "\n".join(plan)
    assert any("actual" in line and " rows=0" not in line for line in plan[:1]), "\n".join(plan)
