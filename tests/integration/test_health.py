"""pgvec.health: each finding is provoked, and a healthy database has none."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgvec_toolkit.database import Database
from pgvec_toolkit.watch.doctor import Finding
from tests.cli.test_cli_help import COMMANDS
from tests.conftest import random_vectors
from tests.integration.health_cases import BUILD, CASES, CHECKED, IVFFLAT, LATER, LOGGED, MOVED

ROWS = 2000
TUNED = """
DELETE FROM pgvec.index_builds;
INSERT INTO pgvec.index_builds (space_id, index_name, method, form, dimensions, options, online, rows, memory_limit,
                                workers, forecast_memory, forecast_bytes, seconds, bytes, built_at)
SELECT s.id, 'docs_dense_hnsw', 'hnsw', 'full', 16, '{}', false, 2000, 1,
       0, 1000, 1, 1, pg_relation_size('docs_dense_hnsw'), now()
FROM pgvec.vector_spaces s WHERE s.table_name = 'docs_dense';
INSERT INTO pgvec.tuning_profiles (space_id, index_method, index_shape, k, target_recall, setting, recall, evidence,
                                   tuned_at)
SELECT b.space_id, 'hnsw', 'full', 10, 0.95, 40, 0.96, '{"rows": 2000}', now() FROM pgvec.index_builds b;
"""


@pytest.fixture(scope="module")
def hospital(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[str]:
    """A healthy database: collection docs, indexed and tuned, and a small one, notes, that needs neither."""
    name = f"health_{os.getpid()}"
    vectors = random_vectors(ROWS, 16)
    with janitor(name, template), Database(make_conninfo(server_dsn, dbname=name)) as database:
        docs = database.create_collection(
            "docs", dimensions=16, columns={"section": str, "year": int, "tags": list[str]}
        )
        docs.upsert(
            {"id": str(i), "text": f"text {i}", "section": "abc"[i % 3], "views": i, "vector": vectors[i]}
            for i in range(ROWS)
        )
        docs.create_index("hnsw", progress=False)
        notes = database.create_collection("notes", dimensions=3, keywords=False)
        notes.upsert({"id": str(i), "vector": [1, i, 0]} for i in range(1500))
        with database.connection() as connection:
            connection.execute(TUNED)
            connection.execute("VACUUM (ANALYZE)")
        yield database.dsn


@pytest.fixture
def patient(hospital: str) -> Iterator[psycopg.Connection]:
    """A transaction in it; what it does to the patient is undone."""
    with psycopg.connect(hospital) as connection:
        yield connection
        connection.rollback()


def found(connection: psycopg.Connection, source: str = "pgvec.health") -> list[Finding]:
    rows = connection.execute(f"SELECT severity, subject, finding, mend FROM {source}".encode()).fetchall()
    return [Finding(*row) for row in rows]


def test_a_healthy_database_has_nothing_above_a_hint(patient: psycopg.Connection) -> None:
    assert [finding for finding in found(patient) if finding.severity != "hint"] == []
    assert found(patient, "pgvec.check_indexes()") == []


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_found_and_its_mend_mends_it(patient: psycopg.Connection, name: str) -> None:
    provoked_by, severity, subject, finding, mend = CASES[name]
    before = found(patient)
    patient.execute(provoked_by.encode())
    new = [each for each in found(patient) if each not in before]
    matching = [each for each in new if subject in each.subject and re.search(finding, each.finding)]
    assert [each.severity for each in matching] == [severity], new
    assert re.search(mend, matching[0].mend), matching[0].mend
    assert (
        all(each.severity == "hint" for each in new if each not in matching)
        or "gone" in finding
        or "INVALID" in finding
    )
    if name not in LATER:
        _run(patient, matching[0].mend)
        # What only asks for the reason changes nothing.
        assert matching[0].mend.startswith(("pgvec ", "SELECT * FROM pgvec.explain")) or matching[0] not in found(
            patient
        )


@pytest.mark.parametrize("built", [2000, 0])
def test_a_table_that_was_not_analysed_has_not_grown_from_nothing(patient: psycopg.Connection, built: int) -> None:
    before = found(patient)
    patient.execute("UPDATE pgvec.tuning_profiles SET evidence = '{\"rows\": 0}'")
    patient.execute("UPDATE pgvec.index_builds SET rows = %s", [built])
    assert found(patient) == before


def test_an_index_of_unknown_age_is_unused(db: Database) -> None:
    db.create_collection("docs", dimensions=3, keywords=False)
    db.fetch("CREATE INDEX ON docs_dense USING hnsw (embedding vector_cosine_ops)")
    db.fetch(
        "INSERT INTO pgvec.query_log (space_id, query, k)"
        " SELECT id, '[]', 1 FROM pgvec.vector_spaces CROSS JOIN generate_series(1, 20)"
    )
    (unused,) = [finding for finding in db.health() if "was used by no search" in finding.finding]
    assert unused.finding == "was used by no search, and 20 are logged, if not all of them from before it was built"


@pytest.mark.parametrize(
    ("alarms", "done", "left"),
    [
        ("recall is low", "UPDATE pgvec.tuning_profiles SET tuned_at = now() + '1 h'", []),
        ("recall is low", BUILD + "built_at = now() + '1 h'", []),  # nor is that a reason to tune
        # A rebuild that was refused changes nothing.
        ("recall is low", BUILD + "built_at = now() + '1 h', index_name = 'docs_dense_ccnew'", ["recall is low"]),
        (
            f'recall is low, "{MOVED}"',
            "INSERT INTO pgvec.drift_baselines (space_id, distances, source, taken_at)"
            " SELECT space_id, '{1}', 'log', now() + '1 h' FROM pgvec.index_builds",
            ["recall is low"],
        ),
        (f'recall is low, "{MOVED}"', "UPDATE pgvec.tuning_profiles SET tuned_at = now() + '1 h'", [MOVED]),
    ],
)
def test_an_alarm_ends_when_something_was_done_about_it(
    patient: psycopg.Connection, alarms: str, done: str, left: list[str]
) -> None:
    patient.execute(CHECKED.format("0.85", alarms).encode())
    patient.execute(done.encode())
    there = [finding.finding for finding in found(patient) if finding.subject == "space docs.dense"]
    assert [each.rpartition(": " if "recall" in each else ", ")[2] for each in there] == left


def _run(connection: psycopg.Connection, mend: str) -> None:
    """Run a mend, as far as a transaction can; of a command look whether there is one."""
    if mend.startswith("pgvec "):
        for command in mend.split("&&"):
            words = shlex.split(command)[1:]
            assert words[0] in COMMANDS or " ".join(words[:2]) in COMMANDS, command
        return
    connection.execute(mend.replace(" CONCURRENTLY", "").encode())


@pytest.mark.parametrize(
    "filter",
    [
        '{"section": "a", "views": {"$gt": 3}}',  # the section's index is enough
        '{"topic": "a"}',
        '{"$not": {"views": {"$gt": 3}}}',
        '{"views": {"$like": "a%"}}',  # no index would do
        '{"$and": [{"year": {"$gt": 3}}, {"views": {"$gt": 3}}]}',
    ],
)
def test_filters_that_an_index_serves_or_none_could_are_no_finding(patient: psycopg.Connection, filter: str) -> None:
    patient.execute(LOGGED.format("%s").encode(), [filter])
    assert [finding for finding in found(patient) if finding.subject.startswith("collection")] == []


def test_a_check_that_fails_is_a_finding_and_hides_no_other(patient: psycopg.Connection) -> None:
    patient.execute(
        "CREATE OR REPLACE FUNCTION pgvec._health_dead() RETURNS TABLE (severity text, subject text, finding text, mend"
        " text) LANGUAGE sql AS $$ SELECT '', '', '', (1 / (SELECT 0))::text $$; DELETE FROM pgvec.tuning_profiles"
    )
    findings = {finding.subject: finding for finding in found(patient)}
    assert "division by zero" in findings["check dead"].finding
    assert "never tuned" in findings["space docs.dense"].finding


def test_settings_of_the_session_count_as_it_began_with_them(hospital: str) -> None:
    given = {
        "jit": "on",
        "random_page_cost": "4",
        "max_parallel_maintenance_workers": "0",
        "enable_seqscan": "off",
        "hnsw.ef_search": "10",
    }
    options = " ".join(f"-c {name}={value}" for name, value in given.items())
    with psycopg.connect(hospital, options=options) as connection:
        for name in ("jit", "enable_seqscan"):
            connection.execute(f"SET {name} = {'off' if name == 'jit' else 'on'}".encode())
        hints = {f.subject.removeprefix("setting "): f for f in found(connection)}
    assert set(given) <= set(hints)
    assert hints["jit"].mend.endswith("SET jit = 'off';")
    assert "PGOPTIONS" in hints["hnsw.ef_search"].mend


def test_what_only_a_server_can_have(patient: psycopg.Connection) -> None:
    (memory, cache) = (
        found(patient, "pgvec._health_memory(8192)"),
        found(patient, "pgvec._health_memory(1::bigint << 50)"),
    )
    assert (memory[0].severity, memory[0].subject) == ("hint", "setting shared_buffers")
    assert [finding.subject for finding in cache] == ["setting effective_cache_size"]
    assert "13 gets no more repairs" in found(patient, "pgvec._health_server(130022, '2026-11-21')")[0].finding
    assert found(patient, "pgvec._health_server(150022, '2026-11-21')") == []
    old = found(patient, "pgvec._health_extension('0.8.2', '32-bit')")
    assert [finding.severity for finding in old] == ["error", "warning", "error", "hint"]
    assert "apt install" in old[2].mend or old[2].mend == "ALTER EXTENSION vector UPDATE;"
    assert "CVE-2026-18022" in old[2].finding
    assert old[0].mend == "ALTER EXTENSION vector UPDATE;"


def test_autovacuum_that_is_off(hospital: str) -> None:
    with psycopg.connect(hospital, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum = off")
        try:
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SHOW autovacuum").fetchone() != ("off",):
                pass
            assert "setting autovacuum" in [finding.subject for finding in found(connection)]
        finally:
            connection.execute("ALTER SYSTEM RESET autovacuum")
            connection.execute("SELECT pg_reload_conf()")


def test_dead_rows(hospital: str) -> None:
    with psycopg.connect(hospital, autocommit=True) as connection:
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE notes_dense SET embedding = embedding")
        connection.execute("SELECT pg_stat_force_next_flush()")
        (dead,) = [finding for finding in found(connection) if "dead" in finding.finding]
        assert (dead.subject, dead.mend) == ("table public.notes_dense", "VACUUM (ANALYZE) public.notes_dense;")
        assert re.match(r"\d\d % of its rows are dead \(about 1\d{3}\)", dead.finding)
        with connection.transaction(force_rollback=True):
            connection.execute("CREATE INDEX ON notes_dense USING hnsw (embedding vector_cosine_ops)")
            (dead_beside_an_index,) = [finding for finding in found(connection) if "dead" in finding.finding]
            assert dead_beside_an_index.mend == "pgvec index rebuild notes --if-needed"
        connection.execute(dead.mend.encode())
        connection.execute("SELECT pg_stat_force_next_flush()")
        assert [finding for finding in found(connection) if "dead" in finding.finding] == []


def test_an_index_that_is_being_built_is_no_leftover(hospital: str, patient: psycopg.Connection) -> None:
    """A build beside a writer's transaction waits for it, its index INVALID until then."""
    patient.execute("UPDATE notes_dense SET key = key WHERE key = (SELECT min(key) FROM notes_dense)")

    def build() -> None:
        with psycopg.connect(hospital, autocommit=True) as builder:
            builder.execute(
                "CREATE INDEX CONCURRENTLY notes_building ON notes_dense USING hnsw (embedding vector_cosine_ops)"
            )

    with psycopg.connect(hospital, autocommit=True) as other:
        builder = threading.Thread(target=build)
        builder.start()
        try:
            waiting = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('notes_building') AND NOT indisvalid"
            while other.execute(waiting.encode()).fetchone() is None:
                assert builder.is_alive()
            assert [f for f in found(other) if "INVALID" in f.finding] == []
            other.execute("SET ROLE pg_read_all_data")  # to whom progress of others is hidden
            other.execute("SELECT pgvec._leftover_indexes()")
            assert other.execute("SELECT * FROM pgvec._leftover_indexes()").fetchall() == []
        finally:
            patient.rollback()
            builder.join()
        other.execute("RESET ROLE; DROP INDEX notes_building; SELECT 1")


def test_what_a_builder_has_locked_is_no_leftover(hospital: str, patient: psycopg.Connection) -> None:
    patient.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'docs_dense_hnsw'::regclass")
    assert [f for f in found(patient) if "INVALID" in f.finding]
    with psycopg.connect(hospital) as builder:
        builder.execute("SELECT pg_advisory_lock(hashtext('pgvec.build_index'), space_id) FROM pgvec.index_builds")
        assert not [f for f in found(patient) if "INVALID" in f.finding]


def test_a_scratch_collection_is_a_finding_when_its_advisor_is_dead(hospital: str, patient: psycopg.Connection) -> None:
    name = "pgvec_advice_0123abcd"
    before = found(patient)
    patient.execute("SELECT pgvec.create_collection(%s, 3), pgvec.create_collection('pgvec_advice_of_mine', 3)", [name])
    patient.execute(f"DROP INDEX {name}_metadata_idx".encode())
    (hint,) = [each for each in found(patient) if each not in before]
    assert (hint.severity, hint.subject) == ("hint", f"collection {name}")
    with psycopg.connect(hospital) as advisor:
        advisor.execute("SELECT pg_advisory_lock(hashtext('pgvec.advise'), hashtext(%s))", [name])
        assert found(patient) == before
    patient.execute(hint.mend.encode())
    assert found(patient) == before


def test_a_few_rows_are_always_drawn(patient: psycopg.Connection) -> None:
    """Of 26 pages: an eighth of them, taken by chance, is none in 3 of 100 draws."""
    drawn = "SELECT pgvec._sample_sql(pgvec._collection('docs'), pgvec._space('docs', NULL), 5)"
    (statement,) = patient.execute(drawn).fetchone() or ("",)
    assert all(len(patient.execute(statement.encode()).fetchall()) == 5 for _ in range(200))


@pytest.mark.parametrize("grants", ["", "GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO guest"])
def test_few_rights_mean_few_findings_and_no_error(patient: psycopg.Connection, grants: str) -> None:
    patient.execute("CREATE SCHEMA hidden; CREATE ROLE guest; GRANT USAGE ON SCHEMA pgvec TO guest")
    patient.execute(
        "SELECT pgvec.create_collection('secret', 3, schema => 'hidden'); UPDATE pgvec.keyword_indexes SET probe = 1"
    )
    patient.execute(f"{grants}; SET ROLE guest; SELECT 1".lstrip("; ").encode())
    guests = found(patient)
    assert patient.execute("SELECT count(*) FROM pgvec.build_progress" if grants else "SELECT 0").fetchone() == (0,)
    assert found(patient, "pgvec.check_indexes()") == []
    assert {f.subject for f in guests if "cannot read" in f.finding} == (
        {"space docs.dense", "space notes.dense", "space secret.dense"} if grants else set()
    )
    assert any("numbers words otherwise" in f.finding for f in guests) == bool(grants)
    for hint in [f for f in guests if "cannot read" in f.finding]:
        patient.execute("RESET ROLE")
        patient.execute(hint.mend.encode())
    patient.execute("SET ROLE guest")
    assert not [f for f in found(patient, "pgvec.check_health()") if "cannot read" in f.finding]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE pg_class SET relfilenode = 4000000000 WHERE oid = 'docs_dense_hnsw'::regclass", "could not open file"),
        (
            # The file of an index that holds nothing.
            "CREATE TABLE others (LIKE docs_dense);"
            "CREATE INDEX strange ON others USING hnsw (embedding vector_cosine_ops);"
            "UPDATE pg_class SET relfilenode = (SELECT relfilenode FROM pg_class WHERE relname = 'strange')"
            " WHERE oid = 'docs_dense_hnsw'::regclass",
            "it finds none",
        ),
    ],
)
def test_a_damaged_index_is_found_by_searching_it(patient: psycopg.Connection, damage: str, says: str) -> None:
    patient.execute(damage.encode())
    (canary,) = found(patient, "pgvec.check_indexes()")
    assert (canary.severity, canary.subject) == ("error", "index public.docs_dense_hnsw")
    assert says in canary.finding
    assert canary.mend == "REINDEX INDEX CONCURRENTLY public.docs_dense_hnsw;"
    assert found(patient, "pgvec.check_indexes('notes')") == []


def test_an_index_that_has_to_make_way_for_another_is_not_damaged(patient: psycopg.Connection) -> None:
    """Named so that searches are tuned for it, though the planner thinks the other one cheaper."""
    patient.execute("ALTER INDEX docs_dense_hnsw RENAME TO a")
    patient.execute(IVFFLAT.format("vector_cosine_ops", "").replace("lists = 2", "lists = 40").encode())
    assert [f.subject for f in found(patient) if "one of several" in f.finding] == ["index public.other"]
    assert found(patient, "pgvec.check_indexes()") == []


@pytest.mark.parametrize(
    ("type", "distance", "method"),
    [
        ("vector", "inner_product", "hnsw"),
        ("halfvec", "l2", "ivfflat"),
        ("bit", "hamming", "hnsw"),
        ("sparsevec", "cosine", "hnsw"),
    ],
)
def test_the_canary_sings_for_other_kinds_of_index(db: Database, type: str, distance: str, method: str) -> None:
    docs = db.create_collection("docs", dimensions=8, type=type, distance=distance)
    vectors = random_vectors(300, 8)
    if type == "bit":
        docs.upsert({"id": str(i), "vector": row > 0} for i, row in enumerate(vectors))
    elif type == "sparsevec":
        docs.upsert({"id": str(i), "vector": dict(enumerate(map(float, row)))} for i, row in enumerate(vectors))
    else:
        docs.upsert({"id": str(i), "vector": row} for i, row in enumerate(vectors))
    docs.create_index(method, progress=False)
    assert db.fetch("SELECT * FROM pgvec.check_indexes()") == []


def test_of_rows_that_are_the_same_to_an_index_it_may_find_any(patient: psycopg.Connection) -> None:
    patient.execute("SELECT pgvec.create_collection('same', 2, distance => 'l2', keywords => false)")
    patient.execute("INSERT INTO same (id, document_id) SELECT n, n FROM generate_series(1, 1000) n")
    patient.execute("INSERT INTO same_dense SELECT key, ARRAY[key, key]::integer[]::vector FROM same")
    patient.execute("CREATE INDEX ON same_dense USING hnsw ((binary_quantize(embedding)::bit(2)) bit_hamming_ops)")
    assert [found(patient, "pgvec.check_indexes('same')") for _ in range(5)] == [[]] * 5


def test_the_doctor_looks_at_the_client_as_well(hospital: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(hospital) as database:
        assert {f.severity for f in database.doctor()} <= {"hint"}
        monkeypatch.setattr("importlib.metadata.version", lambda package: "0.4.1" if package == "pgvector" else "9.9")
        (old,) = [f for f in database.doctor() if f.severity == "error"]
        assert (old.subject, old.mend) == ("pgvector", "pip install 'pgvector>=0.5'")


def test_the_doctor_of_a_database_that_was_not_migrated(empty_dsn: str) -> None:
    with Database(empty_dsn) as database:
        (missing, *_) = database.doctor()
        assert (missing.severity, missing.subject) == ("error", "schema pgvec")
        assert missing.mend.startswith("pgvec migrate")
        assert database.mend() == []


def test_safe_mends_are_applied(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=3)
    docs.upsert({"id": str(i), "vector": [1, i, 0]} for i in range(1500))
    docs.create_index("hnsw", progress=False)
    db.fetch("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'docs_dense_hnsw'::regclass")
    db.fetch("UPDATE pg_class SET reltuples = -1 WHERE oid = 'docs_dense'::regclass")
    done = db.mend()
    assert [mended.statement for mended in done] == [
        'DROP INDEX CONCURRENTLY "public"."docs_dense_hnsw"',
        'ANALYZE "public"."docs_dense"',
    ]
    assert [mended.problem for mended in done] == [None, None]
    assert docs.indexes() == []
    assert len(docs) == 1500
    assert db.mend() == []


def test_what_is_not_ours_to_analyse_is_not_mended(db: Database, dsn: str, connection: psycopg.Connection) -> None:
    role = f"nurse_{connection.info.backend_pid}"
    db.create_collection("docs", dimensions=500, keywords=False)
    db.fetch("INSERT INTO docs (id, document_id) SELECT n, n FROM generate_series(1, 40) n")
    db.fetch("INSERT INTO docs_dense SELECT key, array_fill(1, '{500}')::vector FROM docs")
    connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}".encode())
    connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {role}".encode())
    try:
        with Database(make_conninfo(dsn, options=f"-c role={role}")) as nurse:
            (mended,) = nurse.mend()
        assert mended.statement == 'ANALYZE "public"."docs_dense"'
        assert "docs_dense" in (mended.problem or "")
        (mended,) = db.mend()
        assert mended.problem is None
    finally:
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
