"""Index parameters and what a build costs; no server."""

from __future__ import annotations

import pytest

from pgvec_toolkit.errors import ConfigurationError, PgvecError
from pgvec_toolkit.schema.indexes import Hnsw, IvfFlat, index_spec

GIB = 2**30


@pytest.mark.parametrize(("m", "ef_construction"), [(2, 4), (16, 64), (16, 32), (100, 200), (100, 1000), (2, 1000)])
def test_hnsw_takes_what_pgvector_takes(m: int, ef_construction: int) -> None:
    assert Hnsw(m, ef_construction).options(123) == {"m": m, "ef_construction": ef_construction}


@pytest.mark.parametrize(("m", "ef_construction"), [(1, 64), (101, 1000), (16, 31), (2, 3), (16, 1001), (0, 64)])
def test_hnsw_refuses_what_pgvector_refuses(m: int, ef_construction: int) -> None:
    with pytest.raises(ConfigurationError, match="must be from"):
        Hnsw(m, ef_construction)


@pytest.mark.parametrize("lists", [0, -1, 32769])
def test_ivfflat_refuses_what_pgvector_refuses(lists: int) -> None:
    with pytest.raises(ConfigurationError, match="lists must be from 1 to 32768"):
        IvfFlat(lists)


@pytest.mark.parametrize(
    ("rows", "lists"),
    [(0, 1), (1, 1), (499, 1), (10_000, 10), (1_000_000, 1000), (4_000_000, 2000), (2_000_000_000, 32768)],
)
def test_lists_follow_the_number_of_rows(rows: int, lists: int) -> None:
    assert IvfFlat().options(rows) == {"lists": lists}
    assert IvfFlat(7).options(rows) == {"lists": 7}


# pgvector's structs, added up, for a million rows with m = 16, in GiB.
@pytest.mark.parametrize(("dimensions", "gib"), [(384, 2.1), (512, 2.5), (768, 3.5), (1024, 4.5), (1536, 6.4)])
def test_memory_of_an_hnsw_build(dimensions: int, gib: float) -> None:
    assert Hnsw().build_memory(1_000_000, dimensions) / GIB == pytest.approx(gib, rel=0.02)


def test_memory_of_an_hnsw_build_grows_with_m_and_rows() -> None:
    assert Hnsw(32, 64).build_memory(1000, 384) - Hnsw(16, 64).build_memory(1000, 384) == pytest.approx(
        512_000, rel=0.01
    )
    assert Hnsw().build_memory(2_000_000, 384) == pytest.approx(2 * Hnsw().build_memory(1_000_000, 384))
    assert Hnsw().build_memory(0, 384) == 0


# The lower bounds of Elkan's k-means alone, which pgvector wants below maintenance_work_mem: 4 * samples * lists.
@pytest.mark.parametrize(("lists", "least"), [(1000, 200e6), (4000, 3.2e9), (10000, 20e9)])
def test_memory_of_an_ivfflat_build(lists: int, least: float) -> None:
    needed = IvfFlat(lists).build_memory(10_000_000, 384)
    assert least < needed < 2 * least + 1e9


def test_memory_of_an_ivfflat_build_of_few_rows() -> None:
    assert IvfFlat(100).build_memory(50, 384) < 1_000_000


def test_a_method_takes_its_own_options() -> None:
    assert index_spec("hnsw") == Hnsw(16, 64)
    assert index_spec("hnsw", m=48) == Hnsw(48, 96)
    assert index_spec("hnsw", m=8, ef_construction=20) == Hnsw(8, 20)
    assert index_spec("ivfflat") == IvfFlat(None)
    assert index_spec("ivfflat", lists=5) == IvfFlat(5)


def test_a_method_refuses_the_others_options() -> None:
    with pytest.raises(ConfigurationError, match="lists belongs to ivfflat"):
        index_spec("hnsw", lists=5)
    for option in ("m", "ef_construction"):
        with pytest.raises(ConfigurationError, match="belong to hnsw"):
            index_spec("ivfflat", **{option: 64})
    with pytest.raises(PgvecError, match="unknown index method 'btree': use hnsw or ivfflat"):
        index_spec("btree")
