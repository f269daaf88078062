"""PostgreSQL 18 with pgvector, started on demand in the user's data directory.

It is a PostgreSQL like any other, but nobody has to install or administer it: the first
`start` creates the database, later ones join the server that runs, and it goes on running
when the program that started it ends. It listens on a Unix socket only, in a private
folder and with a random password, so no other user of the machine gets in.

    home/                 $PGVEC_HOME, or the user's data directory
        data/             the database cluster; data/pgvec.local.conf may hold your own settings
        run/              the socket (elsewhere when the path would be too long for one)
        log/              the server's log
        pgpass            the password, readable to the owner only
        lock              held by whoever starts the server, then by the server

The file `lock` says who may act. A starter takes it and hands it down to the server, and
every process of the server holds it until the last one has ended: whoever gets the lock
knows that nothing of the server is left, whatever postmaster.pid says.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pgvec_toolkit.embedded.files import check_home, make_home, make_private, size_of, write_private
from pgvec_toolkit.embedded.programs import (
    Account,
    server_account,
    usable_binaries,
    wheel_binaries,
    wheel_version,
)
from pgvec_toolkit.embedded.settings import Machine, from_text, settings_for, to_text
from pgvec_toolkit.errors import ServerError

ROLE = DATABASE = "pgvec"
_PORT = 5432
_LONGEST_SOCKET_PATH = 103  # bytes: 107 on Linux, 103 on macOS
_ELSEWHERE = 0  # what the kernel answers for a process of another container
_TIMEOUT = 600  # seconds: recovery from a crash reads up to max_wal_size
_ORPHAN_TIMEOUT = 30  # seconds, for the processes of a killed server to notice
_INTERVAL = 0.02
_LOG_LIMIT = 10 * 2**20
_SETTINGS = "pgvec.conf"
_LOCAL_SETTINGS = "pgvec.local.conf"
_INCLUDES = f"\ninclude_if_exists = '{_SETTINGS}'\ninclude_if_exists = '{_LOCAL_SETTINGS}'\n"


def default_home() -> Path:
    """Return $PGVEC_HOME, or where this user's server lives when that is not set."""
    if chosen := os.environ.get("PGVEC_HOME"):
        return Path(chosen)
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/pgvec")
    from platformdirs import user_data_dir

    return Path(user_data_dir("pgvec", appauthor=False))


@dataclass(frozen=True)
class ServerStatus:
    """What is known of an embedded server.

    Attributes:
        pid: of the postmaster; None if the server does not run.
        size: bytes on disk; None before the first start.
        settings: those that pgvec chose at the last start; yours may override them.
    """

    home: Path
    data_directory: Path
    running: bool
    pid: int | None
    port: int
    socket_directory: Path
    server_version: str
    log_file: Path
    size: int | None
    settings: dict[str, str]


@dataclass(frozen=True)
class _Postmaster:
    """What a postmaster says of itself in postmaster.pid."""

    pid: int
    port: int
    socket_directory: Path
    ready: bool

    def listener(self) -> int | None:
        """Return the process that listens on its socket, or None if nobody does."""
        return _listener(self.socket_directory / f".s.PGSQL.{self.port}")


@dataclass(frozen=True)
class EmbeddedServer:
    """The PostgreSQL server that lives in `home`; any number of processes may share it."""

    home: Path = field(default_factory=default_home)

    def __post_init__(self) -> None:
        # All processes must agree on the path, and the server does not run in our folder.
        object.__setattr__(self, "home", Path(self.home).expanduser().resolve())

    @property
    def data_directory(self) -> Path:
        """The database cluster (PGDATA)."""
        return self.home / "data"

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.home / "log" / "postgres.log"

    @property
    def password_file(self) -> Path:
        """The password, in the format of ~/.pgpass."""
        return self.home / "pgpass"

    @property
    def conninfo(self) -> str:
        """The libpq connection string; the password stays in the file that it names."""
        postmaster = self._postmaster()
        where = postmaster.socket_directory if postmaster else self._socket_directory()
        port = postmaster.port if postmaster else _PORT
        # Empty, because PGPASSWORD in the environment would win over the file.
        return f"host='{where}' port={port} user={ROLE} dbname={DATABASE} password='' passfile='{self.password_file}'"

    def start(self) -> str:
        """Start the server unless it runs, and return its `conninfo`."""
        check_home(self.home)
        if not (self._running() and self.password_file.exists()):
            try:
                self._start_or_join(server_account())
            except OSError as error:
                raise ServerError(f"{self.home} cannot be used: {error}; choose another PGVEC_HOME") from None
        return self.conninfo

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server if it runs, and return when the last of its processes has ended.

        `smart` waits until all clients have disconnected, `fast` disconnects them, and after
        `immediate` the next start has to recover.
        """
        code = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        check_home(self.home)
        if not self.home.exists():
            return
        with self._open_lock() as lock:
            if (postmaster := self._wait_for(lock)) is None:
                return
            listener = postmaster.listener()
            if listener not in (postmaster.pid, None):
                raise ServerError(f"the server of {self.home} runs in another container: stop it there")
            with suppress(ProcessLookupError):
                if listener is not None:  # else another process has just stopped it
                    os.kill(postmaster.pid, code)
            deadline = time.monotonic() + _TIMEOUT
            while not _try_lock(lock):
                latest = self._postmaster()
                if latest and latest.pid != postmaster.pid:  # it ended, and another process started a new one
                    return
                if time.monotonic() > deadline:
                    raise self._failure(f"PostgreSQL (process {postmaster.pid}) does not stop")
                time.sleep(_INTERVAL)

    def status(self) -> ServerStatus:
        """Describe the server, whether it runs or not."""
        check_home(self.home)
        postmaster = self._running()
        try:
            settings = from_text((self.data_directory / _SETTINGS).read_text())
        except OSError:
            settings = {}
        return ServerStatus(
            home=self.home,
            data_directory=self.data_directory,
            running=postmaster is not None,
            pid=postmaster.pid if postmaster else None,
            port=postmaster.port if postmaster else _PORT,
            socket_directory=postmaster.socket_directory if postmaster else self._socket_directory(),
            server_version=wheel_version(),
            log_file=self.log_file,
            size=size_of(self.data_directory) if self.data_directory.exists() else None,
            settings=settings,
        )

    def binary(self, name: str) -> Path:
        """Return the path of one of PostgreSQL's programs, such as psql or pg_dump."""
        path = wheel_binaries() / name
        if not path.is_file():
            raise ServerError(f"there is no program {name!r} in {path.parent}")
        return path

    # Who runs

    def _postmaster(self) -> _Postmaster | None:
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
            return _Postmaster(int(lines[0]), int(lines[3]), Path(lines[4]), lines[7].strip() == "ready")
        except (OSError, ValueError, IndexError):  # absent, or not yet complete
            return None

    def _running(self) -> _Postmaster | None:
        """Return the postmaster if it accepts connections."""
        postmaster = self._postmaster()
        # The file may be left over from a crash, and its number may be another program's by now.
        alive = postmaster and postmaster.ready and postmaster.listener() in (postmaster.pid, _ELSEWHERE)
        return postmaster if alive else None

    @contextmanager
    def _open_lock(self) -> Iterator[int]:
        lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lock
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> _Postmaster | None:
        """Return the server once it is ready, or None with the lock held: nothing of a server is left."""
        began = time.monotonic()
        while (running := self._running()) is None:
            if _try_lock(lock):
                return None
            waited = time.monotonic() - began
            silent = self._postmaster()
            if silent and silent.ready and waited > _ORPHAN_TIMEOUT:
                raise self._failure(
                    f"PostgreSQL (process {silent.pid}) does not answer in {silent.socket_directory}: it was "
                    "killed, or its socket deleted. End its processes with kill -INT and try again; "
                    f"fuser -v {self.home}/lock lists them"
                )
            if waited > _TIMEOUT:
                raise self._failure("another process has been starting or stopping PostgreSQL for too long")
            time.sleep(_INTERVAL)
        return running

    # Starting

    def _start_or_join(self, account: Account) -> None:
        make_home(self.home, account)
        with self._open_lock() as lock:
            if self._wait_for(lock) is None:
                self._launch(account, usable_binaries(self.home, account), lock)
            elif not self.password_file.exists():
                raise ServerError(f"{self.password_file} is gone: stop the server and start it again")

    def _launch(self, account: Account, binaries: Path, lock: int) -> None:
        """Start the server; we hold the lock, so every trace of an earlier one is a leftover."""
        sockets = self._socket_directory()
        for leftover in self.home.glob("*.tmp-*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()
        for folder in (sockets, self.log_file.parent):
            make_private(folder, account)
        # PostgreSQL takes them for a running server if their process number is another program's by now.
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        (sockets / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)

        if not self.data_directory.exists():
            self._initialise(account, binaries, lock)
        elif not self.password_file.exists():
            password = secrets.token_urlsafe(32)
            sql = f"ALTER ROLE {ROLE} PASSWORD '{password}'"
            self._run_alone(account, binaries, self.data_directory, sql, lock)
            self._save_password(password)
        write_private(self.data_directory / _SETTINGS, to_text(self._settings(sockets)), account)
        if self._log_size() > _LOG_LIMIT:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        before = self._log_size()
        options = ("-w", "-s", "-t", str(_TIMEOUT), "-D", self.data_directory, "-l", self.log_file)
        status, output = account.run(binaries / "pg_ctl", "start", *options, keep_open=lock)
        # It may have been ready, and stopped by another process before pg_ctl looked.
        if status and "ready to accept connections" not in self._log_end(before):
            raise self._failure("PostgreSQL does not start", output, before)

    def _initialise(self, account: Account, binaries: Path, lock: int) -> None:
        """Create the cluster elsewhere and move it into place when it is complete."""
        draft = Path(tempfile.mkdtemp(prefix="data.tmp-", dir=self.home))
        try:
            account.own(draft)
            password = secrets.token_urlsafe(32)
            write_private(draft / "password", password, account)
            data = draft / "data"
            options = (
                *("-D", data, "-U", ROLE, f"--pwfile={draft / 'password'}"),
                *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--encoding=UTF8"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
            )
            status, output = account.run(binaries / "initdb", *options, keep_open=lock)
            if status:
                raise self._failure("initdb cannot create the database", output)
            self._run_alone(account, binaries, data, f"CREATE DATABASE {DATABASE}", lock)
            main = data / "postgresql.conf"
            write_private(main, main.read_text() + _INCLUDES, account)
            write_private(data / _LOCAL_SETTINGS, f"# Yours: overrides {_SETTINGS}\n", account)
            self._save_password(password)
            data.rename(self.data_directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _run_alone(self, account: Account, binaries: Path, data: Path, sql: str, lock: int) -> None:
        """Run one statement in a cluster that no server runs on; it asks for no password."""
        command = (binaries / "postgres", "--single", "-D", data, "-c", "exit_on_error=on", "postgres")
        status, output = account.run(*command, text=f"{sql}\n", keep_open=lock)
        if status:
            raise self._failure(f"PostgreSQL cannot prepare {data}", output)

    def _save_password(self, password: str) -> None:
        write_private(self.password_file, f"*:*:*:{ROLE}:{password}\n")

    def _settings(self, sockets: Path) -> dict[str, str]:
        private = {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(sockets),
            "unix_socket_permissions": "0700",
            "cluster_name": "pgvec",
            # Without "$user": the role is called pgvec, as our schema is, and tables would land in there.
            "search_path": "public",
        }
        return private | settings_for(Machine.measure(), os.environ.get("PGVEC_SHARED_BUFFERS"))

    def _socket_directory(self) -> Path:
        """Return home/run, or a folder in /tmp when a socket's path would be too long.

        Not in $XDG_RUNTIME_DIR: that is deleted when the user logs out, while the server goes on.
        """
        ordinary = self.home / "run"
        if len(os.fsencode(ordinary / f".s.PGSQL.{_PORT}")) <= _LONGEST_SOCKET_PATH:
            return ordinary
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(f"/tmp/pgvec-{os.geteuid()}-{digest}")

    # When it goes wrong

    def _log_size(self) -> int:
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def _log_end(self, since: int = 0) -> str:
        """Return the end of the log, from byte `since` at the earliest."""
        size = self._log_size()
        if size <= since:
            return ""
        with self.log_file.open("rb") as file:
            file.seek(max(size - 4096, since))
            return file.read().decode(errors="replace").strip()

    def _failure(self, what: str, output: str = "", since: int = 0) -> ServerError:
        """Compose an error from what a program printed and the end of the log."""
        log = self._log_end(since)
        shown = f"The end of {self.log_file}:\n{log}" if log else f"Its log is {self.log_file}."
        advice = ""
        if "shared memory" in log:
            advice = "If memory is short, set PGVEC_SHARED_BUFFERS to a small value such as 128MB."
        return ServerError("\n".join(filter(None, (f"{what}.", output, shown, advice))))


def _listener(path: Path) -> int | None:
    """Return the process that listens on a Unix socket, or None if nobody does."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except OSError:
            return None
        if sys.platform == "linux":
            pid: int = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return pid
        else:
            return client.getsockopt(0, 2)  # SOL_LOCAL, LOCAL_PEERPID of macOS


def _try_lock(file: int) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
