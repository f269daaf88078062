"""index create, create-keyword, list, drop, drop-keyword; tune; recall; calibrate."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Neighbours, Space, Where, collection, parse_filter, parse_queries
from pgvec_toolkit.cli.output import print_json, print_table, say, size

app = typer.Typer(help="Create, list and drop indexes.", no_args_is_help=True)
QueryFile = Annotated[
    str | None,
    typer.Option(
        "--queries", help="File of real queries: one text a line, or .npy. [default: stored rows]", show_default=False
    ),
]


@app.command()
def create(
    name: Name,
    method: Annotated[str, typer.Argument(help="hnsw or ivfflat.")] = "hnsw",
    form: Annotated[
        str | None,
        typer.Option(
            help="full, halfvec (half precision), binary (a bit a dimension) or prefix (leading dimensions); searches "
            "rescore all but the first. [default: full, or the first that can hold the dimensions]",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        int | None, typer.Option(help="How many leading dimensions form prefix indexes.", show_default=False)
    ] = None,
    space: Space = None,
    m: Annotated[
        int | None, typer.Option("--m", help="hnsw: links per node. [default: 16]", show_default=False)
    ] = None,
    ef_construction: Annotated[
        int | None, typer.Option(help="hnsw: candidates while building. [default: 64]", show_default=False)
    ] = None,
    lists: Annotated[
        int | None, typer.Option(help="ivfflat: clusters. [default: from the number of rows]", show_default=False)
    ] = None,
    concurrently: Annotated[bool, typer.Option("--concurrently", help="Let others write meanwhile.")] = False,
    dsn: Dsn = None,
) -> None:
    """Build a vector index, with progress."""
    began = time.perf_counter()
    built = collection(name, dsn).create_index(
        method,
        form=form,
        prefix=prefix,
        m=m,
        ef_construction=ef_construction,
        lists=lists,
        space=space,
        concurrently=concurrently,
    )
    say(f"index {built} was built in {time.perf_counter() - began:.1f} s")


@app.command("create-keyword")
def create_keyword(
    name: Name,
    k1: Annotated[float, typer.Option("--k1", help="BM25: how much more a word says the more often it occurs.")] = 1.2,
    b: Annotated[float, typer.Option("--b", help="BM25: how much the length of a chunk counts, 0 to 1.")] = 0.75,
    dsn: Dsn = None,
) -> None:
    """Build the keyword index of a collection that has none; others can search meanwhile, but not write."""
    began = time.perf_counter()
    collection(name, dsn).create_keyword_index(k1=k1, b=b)
    say(f"the keyword index of {name} was built in {time.perf_counter() - began:.1f} s")


@app.command("drop-keyword")
def drop_keyword(name: Name, dsn: Dsn = None) -> None:
    """Drop the keyword index of a collection."""
    dropped = collection(name, dsn).drop_keyword_index()
    say(f"the keyword index of {name} was dropped" if dropped else f"{name} has no keyword index")


@app.command("list")
def list_(name: Name, space: Space = None, dsn: Dsn = None, as_json: Json = False) -> None:
    """List the vector indexes of a collection."""
    indexes = collection(name, dsn).indexes(space=space)
    if as_json:
        print_json([asdict(index) for index in indexes])
    else:
        columns = ("name", "method", "form", "dimensions", "options", "usable", "size")
        print_table(
            columns,
            ((i.name, i.method, i.form, i.dimensions, ", ".join(i.options), i.usable, size(i.size)) for i in indexes),
        )


@app.command()
def drop(
    name: Name,
    index: Annotated[str | None, typer.Argument(help="Its name. [default: all of them]", show_default=False)] = None,
    space: Space = None,
    dsn: Dsn = None,
) -> None:
    """Drop a vector index, or all of a vector space; searches are exact without one."""
    dropped = collection(name, dsn).drop_index(index, space=space)
    say(f"dropped: {', '.join(dropped) or 'nothing'}")


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
    """Add the commands that stand by themselves."""
    app.command()(tune)
    app.command()(recall)
    app.command()(calibrate)
