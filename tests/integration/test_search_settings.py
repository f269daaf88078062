"""The settings of a search, and what it leaves behind: nothing. It works whatever the search_path."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.database import Database
from pgvec_toolkit.schema import migrate
from tests.conftest import random_vectors
from tests.integration.search_oracle import K, distances_to, ids, literal, load, vector_schema, without_seqscan

Vectors = Callable[..., NDArray[np.float32]]


# -- settings --------------------------------------------------------------------------------------


def setting(connection: psycopg.Connection[Any], name: str = "hnsw.ef_search") -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_ef_search_reaches_the_scan(dsn: str) -> None:
    random = np.random.default_rng(0)
    stored, queries = random.normal(size=(2, 3000, 32)).astype(np.float32)
    with Database(without_seqscan(dsn)) as database:
        docs = load(database, stored, distance="l2")
        docs.create_index(m=4, ef_construction=8)
        truth = [set(np.argsort(distances_to("l2", query, stored))[:K].tolist()) for query in queries[:40]]

        def recall(**options: Any) -> float:
            found = [set(ids(docs.search(query, K, **options))) for query in queries[:40]]
            return float(np.mean([len(a & b) / K for a, b in zip(truth, found, strict=True)]))

        few, many = recall(ef_search=1), recall(ef_search=800)
        assert few + 0.3 < many
        assert recall(exact=True) == 1
        assert recall(ef_search=1) == few  # the wide search left nothing behind


def test_settings_end_with_the_transaction(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    load(db, vectors(100, 4)).create_index()
    defaults = [("hnsw.ef_search", "40"), ("hnsw.iterative_scan", "off")]
    search = "SELECT count(*) FROM pgvec.search('docs', '[1,0,0,0]', 5, ef_search => 123)"
    connection.execute("LOAD 'vector'")
    connection.execute(search)
    assert [(name, setting(connection, name)) for name, _ in defaults] == defaults
    with connection.transaction():
        connection.execute(search)
        assert setting(connection) == "123"
        assert setting(connection, "hnsw.iterative_scan") == "relaxed_order"
    assert [(name, setting(connection, name)) for name, _ in defaults] == defaults


def test_settings_do_not_leak_from_pooled_connections(dsn: str, vectors: Vectors) -> None:
    with Database(dsn) as database:
        load(database, vectors(100, 4)).create_index()
    with Database(dsn, max_size=1) as database:
        docs = database.collection("docs")
        for _ in range(7):
            docs.search([1, 0, 0, 0], 5, ef_search=77)
        with database.connection() as connection:
            assert setting(connection) == "40"
            assert setting(connection, "hnsw.iterative_scan") == "off"


def test_what_the_session_had_set_is_back_afterwards(
    db: Database, connection: psycopg.Connection, vectors: Vectors
) -> None:
    load(db, vectors(100, 4)).create_index()
    connection.execute("LOAD 'vector'")
    connection.execute("SET hnsw.ef_search = 99")
    connection.execute("SELECT count(*) FROM pgvec.search('docs', '[1,0,0,0]', ef_search => 7)")
    assert setting(connection) == "99"


def test_a_search_inside_the_callers_transaction(
    db: Database, connection: psycopg.Connection, vectors: Vectors
) -> None:
    load(db, vectors(100, 4)).create_index()
    search = "SELECT id FROM pgvec.search('docs', '[9,9,9,9]', 1)"
    with connection.transaction(force_rollback=True):
        row = connection.execute("INSERT INTO docs (id, document_id) VALUES ('mine', 'mine') RETURNING key").fetchone()
        assert row is not None
        connection.execute("INSERT INTO docs_dense VALUES (%s, '[9,9,9,9]')", row)
        assert connection.execute(search).fetchone() == ("mine",)
    assert connection.execute(search).fetchone() != ("mine",)


def test_a_read_only_transaction(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    load(db, vectors(100, 4), columns={"year": int}).create_index()
    connection.execute("SET default_transaction_read_only = on")
    for arguments in ("", ", 3", ", 3, '{\"year\": null}'", ", exact => true"):
        assert connection.execute(f"SELECT * FROM pgvec.search('docs', '[1,0,0,0]'{arguments})").fetchall()
    assert connection.execute("SELECT recall FROM pgvec.recall('docs', queries => 5)").fetchone() == (1.0,)


# -- search_path -----------------------------------------------------------------------------------

DECOYS = """
CREATE SCHEMA decoy;
SET search_path = decoy, pg_catalog;
CREATE FUNCTION decoy.boom() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'decoy called'; END$$;
CREATE FUNCTION decoy.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT decoy.boom()::text';
CREATE FUNCTION decoy.concat(text) RETURNS text LANGUAGE sql AS 'SELECT decoy.boom()::text';
CREATE FUNCTION decoy.concat(text, text) RETURNS text LANGUAGE sql AS 'SELECT decoy.boom()::text';
CREATE FUNCTION decoy.jsonb_exists(jsonb, text) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.jsonb_strip_nulls(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT decoy.boom()::text::jsonb';
CREATE FUNCTION decoy.boom2(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.boom2(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.boom2(jsonb, jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.boom()';
CREATE FUNCTION decoy.boom2({vector}, {vector}) RETURNS float8 LANGUAGE sql AS 'SELECT decoy.boom()::int::float8';
CREATE OPERATOR decoy.= (LEFTARG = text, RIGHTARG = text, FUNCTION = decoy.boom2);
CREATE OPERATOR decoy.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = decoy.boom2);
CREATE OPERATOR decoy.@> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = decoy.boom2);
CREATE OPERATOR decoy.<=> (LEFTARG = {vector}, RIGHTARG = {vector}, FUNCTION = decoy.boom2);
CREATE TABLE decoy.docs (key bigint);
CREATE TABLE decoy.docs_dense (key bigint);
"""


def test_any_search_path_does(db: Database, connection: psycopg.Connection, vectors: Vectors) -> None:
    stored = vectors(300, 4)
    docs = db.create_collection("docs", dimensions=4, columns={"section": str})
    docs.upsert(
        {"id": str(n), "vector": v, "section": "even" if n % 2 == 0 else "odd", "n": n} for n, v in enumerate(stored)
    )
    docs.create_index()
    connection.execute(DECOYS.replace("{vector}", f"{vector_schema(connection)}.vector").encode())
    for path in ("", "decoy, pg_catalog", "pg_temp", "nowhere"):
        connection.execute("SELECT pg_catalog.set_config('search_path', %s, false)", [path])
        query = "SELECT id FROM pgvec.search('docs', %s, 1, %s)"
        assert connection.execute(query, [literal(stored[8]), None]).fetchone() == ("8",)
        for where in ({"section": "even"}, {"n": {"$exists": True}}, {"n": 8}, {"n": {"$gt": 7}}, {"id": "8"}):
            assert connection.execute(query, [literal(stored[8]), Jsonb(where)]).fetchone() == ("8",)
        row = connection.execute("SELECT recall FROM pgvec.recall('docs', queries => 10)").fetchone()
        assert row == (1.0,)


@pytest.mark.parametrize("path", ["public", ""])
def test_the_extension_may_live_in_any_schema(empty_dsn: str, vectors: Vectors, path: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ext")
        connection.execute("CREATE EXTENSION vector SCHEMA ext")
    migrate.upgrade(empty_dsn)
    stored = vectors(500, 8)
    with Database(make_conninfo(empty_dsn, options=f"-c search_path={path.replace(' ', '')}")) as database:
        docs = load(database, stored, columns={"year": int})
        docs.create_index()
        assert ids(docs.search(stored[3], 1)) == [3]
        assert ids(docs.search(stored[3], 1, {"year": None})) == [3]
        assert docs.tune(0.9).recall >= 0.9
        assert docs.recall().recall > 0.9
        assert docs.recall(queries=stored[:30]).recall > 0.9
        docs.upsert([{"id": "3", "vector": -stored[3]}])
        assert ids(docs.search(-stored[3], 1)) == [3]


@pytest.mark.parametrize("share", [0.5, 0.002])
def test_a_policy_filters_without_starving(db: Database, connection: psycopg.Connection, share: float) -> None:
    """What row-level security hides is left out while the index is looked into, not afterwards."""
    stored = random_vectors(5000, 16)
    docs = db.create_collection("docs", dimensions=16, columns={"tenant": int})
    tenants = (np.random.default_rng(1).random(5000) < share).astype(int)
    docs.upsert({"id": [str(n) for n in range(5000)], "vector": stored, "tenant": tenants.tolist()})
    docs.create_index(m=8, ef_construction=32)
    role = f"pgvec_tenant_{os.getpid()}_{int(1000 * share)}"
    connection.execute(f"CREATE ROLE {role}".encode())
    try:
        connection.execute(f"GRANT USAGE ON SCHEMA pgvec TO {role}".encode())
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec, public TO {role}".encode())
        connection.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY own ON docs USING (tenant = 1)")
        connection.execute(f"SET ROLE {role}".encode())
        visible = [str(n) for n in np.flatnonzero(tenants)]
        for query in stored[:8]:
            rows = connection.execute(
                "SELECT id, stopped_by FROM pgvec.search('docs', %s, 10)", [str(query.tolist())]
            ).fetchall()
            assert len(rows) == min(10, len(visible))
            assert {id for id, _ in rows} <= set(visible)
            assert {why for _, why in rows} == {"k" if len(visible) >= 10 else "complete"}
    finally:
        connection.execute("RESET ROLE")
        connection.execute(f"DROP OWNED BY {role}".encode())
        connection.execute(f"DROP ROLE {role}".encode())


def test_a_profile_does_not_outlive_its_index(db: Database, connection: psycopg.Connection) -> None:
    docs = db.create_collection("docs", dimensions=16)
    docs.upsert({"id": [str(n) for n in range(2000)], "vector": random_vectors(2000, 16)})
    docs.create_index()
    docs.tune(0.9, progress=False)
    before = connection.execute("SELECT pgvec.explain('docs', %s)", [str([0.5] * 16)]).fetchall()[-1][0]
    assert "tuned for recall 0.9" in before
    connection.execute("DROP INDEX docs_dense_hnsw")
    connection.execute("CREATE INDEX ON docs_dense USING hnsw ((binary_quantize(embedding)::bit(16)) bit_hamming_ops)")
    after = connection.execute("SELECT pgvec.explain('docs', %s)", [str([0.5] * 16)]).fetchall()[-1][0]
    assert "binary, rescoring 40 candidates" in after
    assert "not tuned" in after
