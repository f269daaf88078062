"""Files of records with vectors, by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from tests.cli.outcome import Run

COUNT = 25
VECTORS = np.random.default_rng(3).normal(size=(COUNT, 4)).astype(np.float32)
COLUMNS: dict[str, Any] = {"id": [f"p{n}" for n in range(COUNT)], "text": [f"text {n}" for n in range(COUNT)]}
PRICES = [n if n % 3 else None for n in range(COUNT)]


def table(vector: str = "vector") -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), 4)
    return pa.table({**COLUMNS, "price": PRICES, "other": [[n] for n in range(COUNT)], vector: vectors})


def written(path: Path, vector: str = "vector") -> Path:
    match path.suffix:
        case ".parquet":
            pa.parquet.write_table(table(vector), path, row_group_size=7)
        case ".arrow":
            pa.feather.write_feather(table(vector), str(path), chunksize=7, compression="uncompressed")
        case _:
            path.write_text("\n".join(json.dumps(row) for row in table(vector).to_pylist()) + "\n\n")
    return path


def rows(connection: psycopg.Connection, price: str = "price") -> list[tuple[Any, ...]]:
    statement = (
        f"SELECT id, text, {price}, metadata, embedding::text FROM docs JOIN docs_dense USING (key) ORDER BY key"
    )
    return connection.execute(statement.encode()).fetchall()


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_file_of_records(run: Run, connection: psycopg.Connection, tmp_path: Path, suffix: str) -> None:
    connection.execute("SELECT pgvec.create_collection('docs', 4, columns => '{\"price\": \"int\"}')")
    path = written(tmp_path / f"rows.{suffix}")
    done = run("upsert", "docs", str(path), "--batch-size", "10", "--connections", "2")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"{path}: 25 rows inserted, 0 updated, 0 unchanged in ")
    found = sorted(rows(connection), key=lambda row: int(row[0][1:]))
    assert [row[:4] for row in found] == [(f"p{n}", f"text {n}", PRICES[n], {"other": [n]}) for n in range(COUNT)]
    assert np.array_equal(np.array([json.loads(row[4]) for row in found], dtype=np.float32), VECTORS)
    renamed = written(tmp_path / f"renamed.{suffix}", vector="emb")
    assert "0 inserted, 0 updated, 25 unchanged" in run("upsert", "docs", str(renamed), "--vector", "emb").err.replace(
        "rows ", ""
    )


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_fields_named_of_which_others_have_the_names(
    run: Run, connection: psycopg.Connection, tmp_path: Path, suffix: str
) -> None:
    connection.execute("SELECT pgvec.create_collection('docs', 4)")
    path = written(tmp_path / f"rows.{suffix}")
    # `id` and `text` come first in a record, and last.
    done = run("upsert", "docs", str(path), "--id", "text", "--text", "id")
    assert done.code == 0
    assert {row[:2] for row in rows(connection, "NULL")} == {(f"text {n}", f"p{n}") for n in range(COUNT)}
    connection.execute("DELETE FROM docs")
    assert run("upsert", "docs", str(path), "--id", "price", "--text", "id").code == 1  # some have no price
    assert run("upsert", "docs", str(path), "--id", "text").code == 0
    assert {row[:2] for row in rows(connection, "NULL")} == {(f"text {n}", None) for n in range(COUNT)}
    misspelt = run("upsert", "docs", str(path), "--vector", "emb")
    assert misspelt.code == 1
    assert "has no field 'emb': there are id, text, price, other, vector" in misspelt.err


def test_a_damaged_row_group_is_told_in_a_line(run: Run, connection: psycopg.Connection, tmp_path: Path) -> None:
    connection.execute("SELECT pgvec.create_collection('docs', 4)")
    path = written(tmp_path / "rows.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = b"\xff" * (len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    done = run("upsert", "docs", str(path))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"cannot read {path}: " in done.err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "id", "give .jsonl, .parquet or .arrow"),
        ("none.jsonl", None, "there is no file"),
        ("rows.jsonl", '{"id": 1, "vector": [1, 0, 0, 0]}\n{"id"', "line 2 is not JSON"),
        ("rows.jsonl", '{"id": "\xe9"}', "cannot read"),
        ("rows.jsonl", "[1]", "line 1 is not a JSON object"),
        ("rows.jsonl", '{"id": 1, "vector": [1, 0]}', "row 0, field 'vector': has 2 dimensions"),
        ("rows.parquet", "no", "cannot read"),
        ("rows.arrow", "no", "cannot read"),
    ],
)
def test_file_that_cannot_be_read(
    run: Run, connection: psycopg.Connection, tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    connection.execute("SELECT pgvec.create_collection('docs', 4)")
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="latin-1")
    done = run("upsert", "docs", str(path))
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert done.err.count("\n") == 1
