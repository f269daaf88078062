"""Vector indexes that are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space


@dataclass(frozen=True)
class Index:
    """A vector index that is there.

    Attributes:
        name: its name.
        method: hnsw or ivfflat.
        form: full, halfvec, binary or prefix; other, if it is none that pgvec builds.
        dimensions: that it holds; fewer than the space's for a prefix.
        options: as built, for example ["m=24", "ef_construction=200"].
        valid: whether its build was completed.
        usable: whether searches use it.
        size: bytes on disk.
    """

    name: str
    method: str
    form: str
    dimensions: int
    options: list[str]
    valid: bool
    usable: bool
    size: int


def forget_profiles(connection: Connection, space: Space, method: str | None = None) -> None:
    """End what was measured of an index that is no longer there: tuning profiles become history."""
    connection.execute(
        "UPDATE pgvec.tuning_profiles SET superseded_at = now()"
        " WHERE space_id = %s AND index_method = coalesce(%s, index_method) AND superseded_at IS NULL",
        [space.id, method],
    )
    connection.execute("DELETE FROM pgvec.calibrations WHERE space_id = %s", [space.id])
