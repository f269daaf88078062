"""Dense embeddings by the ONNX file of a model, run by onnxruntime or OpenVINO: without PyTorch, loaded at once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from pgvec_toolkit.embed import prompts
from pgvec_toolkit.embed.file import FileEmbedder
from pgvec_toolkit.embed.folder import DATA, ModelFolder
from pgvec_toolkit.embed.model import full_name
from pgvec_toolkit.embed.shaping import shaped
from pgvec_toolkit.embed.spec import spec_of
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, MissingDependency, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

POOLED = "sentence_embedding"  # the output that holds a vector for each text
_OF_TOKENS = ("last_hidden_state", "token_embeddings")
_USUAL = ("onnx/model.onnx", "model.onnx")
_KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
_READ_BY_POOLING = {"Transformer", "Pooling", "Normalize"}  # modules that need no weights beside the file's


class _Session(Protocol):
    """A loaded file."""

    inputs: list[str]
    outputs: list[str]

    def run(self, output: str, feed: dict[str, NDArray[np.int64]]) -> NDArray[Any]:
        """Return an output."""


class OnnxEmbedder(FileEmbedder):
    """A model of sentence-transformers as an ONNX file, loaded when first used.

    Such a file lies in onnx/ of many models on the hub; `pgvec models export` makes one. Its vectors are those of
    PyTorch but for the last digits, or, of a quantised file, near them; it counts as another model.

    Args:
        name: of the model, or the path of a folder that holds it.
        backend: what runs it: onnx (onnxruntime) or openvino.
        file: in the folder; None: onnx/model.onnx, model.onnx, or the only one.
        revision: commit, branch or tag on the hub.
        batch_size: texts that are embedded at once.
        query_prompt: put before queries; None: the model's own, or that of its family.
        document_prompt: put before documents; likewise.
        truncate_dim: how many of a vector's first numbers are kept.
        normalize: whether to make vectors of length 1.
    """

    def __init__(
        self,
        name: str,
        *,
        backend: Literal["onnx", "openvino"] = "onnx",
        file: str | None = None,
        revision: str | None = None,
        batch_size: int = 32,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool = True,
    ) -> None:
        if backend not in _LOADERS:
            raise ConfigurationError(f"there is no backend {backend!r} of ONNX files: use {' or '.join(_LOADERS)}")
        self.source = full_name(name)
        self.backend = backend
        self.file = file
        self.revision = revision
        self.batch_size = batch_size
        self.truncate_dim = truncate_dim
        self.normalize = normalize
        self._given_prompts = (query_prompt, document_prompt)
        self.name = spec_of(
            "",
            self.source,
            {
                "backend": backend,
                "file": file,
                "revision": revision,
                "truncate_dim": truncate_dim,
                "normalize": None if normalize else False,
            },
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without truncation or padding: chunks are measured by it."""
        return self._folder.tokenizer()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions); texts of like length go through the model together."""
        return self._embedded([self._prompts.document + text for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,), made with the query prompt if there is one."""
        return np.asarray(self._embedded([self._prompts.query + text])[0])

    @cached_property
    def _folder(self) -> ModelFolder:
        files = [self.file] if self.file else _USUAL
        wanted = [*files, *(f"{each}{DATA}" for each in files)]
        folder = ModelFolder.find(
            self.source, [*wanted, "*.bin"] if (self.file or "").endswith(".xml") else wanted, self.revision
        )
        return folder

    @cached_property
    def _path(self) -> Path:
        return self._folder.file(self.file, _USUAL, ".onnx")

    @cached_property
    def _prompts(self) -> prompts.Prompts:
        return prompts.effective(self.source, self._folder.prompts, *self._given_prompts)

    @property
    def _sequence(self) -> int:
        return self._folder.most_tokens - self.tokenizer.num_special_tokens_to_add(False)

    @cached_property
    def _truncating(self) -> Tokenizer:
        tokenizer = self._folder.tokenizer()
        tokenizer.enable_truncation(self._folder.most_tokens)
        return tokenizer

    @cached_property
    def _session(self) -> _Session:
        session = _LOADERS[self.backend](self._path)
        unknown = set(session.inputs) - _KNOWN_INPUTS
        if unknown:
            raise EmbeddingError(
                f"{self._path} asks for {', '.join(sorted(unknown))}, which an embedder of texts has not: use a file "
                "that was exported for feature extraction"
            )
        return session

    @cached_property
    def _output(self) -> str:
        """The output that vectors are made of."""
        if POOLED in self._session.outputs:
            return POOLED
        further = set(self._folder.modules) - _READ_BY_POOLING
        if further or self._folder.pooling not in _POOLINGS:
            unknown = ", ".join(sorted(further)) or self._folder.pooling or "no"
            raise EmbeddingError(
                f"{self._path} gives vectors of tokens, and {unknown} pooling is not known here: make a file of the "
                f"whole model, pgvec models export {self.source} FOLDER"
            )
        return next((each for each in _OF_TOKENS if each in self._session.outputs), self._session.outputs[0])

    def _embedded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        read = [text.lower() if self._folder.lower_case else text for text in texts]
        tokens = [each.ids for each in self._truncating.encode_batch(read)]
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        starts = range(0, len(order), self.batch_size)
        found = [self._batch([tokens[row] for row in order[first : first + self.batch_size]]) for first in starts]
        vectors = np.concatenate(found)[np.argsort(order)]
        return shaped(vectors, self.name, self.truncate_dim, self.normalize)

    def _batch(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        longest = max(map(len, tokens))
        ids = np.full((len(tokens), longest), self._folder.padding, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        offered = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.broadcast_to(np.arange(longest), ids.shape),
        }
        output = self._output
        found = self._session.run(output, {name: offered[name] for name in self._session.inputs}).astype(np.float32)
        return found if output == POOLED else _pooled(found, mask, str(self._folder.pooling))


_POOLINGS = ("cls", "mean", "max", "mean_sqrt_len", "lasttoken")


def _pooled(tokens: NDArray[np.float32], mask: NDArray[np.int64], mode: str) -> NDArray[np.float32]:
    """Make one vector of those of each text's tokens."""
    if mode == "cls":
        return np.asarray(tokens[:, 0])
    if mode == "lasttoken":
        return np.asarray(tokens[np.arange(len(tokens)), mask.sum(axis=1) - 1])
    there = mask[:, :, None].astype(bool)
    if mode == "max":
        return np.asarray(np.where(there, tokens, -np.inf).max(axis=1), dtype=np.float32)
    lengths = mask.sum(axis=1, keepdims=True).astype(np.float32)
    summed = np.where(there, tokens, 0).sum(axis=1, dtype=np.float32)
    return np.asarray(summed / (np.sqrt(lengths) if mode == "mean_sqrt_len" else lengths))


class _OnnxRuntime:
    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency("onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [each for each in wanted if each in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's are of many classes
            raise EmbeddingError(f"onnxruntime cannot load {path}: {first_line(error)}") from error
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = [each.name for each in self._session.get_outputs()]

    def run(self, output: str, feed: dict[str, NDArray[np.int64]]) -> NDArray[Any]:
        return np.asarray(self._session.run([output], feed)[0])


class _OpenVino:
    def __init__(self, path: Path) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingDependency("openvino", "openvino") from error
        core = openvino.Core()
        # Where the machine has it, OpenVINO would calculate in bfloat16: vectors would depend on the machine.
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        try:
            read = core.read_model(path)
            self._model = core.compile_model(read, "CPU", options)
        except RuntimeError as error:
            raise EmbeddingError(f"OpenVINO cannot load {path}: {str(error).strip().splitlines()[-1]}") from error
        # Compiled, an output has further names.
        self.inputs = [each.get_any_name() for each in read.inputs]
        self.outputs = [each.get_any_name() for each in read.outputs]

    def run(self, output: str, feed: dict[str, NDArray[np.int64]]) -> NDArray[Any]:
        return np.asarray(self._model(feed)[output])


_LOADERS: dict[str, type[_OnnxRuntime] | type[_OpenVino]] = {"onnx": _OnnxRuntime, "openvino": _OpenVino}
