"""How documents are to be cut: what can be asked for, and what is refused before anything is cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.document import Chunk, Document

CHUNKERS = ("auto", "recursive", "markdown", "sentences", "code", "fixed", "none")
POLICIES = ("error", "split", "truncate")


@runtime_checkable
class Chunker(Protocol):
    """Cuts documents. What an ingestion is remembered by is its repr(), if it has one of its own, as dataclasses do.

    Documents that were ingested are cut again once that changes.
    """

    def cut(self, document: Document) -> list[Chunk]:
        """Return the pieces of a document; their metadata comes before its fields."""


@dataclass(frozen=True)
class Chunking:
    """How documents are cut.

    Attributes:
        chunker: one of CHUNKERS, or a `Chunker`.
        tokens: largest chunk, in tokens of the embedder; None: all that it reads at once.
        overlap: tokens, at most, that a chunk repeats of the one before it.
        context: whether the document's title and the headings above a chunk are embedded with it.
        too_long: what becomes of a chunk that is longer than the embedder reads: one of POLICIES.
    """

    chunker: str | Chunker = "auto"
    tokens: int | None = None
    overlap: int = 0
    context: bool = False
    too_long: str = "split"

    def __post_init__(self) -> None:
        if isinstance(self.chunker, str) and self.chunker not in CHUNKERS:
            raise ConfigurationError(f"there is no chunker {self.chunker!r}: give {_one_of(CHUNKERS)}, or one of yours")
        if isinstance(self.chunker, type) or not isinstance(self.chunker, str | Chunker):
            raise ConfigurationError(
                f"{self.chunker!r} is no chunker: give {_one_of(CHUNKERS)}, or an object with a method cut(document)"
            )
        check_policy(self.too_long, POLICIES)
        if self.tokens is not None and self.tokens < 1:
            raise ConfigurationError(f"chunk_tokens must be at least 1, not {self.tokens}")
        if self.overlap < 0:
            raise ConfigurationError(f"overlap must be at least 0 tokens, not {self.overlap}")
        if not self.sized and (self.tokens is not None or self.overlap):
            what = "chunk_tokens" if self.tokens is not None else "overlap"
            which = "none makes a document one chunk" if self.chunker == "none" else f"{self.chunker!r} cuts as it will"
            raise ConfigurationError(f"chunker {which}: leave {what} out")

    @property
    def sized(self) -> bool:
        """Whether its chunker is told how large chunks shall be."""
        return isinstance(self.chunker, str) and self.chunker != "none"

    @property
    def identity(self) -> list[object]:
        """All that decides what documents become, as JSON has it: what is hashed."""
        name = self.chunker
        if not isinstance(name, str):
            kind = type(name)
            shown = re.sub(r" at 0x[0-9a-f]+", "", repr(name)) if kind.__repr__ is not object.__repr__ else ""
            name = _name_of(kind) + shown
        return [name, self.tokens, self.overlap, self.context, self.too_long]

    @property
    def options(self) -> dict[str, Any]:
        """The options of `ingest` as a failure records them: JSON; of the user's own chunker it has the name alone."""
        return {
            "chunker": self.chunker if isinstance(self.chunker, str) else {"own": _name_of(type(self.chunker))},
            "chunk_tokens": self.tokens,
            "overlap": self.overlap,
            "context": self.context,
            "too_long": self.too_long,
        }

    @classmethod
    def recorded(cls, options: Mapping[str, Any], chunker: Chunker | None = None) -> Chunking:
        """Return what was recorded.

        Args:
            options: that were recorded.
            chunker: the user's own, if it was one: it could not be recorded.
        """
        name: Any = options.get("chunker", "auto") if own_chunker(options) is None else chunker
        return cls(
            name,
            options.get("chunk_tokens"),
            options.get("overlap", 0),
            options.get("context", False),
            options.get("too_long", "split"),
        )


def own_chunker(options: Mapping[str, Any]) -> str | None:
    """Return the name of the user's own chunker in recorded options; None if it was one of CHUNKERS."""
    chunker = options.get("chunker")
    return chunker["own"] if isinstance(chunker, Mapping) else None


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def check_policy(too_long: str, policies: tuple[str, ...]) -> None:
    """Refuse what is no policy for texts that are too long."""
    if too_long not in policies:
        raise ConfigurationError(f"too_long is {_one_of(policies)}, not {too_long!r}")


def _one_of(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]
