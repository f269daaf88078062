"""`pgvec advise`: a table and a reason, its files, and errors before anything is built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pgvec_toolkit.database import Database
from tests.cli.outcome import Run

CANDIDATE = ("--candidate", "hnsw,m=4,ef_construction=8,form=full")


@pytest.fixture
def loaded(dsn: str) -> None:
    vectors = np.random.default_rng(2).normal(size=(1000, 4)).astype(np.float32)
    with Database(dsn) as database:
        docs = database.create_collection("docs", dimensions=4, keywords=False)
        docs.upsert({"id": [str(n) for n in range(1000)], "vector": vectors})


@pytest.mark.usefixtures("loaded")
def test_a_table_and_its_files(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="needs the extra `plot`")
    files = ["--plot", str(tmp_path / "a.html"), "--migration", str(tmp_path / "a.sql")]
    shown = run("advise", "docs", *CANDIDATE, "--recall", "0.5", *files)
    assert shown.code == 0, shown.err
    assert "hnsw 4/8 full   0.5 " in shown.out
    assert "→" in shown.out
    assert "hnsw 4/8 full answers " in shown.out
    assert shown.err.startswith("1 indexes of 800 rows in ")
    assert shown.err.endswith(f"picture: {tmp_path}/a.html\nmigration: {tmp_path}/a.sql\n")
    assert (tmp_path / "a.html").stat().st_size > 1_000_000
    assert "CREATE INDEX CONCURRENTLY" in (tmp_path / "a.sql").read_text()
    plain = run("advise", "docs", *CANDIDATE, "--recall", "0.5", "--recall", "0.6", "--sample", "0", "--json")
    assert [row["target_recall"] for row in plain.json["table"]] == [0.5, 0.6]
    assert plain.json["recommended"]["arguments"] == {
        "method": "hnsw",
        "form": "full",
        "m": 4,
        "ef_construction": 8,
    }


def test_errors(run: Run, bare: Run, tmp_path: Path) -> None:
    # No server is asked: the files are looked at first.
    for option, message in (("--plot", "name a file .png or .html"), ("--migration", "name a file .sql, or .py")):
        failed = bare("advise", "docs", option, str(tmp_path / "a.txt"))
        assert (failed.code, failed.out, failed.err.count("\n")) == (1, "", 1)
        assert message in failed.err
    assert "there is no collection 'docs'" in run("advise", "docs").err


@pytest.mark.usefixtures("loaded")
def test_candidates_that_cannot_be_read(run: Run) -> None:
    for text, message in (("hnsw,m", "not name=value"), ("hnsw,m=x", "not a whole number")):
        failed = run("advise", "docs", "--candidate", text)
        assert failed.code == 2
        assert message in failed.err
    assert run("advise", "docs", "--candidate", "flat").err.startswith("pgvec: unknown index method 'flat'")
