"""Revision 0005: what was ingested has a version, and who may write the ledger may record failures."""

from __future__ import annotations

import psycopg

from pgvec_toolkit.schema import migrate
from tests.migration.test_search_engine import OLD_COLLECTION


def test_the_ledger_goes_up_and_down(empty_dsn: str) -> None:
    migrate.upgrade(empty_dsn, "0004")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        writer = f"writer_{connection.info.backend_pid}"
        connection.execute(OLD_COLLECTION.encode())
        connection.execute(
            "INSERT INTO pgvec.ledger (collection_id, document_id, content_hash, chunks) VALUES (1, 'a', '\\x00', 0)"
        )
        connection.execute(f"CREATE ROLE {writer}; GRANT SELECT, INSERT, UPDATE ON pgvec.ledger TO {writer}".encode())
        try:
            before = connection.execute("TABLE pgvec.ledger").fetchall()
            migrate.upgrade(empty_dsn)
            assert connection.execute("SELECT document_id, version FROM pgvec.ledger").fetchall() == [("a", 1)]
            rights = (
                "SELECT has_table_privilege(%s, 'pgvec.failures', r) FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'"
                "::text[]) r"
            )
            assert connection.execute(rights, [writer]).fetchall() == [(True,), (True,), (True,), (False,)]
            migrate.downgrade(empty_dsn, "0004")
            assert connection.execute("TABLE pgvec.ledger").fetchall() == before
        finally:
            connection.execute(f"DROP OWNED BY {writer}; DROP ROLE {writer}".encode())
