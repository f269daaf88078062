"""Searches against brute force, their plans, and what they leave behind: nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.schema import migrate
from tests.conftest import random_vectors

K = 10
DISTANCES = ["cosine", "l2", "inner_product", "l1"]
Vectors = Callable[..., NDArray[np.float32]]


def distances_to(distance: str, query: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distances by the book, in double precision."""
    q, v = query.astype(np.float64), vectors.astype(np.float64)
    if distance == "cosine":
        return 1 - v @ q / (np.linalg.norm(v, axis=1) * np.linalg.norm(q))
    if distance == "l2":
        return np.sqrt(((v - q) ** 2).sum(axis=1))
    if distance == "inner_product":
        return -(v @ q)
    return np.abs(v - q).sum(axis=1)


def literal(vector: NDArray[Any]) -> str:
    return str(vector.tolist())


def without_seqscan(dsn: str) -> str:
    """A DSN for small tables, of which the planner would rather read everything."""
    return make_conninfo(dsn, options="-c enable_seqscan=off")


def load(database: Database, vectors: NDArray[Any], name: str = "docs", **options: Any) -> Collection:
    docs = database.create_collection(name, dimensions=vectors.shape[1], **options)
    docs.upsert({"id": [str(number) for number in range(len(vectors))], "vector": vectors})
    return docs


def ids(hits: list[Any]) -> list[int]:
    return [int(hit.id) for hit in hits]


# -- the right rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", DISTANCES)
def test_search_equals_brute_force(dsn: str, vectors: Vectors, distance: str) -> None:
    scale = np.random.default_rng(1).uniform(0.5, 2, size=(600, 1)).astype(np.float32)
    stored, queries = vectors(600, 16) * scale, vectors(6, 16, seed=2)
    with Database(without_seqscan(dsn)) as database:
        docs = load(database, stored, distance=distance)
        for method, options in ((None, {}), ("hnsw", {"m": 32}), ("ivfflat", {"lists": 8})):
            if method == "ivfflat" and distance == "l1":
                with pytest.raises(ConfigurationError, match="hnsw"):
                    docs.create_index("ivfflat")
                break
            if method is not None:
                docs.drop_index()
                docs.create_index(method, **options)
                assert by_index(explain(docs, queries[0], None, ef_search=1000), docs.indexes()[0].name)
            for query in queries:
                truth = distances_to(distance, query, stored)
                hits = docs.search(query, K, ef_search=1000)
                assert ids(hits) == np.argsort(truth)[:K].tolist(), method
                np.testing.assert_allclose([hit.distance for hit in hits], np.sort(truth)[:K], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_what_a_hit_says(db: Database, distance: str) -> None:
    docs = db.create_collection(
        "docs", dimensions=2, distance=distance, columns={"section": str, "year": int, "tags": list}
    )
    docs.upsert(
        [
            {
                "id": "a",
                "text": "one",
                "vector": [1, 0],
                "section": "x",
                "year": 2020,
                "tags": ["t"],
                "metadata": {"colour": "red", "n": None},
            },
            {"id": "b", "document_id": "B", "vector": [0.6, 0.8], "section": None, "deep": {"er": [1, None]}},
            {"id": "c", "vector": [-1, 0.5]},
        ]
    )
    query = np.asarray([2, 0.5])
    hits = docs.search(query, 3)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    similarity = {
        "cosine": lambda distance: 1 - distance,
        "inner_product": lambda distance: -distance,
    }.get(distance, lambda distance: 1 / (1 + distance))
    for hit in hits:
        assert hit.similarity == pytest.approx(similarity(hit.distance))
        assert hit.score == hit.similarity
        assert hit.to_dict()["id"] == hit.id
    by_id = {hit.id: hit for hit in hits}
    assert by_id["a"].metadata == {"section": "x", "year": 2020, "tags": ["t"], "colour": "red", "n": None}
    assert by_id["b"].metadata == {"deep": {"er": [1, None]}}
    assert (by_id["a"].text, by_id["b"].text) == ("one", None)
    assert (by_id["a"].document_id, by_id["b"].document_id) == ("a", "B")


def test_three_ways_one_answer(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    stored, query = vectors(300, 8), vectors(1, 8, seed=9)[0]
    docs = db.create_collection("docs", dimensions=8, columns={"half": bool})
    docs.upsert({"id": str(n), "vector": v, "half": n % 2 == 0, "n": n, "text": f"t{n}"} for n, v in enumerate(stored))
    wheres: list[Any] = [None, {"half": True}, {"half": {"$in": [True]}, "$not": {"n": {"$lt": 20}}}]
    for make_index in (lambda: None, docs.create_index):
        make_index()
        for where in wheres:
            by_python = [tuple(hit.to_dict().values()) for hit in docs.search(query, 7, where)]
            by_function = connection.execute(
                "SELECT * FROM pgvec.search('docs', %s, 7, %s)", [literal(query), where and Jsonb(where)]
            ).fetchall()
            prepare(connection, docs.search_sql(7, where), where)
            by_psql = connection.execute(f"EXECUTE wanted ({arguments(query, where)})".encode()).fetchall()
            connection.execute("DEALLOCATE wanted")
            assert len(by_python) == 7
            assert by_python == by_function == by_psql


def test_more_neighbours_than_rows(db: Database, vectors: Vectors) -> None:
    docs = load(db, vectors(25, 4))
    for prepare_index in (lambda: None, docs.create_index):
        prepare_index()
        for k in (24, 25, 26, 500, 10_000):
            assert len({hit.id for hit in docs.search(vectors(1, 4, seed=2)[0], k)}) == min(k, 25)


def test_an_empty_collection(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=4, columns={"year": int})
    for prepare_index in (lambda: None, docs.create_index):
        prepare_index()
        assert docs.search([1, 0, 0, 0]) == []
        assert docs.search([1, 0, 0, 0], where={"year": 1}) == []
        assert docs.search([1, 0, 0, 0], exact=True) == []


def test_what_cannot_be_searched_for_is_refused(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=2)
    for k in (0, -1, 10_001):
        with pytest.raises(ConfigurationError, match="k must be from 1"):
            docs.search([1, 0], k)
    with pytest.raises(ConfigurationError, match="ef_search"):
        docs.search([1, 0], ef_search=0)
    queries: list[Any] = [[1.0], [1, 0, 0], [[1, 0]], [float("nan"), 0], [float("inf"), 0], [0, 0]]
    for query in queries:
        with pytest.raises(ConfigurationError, match="query vector"):
            docs.search(query)


def test_many_typed_columns(db: Database) -> None:
    columns = {f"c{number}": int for number in range(120)}
    docs = db.create_collection("docs", dimensions=2, columns=columns)
    row = {name: number for number, name in enumerate(columns) if number % 7}
    docs.upsert([{"id": "a", "vector": [1, 0], **row}])
    assert docs.search([1, 0])[0].metadata == row
    assert docs.search([1, 0], where={"c118": 118})[0].id == "a"


def test_two_collections_in_two_schemas(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    connection.execute('CREATE SCHEMA "Other one"')
    stored = vectors(100, 4)
    here = load(db, stored, "here")
    there = load(db, -stored, "there", schema="Other one", distance="l2")
    for docs in (here, there):
        docs.create_index()
    assert ids(here.search(stored[3], 1)) == [3]
    assert ids(there.search(-stored[4], 1)) == [4]
    assert there.search(-stored[4], 1)[0].distance == 0
    assert there.recall(k=5).recall == 1


def test_a_collection_that_is_dropped_and_made_anew(db: Database, vectors: Vectors) -> None:
    docs = load(db, vectors(50, 4), columns={"year": int})
    assert docs.search(vectors(1, 4)[0], where={"year": {"$exists": False}})
    db.drop_collection("docs")
    load(db, vectors(3, 4), columns={"section": str})
    assert len(docs.search(vectors(1, 4)[0], where={"year": {"$exists": False}})) == 3


def test_what_changes_is_seen_by_the_next_search(db: Database, vectors: Vectors) -> None:
    docs = load(db, vectors(200, 4))
    docs.create_index()
    query = vectors(1, 4, seed=5)[0]
    first = docs.search(query, 1)[0].id
    assert docs.delete([first]) == 1
    assert first not in {hit.id for hit in docs.search(query, 200)}
    docs.upsert([{"id": "new", "vector": query}])
    assert docs.search(query, 1)[0].id == "new"
    docs.upsert([{"id": "new", "vector": -query}])
    assert docs.search(query, 1)[0].id != "new"


# -- settings --------------------------------------------------------------------------------------


def setting(connection: psycopg.Connection[Any], name: str = "hnsw.ef_search") -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_ef_search_reaches_the_scan(dsn: str) -> None:
    random = np.random.default_rng(0)
    stored, queries = random.normal(size=(2, 3000, 32)).astype(np.float32)
    with Database(without_seqscan(dsn)) as database:
        docs = load(database, stored, distance="l2")
        docs.create_index(m=4, ef_construction=8)
        truth = [set(np.argsort(distances_to("l2", query, stored))[:K].tolist()) for query in queries[:40]]

        def recall(**options: Any) -> float:
            found = [set(ids(docs.search(query, K, **options))) for query in queries[:40]]
            return float(np.mean([len(a & b) / K for a, b in zip(truth, found, strict=True)]))

        few, many = recall(ef_search=1), recall(ef_search=800)
        assert few + 0.3 < many
        assert recall(exact=True) == 1
        assert recall(ef_search=1) == few  # the wide search left nothing behind


def test_settings_end_with_the_transaction(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    load(db, vectors(100, 4)).create_index()
    defaults = [("hnsw.ef_search", "40"), ("hnsw.iterative_scan", "off")]
    search = "SELECT count(*) FROM pgvec.search('docs', '[1,0,0,0]', 5, ef_search => 123)"
    connection.execute("LOAD 'vector'")
    connection.execute(search)
    assert [(name, setting(connection, name)) for name, _ in defaults] == defaults
    with connection.transaction():
        connection.execute(search)
        assert setting(connection) == "123"
        assert setting(connection, "hnsw.iterative_scan") == "relaxed_order"
    assert [(name, setting(connection, name)) for name, _ in defaults] == defaults


def test_settings_do_not_leak_from_pooled_connections(dsn: str, vectors: Vectors) -> None:
    with Database(dsn) as database:
        load(database, vectors(100, 4)).create_index()
    with Database(dsn, max_size=1) as database:
        docs = database.collection("docs")
        for _ in range(7):
            docs.search([1, 0, 0, 0], 5, ef_search=77)
        with database.connection() as connection:
            assert setting(connection) == "40"
            assert setting(connection, "hnsw.iterative_scan") == "off"


def test_what_the_session_had_set_is_back_afterwards(
    db: Database, connection: psycopg.Connection, vectors: Vectors
) -> None:
    load(db, vectors(100, 4)).create_index()
    connection.execute("LOAD 'vector'")
    connection.execute("SET hnsw.ef_search = 99")
    connection.execute("SELECT count(*) FROM pgvec.search('docs', '[1,0,0,0]', ef_search => 7)")
    assert setting(connection) == "99"


def test_a_search_inside_the_callers_transaction(
    db: Database, connection: psycopg.Connection, vectors: Vectors
) -> None:
    load(db, vectors(100, 4)).create_index()
    search = "SELECT id FROM pgvec.search('docs', '[9,9,9,9]', 1)"
    with connection.transaction(force_rollback=True):
        row = connection.execute("INSERT INTO docs (id, document_id) VALUES ('mine', 'mine') RETURNING key").fetchone()
        assert row is not None
        connection.execute("INSERT INTO docs_dense VALUES (%s, '[9,9,9,9]')", row)
        assert connection.execute(search).fetchone() == ("mine",)
    assert connection.execute(search).fetchone() != ("mine",)


def test_a_read_only_transaction(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    load(db, vectors(100, 4), columns={"year": int}).create_index()
    connection.execute("SET default_transaction_read_only = on")
    for arguments in ("", ", 3", ", 3, '{\"year\": null}'", ", exact => true"):
        assert connection.execute(f"SELECT * FROM pgvec.search('docs', '[1,0,0,0]'{arguments})").fetchall()
    assert connection.execute("SELECT recall FROM pgvec.recall('docs', queries => 5)").fetchone() == (1.0,)


# -- search_path -----------------------------------------------------------------------------------

DECOYS = """
CREATE SCHEMA decoy;
SET search_path = decoy, pg_catalog;
CREATE FUNCTION decoy.boom() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'decoy called'; END$$;
CREATE FUNCTION decoy.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT decoy.boom()::text';
CREATE FUNCTION decoy.concat(text) RETURNS text LANGUAGE sql AS 'SELECT decoy.boom()::text';
CREATE FUNCTION decoy.concat(text, text) RETURNS text LANGUAGE sql AS 'SELECT decoy.boom()::text';
CREATE FUNCTION decoy.jsonb_exists(jsonb, text) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.jsonb_strip_nulls(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT decoy.boom()::text::jsonb';
CREATE FUNCTION decoy.boom2(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.boom2(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.boom2(jsonb, jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.boom2({vector}, {vector}) RETURNS float8 LANGUAGE sql AS 'SELECT decoy.boom()::int::float8';
CREATE OPERATOR decoy.= (LEFTARG = text, RIGHTARG = text, FUNCTION = decoy.boom2);
CREATE OPERATOR decoy.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = decoy.boom2);
CREATE OPERATOR decoy.@> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = decoy.boom2);
CREATE OPERATOR decoy.<=> (LEFTARG = {vector}, RIGHTARG = {vector}, FUNCTION = decoy.boom2);
CREATE TABLE decoy.docs (key bigint);
CREATE TABLE decoy.docs_dense (key bigint);
"""


def vector_schema(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT pgvec._vector_schema()::text").fetchone()
    assert row is not None
    return str(row[0])


def test_any_search_path_does(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    stored = vectors(300, 4)
    docs = db.create_collection("docs", dimensions=4, columns={"section": str})
    docs.upsert(
        {"id": str(n), "vector": v, "section": "even" if n % 2 == 0 else "odd", "n": n} for n, v in enumerate(stored)
    )
    docs.create_index()
    connection.execute(DECOYS.replace("{vector}", f"{vector_schema(connection)}.vector").encode())
    for path in ("", "decoy, pg_catalog", "pg_temp", "nowhere"):
        connection.execute("SELECT pg_catalog.set_config('search_path', %s, false)", [path])
        query = "SELECT id FROM pgvec.search('docs', %s, 1, %s)"
        assert connection.execute(query, [literal(stored[8]), None]).fetchone() == ("8",)
        for where in ({"section": "even"}, {"n": {"$exists": True}}, {"n": 8}, {"n": {"$gt": 7}}, {"id": "8"}):
            assert connection.execute(query, [literal(stored[8]), Jsonb(where)]).fetchone() == ("8",)
        row = connection.execute("SELECT recall FROM pgvec.recall('docs', queries => 10)").fetchone()
        assert row == (1.0,)


@pytest.mark.parametrize("path", ["public", ""])
def test_the_extension_may_live_in_any_schema(empty_dsn: str, vectors: Vectors, path: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ext")
        connection.execute("CREATE EXTENSION vector SCHEMA ext")
    migrate.upgrade(empty_dsn)
    stored = vectors(500, 8)
    with Database(make_conninfo(empty_dsn, options=f"-c search_path={path.replace(' ', '')}")) as database:
        docs = load(database, stored, columns={"year": int})
        docs.create_index()
        assert ids(docs.search(stored[3], 1)) == [3]
        assert ids(docs.search(stored[3], 1, {"year": None})) == [3]
        assert docs.tune(0.9).recall >= 0.9
        assert docs.recall().recall > 0.9
        assert docs.recall(queries=stored[:30]).recall > 0.9
        docs.upsert([{"id": "3", "vector": -stored[3]}])
        assert ids(docs.search(-stored[3], 1)) == [3]


# -- 20,000 rows, for plans and for starvation -----------------------------------------------------

ROWS, DIMENSIONS, FAR = 20_000, 16, 4_000


@dataclass
class Big:
    """A collection that is large enough for the planner to want its index; max_size is 1: one session for all."""

    docs: Collection
    dsn: str
    vectors: NDArray[np.float32]
    anchor: NDArray[np.float32]
    slot: NDArray[np.int64]
    farness: NDArray[np.int64]


@pytest.fixture(scope="module")
def big(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Big]:
    stored = random_vectors(ROWS, DIMENSIONS)
    anchor = stored[0]
    random = np.random.default_rng(4)
    slot = random.permutation(ROWS)
    farness = np.empty(ROWS, dtype=np.int64)
    farness[np.argsort(distances_to("cosine", anchor, stored), kind="stable")] = np.arange(ROWS)
    with janitor("t_search_big", template):
        dsn = make_conninfo(server_dsn, dbname="t_search_big")
        with Database(dsn) as database:
            docs = database.create_collection("docs", dimensions=DIMENSIONS, columns={"slot": int, "farness": int})
            docs.upsert(
                {
                    "id": [str(number) for number in range(ROWS)],
                    "vector": stored,
                    "slot": slot.tolist(),
                    "farness": farness.tolist(),
                    "metadata": [{"slot": int(number), "few": int(number) // 40} for number in slot],
                }
            )
            docs.create_index()
        with Database(dsn, max_size=1) as database:
            yield Big(database.collection("docs"), dsn, stored, anchor, slot, farness)


def prepare(connection: psycopg.Connection[Any], text: str, where: Any) -> None:
    types = f"{vector_schema(connection)}.vector" + ("" if where is None else ", jsonb")
    connection.execute(f"PREPARE wanted ({types}) AS {text}".encode())


def arguments(query: NDArray[Any], where: Any) -> str:
    return f"'{literal(query)}'" + ("" if where is None else f", '{json.dumps(where)}'")


def explain(docs: Collection, query: NDArray[Any], where: Any, *, mode: str = "auto", **options: Any) -> dict[str, Any]:
    """Run the statement of a search in psql's way, and return its plan as it went."""
    with docs._database.dedicated_connection() as connection:
        row = connection.execute(
            "SELECT pgvec.search_sql(%s, %s, %s, ef_search => %s::integer)",
            [docs.name, K, where and Jsonb(where), options.get("ef_search")],
        ).fetchone()
        assert row is not None
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        prepare(connection, row[0], where)
        row = connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE wanted ({arguments(query, where)})".encode()
        ).fetchone()
        assert row is not None
        return dict(row[0][0]["Plan"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def by_index(plan: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [node for node in nodes(plan) if node.get("Index Name") == name]


def exact_loops(plan: dict[str, Any]) -> int:
    """Return how often vectors were looked up by key, which only the exact branches do."""
    return sum(int(node["Actual Loops"]) for node in by_index(plan, "docs_dense_pkey"))


MODES = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])


@MODES
def test_an_unfiltered_search_uses_the_index(big: Big, mode: str) -> None:
    plan = explain(big.docs, big.anchor, None, mode=mode)
    [scan] = by_index(plan, "docs_dense_hnsw")
    assert scan["Actual Loops"] == 1
    assert scan["Actual Rows"] == K
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Actual Loops"]]


@MODES
@pytest.mark.parametrize("where", [None, {"slot": {"$lt": 100}}, {"slot": {"$lt": 15_000}}, {"few": 7}])
def test_no_parallel_workers_are_planned(big: Big, mode: str, where: Any) -> None:
    with psycopg.connect(big.dsn, autocommit=True) as connection:
        connection.execute("ALTER DATABASE t_search_big SET parallel_setup_cost = 0")
        connection.execute("ALTER DATABASE t_search_big SET parallel_tuple_cost = 0")
        connection.execute("ALTER DATABASE t_search_big SET min_parallel_table_scan_size = 0")
    try:
        plan = explain(big.docs, big.anchor, where, mode=mode)
    finally:
        with psycopg.connect(big.dsn, autocommit=True) as connection:
            connection.execute("ALTER DATABASE t_search_big RESET ALL")
    assert not [node for node in nodes(plan) if node["Node Type"].startswith("Gather") or "Workers Planned" in node]


@MODES
def test_few_matches_never_touch_the_vector_index(big: Big, mode: str) -> None:
    plan = explain(big.docs, big.anchor, {"slot": {"$lt": 200}}, mode=mode)
    assert [node["Actual Loops"] for node in by_index(plan, "docs_dense_hnsw")] == [0]
    assert exact_loops(plan) > 0


@MODES
def test_many_matches_are_scanned_and_not_sorted(big: Big, mode: str) -> None:
    plan = explain(big.docs, big.anchor, {"slot": {"$lt": 15_000}}, mode=mode)
    assert [node["Actual Loops"] for node in by_index(plan, "docs_dense_hnsw")] == [1]
    assert exact_loops(plan) == 0
    for node in nodes(plan):
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "docs_dense":
            assert node["Actual Loops"] == 0


@MODES
@pytest.mark.parametrize("where", [{"slot": {"$lt": 150}}, {"slot": 77}, {"slot": {"$in": [1, 2, 3]}}])
def test_a_typed_column_is_an_index_condition(big: Big, mode: str, where: Any) -> None:
    plan = explain(big.docs, big.anchor, where, mode=mode)
    scans = [node for node in nodes(plan) if "slot" in node.get("Index Cond", "") and node["Actual Loops"]]
    # Once to count the matches up to the gate, once to sort them.
    assert [node["Index Name"] for node in scans] == ["docs_slot_key_idx"] * 2
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "docs"]


@MODES
@pytest.mark.parametrize("where", [{"few": 7}, {"few": {"$eq": 7}}, {"$and": [{"few": 7}, {"slot": {"$gte": 0}}]}])
def test_metadata_equality_uses_the_gin_index(big: Big, mode: str, where: Any) -> None:
    plan = explain(big.docs, big.anchor, where, mode=mode)
    used = {
        node["Index Name"] for node in nodes(plan) if "metadata" in node.get("Index Cond", "") and node["Actual Loops"]
    }
    assert used == {"docs_metadata_idx"}


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Big], NDArray[np.bool_]]]] = {
    "50 %": ({"slot": {"$lt": 10_000}}, lambda big: big.slot < 10_000),
    "20 %": ({"slot": {"$lt": 4_000}}, lambda big: big.slot < 4_000),
    "10 %": ({"slot": {"$lt": 2_000}}, lambda big: big.slot < 2_000),
    "1 %": ({"slot": {"$lt": 200}}, lambda big: big.slot < 200),
    "0.1 %": ({"slot": {"$lt": 20}}, lambda big: big.slot < 20),
    "7 rows": ({"slot": {"$in": [1, 2, 3, 5, 8, 13, 21]}}, lambda big: np.isin(big.slot, [1, 2, 3, 5, 8, 13, 21])),
    "1 row": ({"slot": 5}, lambda big: big.slot == 5),
    "0 rows": ({"slot": -5}, lambda big: big.slot < 0),
    "far away": ({"farness": {"$gte": ROWS - FAR}}, lambda big: big.farness >= ROWS - FAR),
    "far away, few": ({"farness": {"$gte": ROWS - 50}}, lambda big: big.farness >= ROWS - 50),
    "near by": ({"farness": {"$lt": FAR}}, lambda big: big.farness < FAR),
    "not the nearest": ({"$not": {"farness": {"$lt": 500}}}, lambda big: big.farness >= 500),
    "metadata": ({"few": {"$lt": 250}}, lambda big: big.slot // 40 < 250),
    "metadata, few": ({"few": 3}, lambda big: big.slot // 40 == 3),
}


@pytest.mark.parametrize("through", ["python", "sql"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filtered_search_never_starves(big: Big, name: str, through: str) -> None:
    where, matching = FILTERS[name]
    mask = matching(big)
    near_anchor = big.anchor + 0.05 * np.random.default_rng(6).normal(size=(7, DIMENSIONS)).astype(np.float32)
    # About the anchor is what "far" and "near" are about; the others come from anywhere.
    queries = np.concatenate([near_anchor, random_vectors(7, DIMENSIONS, seed=8)])
    shares = []
    for query in queries:  # more than 5 + 5 times: by then everything is prepared, and its plan generic
        if through == "python":
            hits = big.docs.search(query, K, where)
            found = np.asarray([hit.distance for hit in hits])
            assert all(mask[int(hit.id)] for hit in hits)
        else:
            with big.docs._database.connection() as connection:
                rows = connection.execute(
                    "SELECT distance, id FROM pgvec.search('docs', %s, %s, %s)", [literal(query), K, Jsonb(where)]
                ).fetchall()
            found = np.asarray([distance for distance, _ in rows])
            assert all(mask[int(id)] for _, id in rows)
        truth = np.sort(distances_to("cosine", query, big.vectors[mask]))[:K]
        assert len(found) == len(truth) == min(K, int(mask.sum()))
        if len(truth):
            shares.append((found <= truth[-1] + 1e-6).mean())
    assert not shares or np.mean(shares) >= 0.95


@pytest.mark.parametrize("k", [1, 100, 1000])
@pytest.mark.parametrize("name", ["50 %", "1 %", "far away"])
def test_a_filtered_search_for_another_number(big: Big, name: str, k: int) -> None:
    where, matching = FILTERS[name]
    mask = matching(big)
    hits = big.docs.search(big.anchor, k, where)
    assert len({hit.id for hit in hits}) == len(hits) == min(k, int(mask.sum()))
    truth = np.sort(distances_to("cosine", big.anchor, big.vectors[mask]))[:k]
    assert np.mean([hit.distance <= truth[-1] + 1e-6 for hit in hits]) >= 0.95


@pytest.mark.parametrize("where", [{"kind": "common"}, {"kind": "rare"}])
def test_deleted_rows_and_rows_without_vector_do_not_count(
    db: Database, connection: psycopg.Connection, vectors: Vectors, where: dict[str, str]
) -> None:
    stored = vectors(6000, 8)
    docs = db.create_collection("docs", dimensions=8, columns={"kind": str})
    kinds = ["rare" if number % 100 == 0 else "common" for number in range(6000)]
    docs.upsert({"id": [str(number) for number in range(6000)], "vector": stored, "kind": kinds})
    docs.create_index()
    query = stored[0]
    order = np.argsort(distances_to("cosine", query, stored))
    gone = order[:3000].tolist()  # the nearest half, of either kind: deleted, or robbed of its vector
    connection.execute("DELETE FROM docs WHERE id = ANY (%s)", [[str(number) for number in gone[:1500]]])
    connection.execute(
        "DELETE FROM docs_dense v USING docs d WHERE d.key = v.key AND d.id = ANY (%s)",
        [[str(number) for number in gone[1500:]]],
    )
    left = [number for number in order[3000:].tolist() if kinds[number] == where["kind"]]
    for _ in range(12):
        assert ids(docs.search(query, K, where, ef_search=400)) == left[:K]
    assert len(docs.search(query, 4000, where)) == len(left)


def test_dead_rows_do_not_shorten_a_search(db: Database, connection: psycopg.Connection) -> None:
    """Without VACUUM the nearest of an index scan are rows that are gone; it goes on until it has k."""
    docs = db.create_collection("docs", dimensions=8)
    stored = random_vectors(6000, 8, seed=4)
    connection.execute("ALTER TABLE docs_dense SET (autovacuum_enabled = off)")
    docs.upsert({"id": list(range(6000)), "vector": stored})
    docs.create_index("hnsw", m=8, ef_construction=32)
    nearest = np.argsort(1 - stored @ stored[0])[:5000]
    connection.execute("DELETE FROM docs WHERE id = ANY (%s)", [[str(row) for row in nearest]])
    assert len(docs.search(stored[0], k=10)) == 10
    assert len(docs.search(stored[0], k=500)) == 500


def test_a_statement_made_before_there_was_an_index_stays_exact(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=8)
    stored = random_vectors(3000, 8, seed=5)
    docs.upsert({"id": list(range(3000)), "vector": stored})
    assert len(docs.search(stored[0], k=100)) == 100
    db.collection("docs").create_index()
    assert len(docs.search(stored[0], k=100)) == 100
