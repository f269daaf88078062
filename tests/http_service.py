"""An HTTP service on this machine, spoken to over a real socket: what it was asked, and what it is to answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], Any]  # status, headers, body


class HttpService:
    """A service; what it answers of its own is for its subclasses to say.

    Attributes:
        requests: bodies of POST requests.
        headers: of these.
        answers: given first, one a request.
        before: is called with each request.
        url: without a path.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Answer] = []
        self.before: Callable[[], object] = lambda: None
        self.url = ""

    def post(self, path: str, request: dict[str, Any]) -> Answer:
        raise NotImplementedError

    def get(self) -> Answer:
        return 404, {}, "no such page"

    def posted(self, path: str, request: dict[str, Any], headers: dict[str, str]) -> Answer:
        self.requests.append(request)
        self.headers.append(headers)
        self.before()
        return self.answers.pop(0) if self.answers else self.post(path, request)


@contextmanager
def served(service: HttpService) -> Iterator[None]:
    """Have a service answer while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send(service.posted(self.path, request, dict(self.headers)))

        def do_GET(self) -> None:
            self.send(service.get())

        def send(self, answer: Answer) -> None:
            status, headers, body = answer
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # who asked may have had no patience
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Time:
    """Passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
