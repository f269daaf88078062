"""Reranking by late interaction: each token of the query takes the nearest token of a text, as ColBERT does."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.embed.model import loaded
from pgvec_toolkit.errors import RerankError

if TYPE_CHECKING:
    from collections.abc import Sequence


class LateInteractionReranker:
    """A MultiVectorEncoder of sentence-transformers, loaded when first used.

    Args:
        name: of the model, or the path of a folder that holds it.
        batch_size: texts that are encoded at once.
    """

    kind = "MultiVectorEncoder"

    def __init__(self, name: str, *, batch_size: int = 32) -> None:
        self.name = name
        self.batch_size = batch_size

    def prepare(self) -> None:
        """Load the model."""
        _ = self._model

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return the MaxSim of each text: the sum of the query tokens' greatest similarities."""
        asked = self._model.encode_query([query], show_progress_bar=False)
        found = self._model.encode_document(list(texts), batch_size=self.batch_size, show_progress_bar=False)
        return list(self._model.similarity(asked, found)[0].tolist())

    @cached_property
    def _model(self) -> Any:
        return loaded(self.kind, self.name, RerankError)
