"""A PostgreSQL with pgvec in it: connecting, migrating, and its collections."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgvec_toolkit.errors import ConfigurationError, NotMigrated
from pgvec_toolkit.pool import translated_errors
from pgvec_toolkit.registering import Registering
from pgvec_toolkit.schema import migrate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from pgvec_toolkit.collection import Collection
    from pgvec_toolkit.embed.base import Embedder
    from pgvec_toolkit.embed.registry import RegisteredModel
    from pgvec_toolkit.pool_options import PoolOptions
    from pgvec_toolkit.watch.doctor import Finding, Mended
    from pgvec_toolkit.worker.attachment import Lag
    from pgvec_toolkit.worker.follower import Worked


class Database(Registering):
    """A PostgreSQL with pgvec in it. Safe to share between threads; close it, or use it as a context manager."""

    def migrate(self) -> None:
        """Bring schema `pgvec` to this library's version. Idempotent; any number of processes may do it at once."""
        with translated_errors():
            migrate.upgrade(self.dsn)
        self.drain()

    def check_migrated(self) -> None:
        """Raise NotMigrated unless schema `pgvec` is of this library's version."""
        with self.connection() as connection:
            migrate.check(connection)
        _ = self.capabilities  # raises UnsupportedFeature if the extension is too old

    def create_collection(
        self,
        name: str,
        *,
        embedder: Embedder | str | None = None,
        dimensions: int | None = None,
        type: str | None = None,
        distance: str | None = None,
        columns: Mapping[str, object] | None = None,
        language: str = "english",
        schema: str = "public",
        keywords: bool = True,
    ) -> Collection:
        """Create a collection (SQL: `pgvec.create_collection`).

        Args:
            name: lower-case letters, digits and underscores; it names the chunk table, too.
            embedder: turns text into vectors: an Embedder, or the spec of one, such as "ollama:nomic-embed-text" (see
                docs/ingestion.md). With neither this nor `dimensions` it is the default,
                sentence-transformers/all-MiniLM-L6-v2.
            dimensions: length of the vectors, when you bring your own and there is no embedder.
            type: vector, halfvec, bit, sparsevec or vector[] (several vectors a chunk). None: what an index can hold:
                vector up to 2,000 dimensions, halfvec up to 4,000, beyond that vector with a binary index.
            distance: cosine (the default), l2, inner_product or l1; for bit hamming (the default) or jaccard.
            columns: typed columns, as {"section": str, "year": int}; types are str, int, float, bool,
                datetime.date, datetime.datetime, list[str], or their SQL names. Other fields of a
                record go to `metadata`, and can be filtered on as well.
            language: text search configuration by which texts become words; "simple" takes them as they are.
            schema: where the tables are created.
            keywords: whether it gets a keyword index, for keyword and hybrid searches.
        """
        from pgvec_toolkit.collection import Collection  # brings numpy, which connecting can do without

        return Collection.create(
            self,
            name,
            embedder=embedder,
            dimensions=dimensions,
            type=type,
            distance=distance,
            columns=columns or {},
            language=language,
            schema=schema,
            keywords=keywords,
        )

    def collection(self, name: str, *, embedder: Embedder | str | None = None) -> Collection:
        """Open a collection; `embedder` is needed only if its own cannot be loaded by name."""
        from pgvec_toolkit.collection import Collection

        return Collection.open(self, name, embedder=embedder)

    def collections(self) -> list[str]:
        """Return the names of all collections."""
        return [name for (name,) in self.fetch("SELECT name FROM pgvec.collections ORDER BY name")]

    def models(self) -> list[RegisteredModel]:
        """Return the embedding models that vector spaces have or had (SQL: table `pgvec.models`)."""
        from pgvec_toolkit.embed import registry

        return registry.models(self)

    def attach(
        self,
        relation: str,
        text: str,
        *,
        collection: str | None = None,
        columns: Sequence[str] = (),
        embedder: Embedder | str | None = None,
        chunking: Mapping[str, object] | None = None,
        type: str | None = None,
        distance: str | None = None,
        language: str = "english",
        schema: str | None = None,
    ) -> Collection:
        """Make the rows of a table the documents of a collection, and keep them so (SQL: `pgvec.attach`).

        Triggers note what changes; `work`, or `pgvec worker`, embeds it. Called again it changes these.

        Args:
            relation: the table, one of the caller's own with a primary key, which names the documents.
            text: what is searched, an SQL expression over a row; a row where it is NULL is not found.
            collection: its name, <relation>_search unless told; created if there is none.
            columns: of the table, copied to be filtered by; where only these change, nothing is embedded.
            embedder: as `create_collection` takes it.
            chunking: how texts are cut: {"chunk_tokens": 200}, and "format": "markdown".
            type: of the vectors, as `create_collection` takes it.
            distance: as `create_collection` takes it.
            language: text search configuration of the collection.
            schema: where the collection's tables are created; None: beside the table.
        """
        from pgvec_toolkit.collection import Collection
        from pgvec_toolkit.worker import attachment

        name = attachment.attach(
            self,
            relation,
            text,
            collection=collection,
            columns=columns,
            embedder=embedder,
            chunking=chunking or {},
            type=type,
            distance=distance,
            language=language,
            schema=schema,
        )
        return Collection.open(self, name, embedder=embedder)

    def detach(self, name: str, *, drop: bool = False) -> str:
        """Let a collection follow its table no longer; returns its name (SQL: `pgvec.detach`).

        Args:
            name: of the collection, or of the table.
            drop: whether the collection is dropped, too.
        """
        from pgvec_toolkit.worker import attachment

        return attachment.detach(self, name, drop=drop)

    def attachments(self) -> list[Lag]:
        """Return which collections follow tables, and how far they are behind (SQL: `pgvec.queue_lag`)."""
        from pgvec_toolkit.worker import attachment

        return attachment.lag(self)

    def requeue(self, name: str, *, everything: bool = False) -> int:
        """Have documents of an attached table that failed tried again; returns how many (SQL: `pgvec.requeue`).

        Args:
            name: of the collection, or of the table.
            everything: whether all its documents are compared with the table, too.
        """
        from pgvec_toolkit.worker import attachment

        return attachment.requeue(self, name, everything=everything)

    def work(
        self,
        collections: Sequence[str] | None = None,
        *,
        batch: int = 64,
        once: bool = True,
        embedder: Embedder | None = None,
    ) -> Worked:
        """Embed what has changed in attached tables (shell: `pgvec worker`). Any number may do so at once.

        Args:
            collections: that are brought up to their tables; None: all that follow one.
            batch: documents that are claimed, embedded and committed together.
            once: whether to return when nothing is left to do now; else it goes on until interrupted.
            embedder: for collections whose model cannot be loaded by name.
        """
        from pgvec_toolkit.worker.worker import Worker

        worker = Worker(self, collections, batch=batch, embedder=embedder)
        try:
            return worker.run(once=once)
        finally:
            worker.close()

    def explain_sql(self, statement: str) -> str:
        """Return the plan of a statement, and which vector index it uses, or why none (SQL: `pgvec.explain_sql`)."""
        return "\n".join(line for (line,) in self.fetch("SELECT * FROM pgvec.explain_sql($1)", [statement]))

    def advisories(self) -> list[str]:
        """Return known vulnerabilities and data-damaging bugs of this version of the extension; empty is good."""
        version = ".".join(map(str, self.capabilities.vector))
        return [text for (text,) in self.fetch("SELECT advisory FROM pgvec._advisories($1)", [version])]

    def health(self) -> list[Finding]:
        """Return what is wrong with this database, the worst first (SQL: `pgvec.check_health`)."""
        from pgvec_toolkit.watch import doctor

        return doctor.health(self)

    def doctor(self) -> list[Finding]:
        """Return what is wrong: `health`, and what a search through each vector index and a look at the client show.

        SQL: `pgvec.check_health`, `pgvec.check_indexes`. Of a database that was not migrated, or by another version
        of this library, it says that.
        """
        from pgvec_toolkit.watch import doctor

        return doctor.examine(self)

    def mend(self) -> list[Mended]:
        """Apply what mends a finding without risk: drop what interrupted builds left, ANALYZE tables that need it.

        No data are lost, and nobody is kept waiting: what is locked for more than some seconds stays as it is.
        """
        from pgvec_toolkit.watch import doctor

        return doctor.mend(self)

    def drop_collection(self, name: str, *, if_exists: bool = False) -> bool:
        """Drop a collection with its tables; returns whether there was one (SQL: `pgvec.drop_collection`)."""
        (dropped,) = self.fetch_one("SELECT pgvec.drop_collection($1, $2)", [name, if_exists])
        return bool(dropped)


def connect(dsn: str | None = None, **options: Unpack[PoolOptions]) -> Database:
    """Connect to PostgreSQL.

    Without a DSN, and with neither PGVEC_DSN nor libpq's PGHOST, PGSERVICE, PGDATABASE set, this starts or
    joins the embedded PostgreSQL in the user's data directory (PGVEC_HOME) and migrates it.
    On a server of your own, run `pgvec migrate` once.

    Args:
        dsn: a libpq connection string or URI; "" means libpq's environment only.
        **options: of the pool of connections: see `PoolOptions`.
    """
    resolved = resolve_dsn(dsn)
    if resolved is not None:
        database = Database(resolved, **options)
        try:
            database.check_migrated()
        except BaseException:
            database.close()  # or it would go on trying to connect
            raise
        return database
    return connect_embedded(**options)


def connect_embedded(**options: Unpack[PoolOptions]) -> Database:
    """Start or join the embedded PostgreSQL, whatever the environment says, and migrate it."""
    database = Database(embedded_dsn(), **options)
    try:
        database.check_migrated()
    except NotMigrated:
        database.migrate()
    return database


def embedded_dsn() -> str:
    """Start or join the embedded PostgreSQL, and return its DSN."""
    from pgvec_toolkit.embedded import EmbeddedServer

    return EmbeddedServer().start()


def resolve_dsn(dsn: str | None = None) -> str | None:
    """Return the DSN to use: the given one, PGVEC_DSN, libpq's environment (""), or None: the embedded server."""
    if dsn is None:
        dsn = os.environ.get("PGVEC_DSN")
    if dsn is None and any(os.environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")):
        dsn = ""
    if dsn:
        try:
            conninfo_to_dict(dsn)
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(
                f"not a PostgreSQL connection string: {str(error).strip()}. "
                "Write host=… dbname=… user=…, or postgresql://user@host/dbname"
            ) from error
    return dsn
