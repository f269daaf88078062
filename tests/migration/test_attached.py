"""Revision 0005: attached tables keep working when the functions are installed anew, and are let go on the way down."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.schema import migrate
from tests.words import WordEmbedder

Connection = psycopg.Connection[Any]


@pytest.fixture
def attached(db: Database, connection: Connection) -> Connection:
    """A database in which a table is attached."""
    connection.execute("CREATE TABLE notes (id integer PRIMARY KEY, text text)")
    db.attach("notes", "text", embedder=WordEmbedder())
    return connection


def test_functions_are_installed_anew_under_an_attached_table(db: Database, dsn: str, attached: Connection) -> None:
    attached.execute("DELETE FROM pgvec.run_always_sql")
    migrate.upgrade(dsn)
    attached.execute("INSERT INTO notes VALUES (1, 'one')")
    assert db.work(embedder=WordEmbedder()).chunks == 1
    assert db.detach("notes") == "notes_search"


def test_a_downgrade_leaves_nothing_on_the_table(dsn: str, attached: Connection) -> None:
    migrate.downgrade(dsn, "0004")
    attached.execute("INSERT INTO notes VALUES (1, 'one')")
    traces = (
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'notes'::regclass"
        " UNION ALL SELECT proname::text FROM pg_proc WHERE proname LIKE 'pgvec%'"
    )
    assert attached.execute(traces).fetchall() == []
