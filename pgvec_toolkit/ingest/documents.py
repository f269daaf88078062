"""Documents into a collection, in three steps: prepare (skip what the ledger knows, cut), embed, write.

Each step takes some documents on; steps of different documents may overlap, writes in the order of preparations.
A document's ledger row, its old chunks' removal and its new chunks with their vectors are one
transaction, so a process killed anywhere leaves each document as it was or as it shall be. A document that
fails in any step is recorded, and the others go on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

from pgvec_toolkit.embed.base import Embedder, pruned
from pgvec_toolkit.embed.texts import TextCounts, embed_texts
from pgvec_toolkit.errors import (
    CollectionNotFound,
    ConfigurationError,
    EmbedderUnavailable,
    MissingDependency,
    PgvecError,
    RejectedText,
)
from pgvec_toolkit.ingest import binary, blame, ledger, load
from pgvec_toolkit.ingest.batch import Batch, identifier, settle
from pgvec_toolkit.ingest.chunk import Chunking, Cutter, lacks_grammar
from pgvec_toolkit.ingest.document import Chunk, Document, Unreadable, written_with
from pgvec_toolkit.ingest.ledger import Failed, Stage
from pgvec_toolkit.ingest.sources import file_id
from pgvec_toolkit.ingest.window import Window
from pgvec_toolkit.ingest.work import Compared, Ingested, Piece, Read, Work
from pgvec_toolkit.pool import Connection

__all__ = ["DOCUMENTS_AT_ONCE", "Ingested", "Ingestion", "Piece", "Read", "Work"]

DOCUMENTS_AT_ONCE = 32  # are committed together; of how many texts are embedded together, see window.py


@dataclass(frozen=True)
class Ingestion:
    """How documents become chunks of one collection.

    Attributes:
        target: where they go.
        embedder: of the collection.
        chunking: how documents are cut.
        strict: whether the first document that fails ends it, unrecorded.
        options: what is recorded with a failure, so that it can be tried again in the same way.
        written: is told of each document that was written, with its version.
    """

    target: load.Target
    embedder: Embedder
    chunking: Chunking = field(default_factory=Chunking)
    strict: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    written: Callable[[Document, int], None] = lambda _document, _version: None
    # Hashes of documents that are prepared and not yet written: one that comes again is compared with these.
    _under_way: dict[str, bytes] = field(default_factory=dict, compare=False)

    def run(
        self,
        connection: Connection,
        documents: Iterable[Read],
        advance: Callable[[float], None],
        done: Ingested | None = None,
    ) -> Ingested:
        """Ingest documents, some at a time; what has been committed is skipped when it is run again.

        What has been done is counted in `done` if it is given, so that it is known of an ingestion that is interrupted.
        """
        done, before = Ingested() if done is None else done, pruned(self.embedder)
        try:
            self._run(connection, documents, advance, done)
        except EmbedderUnavailable as error:
            raise EmbedderUnavailable(
                f"{error}. {done.documents} documents are dealt with: run it again when the embedder answers, "
                "it goes on with the others"
            ) from error
        finally:
            lost = pruned(self.embedder) - before
            done.pruned_vectors += lost.vectors
            done.pruned_entries += lost.entries
        return done

    def _run(
        self, connection: Connection, documents: Iterable[Read], advance: Callable[[float], None], done: Ingested
    ) -> None:
        _ = self._cutter  # refuses what cannot be done, before anything is written
        window = Window()
        for works in self._prepared(connection, documents, window):
            with window.timed(works):
                self.embed(*works, cache=connection)
            for work in works:
                self.write(connection, work, done)
                advance(work.read)

    def _prepared(self, connection: Connection, documents: Iterable[Read], window: Window) -> Iterator[list[Work]]:
        """Yield what is embedded at once: as much as the window takes, in parts that are written each by itself."""
        source, works = iter(documents), list[Work]()
        try:
            while some := list(itertools.islice(source, DOCUMENTS_AT_ONCE)):
                works.append(self.prepare(connection, some))
                if window.is_full(works):
                    yield works
                    works = []
        except Exception:
            yield works  # what came before the failure is not at fault
            raise
        yield works

    def compare(self, connection: Connection, some: Sequence[Read]) -> Compared:
        """Hash documents, and ask the ledger which of them have changed: one question, outside of any transaction."""
        found = Compared(len(some))
        latest: dict[str, Document] = {}
        for document in {document.id: document for document in some}.values():
            if isinstance(document, Unreadable):
                self._fail(found.failed, document, "read", _unreadable(document))
                continue
            try:
                found.hashes[identifier(document.id, document.row)] = self._content_hash(document)
                latest[document.id] = document
            except Exception as error:
                self._fail(found.failed, document, "write", error)
        found.known = ledger.entries(connection, self._collection, list(latest))
        for id, entry in found.known.items():
            _refuse_namesake(id, entry.source, latest[id].source)
        known = {id: entry.content_hash for id, entry in found.known.items()} | self._under_way
        for id, document in latest.items():
            (found.unchanged if known.get(id) == found.hashes[id] else found.changed).append(document)
        return found

    def prepare(self, connection: Connection, some: Sequence[Read]) -> Work:
        """Compare documents with the ledger; cut those that have changed, and encode their chunks."""
        found = self.compare(connection, some)
        known = {id: entry for id, entry in found.known.items() if entry.content_hash == found.hashes[id]}
        # Of these no more is needed than what they are called: a window may hold many that are long.
        unchanged = [replace(document, text="", fields={}) for document in found.unchanged]
        work = Work(found.read, [], unchanged, known, found.failed)
        for document in found.changed:
            self._cut(work, document, found.hashes[document.id])
        work.under_way = {piece.document.id: piece.content_hash for piece in work.pieces}
        self._under_way.update(work.under_way)
        return work

    def _cut(self, work: Work, document: Document, content_hash: bytes) -> None:
        stage: Stage = "chunk"
        try:
            chunks = self._chunks(document)
            stage = "write"
            work.pieces.append(self._encoded(document, content_hash, chunks))
        except MissingDependency:
            raise  # of no document's making
        except Exception as error:
            self._fail(work.failed, document, stage, error)

    def cut(self, document: Document, content_hash: bytes) -> Piece:
        """Cut a document into chunks, encode these, and count what was split or truncated."""
        return self._encoded(document, content_hash, self._chunks(document))

    def embed(self, *works: Work, cache: Connection | None = None) -> None:
        """Give the chunks their vectors: the more at once, the faster.

        Args:
            works: that were prepared.
            cache: to the database whose cache of embeddings is asked; None: no cache.
        """
        counts = TextCounts()

        def is_at_fault(error: Exception, pieces: Sequence[Piece]) -> bool:
            return not self.strict and blame.is_texts_fault(error, self.embedder, len(pieces) == 1)

        pieces = [piece for work in works for piece in work.pieces]
        failed = blame.bisected(pieces, partial(self._embed, cache=cache, counts=counts), is_at_fault, _refused)
        at_fault = {id(piece): error for piece, error in failed}
        for work in works:
            self._drop(work, "embed", [(piece, at_fault[id(piece)]) for piece in work.pieces if id(piece) in at_fault])
        if works:
            works[0].counts = counts

    def write(self, connection: Connection, work: Work, done: Ingested) -> None:
        """Write documents whose chunks have their vectors, in one transaction, and record what failed; count it.

        In a transaction of the caller's it becomes part of that.
        """

        def act(pieces: Sequence[Piece]) -> None:
            if pieces:
                self._replace(connection, pieces, done)

        def is_at_fault(error: Exception, _: Sequence[Piece]) -> bool:
            return not self.strict and blame.is_rows_fault(error)

        try:
            self._drop(work, "write", blame.bisected(work.pieces, act, is_at_fault))
            self._note_unchanged(connection, work)
            if work.failed:
                with connection.transaction():
                    done.failed += ledger.record(connection, self._collection, work.failed, self.options)
        except (psycopg.errors.ForeignKeyViolation, psycopg.errors.UndefinedTable) as error:
            self._raise_if_dropped(connection, error)
            raise
        for id, content_hash in work.under_way.items():
            if self._under_way.get(id) == content_hash:
                del self._under_way[id]
        done.documents += work.read
        done.cached += work.counts.cached
        done.duplicates += work.counts.duplicates
        done.unchanged += len(work.unchanged)

    @property
    def _collection(self) -> int:
        return self.target.space.collection_id

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self.embedder, self.chunking)

    def _fail(self, failed: list[Failed], document: Read, stage: Stage, error: Exception) -> None:
        """Note that a document failed; raise the error if it is to end the ingestion."""
        if self.strict:
            raise error
        reason = document.reason if isinstance(document, Unreadable) else blame.reason(error)
        failed.append(Failed(document, stage, reason))

    def _content_hash(self, document: Document) -> bytes:
        """Hash all that decides what is written: the text, the fields, how it is cut.

        The model is not among it: another one is refused, and one that is swapped makes no document new.
        """
        parts = [document.text, document.fields, document.format, self.chunking.identity]
        if lacks_grammar(self.chunking.chunker, document.format):
            parts.append("cut as text")  # until the grammar is installed
        # Twice: the first pass makes all keys texts, which alone can be sorted.
        plain = json.loads(json.dumps(parts, default=_hashable))
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).digest()

    def _chunks(self, document: Document) -> list[Chunk]:
        cutter = self._cutter
        cutter.split, cutter.truncated, cutter.notes = 0, 0, []  # are those of one document
        return cutter(document)

    def _encoded(self, document: Document, content_hash: bytes, chunks: Sequence[Chunk]) -> Piece:
        """Encode what is known of chunks before they are embedded."""
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
        cutter = self._cutter
        return Piece(document, content_hash, cutter.texts(chunks), batch, cutter.split, cutter.truncated, cutter.notes)

    def _embed(self, pieces: Sequence[Piece], cache: Connection | None, counts: TextCounts) -> None:
        texts = [text for piece in pieces for text in piece.texts]
        if not texts:
            return
        space, rows = self.target.space, [row for piece in pieces for row in piece.batch.rows]
        vectors = embed_texts(self.embedder, texts, cache, counts)
        stacked = self.target.kind.stack(vectors, space.dimensions, space.distance, rows)
        first = 0
        for piece in pieces:
            piece.batch.vectors = stacked[first : first + len(piece.texts)]
            first += len(piece.texts)

    def _replace(self, connection: Connection, pieces: Sequence[Piece], done: Ingested) -> None:
        """Write documents in the place of what there is of them, but those that somebody else has just written so."""
        chunks = self.target.space.chunks

        def write() -> tuple[list[Piece], dict[str, int]]:
            # First of all, as who drops the collection does: what comes later would be a deadlock.
            connection.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(chunks))
            entered = [
                (piece.document.id, piece.content_hash, len(piece.batch), piece.document.source) for piece in pieces
            ]
            versions = ledger.enter(connection, self._collection, entered)
            left = [piece for piece in pieces if piece.document.id in versions]
            batch = _joined(left)
            statement = sql.SQL("DELETE FROM {} WHERE document_id = ANY (%s) OR id = ANY (%s)").format(chunks)
            connection.execute(statement, [list(versions), batch.ids])
            if len(batch):
                load.insert(connection, self.target, batch)
            ledger.forget_failures(connection, self._collection, [piece.document.id for piece in pieces])
            return left, versions

        left, versions = load.in_transaction(connection, self.target, write)
        done.chunks += sum(len(piece.batch) for piece in left)
        done.split += sum(piece.split for piece in left)
        done.truncated += sum(piece.truncated for piece in left)
        done.notes += [note for note in _notes(left) if note not in done.notes]
        done.unchanged += len(pieces) - len(left)
        for piece in left:
            self.written(piece.document, versions[piece.document.id])

    def _note_unchanged(self, connection: Connection, work: Work) -> None:
        """Note of unchanged documents that they no longer fail, and where they are now."""
        known = [(document, work.known[document.id]) for document in work.unchanged if document.id in work.known]
        moved = {
            document.id: document.source
            for document, entry in known
            if document.source is not None and str(document.source) != entry.source
        }
        if moved:
            ledger.move(connection, self._collection, moved)
        ledger.forget_failures(connection, self._collection, [document.id for document, entry in known if entry.failed])

    def _drop(self, work: Work, stage: Stage, failed: Sequence[tuple[Piece, Exception]]) -> None:
        """Take pieces that failed off the work."""
        for piece, error in failed:
            self._fail(work.failed, piece.document, stage, error)
        dropped = {piece.document.id for piece, _ in failed}
        work.pieces = [piece for piece in work.pieces if piece.document.id not in dropped]

    def _raise_if_dropped(self, connection: Connection, error: psycopg.Error) -> None:
        """Say that the collection was dropped, if it was."""
        there = connection.execute("SELECT FROM pgvec.collections WHERE id = %s", [self._collection]).fetchone()
        if there is None:
            raise CollectionNotFound(
                f"collection {self.target.space.chunk_table!r} was dropped while documents were ingested into it: "
                "create it again, and ingest them again"
            ) from error


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


def _refused(error: Exception, pieces: Sequence[Piece]) -> list[int]:
    """Return the positions of the pieces with texts that an embedder has refused."""
    if not isinstance(error, RejectedText):
        return []
    of_text = [at for at, piece in enumerate(pieces) for _ in piece.texts]
    return sorted({of_text[position] for position in error.positions})


def _notes(pieces: Sequence[Piece]) -> list[str]:
    return list(dict.fromkeys(note for piece in pieces for note in piece.notes))


def _refuse_namesake(id: str, known: str | None, source: Path | None) -> None:
    """Refuse to let one file replace another that is still there; one that has moved is the same document.

    So is a record with an id of its own that comes from another file.
    """
    if known is None or source is None or str(source) == known or file_id(id, source) is None:
        return
    if Path(known).exists() and not (source.exists() and source.samefile(known)):
        raise ConfigurationError(
            f"{source} would replace {known}: both are document {id!r} here. Ingest the folder above both, "
            "so that their ids differ, or give records with ids of your own"
        )


def _unreadable(document: Unreadable) -> PgvecError:
    return document.error or ConfigurationError(f"{document.source or document.id}: {document.reason}")


def _hashable(value: object) -> object:
    """Return what json.dumps can hash; what cannot be stored is refused later, when it is encoded."""
    try:
        return binary.plain(value)
    except TypeError:
        return str(value)
