"""Tables that collections follow."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from pgvec_toolkit.embed import kinds
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER, Embedder
from pgvec_toolkit.embed.registry import register
from pgvec_toolkit.pool import Connection
from pgvec_toolkit.schema import space as spaces

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Pool

_COLUMNS = (
    "a.id, c.name, a.relation_name, a.routines_schema, a.columns, a.chunking, a.model, a.backfill_after IS NOT NULL"
)


@dataclass(frozen=True)
class Attachment:
    """A table that a collection follows.

    Attributes:
        id: in pgvec.attachments.
        collection: that follows.
        relation: as it was called when it was attached.
        schema: of the functions by which its rows are read.
        columns: that are copied.
        chunking: how texts are cut.
        model: what to load if the collection names none yet.
        backfilling: whether rows that were there before are still to be queued.
    """

    id: int
    collection: str
    relation: str
    schema: str
    columns: Sequence[str]
    chunking: Mapping[str, Any]
    model: str | None
    backfilling: bool

    @property
    def source(self) -> str:
        """What its documents have for a source in the ledger."""
        return f"table:{self.relation}"


def attachments(connection: Connection, collections: Sequence[str] | None) -> list[Attachment]:
    """Return what is attached, or what of it some collections follow."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM pgvec.attachments a JOIN pgvec.collections c ON c.id = a.collection_id"
        " WHERE %s::text[] IS NULL OR c.name = ANY (%s) ORDER BY a.id",
        [collections, collections],
    ).fetchall()
    return [Attachment(*row) for row in rows]


@dataclass(frozen=True)
class Lag:
    """How far a collection is behind the table that it follows.

    Attributes:
        collection: that follows.
        relation: what the table is called now.
        pending: documents that wait, or are in work.
        backfilling: whether rows that were there before are still to be queued.
        oldest_age: how long the oldest of them is waiting.
        in_work: how many workers have claimed.
        waiting: how many are tried again later.
        failed: how many were given up, until `requeue`.
        per_minute: how many are done.
        error: why none can be, or why the last attempt failed.
    """

    collection: str
    relation: str
    pending: int
    backfilling: bool
    oldest_age: dt.timedelta | None
    in_work: int
    waiting: int
    failed: int
    per_minute: float
    error: str | None


def lag(database: Pool) -> list[Lag]:
    """Return how far each collection is behind its table (SQL: `pgvec.queue_lag`)."""
    return [
        Lag(*row)
        for row in database.fetch(
            "SELECT collection, relation, pending, backfilling, oldest_age, in_work, waiting, failed,"
            " per_minute::double precision, error FROM pgvec.queue_lag ORDER BY collection"
        )
    ]


def attach(
    database: Pool,
    relation: str,
    text: str,
    *,
    collection: str | None,
    columns: Sequence[str],
    embedder: Embedder | str | None,
    chunking: Mapping[str, Any],
    type: str | None,
    distance: str | None,
    language: str,
    schema: str | None,
) -> str:
    """Attach a table; the model is registered and the collection created in the same transaction."""
    with database.connection() as connection, connection.transaction():
        exists = connection.execute(
            "SELECT EXISTS (SELECT FROM pgvec.collections c"
            " WHERE c.name = coalesce(%s, pgvec._search_name(%s::regclass)))",
            [collection, relation],
        ).fetchone()
        if embedder is None and exists == (False,):
            embedder = DEFAULT_EMBEDDER
        loaded = kinds.load(embedder) if isinstance(embedder, str) else embedder
        shape = spaces.shape_of(loaded, None, type, distance)
        row = connection.execute(
            "SELECT pgvec.attach(%s::regclass, text => %s, collection => %s, columns => %s::text[], chunking => %s,"
            " model_id => %s::integer, dimensions => %s::integer, type => %s, distance => %s, language => %s,"
            " schema => %s)",
            [
                *(relation, text, collection, list(columns), Jsonb(dict(chunking))),
                None if loaded is None else register(connection, loaded),
                *(shape.dimensions, shape.type, shape.distance, language, schema),
            ],
        ).fetchone()
    assert row is not None
    return str(row[0])


def detach(database: Pool, name: str, *, drop: bool) -> str:
    """Detach a table; returns the collection that followed it (SQL: `pgvec.detach`)."""
    (collection,) = database.fetch_one("SELECT pgvec.detach($1, $2)", [name, drop])
    return str(collection)


def requeue(database: Pool, name: str, *, everything: bool) -> int:
    """Have what failed tried again; returns how many documents (SQL: `pgvec.requeue`)."""
    (requeued,) = database.fetch_one("SELECT pgvec.requeue($1, $2)", [name, everything])
    return int(requeued)
