"""Distances in numpy, against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError

OF_NUMBERS = [distance for distance in Distance if "vector" in distance.types]
OF_BITS = [distance for distance in Distance if "bit" in distance.types]


def naive(distance: Distance, queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = []
    for q in queries.astype(np.float64):
        row = []
        for v in vectors.astype(np.float64):
            dot = sum(float(a) * float(b) for a, b in zip(q, v, strict=True))
            row.append(
                {
                    Distance.COSINE: 1 - dot / (np.linalg.norm(q) * np.linalg.norm(v)),
                    Distance.L2: sum((a - b) ** 2 for a, b in zip(q, v, strict=True)) ** 0.5,
                    Distance.INNER_PRODUCT: -dot,
                    Distance.L1: sum(abs(a - b) for a, b in zip(q, v, strict=True)),
                }[distance]
            )
        rows.append(row)
    return np.asarray(rows, dtype=np.float64)


@pytest.mark.parametrize("distance", OF_NUMBERS)
def test_matrix_follows_the_formula(distance: Distance) -> None:
    random = np.random.default_rng(0)
    queries = random.normal(size=(4, 17)).astype(np.float32)
    vectors = (random.normal(size=(9, 17)) * random.uniform(0.1, 10, size=(9, 1))).astype(np.float32)
    found = distance.matrix(queries, vectors)
    assert found.shape == (4, 9)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive(distance, queries, vectors), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("distance", [Distance.L2, Distance.L1])
def test_far_from_the_origin_small_distances_stay_exact(distance: Distance) -> None:
    random = np.random.default_rng(1)
    near_one_another = (100 + 0.01 * random.normal(size=(12, 64))).astype(np.float32)
    found = distance.matrix(near_one_another[:3], near_one_another)
    wanted = naive(distance, near_one_another[:3], near_one_another)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert found[[0, 1, 2], [0, 1, 2]].max() < 1e-4


def test_no_distance_becomes_nan() -> None:
    vectors = np.repeat(np.random.default_rng(2).normal(size=(1, 50)), 30, axis=0).astype(np.float32)
    for distance in OF_NUMBERS:
        assert np.isfinite(distance.matrix(vectors[:5], vectors)).all()


@pytest.mark.parametrize("distance", OF_BITS)
def test_matrix_of_bits_follows_the_formula(distance: Distance) -> None:
    bits = np.random.default_rng(0).integers(2, size=(13, 67)).astype(np.float32)
    bits[3] = 0
    bits[4] = 1
    found = distance.matrix(bits[:6], bits)
    assert (found.shape, found.dtype) == ((6, 13), np.float32)
    for query, row in zip(bits[:6], found, strict=True):
        for vector, value in zip(bits, row, strict=True):
            both, either = float(np.sum((query == 1) & (vector == 1))), float(np.sum((query == 1) | (vector == 1)))
            jaccard = 1 - both / either if both else 1.0  # pgvector's, of nothing and nothing, too
            wanted = float(np.sum(query != vector)) if distance is Distance.HAMMING else jaccard
            assert value == pytest.approx(wanted, abs=1e-7, rel=0)


def test_bits_are_counted_exactly() -> None:
    bits = (np.random.default_rng(0).random((4, 64000)) < 0.9).astype(np.float32)
    wanted = [[int((one != other).sum()) for other in bits] for one in bits]
    assert Distance.HAMMING.matrix(bits, bits).tolist() == wanted


def test_operator_classes() -> None:
    found = {
        (type, distance): distance.opclass(type) for distance in Distance for type in distance.types if type[-1] != "]"
    }
    assert {name for (type, _), name in found.items() if type == "vector"} == {
        "vector_cosine_ops",
        "vector_l2_ops",
        "vector_ip_ops",
        "vector_l1_ops",
    }
    assert found["halfvec", Distance.COSINE] == "halfvec_cosine_ops"
    assert found["sparsevec", Distance.INNER_PRODUCT] == "sparsevec_ip_ops"
    assert {name for (type, _), name in found.items() if type == "bit"} == {"bit_hamming_ops", "bit_jaccard_ops"}
    assert len(found) == 14


@pytest.mark.parametrize(
    ("distance", "type"),
    [(Distance.L2, "bit"), (Distance.HAMMING, "vector"), (Distance.COSINE, "vector[]"), (Distance.COSINE, "int8")],
)
def test_no_operator_class_for_what_has_no_index(distance: Distance, type: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no index of type"):
        distance.opclass(type)
    assert not distance.supports_ivfflat(type)


def test_several_vectors_are_compared_by_cosine_or_inner_product() -> None:
    assert [distance for distance in Distance if "vector[]" in distance.types] == [
        Distance.COSINE,
        Distance.INNER_PRODUCT,
    ]


def test_ivfflat_lacks_some() -> None:
    supported = {
        (type, distance) for distance in Distance for type in distance.types if distance.supports_ivfflat(type)
    }
    numbers = (Distance.COSINE, Distance.L2, Distance.INNER_PRODUCT)
    assert supported == {(type, distance) for type in ("vector", "halfvec") for distance in numbers} | {
        ("bit", Distance.HAMMING)
    }
