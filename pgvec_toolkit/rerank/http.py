"""Reranking by a service: the endpoints of Cohere, Jina, vLLM and others alike, and of text-embeddings-inference."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pgvec_toolkit import remote
from pgvec_toolkit.errors import ConfigurationError, RerankError
from pgvec_toolkit.remote import SHOWN, Busy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

API_KEY = "PGVEC_RERANK_API_KEY"


class HttpReranker:
    """A rerank endpoint; asked again if it is busy (429), fails (5xx) or cannot be reached, as long as it asks to wait.

    Args:
        url: of the endpoint, such as https://api.cohere.com/v2/rerank.
        model: name of the model, where the service has several.
        style: what is sent: "cohere", {"model", "query", "documents", "top_n"}; "tei", {"query", "texts"}. The
            answer of either is understood.
        api_key: sent as a bearer token; None: that of the environment variable PGVEC_RERANK_API_KEY, if any.
        timeout: seconds that may pass without a byte of the answer.
        attempts: how often it is tried.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        style: Literal["cohere", "tei"] = "cohere",
        api_key: str | None = None,
        timeout: float = 30,
        attempts: int = 3,
    ) -> None:
        if style not in ("cohere", "tei"):
            raise ConfigurationError(f"there is no style {style!r} of rerank endpoints: use cohere or tei")
        self.name = f"{model} at {remote.shown(url)}" if model else remote.shown(url)
        self.url = url
        self.model = model
        self.style = style
        self.timeout = timeout
        self.attempts = attempts
        self._api_key = remote.key_of(api_key, API_KEY)

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return the service's score of each text."""
        try:
            return self._scores(query, texts, None)
        except TimeoutError as error:
            longer = "" if isinstance(error.__cause__, Busy) else ", or give it a longer timeout"
            raise RerankError(f"reranker {self.name} {error}: try again later{longer}") from error

    def scores_within(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        """Return the service's score of each text, or raise TimeoutError when that takes longer."""
        return self._scores(query, texts, seconds)

    def _scores(self, query: str, texts: Sequence[str], seconds: float | None) -> list[float]:
        client = self._client  # says so if the extra is missing
        end = None if seconds is None else time.monotonic() + seconds
        request = self._request(query, texts)
        try:
            answer = remote.repeated(lambda: self._ask(client, request, end), self.attempts, seconds)
        except Busy as error:
            if error.attempts < self.attempts:
                waiting = f", and asks to wait {error.wait:g} s" if error.wait else ""
                raise TimeoutError(f"{error}{waiting}") from error
            raise RerankError(f"reranker {self.name} {error}, {self.attempts} times: try again later") from error
        return self._read(answer, len(texts))

    def _request(self, query: str, texts: Sequence[str]) -> dict[str, Any]:
        if self.style == "tei":
            return {"query": query, "texts": list(texts)}
        model = {"model": self.model} if self.model else {}
        return {**model, "query": query, "documents": list(texts), "top_n": len(texts)}

    def _ask(self, client: httpx.Client, request: dict[str, Any], end: float | None) -> Any:
        rest = self.timeout if end is None else min(self.timeout, end - time.monotonic())
        if rest <= 0:
            raise TimeoutError("did not answer in time")
        response = remote.post(client, self.url, request, rest)
        if not response.is_success:
            hint = {
                401: f": check the API key, in {API_KEY}",
                403: f": check the API key, in {API_KEY}",
                400: ": give HttpReranker the model and the style that the service wants",
                422: ": give HttpReranker the model and the style that the service wants",
            }.get(response.status_code, "")
            raise RerankError(f"reranker {self.name} answered {response.status_code}{hint}: {response.text[:SHOWN]!r}")
        try:
            return response.json()
        except ValueError as error:
            raise RerankError(f"reranker {self.name} answered no JSON: {response.text[:SHOWN]!r}") from error

    def _read(self, answer: Any, count: int) -> list[float]:
        """Return the scores of an answer, whichever style it is of, in the order of the texts."""
        results = answer.get("results") if isinstance(answer, dict) else answer
        if not isinstance(results, list):
            raise RerankError(
                f'reranker {self.name} answered neither {{"results": […]}} nor […]: {str(answer)[:SHOWN]!r}. '
                "Check the URL: it is that of the rerank endpoint"
            )
        scores: dict[int, float] = {}
        for result in results:
            try:
                index, score = (
                    int(result["index"]),
                    result["relevance_score" if "relevance_score" in result else "score"],
                )
                scores[index] = float(score)
            except (KeyError, TypeError, ValueError) as error:
                raise RerankError(
                    f"reranker {self.name} answered {str(result)[:SHOWN]!r}, not an index with a relevance_score or "
                    "a score"
                ) from error
        if set(scores) != set(range(count)) or len(results) != count:
            raise RerankError(
                f"reranker {self.name} answered indexes {sorted(scores)} in {len(results)} results, for {count} texts: "
                "each is needed once"
            )
        return [scores[index] for index in range(count)]

    @cached_property
    def _client(self) -> httpx.Client:
        return remote.client_of(self, self._api_key)
