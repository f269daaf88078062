"""Records in all their forms become the same batches."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.batch import Batch, batches
from pgvec_toolkit.vectors import vector_type

VECTORS = [[1.0, 0.5], [0.25, -1.0], [3.0, 0.0]]


def read(records: Any, size: int = 2, distance: Distance = Distance.COSINE) -> list[Batch]:
    return list(batches(records, vector_type("vector"), 2, distance, size))


def rows(records: Any) -> list[tuple[Any, ...]]:
    found = []
    for batch in read(records):
        assert batch.vectors is not None
        assert batch.vectors.dtype == np.float32
        for row, id in enumerate(batch.ids):
            found.append((id, batch.fields["n"][row], batch.fields["text"][row], batch.vectors[row].tolist()))
    return found


EXPECTED = [("1", 7, "a", VECTORS[0]), ("2", None, None, VECTORS[1]), ("3", -9, "c", VECTORS[2])]
COLUMNS = {"id": ["1", "2", "3"], "n": [7, None, -9], "text": ["a", None, "c"], "vector": VECTORS}
MAPPINGS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]


def table(kind: pa.DataType, *, chunked: bool) -> pa.Table:
    vectors = pa.chunked_array([pa.array(VECTORS[:1], kind), pa.array(VECTORS[1:], kind)])
    whole = pa.table({**{name: COLUMNS[name] for name in ("id", "n", "text")}, "vector": vectors})
    return whole if chunked else whole.combine_chunks()


FORMS = {
    "mappings": MAPPINGS,
    "tuple": tuple(MAPPINGS),
    "rows without absent fields": [{key: value for key, value in row.items() if value is not None} for row in MAPPINGS],
    "integer ids": [{**row, "id": int(row["id"])} for row in MAPPINGS],
    "numpy ids": [{**row, "id": np.int64(row["id"])} for row in MAPPINGS],
    "vectors as tuples": [{**row, "vector": tuple(row["vector"])} for row in MAPPINGS],
    "vectors as float64": [{**row, "vector": np.asarray(row["vector"])} for row in MAPPINGS],
    "vectors as float16": [{**row, "vector": np.asarray(row["vector"], dtype=np.float16)} for row in MAPPINGS],
    "columns": COLUMNS,
    "columns with an array": {**COLUMNS, "vector": np.asarray(VECTORS)},
    "columns with a Fortran array": {**COLUMNS, "vector": np.asfortranarray(VECTORS)},
    "columns with numpy ids": {**COLUMNS, "id": np.arange(1, 4)},
    "columns of Series": {**COLUMNS, "id": pd.Series(["1", "2", "3"], index=[7, 8, 9]), "n": pd.Series([7, None, -9])},
    "DataFrame": pd.DataFrame(COLUMNS),
    "DataFrame's records": pd.DataFrame(COLUMNS).to_dict("records"),
    "DataFrame with NA": pd.DataFrame(COLUMNS).astype({"n": "Int64", "text": "string"}),
    "columns of Arrow arrays": {**COLUMNS, "vector": pa.array(VECTORS, pa.list_(pa.float32()))},
    "record batch": table(pa.list_(pa.float32()), chunked=False).to_batches()[0],
}
KINDS = (pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.list_(pa.float64(), 2))
for _kind in (*KINDS, pa.large_list(pa.float32())):
    FORMS[f"Table of {_kind}"] = table(_kind, chunked=False)
    FORMS[f"chunked Table of {_kind}"] = table(_kind, chunked=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(form: str) -> None:
    assert rows(FORMS[form]) == EXPECTED


def test_generator_is_read_a_batch_at_a_time() -> None:
    drawn = []

    def generate() -> Iterator[dict[str, Any]]:
        for number in range(10):
            drawn.append(number)
            yield {"id": number, "vector": [1, 1]}

    found = batches(generate(), vector_type("vector"), 2, Distance.L2, 3)
    assert next(found).ids == ["0", "1", "2"]
    assert drawn == [0, 1, 2]


def test_rows_of_a_table_that_is_a_slice() -> None:
    assert rows(table(pa.list_(pa.float64(), 2), chunked=False).slice(1)) == EXPECTED[1:]


def test_of_an_id_given_twice_in_a_batch_the_last_counts() -> None:
    (batch,) = read([{"id": "a", "text": "1"}, {"id": "b", "text": "2"}, {"id": "a", "text": "3"}], size=3)
    assert (batch.ids, list(batch.fields["text"]), list(batch.rows)) == (["b", "a"], ["2", "3"], [1, 2])


def test_integer_and_text_are_the_same_id() -> None:
    (batch,) = read([{"id": 5, "text": "1"}, {"id": "5", "text": "2"}])
    assert (batch.ids, list(batch.fields["text"])) == (["5"], ["2"])


@pytest.mark.parametrize("missing", [None, math.nan, np.nan, np.float32("nan"), np.datetime64("NaT"), pd.NaT, pd.NA])
def test_signs_for_a_missing_value_are_none(missing: Any) -> None:
    (batch,) = read([{"id": "a", "x": missing}])
    assert list(batch.fields["x"]) == [None]


@pytest.mark.parametrize(
    ("value", "settled"),
    [
        (np.int16(-3), -3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.float32(0.5), 0.5),
        (np.datetime64("2024-02-29"), dt.date(2024, 2, 29)),
        (np.datetime64("2024-02-29T01:02:03.000004", "us"), dt.datetime(2024, 2, 29, 1, 2, 3, 4)),
        (np.datetime64("2024-02-29T01:02:03.000004", "ns"), dt.datetime(2024, 2, 29, 1, 2, 3, 4)),
    ],
)
def test_numpy_scalars_become_pythons(value: Any, settled: Any) -> None:
    from_row, from_column = read([{"id": "a", "x": value}]) + read({"id": ["a"], "x": np.asarray([value])})
    for batch in (from_row, from_column):
        assert (batch.fields["x"][0], type(batch.fields["x"][0])) == (settled, type(settled))


def test_vectors_that_all_are_missing_are_absent() -> None:
    (batch,) = read([{"id": "a", "text": "x", "vector": None}])
    assert batch.vectors is None


def good(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "vector": [1.0, 2.0]} for number in range(count)]


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        ([1.0], "has 1 dimensions, not 2"),
        ([1.0, 2.0, 3.0], "has 3 dimensions, not 2"),
        ([[1.0, 2.0]], r"has shape \(1, 2\)"),
        (5.0, r"has shape \(\)"),
        ([], "has 0 dimensions"),
        ("[1, 2]", "not a list of numbers"),
        ({"a": 1}, "not a list of numbers"),
        ([1.0, "x"], "not a list of numbers"),
        ([[1.0], 2.0], "not a list of numbers"),
        ([10**400, 1], "not a list of numbers"),
        ([1.0, math.nan], "NaN or infinity"),
        ([1.0, None], "NaN or infinity"),
        ([-math.inf, 1.0], "NaN or infinity"),
        ([1e300, 1.0], "NaN or infinity"),
        ([0.0, 0.0], "is zero"),
        ([0.0, -0.0], "is zero"),
        (None, "is missing"),
        (math.nan, "is missing"),
    ],
)
@pytest.mark.parametrize("row", [0, 4, 5])
def test_vector_that_does_not_fit_is_named(vector: Any, problem: str, row: int) -> None:
    records = good(6)
    records[row]["vector"] = vector
    with pytest.raises(InvalidRecord, match=problem) as caught:
        read(records)
    assert (caught.value.row, caught.value.field) == (row, "vector")


@pytest.mark.parametrize("distance", [Distance.L2, Distance.INNER_PRODUCT, Distance.L1])
def test_zero_vector_is_a_point_where_direction_does_not_count(distance: Distance) -> None:
    (batch,) = read([{"id": "a", "vector": [0, 0]}], distance=distance)
    assert batch.vectors is not None
    assert not batch.vectors.any()


def test_rows_of_arrays_are_named() -> None:
    array = np.ones((6, 2))
    array[4, 1] = np.inf
    with pytest.raises(InvalidRecord, match="NaN or infinity") as caught:
        read({"id": range(6), "vector": array})
    assert caught.value.row == 4


def test_array_of_other_width_or_kind_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="has 3 dimensions, not 2"):
        read({"id": ["a"], "vector": np.ones((1, 3))})
    with pytest.raises(InvalidRecord, match="not a list of numbers"):
        read({"id": ["a"], "vector": np.array([["x", "y"]])})


def test_lists_of_unequal_length_in_a_table_are_named() -> None:
    with pytest.raises(InvalidRecord, match="has 1 dimensions") as caught:
        read(pa.table({"id": ["a", "b"], "vector": [[1.0, 2.0], [1.0]]}))
    assert caught.value.row == 1
    with pytest.raises(InvalidRecord, match="is missing") as caught:
        read(pa.table({"id": ["a", "b"], "vector": [[1.0, 2.0], None]}))
    assert caught.value.row == 1


@pytest.mark.parametrize(
    ("id", "problem"),
    [(None, "is missing"), ("", "is missing"), (math.nan, "is missing"), (pd.NA, "is missing")]
    + [(value, "is not a text") for value in (True, 2.5, b"x", "a\0", "\ud800", ["a"], np.True_)],
)
def test_id_that_cannot_be_one_is_named(id: Any, problem: str) -> None:
    records = good(4)
    records[3]["id"] = id
    with pytest.raises(InvalidRecord, match=problem) as caught:
        read(records)
    assert (caught.value.row, caught.value.field) == (3, "id")


def test_ids_have_to_be_there() -> None:
    with pytest.raises(InvalidRecord, match="is missing") as caught:
        read([{"text": "a"}])
    assert (caught.value.row, caught.value.field) == (0, "id")


@pytest.mark.parametrize(
    "records",
    [
        "text",
        b"bytes",
        5,
        None,
        ["text"],
        [("id", "a")],
        {"id": "abc", "text": "xyz"},  # a single record, not three
        {"id": 5},
        {"id": ["a"], "text": ["x", "y"]},
        {"id": iter("ab")},
    ],
)
def test_what_is_no_records_is_refused(records: Any) -> None:
    with pytest.raises(ConfigurationError):
        read(records)


@pytest.mark.parametrize("nothing", [[], {}, iter(()), {"id": []}, pd.DataFrame({"id": []}), pa.table({"id": []})])
def test_nothing_gives_no_batch(nothing: Any) -> None:
    assert read(nothing) == []
