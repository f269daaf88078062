"""A pgbouncer in front of the tests' server, in the mode that lends a server connection for a transaction."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.conftest import _password

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def pgbouncer(dsn: str, folder: Path, *, size: int = 2) -> Iterator[str]:
    """Yield the DSN of a pooler with so many server connections, or skip the test where there is no pgbouncer."""
    if BINARY is None:
        pytest.skip("pgbouncer is not installed (apt install pgbouncer)")
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    folder.chmod(0o711)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "users.txt").write_text(f'"{parts["user"]}" "{_password(parts) or ""}"\n')
    (folder / "users.txt").chmod(0o644)
    server = " ".join(f"{name}={parts[name]}" for name in ("host", "port") if name in parts)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = {size}\n"
    )
    at = Path(parts.get("host", "")) / f".s.PGSQL.{parts.get('port', 5432)}"
    # It does not run as root, and the socket of the embedded server is for that one's user.
    user = ["-u", at.owner() if at.exists() else "nobody"] if os.getuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([BINARY, *user, str(folder / "pgbouncer.ini")], stdout=log, stderr=log)
    try:
        pooled = make_conninfo("", host="127.0.0.1", port=port, user=parts["user"], dbname=parts["dbname"])
        _wait_for(process, pooled, folder / "log")
        yield pooled
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], dsn: str, log: Path) -> None:
    for _ in range(5):
        assert process.poll() is None, log.read_text()
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.02)
    raise AssertionError(log.read_text())
