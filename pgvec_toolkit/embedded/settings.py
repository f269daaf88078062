"""What a machine can give, and the PostgreSQL settings that make good use of it for vectors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgvec_toolkit.errors import ConfigurationError

MB = 2**20
GB = 2**30

HEADER = """\
# Written by pgvec at each start of the server: changes made here are lost.
# Your own settings belong in pgvec.local.conf beside this file, which is read
# after it, or in ALTER SYSTEM SET ..., which is read last.
"""


@dataclass(frozen=True)
class Machine:
    """What the server may use of the machine or container it runs in.

    Attributes:
        memory: bytes of memory.
        cores: processors that this process may run on.
        shared_memory: free bytes in /dev/shm; None where POSIX shared memory has no such limit.
    """

    memory: int
    cores: int
    shared_memory: int | None

    @classmethod
    def measure(cls) -> Machine:
        """Measure this machine, within the limits of its control groups."""
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return cls(min([physical, *_cgroup_limits()]), cores, _free_shared_memory())


def _free_shared_memory() -> int | None:
    if sys.platform != "linux":
        return None
    try:
        volume = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return volume.f_bavail * volume.f_frsize


def _cgroup_limits() -> Iterator[int]:
    """Yield the memory limits of this process's control groups, v1 and v2, and of all their parents."""
    root = Path("/sys/fs/cgroup")
    try:
        memberships = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers == "":
            top, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        # In a container the path may be the host's: then only the top, which is always tried, exists.
        for level in {group, *group.parents, Path()}:
            try:
                yield int((top / level / name).read_text())
            except (OSError, ValueError):  # absent, or "max"
                continue


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def settings_for(machine: Machine, shared_buffers: str | None = None) -> dict[str, str]:
    """Return settings for a server that shares `machine` with the program that queries it.

    `shared_buffers` overrides the quarter of the memory that would be taken. Not set at all is
    wal_compression: the PostgreSQL of the wheel is built without lz4, and pglz costs more than it saves.
    """
    maintenance = _clamp(machine.memory // 12, 64 * MB, 2 * GB)
    # A parallel HNSW build takes one shared segment of maintenance_work_mem; containers
    # usually have 64 MB of /dev/shm, so there the segment becomes a file of the data directory.
    fits = machine.shared_memory is None or machine.shared_memory > maintenance
    quarter = _megabytes(_clamp(machine.memory // 4, 128 * MB, 8 * GB))
    return {
        "shared_buffers": _checked(shared_buffers) or quarter,
        "effective_cache_size": _megabytes(machine.memory * 6 // 10),
        "maintenance_work_mem": _megabytes(maintenance),
        "work_mem": _megabytes(_clamp(machine.memory // 256, 32 * MB, 64 * MB)),
        "dynamic_shared_memory_type": "posix" if fits else "mmap",
        "max_connections": "100",
        "max_worker_processes": str(machine.cores + 8),
        "max_parallel_workers": str(machine.cores),
        "max_parallel_workers_per_gather": str(_clamp(machine.cores // 2, 1, 4)),
        "max_parallel_maintenance_workers": str(_clamp(machine.cores - 1, 1, 16)),
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
    }


def _megabytes(size: int) -> str:
    return f"{size // MB}MB"


def _checked(size: str | None) -> str | None:
    if size and not re.fullmatch(r"\d+(kB|MB|GB)", size):
        raise ConfigurationError(f"PGVEC_SHARED_BUFFERS={size!r} is not a size such as 512MB (kB, MB or GB)")
    return size


def to_text(settings: dict[str, str]) -> str:
    """Write settings as a PostgreSQL configuration file; no value may contain a quote."""
    return HEADER + "".join(f"{name} = '{value}'\n" for name, value in settings.items())


def from_text(text: str) -> dict[str, str]:
    """Read back what `to_text` wrote."""
    return dict(re.findall(r"^(\w+) = '(.*)'$", text, re.MULTILINE))
