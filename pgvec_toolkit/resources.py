"""The files that ship inside the package: SQL, migrations, the demo handbook, a new project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path


def sql_files() -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every run-always SQL file, in the order in which they are applied."""
    folder = resources.files("pgvec_toolkit.sql")
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            yield entry.name, entry.read_text(encoding="utf-8")


def sql_checksum() -> str:
    """Return one SHA-256 over the names and texts of all run-always SQL files."""
    digest = hashlib.sha256()
    for name, text in sql_files():
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()


def migrations_folder() -> Path:
    """Return the folder of the Alembic environment."""
    return Path(str(resources.files("pgvec_toolkit.migrations")))


def project_files() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every file of a new project."""
    folder = Path(str(resources.files("pgvec_toolkit.alembic"))) / "project"
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")


def demo_handbook() -> Path:
    """Return the folder of the demo's Markdown files."""
    return Path(str(resources.files("pgvec_toolkit.demo"))) / "handbook"
