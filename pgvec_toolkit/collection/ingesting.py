"""Documents into a collection: ingested, and deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.collection.base import CollectionBase
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.batch import identifier
from pgvec_toolkit.ingest.chunk.chunking import Chunker, Chunking
from pgvec_toolkit.progress import progress_bar

if TYPE_CHECKING:
    from pgvec_toolkit.ingest.documents import Ingested


class Ingesting(CollectionBase):
    """Methods that keep documents."""

    def ingest(
        self,
        source: str | Path | Iterable[Mapping[str, Any]],
        *,
        chunker: str | Chunker = "auto",
        chunk_tokens: int | None = None,
        overlap: int = 0,
        context: bool = False,
        too_long: str = "split",
        progress: bool | None = None,
    ) -> Ingested:
        """Ingest documents: read, cut into chunks, embed, write; unchanged ones are skipped, changed ones replaced.

        Args:
            source: a .txt, .md or .jsonl file, a folder of them, or records with `id` and `text`. Front matter and
                other fields of a record become typed columns and metadata of each chunk.
            chunker: "auto" cuts each document by its format; "recursive", "markdown", "sentences", "code", "fixed",
                "none" (a document is a chunk), or a `Chunker` of yours (docs/ingestion.md).
            chunk_tokens: largest chunk, in tokens of the embedder; None: all that it reads at once.
            overlap: tokens, at most, that a chunk repeats of the one before it.
            context: whether the document's title and the headings above a chunk are embedded with it.
            too_long: what becomes of a chunk that is longer than the embedder reads: "split", "truncate" (stored
                whole, its beginning embedded) or "error". What was split or truncated is counted.
            progress: whether to show a bar; None: on a terminal.

        Interrupt it, or kill it: each document is in the collection wholly or not at all, and running it
        again does the rest.
        """
        from pgvec_toolkit.ingest.documents import Ingestion
        from pgvec_toolkit.ingest.read import documents, files

        chunking = Chunking(chunker, chunk_tokens, overlap, context, too_long)
        total = None
        if isinstance(source, str | Path):
            found = files(Path(source))
            total = None if any(path.suffix == ".jsonl" for path, _ in found) else len(found)
        ingestion = Ingestion(self._target(), self.embedder, chunking)
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
