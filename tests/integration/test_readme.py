"""The README's examples, run one after the other; where it shows output, that is what comes out.

```python, ```bash and ```sql blocks are run, a ```text block is the output of the one before it; ```sh blocks
are for reading (they install, or name servers that are not there).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pgvec_toolkit.cli import main

from tests.integration.examples import ROOT, examples, psql

# What bash finds as `pgvec`: each process would load torch and the model anew, so it has the test run main().
STAND_IN = """#!{python} -IS
import json, socket, sys
with socket.socket(socket.AF_UNIX) as test:
    test.connect({address!r})
    test.sendall(json.dumps(sys.argv[1:]).encode())
    test.shutdown(socket.SHUT_WR)
    out, err, code = json.loads(b"".join(iter(lambda: test.recv(65536), b"")))
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""
PGVEC = str(Path(sys.executable).parent / "pgvec")


def run_main(arguments: list[str]) -> tuple[str, str, Any]:
    """Run main() as the console script does; returns standard output, standard error and exit code."""
    sys.argv = ["pgvec", *arguments]
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return out.getvalue(), err.getvalue(), code


class Shell:
    """bash with a `pgvec` that this process runs.

    Attributes:
        ran: arguments and standard output of all that it ran.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, str(folder / "socket")
        self.ran: list[tuple[list[str], str]] = []
        script = folder / "pgvec"
        script.write_text(STAND_IN.format(python=sys.executable, address=self.address))
        script.chmod(0o755)

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        with ThreadPoolExecutor(1) as elsewhere, socket.socket(socket.AF_UNIX) as listener:
            Path(self.address).unlink(missing_ok=True)
            listener.bind(self.address)
            listener.listen()
            done = elsewhere.submit(self._bash, text)
            while (arguments := self._serve(listener)) is not None:
                self.ran.append(arguments)
            return done.result()

    def _bash(self, text: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        command = ["bash", "-euo", "pipefail", "-s"]
        try:
            return subprocess.run(command, input=text, env=environment, capture_output=True, text=True)
        finally:
            with socket.socket(socket.AF_UNIX) as end:  # asks for nothing
                end.connect(self.address)

    def _serve(self, listener: socket.socket) -> tuple[list[str], str] | None:
        with listener.accept()[0] as command:
            received = b"".join(iter(lambda: command.recv(65536), b""))
            if not received:
                return None
            answer = run_main(json.loads(received))
            command.sendall(json.dumps(answer).encode())
            return json.loads(received), answer[0]


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
    namespace: dict[str, object] = {}
    ran = set()
    for example in examples("README.md"):
        where = f"README.md, line {example.line}"
        if example.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(example.text, where, "exec"), namespace)
            output = printed.getvalue()
        elif example.language in ("bash", "sql"):
            command = psql(dsn, "-v", "ON_ERROR_STOP=1", "-f", "-")
            if example.language == "bash":
                done = shell.run(example.text)
            else:
                done = subprocess.run(command, input=example.text, capture_output=True, text=True)
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

    # One of them as a process of its own, which loads the model itself.
    arguments, expected = next((each, out) for each, out in shell.ran if each[0] == "search")
    alone = subprocess.run([PGVEC, *arguments], capture_output=True, text=True)
    assert (alone.returncode, alone.stdout) == (0, expected), alone.stderr
