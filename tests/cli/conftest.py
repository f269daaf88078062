"""The command on a database of its own, with a handbook to ingest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pgvec_toolkit.cli import app, main
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from pgvec_toolkit.embed import kinds
from tests.cli.outcome import Outcome, Run
from tests.words import WordEmbedder


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, commands_made_once: None) -> None:
    """A command that forgets its DSN finds no server, least of all the developer's own."""
    del commands_made_once
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


def write_handbook(folder: Path) -> Path:
    """Write forty documents in two sections."""
    folder.mkdir()
    for number in range(40):
        section = ("security", "kitchen")[number % 2]
        subject = "rotate credentials yearly" if section == "security" else "boil potatoes slowly"
        (folder / f"{number:02}.md").write_text(
            f"---\nsection: {section}\nyear: {2000 + number}\n---\n# Page {number}\n\n{subject} number {number}\n"
        )
    return folder


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    """A folder of forty documents in two sections."""
    return write_handbook(tmp_path / "handbook")


@pytest.fixture(scope="session")
def ingested(
    server_dsn: str, template: str, janitor: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Name of a database in which commands have ingested the handbook, to clone."""
    name = f"t_cli_ingested_{os.getpid()}"
    folder = write_handbook(tmp_path_factory.mktemp("cli") / "handbook")
    create = ["collection", "create", "docs", "-c", "section:text", "--column", "year:int", "--embedder", "w"]
    with janitor(name, template), pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "load", lambda *_, **__: WordEmbedder())
        for command in (create, ["ingest", "docs", str(folder)]):
            done = CliRunner().invoke(app, [*command, "--dsn", make_conninfo(server_dsn, dbname=name)])
            assert done.exit_code == 0, done.output
        patch.undo()
        yield name


@pytest.fixture
def origin(request: pytest.FixtureRequest, template: str) -> str:
    return request.getfixturevalue("ingested") if "docs" in request.fixturenames else template


@pytest.fixture
def docs(run: Run, words: None) -> Run:
    """Runs main() on a database with a collection `docs`, the handbook in it."""
    del words
    return run
