"""A process that turns office files into text.

The libraries that read such files run for minutes over a few of them, take gigabytes, print, warn, or end in a
segmentation fault. In a process of its own each of these costs one file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError, MissingDependency
from pgvec_toolkit.ingest.read.origin import Broken

SECONDS = 300.0  # for one file; environment variable PGVEC_READ_SECONDS
_NO_END = 1  # the exit code of faulthandler, when the time is over; Python's own for uncaught errors is the same
_SERVE = """
import os
try:
    from pgvec_toolkit.ingest.read.conversion import serve
    serve({seconds!r})
except BaseException:
    os._exit(70)
"""


class Converter:
    """Turns office files into text; as a context manager it ends its process, which starts with the first file."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = _seconds_given() if seconds is None else seconds
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Converter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, path: Path, kind: str) -> tuple[str, dict[str, Any]]:
        """Return text and fields of a file of one of the kinds that `conversion` knows.

        Raises:
            Broken: the file cannot be read.
        """
        process = self._running()
        try:
            answer = self._ask(process, json.dumps([str(path.resolve()), kind]))
        except BaseException:  # interrupted, it would answer the next question with this one's answer
            self.close()
            raise
        if not answer:
            raise Broken(self._epitaph())
        found = json.loads(answer)
        if "missing" in found:
            missing = MissingDependency(found["missing"], "files")
            raise Broken(f"cannot be read: {missing}", missing)
        if "broken" in found:
            raise Broken(found["broken"])
        return found["text"], found["fields"]

    def _ask(self, process: subprocess.Popen[str], question: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(question + "\n")
            process.stdin.flush()
        return process.stdout.readline()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            # What this process can import, that one can; -P: and nothing beside it from the current folder.
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE.format(seconds=self.seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        return self._process

    def _epitaph(self) -> str:
        """Say of what the process has died."""
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == _NO_END:
            return (
                f"cannot be read: after {self.seconds:g} seconds there was no end to it. Give it more time "
                "(PGVEC_READ_SECONDS), split it, or leave it out"
            )
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return (
            f"cannot be read: what reads it crashed ({how}). Save it anew in the program that made it, or leave it out"
        )

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            with self._process:  # closes its pipes and waits for it
                self._process = None


def _seconds_given() -> float:
    given = os.environ.get("PGVEC_READ_SECONDS") or str(SECONDS)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise ConfigurationError(f"PGVEC_READ_SECONDS is {given!r}: give a number of seconds, as 300")
    return seconds
