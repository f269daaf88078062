"""Builds of vector indexes: online or not, watched by others, out of memory, remembered."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import psycopg
import pytest

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import IndexBuildError
from pgvec_toolkit.schema import build as building
from pgvec_toolkit.schema.build import build
from pgvec_toolkit.schema.index_specs import Hnsw, index_form

ROWS, DIMENSIONS = 3000, 32
# As on a machine with too little memory: 2 MB hold about 2,300 rows.
LITTLE_MEMORY = """
CREATE OR REPLACE FUNCTION pgvec._build_limits(relation regclass) RETURNS jsonb LANGUAGE sql AS
$$ SELECT '{"memory": null, "free": null, "segment": null, "cores": 1, "workers": 0, "usable": 2097152}'::jsonb $$
"""


@pytest.fixture
def docs(db: Database, vectors: Callable[..., np.ndarray]) -> pgvec.Collection:
    made = db.create_collection("docs", dimensions=DIMENSIONS, keywords=False)
    made.upsert({"id": [str(row) for row in range(200)], "vector": vectors(200, DIMENSIONS)})
    return made


@contextmanager
def _another_session(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def _online(docs: pgvec.Collection) -> bool:
    return docs.builds()[0].online


def test_a_fresh_collection_is_built_plainly_and_a_served_one_online(docs: pgvec.Collection) -> None:
    docs._database.fetch("SELECT 1")  # our own pooled sessions are nobody else's
    docs.create_index(m=4)
    assert not _online(docs)
    docs.drop_index()
    docs.create_index(m=4)  # it has had an index
    assert _online(docs)
    docs.drop_index()
    docs.create_index(m=4, concurrently=False)
    assert not _online(docs)


def test_others_that_are_connected_may_be_using_a_fresh_collection(docs: pgvec.Collection) -> None:
    with _another_session(docs._database.dsn):
        docs.create_index(m=4)
    assert _online(docs)


def test_an_index_made_by_hand_was_an_index(docs: pgvec.Collection) -> None:
    made = docs._database.fetch_one("SELECT pgvec._served(id, ARRAY[]::integer[]) FROM pgvec.vector_spaces")
    assert made == ("others are connected to this database",)
    docs._database.fetch("CREATE INDEX ON docs_dense USING hnsw (embedding vector_l2_ops)")
    served = docs._database.fetch_one("SELECT pgvec._served(id, ARRAY[]::integer[]) FROM pgvec.vector_spaces")
    assert served == ("it has had an index before",)


def test_builds_are_remembered(docs: pgvec.Collection) -> None:
    assert docs.builds() == []
    docs.create_index(m=4, ef_construction=20)
    (first,) = docs.builds()
    assert (first.index, first.method, first.form, first.dimensions) == ("docs_dense_hnsw", "hnsw", "full", DIMENSIONS)
    assert (first.options, first.rows) == ({"m": 4, "ef_construction": 20}, 200)
    assert first.size == docs.indexes()[0].size
    assert first.seconds > 0
    assert first.forecast_seconds is first.spilled_after is None
    assert first.memory_limit >= max(first.forecast_memory, 64 * 2**20)
    docs.drop_index()
    docs.create_index("ivfflat", lists=2)
    assert [build.method for build in docs.builds()] == ["ivfflat", "hnsw"]


def test_progress_of_a_build_by_anybody(docs: pgvec.Collection) -> None:
    dsn = docs._database.dsn
    failures: list[BaseException] = []

    def by_hand() -> None:
        try:
            with _another_session(dsn) as session:
                session.execute("CREATE INDEX CONCURRENTLY theirs ON docs_dense USING hnsw (embedding vector_l2_ops)")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=by_hand)
    with _another_session(dsn) as onlooker, psycopg.connect(dsn) as writer:
        writer.execute("UPDATE docs_dense SET key = key WHERE key = 1")
        thread.start()
        shown = None
        for _ in range(3000):
            shown = onlooker.execute(
                "SELECT collection, space, index, phase, share, elapsed > '0', eta, pid FROM pgvec.build_progress"
            ).fetchone()
            if shown and shown[3].startswith("waiting"):
                break
            time.sleep(0.005)
        assert shown is not None, failures
        assert shown[:7] == ("docs", "dense", "theirs", "waiting for writers before build", 0, True, None)
        with pytest.raises(IndexBuildError, match="another session is building theirs: wait"):
            docs.create_index()
        writer.rollback()
        thread.join()
        assert onlooker.execute("SELECT count(*) FROM pgvec.build_progress").fetchone() == (0,)
    assert not failures


def test_memory_that_is_full_is_explained_and_remembered(
    db: Database, vectors: Callable[..., np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    made = db.create_collection("docs", dimensions=DIMENSIONS, keywords=False)
    made.upsert({"id": [str(row) for row in range(ROWS)], "vector": vectors(ROWS, DIMENSIONS)})
    db.fetch(LITTLE_MEMORY)
    with caplog.at_level(logging.WARNING, "pgvec_toolkit"):
        made.create_index(m=16, ef_construction=33)
    before, when = (record.getMessage() for record in caplog.records)
    assert "go into the index on disk, slower by far" in before
    (spilled,) = [build.spilled_after for build in made.builds()]
    assert spilled is not None
    assert 0 < spilled < ROWS
    assert f"after {spilled:,} of {ROWS:,} rows" in when
    assert "set maintenance_work_mem to" in when
    assert made.recall(sample=200).recall > 0.75
    # Forecasts do not learn from what was slow.
    assert made.plan_index(form="full", m=16, ef_construction=33, calibrate=False)[0].seconds is None


def test_beside_another_index(docs: pgvec.Collection) -> None:
    docs.create_index(m=4)
    docs.tune(0.9, sample=50)
    space = docs.space
    name = build(docs._database, space, Hnsw(8, 40), index_form(space), name="docs_dense_next", beside=True)
    assert [index.name for index in docs.indexes()] == ["docs_dense_hnsw", "docs_dense_next"]
    assert name == "docs_dense_next"
    current = "SELECT count(*) FROM pgvec.tuning_profiles WHERE superseded_at IS NULL"
    assert docs._database.fetch(current) == [(1,)]
    with pytest.raises(IndexBuildError, match="docs_dense_next exists already"):
        build(docs._database, space, Hnsw(8, 40), index_form(space), name="docs_dense_next", beside=True)
    # What was tuned goes with the last index of the method.
    docs.drop_index("docs_dense_next")
    assert docs._database.fetch(current) == [(1,)]
    docs.drop_index()
    assert docs._database.fetch(current) == [(0,)]


def test_a_calibration_stays_with_the_index_in_use(docs: pgvec.Collection) -> None:
    fetch = docs._database.fetch
    calibrated = "INSERT INTO pgvec.calibrations (space_id, exact_us, exact_cold_us) SELECT id, 1, 1 FROM %s"
    there = "SELECT count(*) FROM pgvec.calibrations"
    docs.create_index(m=4)
    fetch(calibrated % "pgvec.vector_spaces")
    for name, distance in (("docs_dense_a_stray", "l2"), ("docs_dense_ccnew", "cosine")):
        fetch(f"CREATE INDEX {name} ON docs_dense USING hnsw (embedding vector_{distance}_ops)")
        docs.drop_index(name)
        assert fetch(there) == [(1,)]
    fetch("CREATE INDEX theirs ON docs_dense USING ivfflat (embedding vector_cosine_ops) WITH (lists = 2)")
    docs.drop_index("docs_dense_hnsw")
    assert fetch(there) == [(0,)]
    fetch(calibrated % "pgvec.vector_spaces")
    docs.drop_index()
    assert fetch(there) == [(0,)]


def test_lists_of_an_empty_table_are_warned_of(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    made = db.create_collection("docs", dimensions=2, keywords=False)
    with caplog.at_level(logging.WARNING, "pgvec_toolkit"):
        made.create_index("ivfflat")
    (warning,) = caplog.messages
    assert warning.startswith("index docs_dense_ivfflat: Fewer rows than lists: load first")


def test_progress_that_nobody_sees_is_not_asked_for(docs: pgvec.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(building, "_WATCH_INTERVAL", 0)
    monkeypatch.setattr(docs._database, "fetch_one", lambda sql, *_: asked.append(sql))
    docs.create_index(m=4, progress=False)
    assert building._PROGRESS not in asked
    asked.clear()
    with building.build_progress(docs._database, 0, "building", True):
        while building._PROGRESS not in asked:
            time.sleep(0.001)


def test_what_other_interrupted_builds_left_is_cleared(docs: pgvec.Collection) -> None:
    """One of ours under another name; not what somebody else calls their own."""
    database = docs._database
    for name in ("docs_dense_next", "theirs"):
        database.fetch(f"CREATE INDEX {name} ON docs_dense USING hnsw (embedding vector_cosine_ops)")
        database.fetch("UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::regclass", [name])
    with pytest.raises(IndexBuildError, match="has a vector index, theirs: drop it first"):
        docs.create_index()
    assert [index.name for index in docs.indexes()] == ["theirs"]
    docs.drop_index("theirs")
    docs.create_index()
    assert [index.valid for index in docs.indexes()] == [True]
