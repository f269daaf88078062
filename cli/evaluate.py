"""eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Plot, collection
from pgvec_toolkit.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from pgvec_toolkit.evaluate.evaluation import Evaluation
    from pgvec_toolkit.evaluate.fit import Fitted

_FEW_QUERIES = 20


def evaluate(
    name: Name,
    queries: Annotated[Path, typer.Option(help='Queries, one a line: {"_id": "1", "text": "…"}.', show_default=False)],
    qrels: Annotated[
        Path,
        typer.Option(
            help="Judgements, tab-separated: query-id, corpus-id (a document id), score; or TREC's.",
            show_default=False,
        ),
    ],
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help="dense, keyword, hybrid or space:<name>; may be given several times, the others are compared with "
            "the first. [default: the first three]",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many documents the metrics look at.")] = 10,
    depth: Annotated[int, typer.Option(min=1, help="How many chunks a search fetches, and a leg of hybrid.")] = 100,
    fusion: Annotated[str, typer.Option(help="Of hybrid: relative, dbsf, rrf or weighted.")] = "relative",
    fit: Annotated[
        bool,
        typer.Option(
            "--fit", help="Fit the weights of dense and keyword to half of the queries, and judge them by the rest."
        ),
    ] = False,
    plot: Plot = None,
    runs: Annotated[
        Path | None, typer.Option(help="Write TREC runs into this folder, <mode>.run.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap, and of the halves of --fit.")] = 0,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Judge searches by labelled queries. Example: pgvec eval docs --queries q.jsonl --qrels qrels.tsv --mode dense."""
    from pgvec_toolkit.evaluate.evaluation import MODES

    searched = collection(name, dsn)
    depth = max(depth, k)
    evaluation = searched.evaluate(queries, qrels, modes=mode or MODES, k=k, depth=depth, fusion=fusion, seed=seed)
    fitted = None
    if fit:
        fitted = searched.fit_weights(queries, qrels, fusion=fusion, metric=f"ndcg@{k}", depth=depth, seed=seed)
    if as_json:
        print_json(evaluation.to_dict() | ({} if fitted is None else {"fitted": fitted.to_dict()}))
    else:
        _print(evaluation)
        if fitted is not None:
            _print_fitted(fitted)
    _remark(evaluation)
    if runs is not None:
        say(f"runs: {', '.join(map(str, evaluation.write_runs(runs)))}")
    if plot is not None:
        evaluation.plot(plot)
        say(f"picture: {plot}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(evaluate)


def _print(evaluation: Evaluation) -> None:
    first = evaluation.modes[0]
    rows = [
        (
            row.metric,
            row.mode,
            f"{row.mean:.4f}",
            f"{row.low:.4f} to {row.high:.4f}",
            *_difference(row.difference, row.difference_low, row.difference_high, row.differs),
        )
        for row in evaluation.table()
    ]
    columns: tuple[str, ...] = ("metric", "mode", "mean", "95 % interval")
    if len(evaluation.modes) > 1:
        columns += (f"minus {first}", "95 % interval", "differs")
    print_table(columns, (row[: len(columns)] for row in rows))


def _print_fitted(fitted: Fitted) -> None:
    weights = ", ".join(f"{leg} {weight:.2f}" for leg, weight in fitted.weights.items())
    difference = _difference(fitted.difference, fitted.difference_low, fitted.difference_high, fitted.differs)
    print_table(
        (fitted.metric, "queries", "fitted weights", "default weights", "difference", "95 % interval", "differs"),
        [
            ("fitted to", fitted.train_queries, f"{fitted.train:.4f}", f"{fitted.train_default:.4f}", "", "", ""),
            (
                "held out",
                fitted.held_out_queries,
                f"{fitted.held_out:.4f}",
                f"{fitted.held_out_default:.4f}",
                *difference,
            ),
        ],
        title=f"{fitted.fusion}: {weights}",
    )


def _difference(
    difference: float | None, low: float | None, high: float | None, differs: bool | None
) -> tuple[str, str, str]:
    if difference is None:
        return "", "", ""
    return f"{difference:+.4f}", f"{low:+.4f} to {high:+.4f}", "yes" if differs else "no"


def _remark(evaluation: Evaluation) -> None:
    """Say what the figures are of, and what makes them less than they seem."""
    counted = len(evaluation.queries)
    skipped = f"; {evaluation.skipped} skipped: no document is judged relevant to them" if evaluation.skipped else ""
    say(f"{counted} queries{skipped}")
    if evaluation.unknown:
        say(f"{evaluation.unknown} queries are judged, but not among the queries given")
    if evaluation.absent:
        say(f"{evaluation.absent} relevant documents are not in the collection: nothing can find them")
    for mode, searches in evaluation.short.items():
        if searches:
            say(f"{mode}: {searches} searches gave fewer than {evaluation.k} documents: raise --depth")
    if counted < _FEW_QUERIES:
        say(f"{counted} queries are few: intervals are narrower than they should be")
