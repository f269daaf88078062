"""Every error that pgvec raises on purpose; each message says what to do next.

PgvecError
├── ConfigurationError      a DSN, an environment variable or a setting is wrong
├── ConnectionFailed        the server cannot be reached
├── ServerError             the embedded server cannot be set up, started or stopped
├── MissingDependency       an extra is not installed (also an ImportError)
├── NotMigrated             schema `pgvec` is absent or older than this library
├── UnsupportedFeature      the server or the extension is too old for what was asked
├── CollectionNotFound      no collection or vector space of that name
├── CollectionExists        the name is taken
├── InvalidName             a name that cannot be a collection, space or column
├── InvalidRecord           a row that cannot be stored; names the row and the field
├── FilterError             unknown operator or column, or a value of the wrong type
├── EmbeddingError          the embedder is missing, or its output does not fit the space
│   ├── RejectedText        the embedder will never take these texts; others it takes
│   └── EmbedderUnavailable the embedder cannot be reached or is overloaded; later it may answer
├── RerankError             a reranker failed, or its scores do not fit
├── IndexBuildError         an index could not be built
├── SwapError               a model cannot be swapped, or was while this was written
└── TuningError             the target recall cannot be reached, or there is nothing to tune on
"""

from __future__ import annotations


class PgvecError(Exception):
    """Base of all errors that pgvec raises on purpose."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its kind, if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class ConfigurationError(PgvecError):
    """A DSN, an environment variable or a setting is wrong."""


class ConnectionFailed(PgvecError):
    """The PostgreSQL server cannot be reached."""


class ServerError(PgvecError):
    """The embedded PostgreSQL cannot be set up, started or stopped."""


class MissingDependency(PgvecError, ImportError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'pgvec-toolkit[{extra}]'")


class NotMigrated(PgvecError):
    """Schema `pgvec` is absent or older than this library."""


class UnsupportedFeature(PgvecError):
    """The server or the extension is too old for what was asked."""


class CollectionNotFound(PgvecError):
    """There is no collection, or no vector space in it, of that name."""


class CollectionExists(PgvecError):
    """The name of a new collection is taken, by a collection or by a table."""


class InvalidName(PgvecError):
    """A name that cannot be a collection, a vector space or a column."""


class InvalidRecord(PgvecError):
    """A row that cannot be stored; nothing of its batch was written.

    Attributes:
        row: position of the row in the input, counted from 0.
        field: the offending field.
        problem: what is the matter with it.
    """

    def __init__(self, row: int, field: str, problem: str) -> None:
        super().__init__(f"row {row}, field {field!r}: {problem}")
        self.row = row
        self.field = field
        self.problem = problem


class FilterError(PgvecError):
    """A filter that names an unknown operator or column, or compares with the wrong type."""


class EmbeddingError(PgvecError):
    """The embedder is missing, or what it returns does not fit the vector space."""


class RejectedText(EmbeddingError):
    """The embedder refuses some texts for good, such as one that is too long; it takes others.

    Attributes:
        positions: of these texts in what was handed to `embed_documents`, counted from 0; none if it does not say.
    """

    def __init__(self, message: str, positions: tuple[int, ...] = (0,)) -> None:
        super().__init__(message)
        self.positions = positions


class EmbedderUnavailable(EmbeddingError):
    """The embedder cannot be reached, or is overloaded: nothing is wrong with the texts, try again later."""


class RerankError(PgvecError):
    """A reranker failed, or what it returns are not the scores of what it was given."""


class IndexBuildError(PgvecError):
    """An index could not be built."""


class SwapError(PgvecError):
    """The model of a collection cannot be swapped as asked; or it was, while something was being written."""


class TuningError(PgvecError):
    """The target recall cannot be reached, or there is nothing to tune on."""
