"""What keyword search needs around it: rights, names, another server, text of the user's in its statements."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, FilterError, InvalidName


@pytest.fixture
def docs(db: Database) -> Collection:
    docs = db.create_collection("docs", dimensions=2, columns={"length": int, "day": dt.date}, keywords=False)
    docs.upsert(
        {"id": ["a", "b", "c"], "text": ["red fish", "blue fish", "a tree"], "vector": np.eye(3)[:, :2] + 1}
        | {"length": [1, 2, 3], "day": ["2020-01-01", "2021-01-01", "2022-01-01"]}
    )
    return docs


@pytest.fixture
def role(connection: psycopg.Connection) -> Iterator[str]:
    role = f"somebody_{connection.info.backend_pid}"
    connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}".encode())
    connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {role}".encode())
    yield role
    connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("privileges", ["SELECT, INSERT", "SELECT, UPDATE", "SELECT, DELETE", "SELECT"])
def test_who_had_rights_has_them_still(
    connection: psycopg.Connection, docs: Collection, role: str, privileges: str
) -> None:
    connection.execute(f"GRANT {privileges} ON docs TO {role}".encode())
    docs.create_keyword_index()
    connection.execute(f"SET ROLE {role}".encode())
    statements = {
        "INSERT": "INSERT INTO docs (id, document_id, text) VALUES ('d', 'd', 'fish')",
        "UPDATE": "UPDATE docs SET text = 'a fish' WHERE id = 'c'",
        "DELETE": "DELETE FROM docs WHERE id = 'a'",
    }
    expected = {"INSERT": "abd", "UPDATE": "abc", "DELETE": "b"}.get(privileges.partition(", ")[2], "ab")
    for privilege, statement in statements.items():
        if privilege in privileges:
            connection.execute(statement.encode())
    found = connection.execute("SELECT id FROM pgvec.keyword_search('docs', 'fish')").fetchall()
    assert "".join(sorted(id for (id,) in found)) == expected


def test_an_index_of_a_server_that_numbers_otherwise(connection: psycopg.Connection, docs: Collection) -> None:
    assert docs.keyword_index is None
    docs.create_keyword_index(k1=1.5)
    assert docs.keyword_index == {"k1": 1.5, "b": 0.75}
    connection.execute("UPDATE pgvec.keyword_indexes SET probe = probe + 1")
    with pytest.raises(ConfigurationError, match=r"numbers lexemes otherwise\. Build it anew"):
        docs.keyword_search("fish")
    assert docs.drop_keyword_index()
    docs.create_keyword_index()
    assert len(docs.keyword_search("fish")) == 2


@pytest.mark.parametrize("name", ["keyword", "keywords", "lexemes"])
def test_names_that_a_space_cannot_have(docs: Collection, name: str) -> None:
    with pytest.raises(InvalidName, match=f"cannot be called {name}"):
        docs.add_space(name, dimensions=2)


def test_where_sql_without_the_alias(docs: Collection) -> None:
    docs.create_keyword_index()
    for where_sql in ("length >= 2 AND key > 0", "d.length >= 2 AND NOT EXISTS (SELECT WHERE id = 'z')"):
        assert [hit.id for hit in docs.keyword_search("fish", where_sql=where_sql)] == ["b"]
        hits = docs.hybrid_search("fish", queries={"dense": [1, 1]}, where_sql=where_sql)
        assert {hit.id for hit in hits} == {"b", "c"}


def test_a_value_that_cannot_be_read_is_named(docs: Collection) -> None:
    docs.create_keyword_index()
    for day, problem in (("2021-06-01", None), ("no day", "'day'")):
        for search in (docs.keyword_search, lambda *given: docs.hybrid_search(*given, queries={"dense": [1, 1]})):
            if problem is None:
                assert search("fish tree", 5, {"day": {"$gt": day}})
            else:
                with pytest.raises(FilterError, match=problem):
                    search("fish tree", 5, {"day": {"$gt": day}})


def test_fusing_what_has_no_score(connection: psycopg.Connection) -> None:
    rankings = '{"dense": [["a", 0.9], ["b", 0.1]], "rerank": [["b", null]]}'
    fused = connection.execute("SELECT id, score FROM pgvec.fuse(%s)", [rankings]).fetchall()
    assert fused == [("a", 1.0), ("b", 0.0)]
