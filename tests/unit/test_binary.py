"""What cannot be encoded names its row and field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import InvalidRecord
from pgvec_toolkit.ingest import binary
from pgvec_toolkit.ingest.batch import batches
from pgvec_toolkit.schema.columns import column_type
from pgvec_toolkit.vectors import vector_type


def encode(records: Any) -> None:
    for batch in batches(records, vector_type("vector"), 2, Distance.L2, 4):
        binary.encode(batch, {"n": column_type("bigint"), "tags": column_type("text[]")})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 5),
        ("text", "nul \0"),
        ("document_id", 5),
        ("document_id", "nul \0"),
        ("position", "first"),
        ("position", 2**31),
        ("n", "text"),
        ("n", 2**63),
        ("tags", "text"),
        ("metadata", "text"),
        ("metadata", ["a"]),
        ("metadata", {"price": math.nan}),
        ("metadata", {"price": [1, {"net": math.inf}]}),
        ("metadata", {"nul": "\0"}),
        ("metadata", {"nul\0": 1}),
        ("metadata", {"deep": [{"nul": ["\0"]}]}),
        ("metadata", {"half of a pair": "\ud800"}),
        ("metadata", {"bytes": b"x"}),
        ("metadata", {"object": object()}),
        ("metadata", {(1, 2): "tuple as a key"}),
    ],
)
def test_row_and_field_are_named(field: str, value: Any) -> None:
    records = [{"id": str(number)} for number in range(7)]
    records[5][field] = value
    with pytest.raises(InvalidRecord, match=r"id '5'") as caught:
        encode(records)
    assert (caught.value.row, caught.value.field) == (5, field)


def test_row_is_named_by_its_place_in_the_input_though_doubles_are_dropped() -> None:
    with pytest.raises(InvalidRecord) as caught:
        encode([{"id": "a"}, {"id": "a"}, {"id": "b"}, {"id": "c", "n": "x"}])
    assert caught.value.row == 3


def test_other_fields_that_cannot_be_stored_are_named() -> None:
    with pytest.raises(InvalidRecord, match=r"cannot be stored as JSON") as caught:
        encode([{"id": "a"}, {"id": "b", "blob": b"bytes"}])
    assert caught.value.row == 1
