"""A collection, as Python sees it: every method is one call of the module that does the work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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
    CollectionNotFound,
    ConfigurationError,
    EmbeddingError,
    InvalidRecord,
    TuningError,
)
from pgvec_toolkit.ingest import load
from pgvec_toolkit.ingest.batch import Batch, Records, batch_of, check_vectors, cut
from pgvec_toolkit.ingest.binary import encode
from pgvec_toolkit.ingest.load import Target, Written
from pgvec_toolkit.ingest.overlap import prepared_ahead
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.schema import indexes as building
from pgvec_toolkit.schema.columns import ColumnType, column_type, sql_types
from pgvec_toolkit.search.filter import Filter, plain
from pgvec_toolkit.search.hit import Hit
from pgvec_toolkit.search.search import Options, Searcher, search_sql
from pgvec_toolkit.tune import recall as measuring
from pgvec_toolkit.tune import tuner
from pgvec_toolkit.tune.recall import Queries, Recall

if TYPE_CHECKING:
    from pgvec_toolkit.database import Connection, Database
    from pgvec_toolkit.ingest.documents import Ingested
    from pgvec_toolkit.schema.indexes import Index
    from pgvec_toolkit.tune.tuner import TuningProfile

Query = str | Sequence[float] | NDArray[Any]
ROWS_PER_BATCH = 5000


@dataclass(frozen=True)
class Space:
    """The collection's vector space, as the catalogue has it.

    Attributes:
        id: in pgvec.vector_spaces.
        collection_id: in pgvec.collections.
        schema: of both tables.
        chunk_table: key, id, document_id, position, text, metadata, typed columns, tsv.
        vector_table: key, embedding.
        dimensions: of the vectors.
        distance: by which they are compared.
        model: name of the embedding model, if any.
        model_fingerprint: what its vectors depend on, hashed.
        vector_schema: where the extension lives.
    """

    id: int
    collection_id: int
    schema: str
    chunk_table: str
    vector_table: str
    dimensions: int
    distance: Distance
    model: str | None
    model_fingerprint: str | None
    vector_schema: str


class Collection:
    """A collection of chunks that can be searched; get one from `Database.collection` or `create_collection`."""

    def __init__(self, database: Database, name: str, space: Space, embedder: Embedder | None) -> None:
        self.name = name
        self.space = space
        self._database = database
        self._embedder = embedder
        self._searcher = Searcher(database, name)

    @classmethod
    def create(
        cls,
        database: Database,
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
    def open(cls, database: Database, name: str, *, embedder: Embedder | str | None) -> Collection:
        """Open the collection; its embedder is loaded when text first has to be embedded."""
        row = database.fetch_one(
            "SELECT s.id, c.id, c.schema_name, c.table_name, s.table_name, s.dimensions, s.distance, m.name,"
            " m.fingerprint, pgvec._vector_schema()::text FROM pgvec._collection($1) c"
            " JOIN pgvec.vector_spaces s ON s.collection_id = c.id AND s.is_default"
            " LEFT JOIN pgvec.models m ON m.id = s.model_id",
            [name],
        )
        if row is None:
            raise CollectionNotFound(f"collection {name!r} has no default vector space")
        id, collection, schema, chunks, vectors, dimensions, distance, model, fingerprint, vector_schema = row
        tables = (id, collection, schema, chunks, vectors, dimensions)
        space = Space(*tables, Distance(distance), model, fingerprint, vector_schema)
        return cls(database, name, space, embedding.load(embedder) if isinstance(embedder, str) else embedder)

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, {self.space.dimensions} dimensions, {self.space.distance})"

    def __len__(self) -> int:
        table = sql.Identifier(self.space.schema, self.space.chunk_table)
        with self._database.connection() as connection:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
        assert row is not None
        return int(row[0])

    @property
    def columns(self) -> dict[str, str]:
        """The typed columns: name to SQL type."""
        rows = self._database.fetch(
            'SELECT "column"::text, type FROM pgvec._columns(pgvec._relation($1, $2))',
            [self.space.schema, self.space.chunk_table],
        )
        return dict(rows)

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
            batch_size: rows per transaction; memory is that of a few batches, whatever the number of rows.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            InvalidRecord: a row cannot be stored; nothing of its batch was, batches before it were.
        """
        written = Written()
        total = len(records) if isinstance(records, list | tuple) else None
        with (
            self._database.connection() as connection,
            progress_bar(f"loading {self.name}", total, progress) as advance,
        ):
            target = self._target()

            def prepare(rows: tuple[int, dict[str, Any]]) -> Batch:
                return encode(batch_of(*rows, self.space.dimensions, self.space.distance), target.typed)

            for batch in prepared_ahead(cut(records, batch_size), prepare):
                written.add(load.upsert(connection, target, partial(self._with_vectors, connection, batch)))
                advance(len(batch))
        return written

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
        ingestion = Ingestion(self._target(), self.embedder, self.space.distance, chunk_tokens)
        with (
            self._database.connection() as connection,
            progress_bar(f"ingesting into {self.name}", total, progress) as advance,
        ):
            return ingestion.run(connection, documents(source), advance)

    def delete(self, document_ids: Sequence[str]) -> int:
        """Delete documents; returns the number of chunks deleted (SQL: `pgvec.delete_documents`)."""
        if isinstance(document_ids, str):
            raise ConfigurationError("document_ids is a list of ids, not one text")
        row = self._database.fetch_one("SELECT pgvec.delete_documents($1, $2)", [self.name, list(document_ids)])
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

    def search_sql(self, k: int = 10, where: Filter | None = None) -> str:
        """Return the statement that `search` runs; $1 is the query vector, $2 the filter."""
        with self._database.connection() as connection:
            return search_sql(connection, self.name, plain(where) if where else None, Options(k))

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
        name = building.build(self._database, self._vector_table(), spec, concurrently=concurrently, progress=progress)
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
        method, largest = self._tunable_index()
        chosen = self._sampled_queries(sample) if queries is None else self._given_queries(queries)
        if len(chosen) < 20:
            raise TuningError(f"{len(chosen)} queries are too few to tune on: at least 20 are needed")
        with (
            progress_bar(f"tuning {self.name}", None, progress) as advance,
            self._database.connection() as connection,
        ):
            truth = self._exact_distances(chosen, k)
            profile = tuner.Tuner(connection, self.name, method, k, largest, advance).tune(chosen, truth, recall)
        tuner.store(self._database, self.space.id, profile)
        return profile

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
        filter = plain(where) if where else None
        if queries is None:
            row = self._database.fetch_one(
                "SELECT recall, recall_p5, queries_measured, short_results FROM pgvec.recall($1, $2, $3, $4)",
                [self.name, k, sample, None if filter is None else Jsonb(filter)],
            )
            if row[0] is None:
                raise TuningError(f"collection {self.name!r} holds too little to measure recall on")
            share, share_p5, count, short = row
            return Recall(share, share_p5, count, short, k)
        chosen = self._given_queries(queries)
        with self._database.connection() as connection:
            searched = measuring.nearest_sql(connection, self.name, k, filter=filter)
            found = measuring.found_distances(connection, searched, chosen, k, filter)
            if filter is None:
                return measuring.summarize(self._exact_distances(chosen, k), found, k)
            exact = measuring.nearest_sql(connection, self.name, k, filter=filter, exact=True)
            return measuring.summarize(measuring.found_distances(connection, exact, chosen, k, filter), found, k)

    # -- pieces ----------------------------------------------------------------------------------

    def _target(self) -> Target:
        typed: dict[str, ColumnType] = {name: column_type(type) for name, type in self.columns.items()}
        return Target(
            self.space.collection_id,
            sql.Identifier(self.space.schema, self.space.chunk_table),
            sql.Identifier(self.space.schema, self.space.vector_table),
            typed,
            self.space.vector_schema,
        )

    def _vector_table(self) -> building.VectorTable:
        space = self.space
        return building.VectorTable(
            space.schema, space.chunk_table, space.vector_table, space.dimensions, space.distance
        )

    def _with_vectors(self, connection: Connection, batch: Batch) -> list[Batch]:
        """Return the batch with vectors: given ones, or of its texts; rows whose text is stored keep theirs, apart."""
        if batch.vectors is not None:
            return [batch]
        texts = batch.fields.get("text", [None] * len(batch))
        stored = self._stored_texts(connection, batch.ids)
        kept, embedded = [], []
        for row, (id, text) in enumerate(zip(batch.ids, texts, strict=True)):
            digest = (
                None if not isinstance(text, str) else hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
            )
            if id in stored and stored[id] == digest:
                kept.append(row)
            elif text is None:
                raise InvalidRecord(batch.first_row + row, "vector", "is missing, and there is no text to embed")
            elif not isinstance(text, str):
                raise InvalidRecord(batch.first_row + row, "text", f"{text!r} is not a text")
            else:
                embedded.append(row)
        parts = [batch.take(kept)] if kept else []
        if embedded:
            part = batch.take(embedded)
            found = self.embedder.embed_documents(list(part.fields["text"]))
            part.vectors = embedding.checked(found, (len(part), self.space.dimensions), self.embedder)
            check_vectors(part.vectors, self.space.distance, part.rows)
            parts.append(part)
        return parts

    def _stored_texts(self, connection: Connection, ids: Sequence[str]) -> dict[str, str | None]:
        """Return the MD5 of the texts of those ids that are stored with a vector."""
        statement = sql.SQL("SELECT d.id, md5(d.text) FROM {} d JOIN {} v USING (key) WHERE d.id = ANY (%s)").format(
            sql.Identifier(self.space.schema, self.space.chunk_table),
            sql.Identifier(self.space.schema, self.space.vector_table),
        )
        return dict(connection.execute(statement, [list(ids)]).fetchall())

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
        if isinstance(queries, np.ndarray) and queries.ndim == 2 and queries.shape[1] == self.space.dimensions:
            return Queries.from_vectors(queries)
        if isinstance(queries, str) or len(queries) == 0:
            raise ConfigurationError("queries is a list of at least one text or vector")
        return Queries.from_vectors(np.stack([self._query_vector(query) for query in queries]))

    def _sampled_queries(self, count: int) -> Queries:
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT pgvec._sample_sql(%s, %s, %s)", [self.space.schema, self.space.vector_table, count]
            ).fetchone()
            assert row is not None
            rows = connection.execute(str(row[0]).encode(), binary=True).fetchall()
        if not rows:
            raise TuningError(f"collection {self.name!r} is empty: load it first")
        vectors = np.stack([vector.to_numpy() for _, vector in rows]).astype(np.float32)
        return Queries(vectors, np.asarray([key for key, _ in rows], dtype=np.int64))

    def _exact_distances(self, queries: Queries, k: int) -> NDArray[np.float32]:
        table = sql.Identifier(self.space.schema, self.space.vector_table)
        return measuring.exact_distances(self._database, table, self.space.dimensions, self.space.distance, queries, k)

    def _tunable_index(self) -> tuple[str, int]:
        """Return the method of the index that searches use, and the largest value of its setting."""
        valid = [index for index in self.indexes() if index.valid]
        if not valid:
            raise TuningError(
                f"collection {self.name!r} has no vector index to tune: searches are exact. "
                "Create one with create_index()"
            )
        index = next((index for index in valid if index.method == "hnsw"), valid[0])
        if index.method == "hnsw":
            return "hnsw", tuner.LARGEST_EF_SEARCH
        lists = dict(option.split("=") for option in index.options).get("lists", "100")
        return "ivfflat", int(lists)


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
