"""The rows of chunk tables in PostgreSQL's binary COPY format, encoded a batch at a time.

Format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format).
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pgvec_toolkit.ingest.batch import OWN_FIELDS, Batch
from pgvec_toolkit.schema import columns
from pgvec_toolkit.vectors import HEADER, TRAILER

_NOT_OF_THE_TYPE = (TypeError, ValueError, OverflowError, struct.error)


def plain(value: Any) -> Any:
    """Turn what JSON does not know into what it does: numpy scalars and arrays, dates, sets."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be stored as JSON")


_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain).encode


def encode(batch: Batch, typed: dict[str, columns.ColumnType]) -> Batch:
    """Return the batch with its columns encoded: id, document_id, position, text, metadata, typed columns in order."""
    nothing: Sequence[Any] = [None] * len(batch)
    get = batch.fields.get
    documents = [
        id if given is None else given for given, id in zip(get("document_id", nothing), batch.ids, strict=True)
    ]
    positions = [0 if given is None else given for given in get("position", nothing)]
    encoded = [
        _encode(batch, "id", batch.ids, columns.indexed_text_field),
        _encode(batch, "document_id", documents, columns.indexed_text_field),
        _encode(batch, "position", positions, columns.int4_field),
        _encode(batch, "text", get("text", nothing), columns.text_field),
        _encode(batch, "metadata", _metadata(batch, typed), _json_field),
    ]
    for name, kind in typed.items():
        encoded.append(_encode(batch, name, get(name, nothing), kind.field))
    return replace(batch, encoded=encoded)


def chunk_rows(batch: Batch, keys: Sequence[int], typed: dict[str, columns.ColumnType]) -> bytes:
    """Return the rows of a chunk table: key, then the encoded columns of the batch."""
    encoded = batch.encoded if batch.encoded is not None else encode(batch, typed).encoded
    assert encoded is not None
    # The number of fields and the key begin every row.
    heads = struct.Struct(">hiq")
    count = 1 + len(encoded)
    rows = zip([heads.pack(count, 8, key) for key in keys], *encoded, strict=True)
    return HEADER + b"".join(itertools.chain.from_iterable(rows)) + TRAILER


def _encode(batch: Batch, name: str, values: Sequence[Any], field: Callable[[Any], bytes]) -> list[bytes]:
    """Encode one column; the whole column at once, and only if that fails value by value, to name the row."""
    null = columns.NULL
    try:
        return [null if value is None else field(value) for value in values]
    except _NOT_OF_THE_TYPE:
        for row, value in enumerate(values):
            try:
                if value is not None:
                    field(value)
            except _NOT_OF_THE_TYPE as error:
                raise batch.invalid(row, name, str(error)) from error
        raise


def _metadata(batch: Batch, typed: dict[str, columns.ColumnType]) -> list[dict[str, Any]]:
    """Collect what is neither one of our fields nor a typed column; None counts as absent."""
    rest = [(name, values) for name, values in batch.fields.items() if name not in OWN_FIELDS and name not in typed]
    own = batch.fields.get("metadata")
    collected: list[dict[str, Any]] = []
    for row in range(len(batch)):
        metadata: dict[str, Any] = {}
        if own is not None and own[row] is not None:
            if not isinstance(own[row], Mapping):
                raise batch.invalid(row, "metadata", f"{own[row]!r} is not a mapping")
            metadata.update(own[row])
        for name, values in rest:
            if values[row] is not None:
                metadata[name] = values[row]
        collected.append(metadata)
    return collected


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nul(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _json_field(value: dict[str, Any]) -> bytes:
    text = _to_json(value)
    if "\\u0000" in text and _has_nul(json.loads(text)):
        raise ValueError("contains a NUL character, which PostgreSQL cannot store: remove it")
    encoded = text.encode()
    return struct.pack(">ib", 1 + len(encoded), 1) + encoded  # 1: version of jsonb's wire format
