"""Tokenizers, by which chunks are measured."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# What tokenizers treat in different ways: case, accents, digits, signs, scripts without blanks.
_PROBE = "The 3 Größen of a naïve café don't re-embed   東京, 12,345.67€ or `x_y = [MASK]`!"
_SAMPLES = 1000


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return a hash of what a tokenizer does, with samples of its vocabulary; how it is written down may change."""
    size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(place) for place in range(0, size, max(1, size // _SAMPLES))]
    return hashlib.sha256(repr((size, tokens, tokenizer.encode(_PROBE).ids)).encode()).hexdigest()


def unbounded(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer, made to leave texts as long as they are: neither cut off nor padded."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def room(sequence: int, tokenizer: Tokenizer, prompt: str | None) -> int:
    """Return how many tokens of a sequence a prompt leaves to the text."""
    return sequence - (len(tokenizer.encode(prompt, add_special_tokens=False).ids) if prompt else 0)
