"""What goes wrong in following a table: whether it is a row's fault, and whether to try again."""

from __future__ import annotations

import random
from enum import Enum

import psycopg

from pgvec_toolkit.errors import ConnectionFailed, EmbedderUnavailable, InvalidRecord, PgvecError, RejectedText

ATTEMPTS = 5  # of a document, when it is not known whether another one can help
_LONGEST = 300.0  # seconds until another attempt


class Kind(Enum):
    """Whose fault an error is."""

    ROW = "the document's: it is given up"
    UNKNOWN = "perhaps the document's: it is given up after some attempts"
    LATER = "nobody's: later it may work"
    ALL = "that of the expression, the model or our rights: no document can be embedded"
    CONNECTION = "the connection's"


# What PostgreSQL says of a value; everything else that it says is about the statement, or the server.
_OF_A_VALUE = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
_OF_A_MOMENT = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.InsufficientResources,
)


def kind_of(error: Exception) -> Kind:
    """Return whose fault an error is."""
    if isinstance(error, (*_OF_A_MOMENT, EmbedderUnavailable)):
        return Kind.LATER
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | ConnectionFailed):
        return Kind.CONNECTION
    if isinstance(error, (*_OF_A_VALUE, RejectedText, InvalidRecord)):
        return Kind.ROW
    if isinstance(error, PgvecError | psycopg.Error | ImportError):
        return Kind.ALL
    return Kind.UNKNOWN


def pause(attempts: int) -> float:
    """Return how many seconds to wait after so many attempts: longer each time, and not all at once."""
    return min(_LONGEST, 2.0 ** min(attempts, 16)) * random.uniform(0.5, 1)


def reason(error: Exception) -> str:
    """Return an error as one line."""
    text = getattr(getattr(error, "diag", None), "message_primary", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:1000]
