"""Filling the server's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Pool


@dataclass(frozen=True)
class Warmed:
    """A table or an index that was read into shared_buffers.

    Attributes:
        relation: its name, with its schema.
        blocks: how many it has.
        read: how many were not there yet.
        complete: whether all of it was read, or what of an index searches can reach; False: it does not fit.
        milliseconds: how long it took.
    """

    relation: str
    blocks: int
    read: int
    complete: bool
    milliseconds: float


def prewarm(database: Pool, collection: str, space: str | None = None) -> list[Warmed]:
    """Read a space of a collection into shared_buffers (SQL: `pgvec.prewarm`)."""
    rows = database.fetch(
        "SELECT relation, blocks, read, complete, milliseconds FROM pgvec.prewarm($1, $2)", [collection, space]
    )
    return [Warmed(*row) for row in rows]
