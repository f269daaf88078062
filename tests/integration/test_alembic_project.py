"""`pgvec init`, the project that it makes, and revisions that `pgvec collection … --revision` writes into it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pgvec_toolkit.cli import app
from typer.testing import CliRunner

from pgvec_toolkit.alembic.writing import write_collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from tests.words import WordEmbedder

ALEMBIC = "import sys; from alembic.config import main\nfor command in sys.argv[1:]: main(command.split())"


def alembic(folder: Path, dsn: str, *commands: str) -> str:
    environment = os.environ | {"PGVEC_DSN": dsn}
    done = subprocess.run(
        [sys.executable, "-c", ALEMBIC, *commands], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pgvec(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_new_project_works_at_once_and_takes_collections(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder: WordEmbedder
) -> None:
    folder = tmp_path / "with space" / "shop"
    written = pgvec("init", str(folder)).split("\n")
    assert str(folder / "migrations/versions/0001_documents.py") in written
    with pytest.raises(ConfigurationError, match=r"there already: .*models\.py.*Nothing is overwritten"):
        pgvec("init", str(folder))

    monkeypatch.chdir(folder)
    create = ("collection", "create", "docs", "--dimensions", "3", "-c", "year:int", "--distance", "l2")
    first = Path(pgvec(*create, "--no-keywords", "--revision").strip()).read_text()
    assert re.search(r"op\.migrate_pgvec\(\)\n    op\.create_collection\('docs', dimensions=3, distance='l2'", first)
    assert "op.drop_collection('docs')" in first
    second = Path(
        pgvec("collection", "add-space", "docs", "bits", "--dimensions", "8", "--type", "bit", "--revision").strip()
    )
    assert "op.drop_vector_space('docs', 'bits')" in second.read_text()

    third = Path(pgvec("collection", "register", "documents", "--text", "text", "--keywords", "--revision").strip())
    assert "op.register_table('documents', text='text', keywords=True)" in third.read_text()
    assert "op.unregister_table('documents')" in third.read_text()

    with pytest.raises(
        ConfigurationError, match=r"no revision was written into the project of alembic\.ini: Can't locate"
    ):
        pgvec(*create, "--revision", "--head", "shop@head")

    # What a revision has of an embedder needs none to run.
    model = write_collection(folder / "alembic.ini", "texts", embedder=embedder).read_text()
    assert "'fingerprint': " in model

    alembic(folder, empty_dsn, "upgrade 0001", "upgrade head", "check", "downgrade base", "upgrade head", "check")
    with Database(empty_dsn) as database:
        docs = database.collection("docs")
        assert (docs.columns, bool(docs.keyword_index), str(docs.space.distance)) == ({"year": "bigint"}, False, "l2")
        assert database.fetch("SELECT space FROM pgvec.spaces WHERE collection = 'docs' ORDER BY 1") == [
            ("bits",),
            ("dense",),
        ]
        assert database.collection("documents").search([1.0] * 384) == []
        texts = database.collection("texts", embedder=embedder)
        texts.ingest([{"id": "1", "text": "a lamp"}])
        assert texts.search("lamp", k=1)[0].document_id == "1"
    with pytest.raises(ConfigurationError, match="there is no nothing"):
        pgvec(*create, "--revision", "--config", "nothing.ini")
