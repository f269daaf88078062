"""Following one table: documents of its rows, read, cut, embedded, written.

What is embedded is embedded outside of any transaction. Then one transaction writes chunks, vectors and ledger and
takes the documents out of the queue, if the claim is still ours: a worker that is killed loses nothing, and one that
was taken for dead overwrites nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from pgvec_toolkit.ingest import ledger
from pgvec_toolkit.ingest.batch import Batch
from pgvec_toolkit.ingest.blame import bisected, reason
from pgvec_toolkit.ingest.document import Document
from pgvec_toolkit.ingest.documents import Ingested, Ingestion, Piece, Work
from pgvec_toolkit.worker.payload import write_payloads
from pgvec_toolkit.worker.trouble import ATTEMPTS, Kind, kind_of, pause

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.worker.attachment import Attachment

_TEXTS_AT_ONCE = 256  # are embedded, before the claim is renewed
_ADOPTED = b"adopted:"  # begins the hash of a document whose vectors pgvec.adopt took over


@dataclass
class Worked:
    """What a worker did.

    Attributes:
        documents: documents that were looked at and are as their rows are.
        unchanged: how many of them were so before.
        payloads: how many got other columns only, so that nothing was embedded.
        deleted: how many are no more.
        chunks: chunks that were embedded.
        split: how many were longer than the embedder reads, and were cut into several.
        truncated: how many are longer than the embedder reads: their end is stored, but not embedded.
        failed: documents that were given up.
        postponed: attempts that are to be made again.
        overtaken: documents that took longer than their claim held, so that another worker took them over.
    """

    documents: int = 0
    unchanged: int = 0
    payloads: int = 0
    deleted: int = 0
    chunks: int = 0
    split: int = 0
    truncated: int = 0
    failed: int = 0
    postponed: int = 0
    overtaken: int = 0


@dataclass
class Item:
    """A document in work.

    Attributes:
        id: of its row in the queue.
        document_id: of the document.
        version: of its row in the queue when it was claimed.
        attempts: that have failed so far.
        document: as its row is; None: there is no row.
        content_hash: of it.
        piece: what is to be embedded, if something is.
        known: whether the ledger has exactly this.
    """

    id: int
    document_id: str
    version: int
    attempts: int
    document: Document | None = None
    content_hash: bytes = b""
    piece: Piece | None = None
    known: bool = False


@dataclass
class Follower:
    """Brings documents of a collection up to the rows of a table.

    Attributes:
        attachment: the table.
        ingestion: into the collection.
        worker: number of the worker.
        renew: holds what is claimed for longer.
        waits: seconds after so many attempts.
    """

    attachment: Attachment
    ingestion: Ingestion
    worker: int
    renew: Callable[[], object]
    waits: Callable[[int], float] = pause

    def follow(self, connection: Connection, items: Sequence[Item], done: Worked) -> None:
        """Bring claimed documents up to their rows; raises what no single document is to blame for."""
        for stage, step in (
            ("read", self._read),
            ("chunk", self._cut),
            ("embed", self._embed),
            ("write", self._write),
        ):
            items = self._all_but_poison(connection, items, step, stage, done)

    def _all_but_poison(
        self,
        connection: Connection,
        items: Sequence[Item],
        step: Callable[[Connection, Sequence[Item], Worked], None],
        stage: str,
        done: Worked,
    ) -> Sequence[Item]:
        """Take a step with all documents; return those that it was possible with, and give the others up."""

        def act(some: Sequence[Item]) -> None:
            if some:
                step(connection, some, done)

        def is_at_fault(error: Exception, _: Sequence[Item]) -> bool:
            return not connection.closed and kind_of(error) in (Kind.ROW, Kind.UNKNOWN, Kind.STATEMENT)

        failed = bisected(items, act, is_at_fault)
        lost = {item.id for item, _ in failed}
        through = [item for item in items if item.id not in lost]
        for item, error in failed:
            # A document without a row says nothing of the expression.
            if kind_of(error) is Kind.STATEMENT and not any(item.document for item in through):
                raise error
            self._give_up(connection, item, stage, error, done)
        return through

    def _give_up(self, connection: Connection, item: Item, stage: str, error: Exception, done: Worked) -> None:
        if kind_of(error) is Kind.UNKNOWN and item.attempts + 1 < ATTEMPTS:
            self.postpone(connection, [item], self.waits(item.attempts), error)
            done.postponed += 1
            return
        with connection.transaction():
            if self._ours(connection, [item]):
                connection.execute(
                    "SELECT pgvec._bury(%s, %s, %s, %s)", [self.attachment.id, item.document_id, stage, reason(error)]
                )
                self._settle(connection, [item])
                done.failed += 1

    def postpone(self, connection: Connection, items: Sequence[Item], seconds: float, error: Exception) -> None:
        """Put documents back, to be tried again some seconds later."""
        connection.execute(
            "SELECT pgvec._postpone(%s, %s, %s, %s)", [[i.id for i in items], self.worker, seconds, reason(error)]
        )

    def _read(self, connection: Connection, items: Sequence[Item], _: Worked) -> None:
        statement = sql.SQL("SELECT document_id, text, fields FROM {}(%s)").format(
            sql.Identifier(self.attachment.schema, f"pgvec_live_{self.attachment.id}_rows")
        )
        rows = connection.execute(statement, [[item.document_id for item in items]]).fetchall()
        found = {document_id: (text, fields) for document_id, text, fields in rows}
        for number, item in enumerate(items):
            if item.document_id in found:
                text, fields = found[item.document_id]
                format = str(self.attachment.chunking.get("format", "text"))
                item.document = Document(
                    number, item.document_id, text or "", fields, format, Path(self.attachment.source)
                )
        self._compare(connection, items)

    def _compare(self, connection: Connection, items: Sequence[Item]) -> None:
        """Find out what the ledger has already."""
        collection_id = self.ingestion.target.space.collection_id
        entries = ledger.entries(connection, collection_id, [item.document_id for item in items])
        for item in items:
            if item.document is None:
                continue
            item.content_hash = self._hash_of_text(item.document) + self._hash_of_fields(item.document)
            entry = entries.get(item.document_id)
            known = (entry.content_hash if entry is not None else None) or b""
            item.known = known == item.content_hash
            same_text = known[:16] == item.content_hash[:16] or known == adopted_hash(item.document.text)
            item.piece = None if same_text else Piece(item.document, item.content_hash, [], Batch([], [], {}, None))

    def _hash_of_text(self, document: Document) -> bytes:
        """Hash all that decides what is embedded, and how it is cut; but for the model, as `Ingestion` does."""
        parts: list[object] = [document.text, dict(self.attachment.chunking)]
        if self.attachment.chunking.get("context"):
            parts.append(document.fields)  # the title is embedded, too
        return _digest(parts)

    def _hash_of_fields(self, document: Document) -> bytes:
        return _digest(document.fields)

    def _cut(self, _: Connection, items: Sequence[Item], __: Worked) -> None:
        for item in items:
            if item.piece is not None:
                item.piece = self.ingestion.cut(item.piece.document, item.content_hash)

    def _embed(self, connection: Connection, items: Sequence[Item], _: Worked) -> None:
        for pieces in _parts([item.piece for item in items if item.piece is not None]):
            self.renew()
            self.ingestion.embed(Work(pieces=pieces), cache=connection)

    def _write(self, connection: Connection, items: Sequence[Item], done: Worked) -> None:
        with connection.transaction():
            ours = self._ours(connection, items)
            pieces = [item.piece for item in ours if item.piece is not None]
            payloads = [item for item in ours if item.document is not None and item.piece is None and not item.known]
            gone = [item.document_id for item in ours if item.document is None]
            written = Ingested()
            if gone:
                connection.execute("SELECT pgvec.delete_documents(%s, %s)", [self.attachment.collection, gone])
            self.ingestion.write(connection, Work(pieces=pieces), written)
            if payloads:
                contents = [(item.document, item.content_hash) for item in payloads if item.document is not None]
                write_payloads(connection, self.ingestion.target, self.attachment.columns, contents)
            ledger.forget_failures(
                connection, self.ingestion.target.space.collection_id, [item.document_id for item in ours]
            )
            self._settle(connection, ours)
        done.documents += len(ours)
        done.unchanged += sum(item.known for item in ours)
        done.payloads += len(payloads)
        done.deleted += len(gone)
        done.chunks += written.chunks
        done.split += written.split
        done.truncated += written.truncated
        done.overtaken += len(items) - len(ours)

    def _ours(self, connection: Connection, items: Sequence[Item]) -> list[Item]:
        """Return what nobody else has claimed meanwhile, nor can until the transaction ends."""
        row = connection.execute(
            "SELECT pgvec._still_claimed(%s, %s)", [[item.id for item in items], self.worker]
        ).fetchone()
        ours = set(row[0] if row is not None else ())
        return [item for item in items if item.id in ours]

    def _settle(self, connection: Connection, items: Sequence[Item]) -> None:
        connection.execute(
            "SELECT pgvec._settle(%s, %s, %s)",
            [[item.id for item in items], [item.version for item in items], self.worker],
        )


def adopted_hash(text: str) -> bytes:
    """Return what `pgvec.adopt` enters in the ledger for a text whose vectors another tool has made."""
    return _ADOPTED + hashlib.sha256(text.encode()).digest()[:24]


def _parts(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Put documents together until they have so many texts as are embedded at once."""
    some, texts = list[Piece](), 0
    for piece in pieces:
        some.append(piece)
        texts += len(piece.texts)
        if texts >= _TEXTS_AT_ONCE:
            yield some
            some, texts = [], 0
    if some:
        yield some


def _digest(parts: object) -> bytes:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()[:16]
