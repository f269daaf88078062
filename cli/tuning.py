"""tune; recall; calibrate."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Neighbours, Space, Where, collection, parse_filter, parse_queries
from pgvec_toolkit.cli.output import print_json, print_table, say

QueryFile = Annotated[
    str | None,
    typer.Option(
        "--queries", help="File of real queries: one text a line, or .npy. [default: stored rows]", show_default=False
    ),
]


def tune(
    name: Name,
    recall: Annotated[
        float, typer.Option(help="Target: the share of the true nearest that searches shall find.")
    ] = 0.95,
    k: Neighbours = 10,
    queries: QueryFile = None,
    space: Space = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Find the cheapest index setting that reaches a recall; searches then use it."""
    began = time.perf_counter()
    given = parse_queries(queries)
    profile = collection(name, dsn).tune(recall, k=k, queries=given, space=space)
    if as_json:
        print_json(asdict(profile))
        return
    print_table(
        (profile.parameter, "oversampling", f"recall@{k}", "ms"),
        ((trial.setting, trial.oversampling, trial.recall, trial.milliseconds) for trial in profile.trials),
    )
    typer.echo(
        f"{profile.parameter} = {profile.setting}"
        f"{'' if profile.form == 'full' else f', oversampling {profile.oversampling:g}'}: "
        f"recall@{k} {profile.recall:.3f} "
        f"on {profile.queries} queries held back, "
        f"{profile.milliseconds:.2f} ms each"
    )
    say(f"tuned in {time.perf_counter() - began:.1f} s; every search uses it from now on")


def recall(
    name: Name,
    k: Neighbours = 10,
    queries: QueryFile = None,
    sample: Annotated[int, typer.Option(min=1, help="How many stored rows to search for.")] = 100,
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
    app.command()(recall)
    app.command()(calibrate)
