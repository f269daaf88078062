"""Documents from tables: files of them, and those in memory."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.read import documents
from tests.reading import strictly

Read = Callable[..., list[Document | Unreadable]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_file(name: str, content: str | bytes, **options: Any) -> list[Document | Unreadable]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return without_source(documents(path, **options))

    return read_file


def without_source(found: Iterable[Document | Unreadable]) -> list[Document | Unreadable]:
    return [replace(each, source=None) if isinstance(each, Document) else each for each in found]


def told(found: list[Document | Unreadable]) -> list[str]:
    """Return the texts of documents, and of what is unreadable id and reason."""
    return [f"{each.id}: {each.reason}" if isinstance(each, Unreadable) else each.text for each in found]


def test_csv_is_read_with_its_other_columns_as_text(read: Read) -> None:
    content = '\ufeffid,text,year,note\r\n1,"a, b\r\nc",2024,\r\n\r\n2,,007,"x ""y"""\r\n'
    first, second = read("a.csv", content)
    assert first == Document(0, "1", "a, b\r\nc", {"year": "2024", "note": None})
    assert second == Document(1, "2", "", {"year": "007", "note": 'x "y"'})


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
def test_what_separates_columns_is_seen_in_the_header(read: Read, mark: str) -> None:
    (found,) = read("a.csv", f"id{mark}text{mark}n\n1{mark}a{mark}5\n")
    assert isinstance(found, Document)
    assert found.fields == {"n": "5"}
    assert told(read("a.tsv", "id\ttext\n1\ta,b\n")) == ["a,b"]


def test_a_broken_row_costs_no_other(read: Read) -> None:
    content = 'id,text\n1,a\n2,"b\n3,c\n4,"d""e"\n5,f,g\n,h\n7\n8,"i\nj"\n9,"k'
    assert [each.partition(" Mend")[0].partition(":  mend")[0] for each in told(read("a.csv", content))] == [
        "a",
        "a.csv:3: line 3: not CSV: ',' expected after '\"'.",
        "c",
        'd"e',
        "a.csv:6: line 6: has 3 cells, and the header 2: mend it, or take it out",
        "a.csv:7: line 7: field 'id': is missing: every record needs an id, by which it is found again",
        "a.csv:8: line 8: has 1 cells, and the header 2: mend it, or take it out",
        "i\nj",
        "a.csv:11: line 11: not CSV: unexpected end of data.",
    ]


ROWS = st.lists(
    st.tuples(
        st.uuids().map(str), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
    ),
    max_size=9,
)


@settings(max_examples=40)
@given(ROWS, st.sampled_from(",;\t|"))
def test_whatever_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, rows: Any, mark: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=mark, quoting=csv.QUOTE_ALL).writerows([("id", "text"), *rows])
    path = tmp_path_factory.getbasetemp() / "whatever.csv"
    path.write_bytes(out.getvalue().encode())
    assert [(found.id, found.text) for found in strictly(documents(path))] == rows


def test_long_texts_are_read_from_csv(read: Read) -> None:
    assert [len(text) for text in told(read("a.csv", f'id,text\n1,"{"x" * 300_000}"\n'))] == [300_000]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "a.csv: is empty"),
        ("\n\n", "a.csv: is empty"),
        ("sku,body\n1,a\n", "a.csv: has no column 'id': its columns are 'sku', 'body'"),
        ("id,body\n1,a\n", "a.csv: has no column 'text'"),
        ("id,text,vector\n1,a,b\n", "a.csv: has a column 'vector', which is made by ingest"),
        ("id,text,n,n\n1,a,b,c\n", "a.csv: has more than one column 'n'"),
        (b"id,te\xe9xt\n1,a\n", "a.csv: is not UTF-8"),
        ("id,text,metadata\n1,a,b\n", "1: line 2: field 'metadata': 'b' is not a mapping"),
        ("id,text\n1,a\0b\n", "1: line 2: field 'text': contains a NUL"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(read: Read, content: str | bytes, problem: str) -> None:
    (reason,) = told(read("a.csv", content))
    assert reason.startswith(problem)


def test_columns_are_named(read: Read) -> None:
    content = "sku,title,body,id\n1,T,B,x\n2,,B,\n3,,,z\n"
    one, two, three = read("a.csv", content, id="sku", text=["title", "body"])
    assert one == Document(0, "1", "T\n\nB", {"title": "T", "metadata": {"id": "x"}})
    assert two == Document(1, "2", "B", {"title": ""})
    assert isinstance(three, Unreadable)
    assert three.reason == "line 4: field 'title': is missing, as are 'body'"


def test_rows_are_numbered_if_asked(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read("a.csv", 'text,n\n"a\nb",1\nc,2\nd\n', id=None)
    monkeypatch.chdir(tmp_path)
    first, second, broken = documents("a.csv", id=None)
    assert [first.id, second.id, broken.id] == ["a.csv:2", "a.csv:4", "a.csv:5"]
    assert {first.source, second.source, broken.source} == {tmp_path / "a.csv"}
    assert [found.id for found in documents([{"text": "a"}, {"text": "b"}], id=None)] == ["0", "1"]


def test_json_lines_are_read_on_after_a_broken_one(read: Read) -> None:
    content = b'{"id": 1, "text": "a"}\n\n{"id": 2, "te\n\xff\n' + b"[" * 100_000 + b'\n{"id": 6, "text": "f"}'
    first, cut, latin, deep, last = told(read("a.ndjson", content))
    assert (first, last) == ("a", "f")
    assert cut.startswith("a.ndjson:3: line 3: not JSON: Invalid control")
    assert latin.startswith("a.ndjson:4: line 4: is not UTF-8")
    assert deep.startswith("a.ndjson:5: line 5: not JSON")
    (half,) = told(read("a.jsonl", '{"id": "a", "text": "\\ud800"}'))
    assert "surrogate" in half


TABLE = pa.table({"id": [1, 2, None], "text": ["a", "b", "c"], "when": [dt.date(2024, 2, 29), None, None]})
EXPECTED = [Document(0, "1", "a", {"when": dt.date(2024, 2, 29)}), Document(1, "2", "b", {"when": None})]


def stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.parquet", lambda path: parquet.write_table(TABLE, path)),
        ("a.feather", lambda path: feather.write_feather(TABLE, path)),
        ("a.arrow", stream),
    ],
)
def test_arrow_files_are_read(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    *found, without_id = without_source(documents(tmp_path / name))
    assert found == EXPECTED
    assert told([without_id])[0].startswith(f"{name}:3: row 3: field 'id': is missing")


def test_a_row_of_parquet_that_python_cannot_have_costs_no_other(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    parquet.write_table(pa.table({"id": [1, 2], "text": broken}), tmp_path / "a.parquet")
    good, bad = told(list(documents(tmp_path / "a.parquet")))
    assert good == "a"
    assert bad.startswith("a.parquet:2: row 2: cannot be read ('utf-8' codec")


def test_parquet_that_breaks_off_is_read_so_far(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": range(4000), "text": [f"text {number}" for number in range(4000)]})
    parquet.write_table(table, path, row_group_size=2000, compression="gzip")
    start = parquet.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[start + 100 : start + 400] = bytes(300)
    path.write_bytes(content)
    *read, last = documents(path)
    assert [found.id for found in read] == [str(number) for number in range(2000)]
    assert isinstance(last, Unreadable)
    assert (last.id, "nor can those after it" in last.reason) == ("a.parquet:2001", True)


def test_without_pyarrow_each_file_says_what_to_install(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (found,) = read("a.parquet", b"PAR1")
    assert isinstance(found, Unreadable)
    assert "pip install 'pgvec-toolkit[files]'" in found.reason
    with pytest.raises(ImportError, match="pyarrow is not installed"):
        list(strictly([found]))


def batches() -> Iterator[pa.RecordBatch]:
    yield from TABLE.to_batches(max_chunksize=2)


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        pa.RecordBatchReader.from_batches(TABLE.schema, batches()),
        TABLE.to_pandas(),
        pl.from_arrow(TABLE),
        TABLE.to_pydict(),
        TABLE.to_pylist(),
    ],
    ids=["Table", "RecordBatchReader", "pandas", "polars", "columns", "rows"],
)
def test_tables_in_memory_are_read(table: Any) -> None:
    first, second, third = documents(table)
    if isinstance(table, pd.DataFrame):  # which makes the ids floats, as one is missing
        assert [found.reason for found in (first, second) if isinstance(found, Unreadable)] != []
        first, second = documents(table.head(2).astype({"id": int}))
    assert [first, second] == EXPECTED
    assert isinstance(third, Unreadable)
    assert (third.id, third.row) == ("row 2", 2)


def test_a_table_in_memory_without_the_column_is_refused() -> None:
    for table in (pd.DataFrame({"sku": [1], "text": ["a"]}), pl.DataFrame({"sku": [1], "text": ["a"]})):
        with pytest.raises(ConfigurationError, match=r"the table has no column 'id': its columns are 'sku', 'text'"):
            list(documents(table))
    assert [found.id for found in documents(table, id="sku")] == ["1"]


@pytest.mark.parametrize("id", [UUID(int=5), Decimal("12.00"), 12, "12"])
def test_ids_of_databases_are_texts(id: Any) -> None:
    (found,) = documents([{"id": id, "text": "a"}])
    assert found.id == ("12" if not isinstance(id, UUID) else str(id))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_memory_stays_flat(tmp_path: Path, name: str) -> None:
    rows, text = 1000, "x" * 5000
    path = tmp_path / name
    if name == "a.parquet":
        table = pa.table({"id": range(rows), "text": [f"{number}{text}" for number in range(rows)]})
        parquet.write_table(table, path, row_group_size=250)
    else:
        lines = (
            f'{{"id": {number}, "text": "{text}"}}' if "j" in name else f"{number},{text}" for number in range(rows)
        )
        path.write_text("\n".join((["id,text"] if "c" in name else []) + list(lines)))
    next(documents(path))  # what it imports is not its own
    tracemalloc.start()
    assert sum(1 for _ in strictly(documents(path))) == rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * rows * len(text)


def test_json_lines_of_all_sorts_of_values(read: Read) -> None:
    fields = {"n": None, "x": [1, {"y": 2.5}], "metadata": {"a": 1}}
    (found,) = read("a.jsonl", json.dumps({"id": "a", "text": "b", **fields}))
    assert isinstance(found, Document)
    assert found.fields == fields
