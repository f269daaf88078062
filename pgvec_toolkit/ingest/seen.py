"""What was read of a file or folder, and what is therefore known to be gone from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pgvec_toolkit.ingest.document import Unreadable
from pgvec_toolkit.ingest.ledger import storable, storable_id
from pgvec_toolkit.ingest.work import Read


@dataclass
class Seen:
    """What was read of a file or folder.

    Attributes:
        ids: of documents, and of parts that could not be read, as failures are recorded with.
        twice: those of them that more than one document has.
        closed: files and folders of which it is not known what they hold.
    """

    ids: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)
    closed: set[Path] = field(default_factory=set)

    def note(self, documents: Iterable[Read]) -> Iterator[Read]:
        """Pass documents on, and note them."""
        for document in documents:
            id = storable_id(document.id)
            if id in self.ids:
                self.twice.add(id)
            self.ids.add(id)
            if isinstance(document, Unreadable) and document.source is not None:
                self.closed.add(Path(storable(str(document.source))))
            yield document

    def is_gone(self, id: str, source: str | None) -> bool:
        """Tell whether it is known that a file no longer holds a document, or what failed of it."""
        path = Path(source or "")
        return storable_id(id) not in self.ids and self.closed.isdisjoint((path, *path.parents))
