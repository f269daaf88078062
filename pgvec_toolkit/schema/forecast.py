"""What an index will cost before it is built, and what those that were built did cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Pool

_PLAN = """
SELECT method, form, dimensions, options, rows, memory_bytes, disk_bytes, seconds, maintenance_work_mem_bytes, workers,
       fits, note
FROM pgvec.plan_index($1, method => $2, form => $3, prefix => $4, m => $5, ef_construction => $6, lists => $7,
                      rows => $8, space => $9, calibrate => $10)
"""
_HISTORY = """
SELECT index_name, method, form, dimensions, options, online, rows, workers, memory_limit, forecast_memory,
       forecast_bytes, bytes, forecast_seconds, seconds, spilled_after, built_at
FROM pgvec.builds($1, $2)
"""


@dataclass(frozen=True)
class Forecast:
    """What an index would cost.

    Attributes:
        method: hnsw or ivfflat.
        form: full, halfvec, binary or prefix.
        dimensions: that it would hold.
        options: it would be built with, for example {"m": 24, "ef_construction": 200}.
        rows: it would hold.
        memory: bytes that the build takes at most.
        size: bytes on disk afterwards.
        seconds: of the build; None if nothing has been measured, or if it does not fit.
        maintenance_work_mem: bytes to build it with, as create_index does.
        workers: parallel workers, beside the process that leads them.
        fits: whether all of it is built in memory.
        note: what to know or to do about it; may be empty.
    """

    method: str
    form: str
    dimensions: int
    options: dict[str, int]
    rows: int
    memory: int
    size: int
    seconds: float | None
    maintenance_work_mem: int
    workers: int
    fits: bool
    note: str


@dataclass(frozen=True)
class Build:
    """A build that was completed: forecast against reality.

    Attributes:
        index: name of the index, which may be gone.
        method: hnsw or ivfflat.
        form: full, halfvec, binary or prefix.
        dimensions: that it holds.
        options: it was built with.
        online: whether others could write meanwhile (CONCURRENTLY).
        rows: of the vector table.
        workers: parallel workers allowed.
        memory_limit: maintenance_work_mem, in bytes.
        forecast_memory: bytes the build was expected to take.
        forecast_size: bytes on disk that were expected.
        size: bytes on disk.
        forecast_seconds: expected; None if nothing had been measured.
        seconds: the build took.
        spilled_after: rows after which the graph no longer fitted into memory_limit; None if it did.
        built_at: when.
    """

    index: str
    method: str
    form: str
    dimensions: int
    options: dict[str, int]
    online: bool
    rows: int
    workers: int
    memory_limit: int
    forecast_memory: int
    forecast_size: int
    size: int
    forecast_seconds: float | None
    seconds: float
    spilled_after: int | None
    built_at: datetime


def plan(database: Pool, collection: str, method: str | None, calibrate: bool, **options: Any) -> list[Forecast]:
    """Return what each index would cost (SQL: `pgvec.plan_index`)."""
    keys = ("form", "prefix", "m", "ef_construction", "lists", "rows", "space")
    rows = database.fetch(_PLAN, [collection, method, *(options.get(key) for key in keys), calibrate])
    return [Forecast(*row) for row in rows]


def history(database: Pool, collection: str, space: str | None) -> list[Build]:
    """Return the builds of a space, the latest first (SQL: `pgvec.builds`)."""
    return [Build(*row) for row in database.fetch(_HISTORY, [collection, space])]
