"""Services over HTTP: requests that are repeated while a service is busy, after as long as it asks to wait."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from pgvec_toolkit.errors import ConfigurationError, MissingDependency

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

SHOWN = 200  # characters of an answer that an error tells
_PATIENCE = 60.0  # seconds that are waited between attempts, all in all, where there is no budget
_Answer = TypeVar("_Answer")


class Busy(Exception):
    """An attempt that may be repeated.

    Attributes:
        wait: seconds that the service asked to wait before.
        status: of its answer; 0: there was none.
        body: what it answered.
        attempts: how many were made.
    """

    def __init__(self, problem: str, wait: float = 0, status: int = 0, body: str = "") -> None:
        super().__init__(problem)
        self.wait = wait
        self.status = status
        self.body = body
        self.attempts = 1


def shown(url: str) -> str:
    """Return a URL without what may be secret: a password, or a key in the query string."""
    parts = _split(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def checked_url(url: str, what: str) -> str:
    """Return a URL if it can be that of a service.

    Args:
        url: as it was given.
        what: where it was given, for the error.
    """
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(f"{what} is no URL of a service: it begins with http:// or https://, and a host")
    return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # is read now
    except ValueError:  # which may quote a password
        raise ConfigurationError("the URL of a service is written wrong: check its host and port") from None
    return parts


def key_of(given: str | None, variable: str) -> str | None:
    """Return a key that was given, or that an environment variable holds, as a header can carry it; None if none is.

    Raises:
        ConfigurationError: it is no key. What would refuse it later has it in its message.
    """
    key = (given or os.environ.get(variable) or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the API key, given or in {variable}, has characters that no key has: set it anew")
    return key or None


def client_of(owner: object, api_key: str | None) -> httpx.Client:
    """Return a client that sends the key as a bearer token, and is closed when its owner is gone."""
    try:
        import httpx
        import tenacity  # noqa: F401
    except ImportError as error:
        raise MissingDependency("httpx or tenacity", "http") from error
    client = httpx.Client(headers={"Authorization": f"Bearer {api_key}"} if api_key else None)
    weakref.finalize(owner, client.close)
    return client


def repeated(
    attempt: Callable[[], _Answer],
    attempts: int,
    seconds: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> _Answer:
    """Return what an attempt returns; it is repeated while it raises Busy.

    Args:
        attempt: may take as long as it likes, where there is no budget.
        attempts: how many are made at most.
        seconds: budget of all of them, and of what is waited between them; None: only waiting is bounded.
        sleep: waits for seconds.
    """
    import tenacity

    too_late = _waited_enough if seconds is None else tenacity.stop_before_delay(seconds)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Busy),
        stop=lambda state: state.attempt_number >= attempts or too_late(state),
        wait=_wait,
        sleep=sleep,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except Busy as error:
        error.attempts = retrying.statistics["attempt_number"]
        raise


def post(client: httpx.Client, url: str, request: Any, timeout: float) -> httpx.Response:
    """Return the answer to a request, whatever its status but 429 and 5xx.

    Raises:
        Busy: the service answered 429 or 5xx, or cannot be reached.
        TimeoutError: it did not answer in time.
    """
    import httpx

    try:
        response = client.post(url, json=request, timeout=timeout)
    except httpx.TimeoutException as error:
        raise TimeoutError(f"did not answer within {timeout:.3g} s") from error
    except httpx.TransportError as error:
        raise Busy(f"cannot be reached ({error})") from error
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{shown(url)} is not a URL: {error}") from error
    if response.status_code == 429 or response.status_code >= 500:
        raise Busy(f"answered {response.status_code}", retry_after(response), response.status_code, response.text)
    return response


def retry_after(response: httpx.Response) -> float:
    """Return the seconds of a header Retry-After, which has a number or a date; 0 if there is none."""
    header = response.headers.get("Retry-After")
    if header is None:
        return 0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return 0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _waited_enough(state: RetryCallState) -> bool:
    return state.idle_for + state.upcoming_sleep >= _PATIENCE


def _wait(state: RetryCallState) -> float:
    """Return how long to wait: what the service asked for, at least a little, doubled with each attempt."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, Busy) else 0
    return max(asked, 0.25 * 2.0 ** (state.attempt_number - 1))
