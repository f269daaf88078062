"""Fusions against plain Python, written from what their comments say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]
Rankings = dict[str, list[tuple[str, float]]]


def contributions(scores: list[float], fusion: str, rrf_k: float = 60) -> list[float]:
    """Return what each place of a leg adds, before the weight."""
    if fusion == "rrf":
        return [1 / (rrf_k + rank) for rank in range(1, len(scores) + 1)]
    if fusion == "weighted":
        return scores
    least, most = min(scores, default=0), max(scores, default=0)
    if fusion == "relative":
        return [(score - least) / (most - least) if most > least else 1 for score in scores]
    if most == least:
        return [0.5] * len(scores)
    mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
    return [(score - mean + 3 * deviation) / (6 * deviation) for score in scores]


def fused(
    rankings: Rankings, fusion: str, weights: dict[str, float] | None = None, rrf_k: float = 60
) -> dict[str, tuple[float, dict[str, Any]]]:
    """Return id to its score and legs."""
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for leg, ranking in rankings.items():
        parts = contributions([score for _, score in ranking], fusion, rrf_k)
        for rank, ((id, score), part) in enumerate(zip(ranking, parts, strict=True), start=1):
            part *= (weights or {}).get(leg, 1)
            total, legs = found.get(id, (0.0, {}))
            found[id] = total + part, legs | {leg: {"rank": rank, "score": score, "contribution": part}}
    return found


@pytest.fixture(scope="module")
def plain(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Connection]:
    with (
        janitor("t_fusion", template),
        psycopg.connect(make_conninfo(server_dsn, dbname="t_fusion"), autocommit=True) as connection,
    ):
        yield connection


def fuse(connection: Connection, rankings: Any, fusion: str | None, weights: Any = None, rrf_k: Any = 60) -> list[Any]:
    return connection.execute(
        "SELECT id, score, rank, legs FROM pgvec.fuse(%s, %s, %s, %s::float8)",
        [Jsonb(rankings), fusion, None if weights is None else Jsonb(weights), rrf_k],
    ).fetchall()


FUSIONS = ["rrf", "relative", "dbsf", "weighted"]
SCORES = st.one_of(
    st.sampled_from([0.0, 0.1, 0.7, 1.0, -2.5]), st.floats(-1000, 1000).map(lambda score: round(score, 3))
)
LEG = st.dictionaries(st.sampled_from("abcdefghijklmnopqrst"), SCORES, max_size=15).map(
    lambda scores: sorted(scores.items(), key=lambda pair: -pair[1])
)
RANKINGS = st.dictionaries(st.sampled_from(["dense", "keyword", "it's %s", "title"]), LEG, max_size=4)


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(
    rankings=RANKINGS,
    fusion=st.sampled_from(FUSIONS),
    weights=st.lists(st.sampled_from([None, 0, 0.25, 1, 3]), min_size=4, max_size=4),
    rrf_k=st.sampled_from([0, 1, 60, 0.5, 1e6]),
)
def test_fuses_by_the_book(
    plain: Connection, rankings: Rankings, fusion: str, weights: list[float | None], rrf_k: float
) -> None:
    given = {leg: weight for leg, weight in zip(rankings, weights, strict=False) if weight is not None}
    rows = fuse(plain, rankings, fusion, given or None, rrf_k)
    expected = fused(rankings, fusion, given, rrf_k)
    assert {id for id, *_ in rows} == set(expected)
    assert [rank for _, _, rank, _ in rows] == list(range(1, len(rows) + 1))
    scores = [score for _, score, _, _ in rows]
    assert scores == sorted(scores, reverse=True)
    for id, score, _, legs in rows:
        total, parts = expected[id]
        assert score == pytest.approx(total, rel=1e-9, abs=1e-9)
        assert legs.keys() == parts.keys()
        for leg, part in parts.items():
            assert legs[leg] == pytest.approx(part, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("score", [0.1, 0.7, 1 / 3, 0.0, -1e-9])
def test_equal_scores_are_equal(plain: Connection, fusion: str, score: float) -> None:
    """However many there are: a sum of them need not be a multiple."""
    for count in (1, 2, 6, 10, 100):
        rows = fuse(plain, {"leg": [(str(n), score) for n in range(count)]}, fusion)
        parts = contributions([score] * count, fusion)
        assert [each for _, each, _, _ in rows] == pytest.approx(parts, rel=1e-12)


def test_ties_go_to_the_better_place_then_the_id(plain: Connection) -> None:
    rows = fuse(plain, {"one": [("c", 3), ("b", 2), ("a", 1)], "two": [("a", 3), ("b", 2), ("c", 1)]}, "weighted")
    assert [id for id, *_ in rows] == ["a", "c", "b"]


def test_nothing_to_fuse(plain: Connection) -> None:
    for fusion in FUSIONS:
        assert fuse(plain, {}, fusion) == fuse(plain, {"one": [], "two": []}, fusion) == []
        assert len(fuse(plain, {"one": [], "two": [("a", 5)]}, fusion, {"one": 2})) == 1


def test_numbers_are_ids_as_well(plain: Connection) -> None:
    assert [id for id, *_ in fuse(plain, {"one": [(7, 2), ("x", 1)], "two": [("7", 1)]}, "rrf")] == ["7", "x"]


@pytest.mark.parametrize(
    ("rankings", "more", "message"),
    [
        ([], {}, "rankings is a JSON object"),
        (None, {}, "rankings is a JSON object"),
        ({"a": {}}, {}, "rankings is a JSON object"),
        ({"a": None}, {}, "rankings is a JSON object"),
        ({"a": ["x"]}, {}, "rankings is a JSON object"),
        ({"a": [[]]}, {}, "rankings is a JSON object"),
        ({"a": [["x", 1, 2]]}, {}, "rankings is a JSON object"),
        ({"a": [["x", "1"]]}, {}, "rankings is a JSON object"),
        ({"a": [[None, 1]]}, {}, "rankings is a JSON object"),
        ({"a": [[["x"], 1]]}, {}, "rankings is a JSON object"),
        ({"a": [["x", 2], ["y", 2], ["x", 1]]}, {}, "'x' is twice in leg 'a'"),
        ({"a": [["7", 2], [7, 1]]}, {}, "'7' is twice in leg 'a'"),
        ({"a": []}, {"weights": {"b": 1}}, "weight for 'b', which is no leg"),
        ({}, {"weights": {"b": 1}}, "weight for 'b', which is no leg"),
        ({"a": []}, {"weights": {"a": -0.1}}, "weight of 'a' must be a number, at least 0"),
        ({"a": []}, {"weights": {"a": "NaN"}}, "weight of 'a' must be a number"),
        ({"a": []}, {"weights": {"a": None}}, "weight of 'a' must be a number"),
        ({"a": []}, {"weights": [1]}, "weights is a JSON object"),
        ({"a": []}, {"fusion": "best"}, "unknown fusion 'best'"),
        ({"a": []}, {"fusion": None}, "unknown fusion NULL"),
        ({"a": []}, {"rrf_k": -1}, "rrf_k must be at least 0"),
        ({"a": []}, {"rrf_k": math.nan}, "rrf_k must be at least 0"),
        ({"a": []}, {"rrf_k": math.inf}, "rrf_k must be at least 0"),
        ({"a": []}, {"rrf_k": None}, "rrf_k must be at least 0"),
    ],
)
def test_what_cannot_be_fused(plain: Connection, rankings: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        fuse(plain, rankings, **{"fusion": "rrf", **more})
    assert caught.value.sqlstate == "PV005"


@pytest.mark.parametrize(
    "call",
    [
        """'{"a": [["x", 1e400]]}', 'weighted'""",
        """'{"a": [["x", 1e-400]]}', 'weighted'""",
        """'{"a": [["x", 1e300], ["y", -1e300]]}', 'dbsf'""",
        """'{"a": [["x", 1]]}', 'rrf', '{"a": 1e400}'""",
    ],
)
def test_numbers_beyond_what_can_be_computed(plain: Connection, call: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        plain.execute(f"SELECT * FROM pgvec.fuse({call})".encode())
    assert caught.value.sqlstate == "PV005"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_ten_thousand_each(plain: Connection, fusion: str) -> None:
    plain.execute("SET statement_timeout = '10s'")
    rankings: Rankings = {
        leg: [(str((n * step) % 20011), 1 / (n + 1)) for n in range(10_000)] for leg, step in (("one", 3), ("two", 7))
    }
    rows = fuse(plain, rankings, fusion)
    expected = fused(rankings, fusion)
    assert len(rows) == len(expected)
    assert [score for _, score, _, _ in rows] == pytest.approx(
        sorted((score for score, _ in expected.values()), reverse=True), rel=1e-6, abs=1e-9
    )
