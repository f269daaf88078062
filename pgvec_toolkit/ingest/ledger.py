"""What the catalogue knows of documents: the ledger of those that were written, and the failures of others."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from psycopg.types.json import Jsonb

from pgvec_toolkit.ingest import binary
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.pool import Connection

Stage = Literal["read", "chunk", "embed", "write"]
_LONGEST_ID = 2000  # bytes: more do not fit into the index of the table

# In the order of all who write documents: whoever writes the same ones is waited for, not in a deadlock.
_LOCKED = (
    "SELECT document_id FROM pgvec.{} WHERE collection_id = %(collection)s AND document_id = ANY (%(ids)s)"
    ' ORDER BY document_id COLLATE "C" FOR UPDATE'
)


@dataclass(frozen=True)
class Entry:
    """A document as the ledger has it.

    Attributes:
        content_hash: over all that decided what was written; None if it was never written.
        source: the file it was read from, if it was one.
        failed: whether it failed since.
    """

    content_hash: bytes | None
    source: str | None
    failed: bool


@dataclass(frozen=True)
class Failure:
    """A document that could not be ingested; what was stored of it before is still there.

    Attributes:
        document_id: of the document, or of the part of a file that could not be read.
        stage: read, chunk, embed or write.
        error: why, and what to do.
        attempts: how often it failed.
        source: the file it comes from, if it is one.
        first_at: when it failed first.
        last_at: when it failed last.
        retriable: whether `retry` can: the file can be read again, or the document is kept.
    """

    document_id: str
    stage: str
    error: str
    attempts: int
    source: str | None
    first_at: dt.datetime
    last_at: dt.datetime
    retriable: bool


@dataclass(frozen=True)
class Failed:
    """A document that has just failed, with all that another attempt needs."""

    document: Document | Unreadable
    stage: Stage
    error: str


@dataclass(frozen=True)
class Kept:
    """What a failure keeps for another attempt: the document if it has no source, and the options."""

    failure: Failure
    payload: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def entries(connection: Connection, collection_id: int, document_ids: Sequence[str]) -> dict[str, Entry]:
    """Return what is known of some documents, by id."""
    rows = connection.execute(
        "SELECT document_id, l.content_hash, l.source, f.document_id IS NOT NULL"
        " FROM (SELECT document_id, content_hash, source FROM pgvec.ledger"
        "       WHERE collection_id = %(collection)s AND document_id = ANY (%(ids)s)) l"
        " FULL JOIN (SELECT document_id FROM pgvec.failures"
        "            WHERE collection_id = %(collection)s AND document_id = ANY (%(ids)s)) f USING (document_id)",
        {"collection": collection_id, "ids": list(document_ids)},
    ).fetchall()
    return {id: Entry(*rest) for id, *rest in rows}


def enter(
    connection: Connection, collection_id: int, documents: Sequence[tuple[str, bytes, int, Path | None]]
) -> dict[str, int]:
    """Enter documents: id, content hash, number of chunks, source; return the versions of those that differed.

    Who has written the same document at the same time is waited for here, in one order: if it was the same content,
    nothing is left to do.
    """
    columns: list[list[Any]] = [list(column) for column in zip(*documents, strict=True)]
    columns[3] = [None if source is None else str(source) for source in columns[3]]
    rows = connection.execute(
        "INSERT INTO pgvec.ledger AS l (collection_id, document_id, content_hash, chunks, source)"
        " SELECT %s, d.* FROM unnest(%s::text[], %s::bytea[], %s::integer[], %s::text[])"
        ' d (id, content_hash, chunks, source) ORDER BY d.id COLLATE "C"'
        " ON CONFLICT (collection_id, document_id) DO UPDATE"
        " SET content_hash = excluded.content_hash, chunks = excluded.chunks, source = excluded.source,"
        " ingested_at = now(), version = l.version + 1"
        " WHERE l.content_hash <> excluded.content_hash RETURNING l.document_id, l.version",
        [collection_id, *columns],
    ).fetchall()
    return dict(rows)


def move(connection: Connection, collection_id: int, sources: Mapping[str, Path]) -> None:
    """Note where unchanged documents are read from now."""
    connection.execute(
        f"WITH locked AS ({_LOCKED.format('ledger')})"
        " UPDATE pgvec.ledger l SET source = d.source"
        " FROM locked JOIN unnest(%(ids)s::text[], %(sources)s::text[]) d (id, source) ON d.id = locked.document_id"
        " WHERE l.collection_id = %(collection)s AND l.document_id = locked.document_id",
        {"collection": collection_id, "ids": list(sources), "sources": [str(source) for source in sources.values()]},
    )


def below(connection: Connection, collection_id: int, folder: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the documents that were read from files below a folder, and the failures: id to source."""
    prefix = f"{folder.as_posix().rstrip('/')}/"
    rows = connection.execute(
        "SELECT document_id, content_hash, source FROM pgvec.ledger"
        " WHERE collection_id = %s AND starts_with(source, %s)",
        [collection_id, prefix],
    ).fetchall()
    failures: dict[str, str] = dict(
        connection.execute(
            "SELECT document_id, source FROM pgvec.failures WHERE collection_id = %s AND starts_with(source, %s)",
            [collection_id, prefix],
        ).fetchall()
    )
    return {id: Entry(content_hash, source, id in failures) for id, content_hash, source in rows}, failures


def unchanged(connection: Connection, collection_id: int, known: Mapping[str, Entry]) -> list[str]:
    """Lock what the ledger has of documents; return the ids of those that are as, and where, they were known."""
    rows = connection.execute(
        "SELECT document_id, content_hash, source FROM pgvec.ledger"
        " WHERE collection_id = %s AND document_id = ANY (%s)"
        ' ORDER BY document_id COLLATE "C" FOR UPDATE',
        [collection_id, list(known)],
    ).fetchall()
    return [id for id, *rest in rows if rest == [known[id].content_hash, known[id].source]]


_FAILURE = (
    "document_id, stage, error, attempts, source, first_at, last_at,"
    " payload IS NOT NULL OR source IS NOT NULL AS retriable"
)


def record(
    connection: Connection, collection_id: int, failed: Sequence[Failed], options: Mapping[str, Any]
) -> list[Failure]:
    """Record documents that failed; one that failed before has one attempt more."""
    latest = {storable_id(one.document.id): one for one in failed}
    recorded = []
    for id, one in sorted(latest.items()):
        source = None if one.document.source is None else storable(str(one.document.source))
        row = connection.execute(
            "INSERT INTO pgvec.failures AS f (collection_id, document_id, source, stage, error, payload, options)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (collection_id, document_id) DO UPDATE SET source = excluded.source, stage = excluded.stage,"
            " error = excluded.error, payload = excluded.payload, options = excluded.options,"
            f" attempts = f.attempts + 1, last_at = now() RETURNING {_FAILURE}",
            [
                collection_id,
                id,
                source,
                one.stage,
                storable(one.error),
                _payload(one.document),
                Jsonb(dict(options)),
            ],
        ).fetchone()
        assert row is not None
        recorded.append(Failure(*row))
    return recorded


def failures(connection: Connection, collection_id: int, document_ids: Sequence[str] | None = None) -> list[Kept]:
    """Return the failures of a collection, or those of some documents, in order of their ids."""
    rows = connection.execute(
        f"SELECT payload, options, {_FAILURE} FROM pgvec.failures"
        " WHERE collection_id = %s AND (%s::text[] IS NULL OR document_id = ANY (%s::text[])) ORDER BY document_id",
        [collection_id, document_ids, document_ids],
    ).fetchall()
    return [Kept(Failure(*rest), payload, options) for payload, options, *rest in rows]


def forget_failures(connection: Connection, collection_id: int, document_ids: Collection[str]) -> None:
    """Delete the failures of documents that are in, or that are no more."""
    if document_ids:
        connection.execute(
            f"WITH locked AS ({_LOCKED.format('failures')})"
            " DELETE FROM pgvec.failures f USING locked"
            " WHERE f.collection_id = %(collection)s AND f.document_id = locked.document_id",
            {"collection": collection_id, "ids": [storable_id(id) for id in document_ids]},
        )


def requeue_rows(connection: Connection, collection_id: int, document_ids: Sequence[str]) -> None:
    """Leave failures that are rows of an attached table to its workers."""
    connection.execute("SELECT pgvec._requeue_failed(%s, %s::text[])", [collection_id, list(document_ids)])


def kept_document(payload: Mapping[str, Any], row: int) -> Document:
    """Return a document that a failure kept."""
    return Document(row, payload["id"], payload["text"], payload["fields"], payload["format"])


def _payload(document: Document | Unreadable) -> Jsonb | None:
    """Return what is kept of a document: nothing if its file can be read again, or if JSON cannot hold it."""
    if isinstance(document, Unreadable) or document.source is not None:
        return None
    kept = {"id": document.id, "text": document.text, "fields": document.fields, "format": document.format}
    try:
        text = json.dumps(kept, default=binary.plain, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    return None if "\\u0000" in text else Jsonb(json.loads(text))


def storable(text: str) -> str:
    """Return a text as PostgreSQL can store it: what it cannot is written as an escape."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def storable_id(id: str) -> str:
    """Return the id that a failure is recorded with: a document's own, if PostgreSQL can store it."""
    id = storable(id)
    if len(id.encode()) <= _LONGEST_ID:
        return id
    return f"{id[:200]}…{hashlib.md5(id.encode(), usedforsecurity=False).hexdigest()}"
