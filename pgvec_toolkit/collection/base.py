"""What every method of a collection builds on: its spaces, their embedders, and queries as they are bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from numpy.typing import NDArray
from psycopg import sql

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.embed.registry import embedder_of
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, EmbeddingError
from pgvec_toolkit.greenlets import outside
from pgvec_toolkit.ingest.load import Target, switched
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.schema.space import Space
from pgvec_toolkit.search.hybrid import HybridSearcher
from pgvec_toolkit.search.search import Searcher
from pgvec_toolkit.tune.queries import Queries
from pgvec_toolkit.vectors import vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Pool
    from pgvec_toolkit.rerank.base import Reranker

_LOOK_AGAIN = 30.0  # seconds, for which a swap of the model goes unnoticed by searches
_Result = TypeVar("_Result")
Query = Any  # a text, or a vector: what VectorType.query of the space takes


class CollectionBase:
    """A collection by name, and what is known of it."""

    def __init__(self, database: Pool, name: str, space: Space, embedder: Embedder | None) -> None:
        self.name = name
        self.space = space
        self._seen = time.monotonic()  # when it was known to be the default one
        self._moved = False  # whether another one was, when this was opened
        self._database = database
        self._given = {space.name: embedder}  # embedders that were handed over, by space
        self._embedders: dict[int, Embedder] = {}  # by the id of their space
        self._loading = Lock()
        self._searcher = Searcher(database, name)
        self._hybrid_searcher = HybridSearcher(database, name)
        self._spaces: dict[str, Space] = {}
        self._rerankers: dict[str, Reranker] = {}  # loaded ones, by name

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, {self.space.dimensions} dimensions, {self.space.distance})"

    def __bool__(self) -> bool:
        return True  # an empty collection is one, too

    def __len__(self) -> int:
        with self._database.connection() as connection:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(self.space.chunks)).fetchone()
        assert row is not None
        return int(row[0])

    @property
    def database(self) -> Pool:
        """The database that it is in."""
        return self._database

    @property
    def columns(self) -> dict[str, str]:
        """The typed columns: name to SQL type."""
        return self.space.columns(self._database)

    @property
    def embedder(self) -> Embedder:
        """What turns text into vectors here; checked to be the one that the stored vectors were made with."""
        return self._embedder(self.space)

    def _forget(self, space: str) -> None:
        for known in (self._spaces, self._given):
            known.pop(space, None)
        self._forget_texts()

    def _refresh(self) -> bool:
        """Look up which space is the default one; returns whether it, or what its table is called, is another."""
        found = spaces.find(self._database, self.name)
        self._seen = time.monotonic()
        if found == self.space:
            return False
        self._spaces.clear()
        self._moved = self._moved or found.id != self.space.id
        self.space = found
        self._forget_texts()
        return True

    def _lasting(self, search: Callable[[], _Result]) -> _Result:
        """Search, and once more if the space of the first attempt has been swapped for another, and dropped."""
        try:
            return search()
        except (CollectionNotFound, psycopg.errors.UndefinedTable):
            if not self._refresh():
                raise
        return search()

    @contextmanager
    def _writing(self) -> Iterator[Target]:
        """Yield where to write; SwapError if another space becomes the default one before the block ends."""
        target = self._target()
        try:
            yield target
        except psycopg.errors.UndefinedTable as error:
            if self._refresh():
                raise switched(target.space) from error
            raise

    def _forget_texts(self) -> None:
        self._searcher.forget_texts()
        self._hybrid_searcher.forget_texts()

    def _embedder(self, space: Space) -> Embedder:
        if space.id not in self._embedders:
            try:
                outside(self._load, space)
            except EmbeddingError as error:
                if not self._moved or space.name in self._given:
                    raise
                raise EmbeddingError(
                    f"{error}. The model of collection {self.name!r} was swapped for it since it was opened: if it "
                    "cannot be loaded by that name, open the collection again, with embedder=…"
                ) from error
        return self._embedders[space.id]

    def _load(self, space: Space) -> None:
        """Load the embedder of a space, unless another thread has done so meanwhile."""
        with self._loading:
            if space.id not in self._embedders:
                self._embedders[space.id] = embedder_of(space, self._given.get(space.name), self.name)

    def _check_ours(self) -> None:
        if self.space.registered:
            raise ConfigurationError(
                f"collection {self.name!r} is table {self.space.schema}.{self.space.chunk_table}, which is only read: "
                "write its rows yourself, searches see them at once. embed_space() embeds rows that have no vector"
            )

    def _target(self) -> Target:
        self._refresh()
        space = self.space
        self._check_ours()
        return Target(space, space.typed(self._database), must_be_default=True)

    def _space(self, name: str | None) -> Space:
        """Return a vector space by name, looked up once; the default one is looked up again now and then."""
        if name is None and time.monotonic() - self._seen > _LOOK_AGAIN:
            self._refresh()
        if name is None or name == self.space.name:
            return self.space
        if name not in self._spaces:
            self._spaces[name] = spaces.find(self._database, self.name, name)
        return self._spaces[name]

    def _query(self, query: Query, space: str | None = None) -> Any:
        """Return a query as it is bound, in the type of its space; a text is embedded."""
        searched = self._space(space)
        if isinstance(query, str) and searched.type != "bit":
            if not query.strip():
                raise ConfigurationError("the query is empty")
            embedder = self._embedder(searched)
            query = embedding.checked(outside(embedder.embed_query, query), (searched.dimensions,), embedder)
        return vector_type(searched.type).query(query, searched.dimensions, searched.distance)

    def _asked_queries(
        self, queries: Sequence[Query] | NDArray[Any] | str | None, space: str | None
    ) -> Queries | str | None:
        """Return queries as they are bound, or what says where to take them from (`tune.queries.choose`)."""
        if queries is None or (isinstance(queries, str) and queries == "log"):
            return queries
        if isinstance(queries, str) or len(queries) == 0:
            raise ConfigurationError(f'queries is a list of texts or vectors, at least one, or "log", not {queries!r}')
        return Queries.from_vectors([self._query(query, space) for query in queries])
