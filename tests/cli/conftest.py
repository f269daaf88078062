"""The command on a database of its own, with a handbook to ingest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pgvec_toolkit.cli import main

from pgvec_toolkit.embed import kinds
from tests.cli.outcome import Outcome, Run


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that forgets its DSN finds no server, least of all the developer's own."""
    monkeypatch.setenv("PGVEC_DSN", "host=127.0.0.1 port=1")
    monkeypatch.setenv("PGVEC_HOME", "/nowhere")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs main() in this process, as the console script does."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pgvec", *arguments])
        capfd.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def run(bare: Run, dsn: str) -> Run:
    """Runs main() on the test's database."""
    return lambda *arguments: bare(*arguments, "--dsn", dsn)


@pytest.fixture
def words(embedder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any embedder that is asked for by name is the tiny one."""
    monkeypatch.setattr(kinds, "load", lambda *_, **__: embedder)


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    """A folder of forty documents in two sections."""
    folder = tmp_path / "handbook"
    folder.mkdir()
    for number in range(40):
        section = ("security", "kitchen")[number % 2]
        subject = "rotate credentials yearly" if section == "security" else "boil potatoes slowly"
        (folder / f"{number:02}.md").write_text(
            f"---\nsection: {section}\nyear: {2000 + number}\n---\n# Page {number}\n\n{subject} number {number}\n"
        )
    return folder


@pytest.fixture
def docs(run: Run, words: None, handbook: Path) -> Run:
    """A collection `docs` with the handbook in it."""
    del words
    assert (
        run("collection", "create", "docs", "-c", "section:text", "--column", "year:int", "--embedder", "w").code == 0
    )
    assert run("ingest", "docs", str(handbook)).code == 0
    return run
