"""Dense embeddings by FastEmbed: ONNX models run by onnxruntime, without PyTorch."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgvec_toolkit.embed import prompts
from pgvec_toolkit.embed.file import FileEmbedder
from pgvec_toolkit.embed.folder import ModelFolder
from pgvec_toolkit.embed.shaping import shaped
from pgvec_toolkit.embed.spec import located, spec_of
from pgvec_toolkit.embed.tokens import unbounded
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, MissingDependency, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

PREFIX = "fastembed:"
_USUAL = ("onnx/model.onnx", "model.onnx", "model_optimized.onnx")
_POOLINGS = {"cls": "CLS", "mean": "MEAN", "lasttoken": "LAST_TOKEN", None: "DISABLED"}


class FastEmbedEmbedder(FileEmbedder):
    """A model that FastEmbed knows, or a folder with an ONNX file, loaded when first used.

    Args:
        name: as FastEmbed lists it, or the path of a folder; "fastembed:" may come before it.
        file: in the folder; None: onnx/model.onnx, model.onnx, or the only one.
        batch_size: texts that are embedded at once.
        query_prompt: put before queries; None: that of the model's family.
        document_prompt: put before documents; likewise.
        truncate_dim: how many of a vector's first numbers are kept.
        normalize: whether to make vectors of length 1.
    """

    def __init__(
        self,
        name: str,
        *,
        file: str | None = None,
        batch_size: int = 32,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool = True,
    ) -> None:
        self.source = located(name.removeprefix(PREFIX))
        if file is not None and not os.path.isdir(self.source):
            raise ConfigurationError(f"file={file} is for a folder, which {self.source} is not")
        self.file = file
        self.batch_size = batch_size
        self.truncate_dim = truncate_dim
        self.normalize = normalize
        self._given_prompts = (query_prompt, document_prompt)
        changes = {"file": file, "truncate_dim": truncate_dim, "normalize": None if normalize else False}
        self.name = spec_of(PREFIX, self.source, changes)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without truncation or padding: chunks are measured by it."""
        from tokenizers import Tokenizer

        return unbounded(Tokenizer.from_str(self._truncating.to_str()))

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions)."""
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        read = [self._prompts.document + text for text in texts]
        return self._shaped(self._model.passage_embed(read, batch_size=self.batch_size))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,)."""
        return np.asarray(self._shaped(self._model.query_embed([self._prompts.query + text]))[0])

    def _shaped(self, vectors: Any) -> NDArray[np.float32]:
        return shaped(np.stack(list(vectors)), self.name, self.truncate_dim, self.normalize)

    @property
    def _truncating(self) -> Any:
        return self._model.model.tokenizer

    @property
    def _sequence(self) -> int:
        truncation = self._truncating.truncation or {"max_length": 512}
        return int(truncation["max_length"]) - int(self._truncating.num_special_tokens_to_add(False))

    @property
    def _path(self) -> Path:
        inner = self._model.model
        return Path(inner._model_dir, inner.model_description.model_file)

    @cached_property
    def _folder(self) -> ModelFolder | None:
        """The folder that was given; FastEmbed's own models have theirs, which says nothing of pooling."""
        return ModelFolder(Path(self.source)) if os.path.isdir(self.source) else None

    @cached_property
    def _prompts(self) -> prompts.Prompts:
        own = {} if self._folder is None else self._folder.prompts
        return prompts.effective(self.source, own, *self._given_prompts)

    @cached_property
    def _model(self) -> Any:
        try:
            from fastembed import TextEmbedding
        except ImportError as error:
            raise MissingDependency("fastembed", "fastembed") from error
        try:
            if self._folder is not None:
                return TextEmbedding(self._registered(self._folder), specific_model_path=self.source)
            return TextEmbedding(self.source)
        except (OSError, ValueError) as error:
            raise EmbeddingError(
                f"FastEmbed cannot load {self.source}: {first_line(error)} Give the path of a folder with an "
                "ONNX file, or a name that TextEmbedding.list_supported_models() has while the hub can be reached"
            ) from error

    def _registered(self, folder: ModelFolder) -> str:
        """Make a folder known to FastEmbed; return the name it has there."""
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        file = folder.file(self.file, _USUAL, ".onnx")
        if folder.pooling not in _POOLINGS:
            raise EmbeddingError(
                f"FastEmbed does not know pooling {folder.pooling!r} of {folder.path}: use {folder.path}?backend=onnx"
            )
        name = f"{file.resolve()}"
        if all(each["model"].lower() != name.lower() for each in TextEmbedding.list_supported_models()):
            TextEmbedding.add_custom_model(
                name,
                pooling=PoolingType(_POOLINGS[folder.pooling]),
                normalization=False,  # is done here
                sources=ModelSource(hf=name),
                dim=int(folder.read("config.json").get("hidden_size", 0)),
                model_file=str(file.relative_to(folder.path)),
            )
        return name
