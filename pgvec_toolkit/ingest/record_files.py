"""Files of records with vectors: JSON Lines line by line, Parquet and Arrow batch by batch, vectors in binary."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError, MissingDependency

_BLOCK = 1 << 20


@dataclass(frozen=True)
class RecordFile:
    """A file of records: what `upsert` takes, once.

    Attributes:
        records: its rows, or tables of them.
        rows: how many there are.
    """

    records: Iterator[Any]
    rows: int

    def __iter__(self) -> Iterator[Any]:
        return self.records

    def __length_hint__(self) -> int:
        return self.rows


def open_records(path: Path, rows_at_once: int, names: Mapping[str, str] | None = None) -> RecordFile:
    """Open a file of records.

    Args:
        path: .jsonl or .ndjson, .parquet, .arrow or .feather (Arrow's file format).
        rows_at_once: how many rows of a table are read at once.
        names: fields of a record, each with the name that it has in the file.

    Raises:
        ConfigurationError: it is no such file, or a line of it is no record.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    own = {there: field for field, there in (names or {}).items()}
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return RecordFile(_lines(path, own), _count_lines(path))
        case ".parquet":
            return _parquet(path, rows_at_once, own)
        case ".arrow" | ".feather":
            return _arrow(path, own)
    raise ConfigurationError(f"cannot read records from {path}: give .jsonl, .parquet or .arrow")


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


def _lines(path: Path, own: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigurationError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise ConfigurationError(f"{path}, line {number} is not a JSON object")
            yield {own.get(name, name): value for name, value in record.items()} if own else record


def _parquet(path: Path, rows_at_once: int, own: Mapping[str, str]) -> RecordFile:
    parquet = _pyarrow("pyarrow.parquet")
    with _readable(path):
        file = parquet.ParquetFile(path)
    return RecordFile(_renamed(file.iter_batches(rows_at_once), own), file.metadata.num_rows)


def _arrow(path: Path, own: Mapping[str, str]) -> RecordFile:
    ipc = _pyarrow("pyarrow.ipc")
    with _readable(path):
        file = ipc.open_file(_pyarrow("pyarrow").memory_map(str(path)))
    batches = (file.get_batch(number) for number in range(file.num_record_batches))
    return RecordFile(_renamed(batches, own), file.count_rows())


def _renamed(batches: Iterator[Any], own: Mapping[str, str]) -> Iterator[Any]:
    for batch in batches:
        yield batch.rename_columns([own.get(name, name) for name in batch.schema.names]) if own else batch


def _pyarrow(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependency("pyarrow", "files") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file it is that Arrow cannot read."""
    try:
        yield
    except (ValueError, OSError) as error:  # Arrow's own are of these
        raise ConfigurationError(f"cannot read {path}: {error}") from error
