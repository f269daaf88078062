"""advise."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Neighbours, Plot, Space, collection, parse_queries
from pgvec_toolkit.cli.output import print_json, print_table, say, size
from pgvec_toolkit.cli.tuning import queries_option

if TYPE_CHECKING:
    from pgvec_toolkit.tune.advice import Advice, Row


def advise(
    name: Name,
    recall: Annotated[
        list[float] | None,
        typer.Option(help="Target recall; may be given several times. [default: 0.95]", show_default=False),
    ] = None,
    k: Neighbours = 10,
    sample: Annotated[int, typer.Option(min=0, help="Build on so many rows; 0: on all.")] = 50_000,
    queries: Annotated[str | None, queries_option("the log, or stored rows left out of the sample")] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            help="An index to compare, as hnsw,m=24,ef_construction=200,form=halfvec; may be given several times. "
            "[default: pgvector's default, larger graphs, half precision, IVFFlat, for long vectors binary]",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Recommend the smallest index within this share of the fastest.")
    ] = 0.05,
    space: Space = None,
    plot: Plot = None,
    migration: Annotated[
        Path | None,
        typer.Option(
            help="Write what builds the recommended index in place of the present one: .sql, or .py for Alembic.",
            show_default=False,
        ),
    ] = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Build candidate indexes on a sample, measure them at the same recall, and recommend one."""
    from pgvec_toolkit.tune import index_migration

    if migration is not None:
        index_migration.check(migration)
    began = time.perf_counter()
    advice = collection(name, dsn).advise(
        recall or [0.95],
        k=k,
        queries=parse_queries(queries),
        sample=sample or None,
        candidates=None if candidate is None else [_arguments(text) for text in candidate],
        tolerance=tolerance,
        space=space,
    )
    if as_json:
        print_json(advice.to_dict())
    else:
        _print(advice)
    say(f"{len(advice.options)} indexes of {advice.sample_rows:,} rows in {time.perf_counter() - began:.0f} s")
    if plot is not None:
        advice.plot(plot)
        say(f"picture: {plot}")
    if migration is not None:
        advice.migration(migration)
        say(f"migration: {migration}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(advise)


def _arguments(text: str) -> dict[str, Any]:
    """Read a candidate: the method, then names and values."""
    method, *parts = (part.strip() for part in text.split(","))
    arguments: dict[str, Any] = {"method": method}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise typer.BadParameter(f"{part!r} is not name=value, as m=24", param_hint="--candidate")
        try:
            arguments[key] = value if key == "form" else int(value)
        except ValueError as error:
            raise typer.BadParameter(f"{part!r} is not a whole number", param_hint="--candidate") from error
    return arguments


def _print(advice: Advice) -> None:
    columns = ("", "index", "recall", "setting", "measured", "queries/s", "size", "memory", "build", "insert")
    print_table(columns, [_cells(row) for row in advice.rows])
    typer.echo(f"exact, without an index: {advice.exact_milliseconds:.1f} ms a search")
    typer.echo(advice.reason)


def _cells(row: Row) -> tuple[str, ...]:
    speed, setting = row.queries_per_second, "out of reach"
    if row.setting is not None:
        setting = f"{row.setting}{'' if row.oversampling in (None, 1) else f' × {row.oversampling:g}'}"
    return (
        "→" if row.recommended else "",
        row.index,
        f"{row.target_recall:g}",
        setting,
        "" if row.recall is None else f"{row.recall:.3f}",
        "" if speed is None else f"{speed:,.0f}",
        size(row.size),
        f"{size(row.memory)}{'' if row.fits else ' (too much)'}",
        f"{row.build_seconds:.1f} s",
        f"{row.insert_milliseconds:.1f} ms",
    )
