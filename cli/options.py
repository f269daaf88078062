"""Options that several commands share, and reading their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pgvec_toolkit.collection import Collection
    from pgvec_toolkit.database import Database

Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        envvar="PGVEC_DSN",
        help="PostgreSQL to use: a libpq connection string or URI. Default: libpq's PG* variables, "
        "else the embedded server.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Where = Annotated[
    str | None,
    typer.Option("--where", "-w", help='Filter, as JSON: \'{"section": "security", "year": {"$gte": 2020}}\'.'),
]
Name = Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)]
Space = Annotated[str | None, typer.Option(help="Vector space. [default: the collection's own]", show_default=False)]
Neighbours = Annotated[int, typer.Option("-k", "--k", min=1, help="How many nearest chunks.")]
Revision = Annotated[
    bool, typer.Option("--revision", help="Write an Alembic revision that does it, instead of doing it.")
]
Config = Annotated[Path, typer.Option(help="Alembic project of --revision: alembic.ini or pyproject.toml.")]
Head = Annotated[str, typer.Option(help="Which of several heads, as shop@head, the revision follows.")]


def _drawable(path: Path | None) -> Path | None:
    """Refuse a file that nothing can draw, before any work is done for it."""
    if path is not None:
        from pgvec_toolkit import chart

        chart.check(path)
    return path


Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot", help="Draw it into this .png, or interactive .html.", show_default=False, callback=_drawable
    ),
]


def connect(dsn: str | None) -> Database:
    """Connect as the library does."""
    from pgvec_toolkit.database import connect

    return connect(dsn)


def collection(name: str, dsn: str | None) -> Collection:
    """Open a collection."""
    return connect(dsn).collection(name)


def parse_filter(text: str | None) -> dict[str, Any] | None:
    """Read the value of --where."""
    return parse_json(text, "--where")


def parse_json(text: str | None, option: str) -> dict[str, Any] | None:
    """Read a JSON object."""
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=option) from error
    if not isinstance(parsed, dict):
        raise typer.BadParameter('not a JSON object, as {"section": "security"}', param_hint=option)
    return parsed


def parse_queries(path: str | None) -> Any:
    """Read queries from a file: one text a line, .jsonl with "text" or "vector", or .npy of shape (n, dimensions)."""
    if path is None or path == "log":
        return path
    if path.endswith(".npy"):
        import numpy as np

        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"cannot read {path}: {error}", param_hint="--queries") from error
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
        return [_json_query(line) for line in lines] if path.endswith(".jsonl") else lines
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"cannot read {path}: {error}", param_hint="--queries") from error


def _json_query(line: str) -> Any:
    record = json.loads(line)
    if not isinstance(record, dict) or not ({"text", "vector"} & record.keys()):
        raise ValueError(f'a line has neither "text" nor "vector": {line[:60]}')
    return record["vector"] if "vector" in record else record["text"]
