"""index create, create-keyword, list, drop, drop-keyword."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Space, collection
from pgvec_toolkit.cli.output import print_json, print_table, say, size

app = typer.Typer(help="Create, list and drop indexes.", no_args_is_help=True)


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
