"""The advisor: candidate indexes side by side on a sample, tuned to the same recall, then measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Protocol

from psycopg import RawCursor, sql

from pgvec_toolkit.errors import ConfigurationError, TuningError
from pgvec_toolkit.progress import Advance, progress_bar
from pgvec_toolkit.tune.advice import Advice, Option
from pgvec_toolkit.tune.candidates import Candidate, chosen_candidates
from pgvec_toolkit.tune.queries import nearest_sql
from pgvec_toolkit.tune.scratch import Scratch, scratch
from pgvec_toolkit.tune.targets import checked_recalls

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.indexes import Index
    from pgvec_toolkit.schema.space import Space
    from pgvec_toolkit.tune.profile import TuningProfile

QUERIES = 500
FEWEST_ROWS = 1000  # of fewer, any search is fast
_INSERTS = 200
_ROUNDS = 5
_ROUND_MILLISECONDS = 1000.0
_WARM, _FEWEST_TIMED, _MOST_TIMED, _EXACT = 20, 50, 200, 10


class Measured(Protocol):
    """What indexes are built and tuned on: a `Collection`, as far as it is needed here."""

    @property
    def create_index(self) -> Callable[..., str]:
        """See `Collection.create_index`."""

    @property
    def indexes(self) -> Callable[..., list[Index]]:
        """See `Collection.indexes`."""

    @property
    def tune(self) -> Callable[..., Any]:
        """See `Collection.tune`."""


@dataclass
class Advisor:
    """Builds candidates on a scratch collection and measures them.

    Attributes:
        database: where.
        space: that is asked about; its name if it is not the default one of its collection.
        forecast: a candidate to memory, maintenance_work_mem, workers and whether it fits, of all rows.
        open: opens a collection by name.
        targets: recalls to reach.
        k: of recall@k.
    """

    database: Pool
    space: Space
    space_name: str | None
    forecast: Callable[[Candidate], tuple[int, int, int, bool]]
    open: Callable[[str], Measured]
    targets: tuple[float, ...]
    k: int
    options: list[tuple[str, Option]] = field(default_factory=list)

    def build(self, made: Scratch, candidate: Candidate) -> None:
        """Build one candidate beside the others."""
        place = f"c{len(self.options)}"
        made.add(place)
        docs = self.open(made.name)
        began = time.perf_counter()
        docs.create_index(**candidate.arguments, space=place, concurrently=False, progress=False)
        seconds = time.perf_counter() - began
        (index,) = docs.indexes(space=place)
        option = Option(candidate, self.space_name, seconds, index.size, *self.forecast(candidate))
        self.options.append((place, option))

    def tune(self, made: Scratch, queries: Sequence[Any]) -> None:
        """Find the settings of the candidate that was built last."""
        place, option = self.options[-1]
        docs = self.open(made.name)

        def profiles(targets: Sequence[float]) -> list[TuningProfile]:
            return list(docs.tune(targets, k=self.k, queries=queries, space=place, progress=False))

        try:
            option.profiles = dict(zip(self.targets, profiles(self.targets), strict=True))
            return
        except TuningError as error:
            option.problem = str(error)
        for target in self.targets[:-1]:  # the hardest is out of reach, those before it need not be
            with suppress(TuningError):
                option.profiles[target] = profiles([target])[0]

    def time(self, made: Scratch, queries: Sequence[Any], advance: Advance) -> None:
        """Measure latencies in rounds, all candidates in each: what disturbs the machine disturbs them all."""
        with self.database.connection() as connection:
            timed = [
                (option, target, self._tuned(connection, made, place, profile), profile.milliseconds)
                for place, option in self.options
                for target, profile in option.profiles.items()
            ]
            seen: dict[tuple[str, float], list[list[float]]] = {}
            for number in range(_ROUNDS):
                for option, target, statement, expected in timed[:: -1 if number % 2 else 1]:
                    count = int(min(_MOST_TIMED, max(_FEWEST_TIMED, _ROUND_MILLISECONDS / max(expected, 1e-3))))
                    run(connection, statement, queries[:_WARM])
                    seen.setdefault((option.name, target), []).append(run(connection, statement, queries[:count]))
                advance(1)
        for option, target, *_ in timed:
            option.milliseconds[target] = typical(seen[option.name, target])

    def _tuned(self, connection: Connection, made: Scratch, place: str, profile: TuningProfile) -> str:
        setting: dict[str, Any] = {"ef_search": profile.setting, "oversampling": profile.oversampling}
        return nearest_sql(connection, made.name, self.k, space=place, **setting)

    def exact(self, made: Scratch, queries: Sequence[Any]) -> float:
        """Return the milliseconds of a search without an index, of the sample."""
        with self.database.connection() as connection:
            statement = nearest_sql(connection, made.name, self.k, space=self.options[0][0], exact=True)
            run(connection, statement, queries[:1])
            return median(run(connection, statement, queries[:_EXACT]))

    def insert(self, made: Scratch) -> None:
        """Measure what it costs to insert into each index."""
        for place, option in self.options:
            option.insert_milliseconds = made.insert(place, _INSERTS)


def advise(
    database: Pool,
    collection: str,
    space: Space,
    *,
    targets: float | Sequence[float],
    k: int,
    queries: Sequence[Any] | None,
    sample: int | None,
    candidates: Sequence[Mapping[str, Any]] | None,
    named: str | None,
    tolerance: float,
    forecast: Callable[[Candidate, int], tuple[int, int, int, bool]],
    open: Callable[[str], Measured],
    progress: bool | None,
) -> Advice:
    """Compare candidates on rows of a space; see `Collection.advise`."""
    wanted = tuple(sorted({*checked_recalls(targets)}))
    if sample is not None and sample < FEWEST_ROWS:
        raise ConfigurationError(f"a sample has at least {FEWEST_ROWS:,} rows, not {sample}")
    if not 1 <= k <= 999:
        raise ConfigurationError(f"k must be from 1 to 999, not {k}")
    chosen = chosen_candidates(space, candidates)
    total, replaces = _rows(database, space), _replaced(database, collection, named, space)
    if total < FEWEST_ROWS:
        raise TuningError(
            f"collection {collection!r} holds {total:,} rows, too few to compare indexes on: searches without one are "
            "exact, and fast enough"
        )
    work = Advisor(database, space, named, lambda candidate: forecast(candidate, total), open, wanted, k)
    held = min(QUERIES if queries is None else _INSERTS, total // 5)
    steps = len(chosen) * 2 + _ROUNDS
    with progress_bar(f"advising {collection}", steps, progress) as advance, scratch(database, space) as made:
        made.draw(sample, held)
        asked = made.held_back(QUERIES) if queries is None else queries
        for candidate in chosen:
            work.build(made, candidate)
            advance(1)
            work.tune(made, asked)
            advance(1)
        work.time(made, asked, advance)
        exact = work.exact(made, asked) * total / made.rows
        work.insert(made)
        rows = made.rows
    options = tuple(option for _, option in work.options)
    return Advice(
        collection, space, k, wanted, options, rows, total, len(asked), exact, tolerance=tolerance, replaces=replaces
    )


def run(connection: Connection, statement: str, queries: Sequence[Any]) -> list[float]:
    """Ask a statement for each query; return the milliseconds of each."""
    cursor, text, took = RawCursor(connection), statement.encode(), []
    for query in queries:
        began = time.perf_counter()
        cursor.execute(text, [query], prepare=True, binary=True).fetchall()
        took.append((time.perf_counter() - began) * 1000)
    return took


def typical(rounds: Sequence[Sequence[float]]) -> float:
    """Return the mean over the queries of each one's median over the rounds: a hiccup is of one round."""
    return fmean(median(each) for each in zip(*rounds, strict=True))


def _rows(database: Pool, space: Space) -> int:
    with database.connection() as connection:
        row = connection.execute(sql.SQL("SELECT count(*) FROM {} v").format(space.vector_rows)).fetchone()
    assert row is not None
    return int(row[0])


def _replaced(database: Pool, collection: str, space_name: str | None, space: Space) -> tuple[tuple[str, str], ...]:
    """Return names and definitions of the vector indexes that are there."""
    rows = database.fetch(
        "SELECT i.index_name, pg_get_indexdef(format('%I.%I', $3::text, i.index_name)::regclass)"
        " FROM pgvec.indexes($1, $2) i ORDER BY 1",
        [collection, space_name, space.schema],
    )
    return tuple((name, definition) for name, definition in rows)
