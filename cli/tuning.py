"""tune, profiles; recall; calibrate."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pgvec_toolkit.cli.options import (
    Dsn,
    Json,
    Name,
    Neighbours,
    Plot,
    Space,
    Where,
    collection,
    parse_filter,
    parse_json,
    parse_queries,
)
from pgvec_toolkit.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from pgvec_toolkit.tune.profile import TuningProfile


def queries_option(default: str) -> Any:
    """Return the option --queries; default: what is measured with if it is not given."""
    return typer.Option(
        "--queries",
        help="Real queries: log, or a file: one text a line, .jsonl with text or vector, or .npy. "
        f"[default: {default}]",
        show_default=False,
    )


QueryFile = Annotated[str | None, queries_option("stored rows")]
RealQueries = Annotated[str | None, queries_option("the log, or stored rows")]


def tune(
    name: Name,
    recall: Annotated[
        list[float] | None,
        typer.Option(
            help="Target: the share of the true nearest that searches shall find; several times: the first is the "
            "default one. [default: 0.95]",
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(
            "-k", "--k", min=1, help="How many nearest chunks; several times. [default: 10]", show_default=False
        ),
    ] = None,
    tail_share: Annotated[
        float | None, typer.Option(help="The share of queries that shall each reach the target, as well.")
    ] = None,
    queries: RealQueries = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Filter that searches have, as JSON: its class is tuned, too; several times."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many stored rows, or logged queries.")] = 1000,
    plot: Plot = None,
    space: Space = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Find the cheapest index setting that reaches a recall; searches then use it."""
    began = time.perf_counter()
    given = parse_queries(queries)
    measured = [parse_json(each, "--filter") or {} for each in filters or ()] or None
    profiles = collection(name, dsn).tune(
        recall or [0.95],
        k=k or [10],
        tail_share=tail_share,
        queries=given,
        filters=measured,
        sample=sample,
        space=space,
    )
    assert isinstance(profiles, list)
    if plot is not None:
        from pgvec_toolkit.tune.pictures import draw_profiles

        draw_profiles(profiles, plot)
        say(f"picture: {plot}")
    if as_json:
        made = [asdict(profile) for profile in profiles]
        print_json(made[0] if len(made) == 1 else made)
        return
    for profile in profiles:
        _print_profile(profile)
    say(f"tuned in {time.perf_counter() - began:.1f} s; searches use it from now on")


def profiles(name: Name, space: Space = None, dsn: Dsn = None, as_json: Json = False) -> None:
    """List what was tuned: the settings that searches use."""
    found = collection(name, dsn).profiles(space=space)
    if as_json:
        print_json([asdict(profile) for profile in found])
    elif found:
        print_table(
            ("k", "target", "default", "setting", "oversampling", "recall", "95 %", "ms", "queries", "filters on"),
            (
                (
                    profile.k,
                    profile.target_recall,
                    "yes" if profile.is_default else "",
                    f"{profile.parameter} = {profile.setting}",
                    f"{profile.oversampling:g}",
                    profile.recall,
                    f"{profile.recall_low:.3f} to {profile.recall_high:.3f}",
                    f"{profile.milliseconds:.2f}",
                    f"{profile.queries} {profile.source}",
                    profile.filter_class,
                )
                for profile in found
            ),
        )
    else:
        say(f"nothing is tuned: pgvec tune {name}")


def _print_profile(profile: TuningProfile) -> None:
    print_table(
        (profile.parameter, "oversampling", f"recall@{profile.k}", "queries", "ms"),
        (
            (trial.setting, f"{trial.oversampling:g}", trial.recall, trial.queries, f"{trial.milliseconds:.2f}")
            for trial in profile.trials
        ),
    )
    oversampling = "" if profile.form == "full" else f", oversampling {profile.oversampling:g}"
    sources = {"log": "logged queries", "stored": "stored rows", "given": "queries"}
    held_back = "" if profile.held_back is None else f", {profile.held_back:.3f} held back"
    typer.echo(
        f"{profile.parameter} = {profile.setting}{oversampling}: recall@{profile.k} {profile.recall:.3f} "
        f"({profile.recall_low:.3f} to {profile.recall_high:.3f}{held_back}) on {profile.queries} "
        f"{sources[profile.source]}, {profile.reaching_share:.1%} of which reach {profile.target_recall:g}; "
        f"{profile.milliseconds:.2f} ms each"
    )
    for measured in profile.filters:
        typer.echo(f"with filters on {measured.filter_class}: recall@{profile.k} {measured.recall:.3f}")


def recall(
    name: Name,
    k: Neighbours = 10,
    queries: QueryFile = None,
    sample: Annotated[int, typer.Option(min=1, help="How many stored rows, or logged queries, to search for.")] = 100,
    where: Where = None,
    space: Space = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Measure the recall that searches get now, against exact ones."""
    filter, given = parse_filter(where), parse_queries(queries)
    measured = collection(name, dsn).recall(k=k, queries=given, sample=sample, where=filter, space=space)
    if as_json:
        print_json(asdict(measured))
    else:
        typer.echo(
            f"recall@{k} {measured.recall:.3f}, {measured.recall_p5:.3f} or better "
            f"for 95 % of {measured.queries} queries, "
            f"{measured.short_results} short results"
        )


def calibrate(name: Name, space: Space = None, dsn: Dsn = None, as_json: Json = False) -> None:
    """Measure what searches cost on this server, for filtered ones to weigh by; tune does so as well."""
    measured = collection(name, dsn).calibrate(space=space)
    if as_json:
        print_json(asdict(measured))
        return
    typer.echo(
        f"one vector compared    {measured.exact_us:.2f} µs (at the first touch {measured.exact_cold_us:.2f} µs)"
    )
    if measured.scan_us is None:
        typer.echo("no index: filtered searches compare all matches")
        return
    typer.echo(f"one step of the index  {measured.scan_us:.2f} µs")
    typer.echo(f"gate for k = 10        {measured.gate} matches are compared, more are looked for in the index")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(tune)
    app.command()(profiles)
    app.command()(recall)
    app.command()(calibrate)
