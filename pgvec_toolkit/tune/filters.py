"""Trials of filtered searches: by classes of filters, against exact searches with the same filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pgvec_toolkit.search.filter import shape
from pgvec_toolkit.tune.queries import Chosen, Queries, found_distances, permuted
from pgvec_toolkit.tune.trials import Trials

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection

_MOST = 200  # queries of a class: each is searched for exactly, one by one
_FEWEST = 20


@dataclass
class FilteredTrials(Trials):
    """Settings measured by filtered searches: the setting is the one that they start from.

    Attributes:
        filters: one for each query.
    """

    filters: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, trials: Trials, queries: Queries, filters: list[Any], *, logged: bool) -> FilteredTrials | None:
        """Return trials of the same index and k, with their truth; None if they are too few.

        Logged filters that no longer fit the columns are left out, as pgvec.watch does.
        """
        made = cls(
            trials.connection,
            trials.collection,
            trials.space,
            trials.index,
            trials.k,
            trials.largest,
            queries,
            (),
            trials.advance,
            filters=filters,
        )
        truth = {row: found for row in range(len(queries)) if (found := made._true(row, logged)) is not None}
        made.queries, made.truth = queries.take(np.asarray([*truth], dtype=np.intp)), [*truth.values()]
        made.filters = [filters[row] for row in truth]
        return made if len(truth) >= _FEWEST else None

    def found(self, setting: int, oversampling: float, start: int, end: int) -> list[NDArray[np.float64]]:
        """Return the distances that some of the queries find with a setting."""
        return self._searched(start, end, base=setting, oversampling=oversampling)

    def _true(self, row: int, logged: bool) -> NDArray[np.float64] | None:
        """Return the distances of an exact search; None if its logged filter does not fit the columns."""
        try:
            return self._searched(row, row + 1, exact=True)[0]
        except psycopg.Error as error:
            if logged and (error.sqlstate == "PV004" or isinstance(error, psycopg.DataError)):
                return None
            raise

    def _searched(self, start: int, end: int, **options: Any) -> list[NDArray[np.float64]]:
        found = []
        for row in range(start, end):
            filter = self.filters[row]
            statement = self.statement((shape(filter), *options.values()), filter=filter, **options)
            one = self.queries.take(np.asarray([row]))
            found += found_distances(self.connection, statement, one, self.k, filter)
        return found


def by_class(
    connection: Connection, chosen: Chosen, separate: Sequence[Any] | None
) -> dict[str, tuple[Queries, list[Any]]]:
    """Return the queries of each class of filters, and the filter of each (SQL: `pgvec.filter_class`).

    Filters from the log go with their queries; of separate ones each query gets one of each class. Of a class with
    fewer than 20 queries nothing can be told: it is left out.
    """
    queries, filters = chosen.queries, chosen.filters if separate is None else separate
    classes: dict[str, list[int]] = {}
    for place, filter in enumerate(filters):
        if filter is not None:
            row = connection.execute("SELECT pgvec.filter_class(%s)", [Jsonb(filter)]).fetchone()
            assert row is not None
            classes.setdefault(row[0], []).append(place)
    classes.pop("", None)
    found = {}
    for name, places in sorted(classes.items()):
        if separate is None:
            taken, values = queries.take(np.asarray(places)), [filters[place] for place in places]
        else:
            taken, values = queries, [filters[places[row % len(places)]] for row in range(len(queries))]
        if len(taken) >= _FEWEST:
            mixed, values = permuted(taken, values)
            found[name] = mixed.take(np.arange(min(_MOST, len(mixed)))), values[:_MOST]
    return found
