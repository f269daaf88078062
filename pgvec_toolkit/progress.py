"""Progress bars, with ETA, on standard error, and only where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[float], None]


def is_shown(show: bool | None) -> bool:
    """Tell whether to show a bar; None means: if standard error is a terminal."""
    return sys.stderr.isatty() if show is None else show


@contextmanager
def progress_bar(description: str, total: float | None, show: bool | None = None) -> Iterator[Advance]:
    """Show a bar and yield what advances it; show=None means: if standard error is a terminal."""
    if not is_shown(show):
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda amount: progress.advance(task, amount)


Update = Callable[[float | None, str, float | None], None]


@contextmanager
def share_bar(description: str, show: bool | None = None) -> Iterator[Update]:
    """Show a bar and yield what moves it: update(share from 0 to 1, phase, seconds left); None is unknown."""
    if not is_shown(show):
        yield lambda _share, _phase, _left: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[phase]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=1.0, phase="", left="")

        def update(share: float | None, phase: str, left: float | None) -> None:
            shown = "" if left is None else f"eta {int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}"
            progress.update(task, completed=share, phase=phase, left=shown)

        yield update


def _ignore(_: float) -> None:
    """Advance nothing."""
