"""Vectors for rows that are stored already: how a vector space that was added to a collection is filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgvec_toolkit.errors import InvalidRecord
from pgvec_toolkit.ingest import load
from pgvec_toolkit.ingest.batch import Batch, batch_of, cut
from pgvec_toolkit.ingest.load import Target
from pgvec_toolkit.pool import Connection

_ROWS_AT_ONCE = 5000


def set_vectors(connection: Connection, target: Target, ids: Sequence[str | int], vectors: Any) -> int:
    """Write the vectors of stored rows in one transaction; return how many were new or differed.

    Args:
        connection: to write on.
        target: the vector space; its typed columns do not matter.
        ids: of rows, one for each vector; of an id given twice the last vector counts.
        vectors: a sequence or array of them, as `upsert` takes them.

    Raises:
        InvalidRecord: an id is unknown, or a vector is none of the space; nothing was written.
    """

    def write() -> int:
        parts = cut({"id": ids, "vector": vectors}, _ROWS_AT_ONCE)
        return sum(_write(connection, target, first_row, fields) for first_row, fields in parts)

    return load.in_transaction(connection, target, write)


def _write(connection: Connection, target: Target, first_row: int, fields: dict[str, Any]) -> int:
    batch = batch_of(first_row, fields, target.kind, target.space.dimensions, target.space.distance)
    if batch.vectors is None:
        raise batch.invalid(0, "vector", "is missing")
    return len(load.replace_vectors(connection, target, _keys(connection, target, batch), batch.vectors, batch.rows))


def _keys(connection: Connection, target: Target, batch: Batch) -> list[int]:
    known, _ = load.known_rows(connection, target, batch.ids)
    for row, id in enumerate(batch.ids):
        if id not in known:
            raise InvalidRecord(batch.rows[row], "id", f"{id!r} is not stored: write the row first, with upsert")
    return [known[id] for id in batch.ids]
