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


def rows(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    statement = "SELECT id, text, price, metadata, embedding::text FROM docs JOIN docs_dense USING (key) ORDER BY key"
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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "id", "give .jsonl, .parquet or .arrow"),
        ("none.jsonl", None, "there is no file"),
        ("rows.jsonl", '{"id": 1, "vector": [1, 0, 0, 0]}\n{"id"', "line 2 is not JSON"),
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
        path.write_text(content)
    done = run("upsert", "docs", str(path))
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert done.err.count("\n") == 1
