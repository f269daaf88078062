"""The query log: what is in it, what is not, and that no search fails for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, TuningError
from pgvec_toolkit.search.sampling import Sampling

LOGGED = "SELECT query, k, filter FROM pgvec.query_log ORDER BY id"
MANY = "SELECT count(*) FROM generate_series(1, %s) n, pgvec.search('docs', format('[1,%%s,0]', n), 1)"


@pytest.fixture
def docs(db: Database) -> Collection:
    docs = db.create_collection("docs", dimensions=3, distance="l2", columns={"number": int})
    ids = [str(number) for number in range(10)]
    docs.upsert({"id": ids, "text": [f"text {id}" for id in ids], "vector": np.eye(10, 3), "number": range(10)})
    return docs


@pytest.fixture
def role(connection: psycopg.Connection) -> Iterator[str]:
    """Somebody who may search, and no more."""
    role = f"searcher_{connection.info.backend_pid}"
    connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}".encode())
    connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec, public TO {role}".encode())
    connection.execute(f"REVOKE ALL ON pgvec.query_log FROM {role}".encode())
    yield role
    connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def logged(connection: psycopg.Connection) -> list[Any]:
    return connection.execute(LOGGED).fetchall()


def test_every_search_of_vectors_is_logged(docs: Collection, connection: psycopg.Connection) -> None:
    docs.log_queries(share=1)
    where = {"number": {"$gt": 3}}
    docs.search([1, 0.5, 0], 2, where)
    docs.search_many([[0, 0, 1], [0, 1, 1]], 3)
    docs.hybrid_search("text", 4, where, queries={"dense": [1, 1, 1]}, depth=50)
    docs.similar("0", 5)
    connection.execute("SELECT pgvec.search('docs', ARRAY[2, 2, 2], 6)")  # numbers become a vector
    connection.execute("SELECT pgvec.search('docs', '[3,3,3]'::vector, 7, filter => 'null')")
    connection.execute("SELECT pgvec.hybrid_search('docs', 'text', '[4,4,4]', 8)")
    connection.execute("SELECT pgvec.hybrid_search('docs', 'text', queries => '{\"dense\": \"[5,5,5]\"}', depth => 9)")
    assert logged(connection) == [
        ("[1,0.5,0]", 2, where),
        ("[0,0,1]", 3, None),
        ("[0,1,1]", 3, None),
        ("[1,1,1]", 4, where),
        ("[1,0,0]", 5, None),
        ("[2,2,2]", 6, None),
        ("[3,3,3]", 7, None),
        ("[4,4,4]", 100, None),
        ("[5,5,5]", 10, None),
    ]


def test_what_no_watch_could_repeat_is_not_logged(docs: Collection, connection: psycopg.Connection) -> None:
    docs.log_queries(share=1)
    docs.search([1, 0, 0], exact=True)
    docs.hybrid_search("text", queries={"dense": [1, 1, 1]}, recall=1)
    docs.search([1, 0, 0], where_sql="d.number > 3")
    docs.hybrid_search("text", queries={"dense": [1, 1, 1]}, where_sql="d.number > 3")
    docs.keyword_search("text")
    connection.execute("SELECT pgvec.search('docs', '[1,0,0]', exact => true)")
    connection.execute("SELECT pgvec.search('docs', '[1,0,0]', where_sql => 'd.number > 3')")
    with pytest.raises(ConfigurationError):
        docs.search([1, 0, 0], 3, ef_search=-1)
    assert logged(connection) == []


@pytest.mark.parametrize(
    ("type", "query", "text"),
    [("halfvec", [1, 0, 2], "[1,0,2]"), ("sparsevec", [1, 0, 2], "{1:1,3:2}/3"), ("bit", "101", "101")],
)
def test_queries_of_every_type(db: Database, connection: psycopg.Connection, type: str, query: Any, text: str) -> None:
    docs = db.create_collection("docs", dimensions=3, type=type, distance="hamming" if type == "bit" else "l2")
    docs.upsert([{"id": "a", "vector": query}])
    docs.log_queries(share=1)
    docs.search(query)
    connection.execute("SELECT pgvec.search('docs', %s::text)", [text])
    assert [row[0] for row in logged(connection)] == [text, text]


def test_switching_it_off_and_forgetting(docs: Collection, connection: psycopg.Connection) -> None:
    docs.search([1, 0, 0])  # off unless switched on
    assert docs.logged_queries().queries == 0
    docs.log_queries(share=1, keep=99)
    docs.search([1, 0, 0], 1, {"number": 1})
    docs.search([1, 0, 0])
    state = docs.logged_queries()
    assert (state.share, state.keep, state.queries, state.filtered) == (1, 99, 2, 1)
    assert None not in (state.oldest, state.newest)
    assert state.oldest < state.newest  # type: ignore[operator]
    connection.execute("SELECT pgvec.log_queries('docs', share => NULL)")  # another session: Python has not heard of it
    docs.search([1, 0, 0])
    connection.execute("SELECT pgvec.search('docs', '[1,0,0]')")
    assert docs.logged_queries() == type(state)(None, None, 2, 1, state.oldest, state.newest)
    assert docs.forget_queries() == 2
    assert docs.logged_queries() == type(state)(None, None, 0, 0, None, None)


def test_each_space_by_itself(docs: Collection, connection: psycopg.Connection) -> None:
    docs.add_space("title", dimensions=2)
    docs.log_queries(share=1, space="title")
    docs.search([1, 0, 0])
    docs.search([0, 1], 3, space="title")
    docs.hybrid_search("text", 4, queries={"dense": [1, 1, 1], "title": [1, 1]})
    assert logged(connection) == [("[0,1]", 3, None), ("[1,1]", 4, None)]
    assert docs.logged_queries().queries == 0
    docs.drop_space("title")
    assert logged(connection) == []


def test_values_of_other_kinds_are_refused(db: Database) -> None:
    docs: Any = db.create_collection("docs", dimensions=3, keywords=False)
    for refused, error, message in (
        (lambda: docs.log_queries("a"), ConfigurationError, "share is a number"),
        (lambda: docs.log_queries(1, "a"), ConfigurationError, "keep is a whole number"),
        (lambda: docs.watch(queries="x"), ConfigurationError, "queries is a whole number"),
        (lambda: docs.watch("x"), ConfigurationError, "k is a whole number"),
        (lambda: docs.set_drift_baseline(queries="x"), ConfigurationError, "queries is a whole number"),
        (lambda: docs.tune("0.9"), TuningError, "a target recall is a number"),
        (lambda: docs.tune(0.9, k="10"), TuningError, "k must be a whole number"),
        (lambda: docs.tune(0.9, tail_share="1"), TuningError, "tail_share must be a number"),
        (lambda: docs.advise("0.9"), TuningError, "a target recall is a number"),
    ):
        with pytest.raises(error, match=message):
            refused()


def test_while_it_is_off_the_connection_is_not_touched() -> None:
    nobody: Any = object()
    Sampling().log(nobody, None, [1, 0, 0], 10, None)
    sampling = Sampling()
    sampling.note({"": (1, 1.0)})
    with pytest.raises(AttributeError):
        sampling.log(nobody, None, [1, 0, 0], 10, None)


def test_the_share_is_kept(docs: Collection, connection: psycopg.Connection) -> None:
    docs.log_queries(share=0.2)
    connection.execute(MANY, [300])
    assert 60 - 5 * np.sqrt(300 * 0.2 * 0.8) < docs.logged_queries().queries < 60 + 5 * np.sqrt(300 * 0.2 * 0.8)
    docs.forget_queries()
    for _ in range(200):
        docs.search([1, 0, 0], 1)
    assert 40 - 5 * np.sqrt(200 * 0.2 * 0.8) < docs.logged_queries().queries < 40 + 5 * np.sqrt(200 * 0.2 * 0.8)


def test_the_newest_are_kept(docs: Collection, connection: psycopg.Connection) -> None:
    docs.log_queries(share=1, keep=20)
    connection.execute(MANY, [200])
    kept = [int(query.split(",")[1]) for query, *_ in logged(connection)]
    assert 20 <= len(kept) < 100  # cut at every second on average
    assert kept == list(range(201 - len(kept), 201))


def test_two_that_cut_the_log_do_not_wait_for_each_other(docs: Collection, dsn: str) -> None:
    docs.log_queries(share=1, keep=1)  # cut at each
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        for connection in (first, second, first):
            connection.execute("SET lock_timeout = '1ms'")
            connection.execute(MANY, [3])
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert 1 <= docs.logged_queries().queries <= 4


def test_read_only_transactions_search_unlogged(docs: Collection, connection: psycopg.Connection) -> None:
    docs.log_queries(share=1)
    connection.execute("SET default_transaction_read_only = on")
    assert connection.execute(MANY, [2]).fetchone() == (2,)
    connection.execute("RESET default_transaction_read_only")
    assert logged(connection) == []
    # A statement that Python fetched before the server became a standby
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on".encode())
    docs.search([1, 0, 0])
    docs.database.drain()
    assert len(docs.search([1, 0, 0])) == 10
    assert len(logged(connection)) == 1


def test_rights(docs: Collection, connection: psycopg.Connection, role: str) -> None:
    docs.log_queries(share=1)
    rights = [
        "",
        "INSERT ON pgvec.query_log",
        "DELETE ON pgvec.query_log",
        "SELECT (id, space_id) ON pgvec.query_log",
    ]
    counts = []
    for right in rights:
        if right:
            connection.execute(f"GRANT {right} TO {role}".encode())
        connection.execute(f"SET ROLE {role}".encode())
        assert connection.execute(MANY, [1]).fetchone() == (1,)
        connection.execute("RESET ROLE")
        counts.append(len(logged(connection)))
    assert counts == [0, 0, 0, 1]
    connection.execute(f"SET ROLE {role}".encode())
    for forbidden in ("SELECT query FROM pgvec.query_log", "SELECT pgvec.log_queries('docs')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forbidden.encode())
    connection.execute("RESET ROLE")
    connection.execute(f"REVOKE SELECT ON pgvec.query_sampling FROM {role}; SET ROLE {role}".encode())
    assert connection.execute(MANY, [1]).fetchone() == (1,)


def test_a_log_that_cannot_be_written_fails_no_search(docs: Collection, connection: psycopg.Connection) -> None:
    docs.log_queries(share=1)
    connection.execute("ALTER TABLE pgvec.query_log ADD CONSTRAINT full_up CHECK (false) NOT VALID")
    assert len(docs.search([1, 0, 0], 2)) == 2
    assert connection.execute(MANY, [2]).fetchone() == (2,)
    assert logged(connection) == []


@pytest.mark.parametrize(
    "values", [{"share": 1.5}, {"share": -0.1}, {"share": float("nan")}, {"keep": 0}, {"keep": 10**6}]
)
def test_what_cannot_be_logged_is_refused(docs: Collection, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(values))} must be from"):
        docs.log_queries(**values)
    assert docs.logged_queries().share is None


def test_unknown_and_unsearchable_spaces(docs: Collection) -> None:
    with pytest.raises(CollectionNotFound, match="no vector space"):
        docs.log_queries(space="nothing")
    docs.add_space("tokens", dimensions=2, type="vector[]")
    with pytest.raises(ConfigurationError, match="several vectors a chunk"):
        docs.log_queries(space="tokens")
