"""What a collection was: history, time travel, restoring, forgetting."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgvec_toolkit.collection.base import CollectionBase, Query
from pgvec_toolkit.ingest.batch import identifiers
from pgvec_toolkit.search.filter import Filter
from pgvec_toolkit.search.hit import Hits


@dataclass(frozen=True)
class DocumentVersion:
    """A version of a document.

    Attributes:
        version: 1 for the oldest that the history knows.
        valid_from: when it was written; None: before there was a history.
        valid_to: when it was replaced or deleted; None: it is as it is now.
        chunks: how many.
    """

    version: int
    valid_from: dt.datetime | None
    valid_to: dt.datetime | None
    chunks: int


class Remembering(CollectionBase):
    """Methods of collections that keep a history."""

    def create_history(self) -> None:
        """Keep earlier versions of chunks and vectors from now on (SQL: `pgvec.create_history`).

        What is deleted or replaced can then be searched as of then, and brought back, until `purge` forgets it.
        """
        self._database.fetch("SELECT pgvec.create_history($1)", [self.name])

    def drop_history(self) -> bool:
        """Drop the history; what the collection is now stays. Returns whether there was one."""
        return bool(self._database.fetch_one("SELECT pgvec.drop_history($1)", [self.name])[0])

    def search_as_of(
        self,
        query: Query,
        as_of: dt.datetime | str,
        k: int = 10,
        where: Filter | None = None,
        *,
        space: str | None = None,
        where_sql: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Hits:
        """Return the k nearest chunks as they were at a time; exact (SQL: `pgvec.search_as_of`).

        Args:
            query: as `search` takes it.
            as_of: the time: a datetime, which is local without a time zone, or its text as PostgreSQL reads it.
            k: how many.
            where: a filter, of the chunks as they were.
            space: the vector space; None: the default one.
            where_sql: as in `SearchOptions`.
            parameters: the values of `where_sql`.
        """

        def search() -> Hits:
            name = self._space(space).name
            options = {"space": name, "where_sql": where_sql, "parameters": parameters}
            return self._searcher.search_as_of(self._query(query, name), _moment(as_of), k, where, options)

        return self._lasting(search)

    def versions(self, document_id: str | int) -> list[DocumentVersion]:
        """Return the versions of a document, oldest first (SQL: `pgvec.document_versions`)."""
        rows = self._database.fetch(
            "SELECT version, nullif(valid_from, '-infinity'), nullif(valid_to, 'infinity'), chunks "
            "FROM pgvec.document_versions($1, $2)",
            [self.name, *identifiers([document_id])],
        )
        return [DocumentVersion(*row) for row in rows]

    def restore(self, document_ids: Sequence[str | int], as_of: dt.datetime | str) -> int:
        """Bring documents back as they were; returns the number of chunks (SQL: `pgvec.restore_documents`)."""
        return int(
            self._database.fetch_one(
                "SELECT pgvec.restore_documents($1, $2::text[], $3::text::timestamptz)",
                [self.name, identifiers(document_ids), _moment(as_of)],
            )[0]
        )

    def purge(self, before: dt.datetime | str = "now", document_ids: Sequence[str | int] | None = None) -> int:
        """Forget the history before a time; returns how many versions of chunks are gone (SQL: `pgvec.purge`).

        Args:
            before: versions that ended by then: a time as `search_as_of` takes it.
            document_ids: forget the history of these only.
        """
        ids = None if document_ids is None else identifiers(document_ids)
        return int(
            self._database.fetch_one(
                "SELECT pgvec.purge($1, $2::text::timestamptz, $3::text[])", [self.name, _moment(before), ids]
            )[0]
        )


def _moment(time: dt.datetime | str) -> str:
    """Return a time as PostgreSQL reads it: without a time zone it is the caller's, not the server's."""
    return str(time.astimezone() if isinstance(time, dt.datetime) else time)
