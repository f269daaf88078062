"""Printing: data to standard output, chatter to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer


def say(message: str) -> None:
    """Say something that is not data."""
    typer.echo(message, err=True)


def say_pruned(vectors: int, entries: int) -> None:
    """Say what sparse vectors have lost, if they have."""
    if vectors:
        say(f"{vectors} sparse vectors lost {entries} entries, their smallest: an index holds 1,000 each")


def say_cut(split: int, truncated: int, notes: Iterable[str]) -> None:
    """Say what became of chunks that were longer than the model reads, and what else there is to know of them."""
    if split:
        say(f"{split} chunks were longer than the model reads, and were split")
    if truncated:
        say(f"{truncated} chunks are longer than the model reads: what is beyond that is stored, but not embedded")
    for note in notes:
        say(note)


def print_json(value: Any) -> None:
    """Print JSON, indented on a terminal."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str, indent=2 if sys.stdout.isatty() else None))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a table as wide as the terminal; in a pipe, 120 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    rows = [list(row) for row in rows]
    for position, column in enumerate(columns):
        numeric = all(isinstance(row[position], int | float) for row in rows) and bool(rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, not str: square brackets in somebody's data are not rich's markup.
        table.add_row(*(Text(_cell(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def size(count: int) -> str:
    """Write a number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"


def duration(seconds: float | None) -> str:
    """Write seconds as people read them; nothing if unknown."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def excerpt(text: str | None, length: int = 160) -> str:
    """Put a text on one line, shortened."""
    line = " ".join((text or "").split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
