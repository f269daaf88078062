"""Tables in memory, and what is like them, as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pgvec_toolkit.ingest.batch import cut
from pgvec_toolkit.ingest.read.database import Query

ROWS_AT_ONCE = 256  # texts may be long


def rows_of(source: Any) -> Iterable[Mapping[str, Any]] | None:
    """Return the rows of a table; None if it is none.

    Tables are what exports its columns through Arrow (pyarrow's Table and RecordBatchReader, and many more), pandas'
    and polars' DataFrame, a mapping of columns, a `read_sql`.
    """
    kind = type(source)
    if isinstance(source, Query):
        return source
    if isinstance(source, Mapping) or (kind.__module__.startswith("pandas") and hasattr(source, "columns")):
        return _columns(source)
    if hasattr(source, "iter_rows") and hasattr(source, "columns"):
        rows: Iterable[Mapping[str, Any]] = source.iter_rows(named=True)
        return rows
    return _arrow(source) if hasattr(source, "__arrow_c_stream__") else None


def _columns(source: Any) -> Iterator[Mapping[str, Any]]:
    for _, columns in cut(source, ROWS_AT_ONCE):
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _arrow(source: Any) -> Iterator[Mapping[str, Any]]:
    import pyarrow  # not there, what made the stream is another library

    for batch in pyarrow.RecordBatchReader.from_stream(source):
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            yield from batch.slice(start, ROWS_AT_ONCE).to_pylist()
