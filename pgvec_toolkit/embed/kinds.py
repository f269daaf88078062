"""The kinds of embedders, each known by how its specs begin; `load` makes an embedder of a spec."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.embed.spec import Reader, count, flag, number, one_of, parse_options
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError

Options = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of embedder.

    Attributes:
        prefix: with which its specs begin; "": what begins with no other.
        makes: what it is, and what its vectors are.
        extra: of this package, that it needs; None: nothing.
        example: a spec.
        build: makes one of source, options and what the registry has of it.
        options: that may follow the "?" of a spec: name to what reads the value.
    """

    prefix: str
    makes: str
    extra: str | None
    example: str
    build: Callable[[str, Options, Mapping[str, Any] | None], Embedder]
    options: Mapping[str, Reader] = field(default_factory=dict)


def load(spec: str, details: Mapping[str, Any] | None = None, *, trust: bool | None = None) -> Embedder:
    """Return the embedder that a spec names; its model is loaded when first used.

    Args:
        spec: as "all-MiniLM-L6-v2", "openai:text-embedding-3-small?dimensions=512"; see `KINDS`.
        details: what the registry has of it: vectors are made with the same prompts, pruning and options again;
            options of the spec go before.
        trust: whether a model may bring code, if the spec asks for it; None: only if there are no details, for what a
            database says is no reason to run code.
    """
    kind = kind_of_spec(spec)
    whole = os.path.exists(spec)  # a folder may have a "?" in its name
    source, _, query = (spec, "", "") if whole else spec.removeprefix(kind.prefix).partition("?")
    if not source:
        raise ConfigurationError(f"embedder {spec!r} names nothing: write it as {kind.example}")
    options: Options = parse_options(query, kind.options, spec)
    if details is not None and not trust:
        options.pop("trust_remote_code", None)
    known = details or {}
    stored = {name: value for name, value in (known.get("options") or {}).items() if name in kind.options}
    stored.pop("trust_remote_code", None)
    prompts = known.get("prompts")
    if isinstance(prompts, dict) and "query_prompt" in kind.options:
        stored |= {f"{side}_prompt": prompts[side] for side in ("query", "document") if side in prompts}
    given = {**stored, **options}
    if kind.extra == "http":
        by_caller = details is None or bool(trust)
        given["url_from_database"] = not by_caller or "base_url" in stored.keys() - options.keys()
    return kind.build(source, given, details)


def kind_of_spec(spec: str) -> Kind:
    """Return the kind of a spec."""
    kind = next((kind for kind in KINDS if kind.prefix and spec.startswith(kind.prefix)), None)
    if kind is not None:
        return kind
    head, colon, _ = spec.partition("?")[0].partition(":")
    if colon and head.isalpha() and len(head) > 1 and not os.path.exists(spec):
        known = ", ".join(kind.prefix for kind in KINDS if kind.prefix)
        raise ConfigurationError(f"there is no kind {head!r} of embedders: specs begin with {known}, or a model's name")
    return next(kind for kind in KINDS if not kind.prefix)


def _sentence_transformer(source: str, options: Options, known: Mapping[str, Any] | None) -> Embedder:
    from pgvec_toolkit.embed.model import full_name, kind_of

    if options.get("backend", "torch") != "torch":
        from pgvec_toolkit.embed.onnx import OnnxEmbedder

        unfit = {"dtype", "trust_remote_code"} & options.keys()
        if unfit:
            raise ConfigurationError(f"{', '.join(sorted(unfit))} is for backend=torch: an ONNX file has it in it")
        return OnnxEmbedder(source, **options)
    if "file" in options:
        raise ConfigurationError("file is for backend=onnx and backend=openvino: say which")
    # What is registered has a name that tells: the hub need not be asked.
    kind = kind_of(full_name(source)) if known is None else None
    if kind in ("SparseEncoder", "MultiVectorEncoder"):
        other = _sparse if kind == "SparseEncoder" else _multi_vector
        if options:
            raise ConfigurationError(f"model {source} is a {kind}: it has no option {', '.join(sorted(options))}")
        return other(source, {}, known)
    if kind not in (None, "SentenceTransformer"):
        raise EmbeddingError(f"model {source} is a {kind}, which makes no vector of a text: use it to rerank")
    from pgvec_toolkit.embed.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(source, **{key: value for key, value in options.items() if key != "backend"})


def _sparse(source: str, options: Options, known: Mapping[str, Any] | None) -> Embedder:
    from pgvec_toolkit.embed.sparse import SparseEncoderEmbedder

    kept = {"most": known["most"]} if known and "most" in known else {}
    return SparseEncoderEmbedder(source, **{**kept, **options})


def _multi_vector(source: str, options: Options, _: Mapping[str, Any] | None) -> Embedder:
    from pgvec_toolkit.embed.multi_vector import MultiVectorEmbedder

    return MultiVectorEmbedder(source, **options)


def _fastembed(source: str, options: Options, _: Mapping[str, Any] | None) -> Embedder:
    from pgvec_toolkit.embed.fast import FastEmbedEmbedder

    return FastEmbedEmbedder(source, **options)


def _static(source: str, options: Options, _: Mapping[str, Any] | None) -> Embedder:
    from pgvec_toolkit.embed.static import StaticEmbedder

    return StaticEmbedder(source, **options)


def _openai(source: str, options: Options, _: Mapping[str, Any] | None) -> Embedder:
    from pgvec_toolkit.embed.http import HttpEmbedder

    return HttpEmbedder(source, **options)


def _ollama(source: str, options: Options, _: Mapping[str, Any] | None) -> Embedder:
    from pgvec_toolkit.embed.http import HttpEmbedder

    return HttpEmbedder(source, service="ollama", **options)


def _url(scheme: str) -> Callable[[str, Options, Mapping[str, Any] | None], Embedder]:
    def build(source: str, options: Options, _: Mapping[str, Any] | None) -> Embedder:
        from pgvec_toolkit.embed.http import HttpEmbedder, only_model

        given = dict(options)
        url = f"{scheme}{source}"
        model = given.pop("model", None) or only_model(url, given["url_from_database"])
        return HttpEmbedder(model, base_url=url, **given)

    return build


def _function(source: str, _options: Options, _: Mapping[str, Any] | None) -> Embedder:
    raise EmbeddingError(
        f"embedder function:{source} is a function of yours, which no name can load: hand it over, as "
        f"db.collection(…, embedder=FunctionEmbedder(…, name={source!r}))"
    )


_PROMPTS: Mapping[str, Reader] = {"query_prompt": str, "document_prompt": str}
_SHAPE: Mapping[str, Reader] = {"truncate_dim": count, "normalize": flag}
_SIZE: Mapping[str, Reader] = {"batch_size": count}
_MODEL: Mapping[str, Reader] = {
    **_PROMPTS,
    **_SHAPE,
    **_SIZE,
    "backend": one_of("torch", "onnx", "openvino"),
    "file": str,
    "dtype": one_of("float32", "float16", "bfloat16"),
    "revision": str,
    "trust_remote_code": flag,
}
_SERVICE: Mapping[str, Reader] = {
    **_PROMPTS,
    "dimensions": count,
    "normalize": flag,
    "encoding": one_of("float", "base64"),
    "max_inputs": count,
    "max_request_tokens": count,
    "requests_per_minute": count,
    "tokens_per_minute": count,
    "parallel": count,
    "price": number,
    "timeout": number,
    "attempts": count,
    "cache": flag,
    "max_tokens": count,
    "tokenizer": str,
    "length": count,
}
_ANY_URL: Mapping[str, Reader] = {**_SERVICE, "base_url": str}
_URL: Mapping[str, Reader] = {**_SERVICE, "model": str}
KINDS = (
    Kind(
        "",
        "a model of sentence-transformers, by PyTorch; or its ONNX file, without PyTorch (extras onnx, openvino)",
        "embed",
        "all-MiniLM-L6-v2?truncate_dim=256",
        _sentence_transformer,
        _MODEL,
    ),
    Kind("sparse:", "a SparseEncoder (SPLADE): sparsevec", "embed", "sparse:FOLDER", _sparse, {"most": count, **_SIZE}),
    Kind("colbert:", "a MultiVectorEncoder (ColBERT): vector[]", "embed", "colbert:FOLDER", _multi_vector, {**_SIZE}),
    Kind(
        "fastembed:",
        "a model of FastEmbed, or a folder with one, by onnxruntime",
        "fastembed",
        "fastembed:BAAI/bge-small-en-v1.5",
        _fastembed,
        {**_PROMPTS, **_SHAPE, **_SIZE, "file": str},
    ),
    Kind(
        "static:",
        "a model2vec: the mean of its words' vectors, hundreds of times faster",
        "static",
        "static:minishlab/potion-base-8M",
        _static,
        {**_SHAPE},
    ),
    Kind(
        "openai:",
        "OpenAI's API (OPENAI_API_KEY); with base_url=… any server that speaks it",
        "http",
        "openai:text-embedding-3-small?dimensions=512",
        _openai,
        _ANY_URL,
    ),
    Kind("ollama:", "Ollama's server (OLLAMA_HOST)", "http", "ollama:nomic-embed-text", _ollama, _ANY_URL),
    Kind(
        "http://",
        "any server that speaks OpenAI's API, such as vLLM and TEI (PGVEC_EMBED_API_KEY)",
        "http",
        "http://localhost:8080/v1?model=BAAI/bge-m3",
        _url("http://"),
        _URL,
    ),
    Kind(
        "https://",
        "the same, encrypted",
        "http",
        "https://host/v1?model=NAME",
        _url("https://"),
        _URL,
    ),
    Kind("function:", "a function of yours, handed over in Python", None, "function:NAME", _function),
)
