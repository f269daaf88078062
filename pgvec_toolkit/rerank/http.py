"""Reranking by a service: the endpoints of Cohere, Jina, vLLM and others alike, and of text-embeddings-inference."""

from __future__ import annotations

import os
import time
import weakref
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pgvec_toolkit.errors import ConfigurationError, MissingDependency, RerankError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx
    from tenacity import RetryCallState

API_KEY = "PGVEC_RERANK_API_KEY"
_PATIENCE = 60.0  # seconds after which no further attempt is made, where there is no budget
_SHOWN = 200  # characters of an answer that an error tells


class _Failed(Exception):
    """An attempt that may be repeated, and how many seconds the service asked to wait before."""

    def __init__(self, problem: str, wait: float = 0) -> None:
        super().__init__(problem)
        self.wait = wait


class HttpReranker:
    """A rerank endpoint; asked again if it is busy (429), fails (5xx) or cannot be reached, as long as it asks to wait.

    Args:
        url: of the endpoint, such as https://api.cohere.com/v2/rerank.
        model: name of the model, where the service has several.
        style: what is sent: "cohere", {"model", "query", "documents", "top_n"}; "tei", {"query", "texts"}. The
            answer of either is understood.
        api_key: sent as a bearer token; None: that of the environment variable PGVEC_RERANK_API_KEY, if any.
        timeout: seconds that a request may take.
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
        parts = urlsplit(url)
        # Without what may be secret: a password, or a key in the query string.
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.name = f"{model} at {where}" if model else where
        self.url = url
        self.model = model
        self.style = style
        self.timeout = timeout
        self.attempts = attempts
        self._api_key = api_key or os.environ.get(API_KEY)

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return the service's score of each text."""
        try:
            return self._scores(query, texts, None)
        except TimeoutError as error:
            longer = "" if isinstance(error.__cause__, _Failed) else ", or give it a longer timeout"
            raise RerankError(f"reranker {self.name} {error}: try again later{longer}") from error

    def scores_within(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        """Return the service's score of each text, or raise TimeoutError when that takes longer."""
        return self._scores(query, texts, seconds)

    def _scores(self, query: str, texts: Sequence[str], seconds: float | None) -> list[float]:
        client = self._client  # says so if the extra is missing
        import tenacity

        end = None if seconds is None else time.monotonic() + seconds
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Failed),
            stop=tenacity.stop_after_attempt(self.attempts) | tenacity.stop_before_delay(seconds or _PATIENCE),
            wait=_wait,
            reraise=True,
        )
        try:
            answer = retrying(self._ask, client, self._request(query, texts), end)
        except _Failed as error:
            if retrying.statistics["attempt_number"] < self.attempts:
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
        import httpx

        rest = self.timeout if end is None else min(self.timeout, end - time.monotonic())
        if rest <= 0:
            raise TimeoutError("did not answer in time")
        try:
            response = client.post(self.url, json=request, timeout=rest)
        except httpx.TimeoutException as error:
            raise TimeoutError(f"did not answer within {rest:.3g} s") from error
        except httpx.TransportError as error:
            raise _Failed(f"cannot be reached ({error})") from error
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"{self.name} is not a URL: {error}") from error
        return self._answer(response)

    def _answer(self, response: httpx.Response) -> Any:
        if response.status_code == 429 or response.status_code >= 500:
            raise _Failed(f"answered {response.status_code}", _seconds(response.headers.get("Retry-After")))
        if not response.is_success:
            hint = {
                401: f": check the API key, in {API_KEY}",
                403: f": check the API key, in {API_KEY}",
                400: ": give HttpReranker the model and the style that the service wants",
                422: ": give HttpReranker the model and the style that the service wants",
            }.get(response.status_code, "")
            raise RerankError(f"reranker {self.name} answered {response.status_code}{hint}: {response.text[:_SHOWN]!r}")
        try:
            return response.json()
        except ValueError as error:
            raise RerankError(f"reranker {self.name} answered no JSON: {response.text[:_SHOWN]!r}") from error

    def _read(self, answer: Any, count: int) -> list[float]:
        """Return the scores of an answer, whichever style it is of, in the order of the texts."""
        results = answer.get("results") if isinstance(answer, dict) else answer
        if not isinstance(results, list):
            raise RerankError(
                f'reranker {self.name} answered neither {{"results": […]}} nor […]: {str(answer)[:_SHOWN]!r}. '
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
                    f"reranker {self.name} answered {str(result)[:_SHOWN]!r}, not an index with a relevance_score or "
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
        try:
            import httpx
            import tenacity  # noqa: F401
        except ImportError as error:
            raise MissingDependency("httpx or tenacity", "http") from error
        client = httpx.Client(headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else None)
        weakref.finalize(self, client.close)
        return client


def _wait(state: RetryCallState) -> float:
    """Return how long to wait: what the service asked for, at least a little, doubled with each attempt."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, _Failed) else 0
    return max(asked, 0.25 * 2.0 ** (state.attempt_number - 1))


def _seconds(retry_after: str | None) -> float:
    """Return the seconds of a Retry-After header, which has a number or a date."""
    if retry_after is None:
        return 0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
