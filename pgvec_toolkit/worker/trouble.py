"""What goes wrong in following a table: whether it is a row's fault, and whether to try again."""

from __future__ import annotations

import random
from enum import Enum

import psycopg

from pgvec_toolkit.errors import ConnectionFailed, EmbedderUnavailable, PgvecError, RejectedText
from pgvec_toolkit.ingest.blame import is_rows_fault

ATTEMPTS = 5  # of a document, when it is not known whether another one can help
_LONGEST = 300.0  # seconds until another attempt


class Kind(Enum):
    """Whose fault an error is."""

    ROW = "the document's: it is given up"
    UNKNOWN = "perhaps the document's: it is given up after some attempts"
    STATEMENT = "the document's if another row gets through, else that of the expression or our rights"
    LATER = "nobody's: later it may work"
    ALL = "that of the model: no document can be embedded"


_OF_A_MOMENT = (EmbedderUnavailable, ConnectionFailed, OSError)
# SQLSTATEs begin so: rolled back, out of memory or disk, told to stop, trouble with files; and a lock not had in time.
_OF_THE_SERVER = ("40", "53", "57", "58", "55P03")
# Of two who write the same, or of who drops what is written to; or of a constraint of the user's.
_OF_A_RACE = (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation)


def kind_of(error: Exception) -> Kind:
    """Return whose fault an error is that is not the connection's."""
    said = (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
    if isinstance(error, _OF_A_MOMENT) or said.startswith(_OF_THE_SERVER):
        return Kind.LATER
    if isinstance(error, _OF_A_RACE):
        return Kind.UNKNOWN
    if isinstance(error, RejectedText) or is_rows_fault(error):
        return Kind.ROW
    if isinstance(error, psycopg.Error):
        return Kind.STATEMENT
    if isinstance(error, PgvecError | ImportError):
        return Kind.ALL
    return Kind.UNKNOWN


def pause(attempts: int) -> float:
    """Return how many seconds to wait after so many attempts: longer each time, and not all at once."""
    return min(_LONGEST, 2.0 ** min(attempts, 16)) * random.uniform(0.5, 1)
