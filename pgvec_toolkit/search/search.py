"""Running searches: the statement's text is fetched from the server once for each shape of call, then prepared.

The text is that of `pgvec.search_sql`; it carries its own settings, so it runs in one round trip on any
autocommit connection and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import sql

from pgvec_toolkit.search.filter import Filter, plain, shape
from pgvec_toolkit.search.hit import Hit, Hits
from pgvec_toolkit.search.options import bound_values, check_options, sql_arguments, text_key
from pgvec_toolkit.search.sampling import Sampling
from pgvec_toolkit.search.statements import Texts, ask, blamed

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool

_COLUMNS = "id, document_id, text, metadata, distance, similarity, score, rank, stopped_by"


class Searcher:
    """Searches of one collection."""

    def __init__(self, database: Pool, collection: str) -> None:
        self._database = database
        self._collection = collection
        self._texts = Texts()
        self._sampling = Sampling()

    def search(self, query: Any, k: int, where: Filter | None, options: Mapping[str, Any]) -> Hits:
        """Return the hits of a query that is bound in the type of its space."""
        check_options(k, options)
        k = int(k)
        filter = None if where is None else plain(where)
        parameters = [query, *bound_values(filter, options)]
        key = (text_key(k, options), shape(filter))
        with self._database.connection() as connection:
            rows = self._texts.run(
                connection,
                key,
                lambda: self.text(connection, k, filter, options),
                parameters,
                options.get("where_sql"),
            )
            if options.get("where_sql") is None and not options.get("exact") and options.get("recall") != 1:
                self._sampling.log(connection, options.get("space"), query, k, filter)
        return _hits(rows, options)

    def search_many(
        self, queries: Sequence[Any], k: int, where: Filter | None, options: Mapping[str, Any]
    ) -> list[Hits]:
        """Return the hits of each query, from one statement (SQL: `pgvec.search_many`)."""
        arguments, values = sql_arguments(k, None if where is None else plain(where), options)
        if not queries:
            return []
        statement = f"SELECT query, {_COLUMNS} FROM pgvec.search_many(%s, %s, {arguments})"
        rows: list[list[Any]] = [[] for _ in queries]
        with self._database.connection() as connection, blamed(options.get("where_sql")):
            for number, *row in ask(connection, statement, [self._collection, list(queries), *values]):
                rows[number - 1].append(row)
        return [_hits(found, options) for found in rows]

    def similar(
        self, ids: Sequence[str], unlike: Sequence[str], k: int, where: Filter | None, options: Mapping[str, Any]
    ) -> Hits:
        """Return chunks like some, and unlike others (SQL: `pgvec.similar`)."""
        arguments, values = sql_arguments(k, None if where is None else plain(where), options)
        statement = f"SELECT {_COLUMNS} FROM pgvec.similar(%s, %s::text[], %s::text[], {arguments})"
        with self._database.connection() as connection, blamed(options.get("where_sql")):
            rows = ask(connection, statement, [self._collection, list(ids), list(unlike), *values])
        return _hits(rows, options)

    def maxsim(
        self,
        query: Any,
        tokens: Sequence[Any],
        k: int,
        where: Filter | None,
        space: str,
        candidates: int | None,
        first_space: str | None,
    ) -> Hits:
        """Return candidates of a first search, ordered by late interaction (SQL: `pgvec.maxsim_search`)."""
        arguments, values = sql_arguments(k, None if where is None else plain(where), {"space": space})
        statement = (
            f"SELECT {_COLUMNS} FROM pgvec.maxsim_search(%s, %s, %s, {arguments},"
            " candidates => %s::integer, first_space => %s)"
        )
        with self._database.connection() as connection:
            rows = ask(connection, statement, [self._collection, query, tokens, *values, candidates, first_space])
        return _hits(rows, {})

    def search_as_of(self, query: Any, as_of: Any, k: int, where: Filter | None, options: Mapping[str, Any]) -> Hits:
        """Return the hits among what was there at a time (SQL: `pgvec.search_as_of`)."""
        arguments, values = sql_arguments(k, None if where is None else plain(where), options)
        statement = f"SELECT {_COLUMNS} FROM pgvec.search_as_of(%s, %s, %s::text::timestamptz, {arguments})"
        with self._database.connection() as connection, blamed(options.get("where_sql")):
            rows = ask(connection, statement, [self._collection, query, str(as_of), *values])
        return _hits(rows, {"exact": True})

    def explain(self, query: Any, k: int, where: Filter | None, options: Mapping[str, Any]) -> str:
        """Return the plan of a search and why it is what it is (SQL: `pgvec.explain`)."""
        arguments, values = sql_arguments(k, None if where is None else plain(where), options)
        with self._database.connection() as connection, blamed(options.get("where_sql")):
            lines = connection.execute(
                f"SELECT * FROM pgvec.explain(%s, %s, {arguments})".encode(), [self._collection, query, *values]
            ).fetchall()
        return "\n".join(line for (line,) in lines)

    def forget_texts(self) -> None:
        """Ask for statements anew; to be called when an index has been built, dropped or tuned."""
        self._texts.clear()

    def text(self, connection: Connection, k: int, filter: Any, options: Mapping[str, Any]) -> str:
        """Return the text of the statement (SQL: `pgvec.search_sql`)."""
        named = {name: value for name, value in options.items() if name != "parameters"}
        arguments, values = sql_arguments(k, filter, named)
        row = connection.execute(
            sql.SQL(f"SELECT pgvec.search_sql(%s, {arguments}), pgvec._sampling(%s)"),
            [self._collection, *values, self._collection],
        ).fetchone()
        assert row is not None
        self._sampling.note(row[1])
        return str(row[0])


def _hits(rows: Sequence[Sequence[Any]], options: Mapping[str, Any]) -> Hits:
    if rows:
        stopped_by = rows[0][8]
    else:
        exact = options.get("exact") or options.get("recall") == 1
        proven = exact or (options.get("within") is None and options.get("min_similarity") is None)
        stopped_by = "complete" if proven else "threshold"
    return Hits([Hit(*row[:8]) for row in rows], stopped_by)
