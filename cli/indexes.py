"""index plan, create, builds, create-keyword, list, drop, drop-keyword."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Plot, Space, collection
from pgvec_toolkit.cli.output import duration, print_json, print_table, say, size

app = typer.Typer(help="Create, list and drop indexes.", no_args_is_help=True, rich_markup_mode=None)


Form = Annotated[
    str | None,
    typer.Option(
        help="full, halfvec (half precision), binary (a bit a dimension) or prefix (leading dimensions); searches "
        "rescore all but the first. [default: full, or the first that can hold the dimensions]",
        show_default=False,
    ),
]
Prefix = Annotated[int | None, typer.Option(help="How many leading dimensions form prefix has.", show_default=False)]
M = Annotated[int | None, typer.Option("--m", help="hnsw: links per node. [default: 24]", show_default=False)]
EfConstruction = Annotated[
    int | None, typer.Option(help="hnsw: candidates while building. [default: 200]", show_default=False)
]
Lists = Annotated[
    int | None, typer.Option(help="ivfflat: clusters. [default: from the number of rows]", show_default=False)
]


@app.command()
def plan(
    name: Name,
    method: Annotated[str | None, typer.Argument(help="hnsw or ivfflat. [default: both]", show_default=False)] = None,
    form: Annotated[
        str | None,
        typer.Option(help="full, halfvec, binary or prefix. [default: all that apply]", show_default=False),
    ] = None,
    prefix: Prefix = None,
    m: M = None,
    ef_construction: EfConstruction = None,
    lists: Lists = None,
    rows: Annotated[
        int | None, typer.Option(help="As if there were so many. [default: those there are]", show_default=False)
    ] = None,
    space: Space = None,
    calibrate: Annotated[
        bool, typer.Option(help="Build on samples first, a few seconds for each form, to know how long it takes here.")
    ] = True,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Say what an index would cost: memory and time to build it, size on disk."""
    forecasts = collection(name, dsn).plan_index(
        method,
        form=form,
        prefix=prefix,
        m=m,
        ef_construction=ef_construction,
        lists=lists,
        rows=rows,
        space=space,
        calibrate=calibrate,
    )
    if as_json:
        print_json([asdict(forecast) for forecast in forecasts])
        return
    columns = ("method", "form", "dimensions", "options", "rows", "memory", "disk", "time", "workers", "fits")
    print_table(
        columns,
        (
            (
                f.method,
                f.form,
                f.dimensions,
                options_text(f.options),
                f.rows,
                size(f.memory),
                size(f.size),
                duration(f.seconds),
                f.workers,
                f.fits,
            )
            for f in forecasts
        ),
    )
    for forecast in forecasts:
        if forecast.note:
            say(f"{forecast.method}, form {forecast.form}: {forecast.note}")


@app.command()
def create(
    name: Name,
    method: Annotated[str, typer.Argument(help="hnsw or ivfflat.")] = "hnsw",
    form: Form = None,
    prefix: Prefix = None,
    space: Space = None,
    m: M = None,
    ef_construction: EfConstruction = None,
    lists: Lists = None,
    concurrently: Annotated[
        bool | None,
        typer.Option(
            help="Let others write meanwhile, or not. [default: if others may be using the space]", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even what does not fit into memory.")] = False,
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
        force=force,
    )
    say(f"index {built} was built in {time.perf_counter() - began:.1f} s")


@app.command()
def builds(name: Name, plot: Plot = None, space: Space = None, dsn: Dsn = None, as_json: Json = False) -> None:
    """List the builds of vector indexes, the latest first: forecast against reality."""
    built = collection(name, dsn)
    found = built.builds(space=space)
    if plot is not None:
        built.plot_builds(plot, space=space)
        say(f"picture: {plot}")
    if as_json:
        print_json([asdict(build) for build in found])
        return
    columns = ("index", "options", "rows", "built", "took (forecast)", "size (forecast)", "spilled after")
    print_table(
        columns,
        (
            (
                b.index,
                options_text(b.options),
                b.rows,
                f"{b.built_at:%Y-%m-%d %H:%M}",
                f"{duration(b.seconds)} ({duration(b.forecast_seconds) or '?'})",
                f"{size(b.size)} ({size(b.forecast_size)})",
                b.spilled_after,
            )
            for b in found
        ),
    )


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


def options_text(options: dict[str, int]) -> str:
    """Write storage parameters as CREATE INDEX has them."""
    return ", ".join(f"{key}={value}" for key, value in options.items())
