"""Batches into tables: binary COPY into place for new rows, through staging for those that are there.

Each batch is one transaction. Two loaders may write the same ids at once: the unique index lets one
of them in, the other starts its batch over and finds the rows there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from numpy.typing import NDArray
from pgvector import SparseVector
from psycopg import sql

from pgvec_toolkit.errors import InvalidRecord, SwapError
from pgvec_toolkit.ingest import binary
from pgvec_toolkit.ingest.batch import Batch
from pgvec_toolkit.pool import Connection
from pgvec_toolkit.schema.columns import ColumnType
from pgvec_toolkit.schema.space import Space
from pgvec_toolkit.vectors import VectorType, vector_type

_RETRIES = 5
LOST_RACES = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)
_CHUNK_COLUMNS = ("key", "id", "document_id", "position", "text", "metadata")
_VECTOR_COLUMNS = ("key", "embedding")
_MOST_INDEXED = 1000  # non-zero numbers of a sparsevec that an HNSW index holds
_T = TypeVar("_T")


@dataclass(frozen=True)
class Target:
    """A space that is loaded, and the typed columns of its chunk table, in table order.

    Attributes:
        space: whose vectors are written.
        typed: the typed columns.
        must_be_default: whether nothing is to be written once another space is the default one.
    """

    space: Space
    typed: dict[str, ColumnType]
    must_be_default: bool = False

    @property
    def kind(self) -> VectorType:
        """The type of the space's vectors."""
        return vector_type(self.space.type)

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
        truncated: of all these, rows whose text was embedded now, and is longer than the embedder reads.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    truncated: int = 0

    def add(self, other: Written) -> None:
        """Add another load's counts to these."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.truncated += other.truncated


def in_transaction(connection: Connection, target: Target, write: Callable[[], _T]) -> _T:
    """Run write() in a transaction; if another loader wins a race for the same rows, again with nobody else."""
    alone = sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(target.space.chunks)  # searches go on
    lost = 0
    while True:
        try:
            with connection.transaction():
                if lost:
                    connection.execute(alone)
                check_default(connection, target)
                return write()
        except LOST_RACES:
            lost += 1
            if lost > _RETRIES:
                raise


def check_default(connection: Connection, target: Target) -> None:
    """See to it that no other space becomes the default one until the transaction ends; to be called at its beginning.

    Raises:
        SwapError: one has.
    """
    if not target.must_be_default:
        return
    # `pgvec.switch_space` waits for who writes chunks. Two statements in one round trip: the second sees what was
    # committed before the first had its lock.
    statement = sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE; SELECT is_default FROM pgvec.vector_spaces WHERE id = {}")
    cursor = connection.execute(statement.format(target.space.chunks, sql.Literal(target.space.id)), prepare=False)
    cursor.nextset()
    if cursor.fetchone() != (True,):
        raise switched(target.space)


def switched(space: Space) -> SwapError:
    """Return the error of who writes vectors of a space that searches no longer use."""
    return SwapError(
        f"the model of {space.chunk_table} was swapped while this was being written: {space.name} is no longer its "
        "vector space. What was committed is kept; run it again, and the rest is embedded by the new model"
    )


class _Overtaken(Exception):
    """A row that was to keep its vector no longer has one, or has one of another text."""


def at_once() -> None:
    """Wait for nothing before a commit."""


def upsert(
    connection: Connection,
    target: Target,
    prepare: Callable[[bool], Sequence[Batch]],
    take_turn: Callable[[], None] = at_once,
) -> Written:
    """Write the batches of prepare(False) in one transaction: insert new ids, replace the rows of known ones.

    A batch without vectors holds rows whose texts are stored already, and leaves their vectors as they are;
    if another loader changes one of them meanwhile, it is all prepared anew, by prepare(True). Before it commits,
    take_turn() is called.
    """
    overtaken = 0
    while True:
        parts = prepare(overtaken > 0)

        def write(parts: Sequence[Batch] = parts) -> Written:
            written, documents = Written(), set[str]()
            for part in parts:
                written.add(_upsert_part(connection, target, part, documents))
            take_turn()
            _forget_in_ledger(connection, target, documents)
            return written

        try:
            return in_transaction(connection, target, write)
        except _Overtaken:
            overtaken += 1
            if overtaken > _RETRIES:
                raise


def _upsert_part(connection: Connection, target: Target, batch: Batch, documents: set[str]) -> Written:
    """Write a batch; the documents that its rows are of, and were of, are added to `documents`."""
    known, before = known_rows(connection, target, batch.ids)
    documents |= before | _documents(batch)
    fresh = [row for row, id in enumerate(batch.ids) if id not in known]
    there = [row for row, id in enumerate(batch.ids) if id in known]
    if fresh and batch.vectors is None:
        raise _Overtaken
    if fresh:
        # The common case, a batch of new rows only, is copied as it is.
        insert(connection, target, batch.take(fresh) if there else batch)
    updated = 0
    if there:
        updated = _update(connection, target, batch.take(there), [known[batch.ids[row]] for row in there])
    return Written(len(fresh), updated, len(there) - updated, batch.truncated)


def insert_new(
    connection: Connection, target: Target, batch: Batch, take_turn: Callable[[], None] = at_once
) -> Written:
    """Write a batch of which no id is there yet; UniqueViolation, and nothing written, if one is.

    Before it commits, take_turn() is called.
    """
    with connection.transaction():
        check_default(connection, target)
        insert(connection, target, batch)
        take_turn()
        _forget_in_ledger(connection, target, _documents(batch))
    return Written(inserted=len(batch))


def insert(connection: Connection, target: Target, batch: Batch) -> None:
    """Copy new rows straight into place; to be called in a transaction."""
    keys = _new_keys(connection, target, len(batch))
    # Encoded before anything is sent: a value that cannot be stored is found while nothing is written.
    chunk_rows = binary.chunk_rows(batch, keys, target.typed)
    _copy(connection, target.space.chunks, target.chunk_columns, chunk_rows)
    if batch.vectors is not None:
        with _fitting_the_index(batch.vectors, batch.rows):
            _copy_vectors(connection, target, target.space.vectors, keys, batch.vectors)


def _documents(batch: Batch) -> set[str]:
    given = batch.fields.get("document_id", batch.ids)
    return {id if document is None else document for document, id in zip(given, batch.ids, strict=True)}


def known_rows(connection: Connection, target: Target, ids: Sequence[str]) -> tuple[dict[str, int], set[str]]:
    """Return the keys and the documents of ids that are stored; rows are locked in one order, against deadlocks."""
    # A lookup per id: what a planner that has no statistics yet makes of = ANY is a scan of the whole table.
    statement = sql.SQL(
        "SELECT wanted.id, found.key, found.document_id FROM unnest(%s::text[]) AS wanted (id) "
        "CROSS JOIN LATERAL (SELECT d.key, d.document_id FROM {} d WHERE d.id = wanted.id FOR UPDATE) found"
    ).format(target.space.chunks)
    rows = connection.execute(statement, [sorted(ids)]).fetchall()
    return {id: key for id, key, _ in rows}, {document for _, _, document in rows}


def _new_keys(connection: Connection, target: Target, count: int) -> Sequence[int]:
    """Draw keys from the chunk table's sequence; they are a range, unless another loader drew at the same time."""
    row = connection.execute(
        "WITH sequence AS MATERIALIZED (SELECT pg_get_serial_sequence(%s, 'key')::regclass AS name),"
        " drawn AS MATERIALIZED (SELECT nextval(s.name) AS key FROM sequence s, generate_series(1, %s))"
        " SELECT min(key), max(key), CASE WHEN max(key) - min(key) + 1 > count(*) THEN array_agg(key) END FROM drawn",
        [target.space.chunks.as_string(connection), count],
    ).fetchone()
    assert row is not None
    first, last, scattered = row
    return scattered if scattered is not None else range(first, last + 1)


def _copy(connection: Connection, table: sql.Identifier, columns: Sequence[str], rows: bytes) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor().copy(statement) as copy:
        copy.write(rows)


def _copy_vectors(
    connection: Connection, target: Target, table: sql.Identifier, keys: Sequence[int], vectors: NDArray[Any]
) -> None:
    oid = connection.adapters.types.get_oid("vector")
    _copy(connection, table, _VECTOR_COLUMNS, target.kind.rows(keys, vectors, oid))


def _update(connection: Connection, target: Target, batch: Batch, keys: Sequence[int]) -> int:
    """Replace rows through a staging table; rows that are the same are left alone, so no index is touched for them."""
    staging = _staging(connection, target.space.chunks, target.chunk_columns)
    _copy(connection, staging, target.chunk_columns, binary.chunk_rows(batch, keys, target.typed))
    if batch.vectors is None:
        same = sql.SQL(
            "SELECT count(*) FROM {} s JOIN {} t USING (key) JOIN {} v USING (key) "
            "WHERE t.text IS NOT DISTINCT FROM s.text"
        )
        row = connection.execute(same.format(staging, target.space.chunks, target.space.vectors)).fetchone()
        if row != (len(batch),):
            raise _Overtaken
    columns = [sql.Identifier(name) for name in target.chunk_columns if name not in ("key", "id")]
    update = sql.SQL(
        "UPDATE {table} t SET {assignments} FROM {staging} s "
        "WHERE t.key = s.key AND ({old}) IS DISTINCT FROM ({new}) RETURNING t.key"
    ).format(
        table=target.space.chunks,
        staging=staging,
        assignments=sql.SQL(", ").join(sql.SQL("{0} = s.{0}").format(column) for column in columns),
        old=sql.SQL(", ").join(sql.SQL("t.{}").format(column) for column in columns),
        new=sql.SQL(", ").join(sql.SQL("s.{}").format(column) for column in columns),
    )
    touched = {key for (key,) in connection.execute(update).fetchall()}
    if batch.vectors is not None:
        touched |= replace_vectors(connection, target, keys, batch.vectors, batch.rows)
    return len(touched)


def replace_vectors(
    connection: Connection, target: Target, keys: Sequence[int], vectors: NDArray[Any], rows: Sequence[int]
) -> set[int]:
    """Write the vectors of known rows, those only that differ; return the keys of these.

    `rows` are their positions in the input, by which errors name one.
    """
    staging = _staging(connection, target.space.vectors, _VECTOR_COLUMNS)
    _copy_vectors(connection, target, staging, keys, vectors)
    insert = sql.SQL(
        "INSERT INTO {table} AS t (key, embedding) SELECT s.key, s.embedding FROM {staging} s "
        "ON CONFLICT (key) DO UPDATE SET embedding = excluded.embedding "
        "WHERE t.embedding OPERATOR({schema}.<>) excluded.embedding RETURNING t.key"
    ).format(
        table=target.space.vectors,
        staging=staging,
        schema=sql.Identifier(target.space.vector_schema if target.kind.own_operators else "pg_catalog"),
    )
    with _fitting_the_index(vectors, rows):
        return {key for (key,) in connection.execute(insert).fetchall()}


@contextmanager
def _fitting_the_index(vectors: NDArray[Any], rows: Sequence[int]) -> Iterator[None]:
    """Say of which row it is that the index of a space cannot hold its vector."""
    try:
        yield
    except psycopg.errors.ProgramLimitExceeded as error:
        for row, vector in zip(rows, vectors, strict=True):
            if isinstance(vector, SparseVector) and len(vector.indices()) > _MOST_INDEXED:
                raise InvalidRecord(
                    row,
                    "vector",
                    f"has {len(vector.indices()):,} non-zero numbers, and the HNSW index of its space holds "
                    f"{_MOST_INDEXED:,}: keep the largest, or drop the index",
                ) from error
        raise


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


def _forget_in_ledger(connection: Connection, target: Target, documents: Collection[str]) -> None:
    """Drop the ledger rows of documents whose chunks are written one by one: they are no longer as ingested."""
    ingested = connection.execute(
        "SELECT EXISTS (SELECT FROM pgvec.ledger WHERE collection_id = %s)", [target.space.collection_id]
    ).fetchone()
    if ingested is None or not ingested[0]:
        return
    connection.execute(
        "DELETE FROM pgvec.ledger WHERE collection_id = %s AND document_id = ANY (%s)",
        [target.space.collection_id, list(documents)],
    )
