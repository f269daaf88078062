"""Whose fault it is that a step failed: the document's, or that of something that all documents need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import psycopg

from pgvec_toolkit.embed.base import Embedder, checked
from pgvec_toolkit.errors import (
    ConfigurationError,
    EmbedderUnavailable,
    InvalidRecord,
    MissingDependency,
    PgvecError,
    RejectedText,
)
from pgvec_toolkit.ingest.ledger import storable

_Item = TypeVar("_Item")
_HARMLESS = "A harmless text."
# None of these depends on a document: another attempt with less of them fails as well.
_NOT_OF_ONE_TEXT = (EmbedderUnavailable, MissingDependency, ConfigurationError, OSError, psycopg.Error)
# What PostgreSQL says of a value, and what functions and triggers of users say; all else is about the statement.
_OF_A_ROW = (
    InvalidRecord,
    UnicodeEncodeError,
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.CardinalityViolation,
    psycopg.errors.RaiseException,
    psycopg.errors.ExternalRoutineException,
    psycopg.errors.ExternalRoutineInvocationException,
)
_LONGEST_REASON = 1000
_MOST_ROUNDS = 100  # of errors that name some of the items at fault, one round within the other


def bisected(
    items: Sequence[_Item],
    act: Callable[[Sequence[_Item]], None],
    is_at_fault: Callable[[Exception, Sequence[_Item]], bool],
    suspects: Callable[[Exception, Sequence[_Item]], Collection[int]] | None = None,
) -> list[tuple[_Item, Exception]]:
    """Act on all items at once; if that fails, on fewer: until it is known which of them are at fault, and why.

    Those whose positions an error names are acted on one by one, apart from all others; if it names none, each half.
    An error of which none of them is at fault is raised.
    """
    try:
        act(items)
    except Exception as error:
        if not is_at_fault(error, items):
            raise
        if len(items) == 1:
            return [(items[0], error)]
        named = suspects(error, items) if suspects else ()
        if not named:
            middle = len(items) // 2
            halves = (items[:middle], items[middle:])
            return [each for half in halves for each in bisected(half, act, is_at_fault, suspects)]
        alone = [each for at in named for each in bisected([items[at]], act, is_at_fault)]
        rest = [item for at, item in enumerate(items) if at not in named]
        # An error that named others than were at fault, or only few of many, is not asked again.
        telling = len(alone) == len(named) >= len(items) / _MOST_ROUNDS
        return alone + bisected(rest, act, is_at_fault, suspects if telling else None)
    return []


def is_texts_fault(error: Exception, embedder: Embedder, alone: bool) -> bool:
    """Tell whether a text may be to blame that texts were not embedded; if there was one alone, whether it is."""
    if isinstance(error, _NOT_OF_ONE_TEXT):
        return False
    return not alone or isinstance(error, RejectedText) or _works(embedder)


def is_rows_fault(error: Exception) -> bool:
    """Tell whether what was to be read or written is to blame that it was not."""
    return isinstance(error, _OF_A_ROW)


def _works(embedder: Embedder) -> bool:
    """Tell whether an embedder can embed at all: what it says of texts in general is no text's fault."""
    try:
        checked(embedder.embed_documents([_HARMLESS]), (1, embedder.dimensions), embedder)
    except Exception:
        return False
    return True


def reason(error: BaseException) -> str:
    """Return what an error says, as one line; of one that is neither ours nor the server's, with its kind."""
    said = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
    if not isinstance(error, PgvecError | psycopg.Error) or not said:
        said = f"{type(error).__name__}: {said}"
    return storable(" ".join(said.split())[:_LONGEST_REASON])
