"""`pgvec watch` and `pgvec log`."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import psycopg
import pytest

from tests.cli.outcome import PGVEC, Run

LINE = r"[\d: -]{19} recall@10 1\.000 \(0\.886 to 1\.000\) on 30 stored rows, [\d.]+ ms, 0 short results; "


def test_watching(docs: Run, connection: psycopg.Connection) -> None:
    nothing = docs("watch", "docs", "--history")
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing was checked yet" in nothing.err
    first = docs("watch", "docs", "--sample", "30")
    assert (first.code, first.err) == (0, "")
    assert re.fullmatch(LINE + "drift: measured from here\n", first.out)
    checked = docs("watch", "docs", "-k", "3", "--sample", "40", "--json")
    assert checked.code == 0
    assert (checked.json["k"], checked.json["queries"], checked.json["alarms"]) == (3, 40, [])

    connection.execute("UPDATE pgvec.drift_baselines SET distances = array_fill(-1::float8, '{200}')")
    alarmed = docs("watch", "docs", "--sample", "30")
    assert alarmed.code == 3
    assert re.fullmatch(LINE + r"drift: mean 0\.00, distances 1\.00, out of range 1\.00\n", alarmed.out)
    assert [line[:43] for line in alarmed.err.splitlines()] == [
        "ALARM drift: queries are farther from their",
        "ALARM drift: 1.00 of the queries are farthe",
    ]
    accepted = docs("watch", "docs", "--new-baseline", "--sample", "40", "--json")
    assert (accepted.code, accepted.json["alarms"]) == (0, [])
    assert accepted.err == "drift of docs is measured from now on anew\n"

    assert [check["k"] for check in docs("watch", "docs", "--history", "--json").json] == [10, 3, 10, 10]
    shown = docs("watch", "docs", "--history", "--limit", "2").out.splitlines()
    assert [line[:9] for line in shown[1:3]] == ["    ALARM"] * 2
    assert len(shown) == 4


def test_watching_until_interrupted(docs: Run, dsn: str) -> None:
    assert docs("watch", "docs", "--every", "10 minutes").code == 2
    assert docs("watch", "docs", "--every", "0s").code == 2
    both = docs("watch", "docs", "--every", "1s", "--history")
    assert (both.code, both.out) == (2, "")
    assert "not both" in both.err
    command = [*PGVEC, "watch", "docs", "--sample", "2", "--every", "1s", "--json", "--dsn", dsn]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"pgvec: interrupted; [^\n]+\n", complaints), complaints
    stored = docs("watch", "docs", "--history", "--limit", "1000", "--json").json
    assert stored[:3] == seen


@pytest.mark.parametrize("arguments", [["--off", "--share", "0.5"], ["--share", "2"], ["--keep", "0"], ["--keep", "5"]])
def test_log_usage(docs: Run, arguments: list[str]) -> None:
    assert docs("log", "docs", *arguments).code == 2


def test_logging(docs: Run) -> None:
    assert docs("log", "docs").out == "queries are not logged; nothing is logged yet\n"
    on = docs("log", "docs", "--share", "1", "--keep", "50")
    assert (on.code, on.out) == (0, "100.00% of the queries are logged, 50 are kept; nothing is logged yet\n")
    for where in ("{}", '{"year": 2001}'):
        assert docs("search", "docs", "rotate", "--where", where).code == 0
    state = docs("log", "docs", "--json").json
    assert (state["share"], state["keep"], state["queries"], state["filtered"]) == (1, 50, 2, 2)
    off = docs("log", "docs", "--off").out
    assert re.fullmatch(r"queries are not logged; 2 queries since [\d: -]+, 2 of them with a filter\n", off)
    forgotten = docs("log", "docs", "--forget")
    assert forgotten.err == "2 logged queries were deleted\n"
    assert forgotten.out == "queries are not logged; nothing is logged yet\n"
