"""Logging a sample of the queries that are searched for, where that was switched on (`Collection.log_queries`)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection

# Its own transaction, so the log may reach the disk a moment later: the search need not wait for that.
_LOG = b"""SELECT set_config('synchronous_commit', 'off', true), pgvec._log_query(%s, %s::text, %s::integer, %s)"""


class Sampling:
    """Which spaces of a collection are logged, as of when a statement was last fetched: it costs no round trip."""

    def __init__(self) -> None:
        self._spaces: Mapping[str, tuple[int, float]] = {}

    def note(self, spaces: Mapping[str, tuple[int, float]] | None) -> None:
        """Remember what `pgvec._sampling` says: space to its id and share, the default one also as ""."""
        self._spaces = spaces or {}

    def log(self, connection: Connection, space: str | None, query: Any, k: int, filter: Any) -> None:
        """Log a query that was searched for, if chance has it; no search fails for what goes wrong here."""
        space_id, share = self._spaces.get(space or "", (0, 0.0))
        if share and random.random() < share:
            with contextlib.suppress(psycopg.Error):
                connection.execute(_LOG, [space_id, query, k, None if filter is None else Jsonb(filter)])
