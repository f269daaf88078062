"""Documents on their way into a collection, step by step, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgvec_toolkit.embed.texts import TextCounts
from pgvec_toolkit.ingest.batch import Batch
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.ledger import Entry, Failed, Failure

Read = Document | Unreadable


@dataclass
class Ingested:
    """What an ingestion did.

    Attributes:
        documents: documents that were read, those that failed included.
        unchanged: documents skipped, because the ledger has them with the same content.
        chunks: chunks written.
        failed: documents that could not be ingested; each is recorded, and what was stored of it before is kept.
        pruned_vectors: how many sparse vectors had more entries than an index holds.
        pruned_entries: how many entries, the smallest, they lost.
        split: chunks that were longer than the embedder reads, and were cut into several.
        truncated: chunks that are longer than the embedder reads: their end is stored, but not embedded.
        cached: texts whose vectors were known from before.
        duplicates: texts that were there more than once, and embedded once.
        notes: what else there is to know, each said once: why code was cut as text.
    """

    documents: int = 0
    unchanged: int = 0
    chunks: int = 0
    failed: list[Failure] = field(default_factory=list)
    pruned_vectors: int = 0
    pruned_entries: int = 0
    split: int = 0
    truncated: int = 0
    cached: int = 0
    duplicates: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Ingested) -> None:
        """Add what another ingestion did."""
        for name in vars(other):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.notes = list(dict.fromkeys(self.notes))


@dataclass
class Piece:
    """A document that is to be written.

    Attributes:
        document: as it was read.
        content_hash: over all that decides what is written.
        texts: what is embedded of each chunk.
        batch: its chunks, encoded; `vectors` is None until they are embedded.
        split: chunks that were longer than the embedder reads, and were cut into several.
        truncated: chunks that are longer than the embedder reads.
        notes: what else there is to know of how it was cut.
    """

    document: Document
    content_hash: bytes
    texts: list[str]
    batch: Batch
    split: int = 0
    truncated: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class Compared:
    """Documents, by what the ledger says of them.

    Attributes:
        read: how many were read; of those of the same id the last counts.
        hashes: of all that are not in `failed`, by id.
        known: what the ledger has of them, by id.
        changed: those that it has not, or not so.
        unchanged: the others.
        failed: those that could not be read, or cannot be stored.
    """

    read: int
    hashes: dict[str, bytes] = field(default_factory=dict)
    known: dict[str, Entry] = field(default_factory=dict)
    changed: list[Document] = field(default_factory=list)
    unchanged: list[Document] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


@dataclass
class Work:
    """Some documents on their way.

    Attributes:
        read: how many were read.
        pieces: those that are to be written.
        unchanged: those that the ledger has as they are.
        known: what the ledger has of these, by id.
        failed: those that failed so far.
        under_way: content hashes of what was prepared, by id.
        counts: how texts became vectors, here or in other work that was embedded at once with this.
    """

    read: int = 0
    pieces: list[Piece] = field(default_factory=list)
    unchanged: list[Document] = field(default_factory=list)
    known: dict[str, Entry] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)
    under_way: dict[str, bytes] = field(default_factory=dict)
    counts: TextCounts = field(default_factory=TextCounts)

    @property
    def texts(self) -> int:
        """How many texts are to be embedded."""
        return sum(len(piece.texts) for piece in self.pieces)
