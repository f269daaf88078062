"""Upsert on a real server: what is put in comes out, what is wrong leaves nothing, what is the same stays untouched."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pytest
from pgvector.psycopg import register_vector

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.load import Written
from tests.conftest import random_vectors
from tests.words import WordEmbedder

TYPES = {"t": str, "i": int, "f": float, "b": bool, "d": dt.date, "ts": dt.datetime, "tags": list[str]}
V = [1.0, 0.0]
CET = dt.timezone(dt.timedelta(hours=1))


@pytest.fixture
def typed(db: Database) -> Collection:
    return db.create_collection("docs", dimensions=2, columns=TYPES)


def stored(connection: psycopg.Connection, columns: str, table: str = "docs") -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT {columns} FROM {table} ORDER BY id".encode()).fetchall()


def versions(connection: psycopg.Connection, table: str) -> dict[int, tuple[str, str]]:
    """The physical versions of a table's rows: they change when a row is written."""
    rows = connection.execute(f"SELECT key, xmin::text, ctid::text FROM {table}".encode()).fetchall()
    return {key: (xmin, ctid) for key, xmin, ctid in rows}


VALUES: list[tuple[str, Any, Any]] = [
    ("t", "", ""),
    ("t", "ü 漢字 🚀 \u2028 \t\r\n \\N \"'", "ü 漢字 🚀 \u2028 \t\r\n \\N \"'"),
    ("t", np.str_("a"), "a"),
    ("i", 0, 0),
    ("i", -1, -1),
    ("i", 2**63 - 1, 2**63 - 1),
    ("i", -(2**63), -(2**63)),
    ("i", 3.0, 3),
    ("i", np.int8(-5), -5),
    ("i", np.uint64(2**40), 2**40),
    ("f", -2.5, -2.5),
    ("f", 7, 7.0),
    ("f", 5e-324, 5e-324),
    ("f", math.inf, math.inf),
    ("f", -math.inf, -math.inf),
    ("f", np.float32(0.5), 0.5),
    ("b", True, True),
    ("b", np.bool_(False), False),
    ("d", dt.date(1, 1, 1), dt.date(1, 1, 1)),
    ("d", dt.date(1999, 12, 31), dt.date(1999, 12, 31)),
    ("d", dt.date(9999, 12, 31), dt.date(9999, 12, 31)),
    ("d", "2024-02-29", dt.date(2024, 2, 29)),
    ("d", np.datetime64("2024-02-29"), dt.date(2024, 2, 29)),
    ("d", pd.Timestamp("2024-02-29"), dt.date(2024, 2, 29)),
    ("ts", dt.datetime(2024, 1, 2, 3, 4, 5, 6), dt.datetime(2024, 1, 2, 3, 4, 5, 6, dt.UTC)),
    ("ts", dt.datetime(1969, 1, 2, 3, 4, 5, 999999, CET), dt.datetime(1969, 1, 2, 2, 4, 5, 999999, dt.UTC)),
    ("ts", dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC)),
    ("ts", dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)),
    ("ts", "2024-01-02T03:04:05+01:00", dt.datetime(2024, 1, 2, 2, 4, 5, tzinfo=dt.UTC)),
    ("ts", pd.Timestamp("2024-01-02", tz="UTC"), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)),
    ("tags", [], []),
    ("tags", ["", "ü", 'a "quote", {brace}', "NULL"], ["", "ü", 'a "quote", {brace}', "NULL"]),
    ("tags", ("a", "b"), ["a", "b"]),
    ("tags", np.array(["a", "b"]), ["a", "b"]),
    *((column, missing, None) for column in TYPES for missing in (None, math.nan, pd.NaT, pd.NA)),
]


def test_typed_values_come_back(typed: Collection, connection: psycopg.Connection) -> None:
    typed.upsert([{"id": f"{row:03}", "vector": V, column: given} for row, (column, given, _) in enumerate(VALUES)])
    for row, (column, _, expected) in zip(stored(connection, ", ".join(TYPES)), VALUES, strict=True):
        found = dict(zip(TYPES, row, strict=True))
        assert (found[column], type(found[column])) == (expected, type(expected))
        assert [name for name, value in found.items() if value is not None and name != column] == []


def test_negative_zero_comes_back(typed: Collection, connection: psycopg.Connection) -> None:
    typed.upsert([{"id": "a", "vector": V, "f": -0.0}])
    ((found,),) = stored(connection, "f")
    assert math.copysign(1, found) == -1


def test_vectors_come_back_bit_by_bit(db: Database, connection: psycopg.Connection) -> None:
    collection = db.create_collection("docs", dimensions=300, distance="l2")
    vectors = random_vectors(500, 300, seed=5)
    vectors[3, :4] = np.array([-0.0, 3.4e38, 1.2e-38, 1e-45], dtype=np.float32)  # the last is subnormal
    collection.upsert({"id": range(500), "vector": vectors}, batch_size=123)
    register_vector(connection)
    rows = connection.execute("SELECT d.id, v.embedding FROM docs d JOIN docs_dense v USING (key)").fetchall()
    assert len(rows) == 500
    for id, vector in rows:
        assert vector.to_numpy().astype(np.float32).tobytes() == vectors[int(id)].tobytes()


def test_metadata_comes_back(typed: Collection, connection: psycopg.Connection) -> None:
    metadata = {
        "text": "ü 🚀",
        "empty": "",
        "integer": 2**70,
        "number": -1.5e-7,
        "true": True,
        "null": None,
        "list": [1, [2, {"a": []}]],
        "object": {"": {}},
        "not a nul": "\\u0000 and \\\\u0000",
        "quote": 'a "b" \\ c',
    }
    typed.upsert([{"id": "a", "vector": V, "metadata": metadata}])
    assert stored(connection, "metadata") == [(metadata,)]


def test_metadata_takes_numpy_dates_and_sets(typed: Collection, connection: psycopg.Connection) -> None:
    metadata = {
        "i": np.int32(5),
        "f": np.float64(0.5),
        "b": np.bool_(True),
        "array": np.arange(4).reshape(2, 2),
        "date": dt.date(2024, 2, 29),
        "time": dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.UTC),
        "set": {"b", "a"},
        "tuple": (1, 2),
        3: "key",
    }
    typed.upsert([{"id": "a", "vector": V, "metadata": metadata, "other": np.int64(7), "absent": None}])
    assert stored(connection, "metadata") == [
        (
            {
                "i": 5,
                "f": 0.5,
                "b": True,
                "array": [[0, 1], [2, 3]],
                "date": "2024-02-29",
                "time": "2024-02-29T01:02:03+00:00",
                "set": ["a", "b"],
                "tuple": [1, 2],
                "3": "key",
                "other": 7,
            },
        )
    ]


def test_frame_and_table_give_the_same_rows_as_mappings(db: Database, connection: psycopg.Connection) -> None:
    moment = dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    columns: dict[str, Any] = {
        "id": ["a", "b", "c"],
        "t": ["x", None, "z"],
        "i": [1, None, -3],
        "f": [0.5, None, -2.0],
        "b": [True, None, False],
        "d": [dt.date(1999, 1, 1), None, dt.date(2024, 2, 29)],
        "ts": [moment, None, moment],
        "tags": [["a", "b"], None, []],
        "other": [1.5, None, 2.5],
        "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    }
    frame = pd.DataFrame(columns)
    assert frame["i"].dtype == float  # pandas' integers, where some are missing
    forms = {
        "mappings": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        "columns": columns,
        "frame": frame,
        "arrow": pa.table(columns),
        "fixed": pa.table({**columns, "vector": pa.array(columns["vector"], pa.list_(pa.float32(), 2))}),
    }
    found = {}
    for name, records in forms.items():
        collection = db.create_collection(name, dimensions=2, columns=TYPES)
        assert collection.upsert(records, batch_size=2) == Written(inserted=3)
        joined = f"SELECT id, {', '.join(TYPES)}, metadata, embedding::text FROM {name} JOIN {name}_dense USING (key)"
        found[name] = sorted(connection.execute(joined.encode()).fetchall(), key=lambda row: row[0])
    assert found["mappings"][1] == ("b", *[None] * len(TYPES), {}, "[3,4]")
    for rows in found.values():
        assert rows == found["mappings"]


def test_batches_are_written_while_the_generator_goes_on(db: Database, connection: psycopg.Connection) -> None:
    collection = db.create_collection("docs", dimensions=2)
    seen = []

    def records() -> Iterator[dict[str, Any]]:
        for number in range(100):
            if number % 10 == 0:
                seen.append(len(stored(connection, "id")))
            yield {"id": number, "vector": V}

    collection.upsert(records(), batch_size=10)
    # One batch may be in preparation and one be written; all before them are there.
    assert all(rows >= 10 * (number - 3) for number, rows in enumerate(seen))
    assert seen[-1] >= 60
    assert len(collection) == 100


WRONG: list[tuple[str, Any]] = [
    ("vector", [1.0]),
    ("vector", [1.0, math.nan]),
    ("vector", [0.0, 0.0]),
    ("vector", None),
    ("id", None),
    ("id", ""),
    ("id", "nul\0"),
    ("text", "nul\0"),
    ("text", 5),
    ("metadata", {"a": "nul\0"}),
    ("metadata", {"a": math.nan}),
    ("metadata", "text"),
    ("document_id", "nul\0"),
    ("position", 2**31),
    ("t", 5),
    ("t", b"bytes"),
    ("i", "5"),
    ("i", 2**63),
    ("i", True),
    ("f", "5"),
    ("f", b"5"),
    ("b", 1),
    ("d", "yesterday"),
    ("ts", 5),
    ("tags", "text"),
    ("tags", [5]),
]


@pytest.mark.parametrize("again", [False, True], ids=["new", "known"])
def test_row_that_cannot_be_stored_leaves_its_batch_out_and_those_before_it_in(
    typed: Collection, connection: psycopg.Connection, again: bool
) -> None:
    for number, (field, value) in enumerate(WRONG):
        name = f"{number:02}"
        if again:
            typed.upsert([{"id": f"{name}-{row}", "vector": V, "i": 1} for row in range(6)])
        records = [{"id": f"{name}-{row}", "vector": [2.0, 1.0], "i": 2} for row in range(8)]
        records[5][field] = value
        with pytest.raises(InvalidRecord) as caught:
            typed.upsert(records, batch_size=2)
        assert (caught.value.row, caught.value.field) == (5, field), (field, value)
        rows = connection.execute("SELECT id, i FROM docs WHERE starts_with(id, %s) ORDER BY id", [name]).fetchall()
        new = [(f"{name}-{row}", 2) for row in range(4)]
        assert rows == new + ([(f"{name}-{row}", 1) for row in (4, 5)] if again else [])
    assert connection.execute("SELECT count(*) FROM docs_dense").fetchone() == (len(typed),)


def test_zero_vector_is_stored_under_l2(db: Database) -> None:
    collection = db.create_collection("docs", dimensions=2, distance="l2")
    collection.upsert([{"id": "zero", "vector": [0, 0]}, {"id": "one", "vector": [1, 1]}])
    assert collection.search([0.1, 0], k=1)[0].id == "zero"


def test_text_needs_an_embedder_and_a_record_one_of_text_and_vector(db: Database, embedder: WordEmbedder) -> None:
    collection = db.create_collection("docs", embedder=embedder)
    with pytest.raises(InvalidRecord, match="there is no text to embed") as caught:
        collection.upsert([{"id": "a", "text": "x"}, {"id": "b", "title": "y"}])
    assert (caught.value.row, caught.value.field) == (1, "vector")
    assert len(collection) == 0
    assert embedder.embedded == []


@pytest.mark.parametrize("records", ["text", 5, {"id": "abc", "text": "xyz"}, {"id": ["a"], "vector": [V, V]}, [["a"]]])
def test_what_is_no_records_is_refused(typed: Collection, records: Any) -> None:
    with pytest.raises(ConfigurationError):
        typed.upsert(records)
    assert len(typed) == 0


def test_nothing_is_nothing(typed: Collection) -> None:
    assert typed.upsert([]) == Written()


def test_known_id_is_replaced_whole(typed: Collection, connection: psycopg.Connection) -> None:
    first = {
        "id": "a",
        "vector": [1, 2],
        "text": "x",
        "t": "x",
        "tags": ["x"],
        "position": 4,
        "document_id": "d",
        "m": 1,
    }
    assert typed.upsert([first]) == Written(inserted=1)
    assert typed.upsert([{"id": "a", "vector": [3, 4], "i": 5}]) == Written(updated=1)
    columns = "id, document_id, position, text, t, i, tags, metadata"
    assert stored(connection, columns) == [("a", "a", 0, None, None, 5, None, {})]
    assert connection.execute("SELECT embedding::text FROM docs_dense").fetchall() == [("[3,4]",)]


def test_last_of_an_id_wins_within_a_batch_and_across(db: Database, embedder: WordEmbedder) -> None:
    collection = db.create_collection("docs", embedder=embedder)
    for size in (1, 2, 10):
        records = [{"id": id, "text": f"{id} {number} of {size}"} for number in range(4) for id in "ab"]
        collection.upsert(records, batch_size=size)
        assert len(collection) == 2
        assert collection.search("a", k=1)[0].text == f"a 3 of {size}"


def test_last_of_an_id_wins_though_it_is_what_is_stored(db: Database, embedder: WordEmbedder) -> None:
    collection = db.create_collection("docs", embedder=embedder)
    collection.upsert([{"id": "a", "text": "old"}])
    assert collection.upsert([{"id": "a", "text": "new"}, {"id": "a", "text": "old"}]) == Written(unchanged=1)
    (hit,) = collection.search("old")
    assert hit.text == "old"
    assert hit.distance == pytest.approx(0, abs=1e-6)


def test_integer_id_is_the_same_as_its_text(typed: Collection) -> None:
    typed.upsert([{"id": 7, "vector": V}])
    assert typed.upsert([{"id": "7", "vector": V}, {"id": np.int64(7), "vector": V}]) == Written(unchanged=1)


def test_unchanged_rows_are_not_written(typed: Collection, connection: psycopg.Connection) -> None:
    records = [
        {"id": number, "vector": [number, 1], "i": number, "f": 0.5, "tags": ["a"], "m": {"x": 1}}
        for number in range(9)
    ]
    typed.upsert(records)
    before = versions(connection, "docs"), versions(connection, "docs_dense")
    assert typed.upsert(records) == Written(unchanged=9)
    assert (versions(connection, "docs"), versions(connection, "docs_dense")) == before
    records[4] = {**records[4], "i": 100}
    assert typed.upsert(records) == Written(updated=1, unchanged=8)
    after = versions(connection, "docs")
    assert sum(after[key] != before[0][key] for key in after) == 1
    assert versions(connection, "docs_dense") == before[1]
    records[5] = {**records[5], "vector": [0.5, 0.5]}
    assert typed.upsert(records) == Written(updated=1, unchanged=8)
    assert versions(connection, "docs") == after
    vectors = versions(connection, "docs_dense")
    assert sum(vectors[key] != before[1][key] for key in vectors) == 1


def test_change_of_payload_neither_embeds_nor_touches_the_vector(
    db: Database, connection: psycopg.Connection, embedder: WordEmbedder
) -> None:
    collection = db.create_collection("docs", embedder=embedder, columns={"price": int})
    collection.upsert([{"id": id, "text": f"text of {id}", "price": 1} for id in "abc"])
    collection.create_index()
    assert len(embedder.embedded) == 3
    before = versions(connection, "docs_dense")
    written = collection.upsert(
        [{"id": id, "text": f"text of {id}", "price": price} for id, price in zip("abc", (1, 2, 3), strict=True)]
    )
    assert written == Written(updated=2, unchanged=1)
    assert len(embedder.embedded) == 3
    assert versions(connection, "docs_dense") == before
    assert stored(connection, "price") == [(1,), (2,), (3,)]


def test_changed_text_is_embedded_anew_and_only_that(db: Database, embedder: WordEmbedder) -> None:
    collection = db.create_collection("docs", embedder=embedder)
    collection.upsert([{"id": "a", "text": "apple"}, {"id": "b", "text": "banana"}])
    embedder.embedded.clear()
    records = [{"id": "a", "text": "apple"}, {"id": "b", "text": "cherry"}, {"id": "c", "text": "damson"}]
    assert collection.upsert(records) == Written(inserted=1, updated=1, unchanged=1)
    assert embedder.embedded == ["cherry", "damson"]
    assert collection.search("cherry", k=1)[0].distance == pytest.approx(0, abs=1e-6)


def test_given_vector_is_taken_instead_of_the_texts(db: Database, embedder: WordEmbedder) -> None:
    collection = db.create_collection("docs", embedder=embedder)
    vector = embedder.embed_query("something else")
    collection.upsert([{"id": "a", "text": "apple", "vector": vector}])
    assert embedder.embedded == []
    (hit,) = collection.search("something else")
    assert hit.text == "apple"
    assert hit.distance == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loaders", [2, 6])
def test_loaders_of_the_same_ids_at_once(db: Database, connection: psycopg.Connection, loaders: int) -> None:
    collection = db.create_collection("docs", dimensions=8, columns={"i": int})
    vectors = random_vectors(600, 8)

    def load(seed: int) -> None:
        order = list(range(600))
        random.Random(seed).shuffle(order)
        collection.upsert([{"id": row, "vector": vectors[row], "i": row} for row in order], batch_size=60)

    with ThreadPoolExecutor(loaders) as executor:
        list(executor.map(load, range(loaders)))
    register_vector(connection)
    rows = connection.execute("SELECT d.id, d.i, v.embedding FROM docs d LEFT JOIN docs_dense v USING (key)").fetchall()
    assert sorted(int(id) for id, _, _ in rows) == list(range(600))
    for id, number, vector in rows:
        assert number == int(id)
        assert np.array_equal(vector.to_numpy(), vectors[int(id)])


def test_row_found_by_its_index_as_soon_as_it_is_written(db: Database, connection: psycopg.Connection) -> None:
    collection = db.create_collection("docs", dimensions=8)
    vectors = random_vectors(301, 8)
    collection.upsert({"id": range(300), "vector": vectors[:300]})
    collection.create_index()
    collection.upsert([{"id": "new", "vector": vectors[300]}])
    assert collection.search(vectors[300], k=1)[0].id == "new"
    collection.upsert([{"id": "new", "vector": -vectors[300]}])
    assert collection.search(-vectors[300], k=1)[0].id == "new"
    assert collection.search(vectors[300], k=1)[0].id != "new"
    collection.delete(["new"])
    assert "new" not in {hit.id for hit in collection.search(-vectors[300], k=5)}
    assert connection.execute("SELECT count(*) FROM docs_dense").fetchone() == (300,)


def test_delete_takes_documents_whole(db: Database, connection: psycopg.Connection) -> None:
    collection = db.create_collection("docs", dimensions=2)
    collection.upsert(
        [{"id": f"{doc}{n}", "document_id": doc, "vector": V} for doc in ("a", "ü", "c") for n in range(3)]
    )
    assert collection.delete(["a", "ü", "absent"]) == 6
    assert stored(connection, "id") == [("c0",), ("c1",), ("c2",)]
    assert connection.execute("SELECT count(*) FROM docs_dense").fetchone() == (3,)
    assert collection.delete([]) == 0
    with pytest.raises(ConfigurationError, match="list of ids"):
        collection.delete("c")


@pytest.mark.parametrize("change", ["text", "deleted"])
def test_row_that_another_loader_changes_between_reading_and_writing(
    db: Database, connection: psycopg.Connection, change: str
) -> None:
    """A row whose text was stored already, and so is not embedded, is no longer stored so when it is written."""

    class Interrupted(WordEmbedder):
        def embed_documents(self, texts: Any) -> Any:
            if "new" in texts and not self.embedded:
                other = db.collection("docs", embedder=WordEmbedder())
                if change == "text":
                    other.upsert([{"id": "a", "text": "banana"}])
                else:
                    other.delete(["a"])
            return super().embed_documents(texts)

    db.create_collection("docs", embedder=WordEmbedder()).upsert([{"id": "a", "text": "apple"}])
    collection = db.collection("docs", embedder=Interrupted())
    collection.upsert([{"id": "a", "text": "apple"}, {"id": "b", "text": "new"}])
    assert connection.execute("SELECT count(*) FROM docs JOIN docs_dense USING (key)").fetchone() == (2,)
    hit = collection.search("apple", k=1)[0]
    assert (hit.id, hit.text) == ("a", "apple")
    assert hit.distance == pytest.approx(0, abs=1e-6)


def test_payload_of_a_row_without_text_can_change(db: Database) -> None:
    collection = db.create_collection("docs", dimensions=2, columns={"price": int})
    collection.upsert([{"id": "a", "vector": [1, 0], "price": 1}])
    assert collection.upsert([{"id": "a", "price": 2}]).updated == 1
    assert collection.search([1, 0])[0].metadata == {"price": 2}


@pytest.mark.parametrize(
    "record", [{"id": "x" * 2601}, {"id": "a", "section": "é" * 1301}, {"id": "a", "tags": ["x" * 2601]}]
)
def test_text_too_long_for_its_index_is_refused_by_name(db: Database, record: dict[str, Any]) -> None:
    collection = db.create_collection("docs", dimensions=2, columns={"section": str, "tags": list[str]})
    with pytest.raises(InvalidRecord, match=r"row 0, field '(id|section|tags)': is 2,60\d bytes long"):
        collection.upsert([record | {"vector": [1, 0]}])
    assert len(collection) == 0
    assert collection  # though it is empty


def test_numbers_that_were_ids_can_be_deleted(db: Database) -> None:
    collection = db.create_collection("docs", dimensions=2)
    collection.upsert({"id": [7, 8], "vector": np.eye(2, dtype=np.float32)})
    assert collection.delete([7]) == 1
    assert [hit.id for hit in collection.search([1, 0])] == ["8"]
