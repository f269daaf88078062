"""A collection, as Python sees it: every method is one call of the module that does the work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER, Embedder
from pgvec_toolkit.errors import (
    ConfigurationError,
    EmbeddingError,
    TuningError,
)
from pgvec_toolkit.ingest.batch import Records, identifier
from pgvec_toolkit.ingest.load import Target, Written
from pgvec_toolkit.ingest.records import Upsertion
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.schema import indexes as building
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.schema.columns import sql_types
from pgvec_toolkit.schema.space import Space
from pgvec_toolkit.search.filter import Filter, plain
from pgvec_toolkit.search.hit import Hit
from pgvec_toolkit.search.search import Options, Searcher, search_sql
from pgvec_toolkit.tune import recall as measuring
from pgvec_toolkit.tune import tuner
from pgvec_toolkit.tune.recall import Queries, Recall

if TYPE_CHECKING:
    from pgvec_toolkit.ingest.documents import Ingested
    from pgvec_toolkit.pool import Pool
    from pgvec_toolkit.schema.indexes import Index
    from pgvec_toolkit.tune.tuner import TuningProfile

Query = str | Sequence[float] | NDArray[Any]
ROWS_PER_BATCH = 5000


class Collection:
    """A collection of chunks that can be searched; get one from `Database.collection` or `create_collection`."""

    def __init__(self, database: Pool, name: str, space: Space, embedder: Embedder | None) -> None:
        self.name = name
        self.space = space
        self._database = database
        self._embedder = embedder
        self._searcher = Searcher(database, name)

    @classmethod
    def create(
        cls,
        database: Pool,
        name: str,
        *,
        embedder: Embedder | str | None,
        dimensions: int | None,
        distance: str,
        columns: Mapping[str, Any],
        language: str,
        schema: str,
    ) -> Collection:
        """Create the collection and its tables, in one transaction with the registration of its model."""
        if embedder is None and dimensions is None:
            embedder = DEFAULT_EMBEDDER
        loaded = embedding.load(embedder) if isinstance(embedder, str) else embedder
        if loaded is not None and dimensions is not None and loaded.dimensions != dimensions:
            raise ConfigurationError(
                f"embedder {loaded.name} makes {loaded.dimensions} dimensions, not {dimensions}: leave dimensions out"
            )
        with database.connection() as connection, connection.transaction():
            connection.execute(
                "SELECT pgvec.create_collection(%s, %s::integer, distance => %s, columns => %s, language => %s, "
                "schema => %s, model_id => %s::integer)",
                [
                    name,
                    loaded.dimensions if loaded is not None else dimensions,
                    distance,
                    Jsonb(sql_types(columns)),
                    language,
                    schema,
                    None if loaded is None else _register(connection, loaded),
                ],
            )
        return cls.open(database, name, embedder=loaded)

    @classmethod
    def open(cls, database: Pool, name: str, *, embedder: Embedder | str | None) -> Collection:
        """Open the collection; its embedder is loaded when text first has to be embedded."""
        space = spaces.find(database, name)
        return cls(database, name, space, embedding.load(embedder) if isinstance(embedder, str) else embedder)

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
    def columns(self) -> dict[str, str]:
        """The typed columns: name to SQL type."""
        return self.space.columns(self._database)

    @cached_property
    def embedder(self) -> Embedder:
        """What turns text into vectors here; checked to be the one that the stored vectors were made with."""
        if self._embedder is None and self.space.model is None:
            raise EmbeddingError(
                f"collection {self.name!r} was created without an embedder: give vectors, or open it with embedder=…"
            )
        embedder = self._embedder or embedding.load(str(self.space.model))
        if self.space.model_fingerprint not in (None, embedding.fingerprint(embedder)):
            raise EmbeddingError(
                f"collection {self.name!r} holds vectors of {self.space.model}; embedder {embedder.name} has another "
                "fingerprint (other weights, prompts or truncation), so its vectors cannot be compared with them"
            )
        if embedder.dimensions != self.space.dimensions:
            raise EmbeddingError(
                f"embedder {embedder.name} makes {embedder.dimensions} dimensions, "
                f"the collection has {self.space.dimensions}"
            )
        return embedder

    # -- writing ---------------------------------------------------------------------------------

    def upsert(self, records: Records, *, batch_size: int = ROWS_PER_BATCH, progress: bool | None = None) -> Written:
        """Insert records, or replace those whose id is known; each batch is one transaction.

        Args:
            records: an iterable of mappings, a mapping of columns (`vector` may be an array of shape
                (n, dimensions)), a pyarrow Table or a DataFrame. Fields: `id`; `text` or `vector` or both;
                optionally `document_id`, `position`, `metadata`; the typed columns; all else is metadata.
                Text without a vector is embedded, unless it is stored already.
            batch_size: rows per transaction; texts to be embedded are committed 500 at a time. Memory is that of
                a few batches, whatever the number of rows.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            InvalidRecord: a row cannot be stored; nothing of its batch was written, those before it were.
        """
        upsertion = Upsertion(self._target(), lambda: self.embedder, batch_size)
        total = len(records) if isinstance(records, list | tuple) else None
        with (
            self._database.connection() as connection,
            progress_bar(f"loading {self.name}", total, progress) as advance,
        ):
            return upsertion.run(connection, records, advance)

    def ingest(
        self,
        source: str | Path | Iterable[Mapping[str, Any]],
        *,
        chunk_tokens: int | None = None,
        progress: bool | None = None,
    ) -> Ingested:
        """Ingest documents: read, cut into chunks, embed, write; unchanged ones are skipped, changed ones replaced.

        Args:
            source: a .txt, .md or .jsonl file, a folder of them, or records with `id` and `text`. Front matter and
                other fields of a record become typed columns and metadata of each chunk.
            chunk_tokens: largest chunk, in tokens of the embedder; None: all that it reads at once.
            progress: whether to show a bar; None: on a terminal.

        Interrupt it, or kill it: each document is in the collection wholly or not at all, and running it
        again does the rest.
        """
        from pgvec_toolkit.ingest.documents import Ingestion
        from pgvec_toolkit.ingest.read import documents, files

        total = None
        if isinstance(source, str | Path):
            found = files(Path(source))
            total = None if any(path.suffix == ".jsonl" for path, _ in found) else len(found)
        ingestion = Ingestion(self._target(), self.embedder, chunk_tokens)
        with (
            self._database.connection() as connection,
            progress_bar(f"ingesting into {self.name}", total, progress) as advance,
        ):
            return ingestion.run(connection, documents(source), advance)

    def delete(self, document_ids: Sequence[str | int]) -> int:
        """Delete documents; returns the number of chunks deleted (SQL: `pgvec.delete_documents`)."""
        if isinstance(document_ids, str):
            raise ConfigurationError("document_ids is a list of ids, not one text")
        ids = [identifier(id, row) for row, id in enumerate(document_ids)]
        row = self._database.fetch_one("SELECT pgvec.delete_documents($1, $2::text[])", [self.name, ids])
        return int(row[0])

    # -- searching -------------------------------------------------------------------------------

    def search(
        self,
        query: Query,
        k: int = 10,
        where: Filter | None = None,
        *,
        ef_search: int | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Return the k nearest chunks, nearest first (SQL: `pgvec.search`).

        Args:
            query: a text, or a vector of shape (dimensions,).
            k: how many; as many come back unless fewer match.
            where: a filter, as {"section": "security", "year": {"$gte": 2020}}.
            ef_search: override the tuned setting of the index (probes, for IVFFlat).
            exact: use no index.
        """
        return self._searcher.search(self._query_vector(query), where, Options(k, None, ef_search, exact))

    def search_sql(
        self, k: int = 10, where: Filter | None = None, *, ef_search: int | None = None, exact: bool = False
    ) -> str:
        """Return the statement that `search` runs; $1 is the query vector, $2 the filter."""
        options = Options(k, None, ef_search, exact)
        with self._database.connection() as connection:
            return search_sql(connection, self.name, None if where is None else plain(where), options)

    # -- indexes and recall ----------------------------------------------------------------------

    def create_index(
        self,
        method: str = "hnsw",
        *,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        concurrently: bool = False,
        progress: bool | None = None,
    ) -> str:
        """Build a vector index and bring statistics up to date; returns the index's name.

        Args:
            method: hnsw, or ivfflat (build that one when the rows are there).
            m: hnsw: links per node; default 16.
            ef_construction: hnsw: candidates kept while building; default 64.
            lists: ivfflat: clusters; default rows / 1000 up to a million rows, their square root beyond.
            concurrently: let others write meanwhile; takes longer.
            progress: whether to show a bar; None: on a terminal.
        """
        spec = building.index_spec(method, m=m, ef_construction=ef_construction, lists=lists)
        name = building.build(self._database, self.space, spec, concurrently=concurrently, progress=progress)
        self._searcher.forget_texts()
        return name

    def indexes(self) -> list[Index]:
        """Return the vector indexes (SQL: `pgvec.indexes`)."""
        rows = self._database.fetch(
            "SELECT index_name, method, options, valid, bytes FROM pgvec.indexes($1)", [self.name]
        )
        return [building.Index(*row) for row in rows]

    def drop_index(self, name: str | None = None) -> list[str]:
        """Drop a vector index by name, or all of them; returns the names of those dropped."""
        there = [index.name for index in self.indexes()]
        if name is not None and name not in there:
            raise ConfigurationError(f"collection {self.name!r} has no vector index {name!r}; it has {there or 'none'}")
        dropped = there if name is None else [name]
        with self._database.connection() as connection:
            for each in dropped:
                connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(self.space.schema, each)))
            building.forget_profiles(connection, self.space)
        self._searcher.forget_texts()
        return dropped

    def tune(
        self,
        recall: float = 0.95,
        *,
        k: int = 10,
        queries: Sequence[Query] | NDArray[Any] | None = None,
        sample: int = 500,
        progress: bool | None = None,
    ) -> TuningProfile:
        """Find the cheapest setting of the index that reaches a recall, and have every search use it.

        Args:
            recall: the target, of recall@k.
            k: the number of neighbours that searches will ask for.
            queries: what users ask: texts, or vectors of shape (n, dimensions), at least 20. None: stored
                rows drawn at random, which are easier than real queries.
            sample: how many stored rows to draw.
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
        indexes = self.indexes()
        given = None if queries is None else self._given_queries(queries)
        with (
            progress_bar(f"tuning {self.name}", None, progress) as advance,
            self._database.connection() as connection,
        ):
            chosen = measuring.sampled(connection, self.space, sample) if given is None else given
            return tuner.tune(connection, self.name, self.space, indexes, chosen, k, recall, advance)

    def recall(
        self,
        *,
        k: int = 10,
        queries: Sequence[Query] | NDArray[Any] | None = None,
        sample: int = 100,
        where: Filter | None = None,
    ) -> Recall:
        """Measure the recall that searches get now (SQL: `pgvec.recall`).

        Args:
            k: of recall@k.
            queries: texts, or vectors of shape (n, dimensions); None: stored rows drawn at random.
            sample: how many stored rows to draw.
            where: a filter that the searches have.
        """
        filter = None if where is None else plain(where)
        given = None if queries is None else self._given_queries(queries)
        with self._database.connection() as connection:
            if given is None:
                return measuring.measure_sample(connection, self.name, sample, k, filter)
            return measuring.measure(connection, self.name, self.space, given, k, filter)

    # -- pieces ----------------------------------------------------------------------------------

    def _target(self) -> Target:
        return Target(self.space, self.space.typed(self._database))

    def _query_vector(self, query: Query) -> NDArray[np.float32]:
        dimensions = self.space.dimensions
        if isinstance(query, str):
            if not query.strip():
                raise ConfigurationError("the query is empty")
            return embedding.checked(self.embedder.embed_query(query), (dimensions,), self.embedder)
        vector = np.asarray(query, dtype=np.float32)
        if vector.shape != (dimensions,):
            raise ConfigurationError(f"a query vector has shape ({dimensions},) here, not {vector.shape}")
        if not np.isfinite(vector).all():
            raise ConfigurationError("the query vector contains NaN or infinity")
        if self.space.distance is Distance.COSINE and not vector.any():
            raise ConfigurationError("the query vector is zero: it has no direction to compare")
        return vector

    def _given_queries(self, queries: Sequence[Query] | NDArray[Any]) -> Queries:
        if isinstance(queries, str) or len(queries) == 0:
            raise ConfigurationError("queries is a list of at least one text or vector")
        return Queries.from_vectors(np.stack([self._query_vector(query) for query in queries]))


def _register(connection: psycopg.Connection[Any], embedder: Embedder) -> int:
    """Return the id of the embedder's model in the registry, entered if it is new."""
    row = connection.execute(
        "INSERT INTO pgvec.models (name, fingerprint, dimensions, max_tokens, details) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name RETURNING id",
        [
            embedder.name,
            embedding.fingerprint(embedder),
            embedder.dimensions,
            embedding.max_tokens(embedder),
            Jsonb(getattr(embedder, "details", {})),
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])
