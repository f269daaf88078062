"""Revision 0003: a database without keyword indexes goes up, gets one, and goes down again without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, NotMigrated
from pgvec_toolkit.schema import migrate
from tests.integration.keyword_oracle import check_keyword_index
from tests.migration.test_search_engine import DIMENSIONS, OLD_COLLECTION, STORED, catalogue, structure

# Public functions as version 0.2 had them, whose signatures are others now.
OLD_FUNCTIONS = """
CREATE FUNCTION pgvec.create_collection(name text, dimensions integer, distance text DEFAULT NULL,
    columns jsonb DEFAULT '{}', space text DEFAULT 'dense', language text DEFAULT 'english',
    schema text DEFAULT 'public', model_id integer DEFAULT NULL, type text DEFAULT NULL) RETURNS void
    LANGUAGE sql AS 'SELECT';
INSERT INTO pgvec.run_always_sql (checksum) VALUES ('of the version before');
"""


@pytest.fixture
def old(empty_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A database at revision 0002 with a filled collection, and a role that reads it."""
    migrate.upgrade(empty_dsn, "0002")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        role = f"reader_{connection.info.backend_pid}"
        connection.execute(OLD_FUNCTIONS.encode())
        connection.execute(OLD_COLLECTION.encode())
        for key, vector in enumerate(STORED[:60], start=1):
            text = None if key % 7 == 0 else f"the text number{key} of several " * (key % 4)
            values = [str(key - 1), f"d{key % 30}", text, 2000 + key % 10]
            connection.execute("INSERT INTO docs (id, document_id, text, year) VALUES (%s, %s, %s, %s)", values)
            connection.execute("INSERT INTO docs_dense VALUES (%s, %s::text::vector)", [key, str(vector.tolist())])
        connection.execute(
            f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}; "
            f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {role}; GRANT SELECT ON docs, docs_dense TO {role}".encode()
        )
        yield connection
        connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def tables(connection: psycopg.Connection[Any]) -> list[str]:
    statement = (
        "SELECT c.relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"
    )
    return [name for (name,) in connection.execute(statement)]


def triggers(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'docs'::regclass AND starts_with(tgname, 'pgvec_keywords_')"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_up_with_a_collection_that_has_no_keyword_index(old: psycopg.Connection[Any], empty_dsn: str) -> None:
    before = catalogue(empty_dsn)
    with Database(empty_dsn) as database, pytest.raises(NotMigrated):
        database.check_migrated()
    migrate.upgrade(empty_dsn)
    assert (catalogue(empty_dsn), triggers(old), tables(old)) == (before, 0, ["docs", "docs_dense"])
    names = [name for (name,) in old.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'pgvec'::regnamespace")]
    assert len(names) == len(set(names))
    with Database(empty_dsn) as database:
        database.check_migrated()
        docs = database.collection("docs")
        with pytest.raises(ConfigurationError, match=r"has no keyword index.*pgvec\.create_keyword_index\('docs'\)"):
            docs.keyword_search("number3")
        with pytest.raises(ConfigurationError, match="has no keyword index"):
            docs.hybrid_search("number3", queries={"dense": STORED[2]})
        docs.upsert([{"id": "later", "text": "written before there is an index", "vector": STORED[70]}])
        docs.create_keyword_index()
        check_keyword_index(old)
        assert [hit.id for hit in docs.keyword_search("number3")] == ["2"]
        assert docs.hybrid_search("number3", queries={"dense": STORED[2]})[0].id == "2"
        docs.upsert([{"id": "after", "text": "written when there is one", "vector": STORED[71]}])
        check_keyword_index(old)
        assert {hit.id for hit in docs.keyword_search("written")} == {"later", "after"}


def test_readers_search_by_keywords_when_the_index_is_theirs_to_read(
    old: psycopg.Connection[Any], empty_dsn: str
) -> None:
    migrate.upgrade(empty_dsn)
    old.execute("SELECT pgvec.create_keyword_index('docs')")
    role = f"reader_{old.info.backend_pid}"
    old.execute(f"GRANT SELECT ON docs_keywords, docs_lexemes TO {role}; SET ROLE {role}".encode())
    assert old.execute("SELECT id FROM pgvec.keyword_search('docs', 'number5')").fetchall() == [("4",)]
    assert old.execute("SELECT count(*) FROM pgvec.keyword_indexes").fetchone() == (1,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        old.execute("DELETE FROM pgvec.keyword_indexes")


def test_down_with_a_keyword_index_and_up_again(old: psycopg.Connection[Any], empty_dsn: str) -> None:
    before = structure(empty_dsn), catalogue(empty_dsn)
    migrate.upgrade(empty_dsn)
    with Database(empty_dsn) as database:
        database.collection("docs").create_keyword_index(k1=0.9)
        database.create_collection("other", dimensions=DIMENSIONS)
        database.drop_collection("other")
    assert (triggers(old), "docs_keywords" in tables(old)) == (4, True)
    migrate.downgrade(empty_dsn, "0002")
    assert (structure(empty_dsn), catalogue(empty_dsn)) == before
    assert (triggers(old), tables(old)) == (0, ["docs", "docs_dense"])
    assert old.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'pgvec'::regnamespace").fetchall() == []
    old.execute("UPDATE docs SET text = 'written while it was down'")
    migrate.upgrade(empty_dsn)
    with Database(empty_dsn) as database:
        docs = database.collection("docs")
        with pytest.raises(ConfigurationError, match="has no keyword index"):
            docs.keyword_search("written")
        docs.create_keyword_index()
        assert len(docs.keyword_search("written", 100)) == 60
    check_keyword_index(old)
