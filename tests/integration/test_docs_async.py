"""The examples of docs/async.md are run, in order, and print what it says; its application answers."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import anyio
import pytest

from tests.integration.examples import examples


def test_the_examples_of_async_run(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVEC_DSN", dsn)
    namespace: dict[str, Any] = {}
    for example in examples("docs/async.md"):
        assert example.language == "python"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.text, f"docs/async.md, line {example.line}", "exec"), namespace)
        assert printed.getvalue() == (example.output or "")
    app = namespace["app"]

    async def answer() -> Any:
        from httpx import ASGITransport, AsyncClient

        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app), base_url="http://docs") as client,
        ):
            return (await client.get("/near", params={"x": 1, "y": 1, "k": 2})).json()

    assert anyio.run(answer) == [{"id": "1", "distance": 0.0}, {"id": "2", "distance": 0.051}]
