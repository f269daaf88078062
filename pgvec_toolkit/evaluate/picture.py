"""A picture of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pgvec_toolkit.chart import Chart, Series

if TYPE_CHECKING:
    from pgvec_toolkit.evaluate.evaluation import Evaluation

_SPREAD = 0.6  # of the room of a metric, how much its modes take


def draw(evaluation: Evaluation, path: str | Path) -> None:
    """Draw for each metric the means of all modes with their 95 % intervals; .png, or .html for an interactive one."""
    modes = evaluation.modes
    names = list(dict.fromkeys(row.metric for row in evaluation.rows))
    series = []
    for number, mode in enumerate(modes):
        rows = [row for row in evaluation.rows if row.mode == mode]
        offset = _SPREAD * ((number + 0.5) / len(modes) - 0.5)
        series.append(
            Series(
                mode,
                x=[place + offset for place in range(len(rows))],
                y=[row.mean for row in rows],
                low=[row.low for row in rows],
                high=[row.high for row in rows],
                line=False,
            )
        )
    title = f"{len(evaluation.queries)} queries"
    Chart(title, "", "mean, with 95 % interval", series, x_names=names).save(path)
