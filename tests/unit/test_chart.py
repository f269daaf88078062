"""Charts: what is in the description is in the file, whichever renderer wrote it."""

from __future__ import annotations

import json
import re
import struct
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pgvec_toolkit.chart import Chart, Series
from pgvec_toolkit.errors import ConfigurationError, MissingDependency
from pgvec_toolkit.tune.pictures import draw_builds, draw_profiles, draw_recall
from pgvec_toolkit.tune.profile import Trial, TuningProfile

pytest.importorskip("matplotlib", reason="needs the extra `plot`")
pytest.importorskip("plotly", reason="needs the extra `plot`")


@dataclass
class Page:
    """What a page of plotly shows."""

    text: str
    traces: dict[str, Any]
    layout: Any

    @classmethod
    def read(cls, path: Path) -> Page:
        text = path.read_text()
        arguments = text[text.rindex("Plotly.newPlot(") :].partition(",")[2].lstrip()
        traces, end = json.JSONDecoder().raw_decode(arguments)
        layout, _ = json.JSONDecoder().raw_decode(arguments[end:].lstrip(", \n"))
        return cls(text, {trace.get("name"): trace for trace in traces}, layout)


def size_of(png: Path) -> tuple[int, int]:
    """Return width and height of a PNG."""
    content = png.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


CHART = Chart(
    "<b>Title</b> & $x$",
    "across",
    "up",
    [
        Series("joined", [1, 2, 4], [10.0, 20.0, 40.5], labels=["a", "<i>b</i>", "c"]),
        Series("_bars $", [1, 2], [3.0, 4.0], low=[2.5, 4.5], high=[3.5, 5.0], line=False, colour="#123456"),
    ],
    x_log=True,
    x_lines={"target 0.9": 3},
)


def test_a_page_holds_the_data_and_needs_no_network(tmp_path: Path) -> None:
    CHART.save(tmp_path / "chart.html")
    page = Page.read(tmp_path / "chart.html")
    joined, bars = page.traces["joined"], page.traces["_bars $"]
    assert (joined["x"], joined["y"], joined["mode"]) == ([1, 2, 4], [10.0, 20.0, 40.5], "lines+markers")
    assert joined["text"] == ["a", "&lt;i&gt;b&lt;/i&gt;", "c"]
    assert (bars["error_y"]["array"], bars["error_y"]["arrayminus"]) == ([0.5, 1.0], [0.5, 0.0])
    assert (bars["mode"], bars["marker"]["color"]) == ("markers", "#123456")
    assert page.layout["xaxis"]["type"] == "log"
    assert page.layout["title"]["text"] == "&lt;b&gt;Title&lt;/b&gt; &amp; $x$"
    assert "target 0.9" in json.dumps(page.layout["annotations"])
    assert "<title>&lt;b&gt;Title&lt;/b&gt; &amp; $x$</title>" in page.text
    assert not re.search(r"<script[^>]+src|<link", page.text)
    assert len(page.text) > 1_000_000  # the library is in it


def test_a_picture_is_drawn_from_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    saved = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *given, **named: (figures.append(self), saved(self, *given, **named))
    )
    CHART.save(tmp_path / "chart.PNG")
    assert size_of(tmp_path / "chart.PNG") == (1200, 675)
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log"
    assert axes.get_legend_handles_labels()[1] == ["joined", r"bars \$"]
    curve = next(line for line in axes.lines if list(line.get_xdata()) == [1, 2, 4])
    assert list(curve.get_ydata()) == [10.0, 20.0, 40.5]
    assert {text.get_text() for text in axes.texts} >= {"a", "<i>b</i>", "target 0.9"}
    CHART.save(str(tmp_path / "none"))
    assert size_of(tmp_path / "none") == (1200, 675)


def test_names_in_place_of_numbers_and_a_diagonal(tmp_path: Path) -> None:
    chart = Chart("", "", "", [Series("s", [0, 1], [5.0, 7.0])], x_names=["<a>", "b"], diagonal=True)
    for name in ("chart.html", "chart.png"):
        chart.save(tmp_path / name)
    page = Page.read(tmp_path / "chart.html")
    assert page.layout["xaxis"]["ticktext"] == ["&lt;a&gt;", "b"]
    assert (page.traces[None]["x"], page.traces[None]["y"]) == ([0.0, 7.0], [0.0, 7.0])
    assert size_of(tmp_path / "chart.png") == (1200, 675)


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_what_cannot_be_written(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot write .*absent.*No such file"):
        CHART.save(tmp_path / "absent" / f"chart.{suffix}")
    with pytest.raises(ConfigurationError, match=r"name a file .png or .html"):
        CHART.save(tmp_path / "chart.svg")


@pytest.mark.parametrize(("package", "suffix"), [("matplotlib.figure", "png"), ("plotly.graph_objects", "html")])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, suffix: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"{package.partition('.')[0]} is not .*pgvec-toolkit\[plot\]"):
        CHART.save(tmp_path / f"chart.{suffix}")


def profile(target: float, trials: list[tuple[int, float, float, float]], k: int = 10) -> TuningProfile:
    """A profile, of which only the trials matter here."""
    return TuningProfile(
        index_method="hnsw",
        form="binary",
        parameter="hnsw.ef_search",
        setting=40,
        oversampling=2.0,
        k=k,
        target_recall=target,
        recall=target,
        milliseconds=1.0,
        queries=100,
        trials=tuple(Trial(*trial) for trial in trials),
    )


def test_profiles_of_one_index_make_one_curve_of_its_best_trials(tmp_path: Path) -> None:
    first = profile(0.9, [(40, 1.0, 0.85, 0.5), (80, 1.0, 0.84, 1.0), (40, 2.0, 0.92, 1.0)])
    second = profile(0.95, [(160, 2.0, 0.97, 4.0)])
    draw_profiles([first, second], tmp_path / "tune.html")
    page = Page.read(tmp_path / "tune.html")
    (curve,) = page.traces.values()
    assert (curve["name"], curve["x"], curve["y"]) == (
        "hnsw binary: ef_search",
        [0.85, 0.92, 0.97],
        [2000.0, 1000.0, 250.0],
    )
    assert curve["text"] == ["40", "40 × 2", "160 × 2"]
    assert [shape["x0"] for shape in page.layout["shapes"]] == [0.9, 0.95]
    draw_profiles({"a": first, "b": second}, tmp_path / "tune.html")
    assert list(Page.read(tmp_path / "tune.html").traces) == ["a: ef_search", "b: ef_search"]
    draw_profiles(first, tmp_path / "tune.png")
    assert size_of(tmp_path / "tune.png") == (1200, 675)
    with pytest.raises(ConfigurationError, match="no trials"):
        draw_profiles([], tmp_path / "tune.png")


def test_builds_against_their_forecasts(tmp_path: Path) -> None:
    build = {"method": "hnsw", "form": "full", "rows": 1000, "forecast_bytes": 2**20, "bytes": 2**21, "seconds": 3.0}
    builds = [build | {"forecast_seconds": 2.0}, SimpleNamespace(**build, forecast_seconds=None)]
    draw_builds(builds, tmp_path / "builds.html")
    page = Page.read(tmp_path / "builds.html")
    sizes, times = page.traces["size, MB"], page.traces["time, s"]
    assert (sizes["x"], sizes["y"], sizes["text"]) == ([1.0, 1.0], [2.0, 2.0], ["hnsw full, 1,000 rows"] * 2)
    assert (times["x"], times["y"]) == ([2.0], [3.0])
    assert (page.layout["xaxis"]["type"], page.layout["yaxis"]["type"]) == ("log", "log")
    draw_builds(builds, tmp_path / "builds.png")
    assert size_of(tmp_path / "builds.png") == (1200, 675)
    with pytest.raises(ConfigurationError, match="no builds"):
        draw_builds([], tmp_path / "builds.png")


def test_recall_over_time(tmp_path: Path) -> None:
    began = datetime(2026, 5, 1, tzinfo=UTC)
    checks = [
        SimpleNamespace(
            collection="docs",
            k=10,
            recall=recall,
            recall_low=recall - 0.02,
            recall_high=recall + 0.01,
            target_recall=0.95,
            checked_at=began + timedelta(days=day),
            alarms=["recall 0.900 is below 0.95"] if recall < 0.95 else [],
        )
        for day, recall in ((1, 0.90), (0, 0.96))
    ]
    draw_recall(checks, tmp_path / "recall.html")
    page = Page.read(tmp_path / "recall.html")
    recall, alarm = page.traces["docs recall@10"], page.traces["alarm"]
    assert [moment[:10] for moment in recall["x"]] == ["2026-05-01", "2026-05-02"]
    assert recall["y"] == [0.96, 0.90]
    assert recall["error_y"]["arrayminus"] == pytest.approx([0.02, 0.02])
    assert page.traces["target"]["y"] == [0.95, 0.95]
    assert (alarm["y"], alarm["text"]) == ([0.9], ["recall 0.900 is below 0.95"])
    draw_recall(checks, tmp_path / "recall.png")
    assert size_of(tmp_path / "recall.png") == (1200, 675)
    with pytest.raises(ConfigurationError, match="no checks"):
        draw_recall([], tmp_path / "recall.png")
