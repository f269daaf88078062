"""The advisor: what it measures is complete, what it advises runs, and it leaves nothing behind."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, TuningError
from pgvec_toolkit.tune.advice import Advice
from pgvec_toolkit.tune.scratch import PREFIX, scratch
from tests.integration.examples import psql

ROWS, DIMENSIONS = 1250, 8
RANDOM = np.random.default_rng(5)
STORED = RANDOM.normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
CANDIDATES: list[dict[str, Any]] = [
    {"m": 16, "ef_construction": 64},
    {"m": 8, "ef_construction": 32, "form": "halfvec"},
]


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    """A collection with a poor index."""
    dsn = make_conninfo(server_dsn, dbname="t_advise", options="-c enable_seqscan=off")
    with janitor("t_advise", template), Database(dsn) as database:
        docs = database.create_collection("docs", dimensions=DIMENSIONS, distance="l2", keywords=False)
        docs.upsert({"id": [str(n) for n in range(ROWS)], "vector": STORED})
        docs.create_index(m=4, ef_construction=8)
        yield docs


@pytest.fixture(scope="module")
def advice(docs: Collection) -> Advice:
    return docs.advise([0.95, 0.9], sample=1000, candidates=CANDIDATES, progress=False)


def remains(docs: Collection) -> list[Any]:
    """Return what is left of scratch collections."""
    relations = docs.database.fetch("SELECT relname::text FROM pg_class WHERE starts_with(relname, $1)", [PREFIX])
    return [*docs.database.collections(), *relations]


def test_every_candidate_is_measured_at_every_target(docs: Collection, advice: Advice) -> None:
    names = ["hnsw 16/64 full", "hnsw 8/32 halfvec"]
    assert [(row.index, row.target_recall) for row in advice.rows] == [(n, t) for n in names for t in (0.9, 0.95)]
    assert (advice.sample_rows, advice.total_rows, advice.queries) == (1000, ROWS, ROWS // 5)
    for row in advice.rows:
        assert row.recall is not None
        assert row.milliseconds is not None
        assert row.recall >= row.target_recall
        assert min(row.setting or 0, row.milliseconds, row.size, row.memory, row.build_seconds) > 0
        assert row.insert_milliseconds > 0
        assert row.fits
    full, halfvec = advice.options
    assert halfvec.size < full.size
    assert advice.size(full) == 1.25 * full.size
    assert advice.exact_milliseconds > 0
    assert sum(row.recommended for row in advice.rows) == 2
    assert advice.to_dict()["choices"].keys() == {"0.9", "0.95"}
    # Nothing of the collection has changed, and nothing is left.
    assert [index.options for index in docs.indexes()] == [["m=4", "ef_construction=8"]]
    assert docs.database.fetch("SELECT count(*) FROM pgvec.tuning_profiles") == [(0,)]
    assert remains(docs) == ["docs"]


def test_the_curves_are_drawn(advice: Advice, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="needs the extra `plot`")
    advice.plot(tmp_path / "advice.html")
    text = (tmp_path / "advice.html").read_text()
    assert all(option.name.replace("/", r"\u002f") in text for option in advice.options)


def check_put_in_place(docs: Collection, advice: Advice) -> None:
    (index,) = docs.indexes()
    candidate = advice.recommended.candidate
    assert (index.name, index.form, index.usable) == ("docs_dense_hnsw", candidate.form, True)
    assert index.options == [f"m={candidate.m}", f"ef_construction={candidate.ef_construction}"]


def check_back(docs: Collection, before: list[Any]) -> None:
    assert [(index.name, index.form, index.options) for index in docs.indexes()] == before


def test_the_script_puts_it_in_place_and_names_the_way_back(docs: Collection, advice: Advice, tmp_path: Path) -> None:
    before = [(index.name, index.form, index.options) for index in docs.indexes()]
    docs.tune(0.6, queries=STORED[:40], progress=False)
    advice.migration(tmp_path / "advice.sql")
    comments = (tmp_path / "advice.sql").read_text().partition("\n\n")[0]
    run_script = psql(docs.database.dsn, "-f", str(tmp_path / "advice.sql"))
    with psycopg.connect(docs.database.dsn, autocommit=True) as connection:
        # What fails leaves the old index: here a table has the name of the new one.
        connection.execute("CREATE TABLE docs_dense_hnsw_new ()")
        assert subprocess.run(run_script, capture_output=True, check=False).returncode == 3
        check_back(docs, before)
        connection.execute("DROP TABLE docs_dense_hnsw_new")
        subprocess.run(run_script, capture_output=True, check=True)
        check_put_in_place(docs, advice)
        current = "SELECT count(*) FROM pgvec.tuning_profiles WHERE superseded_at IS NULL"
        assert connection.execute(current).fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM pgvec.calibrations").fetchone() == (0,)
        back = comments.partition("The way back:\n")[2].splitlines()
        for line in back:
            connection.execute(line.removeprefix("-- ").encode())
    check_back(docs, before)


def test_the_revision_of_alembic_goes_both_ways(docs: Collection, advice: Advice, tmp_path: Path) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    before = [(index.name, index.form, index.options) for index in docs.indexes()]
    advice.migration(tmp_path / "advice.py")
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(docs.database.dsn), poolclass=NullPool
    )
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
        with Operations.context(context):
            revision = runpy.run_path(str(tmp_path / "advice.py"))
            with context.begin_transaction(_per_migration=True):
                revision["upgrade"]()
            check_put_in_place(docs, advice)
            with context.begin_transaction(_per_migration=True):
                revision["downgrade"]()
    check_back(docs, before)


def test_what_is_recommended_can_be_built(docs: Collection, advice: Advice) -> None:
    docs.drop_index()
    docs.create_index(**advice.recommended.arguments)
    check_put_in_place(docs, advice)


def test_logged_queries_and_a_target_out_of_reach(docs: Collection) -> None:
    with pytest.raises(TuningError, match="no queries are logged"):
        docs.advise(queries="log")
    with docs.database.connection() as connection:
        connection.cursor().executemany(
            "INSERT INTO pgvec.query_log (space_id, query, k) VALUES (%s, %s, 10)",
            [(docs.space.id, str(query.tolist())) for query in STORED[:60] + 0.1],
        )
    poor = [{"m": 2, "ef_construction": 4}]
    found = docs.advise(0.9999, queries="log", sample=1000, candidates=poor, progress=False)
    assert (found.queries, found.sample_rows) == (60, 1000)
    assert [row.setting for row in found.rows] == [None]
    with pytest.raises(TuningError, match=r"no candidate reaches recall 0\.9999.*larger m"):
        _ = found.recommended


def test_interrupted_it_leaves_nothing(docs: Collection) -> None:
    def interrupt() -> None:
        deadline = time.monotonic() + 60
        with psycopg.connect(docs.database.dsn, autocommit=True) as connection:
            # Where another session builds an index of ours is the only thing it waits for.
            building = r"SELECT count(*) FROM pg_stat_progress_create_index WHERE relid::regclass::text LIKE '%\_c0'"
            while connection.execute(building).fetchone() == (0,) and time.monotonic() < deadline:
                time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            docs.advise(sample=None, candidates=[{"m": 100, "ef_construction": 1000}], progress=False)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, handler)
    assert remains(docs) == ["docs"]


def test_what_a_killed_run_left_is_dropped_by_the_next(docs: Collection) -> None:
    left, used = f"{PREFIX}00000001", f"{PREFIX}00000002"
    notes = f"{PREFIX}notes"  # a user's own
    for name in (left, used, notes):
        docs.database.create_collection(name, dimensions=2, keywords=False)
    with docs.database.dedicated_connection() as other:
        other.execute("SELECT pg_advisory_lock(hashtext('pgvec.advise'), hashtext(%s))", [used])
        with scratch(docs.database, docs.space) as made:
            assert sorted(docs.database.collections()) == sorted(["docs", notes, used, made.name])
        other.execute("SELECT pg_advisory_unlock_all()")  # a session ends some moments after its connection
    with scratch(docs.database, docs.space):
        pass
    assert sorted(docs.database.collections()) == ["docs", notes]
    docs.database.drop_collection(notes)
    assert remains(docs) == ["docs"]


def test_what_cannot_be_advised_on_is_refused_at_once(docs: Collection) -> None:
    for arguments, error, message in (
        ({"recall": 1}, TuningError, "target recall"),
        ({"recall": []}, TuningError, "none of them twice"),
        ({"sample": 999}, ConfigurationError, "at least 1,000 rows"),
        ({"k": 0}, ConfigurationError, "k must be"),
        ({"queries": STORED[:19]}, TuningError, "19 queries are too few"),
        ({"queries": STORED[:, :5]}, ConfigurationError, "has 5 dimensions, not 8"),
        ({"candidates": [{"m": 1}]}, ConfigurationError, "m must be"),
    ):
        with pytest.raises(error, match=message):
            docs.advise(**arguments)
    few = docs.database.create_collection("few", dimensions=2, keywords=False)
    few.upsert({"id": ["a"], "vector": [[1, 2]]})
    with pytest.raises(TuningError, match="holds 1 rows, too few"):
        few.advise()
    docs.database.drop_collection("few")
