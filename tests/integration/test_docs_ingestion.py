"""The examples of docs/ingestion.md on reading are run, and print what it says."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from tests.integration.examples import ROOT, examples
from tests.words import WordEmbedder


def test_the_examples_of_reading_run(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("products.csv").write_text("sku,title,description,price\n1,lamp,bright,9.5\n2,chair,hard,30\n")
    Path("inbox").mkdir()
    Path("inbox/letter.txt").write_bytes("Ålesund".encode("latin-1"))
    Path("inbox/parcels.csv").write_text("id,text\n1,a\n2\n3,c\n")
    Path("inbox/report.pdf").write_text("<html>404</html>")
    connection = sqlite3.connect("shop.db")
    connection.execute("CREATE TABLE product AS SELECT 3 AS sku, 'desk' AS title, 'wide' AS description, 50.0 AS price")
    connection.commit()
    connection.close()
    docs = db.create_collection("docs", embedder=WordEmbedder(), columns={"price": float})
    namespace: dict[str, Any] = {"docs": docs, "pgvec": pgvec}

    before, _, rest = (ROOT / "docs/ingestion.md").read_text(encoding="utf-8").partition("\n## Reading files\n")
    first = before.count("\n")
    last = first + rest.partition("\n## ")[0].count("\n") + 2
    ran = 0
    for example in examples("docs/ingestion.md"):
        if example.language == "python" and first < example.line <= last:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(example.text, f"docs/ingestion.md, line {example.line}", "exec"), namespace)
            assert printed.getvalue() == (example.output or "")
            ran += 1
    assert ran == 4
    assert {hit.document_id: hit.metadata for hit in docs.search("lamp desk", k=9)} == {
        "1": {"title": "lamp", "price": 9.5},
        "2": {"title": "chair", "price": 30},
        "3": {"price": 50},
        **{f"P-{number}": {} for number in range(3)},
    }
