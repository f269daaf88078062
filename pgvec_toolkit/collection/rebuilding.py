"""Rebuilding the index of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pgvec_toolkit.collection.base import Query
from pgvec_toolkit.collection.measuring import Measuring
from pgvec_toolkit.errors import PgvecError
from pgvec_toolkit.tune.rebuild import Rebuilt, rebuild

if TYPE_CHECKING:
    from pgvec_toolkit.schema.space import Space


class Rebuilding(Measuring):
    """Methods that renew an index while it is in use."""

    def rebuild_index(
        self,
        name: str | None = None,
        *,
        if_needed: bool = False,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        queries: Sequence[Query] | NDArray[Any] | str | None = None,
        space: str | None = None,
        progress: bool | None = None,
    ) -> Rebuilt:
        """Rebuild the index that searches use while they, and writes, go on.

        The new index is built beside the old one, concurrently, so it needs the disk space of both. When it is
        complete, searches wait for some tenths of a second while its recall is measured and it takes the old one's
        place; in between PostgreSQL may choose either. If it is worse than the old one and than the target of the
        tuning profile, it is dropped and the old one stays. Interrupted at any moment, the old index goes on serving,
        and the next `rebuild_index` or `create_index` clears away what was left.

        Tuning profiles stay; those of an IVFFlat index of which the lists change are tuned anew. Until that is done
        searches have the usual settings, and those with recall=… fail.

        Args:
            name: of the index; None: the one that searches use, which is the only one that can be rebuilt.
            if_needed: do so only if a fifth of the rows are dead, if the index is 30 % larger than a fresh one would
                be, or if recall is below the target of the tuning profile.
            m: hnsw: links per node; None: as it is.
            ef_construction: hnsw: candidates kept while building; None: as it is.
            lists: ivfflat: clusters; None: as they are.
            queries: to measure recall with: texts, or vectors of shape (n, dimensions); "log": those that were logged,
                without their filters. None: the log, if it has 20 different queries, as `watch` does; else stored rows.
            space: the vector space; None: the default one.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            IndexBuildError: the new index is worse, or could not be built; the old one is as it was.
        """
        owner: Space = self._space(space)
        done = rebuild(
            self._database,
            self.name,
            owner,
            name=name,
            if_needed=if_needed,
            m=m,
            ef_construction=ef_construction,
            lists=lists,
            queries=self._asked_queries(queries, space),
            progress=progress,
        )
        self._forget_texts()
        notes = []
        for k, target, tail_share in done.lapsed:
            try:
                self.tune(target, k=k, tail_share=tail_share, queries=queries, space=space, progress=progress)
            except PgvecError as error:  # the index is rebuilt nevertheless
                notes.append(f"searches for {k} are no longer tuned: {error}")
        return replace(done, notes=(*done.notes, *notes))
