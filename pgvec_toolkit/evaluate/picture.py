"""A picture of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pgvec_toolkit.errors import ConfigurationError, MissingDependency

if TYPE_CHECKING:
    from pgvec_toolkit.evaluate.evaluation import Evaluation

_SPREAD = 0.6  # of the room of a metric, how much its modes take


def draw(evaluation: Evaluation, path: str | Path) -> None:
    """Write a PNG: for each metric, the means of all modes with their 95 % intervals."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", "plot") from error
    # Not pyplot: that one keeps figures, and may look for a display.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    modes = evaluation.modes
    for number, mode in enumerate(modes):
        rows = [row for row in evaluation.rows if row.mode == mode]
        offset = _SPREAD * ((number + 0.5) / len(modes) - 0.5)
        below, above = [row.mean - row.low for row in rows], [row.high - row.mean for row in rows]
        axes.errorbar(
            [place + offset for place in range(len(rows))],
            [row.mean for row in rows],
            yerr=[[max(0.0, each) for each in side] for side in (below, above)],
            fmt="o",
            capsize=4,
            label=mode.lstrip("_"),  # matplotlib hides labels that begin with one
        )
    names = list(dict.fromkeys(row.metric for row in evaluation.rows))
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("mean, with 95 % interval")
    axes.set_title(f"{len(evaluation.queries)} queries", loc="left")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
