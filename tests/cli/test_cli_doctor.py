"""pgvec doctor and pgvec prewarm."""

from __future__ import annotations

import psycopg

from tests.cli.outcome import Run


def test_the_doctor_finds_and_mends(docs: Run, dsn: str) -> None:
    assert docs("index", "create", "docs", "hnsw").code == 0
    healthy = docs("doctor", "--json")
    assert healthy.code == 0
    assert "never tuned" in " ".join(finding["finding"] for finding in healthy.json)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'docs_dense_hnsw'::regclass")
    ill = docs("doctor")
    assert ill.code == 0
    assert "warnings" in ill.out
    assert "INVALID" in ill.out
    mended = docs("doctor", "--fix")
    assert mended.err.startswith('done: DROP INDEX CONCURRENTLY "public"."docs_dense_hnsw"\n')
    assert "INVALID" not in mended.out


def test_an_error_is_exit_code_3(docs: Run, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE pgvec.keyword_indexes SET probe = probe + 1")
    assert docs("doctor").code == 3
    (error,) = [finding for finding in docs("doctor", "--json").json if finding["severity"] == "error"]
    assert set(error) == {"severity", "subject", "finding", "mend"}
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(error["mend"].encode())
    assert docs("doctor").code == 0


def test_a_database_that_was_not_migrated_is_a_finding(bare: Run, empty_dsn: str) -> None:
    outcome = bare("doctor", "--fix", "--dsn", empty_dsn)
    assert outcome.code == 3
    assert "pgvec migrate" in outcome.out


def test_prewarm_says_what_it_read(docs: Run) -> None:
    assert docs("index", "create", "docs", "hnsw").code == 0
    warmed = docs("prewarm", "docs")
    assert "public.docs_dense_hnsw" in warmed.out
    assert warmed.err == ""
    assert all(relation["complete"] for relation in docs("prewarm", "docs", "--json").json)
