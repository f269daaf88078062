"""Statements that find the rows nearest to a vector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict, TypeVar, Unpack, overload

from sqlalchemy import BindParameter, ColumnElement, FromClause, Select, and_, bindparam, inspect, literal, or_, select
from sqlalchemy.orm import InstanceState

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.orm.mapped import VectorColumn, vector_column
from pgvec_toolkit.orm.types import Unembedded, length_of
from pgvec_toolkit.orm.waiting import outside
from pgvec_toolkit.search.options import MOST_ROWS
from pgvec_toolkit.vectors import vector_type

OPTION = "pgvec_nearest"  # the execution option that says what a statement is
_Model = TypeVar("_Model")


@dataclass(frozen=True)
class Nearest:
    """How a statement wants to be run.

    Attributes:
        searched: the column.
        recall: the target, if not the default one.
        ef_search: instead of the tuned setting.
        exact: use no index.
        beyond: how many rows are left out of what the index yields.
    """

    searched: VectorColumn
    recall: float | None
    ef_search: int | None
    exact: bool
    beyond: int = 0


class NearestOptions(TypedDict, total=False):
    """Options of `nearest` and `similar_to`.

    Attributes:
        within: the largest distance.
        min_similarity: the smallest similarity; the same threshold in other words.
        space: the vector column, if the model has several; its attribute or its name.
        recall: another target than the default one, of those that were tuned for; 1 is exact.
        ef_search: instead of the tuned setting (probes, for IVFFlat).
        exact: use no index.
    """

    within: float | None
    min_similarity: float | None
    space: Any
    recall: float | None
    ef_search: int | None
    exact: bool


@overload
def nearest(entity: type[_Model], query: Any, k: int = 10, **options: Unpack[NearestOptions]) -> Select[_Model]: ...
@overload
def nearest(entity: FromClause, query: Any, k: int = 10, **options: Unpack[NearestOptions]) -> Select[Any]: ...
def nearest(entity: Any, query: Any, k: int = 10, **options: Unpack[NearestOptions]) -> Select[Any]:
    """Select the k nearest rows, nearest first, with columns `distance` and `similarity`.

    Rows are (instance, distance, similarity); typed is the first of them, which is what `Session.scalars` returns.
    The statement takes `where`, `join`, `options`, `limit`, `offset` and more columns, as any other. Run by a Session
    it is searched as `Collection.search` searches, if its table is registered as a collection: by the tuning profile,
    and never short of rows that match.

    Args:
        entity: the model, an alias of it, or a Core table.
        query: a vector, or a text, which the column's embedder or that of the collection embeds when it runs.
        k: how many.
        **options: see `NearestOptions`.
    """
    searched = vector_column(entity, options.get("space"))
    return _statement(searched, query_bound(searched, query), k, options)


def similar_to(
    instance: _Model,
    k: int = 10,
    **options: Unpack[NearestOptions],
) -> Select[_Model]:
    """Select the k rows nearest to an instance, without itself; all else as in `nearest`."""
    state = inspect(instance, raiseerr=False)
    if not isinstance(state, InstanceState):
        raise ConfigurationError(f"{instance!r} is no instance of a model: give vectors to nearest(Model, vector)")
    searched = vector_column(state.mapper.class_, options.get("space"))
    query = getattr(instance, state.mapper.get_property_by_column(searched.column).key)
    if query is None:
        raise ConfigurationError(f"{searched.column} of this row is NULL: nothing is similar to it")
    identity = [getattr(instance, state.mapper.get_property_by_column(key).key) for key in searched.table.primary_key]
    stored = all(value is not None for value in identity)
    other = or_(*(key != value for key, value in zip(searched.keys, identity, strict=True))) if stored else None
    return _statement(searched, query_bound(searched, query), k, options, other)


def query_bound(searched: VectorColumn, query: Any) -> BindParameter[Any]:
    """Return a query in the column's own type, checked; a text is embedded when it runs, so not by an event loop."""
    if isinstance(query, str) and searched.type != "bit":
        if not query.strip():
            raise ConfigurationError("the query is empty")
        embedder = searched.embedder
        query = Unembedded(query, None if embedder is None else partial(embedded_query, searched, embedder))
    else:
        query = checked_query(searched, query)
    return bindparam(None, query, type_=searched.column.type, unique=True)


def embedded_query(searched: VectorColumn, embedder: Embedder, text: str) -> Any:
    """Return the vector of a text, as the column's type takes it."""
    vector = embedding.checked(outside(embedder.embed_query, text), (embedder.dimensions,), embedder)
    return checked_query(searched, vector)


def checked_query(searched: VectorColumn, query: Any) -> Any:
    """Return a query as the column's type takes it; ConfigurationError if it does not fit."""
    dimensions = length_of(query) if searched.dimensions is None else searched.dimensions
    return vector_type(searched.type).one(query, dimensions, searched.distance, "the query vector")


def check(k: int, options: NearestOptions) -> None:
    """Refuse options that no search takes."""
    recall, ef_search = options.get("recall"), options.get("ef_search")
    within, min_similarity = options.get("within"), options.get("min_similarity")
    if isinstance(k, bool) or not hasattr(k, "__index__") or not 1 <= k <= MOST_ROWS:
        raise ConfigurationError(f"k must be from 1 to {MOST_ROWS}, not {k}")
    if recall is not None and not 0 <= recall <= 1:
        raise ConfigurationError(f"recall must be from 0 to 1, not {recall}")
    if recall is not None and ef_search is not None:
        raise ConfigurationError("recall and ef_search both say how well to search: give one")
    if ef_search is not None and not 1 <= ef_search <= 1_000_000:
        raise ConfigurationError(f"ef_search must be from 1 to 1000000, not {ef_search}")
    if within is not None and min_similarity is not None:
        raise ConfigurationError("within and min_similarity are two ways to say the same: give one")
    if within != within or min_similarity != min_similarity:
        raise ConfigurationError("a threshold is a number, not NaN")


def _statement(
    searched: VectorColumn,
    query: BindParameter[Any],
    k: int,
    options: NearestOptions,
    other: ColumnElement[bool] | None = None,
) -> Select[Any]:
    """Return the statement; `other` leaves out the row that the query is of."""
    check(k, options)
    recall = options.get("recall")
    exact = options.get("exact", False) or recall == 1
    wish = Nearest(
        searched, None if recall == 1 else recall, options.get("ef_search"), exact, beyond=0 if other is None else 1
    )
    distance = searched.distance_to(query)
    similarity = searched.similarity_of(distance)
    own: list[ColumnElement[bool]] = [searched.attribute.is_not(None)]
    if (within := options.get("within")) is not None:
        own.append(distance <= literal(float(within)))
    if (least := options.get("min_similarity")) is not None:
        own.append(similarity >= literal(float(least)))
    if other is not None:
        own.append(other)
    return (
        select(searched.entity, distance.label("distance"), similarity.label("similarity"))
        .where(marked(and_(*own)))
        .order_by(marked(distance))
        .limit(k)
        .execution_options(**{OPTION: wish})
    )


def marked(element: ColumnElement[Any]) -> Any:
    """Mark a part of a statement as ours, not the user's."""
    return element._annotate({OPTION: True})


def is_marked(element: Any) -> bool:
    """Whether a part of a statement is ours."""
    return OPTION in element._annotations
