"""A collection, as Python sees it: every method is one call of the module that does the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER, Embedder
from pgvec_toolkit.embed.registry import embedder_of, register
from pgvec_toolkit.errors import (
    ConfigurationError,
    TuningError,
)
from pgvec_toolkit.ingest.batch import Records, identifier
from pgvec_toolkit.ingest.load import Target, Written
from pgvec_toolkit.ingest.records import Upsertion
from pgvec_toolkit.ingest.space_vectors import set_vectors
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.schema import indexes as building
from pgvec_toolkit.schema import promote as promoting
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.schema.columns import sql_types
from pgvec_toolkit.schema.index_specs import index_form, index_spec
from pgvec_toolkit.schema.promote import Promoted
from pgvec_toolkit.schema.space import Space
from pgvec_toolkit.search.filter import Filter, plain
from pgvec_toolkit.search.hit import Hits
from pgvec_toolkit.search.options import SearchOptions, check_options
from pgvec_toolkit.search.search import Searcher
from pgvec_toolkit.tune import recall as measuring
from pgvec_toolkit.tune import tuner
from pgvec_toolkit.tune.calibration import Calibration
from pgvec_toolkit.tune.recall import Queries, Recall
from pgvec_toolkit.vectors import vector_type

if TYPE_CHECKING:
    from pgvec_toolkit.ingest.documents import Ingested
    from pgvec_toolkit.pool import Pool
    from pgvec_toolkit.schema.indexes import Index
    from pgvec_toolkit.tune.tuner import TuningProfile

Query = Any  # a text, or a vector: what VectorType.query of the space takes
ROWS_PER_BATCH = 5000


class Collection:
    """A collection of chunks that can be searched; get one from `Database.collection` or `create_collection`."""

    def __init__(self, database: Pool, name: str, space: Space, embedder: Embedder | None) -> None:
        self.name = name
        self.space = space
        self._database = database
        self._embedder = embedder
        self._searcher = Searcher(database, name)
        self._spaces: dict[str, Space] = {}

    @classmethod
    def create(
        cls,
        database: Pool,
        name: str,
        *,
        embedder: Embedder | str | None,
        dimensions: int | None,
        type: str | None,
        distance: str | None,
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
        if loaded is not None and type not in (None, "vector", "halfvec"):
            raise ConfigurationError(
                f"embedder {loaded.name} makes vectors of numbers: type is vector or halfvec, not {type}"
            )
        with database.connection() as connection, connection.transaction():
            connection.execute(
                "SELECT pgvec.create_collection(%s, %s::integer, distance => %s, columns => %s, language => %s, "
                "schema => %s, model_id => %s::integer, type => %s)",
                [
                    name,
                    loaded.dimensions if loaded is not None else dimensions,
                    distance,
                    Jsonb(sql_types(columns)),
                    language,
                    schema,
                    None if loaded is None else register(connection, loaded),
                    type,
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
        return embedder_of(self.space, self._embedder, self.name)

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

    def promote(self, key: str, type: object, *, progress: bool | None = None) -> Promoted:
        """Make a metadata key a typed, indexed column while searches and loads go on; killed, call it again.

        The key stays in the metadata, which loads go on writing; the column follows. Values that cannot be
        read as the type stay there only, and are counted.

        Args:
            key: of the metadata; the column gets its name.
            type: str, int, float, bool, datetime.date, datetime.datetime, list[str], or a SQL name.
            progress: whether to show a bar; None: on a terminal.
        """
        promoted = promoting.promote(self._database, self.name, self.space, key, type, progress=progress)
        self._searcher.forget_texts()
        return promoted

    # -- vector spaces ---------------------------------------------------------------------------

    def add_space(self, name: str, *, dimensions: int, type: str | None = None, distance: str | None = None) -> None:
        """Add a vector space: further vectors of the same chunks (SQL: `pgvec.add_space`); fill it by `set_vectors`."""
        self._database.fetch(
            "SELECT pgvec.add_space($1, $2, $3::integer, $4, $5)", [self.name, name, dimensions, type, distance]
        )
        self._forget(name)

    def drop_space(self, name: str) -> None:
        """Drop a vector space that was added, with its vectors (SQL: `pgvec.drop_space`)."""
        self._database.fetch("SELECT pgvec.drop_space($1, $2)", [self.name, name])
        self._forget(name)

    def set_vectors(self, space: str, ids: Sequence[str | int], vectors: Any) -> int:
        """Write the vectors of stored chunks in a named space, in one transaction; return how many are new or differ.

        Args:
            space: its name.
            ids: of chunks that are stored.
            vectors: one for each, as `upsert` takes them.
        """
        with self._database.connection() as connection:
            return set_vectors(connection, Target(self._space(space), {}), ids, vectors)

    # -- searching -------------------------------------------------------------------------------

    def search(self, query: Query, k: int = 10, where: Filter | None = None, **options: Unpack[SearchOptions]) -> Hits:
        """Return the k nearest chunks, nearest first (SQL: `pgvec.search`).

        Args:
            query: a text, or a vector of shape (dimensions,); of the space's type.
            k: how many; as many come back unless fewer match.
            where: a filter, as {"section": "security", "year": {"$gte": 2020}}.
            **options: see `SearchOptions`.
        """
        return self._searcher.search(self._query(query, options.get("space")), k, where, options)

    def search_many(
        self,
        queries: Sequence[Query] | NDArray[Any],
        k: int = 10,
        where: Filter | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[Hits]:
        """Return the hits of each query, all in one round trip (SQL: `pgvec.search_many`)."""
        space = options.get("space")
        return self._searcher.search_many([self._query(query, space) for query in queries], k, where, options)

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
        tokens: Any,
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
            tokens: the query's vectors, of shape (tokens, dimensions of the space).
            k: how many hits.
            where: a filter of the first search.
            space: of type vector[], whose vectors rescore.
            candidates: how many are rescored; None: ten times k, at least 100.
            first_space: the space of the first search; None: the default one.
        """
        several = vector_type("vector[]").query(tokens, self._space(space).dimensions, self._space(space).distance)
        return self._searcher.maxsim(self._query(query, first_space), several, k, where, space, candidates, first_space)

    def explain(self, query: Query, k: int = 10, where: Filter | None = None, **options: Unpack[SearchOptions]) -> str:
        """Run a search and return its plan, and which way it went and why (SQL: `pgvec.explain`)."""
        return self._searcher.explain(self._query(query, options.get("space")), k, where, options)

    def search_sql(self, k: int = 10, where: Filter | None = None, **options: Unpack[SearchOptions]) -> str:
        """Return the statement that `search` runs; its parameters are told by `pgvec.search_sql`."""
        with self._database.connection() as connection:
            return self._searcher.text(connection, k, None if where is None else plain(where), options)

    # -- indexes and recall ----------------------------------------------------------------------

    def create_index(
        self,
        method: str = "hnsw",
        *,
        form: str | None = None,
        prefix: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        space: str | None = None,
        concurrently: bool = False,
        progress: bool | None = None,
    ) -> str:
        """Build a vector index and bring statistics up to date; returns the index's name.

        Args:
            method: hnsw, or ivfflat (build that one when the rows are there).
            form: full; halfvec (half precision, half the size); binary (a bit a dimension); prefix (of leading
                dimensions). Of all but the first, searches rescore candidates by the whole vectors. None: full, as
                far as an index can hold the dimensions, else halfvec, else binary.
            prefix: how many leading dimensions form prefix indexes.
            m: hnsw: links per node; default 16.
            ef_construction: hnsw: candidates kept while building; default 64.
            lists: ivfflat: clusters; default rows / 1000 up to a million rows, their square root beyond.
            space: the vector space; None: the default one.
            concurrently: let others write meanwhile; takes longer.
            progress: whether to show a bar; None: on a terminal.
        """
        spec = index_spec(method, m=m, ef_construction=ef_construction, lists=lists)
        built = self._space(space)
        chosen = index_form(built, form, prefix)
        name = building.build(self._database, built, spec, chosen, concurrently=concurrently, progress=progress)
        self._searcher.forget_texts()
        return name

    def indexes(self, *, space: str | None = None) -> list[Index]:
        """Return the vector indexes of a space (SQL: `pgvec.indexes`)."""
        rows = self._database.fetch(
            "SELECT index_name, method, form, dimensions, options, valid, usable, bytes FROM pgvec.indexes($1, $2)",
            [self.name, space],
        )
        return [building.Index(*row) for row in rows]

    def drop_index(self, name: str | None = None, *, space: str | None = None) -> list[str]:
        """Drop a vector index by name, or all of a space; returns the names of those dropped."""
        there = [index.name for index in self.indexes(space=space)]
        if name is not None and name not in there:
            raise ConfigurationError(f"collection {self.name!r} has no vector index {name!r}; it has {there or 'none'}")
        dropped = there if name is None else [name]
        owner = self._space(space)
        with self._database.connection() as connection:
            for each in dropped:
                connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(owner.schema, each)))
            building.forget_profiles(connection, owner)
        self._searcher.forget_texts()
        return dropped

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
        self._searcher.forget_texts()
        return profile

    def calibrate(self, *, space: str | None = None) -> Calibration:
        """Measure what searches cost on this server, for filtered ones to weigh by (SQL: `pgvec.calibrate`)."""
        row = self._database.fetch_one("SELECT * FROM pgvec.calibrate($1, $2)", [self.name, space])
        self._searcher.forget_texts()
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

    def _forget(self, space: str) -> None:
        self._spaces.pop(space, None)
        self._searcher.forget_texts()

    # -- pieces ----------------------------------------------------------------------------------

    def _target(self) -> Target:
        return Target(self.space, self.space.typed(self._database))

    def _space(self, name: str | None) -> Space:
        """Return a vector space by name, looked up once."""
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
            if searched is not self.space:
                raise ConfigurationError(f"a text cannot be embedded for vector space {space!r}: give a vector")
            query = embedding.checked(self.embedder.embed_query(query), (searched.dimensions,), self.embedder)
        return vector_type(searched.type).query(query, searched.dimensions, searched.distance)

    def _given_queries(self, queries: Sequence[Query] | NDArray[Any], space: str | None) -> Queries:
        if isinstance(queries, str) or len(queries) == 0:
            raise ConfigurationError("queries is a list of at least one text or vector")
        return Queries.from_vectors([self._query(query, space) for query in queries])
