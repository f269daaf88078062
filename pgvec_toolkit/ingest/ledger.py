"""What the catalogue knows of documents: the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgvec_toolkit.pool import Connection


@dataclass(frozen=True)
class Entry:
    """A document as the ledger has it.

    Attributes:
        content_hash: over all that decided what was written.
        source: the file it was read from, if it was one.
    """

    content_hash: bytes
    source: str | None


def entries(connection: Connection, collection_id: int, document_ids: Sequence[str]) -> dict[str, Entry]:
    """Return what the ledger has of some documents, by id."""
    rows = connection.execute(
        "SELECT document_id, content_hash, source FROM pgvec.ledger"
        " WHERE collection_id = %s AND document_id = ANY (%s)",
        [collection_id, list(document_ids)],
    ).fetchall()
    return {id: Entry(content_hash, source) for id, content_hash, source in rows}


def enter(connection: Connection, collection_id: int, documents: Iterable[tuple[str, bytes, int, Path | None]]) -> None:
    """Enter documents: id, content hash, number of chunks, source.

    In one order: whoever ingests the same document at the same time waits here.
    """
    connection.cursor().executemany(
        "INSERT INTO pgvec.ledger AS l (collection_id, document_id, content_hash, chunks, source) "
        "VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (collection_id, document_id) DO UPDATE "
        "SET content_hash = excluded.content_hash, chunks = excluded.chunks, source = excluded.source, "
        "ingested_at = now(), version = l.version + (l.content_hash <> excluded.content_hash)::integer",
        [
            (collection_id, id, content_hash, chunks, None if source is None else str(source))
            for id, content_hash, chunks, source in sorted(documents, key=lambda document: document[0])
        ],
    )
