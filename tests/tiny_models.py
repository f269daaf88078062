"""Models of sentence-transformers with random weights and a hundred words: real code paths, nothing to download.

Each builder writes a folder and returns its path. Import this where sentence-transformers is known to be there.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

WORDS = """
a the of and in is to for on with key keys rotate secret secrets password vault water salt pasta cook boil train trains
paris platform express railway credential credentials renew day days ninety search vector index query passage document
text database table row column filter recall cat dog fox quick brown lazy jump over instruct
"""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONGEST = 64  # tokens that they read


def tiny_bert(path: Path) -> str:
    """Write an embedder: a BERT of one layer, its tokens' mean; 32 dimensions."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertModel

    _write(path / "bert", BertModel)
    bert = Transformer(str(path / "bert"))
    SentenceTransformer(modules=[bert, Pooling(32)], device="cpu").save_pretrained(str(path), create_model_card=False)
    return str(path)


def tiny_cross_encoder(path: Path, labels: int = 1) -> str:
    """Write a cross-encoder."""
    from sentence_transformers import CrossEncoder
    from transformers import BertForSequenceClassification

    _write(path / "bert", BertForSequenceClassification, num_labels=labels)
    CrossEncoder(str(path / "bert"), device="cpu").save_pretrained(str(path), create_model_card=False)
    return str(path)


def tiny_sparse_encoder(path: Path) -> str:
    """Write a SPLADE: a dimension for each token of its vocabulary, of which random weights use about half."""
    from sentence_transformers import SparseEncoder
    from transformers import BertForMaskedLM

    _write(path / "bert", BertForMaskedLM)
    SparseEncoder(str(path / "bert"), device="cpu").save_pretrained(str(path), create_model_card=False)
    return str(path)


def tiny_multi_vector(path: Path) -> str:
    """Write a late-interaction encoder: a vector of 128 dimensions for each token."""
    from sentence_transformers import MultiVectorEncoder
    from transformers import BertModel

    _write(path / "bert", BertModel)
    MultiVectorEncoder(str(path / "bert"), device="cpu").save_pretrained(str(path), create_model_card=False)
    return str(path)


def set_prompts(path: str, prompts: dict[str, str]) -> None:
    """Write prompts into the configuration of a model, as those who train one do."""
    file = Path(path) / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prompts": prompts}))


def vocabulary() -> list[str]:
    """Return the tokens: words, letters and what continues a word, punctuation."""
    letters = string.ascii_lowercase + string.digits
    return [*SPECIAL, *dict.fromkeys([*WORDS.split(), *letters]), *(f"##{letter}" for letter in letters), *":,.-_?!'"]


def _write(path: Path, kind: Any, **options: Any) -> None:
    import torch
    from transformers import BertConfig

    tokens = _write_tokenizer(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
        initializer_range=0.5,  # as small as usual, different texts would get the same scores
        **options,
    )
    kind(config).save_pretrained(path)


def _write_tokenizer(path: Path) -> list[str]:
    from transformers import BertTokenizerFast

    tokens = vocabulary()
    path.mkdir(parents=True)
    (path / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizerFast(str(path / "vocab.txt"), model_max_length=LONGEST).save_pretrained(path)
    return tokens


def tiny_modern_bert(path: Path) -> str:
    """Write an embedder: a ModernBERT of one layer, its first token's vector; 32 dimensions, made for 16 as well."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import ModernBertConfig, ModernBertModel

    folder = path / "bert"
    tokens = _write_tokenizer(folder)
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
        initializer_range=0.5,
        pad_token_id=tokens.index("[PAD]"),
        cls_token_id=tokens.index("[CLS]"),
        sep_token_id=tokens.index("[SEP]"),
        bos_token_id=tokens.index("[CLS]"),
        eos_token_id=tokens.index("[SEP]"),
    )
    ModernBertModel(config).save_pretrained(folder)
    modules = [Transformer(str(folder)), Pooling(32, pooling_mode="cls")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(path), create_model_card=False)
    return str(path)


def tiny_static(path: Path) -> str:
    """Write a model2vec: random vectors of 16 dimensions for words; an unknown one has none."""
    import numpy as np
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[UNK]", *dict.fromkeys(WORDS.split())]
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    vectors = np.random.default_rng(0).normal(size=(len(words), 16)).astype(np.float32)
    StaticModel(vectors, tokenizer).save_pretrained(path)
    return str(path)
