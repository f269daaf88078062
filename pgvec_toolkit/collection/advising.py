"""Which index a collection should have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pgvec_toolkit.collection.base import Query
from pgvec_toolkit.collection.measuring import Measuring
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.tune.advice import TOLERANCE
from pgvec_toolkit.tune.queries import choose
from pgvec_toolkit.tune.targets import check_count

if TYPE_CHECKING:
    from pgvec_toolkit.tune.advice import Advice
    from pgvec_toolkit.tune.candidates import Candidate

_SAMPLE = 50_000


class Advising(Measuring):
    """Methods that advise."""

    def advise(
        self,
        recall: float | Sequence[float] = 0.95,
        *,
        k: int = 10,
        queries: Sequence[Query] | NDArray[Any] | str | None = None,
        sample: int | None = _SAMPLE,
        candidates: Sequence[Mapping[str, Any]] | None = None,
        tolerance: float = TOLERANCE,
        space: str | None = None,
        progress: bool | None = None,
    ) -> Advice:
        """Build candidate indexes on a sample, measure them at the same recall, and recommend one.

        Each is built beside the others in a scratch collection (pgvec_advice_…), which is dropped in the end; the
        collection itself is only read. It takes disk for a copy of the sample and an index of it for each candidate.
        `create_index(**advice.recommended.arguments)` builds what is recommended.

        Args:
            recall: the targets, of recall@k.
            k: the number of neighbours that searches will ask for.
            queries: texts, or vectors of shape (n, dimensions), at least 20; "log": those that were logged. None:
                the log, if it has 100 different queries, else stored rows that are left out of the sample, which are
                easier than real queries.
            sample: how many rows to build on; None: all.
            candidates: arguments of `create_index` for each, as {"m": 24, "form": "halfvec"}. None: pgvector's
                default, larger graphs, half precision, IVFFlat, and for long vectors binary.
            tolerance: the smallest index within this share of the fastest is recommended.
            space: the vector space; None: the default one.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            TuningError: there is too little to measure on.
        """
        from pgvec_toolkit.tune.advisor import advise

        return advise(
            self._database,
            self.name,
            self._space(space),
            targets=recall,
            k=k,
            queries=self._advised_queries(queries, space),
            sample=sample,
            candidates=candidates,
            named=space,
            tolerance=tolerance,
            forecast=lambda candidate, rows: self._forecast(candidate, rows, space),
            open=self._opened,
            progress=progress,
        )

    def _advised_queries(self, queries: Sequence[Query] | NDArray[Any] | str | None, space: str | None) -> Any:
        """Return queries as they are bound; None: of stored rows, which are to be left out of the sample."""
        from pgvec_toolkit.tune.advisor import QUERIES

        asked = self._asked_queries(queries, space)
        with self._database.connection() as connection:
            chosen = choose(connection, self.name, self._space(space), asked, QUERIES)
        if chosen is None:
            return None
        check_count(len(chosen.queries))
        return list(chosen.queries.vectors)

    def _forecast(self, candidate: Candidate, rows: int, space: str | None) -> tuple[int, int, int, bool]:
        """Return memory and maintenance_work_mem of a build of so many rows, in bytes, workers, and whether it fits."""
        (plan,) = self.plan_index(**candidate.arguments, rows=rows, space=space, calibrate=False)
        return plan.memory, plan.maintenance_work_mem, plan.workers, plan.fits

    def _opened(self, name: str) -> Advising:
        """Return another collection of this database."""
        return type(self)(self._database, name, spaces.find(self._database, name), None)
