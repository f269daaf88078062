"""Documents from files, folders, tables, databases and records; what cannot be read is told, and the rest read on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.read.converter import Converter
from pgvec_toolkit.ingest.read.frames import rows_of
from pgvec_toolkit.ingest.read.origin import Broken, Columns, Origin
from pgvec_toolkit.ingest.read.records import from_records, from_table
from pgvec_toolkit.ingest.read.suffixes import files, holds_many, reader

__all__ = ["documents", "files", "holds_many"]


def documents(
    source: Any, *, id: str | None = "id", text: str | Sequence[str] = "text", root: str | Path | None = None
) -> Iterator[Document | Unreadable]:
    """Read documents; what cannot be read is yielded as `Unreadable` in its place.

    Args:
        source: a file, a folder with all its sub-folders, a table (Arrow, pandas, polars, a mapping of columns,
            `read_sql`), or an iterable of records or of `Document`s.
        id: the field of a record, or column of a table, that names its documents; None: they are numbered.
        text: the field or column of the text, or several that are joined.
        root: a folder above a file or folder, which gets the ids that it has when that is read.

    Raises:
        ConfigurationError: there is nothing to read at all, or a table given in memory has no such column.
    """
    columns = Columns(id, (text,) if isinstance(text, str) else tuple(text))
    numbers = itertools.count()
    if isinstance(source, str | Path):
        return _from_files(files(Path(source), None if root is None else Path(root)), columns, numbers)
    origin = Origin(columns, numbers)
    rows = rows_of(source)
    return from_records(source, origin) if rows is None else from_table(enumerate(rows), origin, "row")


def _from_files(
    found: Iterable[tuple[Path, str]], columns: Columns, numbers: Iterator[int]
) -> Iterator[Document | Unreadable]:
    with Converter() as convert:
        for path, id in found:
            origin = Origin(columns, numbers, path, id)
            try:
                yield from map(origin.checked, reader(path)(origin, convert))
            except Broken as broken:
                yield origin.unreadable(broken)
            except OSError as error:
                yield origin.unreadable(Broken(f"cannot be read: {error.strerror or error}"))
            except Exception as error:  # what no reader has foreseen costs its file
                said = f"{type(error).__name__}: {error}"
                yield origin.unreadable(Broken(f"cannot be read ({said}): mend it, or leave it out"))
