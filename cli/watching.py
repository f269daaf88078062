"""watch; log."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Neighbours, Plot, Space, collection
from pgvec_toolkit.cli.output import print_json, say

if TYPE_CHECKING:
    from pgvec_toolkit.collection import Collection
    from pgvec_toolkit.watch.query_log import QueryLog
    from pgvec_toolkit.watch.recall_check import RecallCheck

_ALARM = 3
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def watch(
    name: Name,
    k: Neighbours = 10,
    sample: Annotated[int, typer.Option(min=1, help="How many queries to check: logged ones, else stored rows.")] = 50,
    every: Annotated[
        str | None, typer.Option(help="Check again and again, as 30s, 10m or 1h, until Ctrl-C.", show_default=False)
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Show the earlier checks instead.")] = False,
    plot: Plot = None,
    limit: Annotated[int, typer.Option(min=1, help="How many checks --history and --plot show, the newest.")] = 20,
    new_baseline: Annotated[
        bool, typer.Option("--new-baseline", help="Take what embeddings are like now for what is usual, and check.")
    ] = False,
    space: Space = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Check how good searches are now, and store that. Exits with 3 if there is an alarm."""
    seconds = _interval(every)
    if seconds is not None and (history or plot is not None):
        raise typer.BadParameter("check, or show the earlier checks: not both", param_hint="--every")
    watched = collection(name, dsn)
    if history or plot is not None:
        checks = watched.recall_checks(space, limit)
        _print_history(checks, as_json)
        if plot is not None:
            watched.plot_recall(plot, space, limit)
            say(f"picture: {plot}")
        return
    if new_baseline:
        watched.set_drift_baseline(space)
        say(f"drift of {name} is measured from now on anew")
    if seconds is None:
        check = watched.watch(k, sample, space)
        _print(check, as_json)
        if check.alarms:
            raise typer.Exit(_ALARM)
        return
    for check in _checks(watched, k, sample, space, seconds):
        _print(check, as_json)


def log(
    name: Name,
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Log this share of the queries.", show_default=False)
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="With --share: how many are kept, the newest. [default: 10000]", show_default=False),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Log no more; what was logged is kept.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Delete what was logged.")] = False,
    space: Space = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Log a share of the queries for watch and tune, or show what is logged: vectors, k, filters."""
    if off and share is not None:
        raise typer.BadParameter("log a share, or switch it off", param_hint="--off")
    if keep is not None and share is None:
        raise typer.BadParameter("goes with --share: which share of the queries to log", param_hint="--keep")
    logged = collection(name, dsn)
    if off or share is not None:
        logged.log_queries(None if off else share, keep or 10_000, space)
    if forget:
        say(f"{logged.forget_queries(space)} logged queries were deleted")
    state = logged.logged_queries(space)
    if as_json:
        print_json(asdict(state))
    else:
        typer.echo(_state(state))


def _checks(watched: Collection, k: int, queries: int, space: str | None, seconds: float) -> Iterator[RecallCheck]:
    """Check for ever; while the server cannot be reached, say so."""
    from pgvec_toolkit.errors import ConnectionFailed

    while True:
        began = time.monotonic()
        try:
            yield watched.watch(k, queries, space)
        except ConnectionFailed as error:
            say(f"{error}; trying again in {seconds:g} s")
        time.sleep(max(0.0, began + seconds - time.monotonic()))


def _interval(text: str | None) -> float | None:
    """Read the value of --every."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is not a time: write 30s, 10m or 1h", param_hint="--every")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _print(check: RecallCheck, as_json: bool) -> None:
    if as_json:
        print_json(asdict(check))
    else:
        typer.echo(_line(check))
    for alarm in check.alarms:
        say(f"ALARM {alarm}")


def _line(check: RecallCheck) -> str:
    target = "" if check.target_recall is None else f", target {check.target_recall:g}"
    kind = "logged queries" if check.source == "log" else "stored rows"
    shifts = {"mean": check.mean_shift, "distances": check.distance_shift, "out of range": check.out_of_range}
    measured = [f"{name} {shift:.2f}" for name, shift in shifts.items() if shift is not None]
    return (
        f"{check.checked_at:%Y-%m-%d %H:%M:%S} recall@{check.k} {check.recall:.3f} "
        f"({check.recall_low:.3f} to {check.recall_high:.3f}{target}) on {check.queries} {kind}, "
        f"{check.milliseconds:.2f} ms, {check.short_results} short results; "
        f"drift: {', '.join(measured) or 'measured from here'}"
    )


def _print_history(checks: list[RecallCheck], as_json: bool) -> None:
    if as_json:
        print_json([asdict(check) for check in checks])
        return
    for check in checks:
        typer.echo("\n    ALARM ".join([_line(check), *check.alarms]))
    if not checks:
        say("nothing was checked yet: run pgvec watch without --history")


def _state(state: QueryLog) -> str:
    kept = "nothing is logged yet"
    if state.oldest is not None:
        kept = f"{state.queries} queries since {state.oldest:%Y-%m-%d %H:%M}, {state.filtered} of them with a filter"
    if state.share is None:
        return f"queries are not logged; {kept}"
    return f"{state.share:.2%} of the queries are logged, {state.keep} are kept; {kept}"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(watch)
    app.command()(log)
