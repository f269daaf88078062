"""The examples of docs/alembic.md: its model is found unchanged, its operations run one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.alembic_project import Project
from tests.integration.examples import examples


def test_the_examples_run(empty_dsn: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "migrations", empty_dsn)
    python = [example.text for example in examples("docs/alembic.md") if example.language == "python"]
    model, *operations = python
    namespace: dict[str, Any] = {}
    exec(compile(model, "docs/alembic.md", "exec"), namespace)
    text = project.autogenerate(namespace["metadata"])
    assert text.count("op.create_vector_index(") == 2
    project.upgrade()
    assert project.differences(namespace["metadata"]) == []
    project.downgrade()
    project.forget()

    revision = None
    for number, text in enumerate(operations):
        body = "from pgvector.sqlalchemy import VECTOR\n    " + text.replace("\n", "\n    ")
        project.write(str(number), body, down=revision)
        revision = str(number)
    assert number == 2
    project.upgrade()
    assert project.run("SELECT indexname FROM pg_indexes WHERE indexname ~ '^products_[^p]'") == [("products_half",)]
    assert project.run("SELECT space FROM pgvec.spaces ORDER BY 1") == [("dense",), ("dense",), ("title",)]
    project.close()
