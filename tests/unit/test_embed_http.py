"""Embedders behind an HTTP endpoint, spoken to over a real socket: batches, retries, refusals, limits, counting."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pgvec_toolkit.embed.base import fingerprint, is_cached
from pgvec_toolkit.embed.http import API_KEY, KEY_GOES_TO, HttpEmbedder
from pgvec_toolkit.embed.kinds import load
from pgvec_toolkit.embed.rates import Limiter, Usage
from pgvec_toolkit.errors import ConfigurationError, EmbedderUnavailable, EmbeddingError, RejectedText
from pgvec_toolkit.remote import Busy, repeated
from tests.http_service import Answer, HttpService, Time, served

pytest.importorskip("httpx", reason="needs the extra http: pip install 'pgvec-toolkit[http]'")
pytest.importorskip("tenacity", reason="needs the extra http: pip install 'pgvec-toolkit[http]'")

TEXTS = ["water", "a longer text", "salt", "the train to Paris"]


def vector(text: str) -> list[float]:
    return [3.0, 4.0, float(len(text))]


class Service(HttpService):
    """Speaks OpenAI's format."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: Callable[[str], bool] = lambda _: False
        self.refusal: Answer = (400, {}, {"error": {"message": "maximum context length is 8 tokens"}})
        self.models: Answer = (200, {}, {"data": [{"id": "m"}]})

    def inputs(self) -> list[list[str]]:
        return [request["input"] for request in self.requests]

    def get(self) -> Answer:
        return self.models

    def post(self, path: str, request: dict[str, Any]) -> Answer:
        if path != "/v1/embeddings":
            return 404, {}, "no such page"
        if any(map(self.refuses, request["input"])):
            return self.refusal
        found = [vector(text)[: request.get("dimensions", 3)] for text in request["input"]]
        if request["encoding_format"] == "base64":
            found = [base64.b64encode(np.asarray(each, dtype="<f4").tobytes()).decode() for each in found]  # type: ignore[misc]
        data = [{"index": row, "embedding": each} for row, each in enumerate(found)]
        return 200, {}, {"data": data[::-1], "usage": {"total_tokens": 1000 * len(found)}}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in (API_KEY, KEY_GOES_TO, "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    service = Service()
    with served(service):
        service.url += "/v1"
        yield service


def embedder(service: Service, **options: Any) -> HttpEmbedder:
    return HttpEmbedder("m", base_url=service.url, **{"sleep": Time().sleep, **options})


def unit(*texts: str) -> Any:
    vectors = np.asarray([vector(text) for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# -- what is asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_come_in_the_order_of_texts_and_have_length_1(service: Service, encoding: Any) -> None:
    asked = embedder(service, encoding=encoding, max_inputs=3)
    found = asked.embed_documents(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(*TEXTS), atol=1e-6)
    assert service.inputs() == [TEXTS[:3], TEXTS[3:]]
    np.testing.assert_allclose(asked.embed_query("salt"), unit("salt")[0], atol=1e-6)
    np.testing.assert_allclose(embedder(service, normalize=False).embed_query("salt"), [3, 4, 4])
    assert embedder(service).dimensions == 3


def test_requests_hold_no_more_tokens_than_wanted(service: Service) -> None:
    embedder(service, max_request_tokens=4).embed_documents(["abc", "de", "a long text of many words", "f"])
    assert service.inputs() == [["abc", "de"], ["a long text of many words"], ["f"]]


def test_parallel_requests_give_the_same(service: Service) -> None:
    texts = [f"text {'x' * n}" for n in range(23)]
    found = embedder(service, max_inputs=2, parallel=4).embed_documents(texts)
    np.testing.assert_allclose(found, unit(*texts), atol=1e-6)
    assert len(service.requests) == 12


def test_dimensions_are_asked_for_and_are_another_model(service: Service) -> None:
    short = embedder(service, dimensions=2)
    np.testing.assert_allclose(short.embed_query("x"), [0.6, 0.8], atol=1e-6)
    assert service.requests[0]["dimensions"] == 2
    assert (short.name, short.dimensions) == ("openai:m?dimensions=2", 2)
    assert fingerprint(short) != fingerprint(embedder(service))


def test_a_family_of_models_gets_its_prompts(service: Service) -> None:
    asked = HttpEmbedder("intfloat/e5-small-v2", base_url=service.url)
    asked.embed_documents(["salt"])
    asked.embed_query("salt")
    assert service.inputs() == [["passage: salt"], ["query: salt"]]


def test_usage_is_counted(service: Service) -> None:
    asked = embedder(service, price=0.5, max_inputs=3)
    asked.embed_documents(TEXTS)
    assert asked.usage == Usage(2, 4000, 0.002)
    free = embedder(service)
    free.embed_query("x")
    assert free.usage == Usage(1, 1000, None)


# -- specs and what is stored ----------------------------------------------------------------------


def test_a_spec_and_what_is_stored_load_the_same(service: Service) -> None:
    made = load(f"openai:m?base_url={service.url}&max_inputs=2&query_prompt=ask: &timeout=5")
    details = {**made.details, "options": made.options}
    assert made.options == {"base_url": service.url, "max_inputs": 2, "timeout": 5, "length": 3}
    assert "secret" not in str((made.name, details))
    asked = len(service.requests)
    again = load(made.name, details)
    assert (again.dimensions, again.options, fingerprint(again)) == (3, made.options, fingerprint(made))
    assert len(service.requests) == asked  # what is stored need not be asked for
    again.embed_query("x")
    assert service.inputs()[-1] == ["ask: x"]
    uncached = load(f"{made.name}?cache=false", details)
    assert (is_cached(again), is_cached(uncached), uncached.options["cache"]) == (True, False, False)


def test_a_url_is_an_embedder_of_its_only_model(service: Service) -> None:
    assert load(service.url).name == load(f"{service.url}?model=m").name == "openai:m"
    assert fingerprint(load(service.url)) == fingerprint(embedder(service))
    service.models = (200, {}, {"data": [{"id": "m"}, {"id": "n"}]})
    with pytest.raises(ConfigurationError, match=r"has the models m, n: name one, \?model="):
        load(service.url)
    service.models = (401, {}, "who are you?")
    with pytest.raises(ConfigurationError, match=f"/v1 wants a key: set {API_KEY}; or name a model"):
        load(service.url)
    with pytest.raises(EmbedderUnavailable, match=r"http://127.0.0.1:9/v1 does not say which models it has"):
        load("http://127.0.0.1:9/v1")


def test_where_services_are_and_which_key_they_get(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for OpenAI only")
    assert HttpEmbedder("m").url == "https://api.openai.com/v1"
    assert HttpEmbedder("m", service="ollama").url == "http://localhost:11434/v1"
    monkeypatch.setenv("OLLAMA_HOST", "host:1")
    assert load("ollama:m").url == "http://host:1/v1"  # type: ignore[attr-defined]
    # A URL may come out of a database that somebody else writes: it gets no key that was meant for another service.
    embedder(service).embed_query("x")
    assert "Authorization" not in service.headers[-1]
    monkeypatch.setenv("OPENAI_BASE_URL", service.url)
    HttpEmbedder("m").embed_query("x")
    assert service.headers[-1]["Authorization"] == "Bearer for OpenAI only"
    for host, url in {
        "gpu-box": "http://gpu-box:11434/v1",
        "[::1]": "http://[::1]:11434/v1",
        "https://host/": "https://host/v1",
    }.items():
        monkeypatch.setenv("OLLAMA_HOST", host)
        assert HttpEmbedder("m", service="ollama").url == url
    for url, problem in {
        "http://me:pass@host/v1": f"holds no password or key: set {API_KEY}",
        "localhost:8000/v1": "the base_url is no URL of a service: it begins with http:// or https://",
        "http://me:pass:word@[host/v1": "written wrong: check its host and port",
    }.items():
        with pytest.raises(ConfigurationError, match=problem) as error:
            HttpEmbedder("m", base_url=url)
        assert "pass:" not in str(error.value)


def test_a_url_out_of_a_database_gets_no_key_unless_the_environment_names_its_host(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def authorized(spec: str, *given: Any, **trust: bool) -> bool:
        load(spec, *given, **trust).embed_query("x")
        return "Authorization" in service.headers[-1]

    monkeypatch.setenv(API_KEY, "secret")
    moved, stored = f"openai:m?base_url={service.url}", {"options": {"base_url": service.url, "length": 3}}
    assert authorized(moved)
    assert authorized(moved, {}, trust=True)  # opened by the caller with this URL
    for spec, details in (("openai:m", stored), ("ollama:m", stored), (moved, {}), (service.url, {})):
        assert not authorized(spec, details)
    assert not authorized("openai:m", stored, trust=True)
    service.answers = [(401, {}, "")]
    with pytest.raises(
        EmbeddingError, match=rf"wants a key: set {API_KEY}, and {KEY_GOES_TO}=http://127.0.0.1:\d+/v1,"
    ):
        load("openai:m", stored).embed_query("x")
    monkeypatch.setenv(KEY_GOES_TO, "http://127.0.0.1:9")
    assert not authorized("openai:m", stored)
    monkeypatch.setenv(KEY_GOES_TO, service.url.removesuffix("/v1"))
    assert authorized("openai:m", stored)
    assert authorized(service.url, {})


def test_keys_and_passwords_are_in_no_error(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY, " sk-secret\r\n")  # as files of secrets end
    embedder(service).embed_query("x")
    assert service.headers[-1]["Authorization"] == "Bearer sk-secret"
    for key in ("sk-sec\nret", "sk-secrét"):
        monkeypatch.setenv(API_KEY, key)
        for make in (lambda: embedder(service), lambda: load(service.url)):
            with pytest.raises(ConfigurationError, match=f"in {API_KEY}, has characters that no key has") as error:
                make()
            assert "sk-" not in str(error.value)
    monkeypatch.setenv("OPENAI_BASE_URL", service.url.replace("127", "me:sk-secret@127"))
    service.answers = [(418, {}, ""), (404, {}, ""), (401, {}, ""), (200, {}, b""), (200, {}, {}), (500, {}, "")]
    asked = HttpEmbedder("m", attempts=1)
    for _ in range(len(service.answers)):
        with pytest.raises(EmbeddingError) as failure:
            asked.embed_query("a")
        assert "sk-" not in str(failure.value)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("openai:m?speed=2", "has no option 'speed': there are .*base_url"),
        ("openai:m?dimensions=many", "dimensions=many is not a whole number of at least 1"),
        ("openai:m?normalize=perhaps", "is neither true nor false"),
        ("openai:m?encoding=xml", "is not one of float, base64"),
        ("openai:m?price=-1", "is not a number above 0"),
        ("openai:", "names nothing: write it as openai:text-embedding-3-small"),
        (
            "cohere:m",
            "there is no kind 'cohere' of embedders: specs begin with sparse:, colbert:, .*, or a model's name",
        ),
    ],
)
def test_specs_that_say_what_is_wrong(spec: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        load(spec)


# -- again -----------------------------------------------------------------------------------------


def test_a_busy_service_is_asked_again_when_it_says(service: Service) -> None:
    time = Time()
    service.answers = [(429, {"Retry-After": "7"}, "busy"), (503, {}, "")]
    np.testing.assert_allclose(embedder(service, sleep=time.sleep).embed_query("x"), unit("x")[0], atol=1e-6)
    assert time.slept == [7, 0.5]


def test_a_service_that_goes_on_failing_is_unavailable(service: Service) -> None:
    service.answers = [(500, {}, "")] * 6
    with pytest.raises(EmbedderUnavailable, match=r"embedder openai:m at .* answered 500, 3 times: try again later"):
        embedder(service, attempts=3).embed_query("x")
    service.answers = [(503, {}, "")] * 8  # 32 s more would be too many
    with pytest.raises(EmbedderUnavailable, match=r"answered 503, 8 times: try again later"):
        embedder(service, attempts=20).embed_query("x")
    service.answers = [(429, {}, "")] * 3
    with pytest.raises(EmbedderUnavailable, match="429, 3 times: set requests_per_minute"):
        embedder(service, attempts=3).embed_query("x")
    service.answers = [(429, {"Retry-After": "3600"}, "")]
    with pytest.raises(EmbedderUnavailable, match="asks to wait 3600 s: try again then"):
        embedder(service).embed_query("x")
    service.answers = [(429, {}, {"error": {"code": "insufficient_quota"}})]
    with pytest.raises(EmbedderUnavailable, match="the account has no money left"):
        embedder(service).embed_query("x")
    assert not service.answers
    with pytest.raises(EmbedderUnavailable, match=r"cannot be reached .*, 2 times: is the server up, and is that"):
        HttpEmbedder("m", base_url="http://127.0.0.1:9/v1", attempts=2, sleep=Time().sleep).embed_query("x")


def test_only_waiting_is_bounded_not_what_answers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr("time.monotonic", time.clock)

    def slow() -> None:
        time.now += 60
        raise Busy("did not answer")

    with pytest.raises(Busy) as error:
        repeated(slow, 3, sleep=time.sleep)
    assert (error.value.attempts, time.slept) == (3, [0.25, 0.5])
    with pytest.raises(Busy) as error:
        repeated(slow, 3, 60, time.sleep)  # of a budget they are part
    assert error.value.attempts == 1


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{5}, {0, 1, 17}, set(range(20))])
def test_which_texts_are_refused(service: Service, bad: set[int]) -> None:
    service.refuses = lambda text: len(text) > 100
    texts = ["x" * 200 if row in bad else f"text {row}" for row in range(20)]
    with pytest.raises(
        RejectedText, match=rf"refuses {len(bad)} of 20 texts: the first .* has 200 char.*400: .*maxim"
    ) as e:
        embedder(service, max_inputs=8).embed_documents(texts)
    assert set(e.value.positions) == bad
    good = [text for row, text in enumerate(texts) if row not in bad]
    assert len(embedder(service).embed_documents(good)) == len(good)


def test_a_text_by_which_a_service_fails_is_refused(service: Service) -> None:
    service.refuses, service.refusal = (lambda text: len(text) > 100), (500, {}, {"error": "input is too large"})
    texts = ["salt", "x" * 200, "water", "y"]
    with pytest.raises(RejectedText, match=r"refuses 1 of 4 texts: .* has 200 char.*500: .*too large") as error:
        embedder(service).embed_documents(texts)
    assert error.value.positions == (1,)
    # One that is well again before it is known better has refused nothing.
    service.answers = [(500, {}, "restarting")] * 3
    np.testing.assert_allclose(embedder(service, attempts=3).embed_query("x"), unit("x")[0], atol=1e-6)
    assert not service.answers


def test_a_service_that_refuses_every_text_does_not_blame_them(service: Service) -> None:
    service.refuses = lambda _: True
    with pytest.raises(EmbeddingError, match=r"refuses any text: 400: .*Check the model and the options") as error:
        embedder(service).embed_documents(TEXTS)
    assert type(error.value) is EmbeddingError
    assert service.inputs() == [TEXTS, ["a"]]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((401, {}, "who are you?"), "wants a key: set PGVEC_EMBED_API_KEY .*401: .*who are you"),
        ((404, {}, "no such model"), "or no model m there .*ends with /v1; of Ollama, first: ollama pull m"),
        ((418, {}, "tea"), "answered 418: .*tea"),
        ((200, {}, b"<html>"), "answered no JSON: <html>"),
        ((200, {}, {"hello": 1}), "something else than embeddings .*hello"),
        ((200, {}, {"data": [{"index": 1, "embedding": [1]}]}), r"indexes \[1\] for 1 texts"),
        ((200, {}, {"data": [{"index": 0, "embedding": []}]}), "an embedding of shape"),
        ((200, {}, {"data": [{"index": 0, "embedding": "***"}]}), "something else than embeddings"),
        ((200, {}, {"data": [{"index": 0, "embedding": [1, 2]}]}), r"vectors of \[2\] dimensions, not 3"),
    ],
)
def test_answers_that_do_not_fit_are_errors(service: Service, answer: Answer, problem: str) -> None:
    service.answers = [answer]
    with pytest.raises(EmbeddingError, match=problem) as error:
        embedder(service, length=3).embed_query("x")
    assert not isinstance(error.value, RejectedText | EmbedderUnavailable)
    assert len(service.requests) == 1


def test_a_vector_of_zeros_is_the_fault_of_its_text(service: Service) -> None:
    data = [{"index": row, "embedding": [row, 0.0]} for row in range(2)]
    service.answers = [(200, {}, {"data": data})]
    with pytest.raises(RejectedText, match="knows no word of 1 of 2 texts") as error:
        embedder(service).embed_documents(["", "x"])
    assert error.value.positions == (0,)


# -- limits ----------------------------------------------------------------------------------------


def test_limits_hold_in_every_minute() -> None:
    time = Time()
    limiter = Limiter(3, 100, time.clock, time.sleep)
    sent = []
    for tokens in [10, 10, 10, 10, 90, 500, 1, 30, 30, 60]:
        limiter.wait(tokens)
        sent.append((time.now, tokens))
        time.now += 1
    for start, _ in sent:
        within = [tokens for at, tokens in sent if start <= at < start + 60]
        assert len(within) <= 3
        assert len(within) == 1 or sum(within) <= 100
    assert [at for at, _ in sent][:5] == [0, 1, 2, 60, 62]


def test_an_embedder_keeps_its_limits(service: Service) -> None:
    time = Time()
    asked = embedder(service, requests_per_minute=2, max_inputs=1, clock=time.clock, sleep=time.sleep)
    asked.embed_documents(TEXTS)
    assert (time.slept, len(service.requests)) == ([60], 4)
