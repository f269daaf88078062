"""Charts, as PNG (matplotlib) or as interactive HTML (plotly) that needs no network: the suffix of the file decides."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError, MissingDependency

# Okabe and Ito's: told apart by the colour-blind, too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#777777"
_MARKERS = {"circle": "o", "cross": "x", "none": ""}  # in plotly and in matplotlib


@dataclass(frozen=True)
class Series:
    """Points of one name and colour.

    Attributes:
        name: in the legend.
        x: of the points: numbers, or times.
        y: of the points.
        low: lower ends of their error bars.
        high: upper ends.
        labels: a text for each point.
        line: whether the points are joined, in the order given.
        marker: circle, cross or none.
        dashed: whether that line is.
        colour: "#rrggbb"; None: the next of the palette.
    """

    name: str
    x: Sequence[float] | Sequence[datetime]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    labels: Sequence[str] | None = None
    line: bool = True
    marker: str = "circle"
    dashed: bool = False
    colour: str | None = None

    @property
    def bars(self) -> tuple[list[float], list[float]] | None:
        """How far the error bars reach below and above; None if there are none."""
        if self.low is None or self.high is None:
            return None
        below = [max(0.0, y - low) for y, low in zip(self.y, self.low, strict=True)]
        return below, [max(0.0, high - y) for y, high in zip(self.y, self.high, strict=True)]


@dataclass(frozen=True)
class Chart:
    """What is drawn, whatever draws it.

    Attributes:
        title: above.
        x_label: of the axis.
        y_label: of the axis.
        series: what is in it.
        x_log: whether the axis is logarithmic.
        y_log: whether the axis is logarithmic.
        x_names: what stands at 0, 1, 2 … of the axis, in place of numbers.
        x_lines: dashed lines across, text to x.
        diagonal: whether the line x = y is drawn.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_log: bool = False
    y_log: bool = False
    x_names: Sequence[str] | None = None
    x_lines: Mapping[str, float] = field(default_factory=dict)
    diagonal: bool = False

    def save(self, path: str | Path) -> None:
        """Write the chart; .html is interactive, .png or no suffix is a picture."""
        render = check(path)
        written = render(self)
        try:
            Path(path).write_bytes(written)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error

    def coloured(self) -> list[tuple[Series, str]]:
        """Return the series, each with its colour."""
        palette = cycle(_COLOURS)
        return [(series, series.colour or next(palette)) for series in self.series]

    def ends(self) -> tuple[float, float]:
        """Return where the line x = y begins and ends: around all numbers, so that near it looks near."""
        numbers = [float(number) for series in self.series for number in (*series.x, *series.y)]
        beyond = 2.0 if self.x_log else 1.0
        return (min(numbers) / beyond, max(numbers) * beyond) if numbers else (1.0, 1.0)


def check(path: str | Path) -> Any:
    """Return what renders a file of that suffix; ConfigurationError or MissingDependency if nothing can."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix in ("", ".png"):
            package = "matplotlib"
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            del FigureCanvasAgg, Figure
            return _png
        if suffix in (".html", ".htm"):
            package = "plotly"
            import plotly.graph_objects as graphs

            del graphs
            return _html
    except ImportError as error:
        raise MissingDependency(package, "plot") from error
    raise ConfigurationError(f"cannot draw into {path}: name a file .png or .html")


def _png(chart: Chart) -> bytes:
    # Not pyplot: that one keeps figures, and may look for a display.
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for series, colour in chart.coloured():
        _draw(axes, series, colour)
    for text, x in chart.x_lines.items():
        axes.axvline(x, color=_GREY, linestyle="--", linewidth=1)
        # Placed by x in the data, by y in the axes.
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "bottom"}
        axes.annotate(_plain(text), (x, 0.02), color=_GREY, fontsize=8, **place)
    axes.margins(x=0.08)
    if chart.x_log:
        _scale(axes.set_xscale, axes.xaxis)
    if chart.y_log:
        _scale(axes.set_yscale, axes.yaxis)
    if chart.diagonal:
        axes.plot(chart.ends(), chart.ends(), color=_GREY, linestyle="--", linewidth=1)
    if chart.x_names is not None:
        axes.set_xticks(range(len(chart.x_names)), [_plain(name) for name in chart.x_names])
    if any(isinstance(x, datetime) for series in chart.series for x in series.x):
        figure.autofmt_xdate()
    axes.set_xlabel(_plain(chart.x_label))
    axes.set_ylabel(_plain(chart.y_label))
    axes.set_title(_plain(chart.title), loc="left")
    axes.grid(axis="y", alpha=0.3)
    if chart.series:
        axes.legend()
    written = BytesIO()
    figure.savefig(written, format="png", dpi=150)
    return written.getvalue()


def _scale(set_scale: Any, axis: Any) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2, 5 of each power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda number, _: f"{number:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def _draw(axes: Any, series: Series, colour: str) -> None:
    """Draw one series by matplotlib."""
    axes.errorbar(
        series.x,
        series.y,
        yerr=series.bars,
        color=colour,
        marker=_MARKERS[series.marker],
        markersize=9 if series.marker == "cross" else 5,
        markeredgewidth=2 if series.marker == "cross" else 1,
        linestyle=("--" if series.dashed else "-") if series.line else "none",
        linewidth=1.3,
        capsize=4,
        zorder=3 if series.marker == "cross" else 2,
        label=_plain(series.name).lstrip("_"),  # matplotlib hides labels that begin with one
    )
    for x, y, text in zip(series.x, series.y, series.labels or (), strict=False):
        axes.annotate(
            *(_plain(text), (x, y)), xytext=(4, 4), textcoords="offset points", fontsize=6, color=colour, clip_on=True
        )


def _plain(text: str) -> str:
    """Keep matplotlib from reading formulas out of a text."""
    return text.replace("$", r"\$")


def _html(chart: Chart) -> bytes:
    import plotly.graph_objects as graphs

    figure = graphs.Figure([_trace(series, colour) for series, colour in chart.coloured()])
    if chart.diagonal:
        line = {"color": _GREY, "dash": "dash", "width": 1}
        ends = chart.ends()
        figure.add_trace(graphs.Scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip"))
    for text, x in chart.x_lines.items():
        figure.add_vline(x, line={"color": _GREY, "dash": "dash", "width": 1}, annotation_text=html.escape(text))
    figure.update_layout(
        title=html.escape(chart.title), template="plotly_white", xaxis_title=html.escape(chart.x_label), showlegend=True
    )
    figure.update_layout(yaxis_title=html.escape(chart.y_label), legend={"itemclick": "toggle"})
    if chart.x_log:
        figure.update_xaxes(type="log")
    if chart.y_log:
        figure.update_yaxes(type="log")
    if chart.x_names is not None:
        names = [html.escape(name) for name in chart.x_names]
        figure.update_xaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=names)
    # The library itself is in the file: it needs no network.
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    title = f"<head><title>{html.escape(chart.title)}</title>"
    return page.replace("<head>", title, 1).encode()


def _trace(series: Series, colour: str) -> Any:
    """Return one series for plotly, of which texts are a kind of HTML."""
    import plotly.graph_objects as graphs

    marks = [part for part, there in (("lines", series.line), ("markers", series.marker != "none")) if there]
    bars = series.bars
    return graphs.Scatter(
        x=list(series.x),
        y=list(series.y),
        name=html.escape(series.name),
        # Labels appear at the pointer: all of them at once would cover the points.
        text=None if series.labels is None else [html.escape(label) for label in series.labels],
        mode="+".join(marks),
        marker={"color": colour, "symbol": "x" if series.marker == "cross" else "circle", "size": 8},
        line={"color": colour, "dash": "dash" if series.dashed else "solid"},
        error_y=None if bars is None else {"type": "data", "symmetric": False, "array": bars[1], "arrayminus": bars[0]},
    )
