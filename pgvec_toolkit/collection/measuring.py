"""How good the searches of a collection are, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from pgvec_toolkit.collection.base import Query
from pgvec_toolkit.collection.indexing import Indexing
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.search.filter import Filter, plain
from pgvec_toolkit.tune import recall as measuring
from pgvec_toolkit.tune import tuner
from pgvec_toolkit.tune.calibration import Calibration
from pgvec_toolkit.tune.profile import current
from pgvec_toolkit.tune.queries import Chosen, choose, sampled
from pgvec_toolkit.tune.recall import Recall
from pgvec_toolkit.tune.targets import check_measurable, check_sample, check_tail_share, checked_ks, checked_recalls
from pgvec_toolkit.tune.trials import Goal

if TYPE_CHECKING:
    from pgvec_toolkit.tune.profile import TuningProfile


class Measuring(Indexing):
    """Methods that tune and measure."""

    @overload
    def tune(
        self,
        recall: float = 0.95,
        *,
        k: int = 10,
        tail_share: float | None = None,
        queries: Sequence[Query] | NDArray[Any] | str | None = None,
        filters: Sequence[Filter] | None = None,
        sample: int = 1000,
        space: str | None = None,
        progress: bool | None = None,
    ) -> TuningProfile: ...

    @overload
    def tune(
        self,
        recall: float | Sequence[float] = 0.95,
        *,
        k: int | Sequence[int] = 10,
        tail_share: float | None = None,
        queries: Sequence[Query] | NDArray[Any] | str | None = None,
        filters: Sequence[Filter] | None = None,
        sample: int = 1000,
        space: str | None = None,
        progress: bool | None = None,
    ) -> TuningProfile | list[TuningProfile]: ...

    def tune(
        self,
        recall: float | Sequence[float] = 0.95,
        *,
        k: int | Sequence[int] = 10,
        tail_share: float | None = None,
        queries: Sequence[Query] | NDArray[Any] | str | None = None,
        filters: Sequence[Filter] | None = None,
        sample: int = 1000,
        space: str | None = None,
        progress: bool | None = None,
    ) -> TuningProfile | list[TuningProfile]:
        """Find the cheapest setting of the index that reaches a recall, and have every search use it.

        What searches cost here is measured as well (SQL: `pgvec.calibrate`): filtered ones weigh by it.

        Args:
            recall: the target, of recall@k. Of several, each search may name one (`recall=`), and the first is what
                the others get.
            k: the number of neighbours that searches will ask for; or several.
            tail_share: the share of queries that shall each reach the target, beyond their mean. At k = 10 and a target
                of 0.95 a query reaches it only if all 10 are found.
            queries: what users ask: texts, or vectors of shape (n, dimensions), at least 20; "log": what they asked
                (see `log_queries`). None: the log, if it has 100 different queries, else stored rows, which are
                easier than real queries.
            filters: filters that searches have: recall is measured with them, too, and where it misses the target
                their class (SQL: `pgvec.filter_class`) gets a setting of its own. None: those of the log.
            sample: how many stored rows to draw, or of the log the newest.
            space: the vector space; None: the default one.
            progress: whether to show a bar; None: on a terminal.

        Returns:
            The profile; a list of them, by k, then by recall, if several were asked for.

        Raises:
            TuningError: there is no index, too little to tune on, the target is out of reach, or the index was
                replaced meanwhile; nothing is stored.
            ConfigurationError: the role may not store what is measured.
        """
        targets, ks = checked_recalls(recall), checked_ks(k)
        check_tail_share(tail_share)
        check_sample(sample)
        indexes = self.indexes(space=space)
        tuned = self._space(space)
        with (
            progress_bar(f"tuning {self.name}", None, progress) as advance,
            self._database.connection() as connection,
        ):
            tuner.check_rights(connection)
            chosen = choose(connection, self.name, tuned, self._asked_queries(queries, space), int(sample))
            if chosen is None:
                chosen = Chosen(sampled(connection, tuned, int(sample), same=True), "stored")
            goals = [Goal(target, tail_share) for target in targets]
            separate = None if filters is None else [plain(filter) for filter in filters]
            asked = tuner.Asked(goals, ks, chosen, separate)
            profiles = tuner.tune(connection, self.name, tuned, indexes, asked, advance)
        self._forget_texts()
        return profiles[0] if np.isscalar(recall) and np.isscalar(k) else profiles

    def profiles(self, *, space: str | None = None) -> list[TuningProfile]:
        """Return the tuning profiles that searches use, by k, class of filters and target (SQL: `pgvec.profiles`)."""
        with self._database.connection() as connection:
            return current(connection, self.name, space)

    def calibrate(self, *, space: str | None = None) -> Calibration:
        """Measure what searches cost on this server, for filtered ones to weigh by (SQL: `pgvec.calibrate`)."""
        row = self._database.fetch_one("SELECT * FROM pgvec.calibrate($1, $2)", [self.name, space])
        self._forget_texts()
        return Calibration(*row)

    def recall(
        self,
        *,
        k: int = 10,
        queries: Sequence[Query] | NDArray[Any] | str | None = None,
        sample: int = 100,
        where: Filter | None = None,
        space: str | None = None,
    ) -> Recall:
        """Measure the recall that searches get now (SQL: `pgvec.recall`).

        Args:
            k: of recall@k.
            queries: texts, or vectors of shape (n, dimensions); "log": those that were logged, without their filters
                (`watch` has them). None: stored rows drawn at random.
            sample: how many stored rows to draw, or of the log the newest.
            where: a filter that the searches have.
            space: the vector space; None: the default one.
        """
        filter = None if where is None else plain(where)
        check_measurable(k, sample)
        asked, measured = self._asked_queries(queries, space), self._space(space)
        with self._database.connection() as connection:
            if asked is None:
                return measuring.measure_sample(connection, self.name, measured, sample, k, filter)
            chosen = choose(connection, self.name, measured, asked, int(sample))
            assert chosen is not None
            return measuring.measure(connection, self.name, measured, chosen.queries, k, filter)
