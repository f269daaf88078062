"""Vectors of every type: what can be given, what is refused and how, and the bytes that PostgreSQL gets."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pgvector import Bit, HalfVector, SparseVector, Vector

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.batch import batches
from pgvec_toolkit.vectors import HEADER, TRAILER, FixedWidth, vector_type

NUMBERS = np.array([1.5, 0, -2, 0, 0, 0.25], dtype=np.float32)
BITS = np.array([0, 1, 1, 0, 0, 1, 0, 0, 1, 1], dtype=np.uint8)
TOKENS = np.array([[1, 2], [3, 4], [0, -5]], dtype=np.float32)


def fixed(name: str) -> FixedWidth:
    found = vector_type(name)
    assert isinstance(found, FixedWidth)
    return found


def stacked(name: str, given: Any, dimensions: int, distance: Distance = Distance.COSINE) -> NDArray[Any]:
    return vector_type(name).stack(given, dimensions, distance, 10)


@pytest.mark.parametrize("name", ["vector", "halfvec"])
@pytest.mark.parametrize(
    "given",
    [
        NUMBERS.tolist(),
        tuple(NUMBERS.tolist()),
        NUMBERS.astype(np.float64),
        NUMBERS.astype(np.float16),
        Vector(NUMBERS),
        HalfVector(NUMBERS),
    ],
)
def test_numbers_in_every_form(name: str, given: Any) -> None:
    found = stacked(name, [given, given], 6)
    assert (found.dtype, found.tolist()) == (np.float32, [NUMBERS.tolist()] * 2)
    bound = vector_type(name).query(given, 6, Distance.COSINE)
    assert isinstance(bound, np.ndarray if name == "vector" else HalfVector)
    assert fixed(name).matrix([bound], 6).tolist() == [NUMBERS.tolist()]


@pytest.mark.parametrize(
    "given",
    [
        BITS,
        BITS.astype(bool),
        BITS.astype(np.int64),
        BITS.tolist(),
        BITS.astype(bool).tolist(),
        "0110010011",
        Bit("0110010011"),
    ],
)
def test_bits_in_every_form(given: Any) -> None:
    for column in ([given, given], np.asarray([given, given]) if isinstance(given, np.ndarray) else [given] * 2):
        found = stacked("bit", column, 10, Distance.HAMMING)
        assert (found.dtype, found.tolist()) == (np.uint8, [BITS.tolist()] * 2)
    bound = vector_type("bit").query(given, 10, Distance.HAMMING)
    assert bound == Bit("0110010011")
    assert vector_type("bit").loaded(bound.to_binary()) == bound
    assert fixed("bit").matrix([bound], 10).tolist() == [BITS.tolist()]


@pytest.mark.parametrize(
    "given",
    [
        SparseVector({0: 1.5, 2: -2, 5: 0.25}, 6),
        {0: 1.5, 2: -2, 5: 0.25},
        {5: 0.25, np.int32(2): np.float64(-2), 0: 1.5, 1: 0.0, 3: 1e-60},
        {"5": 0.25, "2": -2, "0": 1.5},
        NUMBERS,
        NUMBERS.tolist(),
    ],
)
def test_sparse_vectors_in_every_form(given: Any) -> None:
    found = stacked("sparsevec", [given, given], 6)
    assert found.shape == (2,)
    assert list(found) == [SparseVector({0: 1.5, 2: -2, 5: 0.25}, 6)] * 2
    assert vector_type("sparsevec").query(given, 6, Distance.COSINE) == found[0]


def test_rows_of_scipy() -> None:
    scipy = pytest.importorskip("scipy.sparse")
    forms = [
        scipy.csr_array(NUMBERS[None]),
        scipy.csr_matrix(NUMBERS[None]),
        scipy.coo_array(NUMBERS),
        scipy.coo_array(([1, 0.5, -2, 0.25], ([0, 0, 0, 0], [0, 0, 2, 5])), shape=(1, 6)),
    ]
    assert list(stacked("sparsevec", forms, 6)) == [SparseVector({0: 1.5, 2: -2, 5: 0.25}, 6)] * 4
    with pytest.raises(ConfigurationError, match=r"has \(4, 4\) dimensions, not 3"):
        vector_type("sparsevec").query(scipy.csr_array(np.eye(4)), 3, Distance.L2)


def test_a_scipy_matrix_is_not_changed_by_reading_it() -> None:
    row = pytest.importorskip("scipy.sparse").coo_array(([1.0, 0.5], ([0, 0], [3, 3])), shape=(1, 6))
    assert list(stacked("sparsevec", [row], 6)) == [SparseVector({3: 1.5}, 6)]
    assert row.data.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "given",
    [
        TOKENS,
        TOKENS.tolist(),
        list(TOKENS),
        TOKENS.astype(np.float64),
        [Vector(each) for each in TOKENS],
        tuple(HalfVector(each) for each in TOKENS),
    ],
)
def test_several_vectors_in_every_form(given: Any) -> None:
    found = stacked("vector[]", [given, given], 2)
    assert (found.shape, found.dtype) == ((2,), object)
    assert all(each.dtype == np.float32 and each.tolist() == TOKENS.tolist() for each in found)
    assert vector_type("vector[]").query(given, 2, Distance.COSINE) == [Vector(each) for each in TOKENS]


def test_rows_of_several_vectors_may_differ_in_their_number() -> None:
    found = stacked("vector[]", [TOKENS[:1], TOKENS, np.ones((7, 2))], 2)
    assert [len(each) for each in found] == [1, 3, 7]
    assert [len(each) for each in stacked("vector[]", np.ones((4, 3, 2)), 2)] == [3] * 4


WRONG: list[tuple[str, Any, str]] = [
    ("halfvec", [1, 2, 70000], "contains a number of size 70000: type halfvec ends at 65504"),
    ("halfvec", [1, 2, -65505], "type halfvec ends at 65504"),
    ("halfvec", [1, math.nan, 70000], "contains NaN or infinity"),
    ("halfvec", [1e-8, -2e-8, 0], "is zero"),
    ("halfvec", [1, 2], "has 2 dimensions, not 3"),
    ("halfvec", "[1, 2, 3]", "not a list of numbers"),
    ("vector", [1, math.inf, 2], "contains NaN or infinity"),
    ("bit", [0, 1], "has 2 dimensions, not 3"),
    ("bit", [], "has 0 dimensions, not 3"),
    ("bit", "", "has 0 dimensions, not 3"),
    ("bit", "01", "has 2 dimensions, not 3"),
    ("bit", "012", "something else than 0 and 1"),
    ("bit", "0é", "something else than 0 and 1"),
    ("bit", [0, 1, 2], "something else than 0 and 1"),
    ("bit", [0, -1, 1], "something else than 0 and 1"),
    ("bit", [0.5, 1.0, 0.0], "not made of bits"),
    ("bit", [0, 1, None], "not made of bits"),
    ("bit", [[0], [0, 1]], "not made of bits"),
    ("bit", [[0, 1, 1]], r"has shape \(1, 3\)"),
    ("bit", {0: 1}, "not made of bits"),
    ("bit", Bit("01"), "has 2 dimensions, not 3"),
    ("sparsevec", {3: 1.0}, "has an entry at 3: dimensions are counted from 0 to 2"),
    ("sparsevec", {-1: 1.0}, "has an entry at -1"),
    ("sparsevec", {0.5: 1.0}, "not a mapping of dimensions"),
    ("sparsevec", {"a": 1.0}, "not a mapping of dimensions"),
    ("sparsevec", {10**30: 1.0}, "not a mapping of dimensions"),
    ("sparsevec", {0: "x"}, "not a list of numbers"),
    ("sparsevec", {0: None}, "contains NaN or infinity"),
    ("sparsevec", {0: math.inf}, "contains NaN or infinity"),
    ("sparsevec", {0: 1e39}, "contains NaN or infinity"),
    ("sparsevec", {1: 2.0, "1": 3.0}, "not a mapping of dimensions"),
    ("sparsevec", {"1": 2.0, "01": 3.0}, "two entries at the same dimension"),
    ("sparsevec", {}, "is zero"),
    ("sparsevec", {0: 1e-60}, "is zero"),
    ("sparsevec", [0.0, 0.0, 0.0], "is zero"),
    ("sparsevec", [1.0, 2.0], "has 2 dimensions, not 3"),
    ("sparsevec", SparseVector({0: 1}, 4), "has 4 dimensions, not 3"),
    ("sparsevec", "{1:1}/3", "not a list of numbers"),
    ("vector[]", [], "holds no vector"),
    ("vector[]", np.empty((0, 3)), "holds no vector"),
    ("vector[]", [1.0, 2.0, 3.0], r"has shape \(3,\), not \(number of vectors, 3\)"),
    ("vector[]", 5.0, r"has shape \(\)"),
    ("vector[]", [[1.0, 2.0]], r"has shape \(1, 2\)"),
    ("vector[]", [[1.0, 2.0, 3.0], [1.0]], "of different shapes"),
    ("vector[]", [[1.0, 2.0, math.nan]], "contains NaN or infinity"),
    ("vector[]", [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], "holds a vector that is zero"),
    ("vector[]", [["a", "b", "c"]], "not a list of numbers"),
]
RIGHT: dict[str, Any] = {
    "vector": [1, 2, 3],
    "halfvec": [1, 2, 3],
    "bit": "101",
    "sparsevec": {1: 2},
    "vector[]": [[1, 2, 3]],
}


@pytest.mark.parametrize(("name", "value", "problem"), WRONG)
def test_what_does_not_fit_is_named_by_its_row_and_refused_as_a_query(name: str, value: Any, problem: str) -> None:
    distance = Distance.HAMMING if name == "bit" else Distance.COSINE
    with pytest.raises(InvalidRecord, match=problem) as caught:
        stacked(name, [*[RIGHT[name]] * 4, value, RIGHT[name]], 3, distance)
    assert (caught.value.row, caught.value.field) == (14, "vector")
    with pytest.raises(InvalidRecord, match=problem) as caught:
        vector_type(name).stack([RIGHT[name], value], 3, distance, [7, 42])
    assert caught.value.row == 42
    with pytest.raises(ConfigurationError, match=f"the query vector .*{problem}"):
        vector_type(name).query(value, 3, distance)


@pytest.mark.parametrize("name", RIGHT)
def test_one_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(InvalidRecord, match="is missing, while other rows") as caught:
        stacked(name, [RIGHT[name], None], 3, Distance.HAMMING)
    assert caught.value.row == 11


def test_rows_of_a_matrix_are_named() -> None:
    bits = np.zeros((5, 3), dtype=np.uint8)
    bits[3, 1] = 2
    with pytest.raises(InvalidRecord, match="something else than 0 and 1") as caught:
        stacked("bit", bits, 3, Distance.HAMMING)
    assert caught.value.row == 13
    numbers = np.ones((5, 3))
    numbers[2, 0] = 1e5
    with pytest.raises(InvalidRecord, match="ends at 65504") as caught:
        stacked("halfvec", numbers, 3)
    assert caught.value.row == 12


def test_a_sparse_vector_has_no_more_entries_than_its_type_holds() -> None:
    assert len(stacked("sparsevec", [np.ones(16000)], 16000)[0].indices()) == 16000
    with pytest.raises(InvalidRecord, match="has 16,001 non-zero numbers, and a sparsevec holds 16,000"):
        stacked("sparsevec", [dict.fromkeys(range(16001), 1)], 10**9)


@pytest.mark.parametrize("distance", [Distance.L2, Distance.INNER_PRODUCT])
def test_zero_is_a_point_where_direction_does_not_count(distance: Distance) -> None:
    assert not stacked("halfvec", [[0, 0]], 2, distance).any()
    assert stacked("sparsevec", [{}], 2, distance)[0].indices() == []
    assert not stacked("vector[]", [[[0, 0]]], 2, distance)[0].any()


def test_types_are_known_by_name() -> None:
    assert vector_type("halfvec").name == "halfvec"
    assert {name for name in RIGHT if not vector_type(name).own_operators} == {"bit", "vector[]"}
    with pytest.raises(ConfigurationError, match="no vector type 'int8': use one of vector, halfvec, bit"):
        vector_type("int8")


@pytest.mark.parametrize(
    ("name", "given", "embedding"),
    [
        ("vector", [1.5, -2], struct.pack(">hhff", 2, 0, 1.5, -2)),
        ("halfvec", [1.5, -2], struct.pack(">hhee", 2, 0, 1.5, -2)),
        ("sparsevec", {1: 2.5}, struct.pack(">iiiif", 2, 1, 0, 1, 2.5)),
        ("bit", "10", struct.pack(">iB", 2, 0b10000000)),
        ("vector[]", [[1.5, -2]], struct.pack(">iiIiiihhff", 1, 0, 4711, 1, 1, 12, 2, 0, 1.5, -2)),
    ],
)
def test_rows_are_encoded(name: str, given: Any, embedding: bytes) -> None:
    kind = vector_type(name)
    distance = Distance.HAMMING if name == "bit" else Distance.L2
    data = kind.rows([-5, 6], kind.stack([given, given], 2, distance, 0), 4711)
    row = [struct.pack(">hiqi", 2, 8, key, len(embedding)) + embedding for key in (-5, 6)]
    assert data == HEADER + b"".join(row) + TRAILER


KEYS = [1, -5, 2**63 - 1, -(2**63), *range(6)]


@pytest.mark.parametrize("name", ["vector", "halfvec", "bit"])
@pytest.mark.parametrize("block", [1, 7, 24, 100, 10**6])
@pytest.mark.parametrize("rows_per_block", [1, 3, 1000])
def test_rows_are_decoded_to_what_was_encoded(name: str, block: int, rows_per_block: int) -> None:
    random = np.random.default_rng(0)
    vectors: NDArray[Any] = random.normal(size=(10, 11)).astype(np.float32)
    if name == "vector":
        vectors[4, :3] = [-0.0, 1e-39, 3.4e38]  # one of them subnormal
    elif name == "halfvec":
        vectors = vectors.astype(np.float16).astype(np.float32)
        vectors[4, :3] = [-0.0, 6e-8, 65504]
        vectors = vectors.astype(np.float16).astype(np.float32)
    else:
        vectors = random.integers(2, size=(10, 11), dtype=np.uint8)
    data = vector_type(name).rows(KEYS, vectors)
    pieces = [data[start : start + block] for start in range(0, len(data), block)]
    decoded = list(fixed(name).read_rows(pieces, 11, rows_per_block))
    assert np.concatenate([part for part, _ in decoded]).tolist() == KEYS
    assert np.concatenate([part for _, part in decoded]).tobytes() == vectors.astype(np.float32).tobytes()


@pytest.mark.parametrize("name", ["vector", "halfvec", "bit"])
def test_empty_table_decodes_to_nothing(name: str) -> None:
    data = vector_type(name).rows([], np.empty((0, 3), np.uint8))
    assert list(fixed(name).read_rows([data], 3, 10)) == []
    assert fixed(name).matrix([], 3).shape == (0, 3)


def columns(name: str, records: Any, dimensions: int, size: int = 2) -> list[Any]:
    distance = Distance.HAMMING if name == "bit" else Distance.COSINE
    found = []
    for batch in batches(records, vector_type(name), dimensions, distance, size):
        assert batch.vectors is not None
        found += list(batch.vectors)
    return found


def test_a_whole_scipy_matrix_is_a_column() -> None:
    scipy = pytest.importorskip("scipy.sparse")
    dense = np.eye(5, 7, 1)
    for matrix in (scipy.csr_matrix(dense), scipy.csr_array(dense), scipy.coo_array(dense)):
        found = columns("sparsevec", {"id": range(5), "vector": matrix}, 7)
        assert found == [SparseVector({row + 1: 1.0}, 7) for row in range(5)]
    with pytest.raises(ConfigurationError, match="columns differ in length"):
        columns("sparsevec", {"id": range(4), "vector": scipy.csr_matrix(dense)}, 7)


def test_several_vectors_come_in_tables_too() -> None:
    lists = [[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, 1.0]]]
    for kind in (None, pa.list_(pa.list_(pa.float32())), pa.list_(pa.list_(pa.float32(), 2))):
        found = columns("vector[]", pa.table({"id": ["a", "b", "c"], "vector": pa.array(lists, kind)}), 2)
        assert [each.tolist() for each in found] == lists


def test_bits_come_in_tables_too() -> None:
    for values in ([[True, False]] * 3, [[1, 0]] * 3, ["10"] * 3):
        found = columns("bit", pa.table({"id": ["a", "b", "c"], "vector": values}), 2)
        assert [each.tolist() for each in found] == [[1, 0]] * 3
