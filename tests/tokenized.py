"""An embedder without a model that counts tokens: tokenizers of two kinds, made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tiny_models import vocabulary
from tests.words import WordEmbedder

pytest.importorskip("semantic_text_splitter", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def wordpiece() -> Tokenizer:
    """Return a tokenizer like BERT's, of a hundred words: others are cut into letters, what it does not know is one."""
    tokens = {token: number for number, token in enumerate(vocabulary())}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(tokens, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def bytewise() -> Tokenizer:
    """Return a tokenizer to which each byte is a token, as the rare ones are to GPT's: an emoji has four."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: number for number, token in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(tokens, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


class TokenEmbedder(WordEmbedder):
    """A WordEmbedder that reads so many tokens of a text, and refuses longer ones."""

    name = "test/tokens"

    def __init__(self, max_tokens: int | None = 30, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.tokenizer = tokenizer or wordpiece()

    def length(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)
