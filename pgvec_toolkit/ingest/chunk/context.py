"""What a chunk is embedded with: the title of its document and the headings above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgvec_toolkit.ingest.chunk.tokens import Meter
from pgvec_toolkit.ingest.document import CONTEXT, Document, embedded_text

_BETWEEN = " > "


def title_of(document: Document) -> str | None:
    """Return the title among a document's fields, or in its metadata."""
    metadata = document.fields.get("metadata")
    for fields in (document.fields, metadata if isinstance(metadata, dict) else {}):
        title = fields.get("title")
        if isinstance(title, str) and title.strip():
            return " ".join(title.split())
    return None


class Contexts:
    """The contexts of a document's chunks.

    Args:
        title: of the document, if it has one.
        most: tokens that a context may have.
        meter: counts them.
    """

    def __init__(self, title: str | None, most: int, meter: Meter) -> None:
        self._title = title
        self._most = most
        self._meter = meter
        self._made: dict[tuple[str, ...], str] = {}

    def of(self, headings: Sequence[Any]) -> str:
        """Return the context of a chunk below some headings; empty if nothing is known."""
        path = tuple(map(str, headings))
        if path not in self._made:
            whole = path if self._title is None or path[:1] == (self._title,) else (self._title, *path)
            self._made[path] = self._cut_off(_BETWEEN.join(whole))
        return self._made[path]

    def _cut_off(self, context: str) -> str:
        kept = self._meter.beginning(context, self._most)
        if kept != context and context[len(kept)].isalnum() and " " in kept:
            kept = kept.rpartition(" ")[0]  # half a word says nothing
        return kept.removesuffix(_BETWEEN.rstrip()).rstrip()

    def longest(self, paths: Sequence[Sequence[str]]) -> int:
        """Return how much of what the embedder reads the contexts of chunks below these headings take at most."""
        contexts = {self.of(path) for path in paths}
        return max(self._meter.lengths([embedded_text("", {CONTEXT: one}) for one in contexts]), default=0)
