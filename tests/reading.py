"""What is read, for tests in which all of it can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.document import Document, Unreadable


def strictly(found: Iterable[Document | Unreadable]) -> Iterator[Document]:
    """Yield the documents; raise for the first that cannot be read."""
    for each in found:
        if isinstance(each, Unreadable):
            raise each.error or ConfigurationError(f"{each.source or each.id}: {each.reason}")
        yield each
