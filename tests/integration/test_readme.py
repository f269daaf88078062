"""The README's examples, run one after the other; where it shows output, that is what comes out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.examples import ROOT
from tests.integration.shell import COMMANDS, Shell, run_examples


@pytest.fixture
def shell(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, commands_made_once: None) -> Shell:
    del commands_made_once
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PGVEC_DSN", dsn)
    monkeypatch.setattr(sys, "argv", sys.argv)  # what it is in the end, too
    return Shell(tmp_path)


def test_the_shell_is_honest(shell: Shell) -> None:
    words = '"" "two words" \'{"a": "$b"}\''
    done = shell.run(
        f"pgvec nonsense {words} || echo $?; pgvec collection list --json | tr '[]' '()'; pgvec search; echo no"
    )
    assert done.stdout == "2\n()\n"
    assert done.returncode == 2
    assert done.stderr.count("Usage: ") == 2
    assert shell.ran[0][0] == ["nonsense", "", "two words", '{"a": "$b"}']


@pytest.mark.embedding
@pytest.mark.skipif(not find_spec("sentence_transformers"), reason="the README's examples embed text")
def test_the_examples_run_and_print_what_the_readme_says(dsn: str, shell: Shell) -> None:
    names = run_examples("README.md", dsn, shell)
    names["db"].close()
    names["engine"].dispose()

    # One of them as a process of its own, which loads the model itself.
    arguments, expected = next((each, out) for each, out in shell.ran if each[0] == "search")
    alone = subprocess.run([COMMANDS / "pgvec", *arguments], capture_output=True, text=True)
    assert (alone.returncode, alone.stdout) == (0, expected), alone.stderr


SHOP = ROOT / "examples" / "shop"


@pytest.mark.embedding
@pytest.mark.skipif(not find_spec("sentence_transformers"), reason="the shop embeds what it sells")
def test_the_examples_of_the_shop_run(dsn: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHOP)
    monkeypatch.syspath_prepend(str(SHOP))
    before = set(sys.modules)
    try:
        session = run_examples("examples/shop/README.md", dsn, shell)["session"]
        session.close()
        answer = asyncio.run(_asked("/search", text="sleep outside in winter", colour="blue", below=150, k=3))
        assert [each["sku"].endswith("-BLUE") for each in answer] == [True] * 3
    finally:
        sys.modules["database"].engine.dispose()
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == SHOP:
                del sys.modules[name]


async def _asked(path: str, **parameters: Any) -> Any:
    """Ask the shop's application."""
    from api import app, engine  # type: ignore[import-not-found]  # of the shop

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        answer = await client.get(path, params=parameters)
    await engine.dispose()
    assert answer.status_code == 200, answer.text
    return answer.json()
