"""From whatever holds records to batches of columns, checked so far that they can be stored.

A record is a mapping: `id`, `text`, `vector`, `document_id`, `position`, `metadata`, the collection's
typed columns; every other field joins `metadata`. Records come as an iterable of mappings, a mapping
of columns, a pyarrow Table, or a pandas DataFrame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord

Records = Any  # Iterable[Mapping] | Mapping[str, Sequence] | pyarrow.Table | pandas.DataFrame
OWN_FIELDS = ("id", "document_id", "position", "text", "vector", "metadata")


@dataclass
class Batch:
    """Some rows, column by column.

    Attributes:
        first_row: position in the input of its first row.
        ids: of shape (n,).
        fields: all fields but `id` and `vector`, as lists of length n; absent fields are left out.
        vectors: float32 of shape (n, dimensions), or None where text is to be embedded.
    """

    first_row: int
    ids: list[str]
    fields: Mapping[str, Sequence[Any]]
    vectors: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Batch:
        """Return a batch of the given rows only."""
        fields = {name: [values[row] for row in rows] for name, values in self.fields.items()}
        vectors = None if self.vectors is None else self.vectors[np.asarray(rows, dtype=np.intp)]
        return Batch(self.first_row, [self.ids[row] for row in rows], fields, vectors)


def batches(records: Records, dimensions: int, distance: Distance, size: int) -> Iterator[Batch]:
    """Cut records into batches of at most `size` rows; vectors are checked, other fields when encoded."""
    columns = _columns_of(records)
    raw = _cut_columns(columns, size) if columns is not None else _pivot(records, size)
    for first_row, fields in raw:
        if "id" not in fields:
            raise InvalidRecord(first_row, "id", "is missing: every record needs an id, by which it is found again")
        given = fields.pop("vector", None)
        vectors = None if given is None else _stack(given, dimensions, distance, first_row)
        yield Batch(first_row, _identifiers(fields.pop("id"), first_row), fields, vectors)


def check_vectors(vectors: NDArray[np.float32], distance: Distance, first_row: int) -> None:
    """Refuse what an index would silently lose or PostgreSQL refuse: NaN, infinities, zero vectors under cosine."""
    # Squared lengths find all three at once: they are NaN, infinite or zero.
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    for row in map(int, np.flatnonzero(~np.isfinite(squares))):
        if not np.isfinite(vectors[row]).all():
            raise InvalidRecord(first_row + row, "vector", "contains NaN or infinity")
    if distance is Distance.COSINE and not squares.all():
        row = first_row + int(np.flatnonzero(squares == 0)[0])
        raise InvalidRecord(row, "vector", "is zero: it has no direction, and a cosine index would never find it")


def _identifiers(given: Sequence[Any], first_row: int) -> list[str]:
    """Return ids as texts; whole numbers are taken, too."""
    ids = [str(value) if isinstance(value, int) and not isinstance(value, bool) else value for value in given]
    for row, value in enumerate(ids):
        if not isinstance(value, str) or not value or "\0" in value:
            problem = (
                "is missing" if value is None else f"{value!r} is not a text of at least one character, without NUL"
            )
            raise InvalidRecord(first_row + row, "id", problem)
    return ids


def _columns_of(records: Records) -> dict[str, Any] | None:
    """Return columnar input as a dict of sequences; None if records are rows."""
    if isinstance(records, Mapping):
        return dict(records)
    kind = type(records)
    if kind.__module__.startswith("pyarrow") and hasattr(records, "column_names"):
        return {name: records.column(name) for name in records.column_names}
    if kind.__module__.startswith("pandas") and hasattr(records, "columns"):
        return {str(name): records[name].to_list() for name in records.columns}
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise ConfigurationError(
            f"cannot read records from {kind.__name__}: give an iterable of mappings, a mapping of columns, "
            "a pyarrow Table or a DataFrame"
        )
    return None


def _cut_columns(columns: dict[str, Any], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigurationError(f"columns differ in length: {lengths}")
    total = next(iter(lengths.values()), 0)
    for start in range(0, total, size):
        yield start, {name: _slice(values, start, size) for name, values in columns.items()}


def _slice(values: Any, start: int, size: int) -> Any:
    if type(values).__module__.startswith("pyarrow"):
        part = values.slice(start, size)
        if "list" in str(part.type) and part.null_count == 0 and "float" in str(part.type):
            flat = part.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if len(flat) % max(len(part), 1) == 0 and len(set(part.combine_chunks().value_lengths().to_pylist())) == 1:
                return flat.reshape(len(part), -1)
        return part.to_pylist()
    part = values[start : start + size]
    # numpy scalars are not JSON, and not int: Python's own from here on
    return part.tolist() if isinstance(part, np.ndarray) and part.ndim == 1 and part.dtype != object else part


def _pivot(records: Iterable[Mapping[str, Any]], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = iter(records)
    first_row = 0
    while chunk := list(itertools.islice(rows, size)):
        names: dict[str, None] = {}
        for position, row in enumerate(chunk):
            if not isinstance(row, Mapping):
                raise ConfigurationError(f"row {first_row + position} is a {type(row).__name__}, not a mapping")
            names.update(dict.fromkeys(row))
        for position, row in enumerate(chunk):
            if "vector" in names and row.get("vector") is None:
                raise InvalidRecord(first_row + position, "vector", "is missing, while other rows of the batch have it")
        yield first_row, {str(name): [row.get(name) for row in chunk] for name in names}
        first_row += len(chunk)


def _stack(given: Any, dimensions: int, distance: Distance, first_row: int) -> NDArray[np.float32]:
    """Return vectors as one float32 array of shape (n, dimensions), or say which row does not fit."""
    if isinstance(given, np.ndarray) and given.ndim == 2:
        if given.shape[1] != dimensions:
            raise InvalidRecord(first_row, "vector", f"has {given.shape[1]} dimensions, not {dimensions}")
        vectors = np.ascontiguousarray(given, dtype=np.float32)
    else:
        rows = []
        for position, value in enumerate(given):
            try:
                row = np.asarray(value, dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise InvalidRecord(first_row + position, "vector", f"is not a list of numbers: {error}") from error
            if row.shape != (dimensions,):
                found = f"{row.shape[0]} dimensions" if row.ndim == 1 else f"shape {row.shape}"
                raise InvalidRecord(first_row + position, "vector", f"has {found}, not {dimensions} dimensions")
            rows.append(row)
        vectors = np.stack(rows) if rows else np.empty((0, dimensions), dtype=np.float32)
    check_vectors(vectors, distance, first_row)
    return vectors
