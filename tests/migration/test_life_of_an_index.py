"""Revision 0004: a database with a tuned index and a reader goes up, gets a life, and goes down again without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import NotMigrated
from pgvec_toolkit.schema import migrate
from tests.migration.test_search_engine import OLD_COLLECTION, STORED, catalogue, check_searches, structure

Connection = psycopg.Connection[Any]
NEW_TABLES = ["drift_baselines", "ground_truths", "index_builds", "query_log", "query_sampling", "recall_checks"]
# Public functions as the version before had them, whose signatures are others now.
OLD_FUNCTIONS = """
CREATE FUNCTION pgvec.search(collection text, query text, k integer DEFAULT 10, old integer DEFAULT 0) RETURNS void
    LANGUAGE sql AS 'SELECT';
CREATE FUNCTION pgvec.recall(collection text, k integer DEFAULT 10, old integer DEFAULT 0) RETURNS void
    LANGUAGE sql AS 'SELECT';
INSERT INTO pgvec.run_always_sql (checksum) VALUES ('of the version before');
"""
TUNED = """
INSERT INTO pgvec.tuning_profiles
    (space_id, index_method, index_shape, k, target_recall, setting, oversampling, recall, evidence)
VALUES (1, 'hnsw', 'full', 5, 0.9, 77, 1, 0.93, '{"queries": 50}'), (1, 'hnsw', 'full', 10, 0.95, 99, 1, 0.96, '{}'),
       (1, 'ivfflat', 'full lists=7', 10, 0.9, 3, 1, 0.91, '{}')
"""
PROFILES = """
SELECT index_method, k, target_recall, setting, recall, evidence FROM pgvec.tuning_profiles ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def old(empty_dsn: str) -> Iterator[Connection]:
    """A database at revision 0003 with a tuned collection, a role that reads it and one that writes it."""
    migrate.upgrade(empty_dsn, "0003")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        reader, writer = roles(connection)
        connection.execute(OLD_FUNCTIONS.encode())
        connection.execute(OLD_COLLECTION.encode())
        for key, vector in enumerate(STORED, start=1):
            connection.execute(
                "INSERT INTO docs (id, document_id, text, metadata, year) VALUES (%s, %s, %s, %s::jsonb, %s)",
                [str(key - 1), f"d{key % 30}", f"text {key}", '{"colour": "red"}', 2000 + key % 10],
            )
            connection.execute("INSERT INTO docs_dense VALUES (%s, %s::text::vector)", [key, str(vector.tolist())])
        connection.execute("CREATE INDEX docs_dense_hnsw ON docs_dense USING hnsw (embedding vector_cosine_ops)")
        connection.execute("ANALYZE docs, docs_dense")
        connection.execute(TUNED.encode())
        connection.execute(
            f"CREATE ROLE {reader}; CREATE ROLE {writer}; GRANT USAGE ON SCHEMA pgvec TO {reader}, {writer};"
            f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {reader};"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgvec TO {writer};"
            f"GRANT SELECT ON docs, docs_dense TO {reader}".encode()
        )
        yield connection
        connection.execute(
            f"RESET ROLE; DROP OWNED BY {reader}, {writer}; DROP ROLE {reader}; DROP ROLE {writer}".encode()
        )


def roles(connection: Connection) -> tuple[str, str]:
    return f"reader_{connection.info.backend_pid}", f"writer_{connection.info.backend_pid}"


def granted(connection: Connection, role: str) -> dict[str, set[str]]:
    """What a role may do with the new tables."""
    rows = connection.execute(
        "SELECT table_name, array_agg(privilege_type::text) FROM information_schema.role_table_grants"
        " WHERE table_schema = 'pgvec' AND grantee = %s AND table_name = ANY (%s) GROUP BY 1",
        [role, NEW_TABLES],
    ).fetchall()
    return {table: set(rights) for table, rights in rows}


def test_up_with_profiles_an_index_and_a_reader(old: Connection, empty_dsn: str) -> None:
    before, profiles = catalogue(empty_dsn), old.execute(PROFILES).fetchall()
    with Database(empty_dsn) as database, pytest.raises(NotMigrated):
        database.check_migrated()
    migrate.upgrade(empty_dsn)
    assert (catalogue(empty_dsn), old.execute(PROFILES).fetchall()) == (before, profiles)
    check_searches(empty_dsn)
    names = [name for (name,) in old.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'pgvec'::regnamespace")]
    assert len(names) == len(set(names))
    # What was tuned is current, and what searches go by.
    kept = "SELECT DISTINCT is_default, filter_class, superseded_at, tail_share FROM pgvec.tuning_profiles"
    assert old.execute(kept).fetchall() == [(True, "", None, None)]
    with psycopg.connect(empty_dsn) as connection:
        for k, setting in ((5, "77"), (10, "99")):
            connection.execute("SELECT count(*) FROM pgvec.search('docs', %s::text, %s)", [str(STORED[0].tolist()), k])
            assert connection.execute("SELECT current_setting('hnsw.ef_search')").fetchone() == (setting,)


def test_rights_are_carried_over_but_for_what_users_asked(old: Connection, empty_dsn: str) -> None:
    migrate.upgrade(empty_dsn)
    reader, writer = roles(old)
    shared = [table for table in NEW_TABLES if table != "query_log"]
    assert granted(old, reader) == {table: {"SELECT"} for table in shared}
    assert granted(old, writer) == {table: {"SELECT", "INSERT", "UPDATE", "DELETE"} for table in shared}
    old.execute(f"SET ROLE {reader}".encode())
    assert old.execute("SELECT id FROM pgvec.search('docs', %s::text, 1)", [str(STORED[7].tolist())]).fetchall() == [
        ("7",)
    ]
    for table in shared:
        assert old.execute(f"SELECT count(*) FROM pgvec.{table}".encode()).fetchone() == (0,)
    assert old.execute("SELECT count(*) FROM pgvec.health WHERE severity = 'error'").fetchone() == (0,)
    assert old.execute("TABLE pgvec.build_progress").fetchall() == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        old.execute("TABLE pgvec.query_log")


def test_profiles_are_one_for_each_target_and_one_of_them_is_the_default(old: Connection, empty_dsn: str) -> None:
    migrate.upgrade(empty_dsn)
    another = (
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall,"
        " is_default) VALUES (1, 'hnsw', 'full', 10, {}, 200, 0.99, {})"
    )
    old.execute(another.format(0.99, False).encode())
    for target, is_default in ((0.99, False), (0.98, True)):
        with pytest.raises(psycopg.errors.UniqueViolation):
            old.execute(another.format(target, is_default).encode())
    old.execute("UPDATE pgvec.tuning_profiles SET superseded_at = now() WHERE k = 10")
    old.execute(another.format(0.99, True).encode())  # what is history does not count


def test_down_with_a_life_and_up_again(old: Connection, empty_dsn: str) -> None:
    before = structure(empty_dsn), catalogue(empty_dsn), old.execute(PROFILES).fetchall()
    migrate.upgrade(empty_dsn)
    # Another target for k = 10, one for filters, history; a build, a logged query, a check.
    old.execute(
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall,"
        " is_default, filter_class, superseded_at) VALUES"
        " (1, 'hnsw', 'full', 10, 0.99, 300, 0.99, false, '', NULL),"
        " (1, 'hnsw', 'full', 10, 0.95, 400, 0.95, true, 'section', NULL),"
        " (1, 'hnsw', 'full', 10, 0.95, 500, 0.95, true, '', now()),"
        " (1, 'hnsw', 'full', 20, 0.95, 600, 0.95, true, '', now());"
        "INSERT INTO pgvec.index_builds (space_id, index_name, method, form, dimensions, options, online, rows,"
        " memory_limit, workers, forecast_memory, forecast_bytes, seconds, bytes)"
        " VALUES (1, 'docs_dense_hnsw', 'hnsw', 'full', 8, '{}', false, 300, 1, 0, 1, 1, 1, 1);"
        "INSERT INTO pgvec.query_log (space_id, query, k) VALUES (1, '[1]', 10);"
        "INSERT INTO pgvec.recall_checks (space_id, k, source, queries, recall, recall_low, recall_high, short_results,"
        " milliseconds) VALUES (1, 10, 'log', 1, 1, 1, 1, 0, 1)"
    )
    migrate.downgrade(empty_dsn, "0003")
    assert (structure(empty_dsn), catalogue(empty_dsn), old.execute(PROFILES).fetchall()) == before
    assert old.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'pgvec'::regnamespace").fetchall() == []
    # Its functions are for the version before to install.
    assert old.execute("SELECT count(*) FROM pgvec.run_always_sql").fetchone() == (0,)
    with Database(empty_dsn) as database, pytest.raises(NotMigrated):
        database.check_migrated()
    migrate.upgrade(empty_dsn)
    check_searches(empty_dsn)
    assert old.execute(PROFILES).fetchall() == before[2]
    for table in NEW_TABLES:
        assert old.execute(f"SELECT count(*) FROM pgvec.{table}".encode()).fetchone() == (0,)


def test_down_keeps_the_latest_of_several_forms(old: Connection, empty_dsn: str) -> None:
    """An index was tuned in one form, and then in another: an older version knows one profile of a method and k."""
    migrate.upgrade(empty_dsn)
    old.execute(
        "INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall)"
        " VALUES (1, 'hnsw', 'binary', 10, 0.9, 123, 0.92)"
    )
    migrate.downgrade(empty_dsn, "0003")
    kept = "SELECT index_shape, k, setting FROM pgvec.tuning_profiles WHERE index_method = 'hnsw' ORDER BY k"
    assert old.execute(kept).fetchall() == [("full", 5, 77), ("binary", 10, 123)]
    migrate.upgrade(empty_dsn)
    check_searches(empty_dsn)
