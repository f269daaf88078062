"""Revision 0005: a collection with a model learns to keep its vectors those of its texts, and can forget it again."""

from __future__ import annotations

import psycopg

from pgvec_toolkit.schema import migrate
from tests.migration.test_search_engine import OLD_COLLECTION, STORED

KEEPS = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'docs'::regclass AND tgname = 'pgvec_vectors_update'"
SWAPPING = """
INSERT INTO pgvec.vector_spaces (collection_id, name, table_name, type, dimensions, distance)
VALUES (1, 'other', 'docs_other', 'vector', 3, 'cosine');
INSERT INTO pgvec.swaps (collection_id, from_space_id, to_space_id, from_space, to_space, to_model)
VALUES (1, 1, 2, 'dense', 'other', 'm')
"""


def test_up_down_and_up_again(empty_dsn: str) -> None:
    migrate.upgrade(empty_dsn, "0003")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(OLD_COLLECTION.encode())
        for key in (1, 2):
            connection.execute("INSERT INTO docs (id, document_id, text) VALUES (%s, 'd', 'text')", [str(key)])
            connection.execute("INSERT INTO docs_dense VALUES (%s, %s::text::vector)", [key, str(STORED[key].tolist())])
        for _ in range(2):
            migrate.upgrade(empty_dsn)
            assert connection.execute(KEEPS).fetchone() == (1,)
            assert connection.execute("TABLE pgvec.swaps").fetchall() == []
            connection.execute(SWAPPING.encode())
            migrate.downgrade(empty_dsn, "0004")
            assert connection.execute(KEEPS).fetchone() == (0,)
            assert connection.execute("SELECT to_regclass('pgvec.swaps')").fetchone() == (None,)
            connection.execute("DELETE FROM pgvec.vector_spaces WHERE name = 'other'")
            connection.execute("ALTER TABLE pgvec.vector_spaces ALTER id RESTART WITH 2")
        migrate.upgrade(empty_dsn)
        connection.execute("UPDATE docs SET text = 'another' WHERE id = '1'")
        assert connection.execute("SELECT key FROM docs_dense").fetchall() == [(2,)]
