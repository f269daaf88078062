"""Rerank endpoints, spoken to over a real socket: both styles, retries, wrong answers, the budget."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from pgvec_toolkit.errors import ConfigurationError, MissingDependency, RerankError
from pgvec_toolkit.rerank.base import load
from pgvec_toolkit.rerank.http import API_KEY, HttpReranker
from pgvec_toolkit.rerank.stage import rerank
from pgvec_toolkit.search.hit import Hit, Hits
from tests.http_service import Answer, HttpService, served

pytest.importorskip("httpx", reason="needs the extra http: pip install 'pgvec-toolkit[http]'")
pytest.importorskip("tenacity", reason="needs the extra http: pip install 'pgvec-toolkit[http]'")

TEXTS = ["water", "a longer text", "salt"]


class Service(HttpService):
    """A rerank service, whose scores are the lengths of texts."""

    def post(self, path: str, request: dict[str, Any]) -> Answer:
        if path != "/v1/rerank":
            return 404, {}, "no such page"
        if "texts" in request:
            scores = [{"index": index, "score": len(text)} for index, text in enumerate(request["texts"])]
            return 200, {}, sorted(scores, key=lambda each: -each["score"])
        texts = enumerate(request["documents"])
        scores = [{"index": index, "relevance_score": len(text), "document": {"text": text}} for index, text in texts]
        return 200, {}, {"id": "x", "results": scores[::-1]}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(API_KEY, raising=False)
    service = Service()
    with served(service):
        service.url += "/v1/rerank"
        yield service


def hits_of(texts: list[str]) -> Hits:
    return Hits([Hit(text, text, text, {}, 0, 1, 1, rank) for rank, text in enumerate(texts, 1)], "complete")


def test_cohere_style(service: Service) -> None:
    reranker = HttpReranker(service.url, model="m", api_key="secret")
    assert reranker.scores("q", TEXTS) == [5, 13, 4]
    assert service.requests == [{"model": "m", "query": "q", "documents": TEXTS, "top_n": 3}]
    assert service.headers[0]["Authorization"] == "Bearer secret"
    assert reranker.name == f"m at {service.url}"


def test_tei_style(service: Service) -> None:
    assert HttpReranker(service.url, style="tei").scores("q", TEXTS) == [5, 13, 4]
    assert service.requests == [{"query": "q", "texts": TEXTS}]
    assert "Authorization" not in service.headers[0]


def test_a_url_is_a_reranker_and_its_key_is_in_the_environment(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(API_KEY, "from the environment")
    reranked = rerank(load(service.url), "q", hits_of(TEXTS), 2)
    assert [(hit.id, hit.score, hit.first_rank) for hit in reranked] == [("a longer text", 13, 2), ("water", 5, 1)]
    assert service.headers[0]["Authorization"] == "Bearer from the environment"
    monkeypatch.setenv(API_KEY, "sk-sec\nret")
    with pytest.raises(ConfigurationError, match=f"in {API_KEY}, has characters that no key has: set it anew"):
        load(service.url)


def test_names_keep_secrets() -> None:
    assert HttpReranker("https://me:pass@host:81/rerank?key=abc").name == "https://host:81/rerank"


# -- again -----------------------------------------------------------------------------------------


def test_a_busy_service_is_asked_again_when_it_says(service: Service) -> None:
    service.answers = [(429, {"Retry-After": "1"}, "busy")]
    begun = time.monotonic()
    assert HttpReranker(service.url).scores("q", TEXTS) == [5, 13, 4]
    assert time.monotonic() - begun >= 1
    assert len(service.requests) == 2


def test_a_retry_after_may_be_a_date_or_nonsense(service: Service) -> None:
    past = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
    unzoned = past.replace("GMT", "-0000")
    service.answers = [(503, {"Retry-After": each}, "") for each in (past, unzoned, "soon")]
    assert HttpReranker(service.url, attempts=4).scores("q", TEXTS) == [5, 13, 4]
    service.answers = [(429, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=2))}, "")]
    with pytest.raises(RerankError, match=r"answered 429, and asks to wait 7\d\d\d(\.\d+)? s: try again later"):
        HttpReranker(service.url).scores("q", TEXTS)


def test_a_service_that_goes_on_failing_is_an_error(service: Service) -> None:
    service.answers = [(500, {}, "")] * 3
    with pytest.raises(RerankError, match=r"127.0.0.1:\d+/v1/rerank answered 500, 2 times: try again later"):
        HttpReranker(service.url, attempts=2).scores("q", TEXTS)
    assert len(service.requests) == 2


def test_a_service_that_is_not_there() -> None:
    with pytest.raises(RerankError, match=r"http://127.0.0.1:9/rerank cannot be reached .*, 1 times"):
        HttpReranker("http://127.0.0.1:9/rerank", attempts=1).scores("q", TEXTS)


# -- wrong answers ---------------------------------------------------------------------------------


def results(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"results": [{"index": index, "relevance_score": score} for index, score in pairs]}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"error": "no such model"}, r"answered neither \{\"results\": .*no such model.*Check the URL"),
        ("hello", "answered neither"),
        (b"<html>", "answered no JSON: '<html>'"),
        ({"results": [{"relevance_score": 1}]}, "not an index with a relevance_score"),
        ({"results": [{"index": 0, "value": 1}]}, "not an index with a relevance_score"),
        ({"results": [1, 2, 3]}, "not an index with a relevance_score"),
        (results((0, 1), (1, None), (2, 3)), "not an index with a relevance_score"),
        (results((0, 1), (1, 2)), r"indexes \[0, 1\] in 2 results, for 3 texts: each is needed once"),
        (results((0, 1), (1, 2), (3, 3)), r"indexes \[0, 1, 3\] in 3 results"),
        (results((0, 1), (1, 2), (2, 3), (2, 4)), r"indexes \[0, 1, 2\] in 4 results"),
        (results((0, 1), (1, 2), (2, float("nan"))), "returned the score nan"),
    ],
)
def test_answers_that_do_not_fit_are_errors(service: Service, body: Any, problem: str) -> None:
    service.answers = [(200, {}, body)]
    with pytest.raises(RerankError, match=problem):
        rerank(HttpReranker(service.url), "q", hits_of(TEXTS), 3)
    assert len(service.requests) == 1


def test_a_refused_key_says_where_it_is_set(service: Service) -> None:
    service.answers = [(401, {}, b"who are you?"), (400, {}, b"too long")]
    with pytest.raises(RerankError, match="answered 401: check the API key, in PGVEC_RERANK_API_KEY: 'who are you"):
        HttpReranker(service.url, api_key="secret").scores("q", TEXTS)
    with pytest.raises(
        RerankError, match="answered 400: give HttpReranker the model and the style that the service wants: 'too long'"
    ):
        HttpReranker(service.url).scores("q", TEXTS)


@pytest.mark.parametrize("package", ["httpx", "tenacity"])
def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"pip install 'pgvec-toolkit\[http\]'"):
        rerank(HttpReranker("http://127.0.0.1:9/"), "q", hits_of(TEXTS), 1)


def test_wrong_style() -> None:
    with pytest.raises(ConfigurationError, match="no style 'jina' of rerank endpoints: use cohere or tei"):
        HttpReranker("http://host/", style="jina")  # type: ignore[arg-type]


# -- budgets ---------------------------------------------------------------------------------------


def test_a_request_ends_with_the_budget(service: Service) -> None:
    answered = threading.Event()
    service.before = lambda: answered.wait(10)
    begun = time.monotonic()
    reranked = rerank(HttpReranker(service.url), "q", hits_of(TEXTS), 2, budget=0.2)
    assert 0.15 < time.monotonic() - begun < 5
    answered.set()
    assert [hit.id for hit in reranked] == TEXTS[:2]
    assert reranked.note == (
        "reranking stopped: its budget of 0.2 s was over after 0 of 3 chunks; this is the order of the search"
    )


def test_a_wait_that_is_longer_than_the_budget_is_not_waited(service: Service) -> None:
    service.answers = [(429, {"Retry-After": "30"}, "")]
    begun = time.monotonic()
    reranked = rerank(HttpReranker(service.url), "q", hits_of(TEXTS), 2, budget=1)
    assert time.monotonic() - begun < 5
    assert "after 0 of 3 chunks" in str(reranked.note)


def test_failures_within_the_budget_are_errors(service: Service) -> None:
    service.answers = [(400, {}, "bad")]
    with pytest.raises(RerankError, match="answered 400"):
        rerank(HttpReranker(service.url), "q", hits_of(TEXTS), 2, budget=10)


def test_without_a_budget_a_slow_answer_is_an_error(service: Service) -> None:
    answered = threading.Event()
    service.before = lambda: answered.wait(10)
    with pytest.raises(RerankError, match=r"did not answer within 0.1 s: try again later, or give it a longer timeout"):
        HttpReranker(service.url, timeout=0.1).scores("q", TEXTS)
    answered.set()
