"""Index parameters and what a build costs; no server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, PgvecError
from pgvec_toolkit.schema.index_specs import Form, Hnsw, IvfFlat, index_form, index_spec
from pgvec_toolkit.schema.space import Space

SPACE = Space(
    id=1,
    name="dense",
    collection_id=1,
    schema="public",
    chunk_table="docs",
    vector_table="docs_dense",
    type="vector",
    dimensions=384,
    distance=Distance.COSINE,
    model=None,
    model_fingerprint=None,
    vector_schema="public",
    column="embedding",
    registered=False,
    index_stem="docs_dense",
    read_chunks="public.docs",
    read_vectors="public.docs_dense",
)


def of_type(type: str, dimensions: int, distance: Distance = Distance.COSINE) -> Space:
    return replace(SPACE, type=type, dimensions=dimensions, distance=distance)


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
    [(0, 1), (1, 1), (499, 1), (2500, 2), (10_000, 10), (1_000_000, 1000), (4_000_000, 2000), (2_000_000_000, 32768)],
)
def test_lists_follow_the_number_of_rows(rows: int, lists: int) -> None:
    assert IvfFlat().options(rows) == {"lists": lists}
    assert IvfFlat(7).options(rows) == {"lists": 7}


def test_a_method_takes_its_own_options() -> None:
    assert index_spec("hnsw") == Hnsw() == Hnsw(24, 200)
    assert index_spec("hnsw", m=48) == Hnsw(48, 200)
    assert index_spec("hnsw", m=100) == Hnsw(100, 200)
    assert index_spec("hnsw", ef_construction=64) == Hnsw(24, 64)
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


# -- forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "dimensions", "form"),
    [
        ("vector", 384, Form("full", "vector", 384)),
        ("vector", 2000, Form("full", "vector", 2000)),
        ("vector", 2001, Form("halfvec", "halfvec", 2001)),
        ("vector", 4000, Form("halfvec", "halfvec", 4000)),
        ("vector", 4001, Form("binary", "bit", 4001)),
        ("vector", 16_000, Form("binary", "bit", 16_000)),
        ("halfvec", 4000, Form("full", "halfvec", 4000)),
        ("halfvec", 4001, Form("binary", "bit", 4001)),
        ("bit", 64_000, Form("full", "bit", 64_000)),
        ("sparsevec", 1_000_000, Form("full", "sparsevec", 1_000_000)),
    ],
)
def test_the_form_is_the_first_that_holds_the_dimensions(type: str, dimensions: int, form: Form) -> None:
    assert index_form(of_type(type, dimensions)) == form


def test_ivfflat_has_no_form_for_some_types_and_distances() -> None:
    for space in (of_type("vector", 8, Distance.L1), of_type("sparsevec", 8), of_type("bit", 8, Distance.JACCARD)):
        assert index_form(space).name == "full"
        with pytest.raises(ConfigurationError, match=f"no IVFFlat index for type {space.type} and distance"):
            index_form(space, method="ivfflat")
    assert index_form(of_type("vector", 8, Distance.L1), "binary", method="ivfflat").name == "binary"


def test_a_form_that_is_asked_for() -> None:
    assert index_form(SPACE, "full") == Form("full", "vector", 384)
    assert index_form(SPACE, "halfvec") == Form("halfvec", "halfvec", 384)
    assert index_form(SPACE, "binary") == Form("binary", "bit", 384)
    assert index_form(SPACE, "prefix", 64) == index_form(SPACE, prefix=64) == Form("prefix", "vector", 64)
    assert index_form(of_type("halfvec", 3072), prefix=256) == Form("prefix", "halfvec", 256)
    assert index_form(of_type("halfvec", 3072), "binary") == Form("binary", "bit", 3072)


@pytest.mark.parametrize(
    ("space", "form", "prefix", "wanted"),
    [
        (SPACE, "quarter", None, "unknown form 'quarter': use full, halfvec, binary or prefix"),
        (SPACE, "prefix", None, "goes with prefix="),
        (SPACE, "binary", 64, "goes with prefix="),
        (SPACE, None, 0, "prefix must be from 1 to 383, not 0"),
        (SPACE, None, 384, "prefix must be from 1 to 383, not 384"),
        (of_type("halfvec", 384), "halfvec", None, "halfvec does not apply to a space of type halfvec"),
        (of_type("bit", 384, Distance.HAMMING), "binary", None, "binary does not apply to a space of type bit"),
        (of_type("sparsevec", 384), "prefix", 64, "prefix does not apply to a space of type sparsevec"),
        (of_type("vector[]", 128), None, None, "several vectors a chunk, which no index orders"),
        (of_type("vector", 3000), "full", None, "holds at most 2,000 dimensions, not 3,000"),
        (of_type("vector", 5000), "halfvec", None, "holds at most 4,000 dimensions, not 5,000"),
        (of_type("vector", 5000), None, 2500, "holds at most 2,000 dimensions, not 2,500"),
    ],
)
def test_a_form_that_cannot_be(space: Space, form: str | None, prefix: int | None, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        index_form(space, form, prefix)


@pytest.mark.parametrize(
    ("form", "distance", "expression"),
    [
        (Form("full", "vector", 384), Distance.L2, 'embedding "public"."vector_l2_ops"'),
        (
            Form("halfvec", "halfvec", 384),
            Distance.COSINE,
            '(embedding::"public"."halfvec"(384)) "public"."halfvec_cosine_ops"',
        ),
        (
            Form("binary", "bit", 384),
            Distance.COSINE,
            '("public".binary_quantize(embedding)::bit(384)) "public"."bit_hamming_ops"',
        ),
        (
            Form("prefix", "vector", 64),
            Distance.INNER_PRODUCT,
            '("public".subvector(embedding, 1, 64)::"public"."vector"(64)) "public"."vector_ip_ops"',
        ),
    ],
)
def test_what_is_indexed(form: Form, distance: Distance, expression: str) -> None:
    assert form.indexed(replace(SPACE, distance=distance)).as_string() == expression
