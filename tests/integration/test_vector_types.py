"""Vectors of every type on a real server: what is put in comes out, and the truth is what SQL says it is."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector import HalfVector, SparseVector, Vector
from psycopg import RawCursor

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.load import Target, Written
from pgvec_toolkit.ingest.space_vectors import set_vectors
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.tune import truth
from pgvec_toolkit.tune.nearest import Nearest
from pgvec_toolkit.tune.queries import Queries, found_distances, nearest_sql, sampled
from pgvec_toolkit.tune.recall import TOLERANCE, shares
from pgvec_toolkit.vectors import FixedWidth, vector_type
from tests.conftest import random_vectors

GIVEN: dict[str, list[Any]] = {
    "vector": [[1, 2, 3], [0.5, -1e-39, 3.4e38], Vector([1, 0, 0])],
    "halfvec": [[1, 2, 3], [0.1, -6e-8, 65504], HalfVector([1, 0, 0])],
    "bit": ["011", [True, False, False], np.array([0, 0, 0])],
    "sparsevec": [{0: 1.5, 2: -2.0}, [0, 0.1, 0], SparseVector({1: 1e-38}, 3)],
    "vector[]": [[[1, 2, 3]], [[1, 2, 3], [0.1, 0, -5]], np.eye(3)],
}
STORED = {
    "vector": ["[1,2,3]", "[0.5,-1e-39,3.4e+38]", "[1,0,0]"],
    "halfvec": ["[1,2,3]", "[0.099975586,-5.9604645e-08,65504]", "[1,0,0]"],
    "bit": ["011", "100", "000"],
    "sparsevec": ["{1:1.5,3:-2}/3", "{2:0.1}/3", "{2:1e-38}/3"],
    "vector[]": ['{"[1,2,3]"}', '{"[1,2,3]","[0.1,0,-5]"}', '{"[1,0,0]","[0,1,0]","[0,0,1]"}'],
}
WRONG = {
    "vector": ([1, 2, math.nan], "NaN or infinity"),
    "halfvec": ([1, 2, 65505], "ends at 65504"),
    "bit": ([0, 1, 2], "something else than 0 and 1"),
    "sparsevec": ({3: 1.0}, "has an entry at 3"),
    "vector[]": ([[1, 2]], r"has shape \(1, 2\)"),
}
TYPES = list(GIVEN)


def embeddings(connection: psycopg.Connection, table: str = "docs_dense") -> list[str]:
    statement = f"SELECT v.embedding::text FROM docs d JOIN {table} v USING (key) ORDER BY d.id"
    return [text for (text,) in connection.execute(statement.encode())]


def versions(connection: psycopg.Connection, table: str = "docs_dense") -> list[Any]:
    return connection.execute(f"SELECT key, xmin::text, ctid::text FROM {table} ORDER BY key".encode()).fetchall()


@pytest.mark.parametrize("name", TYPES)
def test_vectors_come_back(db: Database, connection: psycopg.Connection, name: str) -> None:
    collection = db.create_collection("docs", dimensions=3, type=name)
    collection.upsert([{"id": row, "vector": vector} for row, vector in enumerate(GIVEN[name])])
    assert embeddings(connection) == STORED[name]


@pytest.mark.parametrize("name", TYPES)
def test_only_what_differs_is_written_again(db: Database, connection: psycopg.Connection, name: str) -> None:
    collection = db.create_collection("docs", dimensions=3, type=name)
    records = [{"id": row, "vector": vector} for row, vector in enumerate(GIVEN[name])]
    assert collection.upsert(records) == Written(inserted=3)
    before = versions(connection)
    assert collection.upsert(records) == Written(unchanged=3)
    assert versions(connection) == before
    records[1]["vector"] = GIVEN[name][0]
    assert collection.upsert([*records, {"id": 3, "vector": GIVEN[name][2]}]) == Written(1, 1, 2)
    assert embeddings(connection) == [STORED[name][row] for row in (0, 0, 2, 2)]
    assert [after in before for after in versions(connection)] == [True, False, True, False]


@pytest.mark.parametrize("name", TYPES)
def test_type_lives_in_another_schema(dsn: str, connection: psycopg.Connection, name: str) -> None:
    connection.execute("CREATE SCHEMA elsewhere")
    connection.execute("ALTER EXTENSION vector SET SCHEMA elsewhere")
    with Database(dsn) as database:
        collection = database.create_collection("docs", dimensions=3, type=name)
        records = [{"id": row, "vector": vector} for row, vector in enumerate(GIVEN[name])]
        assert collection.upsert(records) == Written(inserted=3)
        assert collection.upsert([records[0] | {"vector": GIVEN[name][1]}, records[2]]) == Written(0, 1, 1)
    assert embeddings(connection) == [STORED[name][row] for row in (1, 1, 2)]


@pytest.mark.parametrize("name", TYPES)
def test_wrong_vector_is_named_and_leaves_its_batch_out(
    db: Database, connection: psycopg.Connection, name: str
) -> None:
    collection = db.create_collection("docs", dimensions=3, type=name)
    wrong, problem = WRONG[name]
    records = [{"id": row, "vector": GIVEN[name][0]} for row in range(6)]
    records[5]["vector"] = wrong
    with pytest.raises(InvalidRecord, match=problem) as caught:
        collection.upsert(records, batch_size=2)
    assert (caught.value.row, caught.value.field) == (5, "vector")
    assert embeddings(connection) == [STORED[name][0]] * 4


@pytest.mark.parametrize("name", TYPES)
def test_query_is_bound_in_the_type_of_the_column(db: Database, name: str) -> None:
    kind = vector_type(name)
    distance = Distance.HAMMING if name == "bit" else Distance.L2
    db.create_collection("docs", dimensions=3, type=name).upsert({"id": range(3), "vector": GIVEN[name]})
    for row, given in enumerate(GIVEN[name]):
        bound = kind.query(given, 3, distance)
        with db.connection() as pooled:
            cursor = RawCursor(pooled)
            text = "SELECT pg_typeof($1)::text, v.embedding::text = $1::text, v.embedding FROM docs d"
            cursor.execute(f"{text} JOIN docs_dense v USING (key) WHERE d.id = '{row}'".encode(), [bound], binary=True)
            found = cursor.fetchone()
        assert found is not None
        assert found[:2] == (name, True)
        loaded = kind.loaded(found[2])
        assert loaded.tolist() == bound.tolist() if name == "vector" else loaded == bound


@pytest.mark.parametrize("name", ["vector", "halfvec", "vector[]"])
@pytest.mark.parametrize("binary", [True, False])
def test_what_is_fetched_are_float32_arrays(db: Database, name: str, binary: bool) -> None:
    given: Any = np.array([[1, -2, 0.5]] * 2)
    db.create_collection("docs", dimensions=3, type=name, distance="inner_product").upsert(
        {"id": ["a"], "vector": [given if name == "vector[]" else given[0]]}
    )
    with db.connection() as pooled:
        row = pooled.execute("SELECT embedding FROM docs_dense", binary=binary).fetchone()
    assert row is not None
    for vector in row[0] if name == "vector[]" else row:
        assert (type(vector), vector.dtype, vector.shape) == (np.ndarray, np.float32, (3,))
        assert vector.tolist() == given[0].tolist()
        vector += 1  # it is the caller's own


@pytest.mark.parametrize("kind", [list, tuple, Vector, HalfVector, *(np.dtype(name).type for name in "efdg")])
def test_numbers_of_any_kind_are_taken(db: Database, kind: Any) -> None:
    docs = db.create_collection("docs", dimensions=2)
    given = np.array([1, 0], kind) if isinstance(kind, type) and issubclass(kind, np.generic) else kind([1, 0])
    docs.upsert([{"id": "a", "vector": given}, {"id": "b", "vector": [0, 1]}])
    assert [hit.distance for hit in docs.search(given)] == [0, 1]
    assert [hits[0].id for hits in docs.search_many([given])] == ["a"]
    assert docs.set_vectors("dense", ["b"], [given]) == 1


@pytest.mark.parametrize("dtype", ["f4", ">f4", "f8", "f2", "i4", "?"])
def test_arrays_are_bound_whatever_their_type(db: Database, dtype: str) -> None:
    given = np.array([[0, 1], [1, 0]], dtype)[:, 1]  # and not contiguous
    with db.connection() as pooled:
        row = pooled.execute("SELECT %s::vector, %b::vector = '[1,0]'", [given, given]).fetchone()
        assert row is not None
        assert (row[0].tolist(), row[1]) == ([1, 0], True)
        with pytest.raises(psycopg.DataError, match=r"shape \(1, 2\).*is no vector"):
            pooled.execute("SELECT %s", [given[None]])


# -- vectors of rows that are stored already -----------------------------------------------------


@pytest.fixture
def docs(db: Database) -> Collection:
    collection = db.create_collection("docs", dimensions=2)
    collection.upsert({"id": ["a", "b", "c"], "vector": np.ones((3, 2))})
    return collection


def added(db: Database, connection: psycopg.Connection, type: str) -> Target:
    connection.execute("SELECT pgvec.add_space('docs', 'extra', 3, %s)", [type])
    return Target(spaces.find(db, "docs", "extra"), {})


@pytest.mark.parametrize("name", TYPES)
def test_vectors_of_another_space(db: Database, docs: Collection, connection: psycopg.Connection, name: str) -> None:
    target = added(db, connection, name)
    with db.connection() as pooled:
        assert set_vectors(pooled, target, ["c", "a"], [GIVEN[name][2], GIVEN[name][0]]) == 2
        assert embeddings(connection, "docs_extra") == [STORED[name][0], STORED[name][2]]
        before = versions(connection, "docs_extra")
        assert set_vectors(pooled, target, ["a", "c"], [GIVEN[name][0], GIVEN[name][2]]) == 0
        assert versions(connection, "docs_extra") == before
        assert set_vectors(pooled, target, ["a", "b"], [GIVEN[name][1], GIVEN[name][1]]) == 2
    assert embeddings(connection, "docs_extra") == [STORED[name][row] for row in (1, 1, 2)]
    assert embeddings(connection) == ["[1,1]"] * 3
    assert docs.upsert([{"id": "a", "vector": [1, 1]}]) == Written(unchanged=1)


def test_unknown_id_is_named_and_nothing_is_written(
    db: Database, docs: Collection, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgvec_toolkit.ingest.space_vectors._ROWS_AT_ONCE", 2)
    target = added(db, connection, "halfvec")
    assert len(docs) == 3
    with db.connection() as pooled:
        with pytest.raises(InvalidRecord, match="row 3, field 'id': 'x' is not stored") as caught:
            set_vectors(pooled, target, ["a", "b", "c", "x", "y"], np.ones((5, 3)))
        assert caught.value.row == 3
        with pytest.raises(InvalidRecord, match="row 2, field 'vector': contains NaN"):
            set_vectors(pooled, target, ["a", "b", "c"], [[1, 2, 3], [1, 2, 3], [1, 2, math.nan]])
        with pytest.raises(InvalidRecord, match="row 0, field 'vector': is missing"):
            set_vectors(pooled, target, ["a"], [None])
        with pytest.raises(ConfigurationError, match="differ in length"):
            set_vectors(pooled, target, ["a", "b"], np.ones((3, 3)))
        with pytest.raises(ConfigurationError, match="'id' is a str"):
            set_vectors(pooled, target, "abc", np.ones((3, 3)))
        assert embeddings(connection, "docs_extra") == []
        assert set_vectors(pooled, target, [], np.empty((0, 3))) == 0
        assert set_vectors(pooled, target, ["a", "a"], [[1, 2, 3], [4, 5, 6]]) == 1
    assert embeddings(connection, "docs_extra") == ["[4,5,6]"]


def test_vectors_of_the_same_rows_set_at_once(
    db: Database, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgvec_toolkit.ingest.space_vectors._ROWS_AT_ONCE", 20)
    ids = [str(number) for number in range(200)]
    db.create_collection("docs", dimensions=2).upsert({"id": ids, "vector": np.ones((200, 2))})
    target = added(db, connection, "halfvec")

    def write(seed: int) -> int:
        order = np.random.default_rng(seed).permutation(200)
        with db.connection() as pooled:
            return set_vectors(pooled, target, [ids[row] for row in order], np.full((200, 3), seed + 1))

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(write, range(4))) == [200] * 4
    assert len(set(embeddings(connection, "docs_extra"))) == 1  # each is one transaction: the last has it all


# -- truth ---------------------------------------------------------------------------------------


def random_of(name: str, count: int, dimensions: int, seed: int = 0) -> Any:
    vectors = random_vectors(count, dimensions, seed)
    if name == "bit":
        return (vectors > 0).astype(np.uint8)
    if name == "sparsevec":
        return [np.where(np.abs(row) > np.quantile(np.abs(row), 0.8), row, 0) for row in vectors]
    if name == "vector[]":
        return [random_vectors(1 + row % 4, dimensions, seed + row) for row in range(count)]
    return vectors * 3


CASES = [
    (name, distance.value, dimensions)
    for name, many in (("vector", (24, 1536)), ("halfvec", (24, 3072, 4000)), ("bit", (24, 1001)), ("sparsevec", (60,)))
    for dimensions in many
    for distance in Distance
    if name in distance.types
]


@pytest.mark.parametrize(("name", "distance", "dimensions"), CASES)
def test_truth_is_what_an_exact_scan_finds(db: Database, name: str, distance: str, dimensions: int) -> None:
    rows, k = (700, 12) if dimensions < 2000 else (150, 12)
    collection = db.create_collection("docs", dimensions=dimensions, type=name, distance=distance)
    collection.upsert({"id": range(rows), "vector": random_of(name, rows, dimensions)})
    kind, space = vector_type(name), collection.space
    queries = random_of(name, 15, dimensions, seed=7)
    given = Queries.from_vectors([kind.query(query, dimensions, Distance(distance)) for query in queries])
    with db.connection() as connection:
        for chosen in (given, sampled(connection, space, 15)):
            statement = nearest_sql(connection, "docs", k + 1, exact=True)
            wanted = np.stack(found_distances(connection, statement, chosen, k))
            found = truth.exact_distances(connection, space, chosen, k)
            assert found.shape == (15, k)
            errors = np.abs(found - wanted) / np.maximum(1, np.abs(wanted))
            assert errors.max() < TOLERANCE / 2
            assert shares(found, list(wanted)).min() == 1
            assert shares(wanted, list(found)).min() == 1
            assert isinstance(kind, FixedWidth) == (name != "sparsevec")


def test_truth_of_halves_is_not_that_of_the_numbers_given(db: Database) -> None:
    """Halves have three digits: what was given and what was stored are further apart than any tolerance."""
    vectors = random_of("vector", 300, 64)
    collection = db.create_collection("docs", dimensions=64, type="halfvec", distance="l2")
    collection.upsert({"id": range(300), "vector": vectors})
    queries = [vector_type("halfvec").query(vector, 64, Distance.L2) for vector in vectors[:20]]
    with db.connection() as connection:
        found = truth.exact_distances(connection, collection.space, Queries.from_vectors(queries), 1)
    assert found.max() == 0


@pytest.mark.parametrize("name", ["bit", "sparsevec"])
def test_fewer_rows_than_k(db: Database, name: str) -> None:
    collection = db.create_collection("docs", dimensions=20, type=name)
    collection.upsert({"id": range(5), "vector": random_of(name, 5, 20)})
    with db.connection() as connection:
        queries = sampled(connection, collection.space, 5)
        found = truth.exact_distances(connection, collection.space, queries, 7)
    assert np.isfinite(found).sum(axis=1).tolist() == [4] * 5


def test_blocks_of_long_vectors_are_short(db: Database, monkeypatch: pytest.MonkeyPatch, vectors: Any) -> None:
    sizes: list[int] = []
    add = Nearest.add

    def counted(self: Nearest, keys: NDArray[np.int64], stored: NDArray[np.float32]) -> None:
        sizes.append(stored.size)
        add(self, keys, stored)

    monkeypatch.setattr(Nearest, "add", counted)
    monkeypatch.setattr(truth, "_NUMBERS_PER_BLOCK", 10000)
    collection = db.create_collection("docs", dimensions=100)
    collection.upsert({"id": range(1000), "vector": vectors(1000, 100)})
    with db.connection() as connection:
        queries = sampled(connection, collection.space, 10)
        truth.exact_distances(connection, collection.space, queries, 3)
    assert sum(sizes) == 1000 * 100
    assert max(sizes) <= 2 * 65536
