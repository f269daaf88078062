"""Migrations on real databases: there and back, many at once, killed, refused, as SQL, by Alembic itself."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgvec_toolkit import resources
from pgvec_toolkit.database import Database, connect
from pgvec_toolkit.embedded import EmbeddedServer
from pgvec_toolkit.errors import ConfigurationError, ConnectionFailed, NotMigrated
from pgvec_toolkit.schema import migrate

ROOT = Path(__file__).parents[2]
VERSIONS = resources.migrations_folder() / "versions"
Start = Callable[[str], "subprocess.Popen[str]"]
MIGRATE = "import sys; from pgvec_toolkit.schema import migrate; migrate.upgrade(sys.argv[1])"

# All that makes up a schema, each object as one line of text that does not depend on OIDs.
STRUCTURE = """
SELECT format('extension %s in %s', e.extname, e.extnamespace::regnamespace) FROM pg_extension e
UNION ALL
SELECT 'schema ' || nspname || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_'
UNION ALL
SELECT format('%s %s %s %s', c.relkind, c.oid::regclass, c.reloptions, obj_description(c.oid, 'pg_class'))
FROM pg_class c WHERE c.relnamespace = 'pgvec'::regnamespace
UNION ALL
SELECT format('column %s.%s %s %s %s %s %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
              a.attnum, a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'pgvec'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0
UNION ALL
SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint WHERE connamespace = 'pgvec'::regnamespace
UNION ALL
SELECT pg_get_indexdef(x.indexrelid) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
WHERE c.relnamespace = 'pgvec'::regnamespace
UNION ALL
SELECT pg_get_functiondef(oid) || coalesce(obj_description(oid, 'pg_proc'), 'uncommented')
FROM pg_proc WHERE pronamespace = 'pgvec'::regnamespace
UNION ALL
SELECT 'view ' || c.oid::regclass || pg_get_viewdef(c.oid) FROM pg_class c
WHERE c.relnamespace = 'pgvec'::regnamespace AND c.relkind = 'v'
UNION ALL
SELECT 'revision ' || version_num FROM pgvec.alembic_version
UNION ALL
SELECT 'checksum ' || checksum FROM pgvec.run_always_sql
ORDER BY 1
"""


def _query(dsn: str, statement: str, *parameters: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def structure(dsn: str) -> list[str]:
    return [line for (line,) in _query(dsn, STRUCTURE)]


def _leftovers(dsn: str) -> list[Any]:
    """All that is in the database beyond PostgreSQL's own."""
    return _query(
        dsn,
        "SELECT 'schema', nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$|^public$'"
        " UNION ALL SELECT 'extension', extname FROM pg_extension WHERE extname <> 'plpgsql'",
    )


@pytest.fixture(scope="module")
def expected(server_dsn: str, template: str, janitor: Callable[..., Any]) -> list[str]:
    """The structure of a freshly migrated database."""
    name = f"pgvec_structure_{os.getpid()}"
    with janitor(name, template):
        return structure(make_conninfo(server_dsn, dbname=name))


@pytest.fixture
def role(server_dsn: str, empty_dsn: str) -> Iterator[Callable[..., str]]:
    """Makes a role without rights, and a DSN of the empty database as that role."""
    made: list[str] = []

    def make(name: str) -> str:
        name = f"{name}_{os.getpid()}"
        _query(server_dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        made.append(name)
        return make_conninfo(empty_dsn, user=name, password="secret", passfile="/dev/null")

    yield make
    for name in made:
        _query(empty_dsn, f"DROP OWNED BY {name} CASCADE")
        _query(server_dsn, f"DROP ROLE {name}")


# -- the way up and down ---------------------------------------------------------------------------


def test_up_down_and_up_again_is_the_same_as_up(empty_dsn: str, expected: list[str]) -> None:
    migrate.upgrade(empty_dsn)
    assert structure(empty_dsn) == expected
    migrate.downgrade(empty_dsn, "base")
    remaining = _query(
        empty_dsn,
        "SELECT relname FROM pg_class WHERE relnamespace = 'pgvec'::regnamespace AND relkind IN ('r', 'v', 'S')"
        " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'pgvec'::regnamespace",
    )
    assert remaining == [("alembic_version",)]
    with psycopg.connect(empty_dsn) as connection, pytest.raises(NotMigrated):
        migrate.check(connection)
    migrate.upgrade(empty_dsn)
    assert structure(empty_dsn) == expected


def test_down_when_already_down_does_nothing(empty_dsn: str) -> None:
    migrate.upgrade(empty_dsn)
    migrate.downgrade(empty_dsn, "base")
    migrate.downgrade(empty_dsn, "base")
    assert _query(empty_dsn, "SELECT * FROM pgvec.alembic_version") == []


def test_the_structure_shows_differences(dsn: str, expected: list[str]) -> None:
    """What the other tests compare by."""
    for change in (
        "ALTER TABLE pgvec.models ALTER COLUMN name DROP NOT NULL",
        "DROP INDEX pgvec.vector_spaces_default",
        "ALTER FUNCTION pgvec._gate VOLATILE",
        "COMMENT ON TABLE pgvec.ledger IS NULL",
    ):
        before = structure(dsn)
        _query(dsn, change)
        assert structure(dsn) != before, change
    assert structure(dsn) != expected


def test_up_twice_writes_nothing(dsn: str) -> None:
    catalogue = "SELECT oid, xmin::text FROM pg_proc UNION ALL SELECT oid, xmin::text FROM pg_class ORDER BY 1, 2"
    before = _query(dsn, catalogue), _query(dsn, "SELECT * FROM pgvec.run_always_sql")
    migrate.upgrade(dsn)
    assert (_query(dsn, catalogue), _query(dsn, "SELECT * FROM pgvec.run_always_sql")) == before


def test_an_upgrade_keeps_collections(db: Database) -> None:
    made = db.create_collection("docs", dimensions=3, columns={"year": int})
    made.upsert([{"id": "a", "text": "x", "vector": [1, 0, 0], "year": 2020}])
    db.fetch("UPDATE pgvec.run_always_sql SET checksum = 'of an older version'")
    with pytest.raises(NotMigrated):
        db.check_migrated()
    db.migrate()
    db.check_migrated()
    (hit,) = db.collection("docs").search([1, 0, 0], where={"year": 2020})
    assert hit.id == "a"


def test_changed_functions_are_applied_again(dsn: str, expected: list[str]) -> None:
    _query(dsn, "CREATE OR REPLACE FUNCTION pgvec._gate(rows float8, k int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    _query(dsn, "COMMENT ON VIEW pgvec.spaces IS 'something else'")
    _query(dsn, "UPDATE pgvec.run_always_sql SET checksum = 'other'")
    assert structure(dsn) != expected
    migrate.upgrade(dsn)
    assert structure(dsn) == expected


def test_what_depends_on_functions_is_named(dsn: str) -> None:
    _query(dsn, "CREATE VIEW public.mine AS SELECT pgvec._gate(1, 'hnsw', 1, 1)")
    _query(dsn, "UPDATE pgvec.run_always_sql SET checksum = 'other'")
    with pytest.raises(ConfigurationError, match=r"view (public\.)?mine depends on .*Drop these objects, migrate"):
        migrate.upgrade(dsn)
    _query(dsn, "DROP VIEW public.mine")
    migrate.upgrade(dsn)


def test_the_extension_stays_out_of_schema_pgvec(dsn: str) -> None:
    """Even for a role of that name, to which schema pgvec is "$user", the first schema of its search_path."""
    (found,) = _query(dsn, "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'")
    assert found == ("public",)


def test_an_extension_in_another_schema_is_used_where_it_is(empty_dsn: str) -> None:
    _query(empty_dsn, "CREATE SCHEMA tools")
    _query(empty_dsn, "CREATE EXTENSION vector SCHEMA tools")
    migrate.upgrade(empty_dsn)
    with Database(empty_dsn) as database:
        docs = database.create_collection("docs", dimensions=2)
        docs.upsert([{"id": "a", "vector": [1, 0]}, {"id": "b", "vector": [0, 1]}])
        docs.create_index("hnsw")
        assert [hit.id for hit in docs.search([0, 1])] == ["b", "a"]
        assert database.fetch("SELECT count(*) FROM pgvec.recall('docs', k => 1)") == [(1,)]


def test_the_users_own_alembic_version_is_not_touched(empty_dsn: str) -> None:
    _query(empty_dsn, "CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY)")
    _query(empty_dsn, "INSERT INTO public.alembic_version VALUES ('theirs')")
    migrate.upgrade(empty_dsn)
    migrate.downgrade(empty_dsn, "base")
    migrate.upgrade(empty_dsn)
    assert _query(empty_dsn, "SELECT * FROM public.alembic_version") == [("theirs",)]
    ours = _query(empty_dsn, "SELECT version_num FROM pgvec.alembic_version")
    assert ours == [(sorted(_revisions())[-1],)]


# -- several at once, killed, refused --------------------------------------------------------------


@pytest.fixture
def start() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts processes that migrate a database."""
    with ExitStack() as stack:

        def start(dsn: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", MIGRATE, dsn]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            return process

        yield start


@contextmanager
def _migrations_held_up(dsn: str) -> Iterator[psycopg.Connection]:
    """Hold the lock that every migration waits for, so that they queue up."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [migrate.LOCK_KEY])
        yield connection
        connection.rollback()


def _wait_until(dsn: str, statement: str, wanted: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(15_000):
            if connection.execute(statement).fetchone() == (wanted,):
                return
            connection.execute("SELECT pg_sleep(0.02)")
    raise AssertionError(f"never {wanted}: {statement}")


WAITING = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def test_four_processes_migrate_at_once(empty_dsn: str, expected: list[str], start: Start) -> None:
    with _migrations_held_up(empty_dsn):
        processes = [start(empty_dsn) for _ in range(4)]
        _wait_until(empty_dsn, WAITING, 4)
    for process in processes:
        _, complaints = process.communicate(timeout=300)
        assert process.returncode == 0, complaints
    assert _query(empty_dsn, "SELECT count(*) FROM pgvec.alembic_version") == [(1,)]
    assert _query(empty_dsn, "SELECT count(*) FROM pgvec.run_always_sql") == [(1,)]
    assert structure(empty_dsn) == expected


def test_a_killed_migration_leaves_nothing(empty_dsn: str, expected: list[str], start: Start) -> None:
    # An event trigger holds it up at one of its last functions, with nearly all else done.
    _query(
        empty_dsn,
        """
        CREATE FUNCTION public.stand_still() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE 'pgvec.recall(%') THEN
                PERFORM pg_advisory_xact_lock(4711);
            END IF;
        END $$;
        CREATE EVENT TRIGGER stand_still ON ddl_command_end EXECUTE FUNCTION public.stand_still();
        """,
    )
    with psycopg.connect(empty_dsn) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(4711)")
        process = start(empty_dsn)
        _wait_until(empty_dsn, WAITING, 1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _wait_until(empty_dsn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()", 1)
    assert _leftovers(empty_dsn) == []
    _query(empty_dsn, "DROP EVENT TRIGGER stand_still; DROP FUNCTION public.stand_still")
    migrate.upgrade(empty_dsn)
    assert structure(empty_dsn) == expected


def test_downgrade_refuses_while_there_are_collections(db: Database) -> None:
    db.create_collection("docs", dimensions=3).upsert([{"id": "a", "vector": [1, 0, 0]}])
    before = structure(db.dsn)
    with pytest.raises(ConfigurationError, match=r"still has collections.*pgvec\.drop_collection"):
        migrate.downgrade(db.dsn, "base")
    assert structure(db.dsn) == before
    assert [hit.id for hit in db.collection("docs").search([1, 0, 0])] == ["a"]
    db.drop_collection("docs")
    migrate.downgrade(db.dsn, "base")


def test_a_database_of_a_newer_version_is_left_alone(dsn: str) -> None:
    _query(dsn, "UPDATE pgvec.alembic_version SET version_num = '9999'")
    before = structure(dsn)
    with pytest.raises(ConfigurationError, match=r"'9999'.*newer pgvec-toolkit"):
        migrate.upgrade(dsn)
    assert structure(dsn) == before


def test_an_unknown_revision_is_refused(dsn: str) -> None:
    before = structure(dsn)
    with pytest.raises(ConfigurationError, match="nonsense"):
        migrate.downgrade(dsn, "nonsense")
    assert structure(dsn) == before


def test_an_unreachable_server_is_named() -> None:
    with pytest.raises(ConnectionFailed, match="port 1 failed"):
        migrate.upgrade("host=127.0.0.1 port=1")


# -- rights ----------------------------------------------------------------------------------------


def test_a_role_without_rights_is_told_what_it_needs(empty_dsn: str, role: Callable[..., str]) -> None:
    with pytest.raises(ConfigurationError, match=r"permission denied.*role that may create schemas"):
        migrate.upgrade(role("nobody"))
    assert _leftovers(empty_dsn) == []


def test_a_role_that_may_create_schemas_only(
    empty_dsn: str, role: Callable[..., str], expected: list[str], database_name: str
) -> None:
    """Managed PostgreSQL: the administrator has created the extension."""
    plain = role("plain")
    _query(empty_dsn, "CREATE EXTENSION vector")
    _query(
        empty_dsn,
        sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
        .format(  # type: ignore[arg-type]
            sql.Identifier(database_name), sql.Identifier(psycopg.conninfo.conninfo_to_dict(plain)["user"])
        )
        .as_string(),
    )
    migrate.upgrade(plain)
    assert structure(empty_dsn) == expected
    _query(empty_dsn, f"CREATE SCHEMA mine AUTHORIZATION {psycopg.conninfo.conninfo_to_dict(plain)['user']}")
    with connect(plain) as database:
        docs = database.create_collection("docs", dimensions=2, schema="mine")
        docs.upsert([{"id": "a", "vector": [1, 0]}])
        assert [hit.id for hit in docs.search([1, 0])] == ["a"]
        docs.create_index("hnsw")
        database.drop_collection("docs")
    migrate.upgrade(plain)


# -- as SQL, and by Alembic ------------------------------------------------------------------------


def _psql(dsn: str, script: str) -> subprocess.CompletedProcess[str]:
    program = EmbeddedServer().binary("psql")
    return subprocess.run(
        [program, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "--dbname", dsn],
        input=script,
        capture_output=True,
        text=True,
    )


def test_the_script_for_psql_does_the_same(empty_dsn: str, expected: list[str]) -> None:
    script = io.StringIO()
    migrate.write_sql(script)
    done = _psql(empty_dsn, script.getvalue())
    assert done.returncode == 0, done.stderr
    assert structure(empty_dsn) == expected
    connect(empty_dsn).close()
    migrate.upgrade(empty_dsn)
    assert structure(empty_dsn) == expected


def test_the_script_for_psql_is_one_transaction(empty_dsn: str) -> None:
    script = io.StringIO()
    migrate.write_sql(script)
    done = _psql(empty_dsn, script.getvalue().replace("\nCOMMIT;", "\nSELECT 1 / 0;\nCOMMIT;"))
    assert done.returncode != 0
    assert "division by zero" in done.stderr
    assert _leftovers(empty_dsn) == []


def _alembic(*arguments: str, dsn: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=os.environ | {"PGVEC_DSN": dsn},
        capture_output=True,
        text=True,
    )


def test_alembic_itself_works_from_a_checkout(empty_dsn: str, expected: list[str]) -> None:
    upgraded = _alembic("upgrade", "head", dsn=empty_dsn)
    assert upgraded.returncode == 0, upgraded.stderr
    assert structure(empty_dsn) == expected
    current = _alembic("current", dsn=empty_dsn)
    assert current.returncode == 0, current.stderr
    assert current.stdout.strip() == f"{sorted(_revisions())[-1]} (head)"
    downgraded = _alembic("downgrade", "base", dsn=empty_dsn)
    assert downgraded.returncode == 0, downgraded.stderr
    assert _alembic("current", dsn=empty_dsn).stdout.strip() == ""
    migrate.upgrade(empty_dsn)
    assert structure(empty_dsn) == expected


def test_alembic_current_changes_nothing(empty_dsn: str) -> None:
    done = _alembic("current", dsn=empty_dsn)
    assert done.returncode == 0, done.stderr
    assert _leftovers(empty_dsn) == []


# -- files -----------------------------------------------------------------------------------------


def _revisions() -> dict[str, Path]:
    return {path.name[:4]: path for path in VERSIONS.glob("*.py") if path.name != "__init__.py"}


def test_revisions_are_numbered_without_gaps() -> None:
    paths = _revisions().values()
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", path.name) for path in paths)
    numbers = sorted(_revisions())
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]


def test_revisions_are_one_line_of_descent() -> None:
    from alembic.script import ScriptDirectory

    revisions = list(ScriptDirectory(str(resources.migrations_folder())).walk_revisions())[::-1]
    assert [revision.revision for revision in revisions] == sorted(_revisions())
    below = [None, *sorted(_revisions())[:-1]]
    assert [revision.down_revision for revision in revisions] == below


def test_revisions_make_no_functions() -> None:
    for path in _revisions().values():
        assert not re.search(r"CREATE (OR REPLACE )?(FUNCTION|VIEW)", path.read_text()), path
