"""Tokenizers, by which chunks are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def unbounded(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer, made to leave texts as long as they are: neither cut off nor padded."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def room(sequence: int, tokenizer: Tokenizer, prompt: str | None) -> int:
    """Return how many tokens of a sequence a prompt leaves to the text."""
    return sequence - (len(tokenizer.encode(prompt, add_special_tokens=False).ids) if prompt else 0)
