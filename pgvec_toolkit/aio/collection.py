"""A collection, as code with an event loop sees it."""

from __future__ import annotations

from pgvec_toolkit.aio.methods import Awaited, awaited, in_thread, iterated
from pgvec_toolkit.collection import Collection
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.greenlets import spawn
from pgvec_toolkit.schema.space import Space


class AsyncCollection(Awaited[Collection]):
    """A `Collection` of which the methods are awaited; get one from `AsyncDatabase.collection` or `create_collection`.

    When the task is cancelled, so is on the server what it waits for, before that goes on. Texts are embedded in
    threads. Long work is done in a thread, where cancelling it is as Ctrl-C.
    """

    def __repr__(self) -> str:
        return f"Async{self._called!r}"

    @property
    def name(self) -> str:
        """Its name."""
        return self._called.name

    @property
    def space(self) -> Space:
        """The vector space that searches use unless told otherwise."""
        return self._called.space

    async def columns(self) -> dict[str, str]:
        """Return the typed columns: name to SQL type."""
        return await spawn(lambda: self._called.columns)

    async def embedder(self) -> Embedder:
        """Return what turns text into vectors here, loaded if it was not."""
        return await spawn(lambda: self._called.embedder)

    async def keyword_index(self) -> dict[str, float] | None:
        """Return the parameters of the keyword index, k1 and b; None if there is none."""
        return await spawn(lambda: self._called.keyword_index)

    async def count(self) -> int:
        """Return the number of chunks: what len() of a `Collection` is."""
        return await spawn(self._called.__len__)

    search = awaited(Collection.search)
    keyword_search = awaited(Collection.keyword_search)
    hybrid_search = awaited(Collection.hybrid_search)
    search_many = in_thread(Collection.search_many)  # decoding that many hits takes seconds
    search_as_of = awaited(Collection.search_as_of)
    similar = awaited(Collection.similar)
    maxsim = awaited(Collection.maxsim)
    pages = iterated(Collection.pages)
    explain = awaited(Collection.explain)
    search_sql = awaited(Collection.search_sql)
    hybrid_search_sql = awaited(Collection.hybrid_search_sql)

    upsert = in_thread(Collection.upsert)
    ingest = in_thread(Collection.ingest)
    sync = in_thread(Collection.sync)
    retry = in_thread(Collection.retry)
    failures = awaited(Collection.failures)
    delete = awaited(Collection.delete)

    promote = in_thread(Collection.promote)
    add_space = in_thread(Collection.add_space)
    register_space = in_thread(Collection.register_space)
    embed_space = in_thread(Collection.embed_space)
    set_vectors = in_thread(Collection.set_vectors)
    drop_space = awaited(Collection.drop_space)

    create_index = in_thread(Collection.create_index)
    rebuild_index = in_thread(Collection.rebuild_index)
    drop_index = in_thread(Collection.drop_index)
    indexes = awaited(Collection.indexes)
    plan_index = awaited(Collection.plan_index)
    builds = awaited(Collection.builds)
    plot_builds = in_thread(Collection.plot_builds)
    create_keyword_index = awaited(Collection.create_keyword_index)
    drop_keyword_index = awaited(Collection.drop_keyword_index)

    tune = in_thread(Collection.tune)
    profiles = awaited(Collection.profiles)
    calibrate = awaited(Collection.calibrate)
    recall = in_thread(Collection.recall)
    advise = in_thread(Collection.advise)
    evaluate = in_thread(Collection.evaluate)
    fit_weights = in_thread(Collection.fit_weights)

    swap_model = in_thread(Collection.swap_model)
    switch_model = in_thread(Collection.switch_model)
    rollback_model = in_thread(Collection.rollback_model)
    drop_swapped = in_thread(Collection.drop_swapped)
    model_swap = awaited(Collection.model_swap)

    log_queries = awaited(Collection.log_queries)
    logged_queries = awaited(Collection.logged_queries)
    forget_queries = awaited(Collection.forget_queries)
    watch = awaited(Collection.watch)
    recall_checks = awaited(Collection.recall_checks)
    plot_recall = in_thread(Collection.plot_recall)
    set_drift_baseline = awaited(Collection.set_drift_baseline)
    prewarm = awaited(Collection.prewarm)

    create_history = awaited(Collection.create_history)
    drop_history = awaited(Collection.drop_history)
    versions = awaited(Collection.versions)
    restore = awaited(Collection.restore)
    purge = awaited(Collection.purge)
