"""How the statements of `nearest` and its kin are run: a Session's event makes of each one what finds its rows well.

The law is that of SQL: `pgvec._mapped_sql` returns the text of a search of the registered table, which is kept for a
while, and `Among` puts it, with the statement's own conditions in it, into the statement, whose keys it finds. So there
is no further round trip, and the settings end with the statement's transaction, or with the statement, where later
rows would come unsorted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Result,
    Select,
    event,
    func,
    literal_column,
    null,
    select,
    text,
    tuple_,
)
from sqlalchemy.orm import ORMExecuteState, Session

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.orm.conditions import bare, is_filtered
from pgvec_toolkit.orm.conditions import wanted as wanted_rows
from pgvec_toolkit.orm.hybrid import Hybrid, tuned_hybrid
from pgvec_toolkit.orm.known import asking, embedder_for, mapped, nearest_text
from pgvec_toolkit.orm.nearest import OPTION, Nearest, embedded_query, is_marked, marked
from pgvec_toolkit.orm.splice import PUT_BACK, Among
from pgvec_toolkit.orm.types import Unembedded

_Statement = TypeVar("_Statement", bound="Select[*tuple[Any, ...]]")
# Of a table that is not registered it is not known which index there is.
_GOING_ON = (
    "(SELECT pg_catalog.concat(pg_catalog.set_config('hnsw.iterative_scan', 'relaxed_order', true),"
    " pg_catalog.set_config('hnsw.max_scan_tuples', '2147483647', true),"
    " pg_catalog.set_config('hnsw.scan_mem_multiplier', '1000', true),"
    " pg_catalog.set_config('ivfflat.iterative_scan', 'relaxed_order', true),"
    " pg_catalog.set_config('ivfflat.max_probes', '32768', true))) IS NOT NULL"
)
_SETTING = (
    "(SELECT pg_catalog.concat(pg_catalog.set_config('hnsw.ef_search', '{0}', true),"
    " pg_catalog.set_config('ivfflat.probes', '{1}', true))) IS NOT NULL"
)


def tuned(bind: Session | Connection, statement: _Statement) -> _Statement:
    """Return a statement of `nearest`, `similar_to` or `hybrid` as it is to be run on a connection.

    A Session does so by itself; Core needs it: `connection.execute(orm.tuned(connection, nearest(table, query)))`.
    Other statements are returned as they are. What a bindparam() is to be is for `statement.params(…)` to say before.
    """
    connection = bind.connection() if isinstance(bind, Session) else bind
    return _tuned(connection, statement, {})


def _tuned(connection: Connection, statement: _Statement, options: Mapping[str, Any]) -> _Statement:
    """Do what `tuned` does for a statement that is run with further execution options."""
    wish = statement.get_execution_options().get(OPTION)
    if wish is None or connection.dialect.name != "postgresql":
        return statement
    with asking(connection, {**statement.get_execution_options(), **connection.get_execution_options(), **options}):
        return _resolved(connection, statement, wish)


def _resolved(connection: Connection, statement: _Statement, wish: Any) -> _Statement:
    statement = statement.execution_options(**{OPTION: None})
    if isinstance(wish, Hybrid):
        return tuned_hybrid(connection, statement, wish)
    ordering = statement._order_by_clauses
    # What is ordered otherwise, or aggregated, is no longer about the nearest.
    if not ordering or not is_marked(ordering[0]) or statement._group_by_clauses:
        return statement
    return _tuned_nearest(connection, _embedded(connection, statement, wish), wish, wanted_rows(statement))


@event.listens_for(Session, "do_orm_execute")
def _tune(state: ORMExecuteState) -> Result[Any] | None:
    if not state.is_select or state.is_column_load or state.is_relationship_load:
        return None
    if isinstance(state.statement, Select) and state.statement.get_execution_options().get(OPTION) is not None:
        # Events of a sessionmaker or a session come later, and may add criteria: this one is put after them.
        if state._remaining_events():
            state._events_todo.append(_tune)
            return state.invoke_statement()
        connection = state.session.connection(bind_arguments=dict(state.bind_arguments))
        # What is asked of SQL is the text of a search, and has its values in it.
        given = state.parameters if isinstance(state.parameters, Mapping) else {}
        statement = state.statement.params(given) if given else state.statement
        state.statement = _tuned(connection, statement, state.local_execution_options)
    return None


def _embedded(connection: Connection, statement: _Statement, wish: Nearest) -> _Statement:
    """Return the statement with a vector where it has a text."""
    query = _query(statement)
    if not isinstance(query.value, Unembedded):
        return statement
    embedder = embedder_for(connection, wish.searched)
    return statement.params({query.key: embedded_query(wish.searched, embedder, query.value.text)})


def _tuned_nearest(connection: Connection, statement: _Statement, wish: Nearest, wanted: int | None) -> _Statement:
    searched = wish.searched
    if wish.exact or wanted is None:  # all rows, or nobody knows how many: the scan of an index ends sooner
        return _exactly(statement)
    found = mapped(connection, searched)
    if found is None:
        return _untuned(statement, wish, wanted)
    key = searched.named(found.key)
    keys = matches = None
    if is_filtered(statement, searched):
        keys = bare(statement).with_only_columns(key).correlate(None)
        matches = keys.where(key == literal_column("d.key")).exists()
    found_by = nearest_text(connection, searched, (wanted, wish.beyond), keys, wish.recall, wish.ef_search)
    if found_by is None:
        return _exactly(statement)
    return _exactly(statement.where(Among(key, found_by, _query(statement), matches, keys)))


def _untuned(statement: _Statement, wish: Nearest, wanted: int) -> _Statement:
    """Return the statement for a table of which pgvec knows nothing: the scan goes on until there are enough rows."""
    keys = wish.searched.keys
    if not keys:
        raise ConfigurationError(
            f"table {wish.searched.table.name} has no primary key, by which a search names what it found: declare it "
            "in the Table, or search with exact=True"
        )
    first: Any = statement._order_by_clauses[0]
    candidates = bare(statement).with_only_columns(*keys).where(wish.searched.attribute.is_not(None), text(_GOING_ON))
    if wish.ef_search is not None:
        candidates = candidates.where(text(_SETTING.format(min(wish.ef_search, 1000), min(wish.ef_search, 32768))))
    if candidates._distinct:  # it could not be ordered by what it does not select
        candidates._distinct, first = False, func.min(first)
        candidates = candidates.group_by(*keys)
    candidates = candidates.order_by(first).limit(wanted + wish.beyond).correlate(None)
    # Sorted, the found are there, and the settings put back, before the first of them is looked up.
    found = candidates.union_all(select(*(null() for _ in keys)).where(text(PUT_BACK))).order_by(text("1"))
    named: ColumnElement[Any] = keys[0] if len(keys) == 1 else tuple_(*keys)
    return _exactly(statement.where(named.in_(found)))


def _exactly(statement: _Statement) -> _Statement:
    """Return the statement with an order that no index serves."""
    if statement._distinct:  # it is sorted anyway, and by what it selects only
        return statement
    first, *others = statement._order_by_clauses
    return statement.order_by(None).order_by(marked(first + literal_column("0")), *others)


def _query(statement: Select[Any]) -> BindParameter[Any]:
    first: Any = statement._order_by_clauses[0]
    query: BindParameter[Any] = first.right
    return query
