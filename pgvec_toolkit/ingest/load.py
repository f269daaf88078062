"""Batches into tables: binary COPY into place for new rows, through staging for those that are there.

Each batch is one transaction. Two loaders may write the same ids at once: the unique index lets one
of them in, the other starts its batch over and finds the rows there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import sql

from pgvec_toolkit.database import Connection
from pgvec_toolkit.ingest import binary
from pgvec_toolkit.ingest.batch import Batch
from pgvec_toolkit.schema.columns import ColumnType

_RETRIES = 5
_LOST_RACES = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)
_CHUNK_COLUMNS = ("key", "id", "document_id", "position", "text", "metadata")
_VECTOR_COLUMNS = ("key", "embedding")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Target:
    """The two tables of a collection that are loaded, and its typed columns in table order."""

    collection_id: int
    chunks: sql.Identifier
    vectors: sql.Identifier
    typed: dict[str, ColumnType]
    vector_schema: str

    @property
    def chunk_columns(self) -> list[str]:
        """All columns of the chunk table that a load writes."""
        return [*_CHUNK_COLUMNS, *self.typed]


@dataclass
class Written:
    """What a load did.

    Attributes:
        inserted: rows that were not there before.
        updated: rows that were there and of which something differed.
        unchanged: rows that were there, the same.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0

    def add(self, other: Written) -> None:
        """Add another load's counts to these."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.unchanged += other.unchanged


def retried(transaction: Callable[[], _T]) -> _T:
    """Run a transaction; run it again if a concurrent loader won a race for the same rows."""
    for _ in range(_RETRIES):
        try:
            return transaction()
        except _LOST_RACES:
            continue
    return transaction()


def upsert(connection: Connection, target: Target, *parts: Batch) -> Written:
    """Write batches in one transaction: insert new ids, replace the rows of known ones.

    A part without vectors leaves the vectors of its rows as they are. Of an id given twice in a part
    the last counts.
    """

    def transaction() -> Written:
        written = Written()
        with connection.transaction():
            for part in parts:
                written.add(_upsert_part(connection, target, _last_of_each(part)))
        return written

    return retried(transaction)


def _upsert_part(connection: Connection, target: Target, batch: Batch) -> Written:
    known = _known_keys(connection, target, batch.ids)
    fresh = [row for row, id in enumerate(batch.ids) if id not in known]
    there = [row for row, id in enumerate(batch.ids) if id in known]
    if fresh:
        # The common case, a batch of new rows only, is copied as it is.
        insert(connection, target, batch.take(fresh) if there else batch)
    updated = 0
    if there:
        updated = _update(connection, target, batch.take(there), [known[batch.ids[row]] for row in there])
    _forget_in_ledger(connection, target, batch)
    return Written(inserted=len(fresh), updated=updated, unchanged=len(there) - updated)


def _last_of_each(batch: Batch) -> Batch:
    last = {id: row for row, id in enumerate(batch.ids)}
    return batch if len(last) == len(batch) else batch.take(sorted(last.values()))


def insert(connection: Connection, target: Target, batch: Batch) -> None:
    """Copy new rows straight into place; to be called in a transaction."""
    keys = _new_keys(connection, target, len(batch))
    # Encoded before anything is sent: a value that cannot be stored is found while nothing is written.
    chunk_rows = binary.chunk_rows(batch, keys, target.typed)
    _copy(connection, target.chunks, target.chunk_columns, chunk_rows)
    if batch.vectors is not None:
        _copy(connection, target.vectors, _VECTOR_COLUMNS, binary.vector_rows(keys, batch.vectors))


def _known_keys(connection: Connection, target: Target, ids: Sequence[str]) -> dict[str, int]:
    """Return the keys of ids that are stored, their rows locked in one order so that loaders cannot deadlock."""
    statement = sql.SQL("SELECT id, key FROM {} WHERE id = ANY (%s) ORDER BY key FOR UPDATE").format(target.chunks)
    return dict(connection.execute(statement, [list(ids)]).fetchall())


def _new_keys(connection: Connection, target: Target, count: int) -> list[int]:
    statement = sql.SQL(
        "SELECT nextval(s.name) FROM (SELECT pg_get_serial_sequence(%s, 'key')::regclass AS name) s, "
        "generate_series(1, %s)"
    )
    table = target.chunks.as_string(connection)
    return [key for (key,) in connection.execute(statement, [table, count]).fetchall()]


def _copy(connection: Connection, table: sql.Identifier, columns: Sequence[str], rows: bytes) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor().copy(statement) as copy:
        copy.write(rows)


def _update(connection: Connection, target: Target, batch: Batch, keys: Sequence[int]) -> int:
    """Replace rows through a staging table; rows that are the same are left alone, so no index is touched for them."""
    staging = _staging(connection, target.chunks, target.chunk_columns)
    _copy(connection, staging, target.chunk_columns, binary.chunk_rows(batch, keys, target.typed))
    columns = [sql.Identifier(name) for name in target.chunk_columns if name not in ("key", "id")]
    update = sql.SQL(
        "UPDATE {table} t SET {assignments} FROM {staging} s "
        "WHERE t.key = s.key AND ({old}) IS DISTINCT FROM ({new}) RETURNING t.key"
    ).format(
        table=target.chunks,
        staging=staging,
        assignments=sql.SQL(", ").join(sql.SQL("{0} = s.{0}").format(column) for column in columns),
        old=sql.SQL(", ").join(sql.SQL("t.{}").format(column) for column in columns),
        new=sql.SQL(", ").join(sql.SQL("s.{}").format(column) for column in columns),
    )
    touched = {key for (key,) in connection.execute(update).fetchall()}
    if batch.vectors is not None:
        touched |= _replace_vectors(connection, target, keys, batch)
    return len(touched)


def _replace_vectors(connection: Connection, target: Target, keys: Sequence[int], batch: Batch) -> set[int]:
    """Write the vectors of known rows, those only that differ; return the keys of these."""
    assert batch.vectors is not None
    staging = _staging(connection, target.vectors, _VECTOR_COLUMNS)
    _copy(connection, staging, _VECTOR_COLUMNS, binary.vector_rows(keys, batch.vectors))
    insert = sql.SQL(
        "INSERT INTO {table} AS t (key, embedding) SELECT s.key, s.embedding FROM {staging} s "
        "ON CONFLICT (key) DO UPDATE SET embedding = excluded.embedding "
        "WHERE t.embedding OPERATOR({schema}.<>) excluded.embedding RETURNING t.key"
    ).format(table=target.vectors, staging=staging, schema=sql.Identifier(target.vector_schema))
    return {key for (key,) in connection.execute(insert).fetchall()}


def _staging(connection: Connection, table: sql.Identifier, columns: Sequence[str]) -> sql.Identifier:
    """Create an empty temporary table with these columns of another; it is replaced by the next of its name."""
    staging = sql.Identifier("pg_temp", f"pgvec_staging_{columns[-1]}")
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(staging))
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            staging, sql.SQL(", ").join(map(sql.Identifier, columns)), table
        )
    )
    return staging


def _forget_in_ledger(connection: Connection, target: Target, batch: Batch) -> None:
    """Drop the ledger rows of documents whose chunks are written one by one: they are no longer as ingested."""
    given = batch.fields.get("document_id", batch.ids)
    documents = {id if document is None else document for document, id in zip(given, batch.ids, strict=True)}
    connection.execute(
        "DELETE FROM pgvec.ledger WHERE collection_id = %s AND document_id = ANY (%s)",
        [target.collection_id, list(documents)],
    )
