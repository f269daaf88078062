"""model swap, status, switch, rollback and drop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, collection
from pgvec_toolkit.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from pgvec_toolkit.swap.comparison import Comparison
    from pgvec_toolkit.swap.state import Swap

app = typer.Typer(help="Another model for a collection, while searches and writes go on.", no_args_is_help=True)


def _show(name: str, dsn: str | None, as_json: bool, action: str) -> None:
    swap = getattr(collection(name, dsn), action)()
    if as_json:
        print_json(None if swap is None else swap.to_dict())
    elif swap is None:
        say(f"the model of {name} was never swapped")
    else:
        _print(swap)


@app.command()
def swap(
    name: Name,
    to: Annotated[str, typer.Option(help="The other model.", show_default=False)],
    space: Annotated[
        str | None, typer.Option(help="Name of its vector space. [default: as the model]", show_default=False)
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help='Queries to compare by, one a line: {"_id": "1", "text": "…"}. [default: sentences of stored chunks]',
            show_default=False,
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(help="Judgements of them: query-id, document id, score; or TREC's.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many hits are compared.")] = 10,
    sample: Annotated[int, typer.Option(min=1, help="How many stored chunks are drawn.")] = 200,
    switch: Annotated[
        bool, typer.Option("--switch", help="Switch in the end, unless judged queries say that it is worse.")
    ] = False,
    min_overlap: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Switch only if both find so much in common.", show_default=False),
    ] = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Prepare another model and compare it with the present one; interrupt and repeat it at will."""
    if min_overlap is not None and not switch:
        raise typer.BadParameter("goes with --switch", param_hint="--min-overlap")
    done = collection(name, dsn).swap_model(
        to,
        name=space,
        queries=queries,
        qrels=qrels,
        k=k,
        sample=sample,
        switch=switch,
        min_overlap=min_overlap,
    )
    if as_json:
        print_json(done.to_dict())
    else:
        _print(done)


@app.command()
def status(name: Name, dsn: Dsn = None, as_json: Json = False) -> None:
    """Say how far the swap of a collection's model is, or that there was none."""
    _show(name, dsn, as_json, "model_swap")


@app.command("switch")
def switch_(name: Name, dsn: Dsn = None, as_json: Json = False) -> None:
    """Make the model that was prepared the one that searches and writes use."""
    _show(name, dsn, as_json, "switch_model")


@app.command()
def rollback(name: Name, dsn: Dsn = None, as_json: Json = False) -> None:
    """Go back to the model that was there before the switch."""
    _show(name, dsn, as_json, "rollback_model")


@app.command()
def drop(name: Name, dsn: Dsn = None) -> None:
    """Drop the vector space that searches do not use: the old one after a switch, else the new one."""
    say(f"vector space {collection(name, dsn).drop_swapped()} dropped")


def _print(swap: Swap) -> None:
    if swap.comparison is not None:
        _print_comparison(swap, swap.comparison)
    for note in swap.notes:
        say(note)
    typer.echo(f"{swap.collection}: {swap.from_model or 'given vectors'} → {swap.to_model}: {swap.state}")
    if not swap.is_open:
        say("the swap is ended: one of its two vector spaces was dropped")
        return
    if swap.missing > 0:
        say(f"{swap.missing} chunks have no vector in {swap.spare} yet")
    name = swap.collection
    again = f"pgvec model drop {name} drops {swap.spare}"
    if swap.state == "switched":
        say(f"pgvec model rollback {name} goes back; {again}")
    elif swap.state in ("ready", "rolled back"):
        say(f"pgvec model switch {name} switches; {again}")
    else:
        say(f"pgvec model swap {name} --to {swap.to_model} goes on; {again}")


def _print_comparison(swap: Swap, compared: Comparison) -> None:
    sources = {"given": "queries", "stored": "sentences of stored chunks", "vectors": "stored vectors"}
    rows = [
        (
            f"overlap@{compared.k}",
            "",
            f"{compared.overlap:.4f}",
            f"{compared.overlap_low:.4f} to {compared.overlap_high:.4f}",
        ),
        ("the same first hit", "", f"{compared.same_first:.4f}", ""),
        ("ms a search", f"{compared.milliseconds_before:.1f}", f"{compared.milliseconds_after:.1f}", ""),
    ]
    before = {row.metric: row for row in compared.judged if row.difference is None}
    for row in compared.judged:
        if row.difference is not None:
            change = f"{row.difference:+.4f}: {row.difference_low:+.4f} to {row.difference_high:+.4f}"
            rows.append((row.metric, f"{before[row.metric].mean:.4f}", f"{row.mean:.4f}", change))
    columns = ("", swap.from_space, swap.to_space, "95 % interval")
    print_table(columns, rows, title=f"{compared.queries} {sources[compared.source]}")
    if compared.truncated:
        say(
            f"{compared.truncated:.1%} of the chunks are longer than {swap.to_model} reads: ingest them anew, in "
            "smaller ones"
        )
