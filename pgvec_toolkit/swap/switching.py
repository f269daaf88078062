"""The steps of a swap: the index of the new space, the moment in which it takes over, the end of the spare one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError, SwapError
from pgvec_toolkit.ingest.space_embedding import embed_all, embed_missing
from pgvec_toolkit.schema import build as building
from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema.index_specs import Form, IndexSpec, index_form, index_spec
from pgvec_toolkit.schema.indexes import present
from pgvec_toolkit.swap.state import unembedded

if TYPE_CHECKING:
    from pgvec_toolkit.embed.base import Embedder
    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space

_ATTEMPTS = 8
_FREE_ATTEMPTS = 3  # after which the last few are embedded while writers wait
_FEW = 256
_LONGEST = "60s"  # for which our client may be silent while writers wait
_PATIENCE, _POLL = 10.0, 0.2  # seconds: what was building when its process was killed ends some moments later
_INDEX = """
SELECT i.method::text, i.form, i.dimensions, i.options, coalesce(i.lists, 0)
FROM pgvec.vector_spaces s, pgvec._indexes(%s::regclass, pgvec._current_space(s)) i WHERE s.id = %s AND i.usable LIMIT 1
"""


def index_like(
    database: Pool, connection: Connection, old: Space, new: Space, progress: bool | None
) -> tuple[str, ...]:
    """Build for a space the index that another one has, unless it has one; return what had to be otherwise."""
    row = connection.execute(_INDEX, [old.vectors.as_string(connection), old.id]).fetchone()
    if row is None or any(index.usable for index in present(connection, new)):
        return ()
    spec, form, note = _fitting(new, *row)
    if form is None:
        return (note,)
    _await_builder(connection, new)
    # Plain, it would keep those waiting who delete and change chunks.
    building.build(database, new, spec, form, concurrently=True, progress=progress)
    return (note,) if note else ()


def _fitting(
    new: Space, method: str, form: str, dimensions: int, built_with: list[str], lists: int
) -> tuple[IndexSpec, Form | None, str]:
    """Return the same index for another space; where that cannot be, the nearest, and a note."""
    options = {key: int(value) for key, _, value in (option.partition("=") for option in built_with)}
    # What PostgreSQL does not list was left at pgvector's default.
    options = {"lists": lists} if method == "ivfflat" else {"m": 16, "ef_construction": 64} | options
    prefix = dimensions if form == "prefix" else None
    tries = [(method, options, form, prefix), (method, options, None, None), ("hnsw", {}, None, None)]
    problem = ""
    for tried, with_, form_, prefix_ in tries:
        try:
            chosen = index_form(new, form_, prefix_, tried)
        except ConfigurationError as error:
            problem = problem or str(error)
            continue
        note = f"its index is {tried}, form {chosen.name}, unlike that of the old space: {problem}" if problem else ""
        return index_spec(tried, **with_), chosen, note
    return index_spec("hnsw"), None, f"it has no index: {problem}"


def _await_builder(connection: Connection, space: Space) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if locks.try_lock(connection, locks.BUILD, space.id):
            locks.unlock(connection, locks.BUILD, space.id)
            return
        time.sleep(_POLL)  # the build itself will say that another session is at it


def switch(
    connection: Connection, collection: str, space: Space, embedder: Embedder | None, progress: bool | None
) -> None:
    """Make a space the default one, brought up to date before: in one transaction, for which writers wait.

    Raises:
        SwapError: there are chunks that no model can embed, or no embedder for those that lack a vector.
    """
    for attempt in range(_ATTEMPTS):
        missing, textless = unembedded(connection, collection, space.name)
        _refuse(space, missing if embedder is None else 0, textless)
        if embedder is not None:
            embed_all(connection, space, embedder, f"embedding {collection} into {space.name}", progress)
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true),"
                " pgvec._hold_writers(pgvec._collection(%s))",
                [_LONGEST, collection],
            )
            missing, textless = unembedded(connection, collection, space.name)
            _refuse(space, 0, textless)
            if 0 < missing <= _FEW and attempt >= _FREE_ATTEMPTS and embedder is not None:
                embed_missing(connection, space, embedder, lambda _: None)
                missing, _ = unembedded(connection, collection, space.name)
            if not missing:
                # Not switch_space, which would count once more.
                connection.execute(
                    "SELECT pgvec._make_default(c, pgvec._space(c.name, NULL), pgvec._searched_space(c.name, %s))"
                    " FROM pgvec._collection(%s) c",
                    [space.name, collection],
                )
                return
    raise SwapError(
        f"{missing} chunks of {collection!r} have no vector in {space.name} yet: others write faster than they are "
        "embedded. Switch again when there is less to do"
    )


def check_embeddable(connection: Connection, collection: str, space: Space) -> None:
    """Raise SwapError if there are chunks that no model can embed, and that have no vector in a space otherwise."""
    _refuse(space, 0, unembedded(connection, collection, space.name)[1])


def _refuse(space: Space, missing: int, textless: int) -> None:
    if textless:
        raise SwapError(
            f"{textless} chunks of {space.chunk_table} have a vector, but no text that a model could embed: searches "
            f"would no longer find them. Write their vectors into {space.name} with set_vectors, or delete them"
        )
    if missing:
        raise SwapError(
            f"{missing} chunks of {space.chunk_table} have no vector in {space.name}, which has no model: write them "
            "with set_vectors"
        )


def drop(connection: Connection, collection: str, space: Space) -> None:
    """Drop a space that is not the default one, and let nobody queue behind that for long."""

    def work() -> None:
        # Foreign keys: what refers to the chunks goes with a lock on these.
        locks.lock_table(connection, space.vectors, "ACCESS EXCLUSIVE")
        connection.execute("SELECT pgvec.drop_space(%s, %s)", [collection, space.name])

    try:
        locks.briefly_alone(connection, space.chunks, work, "drop it again")
    except psycopg.errors.DependentObjectsStillExist as error:
        raise SwapError(
            f"{space.vector_table} cannot be dropped: {error.diag.message_detail}. Drop these, or have them use "
            "another table, and drop it again"
        ) from error


def vacuum(connection: Connection, space: Space) -> None:
    """Mark the pages of a vector table all-visible, so that to look for what it lacks takes its keys alone."""
    connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(space.vectors))
