"""Files that hold a document a row or line: CSV, JSON Lines, Parquet, Arrow. None is ever in memory as a whole."""

from __future__ import annotations

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pgvec_toolkit.errors import MissingDependency
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.read.converter import Converter
from pgvec_toolkit.ingest.read.frames import ROWS_AT_ONCE
from pgvec_toolkit.ingest.read.origin import Broken, Origin
from pgvec_toolkit.ingest.read.records import from_record, from_table
from pgvec_toolkit.ingest.read.text import NOT_UTF8
from pgvec_toolkit.schema.columns import Cell

_LONGEST_FIELD = 1 << 24  # characters; csv's own limit of 131,072 is less than many a document has
Row = tuple[int, Mapping[str, Any] | Broken]


def json_lines(origin: Origin, _: Converter) -> Iterator[Document | Unreadable]:
    """Read JSON Lines: an object a line."""
    assert origin.path is not None
    with origin.path.open("rb") as file:
        _refuse_empty(file)
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                yield origin.unreadable_part("line", number, NOT_UTF8.format(error))
            except (ValueError, RecursionError) as error:
                yield origin.unreadable_part("line", number, f"not JSON: {error}. Mend it, or take it out")
            else:
                yield from_record(record, origin, "line", number)


def _refuse_empty(file: BinaryIO) -> None:
    """Refuse a file without a byte: more likely it is being written, or the disk was full, than that no row is left."""
    if os.fstat(file.fileno()).st_size == 0:
        raise Broken("is empty")


def csv_file(origin: Origin, _: Converter) -> Iterator[Document | Unreadable]:
    """Read CSV with a header; what separates its columns is what separates most in the header: , ; | or a tab."""
    return from_table(_csv_rows(origin, None), origin, "line")


def tsv_file(origin: Origin, _: Converter) -> Iterator[Document | Unreadable]:
    """Read tab-separated values with a header."""
    return from_table(_csv_rows(origin, "\t"), origin, "line")


def _csv_rows(origin: Origin, delimiter: str | None) -> Iterator[Row]:
    assert origin.path is not None
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    own = (origin.columns.id, *origin.columns.text)
    # What is not UTF-8 is kept in a form that cannot be encoded, so that it costs its row only.
    with origin.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        first = next((line for line in lines if line.strip()), "")
        delimiter = delimiter or max(",;\t|", key=lambda mark: len(_cells(first, mark)))
        header = _cells(first, delimiter)
        if problem := _wrong_header(header):
            raise Broken(problem)
        for number, row in _split(lines, delimiter):
            if isinstance(row, Broken):
                yield number, row
            elif len(row) != len(header):
                yield number, Broken(f"has {len(row)} cells, and the header {len(header)}: mend it, or take it out")
            else:
                # An empty cell is a missing value, but an empty text is a text; a column without name is no column.
                cells = zip(header, row, strict=True)
                yield number, {name: Cell(cell) if cell or name in own else None for name, cell in cells if name}


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _wrong_header(header: list[str]) -> str | None:
    if not any(header):
        return "is empty: its first line names the columns"
    if problem := _not_utf8(header):
        return problem
    if any("\0" in name for name in header):
        return "is not a table of text: its first line has a NUL character"
    twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
    return f"has more than one column {twice[0]!r}: rename all but one" if twice else None


def _not_utf8(row: list[str]) -> str | None:
    try:
        "".join(row).encode()
    except UnicodeEncodeError as error:
        return NOT_UTF8.format(f"byte {ord(error.object[error.start]) & 0xFF:#04x}")
    return None


class _Lines:
    """Lines of a file for csv.reader; those of a row that is broken can be read again, as rows of their own.

    Attributes:
        number: of the first line of the row.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self.number = 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self._row.append(line)
        return line

    def begin_row(self) -> None:
        self.number += len(self._row)
        self._row.clear()

    def give_back(self) -> None:
        """Give back all lines of the row but the first."""
        self._again.extendleft(reversed(self._row[1:]))
        del self._row[1:]


def _split(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | Broken]]:
    """Yield rows with the numbers of their lines; a quote that is not closed costs its own line only."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.give_back()
            yield lines.number, Broken(f"not CSV: {error}. Mend it, quotes are doubled within quotes, or take it out")
            continue
        if problem := _not_utf8(row):
            yield lines.number, Broken(problem)
        elif row:
            yield lines.number, row


def parquet_file(origin: Origin, _: Converter) -> Iterator[Document | Unreadable]:
    """Read Parquet."""
    return from_table(_arrow_rows(origin, _parquet_batches, "Parquet"), origin, "row")


def arrow_file(origin: Origin, _: Converter) -> Iterator[Document | Unreadable]:
    """Read Arrow's own format, which is Feather's, too: a file or a stream."""
    return from_table(_arrow_rows(origin, _arrow_batches, "Arrow"), origin, "row")


def _parquet_batches(path: Path) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group])


def _arrow_batches(path: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as mapped:
        if mapped.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(mapped)
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            mapped.seek(0)
            yield from pyarrow.ipc.open_stream(mapped)


def _arrow_rows(origin: Origin, batches: Callable[[Path], Iterator[Any]], name: str) -> Iterator[Row]:
    assert origin.path is not None
    try:
        import pyarrow
    except ImportError as error:
        missing = MissingDependency("pyarrow", "files")
        raise Broken(f"cannot be read: {missing}", missing) from error
    with origin.path.open("rb") as file:
        _refuse_empty(file)
    number = 0
    try:
        for batch in batches(origin.path):
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                for row in _rows(batch.slice(start, ROWS_AT_ONCE)):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        if number == 0:
            raise Broken(f"cannot be read as {name} ({said}): write it anew, or leave it out") from error
        yield number + 1, Broken(f"cannot be read, nor can those after it ({said}): write the file anew")


def _rows(batch: Any) -> Iterable[Mapping[str, Any] | Broken]:
    """Return the rows of a batch; together, and only if that fails each alone."""
    try:
        rows: list[Mapping[str, Any]] = batch.to_pylist()
        return rows
    except Exception:  # a text that is not UTF-8, a time that Python has not
        return [_row(batch.slice(number, 1)) for number in range(batch.num_rows)]


def _row(batch: Any) -> Mapping[str, Any] | Broken:
    try:
        (row,) = batch.to_pylist()
    except Exception as error:
        return Broken(f"cannot be read ({error}): mend it, or take it out")
    return dict(row)
