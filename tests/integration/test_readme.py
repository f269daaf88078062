"""The README's examples, run one after the other; where it shows output, that is what comes out.

```python, ```bash and ```sql blocks are run, a ```text block is the output of the one before it; ```sh blocks
are for reading (they install, or name servers that are not there).
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.examples import ROOT, examples, psql

pytest.importorskip("sentence_transformers", reason="the README's examples embed text")


@pytest.mark.embedding
def test_the_examples_run_and_print_what_the_readme_says(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    environment = os.environ | {"PGVEC_DSN": dsn, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    monkeypatch.setenv("PGVEC_DSN", dsn)
    commands = {
        "bash": ["bash", "-euo", "pipefail", "-s"],
        "sql": psql(dsn, "-v", "ON_ERROR_STOP=1", "-f", "-"),
    }
    namespace: dict[str, object] = {}
    ran = set()
    for example in examples("README.md"):
        where = f"README.md, line {example.line}"
        if example.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(example.text, where, "exec"), namespace)
            output = printed.getvalue()
        elif example.language in commands:
            done = subprocess.run(
                commands[example.language], input=example.text, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{where}: {done.stderr}"
            output = done.stdout
        else:
            assert example.language == "sh", f"{where}: what is a ```{example.language} block?"
            continue
        ran.add(example.language)
        if example.output is not None:
            assert output == example.output, where
    assert ran == {"python", "bash", "sql"}
    namespace["db"].close()  # type: ignore[attr-defined]
