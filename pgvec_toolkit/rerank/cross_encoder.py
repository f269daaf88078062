"""Reranking by a cross-encoder of sentence-transformers, which reads the query and a text together."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.embed.model import loaded
from pgvec_toolkit.errors import RerankError

if TYPE_CHECKING:
    from collections.abc import Sequence


class CrossEncoderReranker:
    """A CrossEncoder, loaded when first used.

    Args:
        name: of the model, or the path of a folder that holds it.
        batch_size: pairs that are scored at once.
        max_length: tokens read of a query and a text together; None: as many as the model can.
    """

    kind = "CrossEncoder"

    def __init__(self, name: str, *, batch_size: int = 32, max_length: int | None = None) -> None:
        self.name = name
        self.batch_size = batch_size
        self.max_length = max_length

    def prepare(self) -> None:
        """Load the model."""
        _ = self._model

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return the model's score of each text."""
        pairs = [(query, text) for text in texts]
        found = self._model.predict(pairs, batch_size=self.batch_size, show_progress_bar=False)
        return list(found.tolist())

    @cached_property
    def _model(self) -> Any:
        model = loaded(self.kind, self.name, RerankError, max_length=self.max_length)
        if model.num_labels != 1:
            raise RerankError(f"model {self.name} has {model.num_labels} labels: use one that gives a single score")
        return model
