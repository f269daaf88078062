"""How many documents there will be: what a progress bar needs to tell the time that is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_BYTES_AT_ONCE = 1 << 20
_A_LINE_EACH = (".jsonl", ".ndjson", ".csv", ".tsv")


def expected(source: Any) -> int | None:
    """Return how many documents a source holds, or a few more; None if that is not known without reading it all."""
    from pgvec_toolkit.ingest.read import files

    if not isinstance(source, str | Path):
        rows = getattr(source, "num_rows", None)  # of an Arrow table
        return len(source) if isinstance(source, list | tuple) or hasattr(source, "columns") else rows
    counts = [_in_file(path) for path, _ in files(Path(source))]
    return None if None in counts else sum(count for count in counts if count is not None)


def _in_file(path: Path) -> int | None:
    from pgvec_toolkit.ingest.read import holds_many

    suffix = path.suffix.lower()
    try:
        if suffix in _A_LINE_EACH:
            return _lines(path)
        if suffix == ".parquet":
            from pyarrow.parquet import read_metadata

            return int(read_metadata(path).num_rows)
    except (ImportError, OSError, ValueError):
        return None  # reading it will say why
    return None if holds_many(path) else 1


def _lines(path: Path) -> int:
    """Count lines, the last one too; a quoted one that goes on is more than one."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")
