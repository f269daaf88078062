"""Keyword and hybrid searches: ranked by words, or by several searches at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.search.filter import Filter, plain, shape
from pgvec_toolkit.search.hit import Hit, Hits
from pgvec_toolkit.search.options import check_options
from pgvec_toolkit.search.sampling import Sampling
from pgvec_toolkit.search.statements import Texts, blamed, run

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool

KEYWORD = "keyword"
_KEYWORD_SEARCH = b"""SELECT id, document_id, text, metadata, score, rank, terms, stopped_by
FROM pgvec.keyword_search($1, $2, $3, $4, $5, $6, $7, $8, $9)"""
_HYBRID_SEARCH_SQL = """SELECT pgvec.hybrid_search_sql(%s, %s, %s::integer, filter => %s, fusion => %s, depths => %s,
rrf_k => %s::double precision, where_sql => %s, exclude => %s::text[], k1 => %s::double precision,
b => %s::double precision, recall => %s::double precision), pgvec._sampling(%s)"""


@dataclass(frozen=True)
class Chosen:
    """Which chunks a keyword or hybrid search is about, and how words count.

    Attributes:
        where: a filter.
        where_sql: a condition in SQL, as in `SearchOptions`.
        parameters: its values.
        exclude: ids to leave out.
        k1: of BM25, if not that of the keyword index.
        b: likewise.
        recall: of the legs that are vector spaces, if not that of the default target.
    """

    where: Filter | None = None
    where_sql: str | None = None
    parameters: Mapping[str, Any] | None = None
    exclude: Sequence[str] | None = None
    k1: float | None = None
    b: float | None = None
    recall: float | None = None

    def bound(self) -> tuple[Jsonb | None, Jsonb | None, list[str] | None]:
        """Return the filter, the values of where_sql and the ids to leave out, as they are bound."""
        options = {"where_sql": self.where_sql, "parameters": self.parameters, "exclude": self.exclude}
        check_options(1, options)
        given = self.where_sql is not None
        return (
            None if self.where is None else Jsonb(plain(self.where)),
            Jsonb(None if self.parameters is None else plain(self.parameters)) if given else None,
            None if self.exclude is None else list(self.exclude),
        )


@dataclass(frozen=True)
class Fusion:
    """How the legs of a hybrid search become one ranking.

    Attributes:
        fusion: relative, dbsf, rrf or weighted.
        weights: leg to weight.
        depth: how many each leg finds; or leg to how many.
        rrf_k: of rrf, the k of 1 / (k + rank).
    """

    fusion: str = "relative"
    weights: Mapping[str, float] = field(default_factory=dict)
    depth: int | Mapping[str, int] = 100
    rrf_k: float = 60

    def depths(self, legs: Sequence[str], k: int) -> dict[str, int]:
        """Return how many each leg finds: not fewer than k, unless that was asked for."""
        if isinstance(self.depth, Mapping):
            given = self.depth
        else:
            check_options(self.depth, {}, "the depth")
            given = dict.fromkeys(legs, max(self.depth, k))
        self._check_legs("depth", given, legs)
        depths = {leg: given.get(leg, max(100, k)) for leg in legs}
        for leg, depth in depths.items():
            check_options(depth, {}, f"the depth of {leg}")
        return depths

    def checked_weights(self, legs: Sequence[str]) -> dict[str, float]:
        """Return the weights; ConfigurationError if one is negative, or of no leg of the search."""
        self._check_legs("weight", self.weights, legs)
        for leg, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise ConfigurationError(f"the weight of {leg} must be a number, at least 0, not {weight}")
        return {leg: float(weight) for leg, weight in self.weights.items()}

    @staticmethod
    def _check_legs(what: str, given: Mapping[str, Any], legs: Sequence[str]) -> None:
        for leg in given:
            if leg not in legs:
                raise ConfigurationError(f"there is a {what} for {leg!r}; the legs of the search are {', '.join(legs)}")


class HybridSearcher:
    """Keyword and hybrid searches of one collection."""

    def __init__(self, database: Pool, collection: str) -> None:
        self._database = database
        self._collection = collection
        self._texts = Texts()
        self._sampling = Sampling()

    def keyword(self, query: str, k: int, chosen: Chosen) -> Hits:
        """Return the chunks with the highest BM25 (SQL: `pgvec.keyword_search`)."""
        check_options(k, {})
        filter, parameters, exclude = chosen.bound()
        values = [self._collection, query, k, filter, chosen.where_sql, parameters, exclude, chosen.k1, chosen.b]
        with self._database.connection() as connection, blamed(chosen.where_sql):
            rows = run(connection, _KEYWORD_SEARCH, values)
        return _hits(rows, lambda rank, score, terms: {KEYWORD: {"rank": rank, "score": score, "terms": terms}})

    def hybrid(self, queries: Mapping[str, Any], k: int, chosen: Chosen, fusion: Fusion) -> Hits:
        """Return the fused hits of several legs (SQL: `pgvec.hybrid_search`).

        Args:
            queries: leg to its query: a text for the keyword leg, for a space what is bound in its type.
            k: how many hits.
            chosen: what all legs search.
            fusion: how they become one.
        """
        check_options(k, {})
        legs = list(queries)
        bound = chosen.bound()
        weights = Jsonb(fusion.checked_weights(legs))
        vectors = [query for leg, query in queries.items() if leg != KEYWORD]
        # Each has a type, even if the statement does not use it.
        head = [0 if value is None else value for value in (queries.get(KEYWORD), *bound)]
        with self._database.connection() as connection:
            rows = self._texts.run(
                connection,
                _key(legs, k, chosen, fusion),
                lambda: self.text(connection, legs, k, chosen, fusion),
                [*head, weights, *vectors],
                chosen.where_sql,
            )
            if chosen.where_sql is None and chosen.recall != 1:  # 1: exact, which tells nothing of an index
                filter = None if chosen.where is None else plain(chosen.where)
                for leg in legs:
                    if leg != KEYWORD:
                        self._sampling.log(connection, leg, queries[leg], k, filter)
        return _hits(rows, lambda _, __, legs: legs)

    def text(self, connection: Connection, legs: Sequence[str], k: int, chosen: Chosen, fusion: Fusion) -> str:
        """Return the statement of a hybrid search (SQL: `pgvec.hybrid_search_sql`)."""
        filter, _, exclude = chosen.bound()
        depths = Jsonb(fusion.depths(legs, k))
        values = [self._collection, list(legs), k, filter, fusion.fusion, depths, fusion.rrf_k, chosen.where_sql]
        values += [exclude, chosen.k1, chosen.b, chosen.recall, self._collection]
        row = connection.execute(_HYBRID_SEARCH_SQL.encode(), values).fetchone()
        assert row is not None
        self._sampling.note(row[1])
        return str(row[0])

    def forget_texts(self) -> None:
        """Ask for statements anew; to be called when an index has been built, dropped or tuned."""
        self._texts.clear()


def _key(legs: Sequence[str], k: int, chosen: Chosen, fusion: Fusion) -> Hashable:
    """Return what decides the text of the statement."""
    filter = None if chosen.where is None else shape(plain(chosen.where))
    depths = tuple(fusion.depths(legs, k).items())
    shaping = (chosen.where_sql, chosen.exclude is not None, chosen.k1, chosen.b, chosen.recall)
    return k, filter, depths, fusion.fusion, fusion.rrf_k, *shaping


def _hits(rows: Sequence[Sequence[Any]], legs: Callable[[int, float, Any], dict[str, Any]]) -> Hits:
    return Hits(
        (
            Hit(id, document_id, text, metadata, None, None, score, rank, legs(rank, score, found))
            for id, document_id, text, metadata, score, rank, found, _ in rows
        ),
        rows[0][-1] if rows else "complete",
    )
