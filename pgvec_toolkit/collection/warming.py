"""Filling the server's cache with a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgvec_toolkit.collection.base import CollectionBase

if TYPE_CHECKING:
    from pgvec_toolkit.watch.prewarm import Warmed


class Warming(CollectionBase):
    """A method that reads the collection into memory."""

    def prewarm(self, *, space: str | None = None) -> list[Warmed]:
        """Read the vector index and the tables beside it into shared_buffers (SQL: `pgvec.prewarm`).

        Worth it after a restart. As much as fits, the vector index before all else; an HNSW index takes about 30 µs
        a row.

        Args:
            space: the vector space; None: the default one.
        """
        from pgvec_toolkit.watch.prewarm import prewarm

        return prewarm(self._database, self.name, space)
