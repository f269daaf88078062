"""Judging searches by labelled queries: modes side by side, with intervals.

Judgements are of documents, hits are chunks: a document is ranked by its best chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from psycopg import RawCursor, sql

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.evaluate import beir
from pgvec_toolkit.evaluate.beir import Qrels, Run
from pgvec_toolkit.evaluate.bootstrap import RESAMPLES, excludes_zero, interval
from pgvec_toolkit.evaluate.metrics import METRICS, Grades
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.search.hit import Hits

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Pool
    from pgvec_toolkit.schema.space import Space

Kept = TypeVar("Kept")
Mode = Callable[[str], Hits]  # of a query's text
MODES = ("dense", "keyword", "hybrid")


class Searched(Protocol):
    """What is evaluated: a `Collection`, as far as it is needed here."""

    @property
    def database(self) -> Pool:
        """Where it is."""

    @property
    def space(self) -> Space:
        """Its default vector space."""

    @property
    def search(self) -> Callable[..., Hits]:
        """See `Collection.search`."""

    @property
    def keyword_search(self) -> Callable[..., Hits]:
        """See `Collection.keyword_search`."""

    @property
    def hybrid_search(self) -> Callable[..., Hits]:
        """See `Collection.hybrid_search`."""


@dataclass(frozen=True)
class Row:
    """A metric of a mode: its mean over the queries, and how far it is from that of the first mode.

    Attributes:
        mode: what searched.
        metric: as ndcg@10.
        mean: over the queries.
        low: lower end of its 95 % interval.
        high: upper end.
        difference: mean minus that of the first mode; None for that one itself, as the next three.
        difference_low: lower end of the 95 % interval of the difference, by the paired bootstrap.
        difference_high: upper end.
        differs: whether that interval excludes 0.
    """

    mode: str
    metric: str
    mean: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    differs: bool | None = None


@dataclass(frozen=True)
class Evaluation:
    """What each mode found for the judged queries, and what that is worth.

    Attributes:
        k: of the metrics.
        depth: how many chunks each search was asked for.
        queries: ids of those that were run.
        skipped: how many queries were not run: no document is judged relevant to them.
        unknown: how many queries are judged, but their text was not given.
        absent: how many documents are judged relevant to some query that was run, but are not in the collection.
        short: mode -> how many of its searches gave `depth` chunks of fewer than k documents: take a greater depth.
        runs: mode -> query id -> (document id, score), best first.
        results: mode -> query id -> metric -> value.
        rows: mode by mode, the metrics of each.
    """

    k: int
    depth: int
    queries: list[str]
    skipped: int
    unknown: int
    absent: int
    short: dict[str, int]
    runs: dict[str, Run]
    results: dict[str, dict[str, dict[str, float]]]
    rows: list[Row]

    @property
    def modes(self) -> list[str]:
        """The modes, in the order in which they were given."""
        return list(self.runs)

    def table(self) -> list[Row]:
        """Return the rows metric by metric, the modes side by side."""
        names = list(dict.fromkeys(row.metric for row in self.rows))
        return sorted(self.rows, key=lambda row: names.index(row.metric))

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict, for JSON; without the runs, which `write_runs` writes."""
        plain = {name: getattr(self, name) for name in ("k", "depth", "skipped", "unknown", "absent", "short")}
        return {
            **plain,
            "queries": len(self.queries),
            "table": [asdict(row) for row in self.table()],
            "results": self.results,
        }

    def write_runs(self, folder: str | Path) -> list[Path]:
        """Write a TREC run for each mode, as <mode>.run, into a folder that is made if need be."""
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot make folder {folder}: {error.strerror}") from error
        written = []
        for mode, run in self.runs.items():
            path = Path(folder) / f"{quote(mode, safe='')}.run"  # space:title is no name for a file everywhere
            beir.write_run(path, run, mode)
            written.append(path)
        return written

    def plot(self, path: str | Path) -> None:
        """Draw the metrics of all modes with their intervals, as .png or as interactive .html."""
        from pgvec_toolkit.evaluate.picture import draw

        draw(self, path)


@dataclass(frozen=True)
class Judged:
    """The queries that can be judged.

    Attributes:
        texts: query id to text.
        grades: query id -> document id -> grade; of these queries and perhaps more.
        skipped: how many queries are left out: no document is judged relevant to them.
        unknown: how many queries are judged, but have no text.
    """

    texts: dict[str, str]
    grades: Qrels
    skipped: int
    unknown: int

    @classmethod
    def of(cls, queries: Mapping[str, str] | str | Path, qrels: Qrels | str | Path) -> Judged:
        """Take queries and judgements, or read them from queries.jsonl and a file of judgements."""
        texts = beir.read_queries(queries) if isinstance(queries, str | Path) else queries
        grades = beir.read_qrels(qrels) if isinstance(qrels, str | Path) else qrels
        relevant = {id for id, judged in grades.items() if any(grade > 0 for grade in judged.values())}
        kept = {id: text for id, text in texts.items() if id in relevant}
        if not kept:
            raise ConfigurationError(
                f"none of the {len(texts)} queries is judged: their ids and those of the judgements have to agree"
            )
        return cls(kept, grades, len(texts) - len(kept), len(relevant) - len(kept))


def evaluate(
    collection: Searched,
    queries: Mapping[str, str] | str | Path,
    qrels: Qrels | str | Path,
    *,
    modes: Sequence[str] | Mapping[str, str | Mode] = MODES,
    k: int = 10,
    depth: int = 100,
    fusion: str = "relative",
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool | None = None,
) -> Evaluation:
    """Run judged queries in several modes and compare what they find by nDCG, MRR, recall and MAP.

    Args:
        collection: what the named modes search.
        queries: query id to text, or the path of a queries.jsonl.
        qrels: query id to document id to grade, or the path of judgements, BEIR's or TREC's. Grades of 0 and below
            are not relevant, and queries without a relevant document are not run.
        modes: "dense", "keyword", "hybrid", "space:<name>"; or a mapping of names of your own to these or to
            functions of a text that return hits: other collections, models, rerankers. The others are compared
            with the first one.
        k: of the metrics.
        depth: how many chunks the named modes fetch; those of one document count once, as its best one, so that
            there are fewer documents in a ranking. Also how deep each leg of "hybrid" goes.
        fusion: of "hybrid".
        resamples: of the bootstrap.
        seed: of the bootstrap.
        progress: whether to show a bar; None: on a terminal.

    Raises:
        ConfigurationError: a file or a mode cannot be used, or no query is judged.
    """
    if not 1 <= k <= depth:
        raise ConfigurationError(f"k must be from 1 to the depth of {depth}, not {k}")
    searches = functions(collection, modes, depth, fusion)
    judged = Judged.of(queries, qrels)
    found = run_all(searches, judged.texts, lambda hits: (documents(hits), len(hits)), progress)
    runs: dict[str, Run] = {mode: {id: ranked for id, (ranked, _) in each.items()} for mode, each in found.items()}
    short = {
        mode: sum(len(ranked) < k and chunks >= depth for ranked, chunks in each.values())
        for mode, each in found.items()
    }
    results = {mode: {id: _measured(each[id], judged.grades[id], k) for id in each} for mode, each in runs.items()}
    return Evaluation(
        k=k,
        depth=depth,
        queries=list(judged.texts),
        skipped=judged.skipped,
        unknown=judged.unknown,
        absent=_absent(collection, judged),
        short=short,
        runs=runs,
        results=results,
        rows=_rows(results, resamples, seed),
    )


def functions(
    collection: Searched, modes: Sequence[str] | Mapping[str, str | Mode], depth: int, fusion: str
) -> dict[str, Mode]:
    """Return what searches in each mode."""
    if isinstance(modes, str) or not modes:
        raise ConfigurationError(f"modes is a list of at least one of {', '.join(MODES)} and space:<name>")
    given = modes if isinstance(modes, Mapping) else {mode: mode for mode in modes}
    return {
        name: _function(collection, mode, depth, fusion) if isinstance(mode, str) else mode
        for name, mode in given.items()
    }


def run_all(
    searches: Mapping[str, Mode], texts: Mapping[str, str], keep: Callable[[Hits], Kept], progress: bool | None
) -> dict[str, dict[str, Kept]]:
    """Run all queries in all modes: mode -> query id -> what is to be kept of the hits, which hold texts."""
    found: dict[str, dict[str, Kept]] = {mode: {} for mode in searches}
    with progress_bar("evaluating", len(texts) * len(searches), progress) as advance:
        for mode, search in searches.items():
            for id, text in texts.items():
                found[mode][id] = keep(search(text))
                advance(1)
    return found


def documents(hits: Hits) -> list[tuple[str, float]]:
    """Rank documents by their best chunk; each with its score."""
    best = {hit.document_id: hit.score for hit in reversed(hits)}  # the first one stays
    ranked = [(id, best[id]) for id in dict.fromkeys(hit.document_id for hit in hits)]
    scores = [score for _, score in ranked if score is not None]
    if len(scores) < len(ranked) or any(after > before for before, after in pairwise(scores)):
        # Who reads a run sorts it by score; one that does not give the order makes way for one that does.
        return [(id, 1 / rank) for rank, (id, _) in enumerate(ranked, 1)]
    return list(zip((id for id, _ in ranked), scores, strict=True))


def _function(collection: Searched, mode: str, depth: int, fusion: str) -> Mode:
    kind, _, space = mode.partition(":")
    if kind == "space" and space:
        return lambda text: collection.search(text, depth, space=space)
    if mode == "dense":
        return lambda text: collection.search(text, depth)
    if mode == "keyword":
        return lambda text: collection.keyword_search(text, depth)
    if mode == "hybrid":
        return lambda text: collection.hybrid_search(text, depth, fusion=fusion, depth=depth)
    raise ConfigurationError(f"unknown mode {mode!r}: there are {', '.join(MODES)} and space:<name>")


def _measured(ranked: Sequence[tuple[str, float]], grades: Grades, k: int) -> dict[str, float]:
    ids = [id for id, _ in ranked]
    return {f"{name}@{k}": metric(ids, grades, k) for name, metric in METRICS.items()}


def _rows(results: Mapping[str, Mapping[str, Mapping[str, float]]], resamples: int, seed: int) -> list[Row]:
    """Sum up: means, differences to the first mode, and the intervals of both from the same resamples."""
    values = np.array([[list(each.values()) for each in run.values()] for run in results.values()])
    names = list(next(iter(next(iter(results.values())).values())))
    both = np.stack([values, values - values[0]])  # (2, modes, queries, metrics)
    columns: NDArray[np.float64] = np.moveaxis(both, 2, 0)
    shape = columns.shape[1:]
    low, high = (
        end.reshape(shape) for end in interval(columns.reshape(len(columns), -1), resamples=resamples, seed=seed)
    )
    means = columns.mean(axis=0)
    rows = []
    for number, mode in enumerate(results):
        for column, name in enumerate(names):
            (mean, difference), (lower, lower_difference), (upper, upper_difference) = (
                each[:, number, column].tolist() for each in (means, low, high)
            )
            row = Row(mode, name, mean, lower, upper)
            if number:
                differs = excludes_zero(lower_difference, upper_difference)
                row = Row(mode, name, mean, lower, upper, difference, lower_difference, upper_difference, differs)
            rows.append(row)
    return rows


def _absent(collection: Searched, judged: Judged) -> int:
    """Count the relevant documents that are not in the collection: ids that do not agree show here."""
    relevant = {document for id in judged.texts for document, grade in judged.grades[id].items() if grade > 0}
    statement = sql.SQL(
        "SELECT count(*) FROM unnest($1::text[]) AS judged (id)"
        " WHERE NOT EXISTS (SELECT FROM {} AS d WHERE d.document_id = judged.id)"
    ).format(collection.space.chunk_rows)
    with collection.database.connection() as connection:
        row = RawCursor(connection).execute(statement, [list(relevant)]).fetchone()  # names may have a % in them
    assert row is not None
    return int(row[0])
