"""Which index a collection should have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pgvec_toolkit.collection.base import Query
from pgvec_toolkit.collection.measuring import Measuring
from pgvec_toolkit.errors import TuningError
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.tune.advice import TOLERANCE

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
                stored rows that are left out of the sample, which are easier than real queries.
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
            targets=[recall] if isinstance(recall, int | float) else list(recall),
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
        """Return queries as they are bound."""
        from pgvec_toolkit.tune.advisor import FEWEST_QUERIES, QUERIES, logged

        if queries is None:
            return None
        if isinstance(queries, str) and queries == "log":
            given = logged(self._database, self._space(space), QUERIES)
        else:
            given = list(self._given_queries(queries, space).vectors)
        if len(given) < FEWEST_QUERIES:
            raise TuningError(f"{len(given)} queries are too few to tune on: at least {FEWEST_QUERIES} are needed")
        return given

    def _forecast(self, candidate: Candidate, rows: int, space: str | None) -> tuple[int, int, bool]:
        """Return memory and maintenance_work_mem of a build of so many rows, in bytes, and whether it fits."""
        plan = getattr(self, "plan_index", None)
        if plan is not None:
            forecast = plan(**candidate.arguments, rows=rows, space=space)[0]
            return forecast.memory, forecast.maintenance_work_mem, forecast.fits
        memory = candidate.spec.build_memory(rows, candidate.held(self._space(space)).vector_bytes)
        current, bound = self._database.fetch_one(
            "SELECT pg_size_bytes(current_setting('maintenance_work_mem')),"
            " pg_size_bytes(current_setting('shared_buffers'))"
        )
        limit = max(current, min(max(int(memory * 1.15), 64 * 2**20), bound))
        return memory, limit, memory <= limit

    def _opened(self, name: str) -> Advising:
        """Return another collection of this database."""
        return type(self)(self._database, name, spaces.find(self._database, name), None)
