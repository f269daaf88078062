"""Ingestion on a real server: files and records become chunks, exactly once."""

from __future__ import annotations

import datetime as dt
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.documents import Ingested
from tests.words import WordEmbedder


@pytest.fixture
def docs(db: Database, embedder: WordEmbedder) -> Collection:
    return db.create_collection("docs", embedder=embedder, columns={"section": str, "year": int, "when": dt.date})


def write(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def check(connection: psycopg.Connection) -> dict[str, int]:
    """Return the chunks of each document; ledger, chunks and vectors agree on them."""
    rows = connection.execute(
        "SELECT document_id, count(*), count(v.key), array_agg(d.position ORDER BY d.position),"
        " array_agg(d.id ORDER BY d.position) FROM docs d LEFT JOIN docs_dense v USING (key) GROUP BY document_id"
    ).fetchall()
    for document, chunks, vectors, positions, ids in rows:
        assert (vectors, positions) == (chunks, list(range(chunks)))
        assert ids == [f"{document}#{position}" for position in positions]
    ledger: dict[str, int] = dict(connection.execute("SELECT document_id, chunks FROM pgvec.ledger").fetchall())
    assert {document: chunks for document, chunks in ledger.items() if chunks} == {row[0]: row[1] for row in rows}
    return ledger


def long_text(word: str, paragraphs: int) -> str:
    return "\n\n".join(f"{word} {number}. " + "It goes on and on. " * 40 for number in range(paragraphs))


def test_folder_with_front_matter(docs: Collection, connection: psycopg.Connection, tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    head = "\ufeff---\r\nsection: ops\r\nyear: 2024\r\nwhen: 2024-02-29\r\nowner: Ünal\r\ntags: [a, b]\r\n---\r\n"
    write(folder, "a.md", head + "# Ünïcode 漢字\r\n\r\nText of a.\r\n")
    write(folder, "deep/b.txt", "Text of b.")
    write(folder, "c.jsonl", '{"id": "c1", "text": "Text of c1.", "year": 7}\n{"id": 2, "text": "Text of c2."}\n')
    write(folder, ".hidden.md", "Hidden text")
    write(folder, "image.png", b"\x89PNG\xff")
    assert docs.ingest(folder) == Ingested(documents=4, unchanged=0, chunks=4)
    columns = "id, document_id, position, text, section, year, docs.when, metadata"
    assert connection.execute(f"SELECT {columns} FROM docs ORDER BY id".encode()).fetchall() == [
        ("2#0", "2", 0, "Text of c2.", None, None, None, {}),
        ("c1#0", "c1", 0, "Text of c1.", None, 7, None, {}),
        (
            "handbook/a.md#0",
            "handbook/a.md",
            0,
            "# Ünïcode 漢字\n\nText of a.",
            "ops",
            2024,
            dt.date(2024, 2, 29),
            {"owner": "Ünal", "tags": ["a", "b"], "headings": ["Ünïcode 漢字"]},
        ),
        ("handbook/deep/b.txt#0", "handbook/deep/b.txt", 0, "Text of b.", None, None, None, {}),
    ]
    check(connection)
    assert [hit.id for hit in docs.search("ünïcode", k=1, where={"section": "ops"})] == ["handbook/a.md#0"]


def test_unchanged_is_skipped_and_changed_is_replaced(
    docs: Collection, connection: psycopg.Connection, embedder: WordEmbedder, tmp_path: Path
) -> None:
    folder = tmp_path / "handbook"
    for name in "abc":
        write(folder, f"{name}.txt", long_text(name, 5))
    first = docs.ingest(folder)
    assert first.chunks > 6
    embedder.embedded.clear()
    before = connection.execute("SELECT id, xmin::text FROM docs ORDER BY id").fetchall()
    assert docs.ingest(folder) == Ingested(documents=3, unchanged=3, chunks=0)
    assert embedder.embedded == []
    assert connection.execute("SELECT id, xmin::text FROM docs ORDER BY id").fetchall() == before

    write(folder, "b.txt", "short now")
    assert docs.ingest(str(folder)) == Ingested(documents=3, unchanged=2, chunks=1)
    assert embedder.embedded == ["short now"]
    assert check(connection)["handbook/b.txt"] == 1
    write(folder, "b.txt", "")
    assert docs.ingest(folder) == Ingested(documents=3, unchanged=2, chunks=0)
    assert check(connection)["handbook/b.txt"] == 0
    assert docs.ingest(folder) == Ingested(documents=3, unchanged=3, chunks=0)


def test_changed_field_alone_counts_as_a_change(docs: Collection, connection: psycopg.Connection) -> None:
    record: dict[str, Any] = {"id": "a", "text": "apple", "year": 1, "tags": {"x", "y"}, "nested": {1: "a", "b": 2}}
    assert docs.ingest([record]).chunks == 1
    assert docs.ingest([dict(reversed(record.items()))]).unchanged == 1
    assert docs.ingest([{**record, "year": 2}]).chunks == 1
    assert docs.ingest([{**record, "year": 2, "array": np.arange(5000)}]).chunks == 1
    changed = np.arange(5000)
    changed[2500] = -1
    assert docs.ingest([{**record, "year": 2, "array": changed}]).chunks == 1
    assert connection.execute("SELECT year, metadata #> '{array,2500}' FROM docs").fetchall() == [(2, -1)]


@pytest.mark.parametrize("apart", [1, 100])
def test_same_id_twice_never_doubles(docs: Collection, connection: psycopg.Connection, apart: int) -> None:
    others = [{"id": f"other{number}", "text": "x"} for number in range(apart)]
    records = [{"id": "a", "text": long_text("first", 4)}, *others, {"id": "a", "text": long_text("last", 2)}]
    for _ in range(2):
        docs.ingest(iter(records))
        check(connection)
        rows = connection.execute("SELECT text FROM docs WHERE document_id = 'a'").fetchall()
        assert rows
        assert not any("first" in text for (text,) in rows)


def test_documents_before_a_bad_one_stay(docs: Collection, connection: psycopg.Connection) -> None:
    records: list[dict[str, Any]] = [{"id": number, "text": long_text("good", 3)} for number in range(150)]
    records[100]["year"] = "not a year"
    with pytest.raises(InvalidRecord, match="'100#0'") as caught:
        docs.ingest(records, strict=True)
    assert (caught.value.row, caught.value.field) == (100, "year")
    assert sorted(map(int, check(connection))) == list(range(96))
    records[100]["year"] = 5
    assert docs.ingest(records).unchanged == 96
    assert len(check(connection)) == 150


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"id": "bad", "text": "nul \0"}, "text"),
        ({"id": "nul\0", "text": "x"}, "id"),
        ({"text": "x"}, "id"),
        ({"id": "bad"}, "text"),
        ({"id": "bad", "text": "x", "metadata": {"a": float("nan")}}, "metadata"),
        ({"id": "bad", "text": "x", "when": "someday"}, "when"),
        ({"id": "bad", "text": "x", "blob": b"bytes"}, "metadata"),
    ],
)
def test_bad_record_is_named(docs: Collection, connection: psycopg.Connection, record: Any, field: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        docs.ingest([{"id": "good", "text": long_text("good", 4)}, record], strict=True)
    assert (caught.value.row, caught.value.field) == (1, field)
    assert check(connection) == {}


def test_bad_file_is_named(docs: Collection, tmp_path: Path) -> None:
    write(tmp_path, "a.md", "---\nyear: last\n---\nText")
    with pytest.raises(InvalidRecord, match=r"'year'.*a\.md#0"):
        docs.ingest(tmp_path, strict=True)
    write(tmp_path, "a.md", b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"a\.md is not UTF-8"):
        docs.ingest(tmp_path, strict=True)
    assert len(docs) == 0


def test_missing_values_of_a_frame_are_missing(docs: Collection, connection: psycopg.Connection) -> None:
    docs.ingest([{"id": "a", "text": "x", "year": float("nan"), "other": float("nan")}])
    assert connection.execute("SELECT year, metadata FROM docs").fetchall() == [(None, {})]


def test_chunks_written_by_hand_take_the_document_off_the_ledger(
    docs: Collection, connection: psycopg.Connection
) -> None:
    records = [{"id": id, "text": f"text of {id}"} for id in "abc"]
    for by_hand in (
        {"id": "a#0", "text": "by hand"},
        {"id": "a#0", "document_id": "a", "text": "by hand"},
        {"id": "extra", "document_id": "a", "text": "by hand"},
    ):
        docs.ingest(records)
        docs.upsert([by_hand])
        assert connection.execute("SELECT document_id FROM pgvec.ledger ORDER BY 1").fetchall() == [("b",), ("c",)]
        assert docs.ingest(records) == Ingested(documents=3, unchanged=2, chunks=1)
        rows = connection.execute("SELECT text FROM docs WHERE document_id IN ('a', 'a#0')").fetchall()
        assert rows == [("text of a",)]


def test_deleted_documents_can_be_ingested_again(docs: Collection, connection: psycopg.Connection) -> None:
    records = [{"id": id, "text": long_text(id, 4)} for id in "ab"]
    docs.ingest(records)
    chunks = check(connection)["a"]
    assert docs.delete(["a"]) == chunks
    assert list(check(connection)) == ["b"]
    assert docs.ingest(records) == Ingested(documents=2, unchanged=1, chunks=chunks)
    check(connection)


def test_a_document_that_comes_while_it_is_deleted_stays_whole(
    docs: Collection, dsn: str, connection: psycopg.Connection
) -> None:
    docs.ingest([{"id": "b", "text": "text", "year": "?"}])
    with psycopg.connect(dsn) as holder, ThreadPoolExecutor(1) as executor:
        holder.execute("SELECT FROM pgvec.failures WHERE document_id = 'b' FOR UPDATE")
        deleting = executor.submit(docs.delete, ["a", "b"])  # is past the ledger when it waits for that row
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid())"
        while connection.execute(waiting).fetchone() == (False,):
            assert not deleting.done()
        docs.ingest([{"id": "a", "text": "text of a"}])
        holder.rollback()
        assert deleting.result() == 0
    assert check(connection) == {"a": 1}


@pytest.mark.parametrize("loaders", [2, 5])
def test_loaders_of_the_same_documents_at_once(docs: Collection, connection: psycopg.Connection, loaders: int) -> None:
    def load(seed: int) -> None:
        records = [{"id": number, "text": long_text(f"text{number}", number % 4)} for number in range(130)]
        random.Random(seed).shuffle(records)
        docs.ingest(records)
        docs.delete([str(number) for number in range(seed, 130, 20)])
        docs.ingest(records)

    with ThreadPoolExecutor(loaders) as executor:
        list(executor.map(load, range(loaders)))
    docs.ingest([{"id": number, "text": long_text(f"text{number}", number % 4)} for number in range(130)])
    found = check(connection)
    assert sorted(map(int, found)) == list(range(130))
    for document, chunks in found.items():
        assert (chunks > 0) == (int(document) % 4 > 0)


def test_real_documents(docs: Collection, connection: psycopg.Connection, shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "EIPS"
    folder.mkdir()
    files = sorted((shared_data / "eips" / "EIPS").glob("*.md"))[:40]
    for file in files:
        shutil.copy(file, folder)
    done = docs.ingest(folder)
    assert (done.documents, done.unchanged) == (40, 0)
    assert sorted(check(connection)) == sorted(f"EIPS/{file.name}" for file in files)
    rows = connection.execute("SELECT DISTINCT document_id, metadata ->> 'title' FROM docs").fetchall()
    assert len(rows) == 40
    assert all(title for _, title in rows)
    assert docs.ingest(folder) == Ingested(documents=40, unchanged=40, chunks=0)


def test_a_file_does_not_replace_its_namesake_but_may_move(db: Database, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.md").write_text(f"The readme of {folder}.")
    collection = db.create_collection("docs", embedder=WordEmbedder())
    collection.ingest(tmp_path / "a" / "readme.md")
    with pytest.raises(ConfigurationError, match="would replace"):
        collection.ingest(tmp_path / "b" / "readme.md")
    assert collection.search("readme", k=5)[0].text == "The readme of a."
    (tmp_path / "a" / "readme.md").unlink()
    collection.ingest(tmp_path / "b" / "readme.md")
    assert [hit.text for hit in collection.search("readme", k=5)] == ["The readme of b."]
