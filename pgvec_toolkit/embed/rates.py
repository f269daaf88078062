"""What a service is asked for: limits a minute, and the sum of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_MINUTE = 60.0


@dataclass(frozen=True)
class Usage:
    """What a service was asked for.

    Attributes:
        requests: that it answered.
        tokens: of them, as it counts, or estimated if it does not say.
        cost: of the tokens; None if no price was given.
    """

    requests: int = 0
    tokens: int = 0
    cost: float | None = None


class Limiter:
    """Keeps requests and tokens of the last minute below limits, by waiting; threads may share it.

    Args:
        requests: a minute; None: any number.
        tokens: a minute; None: any number. A request of more waits until it is the only one.
        clock: returns seconds.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = requests
        self._tokens = tokens
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Wait until a request of some tokens may be sent, and count it."""
        if self._requests is None and self._tokens is None:
            return
        while (rest := self._take(tokens)) > 0:
            self._sleep(rest)

    def _take(self, tokens: int) -> float:
        """Count a request and return 0, or return for how long there is no room for it."""
        with self._lock:
            now = self._clock()
            while self._sent and self._sent[0][0] <= now - _MINUTE:
                self._sent.popleft()
            full = self._requests is not None and len(self._sent) >= self._requests
            over = self._tokens is not None and sum(count for _, count in self._sent) + tokens > self._tokens
            if self._sent and (full or over):
                return self._sent[0][0] + _MINUTE - now
            self._sent.append((now, tokens))
            return 0
