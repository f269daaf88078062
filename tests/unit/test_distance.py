"""Distances in numpy, against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pgvec_toolkit.distance import Distance


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


@pytest.mark.parametrize("distance", Distance)
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
    for distance in Distance:
        assert np.isfinite(distance.matrix(vectors[:5], vectors)).all()


def test_names_and_operators() -> None:
    assert {distance: (distance.operator, distance.opclass) for distance in Distance} == {
        Distance.COSINE: ("<=>", "vector_cosine_ops"),
        Distance.L2: ("<->", "vector_l2_ops"),
        Distance.INNER_PRODUCT: ("<#>", "vector_ip_ops"),
        Distance.L1: ("<+>", "vector_l1_ops"),
    }
    assert [distance for distance in Distance if not distance.supports_ivfflat] == [Distance.L1]
