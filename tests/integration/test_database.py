"""Connecting: what is found out, what is said when it fails, and what the pool survives."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import PoolTimeout

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database, resolve_dsn
from pgvec_toolkit.errors import (
    CollectionExists,
    CollectionNotFound,
    ConfigurationError,
    ConnectionFailed,
    FilterError,
    InvalidName,
    NotMigrated,
    UnsupportedFeature,
)

OTHERS = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"


# -- which server ----------------------------------------------------------------------------------


def test_an_explicit_dsn_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVEC_DSN", "host=environment")
    monkeypatch.setenv("PGHOST", "libpq")
    assert resolve_dsn("host=given") == "host=given"
    assert resolve_dsn() == "host=environment"


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"])
def test_libpqs_own_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("PGVEC_DSN", raising=False)
    assert resolve_dsn() is None
    monkeypatch.setenv(name, "somewhere")
    assert resolve_dsn() == ""
    assert resolve_dsn("") == ""


def test_variables_that_name_no_server_mean_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGUSER", "me")
    monkeypatch.setenv("PGHOST", "")
    assert resolve_dsn() is None


def test_an_empty_dsn_asks_for_libpqs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVEC_DSN", "host=environment")
    assert resolve_dsn("") == ""


@pytest.mark.parametrize("dsn", ["bla", "host=x colour=green", "postgresql://[::1"])
def test_what_is_no_dsn_is_refused(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not a PostgreSQL connection string.*Write host="):
        pgvec.connect(dsn)


def test_connect_by_dsn_by_uri_and_by_environment(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}

    def name_of_database(given: str | None) -> str:
        with pgvec.connect(given) as database:
            return str(database.fetch_one("SELECT current_database()")[0])

    assert name_of_database(dsn) == parts["dbname"]
    uri = f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"
    if passfile := parts.get("passfile"):
        uri += f"&passfile={passfile}"
    if parts.get("password"):
        monkeypatch.setenv("PGPASSWORD", parts["password"])
    assert name_of_database(uri) == parts["dbname"]
    monkeypatch.setenv("PGVEC_DSN", uri)
    assert name_of_database(None) == parts["dbname"]
    monkeypatch.delenv("PGVEC_DSN")
    for name in ("host", "port", "user", "dbname", "passfile"):
        if parts.get(name):
            variable = {"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}")
            monkeypatch.setenv(variable, parts[name])
    assert name_of_database(None) == parts["dbname"]


# -- what is wrong ---------------------------------------------------------------------------------


def test_an_empty_database_says_how_to_migrate_it(empty_dsn: str) -> None:
    with pytest.raises(NotMigrated, match="run `pgvec migrate`"):
        pgvec.connect(empty_dsn)
    with Database(empty_dsn) as database:
        with pytest.raises(NotMigrated, match="run `pgvec migrate`"):
            _ = database.capabilities
        with pytest.raises(NotMigrated):
            database.drop_collection("docs")
        database.migrate()
        assert database.create_collection("docs", dimensions=2).search([1, 0]) == []
        assert database.capabilities.vector >= (0, 8, 0)


def test_a_database_of_another_version_is_not_used(db: Database) -> None:
    db.fetch("UPDATE pgvec.run_always_sql SET checksum = 'other'")
    with pytest.raises(NotMigrated, match="another version"):
        pgvec.connect(db.dsn)


def test_an_unreachable_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with Database("host=127.0.0.1 port=1", timeout=3600) as database:
        getconn = database._pool.getconn

        def recorded(timeout: float | None = None) -> psycopg.Connection:
            waits.append(3600 if timeout is None else timeout)
            return getconn(timeout)

        monkeypatch.setattr(database._pool, "getconn", recorded)
        with pytest.raises(ConnectionFailed, match="port 1 failed"):
            database.check_migrated()
    assert sum(waits) <= 1


def test_what_keeps_us_out_is_said(dsn: str) -> None:
    with pytest.raises(ConnectionFailed, match='database "nowhere" does not exist'):
        pgvec.connect(make_conninfo(dsn, dbname="nowhere"))
    with pytest.raises(ConnectionFailed, match=r"no\.such\.host\.invalid"):
        pgvec.connect("host=no.such.host.invalid")
    with pytest.raises(ConnectionFailed), Database(make_conninfo(dsn, dbname="nowhere")).dedicated_connection():
        pass


def test_the_dsns_own_timeout_is_kept() -> None:
    with Database("host=x connect_timeout=3") as theirs, Database("host=x") as ours:
        assert "connect_timeout" not in theirs._options
        assert ours._options["connect_timeout"] == 10


def test_long_work_has_no_timeout_and_our_errors(dsn: str) -> None:
    timeouts = ["statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"]
    everywhere = "SELECT DISTINCT setting FROM pg_settings WHERE name = ANY(%s) OR name = 'transaction_timeout'"
    with Database(make_conninfo(dsn, options=" ".join(f"-c {name}=60000" for name in timeouts))) as database:
        with database.connection() as pooled:
            assert ("60000",) in pooled.execute(everywhere, [timeouts]).fetchall()
        with database.dedicated_connection() as connection:
            assert connection.execute(everywhere, [timeouts]).fetchall() == [("0",)]
        with pytest.raises(FilterError), database.dedicated_connection() as connection:
            connection.execute("SELECT 'x'::date")
    assert connection.closed


def test_an_exhausted_pool_is_not_called_unreachable(dsn: str) -> None:
    with Database(dsn, max_size=1) as database, database.connection():
        database._pool.timeout = 0.2
        with pytest.raises(ConnectionFailed, match="raise max_size") as caught, database.connection():
            pass
        assert isinstance(caught.value.__cause__, PoolTimeout)


def test_a_closed_database_says_so(dsn: str) -> None:
    database = pgvec.connect(dsn)
    database.close()
    database.close()
    with pytest.raises(ConnectionFailed, match="closed"):
        database.collections()


def test_errors_of_the_sql_functions_have_names(db: Database) -> None:
    db.create_collection("docs", dimensions=2)
    with pytest.raises(CollectionExists, match=r"'docs' exists already\. Open it") as caught:
        db.create_collection("docs", dimensions=2)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    with pytest.raises(CollectionNotFound, match=r"'nothing'.*Known: docs"):
        db.collection("nothing")
    with pytest.raises(InvalidName, match="lower-case"):
        db.create_collection("No Way", dimensions=2)
    with pytest.raises(FilterError, match=r"\$near"):
        db.collection("docs").search([1, 0], where={"year": {"$near": 1}})
    with pytest.raises(ConfigurationError, match="dimensions of type vector must be"):
        db.create_collection("many", dimensions=16_001)


# -- what the server can do ------------------------------------------------------------------------


def test_capabilities_are_those_of_the_server(db: Database, connection: psycopg.Connection) -> None:
    found = db.capabilities
    (version,) = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone() or ("",)
    assert ".".join(map(str, found.vector)) == version
    assert connection.execute("SHOW server_version").fetchone() == (found.server,)
    assert not found.replica


def test_advisories_are_those_not_yet_fixed(db: Database) -> None:
    def known(version: str, server: str) -> list[str]:
        return [a for (a,) in db.fetch("SELECT advisory FROM pgvec._advisories($1, $2)", [version, server])]

    versions = ("0.8.0", "0.8.2", "0.8.3", "0.8.4", "0.8.6", "0.10.0", "1.0")
    assert [len(known(version, "PostgreSQL 18.1, 64-bit")) for version in versions] == [3, 2, 1, 0, 0, 0, 0]
    assert [len(known(version, "PostgreSQL 18.1, 32-bit")) for version in versions] == [4, 3, 2, 1, 0, 0, 0]
    assert all("pgvector 0." in advisory for advisory in known("0.8.0", "32-bit"))
    db.fetch("UPDATE pg_extension SET extversion = '0.8.2' WHERE extname = 'vector'")
    assert db.advisories() == known("0.8.2", "64-bit")


def test_an_extension_that_is_too_old_is_refused(db: Database) -> None:
    db.fetch("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(UnsupportedFeature, match=r"0\.7\.4.*ALTER EXTENSION vector UPDATE"):
        _ = db.capabilities
    db.fetch("UPDATE pg_extension SET extversion = '0.8.0' WHERE extname = 'vector'")
    assert db.capabilities.vector == (0, 8, 0)


def test_just_in_time_compilation_is_off_in_our_sessions_only(db: Database, connection: psycopg.Connection) -> None:
    assert db.fetch("SHOW jit") == [("off",)]
    (theirs,) = connection.execute("SHOW jit").fetchall()
    assert db.fetch("SELECT reset_val FROM pg_settings WHERE name = 'jit'") == [theirs]


# -- the pool --------------------------------------------------------------------------------------


@pytest.fixture
def docs(db: Database, vectors: Callable[..., np.ndarray]) -> pgvec.Collection:
    made = db.create_collection("docs", dimensions=8)
    made.upsert({"id": [str(row) for row in range(500)], "vector": vectors(500, 8)})
    return made


@pytest.mark.usefixtures("docs")
def test_twenty_threads_share_a_pool_of_four(dsn: str, vectors: Callable[..., np.ndarray]) -> None:
    stored = vectors(500, 8)
    together = threading.Barrier(20)
    with Database(dsn, max_size=4) as shared:
        collection = shared.collection("docs")

        def work(thread: int) -> list[bool]:
            together.wait()
            rows = range(thread, 500, 20)
            return [collection.search(stored[row], k=1)[0].id == str(row) for row in rows]

        with ThreadPoolExecutor(20) as threads:
            found = [each for result in threads.map(work, range(20)) for each in result]
        (open_connections,) = shared.fetch_one(f"SELECT count(*) FROM pg_stat_activity WHERE {OTHERS}")
    assert found == [True] * 500
    assert open_connections <= 4 + 4  # and those of fixture db


def _end_all_sessions(dsn: str) -> int:
    """End all others, and return when they are gone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        ended = connection.execute(
            f"SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE {OTHERS}"
        ).fetchone()
        assert ended is not None
        return int(ended[0])


@pytest.mark.usefixtures("docs")
def test_sessions_ended_while_idle_are_not_noticed(dsn: str) -> None:
    with Database(dsn, min_size=4, max_size=4) as shared:
        collection = shared.collection("docs")
        shared._pool.wait()
        assert _end_all_sessions(dsn) >= 4
        # Were a dead connection handed out, one of the first four searches would fail.
        for _ in range(8):
            assert len(collection.search(np.ones(8))) == 10


def test_a_session_ended_while_it_works_is_an_error_of_ours(db: Database) -> None:
    with pytest.raises(ConnectionFailed, match="terminating connection"), db.connection() as borrowed:
        borrowed.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert db.fetch("SELECT 1") == [(1,)]


def test_a_failed_statement_leaves_a_usable_connection(dsn: str) -> None:
    with Database(dsn, max_size=1) as database:
        for _ in range(3):
            with database.connection() as borrowed:
                borrowed.execute("BEGIN")
                with pytest.raises(psycopg.errors.DivisionByZero):
                    borrowed.execute("SELECT 1 / 0")
            assert database.fetch("SELECT 1") == [(1,)]


def test_a_forgotten_transaction_is_rolled_back(db: Database) -> None:
    with db.connection() as borrowed:
        borrowed.execute("CREATE TABLE kept (x int)")
        borrowed.execute("BEGIN")
        borrowed.execute("INSERT INTO kept VALUES (1)")
    assert db.fetch("SELECT count(*) FROM kept") == [(0,)]


SCRIPT = """
import sys
import pgvec_toolkit as pgvec
database = pgvec.connect(sys.argv[1])
print(database.collections(), database.fetch("SELECT 1"))
"""


@pytest.mark.parametrize("end", ["", "database.close()", "del database", "sys.exit(0)"])
def test_a_program_ends_in_silence(dsn: str, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", SCRIPT + end, dsn],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] [(1,)]\n", "")
