"""What judges how well texts answer a query, and how one is found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pgvec_toolkit.errors import ConfigurationError, RerankError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@runtime_checkable
class Reranker(Protocol):
    """Scores texts by how well they answer a query.

    It may have more: `prepare()`, which loads what it needs, so that a time budget can tell loading from scoring;
    `scores_within(query, texts, seconds)`, like `scores`, but raises TimeoutError when the time is over.
    """

    @property
    def name(self) -> str:
        """Name by which errors call it."""

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return a score for each text; bigger is better."""


class CallableReranker:
    """A function of yours as a reranker."""

    def __init__(self, function: Callable[[str, Sequence[str]], Sequence[float]]) -> None:
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self.scores = function


def load(spec: Any) -> Reranker:
    """Return a reranker.

    Args:
        spec: a Reranker; a function (query, texts) -> scores; an http(s) URL of a rerank endpoint; or the name or
            path of a model of sentence-transformers, a CrossEncoder or a MultiVectorEncoder.
    """
    if isinstance(spec, str):
        return _by_name(spec)
    if isinstance(spec, Reranker):
        return spec
    if callable(spec):
        return CallableReranker(spec)
    raise ConfigurationError(
        f"{spec!r} is no reranker: give the name of a cross-encoder, a URL, a function (query, texts) -> scores, "
        "or an object with `name` and `scores`"
    )


def _by_name(name: str) -> Reranker:
    if name.startswith(("http://", "https://")):
        from pgvec_toolkit.rerank.http import HttpReranker

        return HttpReranker(name)
    from pgvec_toolkit.embed.model import kind_of
    from pgvec_toolkit.rerank.cross_encoder import CrossEncoderReranker
    from pgvec_toolkit.rerank.late_interaction import LateInteractionReranker

    kind = kind_of(name)
    if kind == LateInteractionReranker.kind:
        return LateInteractionReranker(name)
    if kind not in (None, CrossEncoderReranker.kind):
        # Loaded as a cross-encoder it would score by weights that nobody has trained.
        raise ConfigurationError(f"model {name} is a {kind}, which cannot rerank: use a CrossEncoder")
    return CrossEncoderReranker(name)


def checked(scores: Any, count: int, reranker: Reranker) -> list[float]:
    """Return a reranker's scores as floats.

    Raises:
        RerankError: they are not as many as texts, or not all are finite numbers.
    """
    try:
        found = [float(score) for score in scores]
    except (TypeError, ValueError) as error:
        raise RerankError(f"reranker {reranker.name} returned something else than scores: {error}") from error
    if len(found) != count:
        raise RerankError(
            f"reranker {reranker.name} returned {len(found)} scores for {count} texts: one each is needed"
        )
    wrong = next((score for score in found if not math.isfinite(score)), None)
    if wrong is not None:
        raise RerankError(f"reranker {reranker.name} returned the score {wrong}: it cannot be ranked by")
    return found
