"""Trials of filtered searches: by classes of filters, against exact searches with the same filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from pgvec_toolkit.search.filter import shape
from pgvec_toolkit.tune.queries import Queries, found_distances, permuted
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
    def of(cls, trials: Trials, queries: Queries, filters: list[Any]) -> FilteredTrials:
        """Return trials of the same index and k, with their truth."""
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
        made.truth = made._searched(0, len(queries), exact=True)
        return made

    def found(self, setting: int, oversampling: float, start: int, end: int) -> list[NDArray[np.float64]]:
        """Return the distances that some of the queries find with a setting."""
        return self._searched(start, end, base=setting, oversampling=oversampling)

    def _searched(self, start: int, end: int, **options: Any) -> list[NDArray[np.float64]]:
        found = []
        for row in range(start, end):
            filter = self.filters[row]
            statement = self.statement((shape(filter), *options.values()), filter=filter, **options)
            one = self.queries.take(np.asarray([row]))
            found += found_distances(self.connection, statement, one, self.k, filter)
        return found


def by_class(
    connection: Connection, queries: Queries, filters: Sequence[Any], source: str
) -> dict[str, tuple[Queries, list[Any]]]:
    """Return the queries of each class of filters, and the filter of each (SQL: `pgvec.filter_class`).

    Filters from the log go with their queries; of others each query gets one of each class. Of a class with fewer
    than 20 queries nothing can be told: it is left out.
    """
    classes: dict[str, list[int]] = {}
    for place, filter in enumerate(filters):
        if filter is not None:
            row = connection.execute("SELECT pgvec.filter_class(%s)", [Jsonb(filter)]).fetchone()
            assert row is not None
            classes.setdefault(row[0], []).append(place)
    classes.pop("", None)
    found = {}
    for name, places in sorted(classes.items()):
        if source == "log":
            chosen, values = queries.take(np.asarray(places)), [filters[place] for place in places]
        else:
            chosen, values = queries, [filters[places[row % len(places)]] for row in range(len(queries))]
        if len(chosen) >= _FEWEST:
            mixed, values = permuted(chosen, values)
            found[name] = mixed.take(np.arange(min(_MOST, len(mixed)))), values[:_MOST]
    return found
