"""Work that goes on while something else is tried."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Fire:
    """Threads that go on until the block ends, and what went wrong in them."""

    def __init__(self, *loops: Callable[[int], None]) -> None:
        self.rounds = [0] * len(loops)
        self.failures: list[BaseException] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number, loop)) for number, loop in enumerate(loops)]

    def _run(self, number: int, loop: Callable[[int], None]) -> None:
        try:
            while not self._end.is_set():
                loop(self.rounds[number])
                self.rounds[number] += 1
        except BaseException as error:
            self.failures.append(error)

    def __enter__(self) -> Fire:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
