"""A bash whose `pgvec` the test itself runs, and files of examples run by it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pgvec_toolkit.cli import main

from tests.integration.examples import examples, psql

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
COMMANDS = Path(sys.executable).parent


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
        environment = os.environ | {"PATH": f"{self.folder}:{COMMANDS}:{os.environ['PATH']}"}
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


def run_examples(file: str, dsn: str, shell: Shell) -> dict[str, Any]:
    """Run the examples of a file, compare what they print with what it says, and return the names of the Python ones.

    ```python, ```bash and ```sql blocks are run, a ```text block is the output of the one before it; ```sh blocks
    are for reading (they install, or name servers that are not there).
    """
    namespace: dict[str, Any] = {}
    ran = set()
    for example in examples(file):
        where = f"{file}, line {example.line}"
        if example.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(example.text, where, "exec", dont_inherit=True), namespace)  # not the futures of this file
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
    return namespace
