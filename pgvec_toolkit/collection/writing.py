"""What is written to a collection, and where: chunks, columns, vector spaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgvec_toolkit.collection.base import CollectionBase
from pgvec_toolkit.embed import kinds
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.embed.registry import register
from pgvec_toolkit.ingest.batch import Records, number_of_rows
from pgvec_toolkit.ingest.chunk.chunking import check_policy
from pgvec_toolkit.ingest.in_order import connections_for
from pgvec_toolkit.ingest.load import Target, Written
from pgvec_toolkit.ingest.records import Upsertion
from pgvec_toolkit.ingest.space_embedding import Embedded, embed_missing, missing
from pgvec_toolkit.ingest.space_vectors import set_vectors
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.schema import promote as promoting
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.schema.promote import Promoted

ROWS_PER_BATCH = 5000


class Writing(CollectionBase):
    """Methods that write."""

    def upsert(
        self,
        records: Records,
        *,
        batch_size: int = ROWS_PER_BATCH,
        connections: int | None = None,
        too_long: str = "truncate",
        progress: bool | None = None,
    ) -> Written:
        """Insert records, or replace those whose id is known; each batch is one transaction.

        Args:
            records: an iterable of mappings, a mapping of columns (`vector` may be an array of shape
                (n, dimensions)), a pyarrow Table or a DataFrame, or an iterable of such tables (record batches).
                Fields: `id`; `text` or `vector` or both; optionally `document_id`, `position`, `metadata`; the typed
                columns; all else is metadata. Text without a vector is embedded, unless it is stored already. Of an
                id given twice the last counts.
            batch_size: rows per transaction; texts to be embedded are committed 500 at a time. Memory is that of
                a few batches, whatever the number of rows.
            connections: how many batches are written at once; they are committed in their order. None: 2, or 1 on a
                machine with one core.
            too_long: what becomes of a text that is longer than the embedder reads: "truncate" stores it whole, embeds
                its beginning, and counts it in what is returned; "error" refuses it.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            InvalidRecord: a row cannot be stored. However a load ends, by this or another error, by Ctrl-C or a kill:
                all batches before one are written, and nothing of that one and those after it.
        """
        check_policy(too_long, ("truncate", "error"))
        with (
            self._writing() as target,
            progress_bar(f"loading {self.name}", number_of_rows(records), progress) as advance,
        ):
            used = connections_for(self._database, connections)
            upsertion = Upsertion(target, lambda: self._embedder(target.space), batch_size, used, too_long)
            return upsertion.run(self._database, records, advance)

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
        self._forget_texts()
        return promoted

    def add_space(
        self,
        name: str,
        *,
        embedder: Embedder | str | None = None,
        dimensions: int | None = None,
        type: str | None = None,
        distance: str | None = None,
    ) -> None:
        """Add a vector space: further vectors of the same chunks (SQL: `pgvec.add_space`).

        Fill it by `embed_space` if it has an embedder, else by `set_vectors`.

        Args:
            name: by which searches ask for it.
            embedder: a spec or an `Embedder`, dense, sparse or of several vectors; the next three follow from it.
            dimensions: of the vectors.
            type: of the vectors: vector, halfvec, bit, sparsevec or vector[].
            distance: by which they are compared.
        """
        loaded = kinds.load(embedder) if isinstance(embedder, str) else embedder
        shape = spaces.shape_of(loaded, dimensions, type, distance)
        with self._database.connection() as connection, connection.transaction():
            connection.execute(
                "SELECT pgvec.add_space(%s, %s, %s::integer, %s, %s, %s::integer)",
                [
                    *(self.name, name, shape.dimensions, shape.type, shape.distance),
                    None if loaded is None else register(connection, loaded),
                ],
            )
        self._forget(name)
        self._given[name] = loaded

    def register_space(
        self,
        embedding: str,
        *,
        name: str | None = None,
        embedder: Embedder | str | None = None,
        distance: str | None = None,
    ) -> None:
        """Make a further vector column of a registered table a vector space (SQL: `pgvec.register_space`).

        Args:
            embedding: the column.
            name: by which searches ask for it; None: the column's.
            embedder: as `Database.register_table` takes it.
            distance: as `Database.register_table` takes it.
        """
        space = name or embedding
        loaded = kinds.load(embedder) if isinstance(embedder, str) else embedder
        with self._database.connection() as connection, connection.transaction():
            connection.execute(
                "SELECT pgvec.register_space(%s, %s, %s, %s, %s::integer)",
                [
                    self.name,
                    embedding,
                    space,
                    spaces.distance_for(loaded, distance),
                    None if loaded is None else register(connection, loaded),
                ],
            )
            spaces.check_fits(connection, self.name, space, loaded)
        self._forget(space)
        self._given[space] = loaded

    def embed_space(self, name: str | None = None, *, progress: bool | None = None) -> Embedded:
        """Embed the texts of all chunks that have no vector in a space.

        Chunks that are written later, or get another text, have none until this is called again.
        Interrupt it, or kill it: running it again does the rest. Whatever changes a text, in Python or in SQL, drops
        its vectors in spaces that have a model, for this to make new ones. Of a registered table rows whose vector
        is NULL get one, by any number of sessions at once; no vector that is there is written over.

        Args:
            name: of the space; None: the default one.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            RejectedText: the embedder refuses some texts; it names their chunks, and all others have their vectors.
        """
        # It may have been dropped, and added anew for another model.
        space = spaces.find(self._database, self.name, name)
        embedder = self._embedder(space)
        with self._database.connection() as connection:
            total = missing(connection, space)
            with progress_bar(f"embedding {self.name} into {space.name}", total, progress) as advance:
                return embed_missing(connection, space, embedder, advance)

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
        self._check_ours()
        with self._database.connection() as connection:
            return set_vectors(connection, Target(self._space(space), {}), ids, vectors)
