"""`pgvec model`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgvec_toolkit.embed import kinds
from tests.cli.outcome import Run
from tests.integration.test_swap import Other


def test_swapping(docs: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    never = docs("model", "status", "docs")
    assert (never.code, never.out, never.err) == (0, "", "the model of docs was never swapped\n")
    load = kinds.load
    monkeypatch.setattr(
        kinds, "load", lambda name, *rest, **more: Other() if name == Other.name else load(name, *rest, **more)
    )
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text('{"_id": "1", "text": "credentials"}\n{"_id": "2", "text": "potatoes"}\n')
    qrels.write_text("1\thandbook/00.md\t1\n2\thandbook/01.md\t1\n")
    done = docs(
        *("model", "swap", "docs", "--to", Other.name, "--queries", str(queries), "--qrels", str(qrels), "-k", "5")
    )
    assert done.code == 0, done.err
    assert re.search(r"^ *2 queries *\n", done.out)
    assert re.search(r"^ *overlap@5 +[01]\.\d{4} +[01]\.\d{4} to [01]\.\d{4}", done.out, re.MULTILINE), done.out
    assert re.search(r"^ *ndcg@5 +[01]\.\d{4} +[01]\.\d{4} +[-+]0\.\d{4}: ", done.out, re.MULTILINE), done.out
    assert done.out.endswith("docs: test/words → test/others-v2: ready\n")
    assert done.err == "pgvec model switch docs switches; pgvec model drop docs drops others_v2\n"
    assert docs("model", "switch", "docs", "--json").json["state"] == "switched"
    back = docs("model", "rollback", "docs")
    assert back.out.endswith("docs: test/words → test/others-v2: rolled back\n")
    assert docs("model", "drop", "docs").err == "vector space others_v2 dropped\n"
    assert docs("model", "status", "docs").err.endswith("one of its two vector spaces was dropped\n")
    nothing = docs("model", "switch", "docs")
    assert (nothing.code, nothing.out) == (1, "")
    assert docs("model", "swap", "docs", "--to", "x", "--min-overlap", "0.5").code == 2
