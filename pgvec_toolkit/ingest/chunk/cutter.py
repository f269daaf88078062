"""Documents into chunks: cut, given their context, and none too long without its being counted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from pgvec_toolkit.embed import base
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.chunk import split
from pgvec_toolkit.ingest.chunk.chunking import Chunker, Chunking
from pgvec_toolkit.ingest.chunk.context import Contexts, title_of
from pgvec_toolkit.ingest.chunk.markdown import Outline, markdown, outline
from pgvec_toolkit.ingest.chunk.sentences import packed
from pgvec_toolkit.ingest.chunk.tokens import Meter, fitted
from pgvec_toolkit.ingest.document import CONTEXT, Chunk, Document, embedded_text

_CHARACTERS_IF_UNKNOWN = 1000
_TEXT = ("text", "markdown")  # formats that are no programming language
_WRITTEN_BY_INGEST = ("id", "document_id", "position", "text", "vector")
# What never makes chunks that are too long, so that this need not be a matter of policy.
_BOUNDED = ("recursive", "markdown", "code")


class Cutter:
    """Cuts documents for an embedder.

    Args:
        embedder: that will read the chunks, measured by its own tokenizer.
        chunking: how to cut.

    Attributes:
        split: chunks that were longer than the embedder reads, and were cut into several.
        truncated: chunks that are longer than the embedder reads: their end is stored, but not embedded.
        notes: what the user should know, each said once: why code was cut as text; taken off, it may be said again.

    Raises:
        ConfigurationError: it cannot be done so with this embedder.
    """

    def __init__(self, embedder: Embedder, chunking: Chunking | None = None) -> None:
        self.split = 0
        self.truncated = 0
        self.notes: list[str] = []
        self._embedder = embedder
        self._chunking = chunking = chunking or Chunking()
        split.splitters()
        limit, tokenizer = base.max_tokens(embedder), base.tokenizer(embedder)
        counted = tokenizer is not None and (limit is not None or chunking.tokens is not None)
        if not counted and (chunking.tokens is not None or chunking.overlap or chunking.chunker == "fixed"):
            what = "chunk_tokens" if chunking.tokens is not None else "overlap" if chunking.overlap else "chunks"
            raise ConfigurationError(
                f"embedder {embedder.name} has no tokenizer to count {what} with: leave it out, or give the "
                "embedder the attributes tokenizer (of the package tokenizers) and max_tokens"
            )
        self._meter = Meter(tokenizer if counted else None)
        self._limit = limit if counted and limit is not None else sys.maxsize
        self._size = chunking.tokens or (self._limit if self._limit < sys.maxsize else _CHARACTERS_IF_UNKNOWN)
        self._most_context = (self._limit if self._limit < sys.maxsize else self._size) // 3
        self._check_sizes()

    def __call__(self, document: Document) -> list[Chunk]:
        """Return the chunks of a document, in its order.

        Raises:
            InvalidRecord: one is longer than the embedder reads, and that is to be an error.
        """
        if not document.text.strip():
            return []
        headings, contexts, room = Outline(document.text), None, self._size
        name = self._chunker_of(document)
        if name == "markdown" or (self._chunking.context and document.format == "markdown"):
            headings = outline(document.text)
        if self._chunking.context:
            contexts = Contexts(title_of(document) or headings.title, self._most_context, self._meter)
            paths = [heading.path for heading in headings.headings] if name == "markdown" else [()]
            if room <= self._limit:
                room = min(room, self._limit - contexts.longest(paths))
        chunks = self._cut(document, name, room, headings)
        if contexts is not None:
            chunks = [_with_context(chunk, contexts) for chunk in chunks]
        return self._fitting(document, chunks, room, bounded=name in _BOUNDED)

    def texts(self, chunks: Sequence[Chunk]) -> list[str]:
        """Return what is embedded of chunks: all, or as much as the embedder reads."""
        whole = [chunk.embedded for chunk in chunks]
        return fitted(self._embedder, whole)[0] if self._chunking.too_long == "truncate" else whole

    def _check_sizes(self) -> None:
        chunking, reads = self._chunking, f"embedder {self._embedder.name} reads of a text"
        if self._size > self._limit and chunking.chunker != "fixed":
            raise ConfigurationError(
                f"chunk_tokens {self._size} is more than the {self._limit} tokens that {reads}: give at most that, or "
                "leave it out"
            )
        least = self._size
        if chunking.context and least <= self._limit:
            least = min(least, self._limit - self._most_context)
        if chunking.overlap >= least:
            less = f": of the {self._limit} that {reads} a third may be context" if chunking.context else ""
            raise ConfigurationError(f"overlap {chunking.overlap} is too much for chunks of {least} tokens{less}")

    def _chunker_of(self, document: Document) -> str | None:
        """Return the name of the chunker that a document gets; None: the user's own."""
        name = self._chunking.chunker
        if not isinstance(name, str):
            return None
        if name == "auto":
            name = {"text": "recursive", "markdown": "markdown"}.get(document.format, "code")
        if lacks_grammar(name, document.format):
            self._note(
                f"{document.format} is cut as text, for its grammar is not installed: "
                "pip install 'pgvec-toolkit[code]' brings the most common ones, "
                f"pip install tree-sitter-{document.format.replace('_', '-')} perhaps this one"
            )
            return "recursive"
        return "recursive" if name == "code" and document.format in _TEXT else name

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _cut(self, document: Document, name: str | None, room: int, headings: Outline) -> list[Chunk]:
        if name is None:
            return self._cut_by_user(document)
        text, overlap = document.text, self._chunking.overlap
        if name == "none":
            return [Chunk(text)]
        ruler = self._meter.ruler(text)
        if name == "markdown":
            spans = markdown(ruler, room, overlap, headings)
            return [Chunk(text[start:end], _headings(headings.above(start, end))) for start, end in spans]
        if name == "code":
            load = split.grammar(document.format)
            assert load is not None
            spans = split.code(ruler, room, overlap, load)
        else:
            spans = {"recursive": split.recursive, "sentences": packed, "fixed": split.fixed}[name](
                ruler, room, overlap
            )
        return [Chunk(text[start:end]) for start, end in spans]

    def _cut_by_user(self, document: Document) -> list[Chunk]:
        chunker = self._chunking.chunker
        assert not isinstance(chunker, str)
        chunks = list(chunker.cut(document))
        for chunk in chunks:
            if not isinstance(chunk, Chunk):
                raise ConfigurationError(
                    f"chunker {chunker!r} returned a {type(chunk).__name__} among the chunks of document "
                    f"{document.id!r}: return pgvec_toolkit.Chunk(text, metadata)"
                )
            for name in _WRITTEN_BY_INGEST:
                if name in chunk.metadata:
                    raise ConfigurationError(
                        f"chunker {chunker!r} gave a chunk of document {document.id!r} metadata {name!r}, which ingest "
                        "writes: choose another name"
                    )
        return [chunk for chunk in chunks if chunk.text.strip()]

    def _fitting(self, document: Document, chunks: list[Chunk], room: int, *, bounded: bool) -> list[Chunk]:
        """Apply the policy to chunks that are longer than the embedder reads."""
        fitting: list[Chunk] = []
        before = {
            chunk.metadata[CONTEXT]: embedded_text("", chunk.metadata) for chunk in chunks if CONTEXT in chunk.metadata
        }
        taken = {None: 0, **dict(zip(before, self._meter.lengths(list(before.values())), strict=True))}
        lengths = self._meter.lengths([chunk.embedded for chunk in chunks])
        for chunk, length in zip(chunks, lengths, strict=True):
            # Read alone, what was cut within a word may be longer than it is as a part of the document.
            of_text = min(room, self._limit - taken[chunk.metadata.get(CONTEXT)])
            if length <= self._limit and not (bounded and length - taken[chunk.metadata.get(CONTEXT)] > of_text):
                fitting.append(chunk)
            elif bounded or self._chunking.too_long == "split":
                self.split += not bounded
                fitting += self._parts(chunk, max(1, of_text))
            elif self._chunking.too_long == "truncate":
                self.truncated += 1
                fitting.append(chunk)
            else:
                raise InvalidRecord(
                    document.row,
                    "text",
                    f"a chunk of document {document.id!r} has {length} tokens, and embedder {self._embedder.name} "
                    f"reads {self._limit}: have it split or truncated (too_long), or cut it otherwise",
                )
        return fitting

    def _parts(self, chunk: Chunk, most: int) -> list[Chunk]:
        """Split a chunk into some that the embedder reads whole."""
        parts = [replace(chunk, text=text) for text in split.exactly(chunk.text, most, self._meter)]
        # A single character can have more tokens than that.
        lengths = self._meter.lengths([part.embedded for part in parts])
        self.truncated += sum(length > self._limit for length in lengths)
        return parts


def lacks_grammar(chunker: str | Chunker, format: str) -> bool:
    """Tell whether documents of a format are cut as text because the grammar of their language is not installed."""
    return chunker in ("auto", "code") and format not in _TEXT and split.grammar(format) is None


def _headings(path: list[str]) -> dict[str, list[str]]:
    return {"headings": path} if path else {}


def _with_context(chunk: Chunk, contexts: Contexts) -> Chunk:
    headings = chunk.metadata.get("headings")
    context = contexts.of(headings if isinstance(headings, list | tuple) else ())
    return Chunk(chunk.text, {**chunk.metadata, CONTEXT: context}) if context else chunk
