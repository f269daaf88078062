"""Searches against brute force: the right rows, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from tests.conftest import random_vectors
from tests.integration.search_oracle import (
    K,
    arguments,
    course,
    distances_to,
    explain,
    ids,
    literal,
    load,
    prepare,
    without_seqscan,
)

DISTANCES = ["cosine", "l2", "inner_product", "l1"]
Vectors = Callable[..., NDArray[np.float32]]


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
                assert course(explain(docs, queries[0], None, ef_search=1000), docs.indexes()[0].name).further == 1
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
            hits = docs.search(query, 7, where)
            by_python = [(*list(hit.to_dict().values())[:8], hits.stopped_by) for hit in hits]
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


@pytest.mark.parametrize("keys", [(-(2**63), 2**63 - 1), (1, 10**18), (-5, 0)])
def test_keys_of_ones_own(db: Database, connection: psycopg.Connection, keys: tuple[int, int]) -> None:
    """Who loads in SQL may number the rows as they like: by hashes or timestamps, for example."""
    docs = db.create_collection("docs", dimensions=4, columns={"year": int})
    for key in keys:
        connection.execute("INSERT INTO docs (key, id, document_id, year) VALUES (%s, %s, 'd', 1)", [key, str(key)])
        connection.execute("INSERT INTO docs_dense VALUES (%s, '[1,0,0,0]')", [key])
    docs.create_index()
    assert {int(hit.id) for hit in docs.search([1, 0, 0, 0], where={"year": 1})} == set(keys)


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


# -- rows that are gone, an index that comes later -------------------------------------------------


def test_deleted_rows_and_rows_without_vector_do_not_count(
    db: Database, connection: psycopg.Connection, vectors: Vectors
) -> None:
    rows = 3000
    stored = vectors(rows, 8)
    docs = db.create_collection("docs", dimensions=8, columns={"kind": str})
    kinds = ["rare" if number % 100 == 0 else "common" for number in range(rows)]
    docs.upsert({"id": [str(number) for number in range(rows)], "vector": stored, "kind": kinds})
    docs.create_index()
    query = stored[0]
    order = np.argsort(distances_to("cosine", query, stored)).tolist()
    gone, there = order[: rows // 2], order[rows // 2 :]  # the nearest half, of either kind, is deleted or robbed
    connection.execute("DELETE FROM docs WHERE id = ANY (%s)", [[str(number) for number in gone[::2]]])
    connection.execute(
        "DELETE FROM docs_dense v USING docs d WHERE d.key = v.key AND d.id = ANY (%s)",
        [[str(number) for number in gone[1::2]]],
    )
    for kind in ("common", "rare"):
        left = [number for number in there if kinds[number] == kind]
        assert len(left) > K
        for _ in range(12):
            assert ids(docs.search(query, K, {"kind": kind}, ef_search=400)) == left[:K]
        assert len(docs.search(query, 4000, {"kind": kind})) == len(left)


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
