"""The examples of docs/orm.md are run, and print what it says."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from sqlalchemy import Engine

from tests.integration.examples import examples
from tests.integration.orm_shop import url
from tests.words import WordEmbedder


def test_the_examples_run(dsn: str) -> None:
    namespace: dict[str, Any] = {"__name__": "shop", "url": url(dsn), "embedder": WordEmbedder()}
    ran = 0
    try:
        for example in examples("docs/orm.md"):
            assert example.language == "python"
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(example.text, f"docs/orm.md, line {example.line}", "exec", dont_inherit=True), namespace)
            assert printed.getvalue() == (example.output or "")
            ran += 1
        assert ran == 6
    finally:
        if isinstance(engine := namespace.get("engine"), Engine):
            engine.dispose()
