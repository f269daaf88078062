"""`pgvec history` and `pgvec purge`."""

from __future__ import annotations

import psycopg

from tests.cli.outcome import Run


def test_a_deleted_document_is_found_as_of_then_and_comes_back(docs: Run, connection: psycopg.Connection) -> None:
    none = docs("purge", "docs")
    assert (none.code, none.out) == (1, "")
    assert "create_history" in none.err
    document = "handbook/06.md"
    assert docs("history", "on", "docs").code == 0
    row = connection.execute("SELECT clock_timestamp()::text").fetchone()
    assert row is not None
    assert docs("delete", "docs", document).code == 0

    (version,) = docs("history", "versions", "docs", document, "--json").json
    assert (version["valid_from"], version["chunks"]) == (None, 1)
    assert "before the history" in docs("history", "versions", "docs", document).out
    only = '{"document_id": "handbook/06.md"}'
    search = ("history", "search", "docs", "rotate credentials", "-w", only, "--as-of")
    assert [hit["document_id"] for hit in docs(*search, row[0], "--json").json] == [document]
    assert docs(*search, "now", "--json").json == []
    early = docs(*search, "1999-01-01")
    assert (early.code, early.out) == (1, "")
    assert "begins at" in early.err

    assert docs("history", "restore", "docs", document, "--as-of", row[0]).err == "1 chunks restored\n"
    assert docs("search", "docs", "rotate credentials", "-w", only, "--json").json
    assert docs("purge", "docs", document).err == "1 earlier versions of chunks are gone\n"
    assert docs("history", "off", "docs").err == "the history of docs is gone\n"
    assert docs("history", "off", "docs").err == "collection docs had no history\n"
