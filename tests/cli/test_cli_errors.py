"""What goes wrong on the command line: one line, an exit code, and nothing half done."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.embed import kinds
from tests.cli.outcome import PGVEC, Outcome, Run


def _is_one_line(outcome: Outcome, wanted: str) -> None:
    assert outcome.code == 1, outcome
    assert outcome.out == ""
    assert re.fullmatch(r"pgvec: [^\n]+\n", outcome.err), outcome.err
    assert re.search(wanted, outcome.err), outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["collection", "show", "nothing"], ["collection", "drop", "nothing", "--yes"], ["ingest", "nothing", "."]),
        *(["search", "nothing", "x"], ["index", "create", "nothing"], ["index", "drop", "nothing"]),
        *(["tune", "nothing"], ["recall", "nothing"], ["index", "list", "nothing"]),
    ],
    ids=" ".join,
)
def test_an_unknown_collection_is_one_line(run: Run, arguments: list[str]) -> None:
    _is_one_line(run(*arguments), "there is no collection 'nothing'.*create one")


@pytest.mark.parametrize("command", [["collection", "list"], ["status"], ["migrate"], ["migrate", "--down-to", "base"]])
def test_an_unreachable_server_is_one_line(bare: Run, command: list[str]) -> None:
    _is_one_line(bare(*command, "--dsn", "host=127.0.0.1 port=1"), "no connection to PostgreSQL.*port 1 failed")


@pytest.mark.parametrize("command", [["collection", "list"], ["status"], ["migrate"], ["psql"]])
def test_a_bad_dsn_is_one_line(bare: Run, command: list[str]) -> None:
    _is_one_line(bare(*command, "--dsn", "bla"), "not a PostgreSQL connection string")


def test_an_unmigrated_database_is_one_line(bare: Run, empty_dsn: str) -> None:
    _is_one_line(bare("collection", "list", "--dsn", empty_dsn), "run `pgvec migrate`")
    shown = bare("status", "--json", "--dsn", empty_dsn)
    assert shown.code == 0
    assert "pgvec migrate" in shown.json["schema"]


def test_other_errors_are_one_line(docs: Run, tmp_path: Path) -> None:
    _is_one_line(docs("search", "docs", "x", "--where", '{"year": {"$near": 3}}'), r"\$near")
    _is_one_line(docs("search", "docs", " "), "query is empty")
    _is_one_line(docs("search", "docs", "x", "-k", "10001"), "k must be")
    _is_one_line(docs("index", "create", "docs", "btree"), "use hnsw or ivfflat")
    _is_one_line(docs("index", "create", "docs", "--m", "1"), "m must be from 2 to 100")
    _is_one_line(docs("index", "drop", "docs", "docs_pkey"), "no vector index")
    _is_one_line(docs("ingest", "docs", str(tmp_path / "absent")), "no file or folder")
    _is_one_line(docs("collection", "create", "docs", "--dimensions", "3"), "exists already")
    _is_one_line(docs("collection", "create", "Docs", "--dimensions", "3"), "cannot be the name")
    _is_one_line(docs("collection", "create", "more", "--dimensions", "3", "-c", "x:blob"), "unknown column type")
    _is_one_line(docs("collection", "create", "more", "--dimensions", "3", "--language", "klingon"), "klingon")
    _is_one_line(docs("collection", "create", "more", "--dimensions", "3", "--schema", "absent"), "absent")
    _is_one_line(docs("migrate", "--down-to", "base"), "still has collections")
    _is_one_line(docs("migrate", "--down-to", "nonsense"), "nonsense")
    assert docs("collection", "list", "--json").json[0]["collection"] == "docs"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["search", "docs", "x", "--where", "{"], "--where.*not JSON"),
        (["search", "docs", "x", "--where", "[1]"], "--where.*JSON object"),
        (["recall", "docs", "--where", "x"], "--where.*not JSON"),
        (["collection", "create", "docs", "--column", "year"], "--column.*name:type"),
        (["collection", "create", "docs", "--column", ":int"], "--column.*name:type"),
        (["collection", "create", "docs", "--dimensions", "many"], "--dimensions"),
        (["search", "docs", "x", "-k", "0"], "-k"),
        (["search", "docs", "x", "--nonsense"], "--nonsense"),
        (["search", "docs"], "query"),
        (["nonsense"], "nonsense"),
        (["collection", "nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_2_and_explained(bare: Run, arguments: list[str], wanted: str) -> None:
    outcome = bare(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert re.search(wanted, re.sub(r"[\s│]+", " ", outcome.err)), outcome.err


@pytest.mark.parametrize("name", ["absent.txt", "absent.npy"])
def test_a_query_file_that_is_absent_is_wrong_usage(docs: Run, name: str) -> None:
    outcome = docs("recall", "docs", "--queries", f"/nowhere/{name}")
    assert outcome.code == 2
    assert "--queries" in outcome.err


# -- interrupted -----------------------------------------------------------------------------------

SLOW = """
import sys
import numpy as np
from pgvec_toolkit.embed import kinds

class Slow:
    name, dimensions, batches = "test/slow", 4, 0
    def embed_query(self, text):
        return np.ones(4, np.float32)
    def embed_documents(self, texts):
        import time
        self.batches += 1
        if self.batches > 2:
            print("third batch", flush=True)
            time.sleep(600)
        return np.ones((len(texts), 4), np.float32)

kinds.load = lambda *_, **__: Slow()
from pgvec_toolkit.cli import main
main()
"""


def test_an_interrupted_ingest_keeps_what_is_done(
    run: Run, monkeypatch: pytest.MonkeyPatch, dsn: str, tmp_path: Path, connection: psycopg.Connection
) -> None:
    lines = [json.dumps({"id": f"d{number}", "text": f"text {number}"}) for number in range(2000)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))

    class Quick:
        name, dimensions = "test/slow", 4

        def embed_query(self, text: str) -> Any:
            del text
            return np.ones(4, np.float32)

        def embed_documents(self, texts: list[str]) -> Any:
            return np.ones((len(texts), 4), np.float32)

    monkeypatch.setattr(kinds, "load", lambda *_, **__: Quick())
    assert run("collection", "create", "docs", "--embedder", "w").code == 0
    command = [sys.executable, "-c", SLOW, "ingest", "docs", str(tmp_path / "many.jsonl"), "--dsn", dsn]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "third batch\n"
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    said = re.fullmatch(
        r"[^\n]+: (\d+) documents, 0 of them unchanged; (\d+) chunks written until it was interrupted\n"
        r"pgvec: interrupted; [^\n]+ running it again does the rest\n",
        complaints,
    )
    assert said, complaints
    counts = (
        "SELECT (SELECT count(*) FROM docs), (SELECT count(*) FROM docs_dense), (SELECT count(*) FROM pgvec.ledger)"
    )
    chunks, vectors, documents = connection.execute(counts).fetchone() or (0, 0, 0)
    assert 0 < chunks == vectors == documents < 2000
    assert said.groups() == (str(documents), str(chunks))
    again = run("ingest", "docs", str(tmp_path / "many.jsonl"))
    assert f"2000 documents, {documents} of them unchanged; {2000 - documents} chunks written" in again.err
    assert connection.execute(counts).fetchone() == (2000, 2000, 2000)


def test_a_reader_that_leaves_is_no_error(dsn: str, docs: Run) -> None:
    del docs
    for arguments in (["collection", "list"], ["migrate", "--sql"], ["collection", "show", "docs", "--json"]):
        with subprocess.Popen(
            [*PGVEC, *arguments, "--dsn", dsn], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.close()  # before anything is written
            assert process.stderr is not None
            assert process.stderr.read() == "", arguments
