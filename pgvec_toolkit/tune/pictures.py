"""Pictures of what was tuned, built and watched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.chart import Chart, Series
from pgvec_toolkit.errors import ConfigurationError

if TYPE_CHECKING:
    from pgvec_toolkit.tune.profile import Trial, TuningProfile

_ALARM = "#CC0000"
_MEGABYTE = 2**20


def draw_profiles(
    profiles: TuningProfile | Sequence[TuningProfile] | Mapping[str, TuningProfile], path: str | Path
) -> None:
    """Draw queries per second against recall, from the trials of profiles; .png or .html.

    Args:
        profiles: one; several; or several by names for the legend. Those of one index and k make one curve.
        path: of the file.
    """
    curves: dict[str, list[TuningProfile]] = {}
    for name, profile in _named(profiles):
        curves.setdefault(name, []).append(profile)
    draw_curves(curves, path)


def draw_curves(curves: Mapping[str, Sequence[TuningProfile]], path: str | Path) -> None:
    """Draw queries per second against recall: a curve for each name, of the trials of all its profiles."""
    profiles = [profile for several in curves.values() for profile in several]
    if not any(profile.trials for profile in profiles):
        raise ConfigurationError("there are no trials to draw: run tune() first")
    what = f"recall@{', @'.join(map(str, sorted({profile.k for profile in profiles})))}"
    targets = {f"target {target:g}": target for target in sorted({profile.target_recall for profile in profiles})}
    series = [_curve(name, several) for name, several in curves.items() if any(each.trials for each in several)]
    Chart(f"Speed against {what}", what, "queries per second", series, y_log=True, x_lines=targets).save(path)


def draw_builds(builds: Iterable[Any], path: str | Path) -> None:
    """Draw size and time of builds against their forecasts, with the line of a perfect one; .png or .html.

    Args:
        builds: rows of pgvec.index_builds, or of `builds()`: objects or mappings with its columns.
        path: of the file.
    """
    rows = list(builds)
    timed = [row for row in rows if _get(row, "forecast_seconds") is not None]
    if not rows:
        raise ConfigurationError("there are no builds to draw: build an index first")
    series = [_forecasts("size, MB", rows, ("forecast_bytes", "forecast_size"), ("bytes", "size"), _MEGABYTE)]
    if timed:
        series.append(_forecasts("time, s", timed, ("forecast_seconds",), ("seconds",), 1))
    title = "Builds: forecast and reality"
    Chart(title, "forecast", "measured", series, x_log=True, y_log=True, diagonal=True).save(path)


def draw_recall(checks: Iterable[Any], path: str | Path) -> None:
    """Draw recall over time with its intervals, the target, and the alarms; .png or .html.

    Args:
        checks: rows of pgvec.recall_checks, or what `watch` returns: objects or mappings with its columns.
        path: of the file.
    """
    rows = sorted(checks, key=lambda row: _get(row, "checked_at"))
    if not rows:
        raise ConfigurationError("there are no checks to draw: run `pgvec watch` first")
    groups: dict[str, list[Any]] = {}
    for row in rows:
        # Of one collection only k tells them apart.
        where = [_get(row, name) for name in ("collection", "space")]
        name = " ".join([*(str(part) for part in where if part is not None), f"recall@{_get(row, 'k')}"])
        groups.setdefault(name, []).append(row)
    series = [
        Series(
            name,
            x=[_get(row, "checked_at") for row in group],
            y=[_get(row, "recall") for row in group],
            low=[_get(row, "recall_low") for row in group],
            high=[_get(row, "recall_high") for row in group],
        )
        for name, group in groups.items()
    ]
    for name, group in groups.items():
        if aimed := [row for row in group if _get(row, "target_recall") is not None]:
            times, targets = [_get(row, "checked_at") for row in aimed], [_get(row, "target_recall") for row in aimed]
            text = f"target of {name}" if len(groups) > 1 else "target"
            series.append(Series(text, times, targets, marker="none", dashed=True, colour="#777777"))
    if alarmed := [row for row in rows if _get(row, "alarms")]:
        series.append(
            Series(
                "alarm",
                x=[_get(row, "checked_at") for row in alarmed],
                y=[_get(row, "recall") for row in alarmed],
                labels=["; ".join(_get(row, "alarms")) for row in alarmed],
                line=False,
                marker="cross",
                colour=_ALARM,
            )
        )
    Chart("Recall over time", "", "recall, with 95 % interval", series).save(path)


def fastest(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials than which no other is both faster and better, from the fastest to the best."""
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.milliseconds, -trial.recall)):
        if not front or trial.recall > front[-1].recall:
            front.append(trial)
    return front


def _named(
    profiles: TuningProfile | Sequence[TuningProfile] | Mapping[str, TuningProfile],
) -> list[tuple[str, TuningProfile]]:
    """Return profiles with the names of their curves."""
    if isinstance(profiles, Mapping):
        return list(profiles.items())
    several = [*profiles] if isinstance(profiles, Sequence) else [profiles]
    ks = {profile.k for profile in several}
    return [
        (f"{profile.index_method} {profile.form}{f', k = {profile.k}' if len(ks) > 1 else ''}", profile)
        for profile in several
    ]


def _curve(name: str, profiles: Sequence[TuningProfile]) -> Series:
    parameter = profiles[0].parameter.rpartition(".")[2]
    first: dict[tuple[int, float], Trial] = {}
    for trial in (trial for profile in profiles for trial in profile.trials):
        first.setdefault((trial.setting, trial.oversampling), trial)
    front = fastest(first.values())
    return Series(
        f"{name}: {parameter}",
        x=[trial.recall for trial in front],
        y=[1000 / trial.milliseconds for trial in front],
        labels=[f"{trial.setting}{f' × {trial.oversampling:g}' if trial.oversampling > 1 else ''}" for trial in front],
    )


def _forecasts(
    name: str, rows: Sequence[Any], forecast: tuple[str, ...], measured: tuple[str, ...], unit: float
) -> Series:
    """Return points of forecasts and what came of them, each by the first of its names that a row has."""
    return Series(
        name,
        x=[_get(row, *forecast) / unit for row in rows],
        y=[_get(row, *measured) / unit for row in rows],
        labels=[f"{_get(row, 'method')} {_get(row, 'form')}, {_get(row, 'rows'):,} rows" for row in rows],
        line=False,
    )


def _get(row: Any, *names: str) -> Any:
    """Return a column of a row, by the first name that it has; None if it has none of them."""
    found = (row.get(name) if isinstance(row, Mapping) else getattr(row, name, None) for name in names)
    return next((value for value in found if value is not None), None)
