"""What ingestion passes from hand to hand: documents as they are read, the chunks that they are cut into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import PgvecError


@dataclass(frozen=True)
class Document:
    """A text to be chunked, and what else is known of it.

    Attributes:
        row: position in the input, counted from 0.
        id: a file's path below (and with the name of) the folder that was ingested, or a record's id.
        text: the text.
        fields: typed columns and metadata that each of its chunks gets.
        format: what tells where to cut: "text", "markdown", or the name of a programming language.
        source: the file it was read from, if it is one.
    """

    row: int
    id: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    format: str = "text"
    source: Path | None = None


@dataclass(frozen=True)
class Unreadable:
    """A document that could not be read, or a part of a file that could not.

    Attributes:
        row: position in the input, counted from 0.
        id: that it would have had; of a part of a file, the file's with the part (`data.csv:17`).
        reason: why, and what to do.
        source: the file, if it is one.
        error: what to raise where nothing may be left out.
    """

    row: int
    id: str
    reason: str
    source: Path | None = None
    error: PgvecError | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Chunk:
    """A piece of a document.

    Attributes:
        text: what is stored, and searched by words.
        metadata: what it has beside its document's fields, as the headings above it.
    """

    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def embedded(self) -> str:
        """What is embedded."""
        return embedded_text(self.text, self.metadata)


def written_with(document: Document, chunk: Chunk) -> dict[str, Any]:
    """Return the typed columns and the metadata that a chunk is written with; its own come before its document's."""
    fields = {**document.fields, **chunk.metadata}
    metadata = document.fields.get("metadata")
    if isinstance(metadata, dict) and isinstance(chunk.metadata.get("metadata"), dict):
        fields["metadata"] = {**metadata, **chunk.metadata["metadata"]}
    return fields


# Of metadata: what comes before the text when it is embedded, as the document's title. Stored, so that another
# model embeds the same.
CONTEXT = "pgvec_context"
OWN = ("headings", CONTEXT)  # of metadata: what chunks have by how they were cut, and not from their document


def embedded_text(text: str, metadata: Mapping[str, Any]) -> str:
    """Return what is embedded of a chunk."""
    context = metadata.get(CONTEXT)
    return f"{context}\n\n{text}" if context else text
