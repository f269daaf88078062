"""Cutting documents into chunks that the embedder reads whole, measured by its own tokenizer."""

from __future__ import annotations

from collections.abc import Callable

from pgvec_toolkit.embed import base
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import ConfigurationError, MissingDependency
from pgvec_toolkit.ingest.document import Chunk, Document

_CHARACTERS_IF_UNKNOWN = 1000


def chunker(embedder: Embedder, chunk_tokens: int | None = None) -> Callable[[Document], list[Chunk]]:
    """Return a function that cuts a document at headings, paragraphs, sentences: the largest pieces that fit.

    They fit into what the embedder reads of a text, or into `chunk_tokens` if that is less.
    """
    try:
        from semantic_text_splitter import MarkdownSplitter, TextSplitter
    except ImportError as error:
        raise MissingDependency("semantic-text-splitter", "embed") from error
    tokenizer, limit = base.tokenizer(embedder), base.max_tokens(embedder)
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ConfigurationError(f"chunk_tokens must be at least 1, not {chunk_tokens}")
    if tokenizer is not None and limit is not None:
        limit = min(limit, chunk_tokens or limit)
        markdown = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, limit)
        plain = TextSplitter.from_huggingface_tokenizer(tokenizer, limit)
    elif chunk_tokens is not None:
        raise ConfigurationError(
            f"embedder {embedder.name} has no tokenizer to count chunk_tokens with: leave it out, or give the "
            "embedder the attributes tokenizer (of the package tokenizers) and max_tokens"
        )
    else:
        markdown, plain = MarkdownSplitter(_CHARACTERS_IF_UNKNOWN), TextSplitter(_CHARACTERS_IF_UNKNOWN)

    def cut(document: Document) -> list[Chunk]:
        splitter = markdown if document.format == "markdown" else plain
        return [Chunk(text) for text in splitter.chunks(document.text) if text.strip()]

    return cut
