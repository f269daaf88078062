"""Rows of other databases as documents, and what tables give to typed columns."""

from __future__ import annotations

import datetime as dt
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, ConnectionFailed, InvalidRecord
from pgvec_toolkit.ingest.document import Document
from pgvec_toolkit.ingest.read import documents
from tests.words import WordEmbedder


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE product (sku integer, name text, price real)")
        connection.executemany("INSERT INTO product VALUES (?, ?, ?)", [(1, "lamp", 9.5), (2, "chair", 30)])
    connection.close()
    return f"sqlite:///{tmp_path / 'shop.db'}"


def test_rows_of_another_database_are_documents(sqlite: str) -> None:
    rows = pgvec.read_sql("SELECT sku AS id, name AS text, price FROM product ORDER BY sku", sqlite)
    expected = [Document(0, "1", "lamp", {"price": 9.5}), Document(1, "2", "chair", {"price": 30})]
    assert list(documents(rows)) == expected
    assert list(documents(rows)) == expected  # as often as one likes
    some = pgvec.read_sql("SELECT * FROM product WHERE price > :least", sqlite, {"least": 10})
    assert [found.id for found in documents(some, id="sku", text="name")] == ["2"]
    with pytest.raises(
        ConfigurationError, match=r"the table has no column 'id': its columns are 'sku', 'name', 'price'"
    ):
        list(documents(some))


def test_rows_of_postgres_are_streamed(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE product AS SELECT n AS id, 'text ' || n AS text FROM generate_series(1, 5000) n")
    rows = iter(documents(pgvec.read_sql("SELECT * FROM product WHERE id > %s ORDER BY id", dsn, [2])))
    first = next(rows)
    assert (first.id, isinstance(first, Document) and first.text) == ("3", "text 3")
    ((cursors,),) = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'FETCH FORWARD%'"
    ).fetchall()
    assert cursors == 1
    assert sum(1 for _ in rows) == 4997
    assert [found.id for found in documents(pgvec.read_sql("SELECT 7 AS id, '100 %' AS text", dsn))] == ["7"]


@pytest.mark.parametrize(
    ("sql", "database", "error", "problem"),
    [
        (
            "SELECT 1",
            "postgresql://nobody@127.0.0.1:1/x",
            ConnectionFailed,
            "no connection to the database to read from",
        ),
        ("SELECT 1", "host=127.0.0.1 port=1 dbname=x", ConnectionFailed, "no connection to the database to read from"),
        ("SELECT 1", "sqlite:////nowhere/at/all.db", ConnectionFailed, "no connection to the database to read from"),
        ("SELECT 1", "oracle+nothing://x/y", ConfigurationError, "a URL of SQLAlchemy"),
        ("SELECT 1", "mysql+pymysql://x/y", ConfigurationError, "driver of the database to read from is not installed"),
        ("SELECT absent", "sqlite://", ConfigurationError, "the database that is read from says: no such column"),
    ],
)
def test_what_another_database_says_is_passed_on(sql: str, database: str, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        list(pgvec.read_sql(sql, database))


def test_another_postgres_is_only_read(dsn: str) -> None:
    for sql in ("SELECT nothing", "DROP SCHEMA pgvec CASCADE", "SELECT pgvec.create_collection('docs', 3)"):
        with pytest.raises(ConfigurationError, match="the database that is read from says"):
            list(pgvec.read_sql(sql, dsn))


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(pgvec.read_sql("SELECT 1", "postgresql://user:secret@host/db"))


def test_typed_columns_read_the_text_of_csv(db: Database, connection: psycopg.Connection, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"zip": str, "n": int, "x": float, "yes": bool, "day": dt.date}
    docs = db.create_collection("docs", embedder=WordEmbedder(), columns=columns)
    path = tmp_path / "a.csv"
    path.write_text("sku,name,zip,n,x,yes,day,other\n1,lamp,00501,-7,2.5e3,TRUE,2024-02-29,12\n2,chair,10115,,,,,\n")
    assert docs.ingest(path, id="sku", text="name").chunks == 2
    rows = connection.execute("SELECT id, zip, n, x, yes, day, metadata FROM docs ORDER BY id").fetchall()
    assert rows == [
        ("1#0", "00501", -7, 2500.0, True, dt.date(2024, 2, 29), {"other": "12"}),
        ("2#0", "10115", None, None, None, None, {}),
    ]
    path.write_text("id,text,n\n3,lamp,many\n")
    with pytest.raises(InvalidRecord, match="'n'"):
        docs.ingest(path, strict=True)


def test_files_of_all_kinds_are_ingested(db: Database, tmp_path: Path) -> None:
    docs = db.create_collection("docs", embedder=WordEmbedder())
    (tmp_path / "a.py").write_text("def rotate(): ...")
    (tmp_path / "b.csv").write_text("id,text\n1,lamp\n")
    assert docs.ingest(tmp_path).documents == 2
    assert docs.ingest(pgvec.read_sql("SELECT 'c' AS id, 'chair' AS text", "sqlite://")).documents == 1
    (tmp_path / "b.csv").write_text("id,text\n1,lamp\n2\n")
    with pytest.raises(ConfigurationError, match=r"b\.csv, line 3: has 1 cells"):
        docs.ingest(tmp_path, strict=True)
