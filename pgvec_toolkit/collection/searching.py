"""What is asked of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import NDArray

from pgvec_toolkit.collection.base import CollectionBase, Query
from pgvec_toolkit.embed.base import with_terms
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.greenlets import outside
from pgvec_toolkit.search.filter import Filter, plain
from pgvec_toolkit.search.hit import Hits
from pgvec_toolkit.search.hybrid import KEYWORD, Chosen, Fusion
from pgvec_toolkit.search.options import HybridOptions, KeywordOptions, SearchOptions, check_options
from pgvec_toolkit.vectors import vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.rerank.base import Reranker
    from pgvec_toolkit.rerank.spec import Rerank
    from pgvec_toolkit.schema.space import Space

    RerankStage = Rerank | Reranker | Callable[[str, Sequence[str]], Sequence[float]] | str


class Searching(CollectionBase):
    """Methods that search."""

    def search(
        self,
        query: Query,
        k: int = 10,
        where: Filter | None = None,
        *,
        rerank: RerankStage | None = None,
        **options: Unpack[SearchOptions],
    ) -> Hits:
        """Return the k nearest chunks, nearest first (SQL: `pgvec.search`).

        Args:
            query: a text, or a vector of shape (dimensions,); of the space's type.
            k: how many; as many come back unless fewer match.
            where: a filter, as {"section": "security", "year": {"$gte": 2020}}.
            rerank: what orders the hits anew, by their texts: the name of a cross-encoder, a URL, a function
                (query, texts) -> scores; or a `Rerank`, which also says of how many hits, and in which time.
            **options: see `SearchOptions`.
        """
        if rerank is not None and not (options.get("group_by") is None and options.get("diversity") is None):
            raise ConfigurationError("a reranker orders chunks by their texts alone: leave group_by and diversity out")

        def search() -> Hits:
            space, named = self._named(options)
            bound = self._query(query, space.name)
            if rerank is None:
                return self._searcher.search(bound, k, where, named)
            read = None if space.type == "bit" else query  # a text of bits is a vector
            return self._reranked(read, k, rerank, lambda depth: self._searcher.search(bound, depth, where, named))

        return self._lasting(search)

    def keyword_search(
        self,
        query: str,
        k: int = 10,
        where: Filter | None = None,
        *,
        rerank: RerankStage | None = None,
        **options: Unpack[KeywordOptions],
    ) -> Hits:
        """Return the k chunks with the highest BM25, exactly (SQL: `pgvec.keyword_search`).

        Args:
            query: words, any of which count; "a phrase" and +word must be there, -word and -"a phrase" must not.
            k: how many; as many come back unless fewer match.
            where: a filter.
            rerank: as in `search`.
            **options: see `KeywordOptions`.
        """
        chosen = Chosen(where, **options)

        def find(depth: int) -> Hits:
            return self._hybrid_searcher.keyword(_text(query), depth, chosen)

        return find(k) if rerank is None else self._reranked(query, k, rerank, find)

    def hybrid_search(
        self,
        query: str,
        k: int = 10,
        where: Filter | None = None,
        *,
        legs: Sequence[str] | None = None,
        queries: Mapping[str, Query] | None = None,
        fusion: str = "relative",
        weights: Mapping[str, float] | None = None,
        depth: int | Mapping[str, int] = 100,
        rrf_k: float = 60,
        rerank: RerankStage | None = None,
        **options: Unpack[HybridOptions],
    ) -> Hits:
        """Return the k chunks that several searches agree on, by one statement (SQL: `pgvec.hybrid_search`).

        Args:
            query: a text: for the keyword leg, and embedded for vector spaces. Phrases, + and - bind the former only.
            k: how many; as many come back unless fewer are found.
            where: a filter, of every leg.
            legs: "keyword", and names of vector spaces; None: keyword, the default space, and those of `queries`.
            queries: leg to another query than that text: a vector, or words.
            fusion: "relative", scores from 0, the leg's lowest, to 1, its highest; "dbsf", scores on the scale of three
                standard deviations around their mean; "rrf", 1 / (rrf_k + rank); "weighted", scores as they are.
            weights: leg to weight, 1 where there is none; `fit_weights` finds good ones.
            depth: how many chunks each leg finds; or leg to how many.
            rrf_k: of "rrf".
            rerank: as in `search`.
            **options: see `HybridOptions`.

        Each hit says in `legs` where each leg had it, and what that contributed to its score.
        """
        chosen = Chosen(where, **options)
        fused = Fusion(fusion, weights or {}, depth, rrf_k)

        def search() -> Hits:
            bound = self._leg_queries(query, legs, queries or {})

            def find(depth: int) -> Hits:
                return self._hybrid_searcher.hybrid(bound, depth, chosen, fused)

            return find(k) if rerank is None else self._reranked(query, k, rerank, find)

        return self._lasting(search)

    def search_many(
        self,
        queries: Sequence[Query] | NDArray[Any],
        k: int = 10,
        where: Filter | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[Hits]:
        """Return the hits of each query, all in one round trip (SQL: `pgvec.search_many`)."""

        def search() -> list[Hits]:
            space, named = self._named(options)
            return self._searcher.search_many([self._query(query, space.name) for query in queries], k, where, named)

        return self._lasting(search)

    def similar(
        self,
        ids: str | Sequence[str],
        k: int = 10,
        where: Filter | None = None,
        *,
        unlike: str | Sequence[str] = (),
        **options: Unpack[SearchOptions],
    ) -> Hits:
        """Return chunks like some that are stored, and unlike others; not these themselves (SQL: `pgvec.similar`)."""
        like, other = ([each] if isinstance(each, str) else list(each) for each in (ids, unlike))
        return self._searcher.similar(like, other, k, where, options)

    def pages(
        self, query: Query, k: int = 10, where: Filter | None = None, **options: Unpack[SearchOptions]
    ) -> Iterator[Hits]:
        """Yield pages of k hits until no more match: none twice, none left out.

        Each page excludes the ids of those before. A page of a (distance, id) cursor would lack what an
        approximate scan overlooked on the pages before; this brings it late, but brings it.
        """
        check_options(k, options)
        if options.get("group_by") is not None:
            raise ConfigurationError("pages are of chunks, not of groups: leave group_by out")
        seen = list(options.get("exclude") or ())
        options["exclude"] = seen
        while True:
            page = self.search(query, k, where, **options)
            if page:
                yield page
            if len(page) < k:
                if page.stopped_by != "threshold":
                    return
                options["exact"] = True  # what the index overlooked within the threshold
            seen.extend(hit.id for hit in page)

    def maxsim(
        self,
        query: Query,
        tokens: Any = None,
        k: int = 10,
        where: Filter | None = None,
        *,
        space: str,
        candidates: int | None = None,
        first_space: str | None = None,
    ) -> Hits:
        """Search by late interaction: candidates of a first search, rescored (SQL: `pgvec.maxsim_search`).

        Args:
            query: for the first search: a text, or a vector.
            tokens: the query's vectors, of shape (tokens, dimensions of the space), or a text that the space's embedder
                makes them of; None: the query's text.
            k: how many hits.
            where: a filter of the first search.
            space: of type vector[], whose vectors rescore.
            candidates: how many are rescored; None: ten times k, at least 100.
            first_space: the space of the first search; None: the default one.
        """
        several = (
            self._query(query, space)
            if tokens is None
            else vector_type("vector[]").query(tokens, self._space(space).dimensions, self._space(space).distance)
        )

        def search() -> Hits:
            first = self._space(first_space).name
            return self._searcher.maxsim(self._query(query, first), several, k, where, space, candidates, first)

        return self._lasting(search)

    def explain(self, query: Query, k: int = 10, where: Filter | None = None, **options: Unpack[SearchOptions]) -> str:
        """Run a search and return its plan, and which way it went and why (SQL: `pgvec.explain`).

        Of a search by a sparse encoder, the words by which the first hits match.
        """

        def search() -> str:
            space, named = self._named(options)
            shown = self._searcher.explain(self._query(query, space.name), k, where, named)
            embedder = self._embedders.get(space.id)  # it is there if it has embedded the query
            return shown if embedder is None else with_terms(shown, embedder, space.dimensions)

        return self._lasting(search)

    def search_sql(self, k: int = 10, where: Filter | None = None, **options: Unpack[SearchOptions]) -> str:
        """Return the statement that `search` runs; its parameters are told by `pgvec.search_sql`."""
        with self._database.connection() as connection:
            return self._searcher.text(connection, k, None if where is None else plain(where), options)

    def hybrid_search_sql(
        self,
        k: int = 10,
        where: Filter | None = None,
        *,
        legs: Sequence[str] | None = None,
        fusion: str = "relative",
        depth: int | Mapping[str, int] = 100,
        rrf_k: float = 60,
        **options: Unpack[HybridOptions],
    ) -> str:
        """Return the statement that `hybrid_search` runs; its parameters are told by `pgvec.hybrid_search_sql`."""
        named = list(legs or (self._space(None).name, KEYWORD))
        fused = Fusion(fusion, {}, depth, rrf_k)
        with self._database.connection() as connection:
            return self._hybrid_searcher.text(connection, named, k, Chosen(where, **options), fused)

    def _named(self, options: SearchOptions) -> tuple[Space, SearchOptions]:
        """Return the space that is searched, and options that name it: the query is for that one, whatever happens."""
        space = self._space(options.get("space"))
        named = options.copy()
        named["space"] = space.name
        return space, named

    def _leg_queries(self, query: str, legs: Sequence[str] | None, queries: Mapping[str, Query]) -> dict[str, Any]:
        """Return leg to its query, as it is bound."""
        if isinstance(legs, str):
            raise ConfigurationError("legs is a list of names, not one text")
        default = self._space(None).name
        named = dict.fromkeys((default, KEYWORD, *queries)) if legs is None else dict.fromkeys(legs)
        if not named:
            raise ConfigurationError("a hybrid search needs a leg: keyword, or the name of a vector space")
        unused = queries.keys() - named.keys()
        if unused:
            raise ConfigurationError(f"there is a query for {sorted(unused)[0]!r}, which is not among the legs")
        return {
            leg: _text(queries.get(leg, query)) if leg == KEYWORD else self._query(queries.get(leg, query), leg)
            for leg in named
        }

    def _reranked(self, query: Query, k: int, stage: RerankStage, find: Callable[[int], Hits]) -> Hits:
        from pgvec_toolkit.rerank.spec import Rerank

        given = stage if isinstance(stage, Rerank) else Rerank(stage)
        if not isinstance(query, str):
            raise ConfigurationError("a reranker reads the query: give it as a text, and search by that")
        check_options(k, {})
        return outside(given.rerank, query, find(given.candidates(k)), k, self._rerankers)


def _text(query: Query) -> str:
    if not isinstance(query, str):
        raise ConfigurationError(f"the query of the keyword leg is a text, not {type(query).__name__}")
    if not query.strip():
        raise ConfigurationError("the query is empty")
    return query
