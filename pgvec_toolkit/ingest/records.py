"""Records into a collection: cut, check, encode, embed what has no vector, write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

from psycopg import sql

from pgvec_toolkit.embed.base import Embedder, max_tokens
from pgvec_toolkit.embed.texts import embed_texts
from pgvec_toolkit.errors import RejectedText
from pgvec_toolkit.ingest import load
from pgvec_toolkit.ingest.batch import Batch, Records, batch_of, cut
from pgvec_toolkit.ingest.binary import encode
from pgvec_toolkit.ingest.chunk.tokens import fitted
from pgvec_toolkit.ingest.document import CONTEXT, embedded_text
from pgvec_toolkit.ingest.in_order import InOrder, Job
from pgvec_toolkit.ingest.load import Target, Written
from pgvec_toolkit.ingest.overlap import prepared_ahead
from pgvec_toolkit.pool import Connection, Pool

TEXTS_PER_TRANSACTION = 500


class _Novelty:
    """Whether the next batch may be expected to be new, as all were so far."""

    def __init__(self) -> None:
        self.expected = False
        self._disproved = False

    def learn(self, new: bool) -> None:
        """Learn whether all rows of a batch were new."""
        self._disproved |= not new
        self.expected = not self._disproved


@dataclass(frozen=True)
class Upsertion:
    """How records become rows of one collection.

    Attributes:
        target: where they go.
        embedder: returns the collection's embedder; called only if there is text to embed.
        batch_size: rows per transaction; fewer where texts have to be embedded, which takes longer to lose.
        connections: how many batches are written at once.
        too_long: "truncate" or "error": what becomes of a text that is longer than the embedder reads.
    """

    target: Target
    embedder: Callable[[], Embedder]
    batch_size: int
    connections: int = 1
    too_long: str = "truncate"

    def run(self, pool: Pool, records: Records, advance: Callable[[float], None]) -> Written:
        """Write all records, one transaction a batch, committed in order.

        While batches are written, one is encoded, and the records of the next are drawn from their iterator, in
        the caller's thread: memory is that of these.
        """
        total, novelty, embedding = Written(), _Novelty(), Lock()

        def write(job: Job) -> Written:
            return self._write(job, novelty, embedding)

        def written(batch: Batch, done: Written) -> None:
            total.add(done)
            advance(len(batch))

        with InOrder(pool, self.connections, write, written) as writers:
            for batch in prepared_ahead(cut(records, self.batch_size), self._encoded):
                for part in _transactions(batch):
                    writers.submit(part)
        return total

    def _write(self, job: Job, novelty: _Novelty, embedding: Lock) -> Written:
        """Write a batch; rows with vectors that are expected to be new without a look at what is there.

        Should one be there, the unique index tells. Embedders are asked by one thread at a time.
        """
        connection, batch = job.connection, job.batch
        if novelty.expected and batch.vectors is not None:
            with suppress(*load.LOST_RACES):
                return load.insert_new(connection, self.target, batch, job.take_turn)
            novelty.learn(False)

        def prepare(anew: bool) -> Sequence[Batch]:
            if anew or job.prepared is None:
                with embedding:
                    job.check()
                    job.prepared = self._with_vectors(connection, batch)
                job.check()
            return job.prepared

        done = load.upsert(connection, self.target, prepare, job.take_turn)
        novelty.learn(done.inserted == len(batch))
        return done

    def _encoded(self, rows: tuple[int, dict[str, Any]]) -> Batch:
        space = self.target.space
        return encode(batch_of(*rows, self.target.kind, space.dimensions, space.distance), self.target.typed)

    def _with_vectors(self, connection: Connection, batch: Batch) -> list[Batch]:
        """Return the batch with vectors: given ones, or of its texts; rows whose text is stored keep theirs, apart."""
        if batch.vectors is not None:
            return [batch]
        texts = batch.fields.get("text", [None] * len(batch))
        stored = self._stored_texts(connection, batch)
        kept, to_embed = [], []
        for row, (id, text) in enumerate(zip(batch.ids, texts, strict=True)):
            if id in stored and stored[id] == (None if text is None else _md5(text)):
                kept.append(row)
            elif text is None:
                raise batch.invalid(row, "vector", "is missing, and there is no text to embed")
            else:
                to_embed.append(row)
        parts = [batch.take(kept)] if kept else []
        return [*parts, self._embedded(connection, batch.take(to_embed))] if to_embed else parts

    def _embedded(self, connection: Connection, batch: Batch) -> Batch:
        space, embedder = self.target.space, self.embedder()
        texts, too_long = fitted(embedder, _to_embed(batch))
        if too_long and self.too_long == "error":
            row, length = next(iter(too_long.items()))
            problem = f"has {length} tokens, and embedder {embedder.name} reads {max_tokens(embedder)} of them"
            raise batch.invalid(row, "text", f"{problem}: cut it, ingest it as a document, or let it be truncated")
        batch.truncated = len(too_long)
        try:
            vectors = embed_texts(embedder, texts, connection)
        except RejectedText as error:
            if not error.positions:
                raise
            raise batch.invalid(error.positions[0], "text", str(error)) from error
        batch.vectors = self.target.kind.stack(vectors, space.dimensions, space.distance, batch.rows)
        return batch

    def _stored_texts(self, connection: Connection, batch: Batch) -> dict[str, str | None]:
        """Return the MD5 of the texts of those ids that are stored with a vector."""
        statement = sql.SQL("SELECT d.id, md5(d.text) FROM {} d JOIN {} v USING (key) WHERE d.id = ANY (%s)")
        space = self.target.space
        return dict(connection.execute(statement.format(space.chunks, space.vectors), [batch.ids]).fetchall())


def _transactions(batch: Batch) -> Iterator[Batch]:
    """Cut a batch of texts into what is embedded and committed at once."""
    if batch.vectors is not None or len(batch) <= TEXTS_PER_TRANSACTION:
        yield batch
        return
    for start in range(0, len(batch), TEXTS_PER_TRANSACTION):
        yield batch.take(range(start, min(start + TEXTS_PER_TRANSACTION, len(batch))))


def _to_embed(batch: Batch) -> list[str]:
    """Return what is embedded of each row: its text, after the context that its metadata may have of it."""
    nothing = [None] * len(batch)
    contexts, metadata = (batch.fields.get(name, nothing) for name in (CONTEXT, "metadata"))
    return [
        embedded_text(text, {CONTEXT: context} if context else own or {})
        for text, context, own in zip(batch.fields["text"], contexts, metadata, strict=True)
    ]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
