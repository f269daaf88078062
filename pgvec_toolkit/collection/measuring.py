"""How good the searches of a collection are, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pgvec_toolkit.collection.base import Query
from pgvec_toolkit.collection.indexing import Indexing
from pgvec_toolkit.errors import TuningError
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.search.filter import Filter, plain
from pgvec_toolkit.tune import recall as measuring
from pgvec_toolkit.tune import tuner
from pgvec_toolkit.tune.calibration import Calibration
from pgvec_toolkit.tune.recall import Recall

if TYPE_CHECKING:
    from pgvec_toolkit.tune.tuner import TuningProfile


class Measuring(Indexing):
    """Methods that tune and measure."""

    def tune(
        self,
        recall: float = 0.95,
        *,
        k: int = 10,
        queries: Sequence[Query] | NDArray[Any] | None = None,
        sample: int = 500,
        space: str | None = None,
        progress: bool | None = None,
    ) -> TuningProfile:
        """Find the cheapest setting of the index that reaches a recall, and have every search use it.

        What searches cost here is measured as well (SQL: `pgvec.calibrate`): filtered ones weigh by it.

        Args:
            recall: the target, of recall@k.
            k: the number of neighbours that searches will ask for.
            queries: what users ask: texts, or vectors of shape (n, dimensions), at least 20. None: stored
                rows drawn at random, which are easier than real queries.
            sample: how many stored rows to draw.
            space: the vector space; None: the default one.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            TuningError: there is no index, too little to tune on, or the target is out of reach.
        """
        if not 0 < recall < 1:
            raise TuningError(
                f"the target recall must be above 0 and below 1, not {recall}: only an exact scan reaches 1"
            )
        if not 1 <= k <= 999:
            raise TuningError(f"k must be from 1 to 999, not {k}")
        indexes = self.indexes(space=space)
        tuned = self._space(space)
        given = None if queries is None else self._given_queries(queries, space)
        with (
            progress_bar(f"tuning {self.name}", None, progress) as advance,
            self._database.connection() as connection,
        ):
            chosen = measuring.sampled(connection, tuned, sample) if given is None else given
            profile = tuner.tune(connection, self.name, tuned, indexes, chosen, k, recall, advance)
        self._forget_texts()
        return profile

    def calibrate(self, *, space: str | None = None) -> Calibration:
        """Measure what searches cost on this server, for filtered ones to weigh by (SQL: `pgvec.calibrate`)."""
        row = self._database.fetch_one("SELECT * FROM pgvec.calibrate($1, $2)", [self.name, space])
        self._forget_texts()
        return Calibration(*row)

    def recall(
        self,
        *,
        k: int = 10,
        queries: Sequence[Query] | NDArray[Any] | None = None,
        sample: int = 100,
        where: Filter | None = None,
        space: str | None = None,
    ) -> Recall:
        """Measure the recall that searches get now (SQL: `pgvec.recall`).

        Args:
            k: of recall@k.
            queries: texts, or vectors of shape (n, dimensions); None: stored rows drawn at random.
            sample: how many stored rows to draw.
            where: a filter that the searches have.
            space: the vector space; None: the default one.
        """
        filter = None if where is None else plain(where)
        given = None if queries is None else self._given_queries(queries, space)
        with self._database.connection() as connection:
            if given is None:
                return measuring.measure_sample(connection, self.name, self._space(space), sample, k, filter)
            return measuring.measure(connection, self.name, self._space(space), given, k, filter)
