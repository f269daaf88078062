"""Files of records with vectors: JSON Lines line by line, Parquet and Arrow batch by batch, vectors in binary."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError, MissingDependency

_BLOCK = 1 << 20
_LOOKED_AT = 1000  # records, for the names that a file of lines has


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
        names: fields of a record, each with the name that it has in the file; what else has the field's name in the
            file is left out.

    Raises:
        ConfigurationError: it is no such file, a line of it is no record, or it has no field of a name that was given.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    own = {there: field for field, there in (names or {}).items() if there != field}
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
    records = _json_lines(path)
    first = list(islice(records, _LOOKED_AT))  # not each has to have each field
    if first:
        _check_names(f"the beginning of {path}", dict.fromkeys(chain.from_iterable(first)), own)
    for record in chain(first, records):
        yield {own.get(name, name): record[name] for name in _kept(record, own)} if own else record


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with _readable(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigurationError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise ConfigurationError(f"{path}, line {number} is not a JSON object")
            yield record


def _parquet(path: Path, rows_at_once: int, own: Mapping[str, str]) -> RecordFile:
    parquet = _pyarrow("pyarrow.parquet")
    with _readable(path):
        file = parquet.ParquetFile(path)
    _check_names(path, file.schema_arrow.names, own)
    return RecordFile(_renamed(path, file.iter_batches(rows_at_once), own), file.metadata.num_rows)


def _arrow(path: Path, own: Mapping[str, str]) -> RecordFile:
    ipc = _pyarrow("pyarrow.ipc")
    with _readable(path):
        file = ipc.open_file(_pyarrow("pyarrow").memory_map(str(path)))
    batches = (file.get_batch(number) for number in range(file.num_record_batches))
    _check_names(path, file.schema.names, own)
    return RecordFile(_renamed(path, batches, own), file.count_rows())


def _renamed(path: Path, batches: Iterator[Any], own: Mapping[str, str]) -> Iterator[Any]:
    with _readable(path):
        for batch in batches:
            kept = _kept(batch.schema.names, own)
            yield batch.select(kept).rename_columns([own.get(name, name) for name in kept]) if own else batch


def _kept(names: Iterable[str], own: Mapping[str, str]) -> list[str]:
    """Return the fields that a record keeps: not those whose names others of it get."""
    taken = set(own.values()) - set(own)
    return [name for name in names if name not in taken]


def _check_names(where: object, there: Collection[str], own: Mapping[str, str]) -> None:
    """Refuse names that are misspelt: without its vector, a record would be embedded."""
    absent = [name for name in own if name not in there]
    if absent:
        raise ConfigurationError(f"{where} has no field {absent[0]!r}: there are {', '.join(map(str, there))}")


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
