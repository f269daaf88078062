"""Dense embeddings by a service that speaks OpenAI's API: OpenAI itself, Ollama, vLLM, text-embeddings-inference."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from pgvec_toolkit import remote
from pgvec_toolkit.embed import prompts
from pgvec_toolkit.embed.rates import Limiter, Usage
from pgvec_toolkit.embed.shaping import shaped
from pgvec_toolkit.embed.spec import spec_of
from pgvec_toolkit.embed.tokens import unbounded
from pgvec_toolkit.errors import (
    ConfigurationError,
    EmbedderUnavailable,
    EmbeddingError,
    MissingDependency,
    RejectedText,
)
from pgvec_toolkit.remote import SHOWN, Busy

if TYPE_CHECKING:
    import httpx
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

API_KEY = "PGVEC_EMBED_API_KEY"  # of services other than OpenAI's own
KEY_GOES_TO = "PGVEC_EMBED_URL"  # where this key may go, if it is a database that says where the service is
_OPENAI = "https://api.openai.com/v1"
_OLLAMA_PORT = 11434
_REFUSING = (400, 413, 422)  # statuses that may be about a text
_HARMLESS = "a"
_BYTES_A_TOKEN = 3  # fewer than there are, so that no request is too large
_MILLION = 1_000_000


class _Refused(Exception):
    """The service will not do this request."""


class HttpEmbedder:
    """A service that answers POST …/embeddings as OpenAI does; asked again while it is busy or fails.

    Args:
        model: name that the service knows.
        service: whose it is, which says where it is and what the environment has for it: "openai" (OPENAI_BASE_URL,
            OPENAI_API_KEY) or "ollama" (OLLAMA_HOST).
        base_url: of another service, as http://localhost:8000/v1. It gets no key but that of PGVEC_EMBED_API_KEY.
        url_from_database: whether the base_url is what a database says, not the caller: then it gets that key only if
            PGVEC_EMBED_URL names the same host.
        api_key: instead of the environment's; it is never stored.
        dimensions: that the service is asked for; None: as the model has them.
        normalize: whether to make vectors of length 1.
        query_prompt: put before queries; None: that of the model's family (see prompts.py).
        document_prompt: put before documents; likewise.
        encoding: in which vectors travel: "float", or "base64", a third of the size; None: base64 from OpenAI.
        max_inputs: texts in a request; None: 256 to OpenAI, else 32.
        max_request_tokens: tokens in a request.
        requests_per_minute: that it is asked for at most, by this process.
        tokens_per_minute: likewise.
        parallel: requests at once; None: 4 to OpenAI, else 1.
        price: of a million tokens; `usage` then says the cost.
        timeout: seconds that may pass without a byte of the answer.
        attempts: how often it is tried.
        cache: whether databases keep the vectors. What is embedded once is not paid for again, for as long as the
            service has the same model under this name.
        max_tokens: how long chunks may be; None: of OpenAI's models, their limit.
        tokenizer: name on the hub, or path of a tokenizer.json, by which chunks and requests are measured.
        length: of the vectors, if it is known; else the service is asked.
        clock: returns seconds.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        model: str,
        *,
        service: Literal["openai", "ollama"] = "openai",
        base_url: str | None = None,
        url_from_database: bool = False,
        api_key: str | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        encoding: Literal["float", "base64"] | None = None,
        max_inputs: int | None = None,
        max_request_tokens: int = 100_000,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        parallel: int | None = None,
        price: float | None = None,
        timeout: float = 60,
        attempts: int = 5,
        cache: bool = True,
        max_tokens: int | None = None,
        tokenizer: str | None = None,
        length: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        given = locals()
        self._options = {name: given[name] for name in _STORED if given[name] != _DEFAULTS.get(name)}
        self.model = model
        self.service = service
        self.url, self._variable = _address(service, base_url)
        official = self._variable == "OPENAI_API_KEY"
        self.address = remote.shown(self.url)  # for errors
        from_database = url_from_database and base_url is not None
        self._may_have_key = not from_database or self._variable != API_KEY or _is_named(self.url)
        self._api_key = remote.key_of(api_key, self._variable) if api_key or self._may_have_key else None
        self.cached = cache
        self.normalize = normalize
        self.timeout = timeout
        self.attempts = attempts
        self.price = price
        self.prompts = prompts.effective(model, {}, query_prompt, document_prompt)
        self.max_tokens = max_tokens or (8191 if official and model.startswith("text-embedding-") else None)
        self.name = spec_of(f"{service}:", model, {"dimensions": dimensions, "normalize": None if normalize else False})
        self._who = f"embedder {self.name} at {self.address}"
        self._asked_dimensions = dimensions
        self._length = dimensions or length
        self._encoding = encoding or ("base64" if official else "float")
        self._max_inputs = max_inputs or (256 if official else 32)
        self._max_request_tokens = max_request_tokens
        self._parallel = parallel or (4 if official else 1)
        self._tokenizer = tokenizer
        self._sleep = sleep
        self._limiter = Limiter(requests_per_minute, tokens_per_minute, clock, sleep)
        self._counting = threading.Lock()
        self.usage = Usage(cost=None if price is None else 0.0)

    @property
    def dimensions(self) -> int:
        """Length of the vectors; asked of the service if it is not known."""
        if self._length is None:
            self._length = int(self._embedded([_HARMLESS]).shape[1])
        return self._length

    @property
    def options(self) -> dict[str, Any]:
        """What it takes to load it again, beside its name and details; no key is among it."""
        return {**self._options, **({} if self._asked_dimensions else {"length": self.dimensions})}

    @property
    def details(self) -> dict[str, Any]:
        """What else changes a vector: prompts, normalisation. The weights are the service's own affair."""
        return {"prompts": dict(self.prompts._asdict()), "normalized": self.normalize}

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """What chunks are measured by; None if none was named."""
        if self._tokenizer is None:
            return None
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency("tokenizers", "http") from error
        file = os.path.isfile(self._tokenizer)
        try:
            found = (Tokenizer.from_file if file else Tokenizer.from_pretrained)(self._tokenizer)
        except Exception as error:  # tokenizers raises nothing more special
            raise EmbeddingError(f"cannot load tokenizer {self._tokenizer}: {error}. Give a tokenizer.json") from error
        return unbounded(found)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimensions).

        Raises:
            RejectedText: the service refuses some of the texts; `positions` has all of these.
            EmbedderUnavailable: it cannot be reached, or goes on failing.
        """
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        return self._embedded([self.prompts.document + text for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return a vector of shape (dimensions,)."""
        return np.asarray(self._embedded([self.prompts.query + text])[0])

    # -- batches -----------------------------------------------------------------------------------

    def _embedded(self, texts: list[str]) -> NDArray[np.float32]:
        _ = self._client  # says so if the extra is missing
        batches = list(self._batches(texts))
        if self._parallel == 1 or len(batches) == 1:
            answers = [self._answered(texts, batch) for batch in batches]
        else:
            with ThreadPoolExecutor(self._parallel) as pool:
                answers = list(pool.map(partial(self._answered, texts), batches))
        rejected = {row: why for _, refused in answers for row, why in refused.items()}
        if rejected:
            first = min(rejected)
            raise RejectedText(
                f"embedder {self.name} refuses {len(rejected)} of {len(texts)} texts: the first of them, at position "
                f"{first}, has {len(texts[first]):,} characters ({rejected[first]}). Shorten it, or leave it out",
                tuple(sorted(rejected)),
            )
        vectors = [vector for found, _ in answers for vector in found]
        lengths = {len(vector) for vector in vectors}
        if len(lengths) > 1 or (self._length is not None and lengths != {self._length}):
            raise EmbeddingError(
                f"embedder {self.name} answered vectors of {sorted(lengths)} dimensions, not {self._length}: "
                "is it another model now?"
            )
        return shaped(np.stack(vectors), self.name, None, self.normalize)

    def _batches(self, texts: list[str]) -> Iterator[list[int]]:
        """Yield positions of texts that make a request together."""
        batch: list[int] = []
        taken = 0
        for row, text in enumerate(texts):
            tokens = self._tokens(text)
            if batch and (len(batch) == self._max_inputs or taken + tokens > self._max_request_tokens):
                yield batch
                batch, taken = [], 0
            batch.append(row)
            taken += tokens
        yield batch

    def _tokens(self, text: str) -> int:
        if self.tokenizer is not None:
            return len(self.tokenizer.encode(text).ids)
        return len(text.encode()) // _BYTES_A_TOKEN + 1

    def _answered(self, texts: list[str], rows: list[int]) -> tuple[list[NDArray[np.float32]], dict[int, str]]:
        """Return the vectors of some texts; or, if it refuses some of them, these, with what it says."""
        try:
            return self._request([texts[row] for row in rows]), {}
        except _Refused as error:
            self._blame(error)
            if len(rows) == 1:
                return [], {rows[0]: str(error)}
        return self._halves(texts, rows)

    def _halves(self, texts: list[str], rows: list[int]) -> tuple[list[NDArray[np.float32]], dict[int, str]]:
        vectors: list[NDArray[np.float32]] = []
        rejected: dict[int, str] = {}
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            try:
                vectors += self._request([texts[row] for row in half])
            except _Refused as error:
                found, refused = ([], {half[0]: str(error)}) if len(half) == 1 else self._halves(texts, half)
                vectors += found
                rejected |= refused
        return vectors, rejected

    def _blame(self, refused: _Refused) -> None:
        """Raise EmbeddingError unless the service takes a harmless text: then it is the texts that it refuses."""
        try:
            self._request([_HARMLESS])
        except _Refused as error:
            raise EmbeddingError(
                f"{self._who} refuses any text: {error}. Check the model and the options that it takes"
            ) from refused

    # -- requests ----------------------------------------------------------------------------------

    def _request(self, texts: list[str]) -> list[NDArray[np.float32]]:
        body: dict[str, Any] = {"model": self.model, "input": texts, "encoding_format": self._encoding}
        if self._asked_dimensions is not None:
            body["dimensions"] = self._asked_dimensions
        tokens = sum(map(self._tokens, texts))
        try:
            response = remote.repeated(lambda: self._attempt(body, tokens), self.attempts, sleep=self._sleep)
        except Busy as error:
            if error.status != 500 or texts == [_HARMLESS] or not self._answers():
                raise EmbedderUnavailable(f"{self._who} {self._advice(error)}") from error
            response = self._once_more(body, tokens)
        return self._read(self._checked(response), len(texts), tokens)

    def _once_more(self, body: dict[str, Any], tokens: int) -> httpx.Response:
        """Ask once more for texts that were answered with 500: if the service restarted, it was not their fault."""
        try:
            return self._attempt(body, tokens)
        except Busy as error:
            if error.status == 500:
                raise _Refused(f"500: {_short(error.body)}") from error
            raise EmbedderUnavailable(f"{self._who} {self._advice(error)}") from error

    def _answers(self) -> bool:
        """Tell whether the service answers at all: then 500 is what some servers say of a text that is too long."""
        try:
            self._request([_HARMLESS])
        except (_Refused, EmbeddingError):
            return False
        return True

    def _attempt(self, body: dict[str, Any], tokens: int) -> httpx.Response:
        self._limiter.wait(tokens)
        try:
            return remote.post(self._client, f"{self.url}/embeddings", body, self.timeout)
        except TimeoutError as error:
            raise Busy(str(error)) from error
        except Busy as error:
            if "insufficient_quota" in error.body:  # is said with 429, and no waiting helps
                raise EmbedderUnavailable(
                    f"{self._who} says that the account has no money left: {error.body[:SHOWN]}"
                ) from error
            raise

    def _advice(self, error: Busy) -> str:
        if error.attempts < self.attempts and error.wait:
            return f"{error}, and asks to wait {error.wait:g} s: try again then"
        tried = f"{error}, {error.attempts} times"
        if "reached" in str(error):
            return f"{tried}: is the server up, and is that its address?"
        if error.status == 429:
            return f"{tried}: set requests_per_minute and tokens_per_minute to what it grants"
        return f"{tried}: try again later"

    def _checked(self, response: httpx.Response) -> Any:
        status, said = response.status_code, _short(response.text)
        if status in _REFUSING:
            raise _Refused(f"{status}: {said}")
        if status in (401, 403):
            key = "refuses the key in" if self._api_key else "wants a key: set"
            also = "" if self._may_have_key else f", and {KEY_GOES_TO}={self.address}, for a database says where it is"
            raise EmbeddingError(f"{self._who} {key} {self._variable}{also} ({status}: {said})")
        if status == 404:
            raise EmbeddingError(
                f"embedder {self.name}: there is no {self.address}/embeddings, or no model {self.model} there "
                f"({status}: {said}). A base_url mostly ends with /v1; of Ollama, first: ollama pull {self.model}"
            )
        if not response.is_success:
            raise EmbeddingError(f"{self._who} answered {status}: {said}")
        try:
            return response.json()
        except ValueError as error:
            raise EmbeddingError(f"{self._who} answered no JSON: {said}") from error

    def _read(self, answer: Any, count: int, estimated: int) -> list[NDArray[np.float32]]:
        try:
            found = {int(each["index"]): _vector(each["embedding"]) for each in answer["data"]}
            if sorted(found) != list(range(count)):
                raise ValueError(f"indexes {sorted(found)} for {count} texts")
        except (KeyError, TypeError, ValueError) as error:
            raise EmbeddingError(
                f"{self._who} answered something else than embeddings ({error}): {str(answer)[:SHOWN]}"
            ) from error
        usage = answer.get("usage") or {}
        tokens = int(usage.get("total_tokens") or usage.get("prompt_tokens") or estimated)
        with self._counting:
            sent = self.usage
            cost = None if sent.cost is None else sent.cost + tokens * (self.price or 0) / _MILLION
            self.usage = Usage(sent.requests + 1, sent.tokens + tokens, cost)
        return [found[row] for row in range(count)]

    @cached_property
    def _client(self) -> httpx.Client:
        return remote.client_of(self, self._api_key)


_DEFAULTS = {"max_request_tokens": 100_000, "timeout": 60, "attempts": 5, "cache": True}
_STORED = (
    *("base_url", "encoding", "max_inputs", "max_request_tokens", "requests_per_minute", "tokens_per_minute"),
    *("parallel", "price", "timeout", "attempts", "cache", "max_tokens", "tokenizer"),
)


def only_model(url: str, url_from_database: bool = False) -> str:
    """Return the name of the one model that a service has."""
    address, variable = _address("openai", url)
    key = None if url_from_database and not _is_named(address) else remote.key_of(None, variable)
    client = remote.client_of(only_model, key)
    try:
        with client:
            listed = client.get(f"{address}/models", timeout=10)
        names = [str(each["id"]) for each in listed.json()["data"]] if listed.is_success else []
    except Exception as error:  # of transport, of JSON, of its shape
        raise EmbedderUnavailable(
            f"{address} does not say which models it has ({error}): name one, ?model=…"
        ) from error
    if listed.status_code in (401, 403):
        raise ConfigurationError(f"{address} wants a key: set {variable}; or name a model, ?model=…")
    if len(names) != 1:
        raise ConfigurationError(
            f"{address} has the models {', '.join(names) or '(it does not say)'}: name one, ?model=…"
        )
    return names[0]


def _address(service: str, base_url: str | None) -> tuple[str, str]:
    """Return the URL of a service, and the environment variable that holds its key.

    What a database says where a service is must not lead away a key that was meant for another one.
    """
    if service not in ("openai", "ollama"):
        raise ConfigurationError(f"there is no service {service!r}: use openai, with a base_url for all others")
    if base_url is not None:
        if remote.shown(remote.checked_url(base_url, "the base_url")) != base_url:
            raise ConfigurationError(f"the base_url is stored, so it holds no password or key: set {API_KEY}")
        url = base_url.rstrip("/").removesuffix("/embeddings")
        return url, "OPENAI_API_KEY" if url == _OPENAI else API_KEY
    if service == "openai":
        url = os.environ.get("OPENAI_BASE_URL") or _OPENAI
        return remote.checked_url(url, "OPENAI_BASE_URL").rstrip("/"), "OPENAI_API_KEY"
    url = _ollama(os.environ.get("OLLAMA_HOST") or "localhost")
    return url.rstrip("/").removesuffix("/v1") + "/v1", API_KEY


def _ollama(host: str) -> str:
    """Return the URL of what Ollama calls its host: a URL, or a host that may have a port."""
    if "://" in host:
        return remote.checked_url(host, "OLLAMA_HOST")
    url = urlsplit(remote.checked_url(f"http://{host}", "OLLAMA_HOST"))
    return url.geturl() if url.port else url._replace(netloc=f"{url.netloc}:{_OLLAMA_PORT}").geturl()


def _is_named(url: str) -> bool:
    """Return whether the environment names a service, as one that the key is for."""
    named = os.environ.get(KEY_GOES_TO)
    if not named:
        return False
    ours = urlsplit(remote.checked_url(named, KEY_GOES_TO))
    asked = urlsplit(url)
    return (ours.scheme, ours.netloc) == (asked.scheme, asked.netloc)


def _short(answer: str) -> str:
    return " ".join(answer[:SHOWN].split())


def _vector(embedding: Any) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
    vector = np.asarray(embedding, dtype=np.float32)
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"an embedding of shape {vector.shape}")
    return vector
