"""init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pgvec_toolkit.cli.output import say


def init(
    folder: Annotated[Path, typer.Argument(help="Where to; made if it is not there.", show_default=True)] = Path("."),
) -> None:
    """Begin a project: SQLAlchemy models with a vector column, Alembic's environment, a first revision."""
    from pgvec_toolkit.alembic.scaffold import create_project

    for path in create_project(folder):
        typer.echo(path)
    say(f"next: {'' if folder == Path('.') else f'cd {folder} && '}alembic upgrade head")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)
