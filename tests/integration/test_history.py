"""Histories: whatever happens to a collection, what it was can be searched, listed and brought back."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import random
import time
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionExists, ConfigurationError, InvalidName
from tests.conftest import random_vectors
from tests.words import WordEmbedder

DIMENSIONS = 4
Rows = dict[str, tuple[str, int, list[float]]]


@pytest.fixture
def docs(db: Database) -> Collection:
    return db.create_collection("docs", dimensions=DIMENSIONS, columns={"year": int})


def now(connection: psycopg.Connection[Any]) -> dt.datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def state(connection: psycopg.Connection[Any]) -> Rows:
    """What the collection is, in full."""
    rows = connection.execute("SELECT id, text, year, embedding FROM docs JOIN docs_dense USING (key)").fetchall()
    return {id: (text, year, vector.to_list()) for id, text, year, vector in rows}


def state_as_of(
    docs: Collection, moment: dt.datetime, query: np.ndarray[Any, Any]
) -> dict[str, tuple[str, int, float]]:
    hits = docs.search_as_of(query, moment, k=1000)
    return {hit.id: (str(hit.text), hit.metadata["year"], float(hit.distance or 0)) for hit in hits}


def record(id: str, number: int, vector: Any) -> dict[str, Any]:
    return {"id": id, "document_id": id.split("#")[0], "text": f"text {number}", "year": number, "vector": vector}


def test_every_moment_can_be_searched(docs: Collection, connection: psycopg.Connection[Any]) -> None:
    register(connection)
    chance = random.Random(1)
    vectors = iter(random_vectors(600, DIMENSIONS, seed=2))
    docs.upsert([record(f"d{n % 5}#{n}", n, next(vectors)) for n in range(20)])
    docs.create_history()
    moments: list[tuple[dt.datetime, Rows]] = []
    for step in range(40):
        ids = sorted(state(connection))
        act = chance.randrange(6)
        if act == 0:
            docs.upsert([record(f"d{chance.randrange(5)}#new{step}", step, next(vectors)) for _ in range(3)])
        elif act == 1:
            docs.upsert([record(id, 100 + step, next(vectors)) for id in chance.sample(ids, min(3, len(ids)))])
        elif act == 2:
            connection.execute("UPDATE docs SET year = year + 1 WHERE id = ANY (%s)", [ids[:4]])
        elif act == 3 and ids:
            docs.delete([ids[0].split("#")[0]])
        elif act == 4 and ids:
            docs.set_vectors("dense", ids[:2], np.stack([next(vectors) for _ in ids[:2]]))
        else:
            # In one transaction: nobody has seen what was in between.
            with connection.transaction():
                connection.execute("UPDATE docs SET text = 'fleeting' WHERE id = ANY (%s)", [ids[-3:]])
                connection.execute("UPDATE docs SET text = text || '!', year = -1 WHERE id = ANY (%s)", [ids[-2:]])
                connection.execute("DELETE FROM docs WHERE id = ANY (%s)", [ids[-1:]])
        moments.append((now(connection), state(connection)))
    query = random_vectors(1, DIMENSIONS, seed=3)[0]
    for moment, rows in moments:
        found = state_as_of(docs, moment, query)
        assert found.keys() == rows.keys()
        for id, (text, year, vector) in rows.items():
            cosine = np.dot(query, vector) / np.linalg.norm(query) / np.linalg.norm(vector)
            assert found[id][:2] == (text, year)
            assert found[id][2] == pytest.approx(1 - cosine, abs=1e-6)


def register(connection: psycopg.Connection[Any]) -> None:
    from pgvector.psycopg import register_vector

    register_vector(connection)


def test_transactions_that_overlap_leave_one_version_a_moment(
    docs: Collection, dsn: str, connection: psycopg.Connection[Any]
) -> None:
    docs.upsert([record("a", 1, [1, 0, 0, 0])])
    docs.create_history()
    with psycopg.connect(dsn) as early, psycopg.connect(dsn, autocommit=True) as late:
        early.execute("SELECT now()")  # begins first, writes last
        late.execute("UPDATE docs SET text = 'late' WHERE id = 'a'")
        between = now(connection)
        early.execute("UPDATE docs SET text = 'early' WHERE id = 'a'")
        early.commit()
    versions = connection.execute(
        "SELECT extract(epoch FROM valid_from), extract(epoch FROM valid_to) FROM docs_history ORDER BY valid_from"
    ).fetchall()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(versions))
    assert [hit.text for hit in docs.search_as_of([1, 0, 0, 0], between)] == ["early"]  # whose transaction began before
    assert len(docs.search_as_of([1, 0, 0, 0], now(connection))) == 1


def test_documents_come_back(docs: Collection, connection: psycopg.Connection[Any]) -> None:
    docs.create_history()
    docs.add_space("title", dimensions=2)
    docs.upsert([record("a#0", 1, [1, 0, 0, 0]), record("a#1", 2, [0, 1, 0, 0]), record("b#0", 3, [0, 0, 1, 0])])
    docs.set_vectors("title", ["a#0"], [[1, 2]])
    before = now(connection)
    docs.delete(["a"])
    docs.upsert([record("a#0", 9, [0, 0, 0, 1])])
    assert [version.chunks for version in docs.versions("a")] == [2, 1]
    assert docs.restore(["a"], before) == 2
    assert [version.chunks for version in docs.versions("a")] == [2, 1, 2]
    assert docs.versions("a")[-1].valid_to is None
    hits = docs.search([1, 0, 0, 0], k=5)
    assert (hits[0].id, hits[0].text, hits[0].metadata["year"]) == ("a#0", "text 1", 1)
    assert len(hits) == 3
    assert docs.search([1, 2], space="title")[0].id == "a#0"
    assert [hit.id for hit in docs.keyword_search("text", k=5)] != []


def test_purge_forgets(docs: Collection, connection: psycopg.Connection[Any]) -> None:
    docs.create_history()
    docs.upsert([record("a", 1, [1, 0, 0, 0]), record("b", 2, [0, 1, 0, 0])])
    first = now(connection)
    docs.delete(["a", "b"])
    second = now(connection)
    docs.upsert([record("c", 3, [1, 1, 0, 0])])
    assert docs.purge(document_ids=["a"]) == 1
    assert [hit.id for hit in docs.search_as_of([1, 0, 0, 0], first)] == ["b"]
    with pytest.raises(psycopg.DatabaseError, match="before is NULL"):
        connection.execute("SELECT pgvec.purge('docs', NULL)")
    docs.set_vectors("dense", ["c"], [[0, 0, 0, 1]])
    assert docs.purge(document_ids=["c"]) == 0  # of the chunk there was one version only
    assert docs.purge(second) == 1
    with pytest.raises(ConfigurationError, match="begins at"):
        docs.search_as_of([1, 0, 0, 0], first)
    assert [hit.id for hit in docs.search_as_of([1, 0, 0, 0], now(connection))] == ["c"]
    for table in ("docs_history", "docs_dense_history"):
        assert connection.execute(f"SELECT count(*) FROM {table} WHERE valid_to < 'infinity'".encode()).fetchone() == (
            0,
        )


def test_filters_are_of_what_was(
    docs: Collection, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.create_history()
    docs.upsert([record("a", 1, [1, 0, 0, 0]) | {"colour": "red"}, record("b", 2, [0, 1, 0, 0])])
    first = now(connection)
    docs.upsert([record("a", 5, [1, 0, 0, 0]) | {"colour": "blue"}])
    query = [1, 1, 0, 0]
    assert [hit.id for hit in docs.search_as_of(query, first, where={"colour": "red", "year": {"$lt": 2}})] == ["a"]
    assert not docs.search_as_of(query, first, where={"colour": "blue"})
    assert docs.search_as_of(query, first, where_sql="d.year = ($3 ->> 'y')::int", parameters={"y": 2})[0].id == "b"
    hits = docs.search_as_of(query, first, k=1)
    assert hits.stopped_by == "k"
    with monkeypatch.context() as far_away:
        far_away.setenv("TZ", "PGVEC-11")
        time.tzset()
        local = first.astimezone().replace(tzinfo=None)
        assert docs.search_as_of(query, local, where={"colour": "red"})[0].id == "a"
    time.tzset()


def test_columns_may_come_later(docs: Collection, connection: psycopg.Connection[Any]) -> None:
    docs.upsert([record("a", 1, [1, 0, 0, 0]) | {"colour": "red"}])
    docs.create_history()
    first = now(connection)
    docs.promote("colour", str)
    connection.execute("ALTER TABLE docs ADD COLUMN size bigint")
    docs.upsert([record("a", 2, [1, 0, 0, 0]) | {"colour": "blue", "size": 3}])
    assert docs.search_as_of([1, 0, 0, 0], first, where={"colour": "red"})[0].metadata == {"colour": "red", "year": 1}
    connection.execute("TRUNCATE docs CASCADE")
    assert not docs.search([1, 0, 0, 0])
    assert docs.search_as_of([1, 0, 0, 0], first)[0].text == "text 1"


def test_what_is_wrong_is_said(docs: Collection, connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(ConfigurationError, match="has no history"):
        docs.search_as_of([1, 0, 0, 0], now(connection))
    docs.create_history()
    with pytest.raises(CollectionExists, match="a history already"):
        docs.create_history()
    with pytest.raises(ConfigurationError, match="not one text"):
        docs.restore("a", now(connection))
    assert docs.versions(7) == []
    with pytest.raises(InvalidName):
        docs.add_space("history", dimensions=2)
    assert docs.drop_history()
    assert not docs.drop_history()
    docs.upsert([record("a", 1, [1, 0, 0, 0])])  # no trigger is left
    connection.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    with pytest.raises(ConfigurationError, match="row-level security"):
        docs.create_history()


def test_who_writes_may_do_so_while_the_model_is_swapped(db: Database, connection: psycopg.Connection[Any]) -> None:
    owner, writer = f"owner_{os.getpid()}", f"writer_{os.getpid()}"
    docs = db.create_collection("docs", embedder=WordEmbedder(), keywords=False)
    docs.upsert([{"id": str(number), "text": f"text {number}"} for number in range(5)])
    docs.create_history()
    tables = ("docs", "docs_dense", "docs_history", "docs_dense_history")
    try:
        for role in (owner, writer):
            connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}".encode())
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {role}".encode())
        for table in tables:
            connection.execute(f"ALTER TABLE {table} OWNER TO {owner}; GRANT ALL ON {table} TO {writer}".encode())
        other = WordEmbedder(32)
        other.name = "test/other"
        docs.swap_model(other, name="other", sample=5)
        connection.execute(f"SET ROLE {writer}".encode())
        connection.execute("UPDATE docs SET text = 'another text' WHERE id = '1'")
        connection.execute("DELETE FROM docs WHERE id = '2'")  # which cascades with the rights of the owner
        connection.execute("RESET ROLE")
        kept = "SELECT count(*) FROM docs_other_history WHERE valid_to < 'infinity'"
        assert connection.execute(kept).fetchone() == (2,)
    finally:
        connection.execute("RESET ROLE")
        connection.execute("SELECT pgvec.drop_collection('docs')")
        connection.execute(f"DROP OWNED BY {owner}, {writer}; DROP ROLE {owner}, {writer}".encode())


def test_nothing_is_left_of_a_dropped_collection(
    db: Database, docs: Collection, connection: psycopg.Connection[Any]
) -> None:
    docs.create_history()
    docs.add_space("title", dimensions=2)
    docs.drop_space("title")
    db.drop_collection("docs")
    left = connection.execute("SELECT relname FROM pg_class WHERE relname LIKE '%history%' AND relname LIKE 'docs%'")
    assert left.fetchall() == []
