"""Texts that are stored into a vector space that was added: each chunk that has no vector there gets one."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.ingest.load import Target
from pgvec_toolkit.ingest.space_vectors import set_vectors
from pgvec_toolkit.pool import Connection
from pgvec_toolkit.progress import Advance
from pgvec_toolkit.schema.space import Space

_TEXTS_AT_ONCE = 256


def missing(connection: Connection, space: Space) -> int:
    """Return how many chunks with text have no vector in a space."""
    statement = sql.SQL("SELECT count(*) FROM {} d LEFT JOIN {} v USING (key) WHERE {}")
    row = connection.execute(statement.format(space.chunks, space.vectors, _WITHOUT)).fetchone()
    assert row is not None
    return int(row[0])


def embed_missing(connection: Connection, space: Space, embedder: Embedder, advance: Advance) -> int:
    """Embed the chunks that have no vector in a space; return how many.

    Each batch is a transaction: interrupted or killed, the next call does the rest.
    """
    statement = sql.SQL(
        "SELECT d.key, d.id, d.text FROM {} d LEFT JOIN {} v USING (key) "
        "WHERE {} AND d.key > %s ORDER BY d.key LIMIT {}"
    ).format(space.chunks, space.vectors, _WITHOUT, sql.Literal(_TEXTS_AT_ONCE))
    done, last = 0, -(2**63)
    while rows := connection.execute(statement, [last]).fetchall():
        texts = [text for _, _, text in rows]
        vectors: Any = embedding.checked(embedder.embed_documents(texts), (len(texts), space.dimensions), embedder)
        set_vectors(connection, Target(space, {}), [id for _, id, _ in rows], vectors)
        done, last = done + len(rows), rows[-1][0]
        advance(len(rows))
    return done


# Blank texts have no vector: of some models it would be zero.
_WITHOUT = sql.SQL(r"v.key IS NULL AND d.text ~ '\S'")
