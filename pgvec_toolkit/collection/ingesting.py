"""Documents into a collection: ingested, kept equal to a folder, tried again, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.collection.base import CollectionBase
from pgvec_toolkit.ingest.batch import identifiers
from pgvec_toolkit.ingest.chunk.chunking import Chunker, Chunking
from pgvec_toolkit.progress import progress_bar

if TYPE_CHECKING:
    from pgvec_toolkit.ingest.documents import Ingested, Ingestion
    from pgvec_toolkit.ingest.ledger import Failure
    from pgvec_toolkit.ingest.sync import Synced


class Ingesting(CollectionBase):
    """Methods that keep documents."""

    def ingest(
        self,
        source: Any,
        *,
        id: str | None = "id",
        text: str | Sequence[str] = "text",
        chunker: str | Chunker = "auto",
        chunk_tokens: int | None = None,
        overlap: int = 0,
        context: bool = False,
        too_long: str = "split",
        strict: bool = False,
        progress: bool | None = None,
        done: Ingested | None = None,
    ) -> Ingested:
        """Ingest documents: read, cut into chunks, embed, write; unchanged ones are skipped, changed ones replaced.

        Args:
            source: a file or folder (text, Markdown, source code, HTML, PDF, DOCX, PPTX, XLSX, CSV, TSV, JSON Lines,
                Parquet, Arrow), a table (Arrow, pandas, polars, `read_sql`), or an iterable of records. Front matter
                and the other fields of a record become typed columns and metadata of each chunk.
            id: the field or column that names a document of a table; None: its rows are numbered.
            text: the field or column of its text, or several that are joined.
            chunker: "auto" cuts each document by its format; "recursive", "markdown", "sentences", "code", "fixed",
                "none" (a document is a chunk), or a `Chunker` of yours (docs/ingestion.md).
            chunk_tokens: largest chunk, in tokens of the embedder; None: all that it reads at once.
            overlap: tokens, at most, that a chunk repeats of the one before it.
            context: whether the document's title and the headings above a chunk are embedded with it.
            too_long: what becomes of a chunk that is longer than the embedder reads: "split", "truncate" (stored
                whole, its beginning embedded) or "error". What was split or truncated is counted.
            strict: whether the first document that fails ends it. If not, the document keeps the chunks it had, is
                listed in `Ingested.failed` and by `failures`, and the others go on.
            progress: whether to show a bar; None: on a terminal.
            done: counts go here as they are committed, to be known of an ingestion that is interrupted.

        Interrupt it, or kill it: each document is in the collection wholly or not at all, and running it
        again does the rest.

        Raises:
            EmbedderUnavailable: the embedder could not be reached; what was committed is kept.
            CollectionNotFound: the collection was dropped meanwhile.
        """
        from pgvec_toolkit.ingest.read import documents

        chunking = Chunking(chunker, chunk_tokens, overlap, context, too_long)
        ingestion = self._ingestion(chunking, _read_again(source, id, text), strict)
        with (
            self._database.connection() as connection,
            progress_bar(f"ingesting into {self.name}", _count(source, progress), progress) as advance,
        ):
            return ingestion.run(connection, documents(source, id=id, text=text), advance, done)

    def sync(
        self,
        folder: str | Path,
        *,
        dry_run: bool = False,
        force: bool = False,
        id: str | None = "id",
        text: str | Sequence[str] = "text",
        chunker: str | Chunker = "auto",
        chunk_tokens: int | None = None,
        overlap: int = 0,
        context: bool = False,
        too_long: str = "split",
        strict: bool = False,
        progress: bool | None = None,
        done: Synced | None = None,
    ) -> Synced:
        """Make the documents of a folder equal to the folder: add, update, and delete those whose files are gone.

        Documents that came from elsewhere stay. What cannot be read keeps the chunks it had.

        Args:
            folder: that was, or would be, given to `ingest`.
            dry_run: whether only to tell what would be done (`Synced.changes`), and write nothing.
            force: whether more than half of the folder's documents, if they are ten or more, may be deleted.
            id: as `ingest` takes it.
            text: as `ingest` takes it.
            chunker: as `ingest` takes it.
            chunk_tokens: as `ingest` takes it.
            overlap: as `ingest` takes it.
            context: as `ingest` takes it.
            too_long: as `ingest` takes it.
            strict: as `ingest` takes it; nothing is deleted after a failure.
            progress: whether to show a bar; None: on a terminal.
            done: counts go here as they are committed.

        Raises:
            ConfigurationError: there is no such folder, or nothing in it to read, or too much would be deleted.
        """
        from pgvec_toolkit.ingest import sync
        from pgvec_toolkit.ingest.read import documents

        root = sync.folder_of(folder)
        chunking = Chunking(chunker, chunk_tokens, overlap, context, too_long)
        ingestion = self._ingestion(chunking, _read_again(root, id, text), strict)
        synchronisation = sync.Synchronisation(ingestion, self.name, root, force)
        done = sync.Synced() if done is None else done
        done.dry_run = dry_run
        doing = "comparing" if dry_run else "synchronising"
        with (
            self._database.connection() as connection,
            progress_bar(f"{doing} {self.name}", _count(root, progress), progress) as advance,
        ):
            step = synchronisation.plan if dry_run else synchronisation.run
            return step(connection, documents(root, id=id, text=text), advance, done)

    def failures(self) -> list[Failure]:
        """Return the documents that could not be ingested, in order of their ids (SQL: `pgvec.failed_documents`)."""
        from pgvec_toolkit.ingest import ledger

        with self._database.connection() as connection:
            return [kept.failure for kept in ledger.failures(connection, self.space.collection_id)]

    def retry(
        self,
        document_ids: Sequence[str | int] | None = None,
        *,
        chunker: Chunker | None = None,
        progress: bool | None = None,
    ) -> Ingested:
        """Ingest documents that failed once more, in the way they were ingested.

        Files are read again; what came from no file was kept.

        Args:
            document_ids: of `failures`; None: all.
            chunker: of yours, for documents that were cut by one: it cannot be recorded.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            ConfigurationError: one of `document_ids` has not failed, or was not kept; or `chunker` is missing.
        """
        from pgvec_toolkit.ingest.retry import retry

        ids = None if document_ids is None else identifiers(document_ids)
        with (
            self._database.connection() as connection,
            progress_bar(f"ingesting into {self.name}", None, progress) as advance,
        ):
            return retry(connection, self.space.collection_id, ids, self._ingestion, chunker, advance)

    def delete(self, document_ids: Sequence[str | int]) -> int:
        """Delete documents; returns the number of chunks deleted (SQL: `pgvec.delete_documents`)."""
        row = self._database.fetch_one(
            "SELECT pgvec.delete_documents($1, $2::text[])", [self.name, identifiers(document_ids)]
        )
        return int(row[0])

    def _ingestion(self, chunking: Chunking, columns: Mapping[str, Any], strict: bool = False) -> Ingestion:
        """Return what ingests, and records with failures how."""
        from pgvec_toolkit.ingest.documents import Ingestion

        options = {**chunking.options, "read": columns}
        return Ingestion(self._target(), self.embedder, chunking, strict, options)


def _read_again(source: Any, id: str | None, text: str | Sequence[str]) -> dict[str, Any]:
    """Return the options by which a file is read again as it is now, alone or as one of a folder."""
    from pgvec_toolkit.ingest.ledger import storable

    folder = isinstance(source, str | Path) and Path(source).is_dir()
    return {"id": id, "text": text} | ({"root": storable(str(Path(source).resolve()))} if folder else {})


def _count(source: Any, progress: bool | None) -> int | None:
    """Return how many documents there will be, if that is known, or cheap to count and somebody watches."""
    from pgvec_toolkit.ingest.expected import expected
    from pgvec_toolkit.progress import is_shown

    return expected(source) if is_shown(progress) else None
