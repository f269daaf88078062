"""Recall as pgvec measures it, against recall as the book has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, FilterError, TuningError
from tests.conftest import random_vectors

ROWS, DIMENSIONS, K = 3000, 24, 10
STORED, QUERIES = np.random.default_rng(5).normal(size=(2, ROWS, DIMENSIONS)).astype(np.float32)
QUERIES = QUERIES[:60]
GROUP = np.arange(ROWS) % 50


@pytest.fixture(scope="module")
def hard(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    """Structureless vectors in a sparse graph: what an index has its trouble with."""
    with janitor("t_recall_hard", template):
        dsn = make_conninfo(server_dsn, dbname="t_recall_hard", options="-c enable_seqscan=off")
        with Database(dsn) as database:
            docs = database.create_collection("docs", dimensions=DIMENSIONS, distance="l2", columns={"group": int})
            docs.upsert({"id": [str(n) for n in range(ROWS)], "vector": STORED, "group": GROUP.tolist()})
            docs.create_index(m=4, ef_construction=8)
            yield docs


@pytest.fixture
def profile(hard: Collection) -> Iterator[Callable[[int, int], None]]:
    """Stores a profile by hand, as profile(k, setting), and takes it away again."""

    def store(k: int, setting: int) -> None:
        with hard._database.connection() as connection:
            connection.execute(
                "INSERT INTO pgvec.tuning_profiles (space_id, index_method, k, target_recall, setting, recall)"
                " VALUES (%s, 'hnsw', %s, 0.5, %s, 0.5)",
                [hard.space.id, k, setting],
            )

    yield store
    with hard._database.connection() as connection:
        connection.execute("DELETE FROM pgvec.tuning_profiles")


def truth(query: NDArray[Any], stored: NDArray[Any]) -> NDArray[np.float64]:
    return np.sqrt(((stored.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1))


def recall_by_the_book(docs: Collection, where: dict[str, Any] | None = None, mask: Any = slice(None)) -> float:
    shares = []
    for query in QUERIES:
        wanted = set(np.arange(ROWS)[mask][np.argsort(truth(query, STORED[mask]))[:K]].tolist())
        shares.append(len(wanted & {int(hit.id) for hit in docs.search(query, K, where)}) / len(wanted))
    return float(np.mean(shares))


def test_recall_is_what_searches_get(hard: Collection, profile: Callable[[int, int], None]) -> None:
    untuned = hard.recall(queries=QUERIES)
    assert untuned.recall == pytest.approx(recall_by_the_book(hard))
    profile(K, 1)
    starved = hard.recall(queries=QUERIES)
    assert starved.recall == pytest.approx(recall_by_the_book(hard))
    assert starved.recall + 0.1 < untuned.recall < 1
    assert (starved.queries, starved.short_results, starved.k) == (60, 0, K)
    assert starved.recall_p5 <= starved.recall


def test_a_bad_profile_shows_in_sql(hard: Collection, profile: Callable[[int, int], None]) -> None:
    untuned = hard.recall(sample=200).recall
    profile(K, 1)
    assert hard.recall(sample=200).recall + 0.1 < untuned


def test_the_settings_measured_are_those_of_searches_for_k(
    hard: Collection, profile: Callable[[int, int], None]
) -> None:
    profile(K, 33)
    with hard._database.connection() as connection, connection.transaction():
        for call in (
            f"SELECT count(*) FROM pgvec.search('docs', '{STORED[0].tolist()}', {K})",
            f"SELECT pgvec.recall('docs', k => {K}, queries => 2)",  # looks for one more
        ):
            connection.execute(call.encode())
            assert connection.execute("SELECT current_setting('hnsw.ef_search')").fetchone() == ("33",)


def test_sql_by_setting(hard: Collection) -> None:
    measured = {}
    with hard._database.connection() as connection:
        for ef_search in (1, 40, 1000):
            row = connection.execute(
                "SELECT * FROM pgvec.recall('docs', queries => 150, ef_search => %s::integer)", [ef_search]
            ).fetchone()
            assert row is not None
            measured[ef_search], p5, count, short = row
            assert 0 <= p5 <= measured[ef_search] <= 1
            assert (count, short) == (150, 0)
    assert measured[1] + 0.1 < measured[40] < measured[1000]
    assert measured[1000] > 0.9


@pytest.mark.parametrize(
    ("where", "mask"),
    [({"group": 7}, GROUP == 7), ({"group": {"$ne": 7}}, GROUP != 7), ({"group": {"$lt": 0}}, GROUP < 0)],
)
def test_recall_of_filtered_searches(hard: Collection, where: dict[str, Any], mask: NDArray[np.bool_]) -> None:
    measured = hard.recall(queries=QUERIES, where=where)
    assert measured.short_results == 0
    if mask.any():
        assert measured.recall == pytest.approx(recall_by_the_book(hard, where, mask))
        sampled = hard.recall(sample=100, where=where)
        assert sampled.queries == 100
        assert sampled.recall == pytest.approx(measured.recall, abs=0.3)
    if mask.sum() < 1000:
        assert measured.recall == 1  # below the gate: exact


def test_without_an_index_it_is_one(db: Database, vectors: Callable[..., NDArray[np.float32]]) -> None:
    for distance in ("cosine", "l2", "inner_product", "l1"):
        docs = db.create_collection(distance, dimensions=8, distance=distance)
        docs.upsert({"id": [str(n) for n in range(400)], "vector": vectors(400, 8) * 3})
        assert docs.recall().recall == 1
        assert docs.recall(queries=vectors(50, 8, seed=3)).recall == 1
        assert docs.recall(k=500, queries=vectors(3, 8, seed=3)).short_results == 0


def test_far_from_the_origin_it_is_one_too(db: Database) -> None:
    stored = (100 + 0.01 * np.random.default_rng(0).normal(size=(300, 32))).astype(np.float32)
    docs = db.create_collection("docs", dimensions=32, distance="l2")
    docs.upsert({"id": [str(n) for n in range(300)], "vector": stored})
    assert docs.recall(queries=stored[:40] + np.float32(0.003)).recall == 1


def test_duplicates_do_not_lower_it(dsn: str, vectors: Callable[..., NDArray[np.float32]]) -> None:
    with Database(make_conninfo(dsn, options="-c enable_seqscan=off")) as database:
        docs = database.create_collection("docs", dimensions=8)
        docs.upsert({"id": [str(n) for n in range(1000)], "vector": np.repeat(vectors(200, 8), 5, axis=0)})
        docs.create_index()
        for k in (3, 7, 10):  # k ends in the midst of five equals
            assert docs.recall(k=k).recall > 0.99
            assert docs.recall(k=k, queries=vectors(100, 8, seed=4)).recall > 0.99
        all_equal = database.create_collection("equal", dimensions=8)
        all_equal.upsert({"id": [str(n) for n in range(100)], "vector": np.repeat(vectors(1, 8), 100, axis=0)})
        all_equal.create_index()
        assert all_equal.recall(k=5).recall == 1


def test_fewer_rows_than_k(db: Database, vectors: Callable[..., NDArray[np.float32]]) -> None:
    docs = db.create_collection("docs", dimensions=4)
    docs.upsert({"id": [str(n) for n in range(5)], "vector": vectors(5, 4)})
    assert docs.recall(k=10).recall == 1
    assert docs.recall(k=10).short_results == 0
    assert docs.recall(k=10, queries=vectors(3, 4)).recall == 1


def test_nothing_to_measure_on(db: Database, connection: psycopg.Connection) -> None:
    docs = db.create_collection("docs", dimensions=4)
    assert connection.execute("SELECT * FROM pgvec.recall('docs')").fetchone() == (None, None, 0, 0)
    with pytest.raises(TuningError, match="too little"):
        docs.recall()
    docs.upsert([{"id": "alone", "vector": [1, 0, 0, 0]}])
    with pytest.raises(TuningError, match="too little"):
        docs.recall()  # left out itself, it has no neighbour


def test_what_cannot_be_measured_is_refused(db: Database, connection: psycopg.Connection) -> None:
    docs = db.create_collection("docs", dimensions=4)
    docs.upsert([{"id": "a", "vector": [1, 0, 0, 0]}, {"id": "b", "vector": [0, 1, 0, 0]}])
    connection.execute("ANALYZE docs_dense")
    for k in (-5, 0, 1000):
        with pytest.raises(ConfigurationError, match="k must be"):
            docs.recall(k=k)
    with pytest.raises(ConfigurationError, match="at least 1"):
        docs.recall(sample=0)
    with pytest.raises(ConfigurationError):
        docs.recall(queries=[])
    with pytest.raises(FilterError, match=r"\$near"):
        docs.recall(where={"a": {"$near": 1}})
    for arguments in ("'docs', NULL", "'docs', 5, NULL"):
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(f"SELECT pgvec.recall({arguments})")
        assert raised.value.sqlstate == "PV005"
    db.drop_collection("docs")
    with pytest.raises(CollectionNotFound):
        docs.recall()


@pytest.mark.parametrize("value", [0, float("nan")])
def test_queries_without_direction_measure_nothing(db: Database, value: float) -> None:
    docs = db.create_collection("docs", dimensions=4)
    docs.upsert({"id": list(range(50)), "vector": random_vectors(50, 4)})
    with pytest.raises(ConfigurationError, match="query vector"):
        docs.recall(queries=np.full((30, 4), value, dtype=np.float32))
