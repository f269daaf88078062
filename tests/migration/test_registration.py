"""Revision 0006: registered tables; on the way down they are let go, and stay as they are."""

from __future__ import annotations

from typing import Any

import psycopg

from pgvec_toolkit.schema import migrate

REGISTER = "SELECT pgvec.register_table('products', text => 'name', keywords => true)"


def test_down_lets_tables_go_and_up_again(dsn: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE ROLE registered_reader; CREATE ROLE registered_writer")
    try:
        connection.execute("GRANT SELECT ON pgvec.collections TO registered_reader")
        connection.execute("GRANT SELECT, INSERT, DELETE ON pgvec.collections TO registered_writer")
        connection.execute("CREATE TABLE products (id bigint PRIMARY KEY, name text, embedding vector(2))")
        connection.execute(REGISTER.encode())
        connection.execute("SELECT pgvec.create_collection('docs', 2)")
        connection.execute("CREATE TABLE others (id bigint PRIMARY KEY, embedding vector(2))")
        connection.execute("CREATE TABLE others_keywords (); SELECT pgvec.register_table('others')")
        migrate.downgrade(dsn, "0005")
        connection.execute("INSERT INTO products VALUES (1, 'a lamp', '[1, 0]')")
        assert connection.execute("SELECT name FROM pgvec.collections").fetchall() == [("docs",)]
        left = connection.execute("SELECT to_regclass('products_keywords'), to_regclass('others_keywords')::text")
        assert left.fetchone() == (None, "others_keywords")
        triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'products'::regclass"
        assert connection.execute(triggers).fetchone() == (0,)

        migrate.upgrade(dsn)
        rights = (
            "SELECT array_agg(p ORDER BY p) FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) p"
            " WHERE has_table_privilege(%s, 'pgvec.registered_tables', p)"
        )
        assert connection.execute(rights, ["registered_reader"]).fetchone() == (["SELECT"],)
        assert connection.execute(rights, ["registered_writer"]).fetchone() == (["DELETE", "INSERT", "SELECT"],)
        connection.execute(REGISTER.encode())
        found = connection.execute("SELECT id FROM pgvec.keyword_search('products', 'lamps')").fetchall()
        assert found == [("1",)]
    finally:
        connection.execute("DROP OWNED BY registered_reader, registered_writer")
        connection.execute("DROP ROLE registered_reader, registered_writer")
