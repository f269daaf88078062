"""The README's examples, run one after the other; where it shows output, that is what comes out.

```python, ```bash and ```sql blocks are run, a ```text block is the output of the one before it; ```sh blocks
are for reading (they install, or name servers that are not there).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgvec_toolkit.embedded import EmbeddedServer

pytest.importorskip("sentence_transformers", reason="the README's examples embed text")
ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str | None]]:
    """Yield (language, text, expected output)."""
    found = [(match[1], match[2]) for match in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))]
    for (language, text), following in zip(found, [*found[1:], ("", "")], strict=True):
        if language != "text":
            yield language, text, following[1] if following[0] == "text" else None


@pytest.mark.embedding
def test_the_examples_run_and_print_what_the_readme_says(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    environment = os.environ | {"PGVEC_DSN": dsn, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    monkeypatch.setenv("PGVEC_DSN", dsn)
    psql = [EmbeddedServer().binary("psql"), dsn, "-X", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    namespace: dict[str, object] = {}
    ran = []
    for language, text, expected in blocks():
        if language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, "README.md", "exec"), namespace)
            output = printed.getvalue()
        elif language in ("bash", "sql"):
            command = ["bash", "-euo", "pipefail", "-s"] if language == "bash" else psql
            done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            output = done.stdout
        else:
            assert language == "sh", f"what is a ```{language} block?"
            continue
        ran.append(language)
        if expected is not None:
            assert output == expected
    assert {"python", "bash", "sql"} <= set(ran)
    namespace["db"].close()  # type: ignore[attr-defined]
