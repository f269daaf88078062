"""Batches written over several connections at once, and committed in the order in which they came.

What is written is at any moment the batches up to one, whichever way the rest ends: a wrong row, Ctrl-C, a
kill, a restart of the server. A batch that is done before its predecessor waits for it, its transaction open.
Two things could make these two wait for each other for good:

- both hold rows of the same id: the second is started only when the first is committed (the last one counts);
- the first waits for a lock, which the second may hold, or somebody who waits for the second: a trigger that
  counts in one row, another loader. Then the second is undone, and written again when its turn has come.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import psycopg

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.batch import Batch
from pgvec_toolkit.ingest.load import Written
from pgvec_toolkit.pool import Connection, Pool

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_PATIENCE = 0.25  # seconds until a batch that waits for its turn asks whether it is in the way
_CANCEL_AGAIN = 0.5  # seconds: what was between two statements was not cancelled, and may wait in the next one
# Those for room in a file are given back at once.
_WAITS = (
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = ANY (%s) AND NOT granted"
    " AND locktype NOT IN ('extend', 'page'))"
)


class _GaveWay(Exception):
    """The transaction is undone, for an earlier one waits for a lock that it may hold."""


class _Abandoned(Exception):
    """The batch is not written, or its transaction undone: an earlier one has failed, or the load was interrupted."""


def connections_for(pool: Pool, wanted: int | None) -> int:
    """Return how many connections to write on: as many as wanted, or what is fastest without being asked.

    The server has one process a connection, which is busy for most of a load; the client feeds two easily. One of the
    pool is left for the iterator of the records, which may read from the same database.
    """
    if wanted is None:
        return min(2, os.cpu_count() or 1, max(1, pool.most - 1)) if pool.keeps_sessions else 1
    if wanted > 1 and not pool.keeps_sessions:
        raise ConfigurationError(
            f"connections is {wanted}: behind a transaction pooler (prepare_threshold=None) there can be 1, for of two "
            "transactions that wait for each other it may have a server connection for one"
        )
    if not 1 <= wanted <= pool.most:
        raise ConfigurationError(
            f"connections is {wanted}: it must be from 1 to {pool.most}, the size of the pool (connect(max_size=…))"
        )
    return wanted


@dataclass(eq=False)
class Job:
    """A batch that is being written.

    Attributes:
        batch: as it was submitted.
        connection: on which it is written.
        prepared: what `write` makes of it first; kept, should it be written a second time.
        ids: of its rows.
        earlier: those that are to be committed before.
        abandoned: whether nothing more is to be written.
        future: what came of it.
    """

    batch: Batch
    connection: Connection
    ids: frozenset[str]
    earlier: tuple[Job, ...]
    abandoned: Event
    future: Future[Written] = field(default_factory=Future)
    prepared: Sequence[Batch] | None = None

    def check(self) -> None:
        """End here if it is not to be written any more; to be called where much time has passed, or is about to."""
        if self.abandoned.is_set():
            raise _Abandoned

    def take_turn(self) -> None:
        """Wait until all earlier batches are committed; to be called in a transaction, last of all."""
        while not self._is_next(_PATIENCE):
            waiting = [job.connection.info.backend_pid for job in self.earlier]
            row = self.connection.execute(_WAITS, [waiting]).fetchone()
            if row == (True,):
                raise _GaveWay

    def wait(self) -> None:
        """Wait for the turn without a transaction."""
        self._is_next(None)

    def _is_next(self, timeout: float | None) -> bool:
        self.check()
        if not self.earlier:
            return True
        before = self.earlier[-1].future
        wait([before], timeout)
        if not before.done():
            return False
        if before.exception() is not None:
            raise _Abandoned
        return True


class InOrder:
    """Writes batches, some at once; to be used as a context manager, by one thread.

    Args:
        pool: where connections are borrowed, one for each batch that is being written, and kept to the end.
        connections: how many batches are written at once.
        write: writes a batch in one transaction, at the end of which it has the job take its turn, and commits.
        written: is called with each batch and what came of it, when it is committed, in their order.
    """

    def __init__(
        self,
        pool: Pool,
        connections: int,
        write: Callable[[Job], Written],
        written: Callable[[Batch, Written], None],
    ) -> None:
        self._pool = pool
        self._most = connections
        self._write = write
        self._written = written
        self._jobs: deque[Job] = deque()
        self._abandoned = Event()
        self._idle: list[Connection] = []
        self._borrowed = ExitStack()
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="pgvec-write")
        self._heed: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        # What is embedded or prepared now is finished; nothing is written thereafter.
        self._heed = self._borrowed.enter_context(self._pool.stopping(self._abandoned.set))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            # What stands before a wrong row, or what an iterator yielded before it failed, is still written.
            if error is None or isinstance(error, Exception):
                self._finish(0)
        except BaseException as earlier:
            self._abandon()
            self._borrowed.__exit__(type(earlier), earlier, earlier.__traceback__)
            raise
        else:
            self._abandon()
            return self._borrowed.__exit__(kind, error, trace)
        finally:
            self._threads.shutdown()

    def submit(self, batch: Batch) -> None:
        """Have a batch written; waits while as many as may be are being written, and for those with the same ids."""
        self._heed()
        ids = frozenset(batch.ids)
        self._finish(self._most - 1)
        while any(not ids.isdisjoint(job.ids) for job in self._jobs):
            self._finish(len(self._jobs) - 1)
        connection = self._idle.pop() if self._idle else self._borrowed.enter_context(self._pool.connection())
        job = Job(batch, connection, ids, tuple(self._jobs), self._abandoned)
        self._jobs.append(job)
        self._threads.submit(self._run, job)

    def _run(self, job: Job) -> None:
        try:
            try:
                done = self._write(job)
            except _GaveWay:
                job.wait()
                done = self._write(job)
        except BaseException as error:  # it is raised where the results are asked for
            job.future.set_exception(error)
        else:
            job.future.set_result(done)
        finally:
            job.earlier = ()  # or each batch would keep all before it in memory

    def _finish(self, left: int) -> None:
        """Wait for the oldest batches, until so many are left."""
        while len(self._jobs) > left:
            job = self._jobs[0]
            wait([job.future])
            self._heed()
            done = job.future.result()
            self._jobs.popleft()
            self._idle.append(job.connection)
            self._written(job.batch, done)

    def _abandon(self) -> None:
        """Stop what is still being written, and wait until it has stopped."""
        self._abandoned.set()
        while running := [job for job in self._jobs if not job.future.done()]:
            for job in running:
                with suppress(psycopg.Error):
                    job.connection.cancel_safe(timeout=5)
            wait([job.future for job in running], _CANCEL_AGAIN)
        self._jobs.clear()
