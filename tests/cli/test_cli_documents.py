"""ingest, sync, failures and retry: what they say, and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.outcome import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three documents, one of which cannot be stored."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, year in (("a.md", "2020"), ("b.md", "last"), ("c.md", "2021")):
        (folder / name).write_text(f"---\nyear: {year}\n---\nText of {name}.")
    return folder


@pytest.mark.usefixtures("words")
def test_what_fails_is_listed_and_can_be_retried(run: Run, folder: Path) -> None:
    assert run("collection", "create", "docs", "--embedder", "w", "-c", "year:int").code == 0
    done = run("ingest", "docs", str(folder), "--resume")
    assert (done.code, done.out) == (0, "")
    assert "3 documents, 0 of them unchanged, 1 failed; 2 chunks written" in done.err
    assert "notes/b.md (write): row 1, field 'year'" in done.err
    assert "`pgvec failures docs` lists them, `pgvec retry docs` tries them again" in done.err
    strict = run("ingest", "docs", str(folder), "--strict")
    assert (strict.code, strict.err.count("\n")) == (1, 1)
    (failure,) = run("failures", "docs", "--json").json
    assert (failure["document_id"], failure["stage"], failure["attempts"]) == ("notes/b.md", "write", 1)
    assert "notes/b.md" in run("failures", "docs").out
    assert "1 documents, 0 of them unchanged, 1 failed; 0 chunks written" in run("retry", "docs", "notes/b.md").err
    (folder / "b.md").write_text("Text of b.")
    again = run("retry", "docs")
    assert (again.code, "1 chunks written" in again.err) == (0, True)
    assert run("failures", "docs").err == "no document failed\n"


@pytest.mark.usefixtures("words")
def test_sync_shows_its_plan_and_does_it(run: Run, folder: Path) -> None:
    assert run("collection", "create", "docs", "--embedder", "w", "-c", "year:int").code == 0
    for command in ("ingest", "sync"):
        options = ("--chunk-tokens", "5", "--overlap", "1", "--context", "--too-long", "error", "--chunker", "words")
        refused = run(command, "docs", str(folder), *options)
        assert (refused.code, "there is no chunker 'words'" in refused.err) == (1, True)
    plan = run("sync", "docs", str(folder), "--dry-run")
    assert plan.out.count("is new") == 3
    assert "3 added, 0 updated, 0 deleted, 0 unchanged" in plan.err
    assert "nothing was written" in plan.err
    done = run("sync", "docs", str(folder))
    assert (done.code, done.out) == (0, "")
    assert "2 added, 0 updated, 0 deleted, 0 unchanged, 1 failed; 2 chunks written" in done.err
    (folder / "a.md").unlink()
    changes = run("sync", "docs", str(folder), "--json").json
    assert [(change["document_id"], change["action"]) for change in changes] == [
        ("notes/b.md", "fail"),
        ("notes/a.md", "delete"),
    ]
    (folder / "items.jsonl").write_text("".join(f'{{"id": {number}, "text": "Text."}}\n' for number in range(10)))
    run("sync", "docs", str(folder))
    (folder / "items.jsonl").write_text('{"id": "new", "text": "Text."}')
    assert "they need --force" in run("sync", "docs", str(folder), "--dry-run").err
    refused = run("sync", "docs", str(folder))
    assert (refused.code, "force it (--force)" in refused.err) == (1, True)
    assert "1 added, 0 updated, 0 deleted, 1 unchanged, 1 failed; 1 chunks written until it stopped" in refused.err
    assert "10 deleted" in run("sync", "docs", str(folder), "--force").err
