"""Forecasts of indexes, against real builds and against what the server says of its memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, IndexBuildError
from pgvec_toolkit.schema.forecast import Forecast
from pgvec_toolkit.schema.index_specs import Hnsw, IvfFlat
from tests.conftest import random_vectors

ROWS, DIMENSIONS = 3000, 96
MB = 2**20
FORMS = ("full", "halfvec", "prefix", "binary")
SMALL_MACHINE = """
CREATE OR REPLACE FUNCTION pgvec._build_limits(relation regclass) RETURNS jsonb LANGUAGE sql AS
$$ SELECT '{"memory": 500000, "free": null, "segment": null, "cores": 1, "workers": 0, "usable": 2097152}'::jsonb $$
"""


@pytest.fixture(scope="module")
def shared_dsn(server_dsn: str, template: str, janitor: Callable[..., DatabaseJanitor]) -> Iterator[str]:
    """A database that the tests of this module share."""
    with janitor(f"{template}_forecast", template):
        yield make_conninfo(server_dsn, dbname=f"{template}_forecast")


@pytest.fixture(scope="module")
def docs(shared_dsn: str) -> Iterator[pgvec.Collection]:
    with Database(shared_dsn) as database:
        made = database.create_collection("docs", dimensions=DIMENSIONS, keywords=False)
        vectors = random_vectors(ROWS, DIMENSIONS)
        vectors[2000:2600] = vectors[:600]  # of the same values, HNSW stores one
        made.upsert({"id": [str(row) for row in range(ROWS)], "vector": vectors})
        yield made


@pytest.fixture
def plain(docs: pgvec.Collection) -> Iterator[psycopg.Connection]:
    with psycopg.connect(docs._database.dsn, autocommit=True) as connection:
        yield connection


def forecast(docs: pgvec.Collection, method: str, form: str, **options: Any) -> Forecast:
    (planned,) = docs.plan_index(method, form=form, prefix=32, **options)
    return planned


# -- against reality -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("method", "options"), [("hnsw", {"m": 8, "ef_construction": 20}), ("ivfflat", {"lists": 4})])
def test_disk_is_as_foretold(docs: pgvec.Collection, method: str, options: dict[str, int], form: str) -> None:
    planned = forecast(docs, method, form, **options)
    assert planned.fits
    assert planned.seconds is not None
    docs.create_index(method, form=form, prefix=32 if form == "prefix" else None, **options)
    (index,) = docs.indexes()
    docs.drop_index()
    # The last page of each list is full or not, as its clusters fall.
    assert planned.size == pytest.approx(index.size, rel=0.1, abs=options.get("lists", 0) * 8192)
    built = docs.builds()[0]
    assert (built.forecast_size, built.forecast_memory) == (planned.size, planned.memory)
    assert (built.size, built.rows, built.options) == (index.size, ROWS, planned.options)
    # Now that there has been a real one, the next is expected to take as long; twice the rows, longer.
    again = forecast(docs, method, form, calibrate=False, **options)
    assert again.seconds == pytest.approx(built.seconds)
    assert forecast(docs, method, form, calibrate=False, rows=2 * ROWS, **options).seconds > built.seconds


@pytest.mark.parametrize("form", FORMS)
def test_memory_of_hnsw_is_as_foretold(docs: pgvec.Collection, plain: psycopg.Connection, form: str) -> None:
    """Given two megabytes (it takes whole ones), how many rows fit?"""
    planned = forecast(docs, "hnsw", form, m=16, ef_construction=32, calibrate=False)
    heard: list[str] = []
    plain.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    plain.execute("SET maintenance_work_mem = '2MB'; SET max_parallel_maintenance_workers = 0")
    indexed = plain.execute(
        "SELECT expression, opclass FROM pgvec.vector_spaces s, pgvec._forms(s, 32, 0) f"
        " WHERE f.method = 'hnsw' AND f.form = %s",
        [form],
    ).fetchone()
    assert indexed is not None
    statement = f"CREATE INDEX spilling ON docs_dense USING hnsw ({' '.join(indexed)})"
    plain.execute(f"{statement} WITH (m = 16, ef_construction = 32)".encode())
    plain.execute("DROP INDEX spilling")
    (after,) = [int(found[1]) for text in heard if (found := re.search(r"after (\d+) tuples", text))]
    assert planned.memory == pytest.approx(2 * MB / after * ROWS, rel=0.15)


@pytest.mark.parametrize("form", FORMS)
def test_memory_of_ivfflat_is_as_foretold(docs: pgvec.Collection, plain: psycopg.Connection, form: str) -> None:
    planned = forecast(docs, "ivfflat", form, lists=900, calibrate=False)
    plain.execute(f"SET maintenance_work_mem = '{planned.memory // MB - 1}MB'".encode())
    indexed = plain.execute(
        "SELECT expression, opclass FROM pgvec.vector_spaces s, pgvec._forms(s, 32, 0) f"
        " WHERE f.method = 'ivfflat' AND f.form = %s",
        [form],
    ).fetchone()
    assert indexed is not None
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="memory required") as refused:
        plain.execute(f"CREATE INDEX ON docs_dense USING ivfflat ({' '.join(indexed)}) WITH (lists = 900)".encode())
    found = re.search(r"memory required is (\d+) MB", str(refused.value))
    assert found is not None
    assert int(found[1]) == planned.memory // MB + 1


# -- what is planned -------------------------------------------------------------------------------


def test_all_forms_that_apply_with_the_usual_options(docs: pgvec.Collection) -> None:
    planned = docs.plan_index(None, calibrate=False)
    assert [(f.method, f.form) for f in planned] == [(method, form) for method in ("hnsw", "ivfflat") for form in FORMS]
    for each in planned:
        spec = Hnsw() if each.method == "hnsw" else IvfFlat()
        assert each.options == spec.options(ROWS)
        assert each.dimensions == (64 if each.form == "prefix" else DIMENSIONS)
        assert (each.rows, each.fits) == (ROWS, True)
        assert each.maintenance_work_mem >= max(each.memory, 64 * MB)
    assert [f.method for f in docs.plan_index(calibrate=False)] == ["hnsw"] * 4


@pytest.mark.parametrize("rows", [0, 499, 2500, 3000, 1_000_000, 4_000_000, 2_000_000_000])
def test_lists_follow_the_number_of_rows(docs: pgvec.Collection, rows: int) -> None:
    (planned,) = docs.plan_index("ivfflat", form="full", rows=rows, calibrate=False)
    assert planned.options == IvfFlat().options(rows)


# pgvector's structs, added up, for a million rows, in GiB.
@pytest.mark.parametrize(
    ("form", "m", "memory", "disk"), [("full", 16, 1.03, 0.76), ("halfvec", 16, 0.85, 0.59), ("binary", 16, 0.7, 0.35)]
)
def test_sizes_of_a_million(docs: pgvec.Collection, form: str, m: int, memory: float, disk: float) -> None:
    (planned,) = docs.plan_index(form=form, m=m, rows=1_000_000, calibrate=False)
    assert planned.memory / 2**30 == pytest.approx(memory, rel=0.05)
    assert planned.size / 2**30 == pytest.approx(disk, rel=0.25)  # what is known of values of the same is in it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "btree"}, "unknown index method 'btree'"),
        ({"form": "quarter"}, "unknown form 'quarter'"),
        ({"m": 1}, "m must be from 2 to 100"),
        ({"m": 50, "ef_construction": 99}, "ef_construction from twice m"),
        ({"lists": 0}, "lists must be from 1 to 32768"),
        ({"rows": -1}, "rows must be from 0 to 1000000000000, not -1"),
        ({"rows": 10**12 + 1}, "rows must be from 0"),
        ({"prefix": DIMENSIONS}, f"prefix must be from 1 to {DIMENSIONS - 1}"),
    ],
)
def test_what_cannot_be_planned(docs: pgvec.Collection, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        docs.plan_index(**arguments, calibrate=False)


def test_forms_of_other_types(db: Database) -> None:
    bits = db.create_collection("bits", dimensions=64, type="bit", distance="jaccard")
    assert [(f.method, f.form) for f in bits.plan_index(None, calibrate=False)] == [("hnsw", "full")]
    with pytest.raises(ConfigurationError, match="no such index applies"):
        bits.plan_index("ivfflat", calibrate=False)
    words = db.create_collection("words", dimensions=1000, type="sparsevec", distance="inner_product")
    words.upsert({"id": [str(i) for i in range(200)], "vector": [{i: 1.0, 500: 2.0, 999: 1.0} for i in range(200)]})
    (planned,) = words.plan_index("hnsw")
    words.create_index()
    assert planned.size == pytest.approx(words.indexes()[0].size, rel=0.1)
    assert planned.seconds is not None
    large = db.create_collection("large", dimensions=5000, type="halfvec")
    assert {f.form for f in large.plan_index(None, calibrate=False)} == {"prefix", "binary"}
    none = db.create_collection("none", dimensions=2).plan_index(None)
    (empty,) = [f for f in none if f.method == "ivfflat" and f.form == "full"]
    assert empty.seconds == 0
    assert empty.note.startswith("Fewer rows than lists: load first")


def test_a_machine_that_is_too_small(db: Database, vectors: Callable[..., np.ndarray]) -> None:
    made = db.create_collection("docs", dimensions=DIMENSIONS, keywords=False)
    made.upsert({"id": [str(row) for row in range(600)], "vector": vectors(600, DIMENSIONS)})
    db.fetch(SMALL_MACHINE)
    full = made.plan_index(form="full", calibrate=False)[0]
    assert (full.fits, full.seconds) == (False, None)
    assert re.match(r"Needs \d+ kB, and the machine has 488 kB\. \w+, form \w+, fits", full.note), full.note
    with pytest.raises(IndexBuildError, match="the machine has 488 kB") as refused:
        made.create_index()
    assert "force=True" in str(refused.value)
    assert made.indexes() == made.builds() == []
    made.create_index(force=True)
    assert made.indexes()[0].usable


@pytest.mark.usefixtures("docs")
def test_a_role_that_may_only_read(plain: psycopg.Connection) -> None:
    plain.execute("CREATE ROLE forecast_reader")
    try:
        plain.execute("GRANT USAGE ON SCHEMA pgvec TO forecast_reader")
        plain.execute("GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO forecast_reader")
        plain.execute("GRANT SELECT ON docs, docs_dense TO forecast_reader")
        plain.execute("SET ROLE forecast_reader")
        plans = "SELECT fits, note FROM pgvec.plan_index('docs', form => 'full', rows => 100000000000) ORDER BY method"
        hnsw, ivfflat = plain.execute(plans.encode()).fetchall()
        assert (hnsw[0], ivfflat[0]) == (False, False)
        assert "assumed is as much as shared_buffers, or" in hnsw[1]
        assert "assumed is four times as much as shared_buffers, or" in ivfflat[1]
        assert plain.execute("SELECT memory, cores FROM pgvec._machine()").fetchone() == (None, None)
        plain.execute("RESET ROLE")
    finally:
        plain.execute("DROP OWNED BY forecast_reader; DROP ROLE forecast_reader")
