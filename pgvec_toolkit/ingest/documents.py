"""Documents into a collection: skip what the ledger knows, chunk, embed, replace.

A document's ledger row, its old chunks' removal and its new chunks with their vectors are one
transaction, so a process killed anywhere leaves each document as it was or as it shall be.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from pgvec_toolkit.embed.base import Embedder, embed_texts, fingerprint, pruned
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest import binary, load
from pgvec_toolkit.ingest.batch import Batch, settle
from pgvec_toolkit.ingest.chunk import chunker
from pgvec_toolkit.ingest.document import Chunk, Document
from pgvec_toolkit.pool import Connection

DOCUMENTS_AT_ONCE = 16  # are embedded and committed together: what an interruption can cost


@dataclass
class Ingested:
    """What an ingestion did.

    Attributes:
        documents: documents that were read.
        unchanged: documents skipped, because the ledger has them with the same content.
        chunks: chunks written.
        pruned_vectors: how many sparse vectors had more entries than an index holds.
        pruned_entries: how many entries, the smallest, they lost.
    """

    documents: int = 0
    unchanged: int = 0
    chunks: int = 0
    pruned_vectors: int = 0
    pruned_entries: int = 0


@dataclass(frozen=True)
class Ingestion:
    """How documents become chunks of one collection."""

    target: load.Target
    embedder: Embedder
    chunk_tokens: int | None = None

    def run(self, connection: Connection, documents: Iterable[Document], advance: Callable[[float], None]) -> Ingested:
        """Ingest documents, some at a time; what has been committed is skipped when it is run again."""
        done, before = Ingested(), pruned(self.embedder)
        cut = chunker(self.embedder, self.chunk_tokens)
        model = fingerprint(self.embedder)
        source = iter(documents)
        while some := list(itertools.islice(source, DOCUMENTS_AT_ONCE)):
            latest = {document.id: document for document in some}
            hashes = {id: self._content_hash(document, model) for id, document in latest.items()}
            changed = [latest[id] for id in self._changed(connection, latest, hashes)]
            pieces = [(document, cut(document)) for document in changed]
            done.documents += len(some)
            done.unchanged += len(latest) - len(changed)
            done.chunks += self._replace(connection, pieces, hashes)
            advance(len(some))
        lost = pruned(self.embedder) - before
        done.pruned_vectors, done.pruned_entries = lost.vectors, lost.entries
        return done

    def _content_hash(self, document: Document, model: str) -> bytes:
        """Hash all that decides what is written: the text, the fields, the model, the size of chunks."""
        parts = [document.text, document.fields, document.format, model, self.chunk_tokens]
        # Twice: the first pass makes all keys texts, which alone can be sorted.
        plain = json.loads(json.dumps(parts, default=_hashable))
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).digest()

    def _changed(self, connection: Connection, documents: dict[str, Document], hashes: dict[str, bytes]) -> list[str]:
        """Return the ids of documents that the ledger has not, or not so."""
        rows = connection.execute(
            "SELECT document_id, content_hash, source FROM pgvec.ledger"
            " WHERE collection_id = %s AND document_id = ANY (%s)",
            [self.target.space.collection_id, list(hashes)],
        ).fetchall()
        for id, _, source in rows:
            _refuse_namesake(id, source, documents[id].source)
        known = {id: content_hash for id, content_hash, _ in rows}
        return [id for id, content_hash in hashes.items() if known.get(id) != content_hash]

    def _replace(
        self, connection: Connection, pieces: list[tuple[Document, list[Chunk]]], hashes: dict[str, bytes]
    ) -> int:
        if not pieces:
            return 0
        batch = self._embedded(pieces)

        def write() -> None:
            self._enter_in_ledger(connection, pieces, hashes)
            statement = sql.SQL("DELETE FROM {} WHERE document_id = ANY (%s) OR id = ANY (%s)")
            connection.execute(
                statement.format(self.target.space.chunks), [[document.id for document, _ in pieces], batch.ids]
            )
            if len(batch):
                load.insert(connection, self.target, batch)

        load.in_transaction(connection, self.target, write)
        return len(batch)

    def _enter_in_ledger(
        self, connection: Connection, pieces: list[tuple[Document, list[Chunk]]], hashes: dict[str, bytes]
    ) -> None:
        """Write the ledger rows, in one order: whoever ingests the same document at the same time waits here."""
        connection.cursor().executemany(
            "INSERT INTO pgvec.ledger (collection_id, document_id, content_hash, chunks, source) "
            "VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (collection_id, document_id) DO UPDATE "
            "SET content_hash = excluded.content_hash, chunks = excluded.chunks, source = excluded.source, "
            "ingested_at = now()",
            sorted(
                (
                    self.target.space.collection_id,
                    document.id,
                    hashes[document.id],
                    len(chunks),
                    None if document.source is None else str(document.source),
                )
                for document, chunks in pieces
            ),
        )

    def _embedded(self, pieces: list[tuple[Document, list[Chunk]]]) -> Batch:
        texts = [chunk.embedded for _, chunks in pieces for chunk in chunks]
        vectors = embed_texts(self.embedder, texts) if texts else None
        names = dict.fromkeys(name for document, _ in pieces for name in document.fields)
        fields: dict[str, list[object]] = {name: [] for name in ("document_id", "position", "text", *names)}
        for document, position, chunk in _chunks(pieces):
            fields["document_id"].append(document.id)
            fields["position"].append(position)
            fields["text"].append(chunk.text)
            for name in names:
                fields[name].append(document.fields.get(name))
        ids = [f"{document.id}#{position}" for document, position, _ in _chunks(pieces)]
        rows = [document.row for document, _, _ in _chunks(pieces)]
        if vectors is not None:
            space = self.target.space
            vectors = self.target.kind.stack(vectors, space.dimensions, space.distance, rows)
        return Batch(rows, ids, {name: settle(values) for name, values in fields.items()}, vectors)


def _refuse_namesake(id: str, known: str | None, source: Path | None) -> None:
    """Refuse to let one file replace another that is still there; one that has moved is the same document."""
    if known is not None and source is not None and Path(known) != source and Path(known).exists():
        raise ConfigurationError(
            f"{source} would replace {known}: both are document {id!r} here. Ingest the folder above both, "
            "so that their ids differ, or give records with ids of your own"
        )


def _chunks(pieces: list[tuple[Document, list[Chunk]]]) -> Iterator[tuple[Document, int, Chunk]]:
    for document, chunks in pieces:
        for position, chunk in enumerate(chunks):
            yield document, position, chunk


def _hashable(value: object) -> object:
    """Return what json.dumps can hash; what cannot be stored is refused later, when it is encoded."""
    try:
        return binary.plain(value)
    except TypeError:
        return str(value)
