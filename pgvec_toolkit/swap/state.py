"""Swaps of a collection's model as the catalogue has them (pgvec.swaps): begun once, resumed by whoever calls again."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed.registry import register
from pgvec_toolkit.embed.texts import embed_texts
from pgvec_toolkit.errors import SwapError
from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.swap.comparison import Comparison

if TYPE_CHECKING:
    from pgvec_toolkit.embed.base import Embedder
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space

_PATIENCE, _POLL = 5.0, 0.1  # seconds: what a process held that was killed its session gives back some moments later
_LONGEST_NAME = 16
_RESERVED = ("keyword", "keywords", "lexemes")
_SWAP = """
SELECT w.id, c.name, w.from_space, w.to_space, w.from_model, w.to_model, w.state,
       w.from_space_id IS NOT NULL AND w.to_space_id IS NOT NULL, w.comparison, w.started_at, w.changed_at,
       w.from_space_id, w.to_space_id
FROM pgvec.swaps w JOIN pgvec.collections c ON c.id = w.collection_id
WHERE w.collection_id = %s ORDER BY w.id DESC LIMIT 1
"""


@dataclass(frozen=True)
class Swap:
    """A swap of a collection's model, and how far it is.

    Attributes:
        id: in pgvec.swaps.
        collection: its name.
        from_space: the vector space of the model that was there.
        to_space: the vector space of the other one.
        from_model: that was there; None if its vectors were given.
        to_model: the other one.
        state: backfilling, indexing, tuning, comparing, ready, switched or "rolled back".
        is_open: whether both spaces are still there.
        comparison: how the searches of both differ; None until they were compared.
        started_at: when.
        changed_at: when it came into this state.
        from_space_id: None if it was dropped.
        to_space_id: None if it was dropped.
        missing: how many chunks have no vector in the space that searches do not use; -1 if that was not counted.
        notes: what could not be done as in the old space.
    """

    id: int
    collection: str
    from_space: str
    to_space: str
    from_model: str | None
    to_model: str
    state: str
    is_open: bool
    comparison: Comparison | None
    started_at: dt.datetime
    changed_at: dt.datetime
    from_space_id: int | None
    to_space_id: int | None
    missing: int = -1
    notes: tuple[str, ...] = ()

    @property
    def spare(self) -> str:
        """The vector space that searches do not use."""
        return self.from_space if self.state == "switched" else self.to_space

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict, for JSON."""
        plain = asdict(self) | {"comparison": None if self.comparison is None else self.comparison.to_dict()}
        return {name: value for name, value in plain.items() if name not in ("id", "from_space_id", "to_space_id")}


def latest(connection: Connection, space: Space) -> Swap | None:
    """Return the latest swap of the collection of a space."""
    row = connection.execute(_SWAP, [space.collection_id]).fetchone()
    if row is None:
        return None
    swap = Swap(*row)
    compared: Any = swap.comparison  # as JSON
    return swap if compared is None else replace(swap, comparison=Comparison.from_dict(compared))


def hold(connection: Connection, space: Space) -> None:
    """Be the only one to swap the model of this collection, until the session ends.

    Raises:
        SwapError: another session is at it.
    """
    deadline = time.monotonic() + _PATIENCE
    while not locks.try_lock(connection, locks.SWAP, space.collection_id):
        if time.monotonic() > deadline:
            raise SwapError(f"another session is swapping the model of {space.chunk_table}: wait for it to end")
        time.sleep(_POLL)


def release(connection: Connection, space: Space) -> None:
    """Let others swap; a session ends some moments after its connection."""
    if not connection.closed and not connection.broken:
        locks.unlock(connection, locks.SWAP, space.collection_id)


def begin(connection: Connection, collection: str, old: Space, embedder: Embedder, name: str | None) -> Swap:
    """Return the open swap to an embedder, begun if there is none: its space is made and noted in one transaction.

    Raises:
        SwapError: the collection has this model already, or is being swapped to another.
    """
    fingerprint = embedding.fingerprint(embedder)
    found = latest(connection, old)
    if found is not None and found.is_open:
        if _fingerprint(connection, found.to_space_id) != fingerprint or name not in (None, found.to_space):
            raise SwapError(
                f"collection {collection!r} is being swapped to {found.to_model} "
                f"(space {found.to_space}, {found.state}): first drop the spare space {found.spare!r}, with "
                f"drop_swapped() or `pgvec model drop {collection}`"
                + (f", or go back to it: `pgvec model rollback {collection}`" if found.state == "switched" else "")
            )
        return found
    if old.model_fingerprint == fingerprint:
        raise SwapError(f"the vectors of collection {collection!r} are of {embedder.name} already")
    embed_texts(embedder, ["Does it work?"])  # before anything is made for it
    with connection.transaction():
        # To make a table that refers to the chunks is to lock these against writers.
        connection.execute("SELECT pgvec._hold_writers(pgvec._collection(%s))", [collection])
        model = register(connection, embedder)
        space = _make_space(connection, collection, old, embedder, model, name)
        connection.execute(
            "INSERT INTO pgvec.swaps"
            " (collection_id, from_space_id, to_space_id, from_space, to_space, from_model, to_model)"
            " SELECT s.collection_id, %s, s.id, %s, s.name, %s, %s FROM pgvec._space(%s, %s) s",
            [old.id, old.name, old.model, embedder.name, collection, space],
        )
    begun = latest(connection, old)
    assert begun is not None
    return begun


def advance(connection: Connection, swap: Swap, state: str, comparison: Comparison | None = None) -> None:
    """Note how far a swap is; one that has been switched stays that."""
    from psycopg.types.json import Jsonb

    connection.execute(
        "UPDATE pgvec.swaps SET state = %s, changed_at = clock_timestamp(), comparison = coalesce(%s, comparison)"
        " WHERE id = %s AND state <> 'switched'",
        [state, None if comparison is None else Jsonb(comparison.to_dict()), swap.id],
    )


def unembedded(connection: Connection, collection: str, space: str) -> tuple[int, int]:
    """Return how many chunks with text lack a vector in a space, and how many without text have one in the default."""
    row = connection.execute("SELECT missing, textless FROM pgvec._unembedded(%s, %s)", [collection, space]).fetchone()
    assert row is not None
    return row[0], row[1]


def space_name(model: str, taken: Collection[str]) -> str:
    """Derive the name of a space from that of its model."""
    words = re.sub(r"[^a-z0-9]+", "_", model.rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower()).strip("_") or "model"
    words = f"m_{words}" if words[0].isdigit() else words
    plain = words[:_LONGEST_NAME].rstrip("_")
    name, number = plain, 1
    while name in taken or name in _RESERVED:
        number += 1
        name = f"{plain[: _LONGEST_NAME - len(str(number)) - 1].rstrip('_')}_{number}"
    return name


def _fingerprint(connection: Connection, space_id: int | None) -> str | None:
    row = connection.execute(
        "SELECT m.fingerprint FROM pgvec.vector_spaces s JOIN pgvec.models m ON m.id = s.model_id WHERE s.id = %s",
        [space_id],
    ).fetchone()
    return None if row is None else str(row[0])


def _make_space(
    connection: Connection, collection: str, old: Space, embedder: Embedder, model: int, name: str | None
) -> str:
    """Make the new space, or take one that holds the model's vectors already; return its name."""
    rows = connection.execute(
        "SELECT name, model_id FROM pgvec.vector_spaces WHERE collection_id = %s", [old.collection_id]
    ).fetchall()
    there: dict[str, int | None] = dict(rows)  # to the ids of their models
    if name is not None and there.get(name) == model:
        return name
    # Tables may have the name, of other collections too.
    taken = connection.execute(
        "SELECT substr(c.relname::text, length(%s) + 1) FROM pg_class c"
        " WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND starts_with(c.relname::text, %s)",
        [prefix := f"{old.chunk_table}_", old.schema, prefix],
    ).fetchall()
    name = name or space_name(embedder.name, {*there, *(rest for (rest,) in taken)})
    dense = embedding.vector_type_of(embedder) is None and old.type in ("vector", "halfvec")
    shape = spaces.shape_of(
        embedder,
        None,
        "halfvec" if dense and old.type == "halfvec" else None,
        embedding.distance_of(embedder) or (str(old.distance) if dense else None),
    )
    connection.execute(
        "SELECT pgvec.add_space(%s, %s, %s::integer, %s, %s, %s::integer)",
        [collection, name, shape.dimensions, shape.type, shape.distance, model],
    )
    _share(connection, old.schema, old.vector_table, f"{old.chunk_table}_{name}")
    history = connection.execute("SELECT FROM pgvec.histories WHERE collection_id = %s", [old.collection_id]).fetchone()
    if history is not None:
        # Triggers write it with the rights of who writes the vectors.
        _share(connection, old.schema, f"{old.vector_table}_history", f"{old.chunk_table}_{name}_history")
    return name


def _share(connection: Connection, schema: str, model: str, table: str) -> None:
    """Have a new table belong to whom another does, if this role may do that, and be used by the same roles."""
    _give_to_owner(connection, schema, model, table)
    connection.execute(
        "SELECT pgvec._grant_same(pgvec._relation(%s, %s), pgvec._relation(%s, %s))", [schema, model, schema, table]
    )


def _give_to_owner(connection: Connection, schema: str, model: str, table: str) -> None:
    row = connection.execute(
        "SELECT pg_get_userbyid(relowner), relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)"
        " FROM pg_class WHERE oid = pgvec._relation(%s, %s)",
        [schema, model],
    ).fetchone()
    assert row is not None
    if row[1]:
        return
    statement = psycopg.sql.SQL("ALTER TABLE {} OWNER TO {}")
    try:
        with connection.transaction():
            owned = psycopg.sql.Identifier(schema, table)
            connection.execute(statement.format(owned, psycopg.sql.Identifier(row[0])))
    except psycopg.errors.InsufficientPrivilege:
        return  # it may use it all the same
