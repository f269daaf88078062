"""Where documents come from, which gives them their numbers, and ids if they have none of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError, InvalidRecord, PgvecError
from pgvec_toolkit.ingest.document import Document, Unreadable


class Broken(Exception):
    """What cannot be read, said as it follows the name of a file: "is empty".

    Attributes:
        error: what to raise where nothing may be left out, if it is known better than this.
    """

    def __init__(self, reason: str, error: PgvecError | None = None) -> None:
        super().__init__(reason)
        self.error = error


@dataclass(frozen=True)
class Columns:
    """Where a record has its id and its text.

    Attributes:
        id: name of the field; None: records are numbered.
        text: names of the fields that are joined.
    """

    id: str | None = "id"
    text: tuple[str, ...] = ("text",)


@dataclass(frozen=True)
class Origin:
    """A file, or what is given in memory.

    Attributes:
        columns: of its records.
        numbers: counts all that is read.
        path: the file; None: memory.
        id: the file's document id.
    """

    columns: Columns
    numbers: Iterator[int] = field(repr=False)
    path: Path | None = None
    id: str = ""

    @property
    def source(self) -> Path | None:
        """The file, by a path that starts at the root; a link is itself, wherever it leads."""
        return None if self.path is None else self.path.parent.resolve() / self.path.name

    def document(self, text: str, fields: dict[str, Any], format: str) -> Document:
        """Return the file as one document."""
        return Document(next(self.numbers), self.id, text, fields, format, source=self.source)

    def unreadable(self, broken: Broken) -> Unreadable:
        """Return the file as one that cannot be read."""
        error = broken.error or ConfigurationError(f"{self.path} {broken}")
        return Unreadable(next(self.numbers), self.id, str(broken), self.source, error)

    def unreadable_part(
        self, unit: str, number: int, problem: str, name: str = "", id: str | None = None
    ) -> Unreadable:
        """Return a line or row that cannot be read.

        Args:
            unit: "line" or "row".
            number: of the line or row.
            problem: what is the matter.
            name: of the field that is wrong.
            id: the document's, if it is known.
        """
        row = next(self.numbers)
        if self.path is None:
            invalid = InvalidRecord(row, name, problem)
            return Unreadable(row, id or self.part(number) or f"row {row}", str(invalid), None, invalid)
        reason = f"{unit} {number}: field {name!r}: {problem}" if name else f"{unit} {number}: {problem}"
        error = ConfigurationError(f"{self.path}, {reason}")
        return Unreadable(row, id or self.part(number) or self.id, reason, self.source, error)

    def part(self, number: int) -> str | None:
        """Return what a numbered line or row is called, if by its number."""
        if self.path is not None:
            return f"{self.id}:{number}"
        return str(number) if self.columns.id is None else None

    def checked(self, found: Document | Unreadable) -> Document | Unreadable:
        """Return a document if PostgreSQL can store its text."""
        if isinstance(found, Document) and (problem := unstorable(found.text)):
            error = ConfigurationError(f"{self.path} {problem}")
            return Unreadable(found.row, found.id, problem, self.source, error)
        return found


def unstorable(text: str) -> str | None:
    """Return why PostgreSQL cannot store a text; None if it can."""
    if "\0" in text:
        return f"contains a NUL character, at {text.index(chr(0))}, which PostgreSQL cannot store: remove it"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"contains half of a surrogate pair, at {error.start}, which is no character: remove it"
    return None
