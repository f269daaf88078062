"""Hybrid search is what fusing the searches of its legs gives, by SQL and from Python."""

from __future__ import annotations

import random
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
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError
from tests.conftest import random_vectors
from tests.integration.test_fusion import FUSIONS, Rankings, fused

Connection = psycopg.Connection[Any]
ROWS, DIMENSIONS = 800, 8
RANDOM = random.Random(3)
WORDS = [f"w{n}" for n in range(60)]
SECTIONS = [f"s{row % 4}" for row in range(ROWS)]
SPACES = {"dense": "vector", "half": "halfvec", "bits": "bit", "sparse": "sparsevec"}


def vectors_of(type: str, count: int, seed: int) -> Any:
    """Make vectors of a type, as Python takes them."""
    plain = random_vectors(count, DIMENSIONS, seed)
    if type == "bit":
        return plain > 0
    if type == "sparsevec":
        return [{int(at): float(row[at]) for at in np.argsort(-np.abs(row))[:3]} for row in plain]
    return plain


@dataclass
class Legs:
    """A collection with spaces of several types; a plain connection; and a query of each leg."""

    docs: Collection
    plain: Connection
    queries: list[dict[str, Any]]


@pytest.fixture(scope="module", params=["indexed", "plain"])
def legs(request: pytest.FixtureRequest, server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Legs]:
    name = f"t_hybrid_{request.param}"
    with janitor(name, template):
        dsn = make_conninfo(server_dsn, dbname=name)
        with Database(dsn, max_size=2) as database, psycopg.connect(dsn, autocommit=True) as plain:
            docs = database.create_collection("docs", dimensions=DIMENSIONS, columns={"section": str, "n": int})
            ids = [str(row) for row in range(ROWS)]
            docs.upsert(
                {
                    "id": ids,
                    "text": [" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, 20))) for _ in ids],
                    "section": SECTIONS,
                    "n": list(range(ROWS)),
                    "vector": vectors_of("vector", ROWS, 0),
                }
            )
            for seed, space in enumerate(("half", "bits", "sparse"), start=1):
                docs.add_space(space, dimensions=DIMENSIONS, type=SPACES[space])
                there = ids[: 600 if space == "half" else ROWS]
                docs.set_vectors(space, there, vectors_of(SPACES[space], len(there), seed))
            if request.param == "indexed":
                for space in SPACES:
                    docs.create_index(space=space, m=48, ef_construction=400)  # exact at any depth
            asked = {space: vectors_of(type, 12, 99) for space, type in SPACES.items()}
            queries = [{space: each[n] for space, each in asked.items()} for n in range(12)]
            for query in queries:
                query["keyword"] = " ".join(RANDOM.sample(WORDS, 3))
            yield Legs(docs, plain, queries)


def bound(docs: Collection, space: str, query: Any) -> Any:
    return docs._query(query, space)


def rankings(legs: Legs, queries: dict[str, Any], depths: dict[str, int], where: Any, options: Any) -> Rankings:
    """Search each leg on its own."""
    found: Rankings = {}
    for leg, query in queries.items():
        if leg == "keyword":
            hits = legs.docs.keyword_search(query, depths[leg], where, **options)
        else:
            common = {name: value for name, value in options.items() if name not in ("k1", "b")}
            hits = legs.docs.search(query, depths[leg], where, space=leg, ef_search=1000, **common)
        found[leg] = [(hit.id, float(hit.score or 0)) for hit in hits]
    return found


def check(hits: list[Any], expected: dict[str, tuple[float, dict[str, Any]]], k: int) -> None:
    """Assert that hits are the k best of what was fused; where scores are equal, any are."""
    best = sorted((score for score, _ in expected.values()), reverse=True)[:k]
    assert [hit.score for hit in hits] == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    for hit in hits:
        total, parts = expected[hit.id]
        assert hit.score == pytest.approx(total, rel=1e-6, abs=1e-9)
        assert hit.legs.keys() == parts.keys()
        for leg, part in parts.items():
            assert {name: hit.legs[leg][name] for name in part} == pytest.approx(part, rel=1e-6, abs=1e-9)
        assert hit.score == pytest.approx(sum(each["contribution"] for each in hit.legs.values()))
        if "keyword" in parts:
            terms = hit.legs["keyword"]["terms"]
            assert sum(terms.values()) == pytest.approx(hit.legs["keyword"]["score"])


def literal(query: Any, type: str) -> str:
    if type == "bit":
        return "".join("1" if bit else "0" for bit in query)
    if type == "sparsevec":
        return str({at + 1: value for at, value in sorted(query.items())}) + f"/{DIMENSIONS}"
    return str(query.tolist())


CHOSEN = st.lists(st.sampled_from(["dense", "keyword", "half", "bits", "sparse"]), min_size=1, max_size=5, unique=True)
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(
    number=st.integers(0, 11),
    chosen=CHOSEN,
    fusion=st.sampled_from(FUSIONS),
    k=st.sampled_from([1, 3, 10, 40]),
    depth=st.one_of(
        st.sampled_from([1, 50, 100]),
        st.dictionaries(st.sampled_from(["dense", "keyword", "bits"]), st.integers(1, 60)),
    ),
    weights=st.dictionaries(st.sampled_from(["dense", "keyword", "half"]), st.sampled_from([0, 0.3, 2])),
    rrf_k=st.sampled_from([0, 60, 7.5]),
    section=st.sampled_from([None, "s1", "absent"]),
    least=st.one_of(st.none(), st.integers(0, ROWS)),
    exclude=st.one_of(st.none(), st.lists(st.integers(0, ROWS - 1).map(str), max_size=20)),
    k1=st.sampled_from([None, 0.5]),
)  # fmt: skip
def test_fuses_the_searches_of_its_legs(
    legs: Legs,
    number: int,
    chosen: list[str],
    fusion: str,
    k: int,
    depth: Any,
    weights: dict[str, float],
    rrf_k: float,
    section: str | None,
    least: int | None,
    exclude: list[str] | None,
    k1: float | None,
) -> None:
    queries = {leg: legs.queries[number][leg] for leg in chosen}
    weights = {leg: weight for leg, weight in weights.items() if leg in chosen}
    depth = {leg: each for leg, each in depth.items() if leg in chosen} if isinstance(depth, dict) else depth
    where = None if section is None else {"section": section}
    options: dict[str, Any] = {"exclude": exclude}
    if least is not None:
        options |= {"where_sql": "d.n >= ($3 ->> 'least')::int -- {n} %s", "parameters": {"least": least}}
    hits = legs.docs.hybrid_search(
        legs.queries[number]["keyword"], k, where, legs=chosen, queries=queries, fusion=fusion, weights=weights,
        depth=depth, rrf_k=rrf_k, k1=k1, **options,
    )  # fmt: skip
    depths = {leg: depth.get(leg, max(100, k)) if isinstance(depth, dict) else max(depth, k) for leg in chosen}
    keyword = {"k1": k1} if k1 is not None else {}
    alone = rankings(legs, queries, depths, where, options | keyword)
    # Of bits many are equally far, and which of them are within the depth is open.
    if len(alone.get("bits", ())) < depths.get("bits", 1):
        check(hits, fused(alone, fusion, weights, rrf_k), k)
    for hit in hits:
        row = int(hit.id)
        assert section in (None, SECTIONS[row])
        assert least is None or row >= least
        assert hit.id not in (exclude or ())
    given = {leg: query if leg == "keyword" else literal(query, SPACES[leg]) for leg, query in queries.items()}
    default = given.pop("dense", None)
    found = legs.plain.execute(
        "SELECT id, score, rank, legs, stopped_by FROM pgvec.hybrid_search('docs', NULL, %s::text, %s, %s, "
        "queries => %s, fusion => %s, weights => %s, depth => %s, depths => %s, rrf_k => %s::float8, where_sql => %s, "
        "parameters => %s, exclude => %s::text[], k1 => %s::float8)",
        [
            default, k, None if where is None else Jsonb(where), Jsonb(given), fusion, Jsonb(weights),
            100 if isinstance(depth, dict) else depth, Jsonb(depth) if isinstance(depth, dict) else None, rrf_k,
            options.get("where_sql"), Jsonb(options.get("parameters")), exclude, k1,
        ],
    ).fetchall()  # fmt: skip
    assert [id for id, *_ in found] == [hit.id for hit in hits]
    assert [row[1] for row in found] == pytest.approx([hit.score for hit in hits], rel=1e-9, abs=1e-12)
    assert {row[4] for row in found} <= {hits.stopped_by}


def test_prepared_and_run_with_other_values(legs: Legs) -> None:
    text = legs.docs.hybrid_search_sql(7, {"section": "s0"}, legs=["keyword", "dense", "half"], fusion="relative")
    legs.plain.execute(f"PREPARE hybrid (text, jsonb, jsonb, text[], jsonb, vector, halfvec) AS {text}".encode())
    try:
        for number in range(12):
            queries = {leg: legs.queries[number][leg] for leg in ("keyword", "dense", "half")}
            section, weights = {"section": f"s{number % 4}"}, {"keyword": number / 4}
            values = [queries["keyword"], Jsonb(section), None, None, Jsonb(weights)]
            vectors = [str(queries[leg].tolist()) for leg in ("dense", "half")]
            with psycopg.ClientCursor(legs.plain) as cursor:
                found = cursor.execute("EXECUTE hybrid (%s, %s, %s, %s, %s, %s, %s)", [*values, *vectors]).fetchall()
            hits = legs.docs.hybrid_search(
                queries["keyword"], 7, section, legs=list(queries), queries=queries, weights=weights, fusion="relative"
            )
            assert [row[0] for row in found] == [hit.id for hit in hits]
            assert [row[4] for row in found] == pytest.approx([hit.score for hit in hits])
            assert len(hits) == 7
    finally:
        legs.plain.execute("DEALLOCATE hybrid")


def sql_refused(connection: Connection, arguments: str, message: str, state: str = "PV005") -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        connection.execute(f"SELECT * FROM pgvec.hybrid_search('docs'{arguments})".encode())
    assert caught.value.sqlstate == state


V = ", '[1,0,0,0,0,0,0,0]'"


@pytest.mark.parametrize(
    ("arguments", "message", "state"),
    [
        ("", "the search has no leg", "PV005"),
        (", NULL, NULL", "the search has no leg", "PV005"),
        (", queries => '{}'", "the search has no leg", "PV005"),
        (", queries => 'null'", "the search has no leg", "PV005"),
        (", ' '", "the query is empty", "PV005"),
        (", ' '" + V, "the query is empty", "PV005"),
        (', queries => \'{"keyword": " "}\'', "the query is empty", "PV005"),
        (", queries => '{\"keyword\": null}'", "the query is empty", "PV005"),
        (", queries => '[1]'", "queries is a JSON object", "PV005"),
        (", queries => '{\"half\": null}'", "the query is NULL", "PV005"),
        (', queries => \'{"absent": "[1]"}\'', "no vector space 'absent'", "PV001"),
        (", 'w1', queries => '{\"keyword\": \"w2\"}'", "a leg is given twice", "PV005"),
        (", NULL" + V + ', queries => \'{"dense": "[1,0,0,0,0,0,0,0]"}\'', "a leg is given twice", "PV005"),
        (", 'w1', '[1,2]'", "the query has 2 dimensions, vector space 'dense' has 8", "PV005"),
        (", 'w1', '[0,0,0,0,0,0,0,0]'", "the query is zero", "PV005"),
        (", 'w1', 'word'", "cannot be read as a vector", "PV005"),
        (", 'w1', fusion => 'best'", "unknown fusion 'best'", "PV005"),
        (", 'w1', fusion => NULL", "unknown fusion NULL", "PV005"),
        (", 'w1', weights => '{\"dense\": 1}'", "weight for 'dense', which is no leg", "PV005"),
        (", 'w1', weights => '{\"keyword\": -1}'", "weight of 'keyword' must be a number", "PV005"),
        (", 'w1', weights => '1'", "weights is a JSON object", "PV005"),
        (", 'w1', rrf_k => -1", "rrf_k must be at least 0", "PV005"),
        (", 'w1', depth => 0", "depth of a leg must be from 1 to 10000", "PV005"),
        (", 'w1', depth => 20000", "depth of a leg must be from 1 to 10000", "PV005"),
        (", 'w1', depths => '{\"keyword\": 0}'", "depth of a leg must be from 1 to 10000", "PV005"),
        (", 'w1', depths => '{\"keyword\": 2.5}'", "depth of a leg must be from 1 to 10000", "PV005"),
        (", 'w1', depths => '{\"keyword\": 1e10}'", "depth of a leg must be from 1 to 10000", "PV005"),
        (", 'w1', depths => '{\"keyword\": \"5\"}'", "depths is a JSON object", "PV005"),
        (", 'w1', depths => '{\"dense\": 5}'", "depths is a JSON object", "PV005"),
        (", 'w1', depths => '[]'", "depths is a JSON object", "PV005"),
        (", 'w1', k => 0", "k must be from 1 to 10000", "PV005"),
        (", 'w1', k => NULL", "k must be from 1 to 10000", "PV005"),
        (", 'w1', k1 => -1", "k1 must be", "PV005"),
        (", 'w1', filter => '{\"n\": {\"$foo\": 1}}'", "unknown filter operator", "PV004"),
    ],
)
def test_what_sql_refuses(legs: Legs, arguments: str, message: str, state: str) -> None:
    sql_refused(legs.plain, arguments, message, state)


def test_what_sql_takes(legs: Legs) -> None:
    for arguments in (
        ", 'w1', depths => '{\"keyword\": 5.0}'", ", 'w1', depths => 'null', weights => 'null', filter => 'null'",
        ", 'w1', depth => NULL", ", 'w1 w2'" + V + ", weights => '{\"dense\": 0}', filter => '{\"section\": \"s1\"}'",
        ", queries => '{\"half\": [1,0,0,0,0,0,0,0]}'",
    ):  # fmt: skip
        rows = legs.plain.execute(f"SELECT id FROM pgvec.hybrid_search('docs'{arguments}, k => 5)".encode()).fetchall()
        assert len(rows) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"legs": []}, "needs a leg"),
        ({"legs": "keyword"}, "a list of names"),
        ({"legs": ["keyword"], "queries": {"half": [1]}}, "not among the legs"),
        ({"legs": ["keyword"], "weights": {"dense": 1}}, "a weight for 'dense'"),
        ({"legs": ["keyword"], "weights": {"keyword": float("nan")}}, "weight of keyword must be"),
        ({"legs": ["keyword"], "weights": {"keyword": -1}}, "weight of keyword must be"),
        ({"legs": ["keyword"], "depth": 0}, "the depth must be from 1"),
        ({"legs": ["keyword"], "depth": 20_000}, "depth must be from 1"),
        ({"legs": ["keyword"], "depth": {"keyword": 0}}, "depth of keyword must be from 1"),
        ({"legs": ["keyword"], "depth": {"dense": 5}}, "a depth for 'dense'"),
        ({"legs": ["keyword"], "fusion": "best"}, "unknown fusion 'best'"),
        ({"legs": ["keyword"], "queries": {"keyword": " "}}, "the query is empty"),
        ({"queries": {"dense": [1.0, 2.0]}}, "dimensions"),
        ({"legs": ["keyword"], "parameters": {"a": 1}}, "parameters are the values of where_sql"),
        ({"legs": ["keyword"], "where_sql": "d.absent = 1"}, "where_sql 'd.absent = 1': .*does not exist"),
    ],
)
def test_what_python_refuses(legs: Legs, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        legs.docs.hybrid_search("w1", **options)
    with pytest.raises(CollectionNotFound, match="absent"):
        legs.docs.hybrid_search("w1", legs=["absent"], queries={"absent": [1.0]})


# -- collections of their own ------------------------------------------------------------------------

U: NDArray[np.float32] = random_vectors(30, 2, 1)


def small(db: Database, **options: Any) -> Collection:
    docs = db.create_collection("docs", dimensions=2, **options)
    docs.upsert({"id": [str(row) for row in range(30)], "text": [f"row w{row % 5}" for row in range(30)], "vector": U})
    return docs


def test_no_keyword_index_and_spaces_for_rescoring(db: Database, connection: Connection) -> None:
    docs = small(db, keywords=False)
    sql_refused(connection, ", 'row', '[1,0]'", "has no keyword index")
    with pytest.raises(ConfigurationError, match="has no keyword index"):
        docs.hybrid_search("row", queries={"dense": U[0]})
    # Not blamed on text of the user's.
    with pytest.raises(ConfigurationError, match=r"^collection .* has no keyword index"):
        docs.hybrid_search("row", queries={"dense": U[0]}, where_sql="true")
    assert len(docs.hybrid_search("row", legs=["dense"], queries={"dense": U[0]})) == 10
    docs.create_keyword_index()
    hits = docs.hybrid_search("row", queries={"dense": U[0]})
    assert (len(hits), set(hits[0].legs)) == (10, {"dense", "keyword"})
    docs.add_space("tokens", dimensions=2, type="vector[]")
    sql_refused(connection, ", 'row', queries => '{\"tokens\": \"[1,0]\"}'", "no index orders them")


def test_dropped_and_made_again_between_searches(db: Database) -> None:
    docs = small(db, columns={"year": int})

    def ask() -> list[str]:
        return [hit.id for hit in docs.hybrid_search("w3", 30, queries={"dense": U[3]}, fusion="rrf")]

    first = ask()
    docs.create_index()
    assert ask() == first
    docs.drop_keyword_index()
    docs.create_keyword_index()
    assert ask() == first
    for options in ({"columns": {"month": int}}, {}, {"columns": {"year": str}}):
        db.drop_collection("docs")
        small(db, **options)
        assert ask() == first
        assert docs.hybrid_search("w3", queries={"dense": U[3]})[0].text == "row w3"


def test_vectors_without_direction_spoil_nothing(db: Database, connection: Connection) -> None:
    docs = small(db)
    expected = {
        fusion: [(hit.id, hit.score) for hit in docs.hybrid_search("w3", 30, queries={"dense": U[3]}, fusion=fusion)]
        for fusion in FUSIONS
    }
    connection.execute("INSERT INTO docs (id, document_id) VALUES ('zero', 'zero')")
    connection.execute("INSERT INTO docs_dense SELECT key, '[0,0]' FROM docs WHERE id = 'zero'")
    for fusion in FUSIONS:
        hits = docs.hybrid_search("w3", 31, queries={"dense": U[3]}, fusion=fusion)
        assert len(hits) == 31
        # Under dbsf even a score far below the mean adds less than nothing would.
        assert [(hit.id, hit.score) for hit in hits if hit.id != "zero"] == expected[fusion]
        (zero,) = (hit for hit in hits if hit.id == "zero")
        assert zero.legs["dense"].get("score") is None
        assert zero.score == pytest.approx(1 / 91 if fusion == "rrf" else 0)


def test_of_nothing(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=2)
    for fusion in FUSIONS:
        hits = docs.hybrid_search("row", queries={"dense": U[0]}, fusion=fusion)
        assert (hits, hits.stopped_by) == ([], "complete")
    assert docs.keyword_search("row") == []


def test_a_sparse_leg_finds_what_shares_a_term(db: Database) -> None:
    docs = small(db)
    docs.add_space("splade", dimensions=5, type="sparsevec", distance="inner_product")
    docs.set_vectors("splade", ["3", "7"], [{0: 1.0, 1: 1.0}, {2: 1.0}])
    for make_index in (lambda: None, lambda: docs.create_index(space="splade")):
        make_index()
        hits = docs.hybrid_search("row", legs=["splade"], queries={"splade": {1: 2.0}})
        assert [(hit.id, hit.legs["splade"]["score"]) for hit in hits] == [("3", 2.0)]
        assert hits.stopped_by == "complete"


def test_a_depth_that_cuts_a_search_short_is_said(db: Database) -> None:
    docs = small(db)
    hits = docs.hybrid_search("row", 10, legs=["keyword"], depth={"keyword": 3})
    assert (len(hits), hits.stopped_by) == (3, "depth")
    hits = docs.hybrid_search("w1", 10, legs=["keyword"], depth={"keyword": 8})
    assert (len(hits), hits.stopped_by) == (6, "complete")
