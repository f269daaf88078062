"""A new project: models, Alembic's environment, a first revision."""

from __future__ import annotations

from pathlib import Path

from pgvec_toolkit import resources
from pgvec_toolkit.errors import ConfigurationError


def create_project(folder: Path) -> list[Path]:
    """Write the files of a project into a folder; ConfigurationError, and nothing written, if one is there already."""
    files = {folder / name: text for name, text in resources.project_files()}
    if taken := [str(path) for path in files if path.exists()]:
        raise ConfigurationError(f"there already: {', '.join(taken)}. Nothing is overwritten: name another folder")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)
