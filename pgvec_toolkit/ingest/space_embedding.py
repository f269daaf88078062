"""Texts that are stored into a vector space: each chunk that has no vector there gets one.

So do the rows of a registered table whose vector is NULL: that is the queue, and any number of sessions work on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import RawCursor, sql

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.embed.texts import embed_texts
from pgvec_toolkit.errors import EmbeddingError, InvalidRecord, RejectedText
from pgvec_toolkit.ingest import blame, load
from pgvec_toolkit.ingest.chunk.tokens import fitted
from pgvec_toolkit.ingest.document import CONTEXT, embedded_text
from pgvec_toolkit.ingest.load import Target
from pgvec_toolkit.pool import Connection
from pgvec_toolkit.progress import Advance, progress_bar
from pgvec_toolkit.schema.space import Space

_TEXTS_AT_ONCE = 256
_NAMED = 20  # chunks that an error names
_PASSES = 10
# Blank texts have no vector: of some models it would be zero.
_WITHOUT = sql.SQL(r"v.key IS NULL AND d.text ~ '\S'")
_EMBEDDED = sql.SQL("d.text, d.metadata ->> {}").format(sql.Literal(CONTEXT))  # what `_text` takes
# Not of the rows themselves: who writes them need not wait for an embedder. Other sessions pass over them.
_CLAIM = "hashtext('pgvec.embed'), hashint8({} # key)"


@dataclass
class Embedded:
    """What was embedded into a vector space.

    Attributes:
        chunks: how many got a vector.
        pruned_vectors: how many sparse vectors had more entries than an index holds.
        pruned_entries: how many entries, the smallest, they lost.
        truncated: how many are longer than the embedder reads, so that their end is not in the vector.
    """

    chunks: int = 0
    pruned_vectors: int = 0
    pruned_entries: int = 0
    truncated: int = 0


def missing(connection: Connection, space: Space) -> int:
    """Return how many chunks with text have no vector in a space."""
    statement = sql.SQL("SELECT count(*) FROM {} d LEFT JOIN {} v USING (key) WHERE {}")
    row = connection.execute(statement.format(space.chunk_rows, space.vector_rows, _WITHOUT)).fetchone()
    assert row is not None
    return int(row[0])


def embed_missing(connection: Connection, space: Space, embedder: Embedder, advance: Advance) -> Embedded:
    """Embed the chunks that have no vector in a space.

    Each batch is a transaction: interrupted or killed, the next call does the rest.

    Raises:
        RejectedText: the embedder refuses some of them, which are named; all others have their vectors.
    """
    before, done = embedding.pruned(embedder), Embedded()
    refused: list[tuple[tuple[Any, ...], Exception]] = []

    def embed(rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            _embed(connection, Target(space, {}), embedder, rows, done)

    batches = _registered_batches if space.registered else _batches
    for rows in batches(connection, space):
        refused += blame.bisected(rows, embed, _is_refusal, _refused)
        advance(len(rows))
    if refused:
        raise _refusal(space, refused)
    pruned = embedding.pruned(embedder) - before
    done.pruned_vectors, done.pruned_entries = pruned.vectors, pruned.entries
    return done


def _batches(connection: Connection, space: Space) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the chunks that have no vector: key, id, text, context."""
    statement = sql.SQL(
        # Bounded on both sides: each batch would else read the keys of all vectors before it.
        "SELECT d.key, d.id, {} FROM {} d LEFT JOIN {} v ON v.key = d.key AND v.key > %s"
        " WHERE {} AND d.key > %s ORDER BY d.key LIMIT {}"
    ).format(_EMBEDDED, space.chunks, space.vectors, _WITHOUT, sql.Literal(_TEXTS_AT_ONCE))
    last = -(2**63)
    while rows := connection.execute(statement, [last, last]).fetchall():
        last = rows[-1][0]
        yield rows


def _registered_batches(connection: Connection, space: Space) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows that have no vector, and that no other session is embedding: key, id, text, context."""
    _fill_statement(connection, space)  # it says whether they can have any
    keeps_sessions = connection.prepare_threshold is not None  # else another's transaction would have the locks
    claim = sql.SQL(_CLAIM).format(sql.Literal(space.id))
    statement = sql.SQL(
        "SELECT r.key, r.id, r.text, NULL, {} FROM (SELECT d.key::bigint AS key, d.id, d.text"
        r" FROM {} d WHERE d.{} IS NULL AND d.text ~ '\S' AND d.key > $1 ORDER BY d.key LIMIT {}) r"
    ).format(
        sql.SQL("pg_try_advisory_lock({})").format(claim) if keeps_sessions else sql.SQL("true"),
        space.chunk_rows,
        space.vector_column,
        sql.Literal(_TEXTS_AT_ONCE),
    )
    unlock = sql.SQL("SELECT pg_advisory_unlock({}) FROM unnest(%s::bigint[]) r (key)").format(claim)
    last = -(2**63)
    # Raw: names of a user's own may have a % in them.
    while rows := RawCursor(connection).execute(statement, [last]).fetchall():
        last = rows[-1][0]
        ours = [row for *row, claimed in rows if claimed]
        try:
            yield [tuple(row) for row in ours]
        finally:
            if keeps_sessions and not connection.broken:
                connection.execute(unlock, [[key for key, *_ in ours]])


def embed_all(connection: Connection, space: Space, embedder: Embedder, title: str, progress: bool | None) -> Embedded:
    """Embed until no chunk lacks a vector in a space, those too that others write meanwhile.

    Each batch is a transaction: interrupted or killed, the next call does the rest.
    """
    done = Embedded()
    for _ in range(_PASSES):  # who writes faster than this would have us run behind for ever
        left = missing(connection, space)
        if not left:
            break
        with progress_bar(title, left, progress) as advance:
            some = embed_missing(connection, space, embedder, advance)
        done.chunks += some.chunks
        done.truncated += some.truncated
        done.pruned_vectors += some.pruned_vectors
        done.pruned_entries += some.pruned_entries
    return done


def _is_refusal(error: Exception, _: Sequence[tuple[Any, ...]]) -> bool:
    return isinstance(error, RejectedText)


def _refused(error: Exception, _: Sequence[tuple[Any, ...]]) -> tuple[int, ...]:
    assert isinstance(error, RejectedText)
    return error.positions


def _refusal(space: Space, refused: Sequence[tuple[tuple[Any, ...], Exception]]) -> RejectedText:
    named = ", ".join(repr(id) for (_, id, *_), _ in refused[:_NAMED]) + (", …" if len(refused) > _NAMED else "")
    return RejectedText(
        f"{len(refused)} chunks of {space.chunk_table} have no vector in {space.name}: {named}. The others have one. "
        f"Change their texts, or delete them, and run it again ({refused[0][1]})"
    )


def _embed(
    connection: Connection, target: Target, embedder: Embedder, rows: Sequence[tuple[Any, ...]], done: Embedded
) -> None:
    space = target.space
    whole = [embedded_text(text, {CONTEXT: context}) for _, _, text, context in rows]
    texts, too_long = fitted(embedder, whole)
    vectors = embed_texts(embedder, texts, connection)
    try:
        stacked = target.kind.stack(vectors, space.dimensions, space.distance, 0)
        done.chunks += _write(connection, target, rows, stacked)
        done.truncated += len(too_long)
    except InvalidRecord as error:
        _, _, problem = str(error).partition(": ")
        raise EmbeddingError(
            f"embedder {embedder.name}: its vector of chunk {rows[error.row][1]!r} {problem}"
        ) from error


def _write(connection: Connection, target: Target, rows: Sequence[tuple[Any, ...]], vectors: NDArray[Any]) -> int:
    """Write the vectors of rows that are as they were read; return how many."""
    if target.space.registered:
        return _fill(connection, target, rows, vectors)
    # In the order in which loaders lock rows, against deadlocks.
    unchanged = sql.SQL(
        'SELECT d.key, {} FROM {} d WHERE d.key = ANY (%s) ORDER BY d.id COLLATE "C" FOR UPDATE'
    ).format(_EMBEDDED, target.space.chunks)

    def write() -> int:
        read = connection.execute(unchanged, [[key for key, *_ in rows]]).fetchall()
        there = {key: embedded for key, *embedded in read}
        kept = np.flatnonzero([there.get(key) == embedded for key, _, *embedded in rows]).tolist()
        load.replace_vectors(connection, target, [rows[row][0] for row in kept], vectors[kept], kept)
        return len(kept)

    return load.in_transaction(connection, target, write)


def _fill(connection: Connection, target: Target, rows: Sequence[tuple[Any, ...]], vectors: NDArray[Any]) -> int:
    """Write vectors into rows of a registered table that have none, and the text that was read; return how many."""
    space = target.space
    statement = _fill_statement(connection, space)
    bound = [target.kind.query(vector, space.dimensions, space.distance) for vector in vectors]
    with connection.transaction():
        cursor = RawCursor(connection)
        cursor.executemany(
            statement, [(vector, key, text) for vector, (key, _, text, _) in zip(bound, rows, strict=True)]
        )
        return max(0, cursor.rowcount)


def _fill_statement(connection: Connection, space: Space) -> bytes:
    """Return the statement that writes a vector into a registered table (SQL: `pgvec._fill_sql`)."""
    row = connection.execute(
        "SELECT pgvec._fill_sql(pgvec._collection(c.name), pgvec._current_space(s))"
        " FROM pgvec.vector_spaces s JOIN pgvec.collections c ON c.id = s.collection_id WHERE s.id = %s",
        [space.id],
    ).fetchone()
    assert row is not None
    return str(row[0]).encode()
