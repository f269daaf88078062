"""From whatever holds records to batches of columns, checked so far that they can be stored.

A record is a mapping: `id`, `text`, `vector`, `document_id`, `position`, `metadata`, the collection's
typed columns; every other field joins `metadata`. Records come as an iterable of mappings, a mapping
of columns, a pyarrow Table or a pandas DataFrame, or an iterable of these two, such as a reader of
record batches or of a file in pieces. A field that is None is missing, and so is one that
is NaN, NaT or NA, which is what pandas writes for None.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.vectors import VectorType

Table = Any  # pyarrow.Table | pyarrow.RecordBatch | pandas.DataFrame
Records = Any  # Iterable[Mapping] | Mapping[str, Sequence] | Table | Iterable[Table]
OWN_FIELDS = ("id", "document_id", "position", "text", "vector", "metadata")
_LISTS_OF_FLOATS = re.compile(r"\w*list<[^<>]*: (halffloat|float|double)( not null)?>(\[\d+\])?")
_SETTLED = frozenset((str, int, bool, type(None), dict, list))


@dataclass
class Batch:
    """Some rows, column by column.

    Attributes:
        rows: positions in the input, by which errors name a row.
        ids: of shape (n,).
        fields: all fields but `id` and `vector`, as lists of length n; absent fields are left out.
        vectors: of length n, as their type stacks them, or None where text is to be embedded.
        encoded: the columns of the chunk table but its key as fields of a binary COPY, once they are
            encoded (binary.encode).
        truncated: how many of its texts are longer than the embedder read of them.
    """

    rows: Sequence[int]
    ids: list[str]
    fields: Mapping[str, Sequence[Any]]
    vectors: NDArray[Any] | None
    encoded: list[list[bytes]] | None = None
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def invalid(self, row: int, field: str, problem: str) -> InvalidRecord:
        """Return the error for one of its rows, counted from 0."""
        return InvalidRecord(self.rows[row], field, f"{problem} (id {self.ids[row]!r})")

    def take(self, rows: Sequence[int]) -> Batch:
        """Return a batch of the given rows only, counted from 0."""
        fields = {name: [values[row] for row in rows] for name, values in self.fields.items()}
        vectors = None if self.vectors is None else self.vectors[np.asarray(rows, dtype=np.intp)]
        encoded = None if self.encoded is None else [[column[row] for row in rows] for column in self.encoded]
        return Batch([self.rows[row] for row in rows], [self.ids[row] for row in rows], fields, vectors, encoded)


def batches(records: Records, kind: VectorType, dimensions: int, distance: Distance, size: int) -> Iterator[Batch]:
    """Cut records into batches of at most `size` rows; vectors are checked, other fields when encoded."""
    for first_row, fields in cut(records, size):
        yield batch_of(first_row, fields, kind, dimensions, distance)


def cut(records: Records, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Cut records into columns of at most `size` rows, each with the position of its first row."""
    columns = _columns_of(records)
    return _cut_columns(columns, size) if columns is not None else _cut_items(records, size)


def number_of_rows(records: Records) -> int | None:
    """Return how many rows there are, if that can be told without drawing them."""
    if isinstance(records, Mapping):
        first: Any = next(iter(records.values()), ())
        return int(first.shape[0]) if _sparse(first) else len(first) if hasattr(first, "__len__") else None
    told = operator.length_hint(records, -1)
    return told if told >= 0 else None


def batch_of(first_row: int, fields: dict[str, Any], kind: VectorType, dimensions: int, distance: Distance) -> Batch:
    """Return columns as a batch, its ids and vectors checked; of an id given twice the last counts."""
    if "id" not in fields:
        raise InvalidRecord(first_row, "id", "is missing: every record needs an id, by which it is found again")
    given = fields.get("vector", ())
    if not (isinstance(given, np.ndarray) and given.ndim == 2):
        given = settle(given)
    there = any(vector is not None for vector in given)
    vectors = kind.stack(given, dimensions, distance, first_row) if there else None
    settled = {name: settle(values) for name, values in fields.items() if name != "vector"}
    ids = [identifier(id, first_row + row) for row, id in enumerate(settled.pop("id"))]
    batch = Batch(range(first_row, first_row + len(ids)), ids, settled, vectors)
    last = {id: row for row, id in enumerate(ids)}
    return batch if len(last) == len(ids) else batch.take(sorted(last.values()))


def settle(values: Iterable[Any]) -> list[Any]:
    """Return values as Python has them: numpy's scalars as its own, the signs for a missing value as None."""
    return [value if type(value) in _SETTLED else _settled(value) for value in values]


def _settled(value: Any) -> Any:
    if isinstance(value, np.generic):
        # Nanoseconds would come out as a bare number: datetime has microseconds.
        nanoseconds = value.dtype.kind == "M" and isinstance(value.item(), int)
        value = value.astype("datetime64[us]").item() if nanoseconds else value.item()
    if isinstance(value, float):
        return None if value != value else value
    return None if type(value).__name__ in ("NaTType", "NAType") else value


def identifier(value: Any, row: int) -> str:
    """Return an id as a text; whole numbers are taken, too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or value == "":
        raise InvalidRecord(row, "id", "is missing: every record needs an id, by which it is found again")
    try:
        storable = isinstance(value, str) and "\0" not in value and bool(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, as in file names that are not UTF-8
        storable = False
    if not storable:
        raise InvalidRecord(row, "id", f"{value!r} is not a text that PostgreSQL can store")
    return str(value)


def identifiers(document_ids: Sequence[str | int]) -> list[str]:
    """Return ids as texts; ConfigurationError if they are one text, which is a sequence, too."""
    if isinstance(document_ids, str):
        raise ConfigurationError("document_ids is a list of ids, not one text")
    return [identifier(id, row) for row, id in enumerate(document_ids)]


def _columns_of(records: Records) -> dict[str, Any] | None:
    """Return columnar input as a dict of sequences; None if records are rows."""
    if isinstance(records, Mapping):
        # A scipy matrix has no length, and of its forms this one alone can be cut fast.
        return {name: values.tocsr() if hasattr(values, "tocsr") else values for name, values in records.items()}
    if _is_table(records):
        return _columns_of_table(records)
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise ConfigurationError(
            f"cannot read records from {type(records).__name__}: give an iterable of mappings, a mapping of columns, "
            "a pyarrow Table or a DataFrame, or an iterable of such tables"
        )
    return None


def _is_table(records: Records) -> bool:
    module = type(records).__module__
    return (module.startswith("pyarrow") and hasattr(records, "column_names")) or (
        module.startswith("pandas") and hasattr(records, "columns")
    )


def _columns_of_table(table: Table) -> dict[str, Any]:
    if hasattr(table, "column_names"):
        return {name: table.column(name) for name in table.column_names}
    return {str(name): table[name].to_list() for name in table.columns}


def _cut_items(records: Iterable[Any], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Cut rows, or tables one by one."""
    source = iter(records)
    for first in source:
        everything = itertools.chain([first], source)
        yield from _cut_tables(everything, size) if _is_table(first) else _pivot(everything, size)


def _cut_tables(tables: Iterable[Table], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    first_row = 0
    for table in tables:
        if not _is_table(table):
            raise ConfigurationError(f"after row {first_row} comes a {type(table).__name__}, not a table")
        for start, fields in _cut_columns(_columns_of_table(table), size):
            yield first_row + start, fields
        first_row += len(table)


def _cut_columns(columns: dict[str, Any], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for name, values in columns.items():
        if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
            raise ConfigurationError(
                f"a mapping of columns holds sequences of equal length, but {name!r} is a {type(values).__name__}: "
                "a single record is given as [record]"
            )
    lengths = {name: values.shape[0] if _sparse(values) else len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigurationError(f"columns differ in length: {lengths}")
    total = next(iter(lengths.values()), 0)
    for start in range(0, total, size):
        yield start, {name: _slice(values, start, size) for name, values in columns.items()}


def _slice(values: Any, start: int, size: int) -> Any:
    if type(values).__module__.startswith("pyarrow"):
        part = values.slice(start, size)
        if part.null_count == 0 and _LISTS_OF_FLOATS.fullmatch(str(part.type)):
            lists = part.combine_chunks() if hasattr(part, "combine_chunks") else part
            flat = lists.flatten().to_numpy(zero_copy_only=False)
            if len(set(lists.value_lengths().to_pylist())) == 1:
                return flat.reshape(len(part), -1)
        return part.to_pylist()
    if _sparse(values):
        return list(values[start : start + size])
    # A pandas Series would be taken apart by label, not by position.
    return values.iloc[start : start + size].to_list() if hasattr(values, "iloc") else values[start : start + size]


def _sparse(values: Any) -> bool:
    return hasattr(values, "tocsr")


def _pivot(records: Iterable[Mapping[str, Any]], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = iter(records)
    first_row = 0
    while chunk := list(itertools.islice(rows, size)):
        names: dict[str, None] = {}
        for position, row in enumerate(chunk):
            if not isinstance(row, Mapping):
                raise ConfigurationError(f"row {first_row + position} is a {type(row).__name__}, not a mapping")
            names.update(dict.fromkeys(row))
        yield first_row, {str(name): [row.get(name) for row in chunk] for name in names}
        first_row += len(chunk)
