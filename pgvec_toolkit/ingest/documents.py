"""Documents into a collection, in three steps: prepare (skip what the ledger knows, cut), embed, write.

Each step takes some documents on; steps of different documents may overlap, writes in the order of preparations.
A document's ledger row, its old chunks' removal and its new chunks with their vectors are one
transaction, so a process killed anywhere leaves each document as it was or as it shall be.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from psycopg import sql

from pgvec_toolkit.embed.base import Embedder, embed_texts, fingerprint, pruned
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest import binary, ledger, load
from pgvec_toolkit.ingest.batch import Batch, settle
from pgvec_toolkit.ingest.chunk import Chunking, Cutter
from pgvec_toolkit.ingest.document import Document, written_with
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
        split: chunks that were longer than the embedder reads, and were cut into several.
        truncated: chunks that are longer than the embedder reads: their end is stored, but not embedded.
        notes: what else there is to know, as why code was cut as text.
    """

    documents: int = 0
    unchanged: int = 0
    chunks: int = 0
    pruned_vectors: int = 0
    pruned_entries: int = 0
    split: int = 0
    truncated: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class Piece:
    """A document that is to be written.

    Attributes:
        document: as it was read.
        content_hash: over all that decides what is written.
        texts: what is embedded of each chunk.
        batch: its chunks, encoded; `vectors` is None until they are embedded.
    """

    document: Document
    content_hash: bytes
    texts: list[str]
    batch: Batch


@dataclass
class Work:
    """Some documents on their way.

    Attributes:
        read: how many were read.
        unchanged: how many the ledger has as they are.
        pieces: those that are to be written.
    """

    read: int = 0
    unchanged: int = 0
    pieces: list[Piece] = field(default_factory=list)

    @property
    def texts(self) -> int:
        """How many texts are to be embedded."""
        return sum(len(piece.texts) for piece in self.pieces)


@dataclass(frozen=True)
class Ingestion:
    """How documents become chunks of one collection."""

    target: load.Target
    embedder: Embedder
    chunking: Chunking = field(default_factory=Chunking)
    # Hashes of documents that are prepared and not yet written: one that comes again is compared with these.
    _under_way: dict[str, bytes] = field(default_factory=dict, compare=False)

    def run(self, connection: Connection, documents: Iterable[Document], advance: Callable[[float], None]) -> Ingested:
        """Ingest documents, some at a time; what has been committed is skipped when it is run again."""
        done, before = Ingested(), pruned(self.embedder)
        cutter, source = self._cutter, iter(documents)
        while some := list(itertools.islice(source, DOCUMENTS_AT_ONCE)):
            work = self.prepare(connection, some)
            self.embed(work)
            self.write(connection, work, done)
            advance(len(some))
        lost = pruned(self.embedder) - before
        done.pruned_vectors, done.pruned_entries = lost.vectors, lost.entries
        done.split, done.truncated, done.notes = cutter.split, cutter.truncated, cutter.notes
        return done

    def prepare(self, connection: Connection, some: Sequence[Document]) -> Work:
        """Hash documents, ask the ledger which of them have changed, cut and encode these.

        The connection is asked one question, outside of any transaction.
        """
        latest = {document.id: document for document in some}
        hashes = {id: self._content_hash(document) for id, document in latest.items()}
        changed = [latest[id] for id in self._changed(connection, latest, hashes)]
        pieces = [self._cut(document, hashes[document.id]) for document in changed]
        self._under_way.update((document.id, hashes[document.id]) for document in changed)
        return Work(len(some), len(latest) - len(changed), pieces)

    def embed(self, work: Work) -> None:
        """Give the chunks their vectors; no connection is needed."""
        texts = [text for piece in work.pieces for text in piece.texts]
        if not texts:
            return
        space, rows = self.target.space, [row for piece in work.pieces for row in piece.batch.rows]
        vectors = embed_texts(self.embedder, texts)
        stacked = self.target.kind.stack(vectors, space.dimensions, space.distance, rows)
        first = 0
        for piece in work.pieces:
            piece.batch.vectors = stacked[first : first + len(piece.texts)]
            first += len(piece.texts)

    def write(self, connection: Connection, work: Work, done: Ingested) -> None:
        """Write documents whose chunks have their vectors, in one transaction; count what was done.

        In a transaction of the caller's it becomes part of that.
        """
        if work.pieces:
            done.chunks += self._replace(connection, work.pieces)
        for piece in work.pieces:
            if self._under_way.get(piece.document.id) == piece.content_hash:
                del self._under_way[piece.document.id]
        done.documents += work.read
        done.unchanged += work.unchanged

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self.embedder, self.chunking)

    @cached_property
    def _model(self) -> str:
        return fingerprint(self.embedder)

    def _content_hash(self, document: Document) -> bytes:
        """Hash all that decides what is written: the text, the fields, the model, how it is cut."""
        parts = [document.text, document.fields, document.format, self._model, self.chunking.identity]
        # Twice: the first pass makes all keys texts, which alone can be sorted.
        plain = json.loads(json.dumps(parts, default=_hashable))
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).digest()

    def _changed(self, connection: Connection, documents: dict[str, Document], hashes: dict[str, bytes]) -> list[str]:
        """Return the ids of documents that the ledger has not, or not so."""
        entries = ledger.entries(connection, self.target.space.collection_id, list(hashes))
        for id, entry in entries.items():
            _refuse_namesake(id, entry.source, documents[id].source)
        known = {id: entry.content_hash for id, entry in entries.items()} | self._under_way
        return [id for id, content_hash in hashes.items() if known.get(id) != content_hash]

    def _cut(self, document: Document, content_hash: bytes) -> Piece:
        """Cut a document into chunks, and encode what is known of them before they are embedded."""
        chunks = self._cutter(document)
        written = [written_with(document, chunk) for chunk in chunks]
        names = dict.fromkeys(name for own in written for name in own)
        fields: dict[str, list[object]] = {name: settle(own.get(name) for own in written) for name in names}
        fields["document_id"] = [document.id] * len(chunks)
        fields["position"] = list(range(len(chunks)))
        fields["text"] = [chunk.text for chunk in chunks]
        ids = [f"{document.id}#{position}" for position in range(len(chunks))]
        batch = Batch([document.row] * len(chunks), ids, fields, None)
        if chunks:
            batch = replace(binary.encode(batch, self.target.typed), fields={})
        return Piece(document, content_hash, self._cutter.texts(chunks), batch)

    def _replace(self, connection: Connection, pieces: list[Piece]) -> int:
        batch = _joined(pieces)

        def write() -> None:
            ledger.enter(
                connection,
                self.target.space.collection_id,
                [(piece.document.id, piece.content_hash, len(piece.batch), piece.document.source) for piece in pieces],
            )
            statement = sql.SQL("DELETE FROM {} WHERE document_id = ANY (%s) OR id = ANY (%s)")
            connection.execute(
                statement.format(self.target.space.chunks), [[piece.document.id for piece in pieces], batch.ids]
            )
            if len(batch):
                load.insert(connection, self.target, batch)

        load.in_transaction(connection, self.target, write)
        return len(batch)


def _joined(pieces: Sequence[Piece]) -> Batch:
    """Return the chunks of all pieces as one batch."""
    batches = [piece.batch for piece in pieces if len(piece.batch)]
    if not batches:
        return Batch([], [], {}, None)
    encoded = [
        list(itertools.chain.from_iterable(columns))
        for columns in zip(*(b.encoded or () for b in batches), strict=True)
    ]
    return Batch(
        [row for batch in batches for row in batch.rows],
        [id for batch in batches for id in batch.ids],
        {},
        np.concatenate([batch.vectors for batch in batches if batch.vectors is not None]),
        encoded,
    )


def _refuse_namesake(id: str, known: str | None, source: Path | None) -> None:
    """Refuse to let one file replace another that is still there; one that has moved is the same document."""
    if known is not None and source is not None and Path(known) != source and Path(known).exists():
        raise ConfigurationError(
            f"{source} would replace {known}: both are document {id!r} here. Ingest the folder above both, "
            "so that their ids differ, or give records with ids of your own"
        )


def _hashable(value: object) -> object:
    """Return what json.dumps can hash; what cannot be stored is refused later, when it is encoded."""
    try:
        return binary.plain(value)
    except TypeError:
        return str(value)
