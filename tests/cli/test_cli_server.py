"""The embedded server from the command line."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgvec_toolkit.embedded import EmbeddedServer
from tests.cli.outcome import PGVEC, Run


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of one's own for the embedded server; as root, one that the server's user may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="pgvec-test-"))
    folder.chmod(0o711)
    monkeypatch.delenv("PGVEC_DSN")
    monkeypatch.setenv("PGVEC_HOME", str(folder / "home"))
    try:
        yield folder / "home"
    finally:
        EmbeddedServer(folder / "home").stop("immediate")
        shutil.rmtree(folder)


def test_the_embedded_server_from_the_command_line(bare: Run, home: Path) -> None:
    before = bare("status", "--json")
    assert (before.json["kind"], before.json["running"], before.json["home"]) == ("embedded", False, str(home))
    assert not home.exists()
    assert "no PostgreSQL was running" in bare("down").err

    up = bare("up")
    assert (up.code, up.err) == (0, f"PostgreSQL runs in {home}\n")
    with psycopg.connect(up.out.strip()) as session:
        assert session.execute("SELECT pgvec.create_collection('docs', 2)").fetchone() is not None
    assert bare("up").out == up.out
    status = bare("status", "--json").json
    assert (status["running"], status["schema"], status["collections"]) == (True, "up to date", ["docs"])
    assert bare("status").code == 0

    asked = subprocess.run(
        [*PGVEC, "psql", "-X", "-At", "-c", "SELECT 1", "-c", "SELECT count(*) FROM pgvec.collections"],
        capture_output=True,
        text=True,
    )
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "1\n1\n", "")
    wrong = subprocess.run([*PGVEC, "psql", "-X", "-c", "SELECT nonsense"], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "nonsense" in wrong.stderr

    assert "has stopped" in bare("down").err
    stopped = bare("status", "--json").json
    assert (stopped["running"], stopped["pid"]) == (False, None)
    assert not EmbeddedServer(home).status().running
    assert bare("migrate").code == 0  # starts it
    assert EmbeddedServer(home).status().running
    assert bare("collection", "list", "--json").json[0]["collection"] == "docs"
