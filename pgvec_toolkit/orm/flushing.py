"""Embedding what a Session is about to write: an opt-in event."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import event, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session

from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.embed.texts import embed_texts
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, RejectedText
from pgvec_toolkit.orm.known import embedder_for
from pgvec_toolkit.orm.mapped import VectorColumn, vector_columns
from pgvec_toolkit.orm.waiting import outside

_Embedding = tuple[str, str, VectorColumn]


class _Stale(NamedTuple):
    """An instance whose text changed, and with it what its vector should be."""

    state: InstanceState[Any]
    attribute: str
    text: str | None
    searched: VectorColumn


def embed_on_flush(target: Any, embedder: Embedder | None = None, *, later: bool = False) -> None:
    """Have each flush embed the instances whose text changed, in one batch, in the same transaction.

    It sees what goes through the unit of work: bulk inserts and updates, and SQL, it does not. A vector that is set
    together with its text is left as it is. A text that expired counts as changed when it is set, to whatever. If the
    embedder fails, the flush does.

    Args:
        target: a Session, a subclass of it, or a sessionmaker; of an AsyncSession its `sync_session`, or the
            `sync_session_class` of an async_sessionmaker.
        embedder: of columns that name none; None: that of the registered collection.
        later: do not embed, but set vectors to NULL, which `pgvec collection embed` fills.
    """

    def before_flush(session: Session, context: object, instances: object) -> None:  # noqa: ARG001
        embeddings = cache(_embeddings)
        stale = [one for instance in (*session.new, *session.dirty) for one in _stale(instance, embeddings)]
        with session.no_autoflush:
            _embed(session, stale, embedder, later=later)

    event.listen(target, "before_flush", before_flush)


def _stale(instance: Any, embeddings: Callable[[Mapper[Any]], list[_Embedding]]) -> Iterable[_Stale]:
    state: InstanceState[Any] = inspect(instance)
    for attribute, of, searched in embeddings(state.mapper):
        given = state.attrs[attribute].history.added
        changed = state.attrs[of].history.added
        if changed and not any(value is not None for value in given or ()):
            yield _Stale(state, attribute, changed[0], searched)


def _embeddings(mapper: Mapper[Any]) -> list[_Embedding]:
    """Return the attributes that are embeddings, and those of their texts."""
    found = []
    for searched in vector_columns(mapper.class_):
        if searched.text is None:
            continue
        if searched.text not in mapper.class_manager:
            raise ConfigurationError(
                f"{mapper.class_.__name__} has no attribute {searched.text!r} to embed: see text=…"
            )
        found.append((mapper.get_property_by_column(searched.column).key, searched.text, searched))
    return found


def _embed(session: Session, stale: list[_Stale], given: Embedder | None, *, later: bool) -> None:
    batches: dict[int, tuple[Embedder, list[_Stale]]] = {}
    found: dict[object, Embedder] = {}  # it may take a round trip
    for one in stale:
        if later or one.text is None or not one.text.strip():
            setattr(one.state.obj(), one.attribute, None)
            continue
        embedder = one.searched.embedder or given or found.get(one.searched.column)
        if embedder is None:
            connection = session.connection({"mapper": one.state.mapper})
            embedder = found[one.searched.column] = embedder_for(connection, one.searched)
        batches.setdefault(id(embedder), (embedder, []))[1].append(one)
    for embedder, some in batches.values():
        for one, vector in zip(some, _vectors(embedder, some), strict=True):
            setattr(one.state.obj(), one.attribute, vector)


def _vectors(embedder: Embedder, some: list[_Stale]) -> Any:
    try:
        return outside(embed_texts, embedder, [str(one.text) for one in some])
    except RejectedText as error:
        refused = ", ".join(repr(some[position].state.obj()) for position in error.positions[:5])
        raise RejectedText(f"{error} ({refused})", error.positions) from error
    except EmbeddingError:
        raise
    except Exception as error:
        raise EmbeddingError(f"embedder {embedder.name} failed, nothing was written: {error}") from error
