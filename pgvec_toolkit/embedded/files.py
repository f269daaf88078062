"""The folder that an embedded server lives in, closed to other users."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pgvec_toolkit.embedded.programs import Account
from pgvec_toolkit.errors import ServerError


def check_home(home: Path) -> None:
    """Refuse a home that cannot work, or that others could tamper with; it need not exist yet."""
    if os.name != "posix":
        raise ServerError("there is no embedded PostgreSQL for Windows: set PGVEC_DSN to a server's address")
    # PostgreSQL's tools put paths between double quotes for a shell, and its settings have commas in lists.
    if unusable := set(str(home)) & set("\"'`$\\,\n"):
        raise ServerError(f"{home} contains {''.join(unusable)!r}: set PGVEC_HOME to a plainer path")
    try:
        found = home.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ServerError(f"{home} cannot be used: {error}; choose another PGVEC_HOME") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ServerError(f"{home} is not a folder: choose another PGVEC_HOME")
    if found.st_uid != os.geteuid():
        raise ServerError(f"{home} belongs to user #{found.st_uid}: choose another PGVEC_HOME")
    if found.st_mode & 0o022:
        raise ServerError(f"other users may write to {home}: chmod go-w it, or choose another PGVEC_HOME")


def make_home(home: Path, account: Account) -> None:
    """Create `home` and the folders above it where they are missing; leave those that exist as they are."""
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    existing = missing[-1].parent if missing else home
    if not account.can_enter(existing):
        time.sleep(0.2)  # another process may be between its mkdir and its chmod
        if not account.can_enter(existing):
            raise ServerError(
                f"PostgreSQL does not run as root, and its user {account.name!r} may not enter {existing}: "
                "set PGVEC_HOME to a folder that all users may pass through, such as /var/lib/pgvec"
            )
    for folder in reversed(missing):
        try:
            folder.mkdir(0o700 if account.is_current else 0o711)
        except FileExistsError:
            continue
        if not account.is_current:
            folder.chmod(0o711)  # whatever the umask


def make_private(folder: Path, account: Account) -> None:
    """Create a folder that only `account` may enter, or check that it is one."""
    try:
        folder.mkdir(0o700)
        account.own(folder)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
            raise ServerError(f"{folder} is not a folder that only user {account.name} may enter: remove it") from None


def write_private(path: Path, text: str, owner: Account | None = None) -> None:
    """Write a file that only its owner may read, at once or not at all."""
    file, draft = tempfile.mkstemp(prefix=f"{path.name}.tmp-", dir=path.parent)
    with os.fdopen(file, "w") as stream:
        stream.write(text)
        stream.flush()
        if owner:
            owner.own(file)
        os.fsync(file)
    os.replace(draft, path)


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder that may be changing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
