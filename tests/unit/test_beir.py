"""Files of BEIR and TREC: what is written is read again, and what is broken is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.evaluate.beir import (
    read_corpus,
    read_qrels,
    read_queries,
    read_run,
    write_corpus,
    write_qrels,
    write_queries,
    write_run,
)

AWKWARD = ("a b.md", 'quo"te', "ünï", "#1")


def test_round_trips(tmp_path: Path) -> None:
    queries = {id: f"what is {id}?\u2028\nsecond line" for id in AWKWARD}
    write_queries(tmp_path / "queries.jsonl", queries)
    assert read_queries(tmp_path / "queries.jsonl") == queries

    qrels = {id: {other: grade - 1 for grade, other in enumerate(AWKWARD)} for id in AWKWARD}
    write_qrels(tmp_path / "qrels.tsv", qrels)
    assert read_qrels(tmp_path / "qrels.tsv") == qrels

    run = {id: [(other, 0.1 - rank / 3) for rank, other in enumerate(AWKWARD)] for id in AWKWARD}
    write_run(tmp_path / "dense.run", run, "space: title")
    assert read_run(tmp_path / "dense.run") == run
    assert (tmp_path / "dense.run").read_text(encoding="utf-8").splitlines()[
        0
    ] == "a b.md\tQ0\ta b.md\t1\t0.1\tspace:-title"

    corpus = [
        {"id": "1", "title": "On pumps", "text": "On pumps On pumps and valves"},
        {"id": "2", "title": "", "text": "untitled"},
        {"id": "3", "title": "On pumps", "text": "On pumps "},
    ]
    write_corpus(tmp_path / "corpus.jsonl", corpus)
    assert list(read_corpus(tmp_path / "corpus.jsonl")) == corpus
    assert '"text": "On pumps and valves"' in (tmp_path / "corpus.jsonl").read_text()


def test_a_corpus_is_read_as_records_to_ingest(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        '\ufeff{"_id": 7, "title": "Pumps", "text": "leak", "metadata": {"year": 1999}}\n\n{"_id": "8", "text": "x"}\n',
        encoding="utf-8",
    )
    assert list(read_corpus(tmp_path / "corpus.jsonl")) == [
        {"id": "7", "title": "Pumps", "text": "Pumps leak", "metadata": {"year": 1999}},
        {"id": "8", "text": "x"},
    ]


@pytest.mark.parametrize(
    "lines",
    [
        "query-id\tcorpus-id\tscore\r\nq 1\td1\t2\r\nq 1\td 2\t0\r\n",
        "q 1\td1\t2\n\nq 1\td 2\t0",
        "q 1\t0\td1\t2\nq 1\t0\td 2\t0\n",
    ],
    ids=["BEIR", "headerless", "TREC"],
)
def test_layouts_of_judgements(tmp_path: Path, lines: str) -> None:
    (tmp_path / "qrels").write_bytes(lines.encode())
    assert read_qrels(tmp_path / "qrels") == {"q 1": {"d1": 2, "d 2": 0}}


def test_trec_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("1 0 d1 1\n1  0  d2  -2\n2 0 d1 1\n")
    assert read_qrels(tmp_path / "qrels") == {"1": {"d1": 1, "d2": -2}, "2": {"d1": 1}}
    (tmp_path / "run").write_text("1 Q0 d1 1 0.5 x\n1 Q0 d2 2 7e-1 x\n")
    assert read_run(tmp_path / "run") == {"1": [("d2", 0.7), ("d1", 0.5)]}


@pytest.mark.parametrize(
    ("read", "lines", "problem"),
    [
        (read_queries, '{"_id": "1", "text": "a"}\n{"_id": "1"', "line 2: not JSON"),
        (read_queries, '{"_id": "1", "text": "a"}\n\n["1"]', "line 3: not a JSON object"),
        (read_queries, '{"id": "1", "text": "a"}', "line 1: _id is missing"),
        (read_queries, '{"_id": null, "text": "a"}', "line 1: _id is missing"),
        (read_queries, '{"_id": 1.5, "text": "a"}', "line 1: _id 1.5 is not an id"),
        (read_queries, '{"_id": "1"}', "line 1: text is missing"),
        (read_queries, '{"_id": "1", "text": 3}', "line 1: text 3 is not a text"),
        (read_queries, '{"_id": "1", "text": " "}', "line 1: the text of query '1' is empty"),
        (read_queries, '{"_id": "1", "text": "a"}\n{"_id": 1, "text": "b"}', "line 2: query '1' is there already"),
        (
            lambda path: list(read_corpus(path)),
            '{"_id": "1", "title": 2, "text": "a"}',
            "line 1: title 2 is not a text",
        ),
        (read_qrels, "query-id\tcorpus-id\tscore\n1\td1\n", "line 2: 2 columns"),
        (read_qrels, "1\td1\tyes\n", "line 1: grade 'yes' is not a whole number"),
        (read_qrels, "1\td1\t1\n1\td1\t0\n", "line 2: document 'd1' has another grade"),
        (read_run, "1 Q0 d1 1 0.5\n", "line 1: 5 columns"),
        (read_run, "1 Q0 d1 1 high x\n", "line 1: score 'high' is not a number"),
        (read_run, "1 Q0 d1 1 2 x\n1 Q0 d1 2 1 x\n", "line 2: document 'd1' is ranked"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, read: Callable[[Path], Any], lines: str, problem: str) -> None:
    path = tmp_path / "broken"
    path.write_text(lines)
    with pytest.raises(ConfigurationError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}, {problem}")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .+absent: No such file"):
        read_queries(tmp_path / "absent")
    (tmp_path / "latin").write_bytes("1\td\xe9\t1".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_qrels(tmp_path / "latin")
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_qrels(tmp_path, {})
    for id in ("", "a\tb", "a\nb"):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            write_qrels(tmp_path / "qrels", {"1": {id: 1}})
