"""The keyword index follows whatever writes chunks, exactly; and comes and goes with its collection."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, PgvecError
from tests.integration.keyword_oracle import BRUTE_FORCE, check_keyword_index, differences, tables
from tests.words import WordEmbedder

SECONDS = float(os.environ.get("PGVEC_KEYWORD_SECONDS", "4"))
Connection = psycopg.Connection[Any]
# About 55,000 different words: whoever writes them adds up for certain, if that is allowed.
MANY = """INSERT INTO docs (id, document_id, text)
SELECT 'many' || d, 'many', (SELECT string_agg('w' || d || 'x' || i, ' ') FROM generate_series(1, 11000) i)
FROM generate_series(1, 5) d"""

FILL = """INSERT INTO docs (id, document_id, text, section) SELECT 'd' || i, 'd' || i % 10,
    CASE WHEN i % 9 = 0 THEN NULL ELSE repeat('often ', i % 13) || 'word' || i % 7 || ' word' || i % 5 END, 's' || i % 3
FROM generate_series(1, 30) i"""
UPSERT = """INSERT INTO docs (id, document_id, text)
SELECT v.id, v.id, v.text FROM unnest(%s::text[], %s::text[]) v (id, text) ORDER BY 1
ON CONFLICT (id) DO UPDATE SET text = excluded.text"""


@pytest.fixture
def docs(db: Database) -> Collection:
    return db.create_collection("docs", dimensions=1, columns={"section": str}, language="simple")


def fill(connection: Connection) -> None:
    connection.execute(FILL.encode())


def count(connection: Connection, statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return int(row[0])


# -- whatever writes ---------------------------------------------------------------------------------

STATEMENTS = [
    "UPDATE docs SET text = text || ' more' WHERE id LIKE 'd1%'",
    "UPDATE docs SET text = 'another text altogether' WHERE text IS NULL",
    "UPDATE docs SET text = NULL WHERE id IN ('d2', 'd3')",
    "UPDATE docs SET text = NULL WHERE text IS NULL",
    "UPDATE docs SET text = '' WHERE id = 'd4'",
    "UPDATE docs SET text = '' WHERE id IN ('d2', 'd4')",
    "UPDATE docs SET text = NULL WHERE text = ''",
    "UPDATE docs SET section = 'other', metadata = '{\"a\": 1}'",
    "UPDATE docs SET text = 'swap ' || (35 - key) WHERE key < 10",
    "UPDATE docs SET key = key + 1000",
    "UPDATE docs SET key = 2000 - key, text = CASE WHEN key % 2 = 0 THEN text || ' new' ELSE text END",
    "UPDATE docs SET text = 'longer ' || repeat('and longer ', 40) WHERE id = 'd5'",
    "UPDATE docs SET text = 'longer ' || repeat('and longer ', 41) WHERE id = 'd5'",  # of the same class of lengths
    "UPDATE docs SET text = text",
    "UPDATE docs SET text = 'x' WHERE false",
    "DELETE FROM docs WHERE false",
    "DELETE FROM docs WHERE id IN ('d6', 'd9', 'd10')",
    """INSERT INTO docs (id, document_id, text) VALUES ('d1', 'd', 'in conflict'), ('n1', 'd', 'new one'),
       ('d7', 'd', NULL), ('d18', 'd', 'no longer nothing'), ('n2', 'd', NULL)
       ON CONFLICT (id) DO UPDATE SET text = excluded.text""",
    "INSERT INTO docs (id, document_id, text) VALUES ('d1', 'd', 'lost'), ('n3', 'd', 'kept') ON CONFLICT DO NOTHING",
    """MERGE INTO docs d
       USING (VALUES ('d1', 'merged once more'), ('d8', NULL), ('n4', 'merged in'), ('d11', 'gone')) m (id, text)
       ON d.id = m.id WHEN MATCHED AND m.text = 'gone' THEN DELETE WHEN MATCHED THEN UPDATE SET text = m.text
       WHEN NOT MATCHED THEN INSERT (id, document_id, text) VALUES (m.id, 'm', m.text)""",
    # The same chunks go and come in one statement.
    """WITH gone AS (DELETE FROM docs WHERE id IN ('d12', 'd13') RETURNING key, id, document_id, text)
       INSERT INTO docs (key, id, document_id, text) SELECT key, id, document_id, text || ' back' FROM gone""",
    """WITH one AS (UPDATE docs SET text = 'by the first part' WHERE id = 'd14'),
            two AS (DELETE FROM docs WHERE id = 'd15'),
            three AS (INSERT INTO docs (id, document_id, text) VALUES ('n5', 'd', 'third'))
       UPDATE docs SET text = 'by the last part' WHERE id IN ('d16', 'd17')""",
    "SELECT pgvec.delete_documents('docs', '{d1,d,nothing}')",
    "TRUNCATE docs CASCADE",
    "INSERT INTO docs (id, document_id, text) VALUES ('again', 'd', 'more'), ('empty', 'd', ''), ('none', 'd', NULL)",
    "DELETE FROM docs",
]


@pytest.mark.usefixtures("docs")
def test_every_kind_of_statement(connection: Connection) -> None:
    check_keyword_index(connection)
    fill(connection)
    check_keyword_index(connection)
    for statement in STATEMENTS:
        connection.execute(statement.encode())
        assert differences(connection) == [], statement
    check_keyword_index(connection)
    assert count(connection, "SELECT (SELECT count(*) FROM docs_keywords) + (SELECT count(*) FROM docs_lexemes)") == 0


def test_what_is_kept_of_a_chunk_is_computed_within_the_statement(connection: Connection) -> None:
    """A call for each chunk would double the time that the index adds to a load."""
    plan = connection.execute(
        """EXPLAIN (VERBOSE, COSTS OFF) SELECT k.* FROM generate_series(1, 9) i, pgvec._length_classes() classes
           CROSS JOIN LATERAL pgvec._keyword_terms(to_tsvector('simple', i::text), classes) k"""
    ).fetchall()
    assert "_keyword_terms" not in str(plan)
    assert "unnest" in str(plan)


def test_what_changes_no_text_writes_nothing(connection: Connection, docs: Collection) -> None:
    fill(connection)
    state = b"""SELECT md5(string_agg(k::text || k.xmin || k.ctid, '' ORDER BY key)),
        (SELECT count(*) FROM docs_lexemes) FROM docs_keywords k"""
    before = connection.execute(state).fetchall()
    connection.execute("UPDATE docs SET section = 'other', text = text || ' '")
    assert connection.execute(state).fetchall() == before
    assert len(docs) == 30


@pytest.mark.usefixtures("docs")
def test_copy_savepoints_and_what_is_rolled_back(dsn: str, connection: Connection) -> None:
    fill(connection)
    with psycopg.connect(dsn) as other:
        with other.cursor().copy("COPY docs (id, document_id, text) FROM STDIN") as copy:
            for row in range(200):
                copy.write_row([f"c{row}", "c", None if row % 11 == 0 else f"copied row{row} row{row % 3}"])
        with other.transaction() as inner:
            other.execute("DELETE FROM docs WHERE id LIKE 'c1%'")
            other.execute("UPDATE docs SET text = 'never to be seen'")
            other.execute("SELECT pgvec.add_up_lexemes('public', 'docs')")
            assert differences(other) == []
            raise psycopg.Rollback(inner)
        assert differences(other) == []
        assert other.execute("SELECT * FROM pgvec.keyword_search('docs', 'never')").fetchall() == []
        other.execute("DELETE FROM docs WHERE id LIKE 'c2%'")
        check_keyword_index(other)
        other.commit()
        check_keyword_index(connection)
        other.execute("TRUNCATE docs CASCADE")
        other.rollback()
        other.execute("UPDATE docs SET text = 'aborted'")
        with pytest.raises(psycopg.errors.DivisionByZero):
            other.execute("SELECT 1 / 0")
        other.rollback()
    check_keyword_index(connection)


def test_writes_from_python(db: Database, connection: Connection, embedder: WordEmbedder) -> None:
    docs = db.create_collection("docs", embedder=embedder)
    docs.upsert(
        [{"id": row, "text": f"row {row} of many" if row % 5 else None, "vector": np.ones(64)} for row in range(100)]
    )
    check_keyword_index(connection)
    docs.upsert([{"id": row, "text": f"row {row} of fewer", "vector": np.ones(64)} for row in range(50, 150)])
    check_keyword_index(connection)
    documents = [
        {"id": f"doc{n}", "text": "\n\n".join(f"Part {part} of {n}. " * 30 for part in range(n % 5))} for n in range(20)
    ]
    docs.ingest(documents, progress=False)
    check_keyword_index(connection)
    documents[7]["text"] += " And an end."
    documents[8]["text"] = ""
    docs.ingest(documents, progress=False)
    docs.delete(["doc3", "7", "absent"])
    check_keyword_index(connection)
    assert docs.keyword_search("end part")[0].document_id == "doc7"
    docs.upsert({"id": ["7"], "vector": np.ones((1, 64)), "number": [3]})  # without a text
    docs.promote("number", int, progress=False)
    check_keyword_index(connection)


IDS = st.sampled_from([f"i{number}" for number in range(8)])
TEXTS = st.one_of(
    st.none(),
    st.lists(st.sampled_from(["a", "b", "c", "dé", "e-f", "it's", "x" * 300]), max_size=25).map(" ".join),
)
STEPS = st.one_of(
    st.tuples(st.just("upsert"), st.lists(st.tuples(IDS, TEXTS), max_size=5, unique_by=lambda pair: pair[0])),
    st.tuples(st.just("update"), st.tuples(st.lists(IDS), TEXTS)),
    st.tuples(st.just("append"), st.tuples(st.lists(IDS), TEXTS)),
    st.tuples(st.just("move"), st.tuples(st.lists(IDS), st.integers(1, 5))),
    st.tuples(st.just("delete"), st.lists(IDS)),
    st.tuples(st.sampled_from(["truncate", "fold", "savepoint", "back"]), st.none()),
)


def step(connection: Connection, kind: str, given: Any) -> None:
    if kind == "upsert":
        connection.execute(
            UPSERT,
            [[id for id, _ in given], [text for _, text in given]],
        )
    elif kind == "update":
        connection.execute("UPDATE docs SET text = %s WHERE id = ANY (%s)", [given[1], given[0]])
    elif kind == "append":
        connection.execute(
            "UPDATE docs SET text = concat(text, ' ', %s::text) WHERE id = ANY (%s)", [given[1], given[0]]
        )
    elif kind == "move":
        connection.execute("UPDATE docs SET key = -key - 100 * %s WHERE id = ANY (%s)", [given[1], given[0]])
    elif kind == "delete":
        connection.execute("DELETE FROM docs WHERE id = ANY (%s)", [given])
    elif kind == "fold":
        connection.execute("SELECT pgvec.add_up_lexemes('public', 'docs')")
    elif kind == "truncate":
        connection.execute("TRUNCATE docs CASCADE")
    else:
        connection.execute("SAVEPOINT here" if kind == "savepoint" else "ROLLBACK TO here")


@pytest.mark.usefixtures("docs")
def test_any_sequence_of_operations(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:

        @settings(
            max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(st.lists(STEPS, max_size=12))
        def run(steps: list[tuple[str, Any]]) -> None:
            connection.execute("SAVEPOINT here")
            for kind, given in steps:
                step(connection, kind, given)
            try:
                check_keyword_index(connection)
            finally:
                connection.rollback()

        run()


# -- coming and going --------------------------------------------------------------------------------


def test_built_on_a_filled_collection_and_dropped(db: Database, connection: Connection) -> None:
    docs = db.create_collection("docs", dimensions=1, columns={"section": str}, language="german", keywords=False)
    fill(connection)
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'docs'::regclass AND NOT tgisinternal"
    with pytest.raises(ConfigurationError, match="has no keyword index"):
        docs.keyword_search("often")
    assert (docs.drop_keyword_index(), count(connection, triggers)) == (False, 0)
    docs.create_keyword_index(k1=0.9, b=0.4)
    check_keyword_index(connection)
    assert connection.execute("SELECT k1, b FROM pgvec.keyword_indexes").fetchall() == [(0.9, 0.4)]
    given = docs.keyword_search("often word1", 50)
    assert given == docs.keyword_search("often word1", 50, k1=0.9, b=0.4)
    assert [hit.score for hit in given] != [hit.score for hit in docs.keyword_search("often word1", 50, k1=1.2)]
    with pytest.raises(PgvecError, match="has a keyword index already"):
        docs.create_keyword_index()
    assert (docs.drop_keyword_index(), docs.drop_keyword_index(), count(connection, triggers)) == (True, False, 0)
    connection.execute("UPDATE docs SET text = 'Häuser und Bäume ' || coalesce(text, '')")
    docs.create_keyword_index()
    check_keyword_index(connection)
    assert len(docs.keyword_search("haus baum", 50)) == 30
    connection.execute(b"CREATE TABLE other_keywords ()")
    with pytest.raises(PgvecError, match="other_keywords exists already"):
        db.create_collection("other", dimensions=1)
    assert db.collections() == ["docs"]
    db.drop_collection("docs")
    assert count(connection, "SELECT count(*) FROM pg_class WHERE relname LIKE 'docs%'") == 0
    assert count(connection, "SELECT count(*) FROM pgvec.keyword_indexes") == 0


def test_parameters_that_cannot_be(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=1, keywords=False)
    for k1, b in ((-1, 0.5), (1001, 0.5), (float("nan"), 0.5), (1.2, -0.1), (1.2, 1.1)):
        with pytest.raises(ConfigurationError, match="must be from 0 to"):
            docs.create_keyword_index(k1=k1, b=b)


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_no_index_from_an_old_snapshot(
    db: Database, dsn: str, connection: Connection, level: psycopg.IsolationLevel
) -> None:
    """What others wrote since the snapshot was taken would be missing."""
    db.create_collection("docs", dimensions=1, columns={"section": str}, keywords=False)
    with psycopg.connect(dsn) as other:
        other.isolation_level = level
        other.execute("SELECT count(*) FROM pg_class")
        fill(connection)
        with pytest.raises(psycopg.Error, match="cannot be built in a transaction that is") as caught:
            other.execute("SELECT pgvec.create_keyword_index('docs')")
        assert caught.value.sqlstate == "PV005"
        other.rollback()
        # Of a collection made in the same transaction nobody else can have written anything.
        other.execute("SELECT pgvec.create_collection('new', 1)")
        other.execute("INSERT INTO new (id, document_id, text) VALUES ('a', 'a', 'b')")
        other.commit()
    check_keyword_index(connection, "new")


def test_built_while_others_write_and_build(db: Database, dsn: str, connection: Connection) -> None:
    docs = db.create_collection("docs", dimensions=1, columns={"section": str}, keywords=False)
    outcomes: list[str] = []

    def build() -> None:
        try:
            docs.create_keyword_index()
            outcomes.append("built")
        except PgvecError as error:
            outcomes.append(str(error).partition(".")[0])

    with psycopg.connect(dsn) as other:
        fill(other)
        threads = [threading.Thread(target=build) for _ in range(2)]
        for thread in threads:
            thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'docs'::regclass"
        while count(connection, waiting) < 2:
            time.sleep(0.01)
        other.commit()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["built", "collection 'docs' has a keyword index already"]
    check_keyword_index(connection)
    assert count(connection, "SELECT count(*) FROM docs_keywords") == 27


@pytest.mark.parametrize("schema", ['we"ird %s %I {schema} $1', "Upper", "it's"])
def test_schemas_that_need_quoting(db: Database, connection: Connection, schema: str) -> None:
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    docs = db.create_collection("docs", dimensions=1, schema=schema, columns={"section": str})
    for statement in (
        "INSERT INTO {chunks} (id, document_id, text, section) "
        "SELECT i, i, 'text number' || i, 'a' FROM generate_series(0, 8) i",
        "UPDATE {chunks} SET text = 'quite another' WHERE id = '3'",
        "DELETE FROM {chunks} WHERE id = '5'",
    ):
        connection.execute(tables(statement, schema=schema))
    check_keyword_index(connection, schema=schema)
    assert docs.keyword_search("number4 +text", where={"section": "a"}, exclude=["7"])[0].id == "4"
    assert len(docs.hybrid_search("text", legs=["keyword", "dense"], queries={"dense": [1.0]})) == 7
    docs.drop_keyword_index()
    docs.create_keyword_index()
    check_keyword_index(connection, schema=schema)
    db.drop_collection("docs")
    left = b"SELECT count(*) FROM pg_class c WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)"
    assert connection.execute(left, [schema]).fetchone() == (0,)


# -- roles -------------------------------------------------------------------------------------------


@pytest.fixture
def role(connection: Connection) -> Iterator[str]:
    """A role with no rights but USAGE on the two schemas."""
    name = f"someone_{connection.info.backend_pid}"
    connection.execute(f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA pgvec, public TO {name}".encode())
    yield name
    connection.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_a_reader_searches(connection: Connection, docs: Collection, role: str) -> None:
    fill(connection)
    everyone = connection.execute("SELECT * FROM pgvec.keyword_search('docs', 'often -word1')").fetchall()
    assert len(everyone) == len(docs.keyword_search("often -word1")) > 5
    for granted in ("docs, docs_dense, docs_keywords, docs_lexemes", "ALL TABLES IN SCHEMA pgvec"):
        connection.execute(f"GRANT SELECT ON {granted} TO {role}".encode())
    connection.execute(f"SET ROLE {role}".encode())
    assert connection.execute("SELECT * FROM pgvec.keyword_search('docs', 'often -word1')").fetchall() == everyone
    both = connection.execute("SELECT id FROM pgvec.hybrid_search('docs', 'often -word1', '[1]', 10)").fetchall()
    assert {id for (id,) in both} == {row[0] for row in everyone}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM docs")


@pytest.mark.usefixtures("docs")
def test_a_writer_writes(connection: Connection, role: str) -> None:
    connection.execute(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON docs, docs_dense, docs_keywords, docs_lexemes TO {role}; "
        f"SET ROLE {role}".encode()
    )
    fill(connection)
    connection.execute("UPDATE docs SET text = text || ' more'; DELETE FROM docs WHERE id = 'd1'")
    check_keyword_index(connection)
    connection.execute(MANY.encode())  # which adds up
    connection.execute("RESET ROLE")
    check_keyword_index(connection)


@pytest.mark.usefixtures("docs")
def test_who_only_adds_does_not_add_up(connection: Connection, role: str) -> None:
    """A right that only every 50,000th row needs would be missed at a bad moment."""
    connection.execute(
        f"GRANT INSERT ON docs, docs_keywords, docs_lexemes TO {role}; GRANT SELECT ON docs_keywords TO {role}; "
        f"SET ROLE {role}".encode()
    )
    fill(connection)
    connection.execute(MANY.encode())
    connection.execute("RESET ROLE")
    check_keyword_index(connection)


# -- several at once ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("docs")
def test_adding_up_fails_no_writer(dsn: str, connection: Connection) -> None:
    fill(connection)
    connection.execute(MANY.encode())
    assert count(connection, "SELECT count(*) FROM docs_lexemes") == count(
        connection, "SELECT count(DISTINCT (lexeme, length_class)) FROM docs_lexemes"
    )
    for level in (psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE):
        connection.execute("DELETE FROM docs WHERE document_id = 'many'")
        with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
            one.isolation_level = two.isolation_level = level
            one.execute("SELECT count(*) FROM pg_class")  # its snapshot is older than what follows
            connection.execute("UPDATE docs SET text = text || ' again'")
            connection.execute("SELECT pgvec.add_up_lexemes('public', 'docs')")
            one.execute(MANY.encode())
            two.execute("INSERT INTO docs (id, document_id, text) VALUES (%s, 'd', 'of the second')", [level.name])
            connection.execute("SELECT pgvec.add_up_lexemes('public', 'docs')")
            two.commit()
            one.commit()
    check_keyword_index(connection)


def test_who_adds_up_waits_for_nobody(dsn: str, connection: Connection, docs: Collection) -> None:
    fill(connection)
    connection.execute("UPDATE docs SET text = text || ' more'")
    connection.execute("SET lock_timeout = '2s'")
    with psycopg.connect(dsn) as other:
        assert other.execute("SELECT pgvec.add_up_lexemes('public', 'docs')").fetchone() != (0,)
        assert connection.execute("SELECT pgvec.add_up_lexemes('public', 'docs')").fetchone() == (0,)
        connection.execute("UPDATE docs SET text = text || ' and more'")
        connection.execute("DELETE FROM docs WHERE id = 'd1'")
        assert len(docs.keyword_search("more", 50)) == 26
        assert differences(connection) == []
    check_keyword_index(connection)


KINDS = ("insert", "update", "delete", "rolled back", "added up", "searched")


class Crowd:
    """Writers, folders and searchers on connections of their own, until the time is over."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.until = time.monotonic() + SECONDS
        self.done: Counter[str] = Counter()
        self.failed: list[BaseException] = []

    def write(self, connection: Connection, chosen: random.Random) -> str:
        ids = sorted({f"i{chosen.randrange(150):03}" for _ in range(chosen.randint(1, 6))})
        texts = [" ".join(chosen.choices([f"w{n}" for n in range(12)], k=chosen.randint(0, 30))) for _ in ids]
        # Those that are there are locked in one order, or the writers themselves would be in a deadlock.
        locked = "(SELECT d.key FROM docs d WHERE d.id = ANY (%s) ORDER BY d.id FOR UPDATE) l WHERE docs.key = l.key"
        kind = chosen.choice(["insert", "update", "delete", "rolled back", "to NULL", "other column"])
        connection.execute("BEGIN")
        if kind in ("insert", "rolled back"):
            connection.execute(
                UPSERT,
                [ids, texts],
            )
        elif kind == "delete":
            connection.execute(f"DELETE FROM docs USING {locked}".encode(), [ids])
        else:
            value = {"update": "%s", "to NULL": "nullif(%s, %s)", "other column": "text, section = %s"}[kind]
            values = [texts[0]] * value.count("%s")
            connection.execute(f"UPDATE docs SET text = {value} FROM {locked}".encode(), [*values, ids])
        connection.execute("ROLLBACK" if kind == "rolled back" else "COMMIT")
        return kind

    def fold(self, connection: Connection, chosen: random.Random) -> str:
        time.sleep(chosen.random() / 50)
        (rows,) = connection.execute("SELECT pgvec.add_up_lexemes('public', 'docs')").fetchone() or (0,)
        return "added up" if rows else "nothing to add up"

    def search(self, connection: Connection, chosen: random.Random) -> str:
        words = chosen.sample([f"w{n}" for n in range(13)], k=chosen.randint(1, 4))
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            found = connection.execute(
                "SELECT score FROM pgvec.keyword_search('docs', %s, 8)", [" ".join(words)]
            ).fetchall()
            scores = connection.execute(tables(BRUTE_FORCE), [words, 8]).fetchall()
        np.testing.assert_allclose(np.ravel(found), np.ravel(scores), rtol=1e-9)
        return "searched"

    def _goes_on(self) -> bool:
        """Go on until time is up, and on a slow machine until each kind was done some times."""
        late = time.monotonic() - self.until
        return late < 0 or (late < 120 and min(self.done[kind] for kind in KINDS) <= 5)

    def run(self, act: Callable[[Connection, random.Random], str], seed: int) -> None:
        try:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                chosen = random.Random(seed)
                while not self.failed and self._goes_on():
                    self.done[act(connection, chosen)] += 1
        except BaseException as error:
            self.failed.append(error)


@pytest.mark.usefixtures("docs")
def test_many_at_once(dsn: str, connection: Connection) -> None:
    crowd = Crowd(dsn)
    acts = [crowd.write] * 4 + [crowd.fold] * 2 + [crowd.search] * 2
    threads = [threading.Thread(target=crowd.run, args=(act, seed)) for seed, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"in {SECONDS:g} s:", ", ".join(f"{n} {kind}" for kind, n in sorted(crowd.done.items())))
    assert crowd.failed == []
    assert min(crowd.done[kind] for kind in KINDS) > 5
    check_keyword_index(connection)
