"""The indexes of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pgvec_toolkit.collection.base import CollectionBase
from pgvec_toolkit.schema import build as building
from pgvec_toolkit.schema import forecast
from pgvec_toolkit.schema.index_specs import index_form, index_spec
from pgvec_toolkit.schema.indexes import Index, drop

if TYPE_CHECKING:
    from pgvec_toolkit.schema.forecast import Build, Forecast


class Indexing(CollectionBase):
    """Methods that plan, build, list and drop indexes."""

    def plan_index(
        self,
        method: str | None = "hnsw",
        *,
        form: str | None = None,
        prefix: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        rows: int | None = None,
        space: str | None = None,
        calibrate: bool = True,
    ) -> list[Forecast]:
        """Say what an index would cost, before it is built: a forecast for each form (SQL: `pgvec.plan_index`).

        Args:
            method: hnsw or ivfflat; None: both.
            form: full, halfvec, binary or prefix; None: all that apply.
            prefix: how many leading dimensions form prefix has; default a third of them.
            m: hnsw: as `create_index` has it.
            ef_construction: hnsw: as `create_index` has it.
            lists: ivfflat: as `create_index` has it.
            rows: as if there were so many; None: those that there are.
            space: the vector space; None: the default one.
            calibrate: build on samples of the vectors first, a few seconds for each form, to know how fast this
                server is. Without, seconds are None until something has been built or measured.
        """
        return forecast.plan(
            self._database,
            self.name,
            method,
            calibrate,
            form=form,
            prefix=prefix,
            m=m,
            ef_construction=ef_construction,
            lists=lists,
            rows=rows,
            space=space,
        )

    def builds(self, *, space: str | None = None) -> list[Build]:
        """Return the builds of vector indexes that were completed, the latest first: forecast against reality."""
        return forecast.history(self._database, self.name, space)

    def plot_builds(self, path: str | Path, *, space: str | None = None) -> None:
        """Draw size and time of the builds against their forecasts; .png, or interactive .html."""
        from pgvec_toolkit.tune.pictures import draw_builds

        draw_builds(self.builds(space=space), path)

    def create_index(
        self,
        method: str = "hnsw",
        *,
        form: str | None = None,
        prefix: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        space: str | None = None,
        concurrently: bool | None = None,
        progress: bool | None = None,
        force: bool = False,
    ) -> str:
        """Build a vector index and bring statistics up to date; returns the index's name.

        It gets the memory and the workers that `plan_index` recommends. Searches go on meanwhile, writes do only
        with `concurrently`. When memory does not suffice, building goes on on disk, far slower: the logger
        pgvec_toolkit warns of that, before and when it happens.

        Args:
            method: hnsw, or ivfflat (build that one when the rows are there).
            form: full; halfvec (half precision, half the size); binary (a bit a dimension); prefix (of leading
                dimensions). Of all but the first, searches rescore candidates by the whole vectors. None: full, as
                far as an index can hold the dimensions, else halfvec, else binary.
            prefix: how many leading dimensions form prefix indexes.
            m: hnsw: links per node; default 24.
            ef_construction: hnsw: candidates kept while building; default 200, or twice m.
            lists: ivfflat: clusters; default rows / 1000 up to a million rows, their square root beyond.
            space: the vector space; None: the default one.
            concurrently: let others write meanwhile; takes longer, and waits for transactions that are open. None:
                if others may be using the space, that is, it has had an index before, or this database has other
                connections than ours; a fresh space of our own is locked against writers instead.
            progress: whether to show a bar; None: on a terminal.
            force: build even if the server's machine has too little memory for it.

        Raises:
            IndexBuildError: it is there, is being built, or does not fit into the machine; the server gave up.
        """
        spec = index_spec(method, m=m, ef_construction=ef_construction, lists=lists)
        built = self._space(space)
        chosen = index_form(built, form, prefix, method)
        name = building.build(
            self._database, built, spec, chosen, concurrently=concurrently, progress=progress, force=force
        )
        self._forget_texts()
        return name

    def create_keyword_index(self, *, k1: float = 1.2, b: float = 0.75) -> None:
        """Build the keyword index of a collection that has none (SQL: `pgvec.create_keyword_index`).

        Args:
            k1: how much more a word says the more often it occurs.
            b: how much the length of a chunk counts, 0 to 1.
        """
        self._database.fetch(
            "SELECT pgvec.create_keyword_index($1, $2::double precision, $3::double precision)", [self.name, k1, b]
        )

    @property
    def keyword_index(self) -> dict[str, float] | None:
        """The parameters of the keyword index, k1 and b; None if there is none."""
        found = self._database.fetch(
            "SELECT k1, b FROM pgvec.keyword_indexes WHERE collection_id = $1", [self.space.collection_id]
        )
        return {"k1": found[0][0], "b": found[0][1]} if found else None

    def drop_keyword_index(self) -> bool:
        """Drop the keyword index; returns whether there was one (SQL: `pgvec.drop_keyword_index`)."""
        (dropped,) = self._database.fetch_one("SELECT pgvec.drop_keyword_index($1)", [self.name])
        return bool(dropped)

    def indexes(self, *, space: str | None = None) -> list[Index]:
        """Return the vector indexes of a space (SQL: `pgvec.indexes`)."""
        rows = self._database.fetch(
            "SELECT index_name, method, form, dimensions, options, valid, usable, bytes FROM pgvec.indexes($1, $2)",
            [self.name, space],
        )
        return [Index(*row) for row in rows]

    def drop_index(self, name: str | None = None, *, space: str | None = None) -> list[str]:
        """Drop a vector index by name, or all of a space; returns the names of those dropped.

        Tuning profiles go with the last index of their method.

        Raises:
            IndexBuildError: another session is building or rebuilding an index of the space.
        """
        dropped = drop(self._database, self.name, self._space(space), name)
        self._forget_texts()
        return dropped
