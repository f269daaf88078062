"""`pgvec eval`: one table, its files, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.outcome import Run

SUBJECTS = ("rotate credentials", "boil potatoes")


@pytest.fixture
def labelled(tmp_path: Path) -> list[str]:
    """Twenty-four queries for one page each, and one that is not judged; as options."""
    queries = [f'{{"_id": "{n}", "text": "{SUBJECTS[n % 2]} number {n}"}}\n' for n in range(24)]
    (tmp_path / "queries.jsonl").write_text("".join([*queries, '{"_id": "x", "text": "x"}\n']))
    grades = [f"{n}\thandbook/{n:02}.md\t1\n" for n in range(24)]
    (tmp_path / "qrels.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *grades]))
    return ["--queries", str(tmp_path / "queries.jsonl"), "--qrels", str(tmp_path / "qrels.tsv")]


def test_a_table(docs: Run, labelled: list[str]) -> None:
    shown = docs("eval", "docs", *labelled, "--mode", "dense", "--mode", "space:dense", "-k", "5")
    assert shown.code == 0, shown.err
    assert shown.err == "24 queries; 1 skipped: no document is judged relevant to them\n"
    head, *rows = [line.split() for line in shown.out.splitlines() if line.strip(" ─")]
    assert " ".join(head) == "metric mode mean 95 % interval minus dense 95 % interval differs"
    assert [row[:2] for row in rows] == [
        [metric, mode] for metric in ("ndcg@5", "mrr@5", "recall@5", "map@5") for mode in ("dense", "space:dense")
    ]
    assert all(0 < float(row[2]) <= 1 for row in rows)
    assert [row[6:] for row in rows] == [[], ["+0.0000", "+0.0000", "to", "+0.0000", "no"]] * 4
    alone = docs("eval", "docs", *labelled, "--mode", "dense")
    assert "minus" not in alone.out


def test_json_and_files(docs: Run, labelled: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    files = ["--runs", str(tmp_path / "runs"), "--plot", str(tmp_path / "plot.png")]
    shown = docs("eval", "docs", *labelled, "--mode", "dense", *files, "--json")
    assert shown.code == 0, shown.err
    assert (shown.json["queries"], shown.json["skipped"], shown.json["k"]) == (24, 1, 10)
    assert [row["metric"] for row in shown.json["table"]] == ["ndcg@10", "mrr@10", "recall@10", "map@10"]
    assert len(shown.json["results"]["dense"]) == 24
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "runs" / "dense.run").read_text().startswith("0\tQ0\thandbook/")
    assert shown.err.endswith(f"runs: {tmp_path}/runs/dense.run\npicture: {tmp_path}/plot.png\n")


def test_the_default_modes_and_fitted_weights(docs: Run, labelled: list[str]) -> None:
    shown = docs("eval", "docs", *labelled, "--fit", "--fusion", "relative")
    assert shown.code == 0, shown.err
    assert "fitted to" in shown.out
    assert "held out" in shown.out
    assert "relative: dense " in shown.out
    shown = docs("eval", "docs", *labelled, "--fit", "--json", "-k", "3")
    assert list(dict.fromkeys(row["mode"] for row in shown.json["table"])) == ["dense", "keyword", "hybrid"]
    assert (shown.json["fitted"]["fusion"], shown.json["fitted"]["metric"]) == ("relative", "ndcg@3")
    assert sum(shown.json["fitted"]["weights"].values()) == pytest.approx(1)


def test_remarks(docs: Run, tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "boil potatoes"}\n')
    (tmp_path / "qrels.tsv").write_text("1\tgone.md\t1\n1\thandbook/01.md\t1\n2\thandbook/02.md\t1\n")
    files = ["--queries", str(tmp_path / "queries.jsonl"), "--qrels", str(tmp_path / "qrels.tsv")]
    remarks = docs("eval", "docs", *files, "--mode", "dense").err.splitlines()
    assert remarks == [
        "1 queries",
        "1 queries are judged, but not among the queries given",
        "1 relevant documents are not in the collection: nothing can find them",
        "1 queries are few: intervals are narrower than they should be",
    ]


def test_errors_are_one_line(docs: Run, labelled: list[str], tmp_path: Path) -> None:
    (tmp_path / "other.tsv").write_text("99\thandbook/01.md\t1\n")
    (tmp_path / "broken.tsv").write_text("1\thandbook/01.md\tgood\n")
    for arguments, wanted in (
        ([*labelled, "--mode", "sparse"], "unknown mode 'sparse'"),
        ([*labelled, "--queries", str(tmp_path / "absent")], "cannot read .*absent: No such file"),
        ([*labelled, "--qrels", str(tmp_path / "other.tsv")], "none of the 25 queries is judged"),
        ([*labelled, "--qrels", str(tmp_path / "broken.tsv")], "broken.tsv, line 1: grade 'good'"),
    ):
        failed = docs("eval", "docs", "--mode", "dense", *arguments)
        assert (failed.code, failed.out) == (1, "")
        assert failed.err.startswith("pgvec: ")
        assert failed.err.count("\n") == 1
        assert wanted.replace(".*", "") in failed.err or all(part in failed.err for part in wanted.split(".*"))
    assert docs("eval", "docs").code == 2
