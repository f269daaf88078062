"""A worker: claims documents that changed, batch by batch, until it is told to stop.

All that it does it does in one session, which holds an advisory lock by the worker's number: when the session ends,
however it does, what it had claimed is anybody's.
"""

from __future__ import annotations

import os
import random
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.embed import kinds
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER, Embedder
from pgvec_toolkit.embed.registry import embedder_of, register
from pgvec_toolkit.errors import ConnectionFailed, EmbeddingError
from pgvec_toolkit.ingest.blame import reason
from pgvec_toolkit.ingest.chunk.chunking import Chunking
from pgvec_toolkit.ingest.documents import Ingestion
from pgvec_toolkit.ingest.load import Target
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.worker.attachment import Attachment, attachments
from pgvec_toolkit.worker.follower import Follower, Item, Worked
from pgvec_toolkit.worker.trouble import Kind, kind_of, pause

if TYPE_CHECKING:
    from psycopg import Notify

    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space

CHANNEL = "pgvec_queue"
_CHANGES_AT_ONCE = 2000
_BACKFILLED_AT_ONCE = 1000
_LONGEST_LEASE = 3600.0  # seconds: for so long may what a worker that hangs has claimed be nobody's


class Worker:
    """Follows tables.

    Attributes:
        done: what was done so far.
    """

    def __init__(
        self,
        database: Pool,
        collections: Sequence[str] | None = None,
        *,
        batch: int = 64,
        embedder: Embedder | None = None,
        poll: float = 1.0,
        lease: float = 300.0,
        waits: Callable[[int], float] = pause,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare a worker.

        Args:
            database: where it works.
            collections: whose tables it follows; None: all.
            batch: documents that are claimed, embedded and committed together.
            embedder: for collections whose model cannot be loaded by name.
            poll: seconds after which it looks for work, though nobody called it.
            lease: seconds after which others may take over what it has claimed, though its session is there. They begin
                anew with each part of a batch that is embedded, and are doubled when others did.
            waits: seconds to wait after so many attempts.
            say: is told what goes wrong.
        """
        self.done = Worked()
        self._database = database
        self._collections = None if collections is None else list(collections)
        self._batch, self._poll, self._lease, self._waits, self._say = batch, poll, lease, waits, say
        self._given = embedder
        self._ingestions: dict[int, tuple[tuple[object, ...], Ingestion]] = {}  # by attachment
        self._embedders: dict[str, Embedder] = {}  # loaded ones, by fingerprint
        self._resting: dict[int, tuple[float, int]] = {}  # attachment: until when, after how many failures
        self._last = 0  # the attachment that had its turn
        self._failures = 0  # sessions that ended without having done anything
        self._stopped = threading.Event()
        self._woken = False
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._ring, False)

    def stop(self) -> None:
        """End after the batch in work; from another thread, or a signal handler."""
        self._stopped.set()
        with suppress(BlockingIOError, OSError):
            os.write(self._ring, b"!")

    def close(self) -> None:
        """Close what `stop` rings with."""
        os.close(self._ring)
        os.close(self._bell)

    def run(self, *, once: bool = False) -> Worked:
        """Work until stopped; with `once`, until nothing is left that can be done now."""
        with self._database.stopping(self.stop):
            while not self._stopped.is_set():
                try:
                    with self._database.dedicated_connection() as connection:
                        self._session(connection, once)
                        break
                except (ConnectionFailed, psycopg.OperationalError, psycopg.InterfaceError) as error:
                    if once and self._failures >= 3:
                        raise
                    seconds = min(30.0, self._waits(self._failures))
                    self._failures += 1
                    self._say(f"{reason(error)}; connecting again in {seconds:.1f} s")
                    self._stopped.wait(seconds)
        return self.done

    def _session(self, connection: Connection, once: bool) -> None:
        worker = _numbered(connection)
        connection.add_notify_handler(self._notified)
        connection.execute(f"LISTEN {CHANNEL}")
        connection.execute("SET timezone = 'UTC'")  # in which a time without a zone is taken everywhere else
        while not self._stopped.is_set():
            found_work = self._step(connection, worker)
            self._failures = 0
            if not found_work:
                if once:
                    return
                self._sleep(connection)

    def _step(self, connection: Connection, worker: int) -> bool:
        """Do one batch of the table whose turn it is; return whether there was something to do."""
        try:
            folded = _number(connection, "SELECT pgvec._fold(%s)", [_CHANGES_AT_ONCE])
        except psycopg.Error as error:
            in_our_way = kind_of(error) in (Kind.LATER, Kind.UNKNOWN)  # another worker, or who detaches
            if connection.closed or not in_our_way:
                raise
            return True
        found = attachments(connection, self._collections)
        for attachment in sorted(found, key=lambda one: (one.id <= self._last, one.id)):
            until, _ = self._resting.get(attachment.id, (0.0, 0))
            self._last = attachment.id  # whatever becomes of it, others are next
            if time.monotonic() >= until and self._turn(connection, attachment, worker):
                return True
        return folded > 0

    def _turn(self, connection: Connection, attachment: Attachment, worker: int) -> bool:
        items: list[Item] = []
        try:
            items = self._claimed(connection, attachment, worker)
            if not items and attachment.backfilling:
                statement = "SELECT pgvec._backfill(%s, %s)"
                return _number(connection, statement, [attachment.id, _BACKFILLED_AT_ONCE]) > 0
            if not items:
                return False
            before, overtaken = self.done.documents, self.done.overtaken
            self._follower(connection, attachment, worker, items).follow(connection, items, self.done)
        except Exception as error:
            if connection.closed:
                raise
            self._rest(connection, attachment, worker, items, error)
            return True
        if self.done.overtaken > overtaken:
            self._lease = min(2 * self._lease, _LONGEST_LEASE)
        self._resting.pop(attachment.id, None)
        connection.execute("SELECT pgvec._count_work(%s, %s, NULL)", [attachment.id, self.done.documents - before])
        return True

    def _claimed(self, connection: Connection, attachment: Attachment, worker: int) -> list[Item]:
        rows = connection.execute(
            "SELECT id, document_id, version, attempts FROM pgvec._claim(%s, %s, %s, make_interval(secs => %s))",
            [attachment.id, worker, self._batch, self._lease],
        ).fetchall()
        return [Item(*row) for row in rows]

    def _rest(
        self, connection: Connection, attachment: Attachment, worker: int, items: Sequence[Item], error: Exception
    ) -> None:
        """Leave a table alone for a while, for no document of it can be embedded now."""
        _, failures = self._resting.get(attachment.id, (0.0, 0))
        seconds = self._waits(failures)
        self._resting[attachment.id] = time.monotonic() + seconds, failures + 1
        connection.execute(
            "SELECT pgvec._postpone(%s, %s, %s, %s)", [[i.id for i in items], worker, seconds, reason(error)]
        )
        if kind_of(error) is not Kind.LATER:
            connection.execute("SELECT pgvec._count_work(%s, 0, %s)", [attachment.id, reason(error)])
        self.done.postponed += len(items)
        self._say(f"{attachment.collection}: {reason(error)}; trying again in {seconds:.1f} s")

    def _follower(self, connection: Connection, attachment: Attachment, worker: int, items: Sequence[Item]) -> Follower:
        """Return what follows a table; what it knows of the collection is looked up each time, for it may change."""
        space = spaces.find(self._database, attachment.collection)
        if space.model is None:
            self._enter_model(connection, attachment, space)
            space = spaces.find(self._database, attachment.collection)
        typed = space.typed(self._database)
        key = (space, tuple(typed), repr(sorted(attachment.chunking.items())))
        known, ingestion = self._ingestions.get(attachment.id, (None, None))
        if ingestion is None or known != key:
            chunking = Chunking.recorded(attachment.chunking)
            embedder = self._embedder(space, attachment.collection)
            # Strict: what fails is for the follower to find, document by document.
            target = Target(space, typed, must_be_default=True)
            ingestion = Ingestion(target, embedder, chunking, strict=True)
            self._ingestions[attachment.id] = key, ingestion

        def renew() -> None:
            renewed = "SELECT pgvec._renew(%s, %s, make_interval(secs => %s))"
            connection.execute(renewed, [[item.id for item in items], worker, self._lease])

        return Follower(attachment, ingestion, worker, renew, self._waits)

    def _embedder(self, space: Space, collection: str) -> Embedder:
        wanted = str(space.model_fingerprint)
        given = self._given
        if given is not None and (embedding.fingerprint(given) == wanted or given.name == space.model):
            return embedder_of(space, given, collection)  # which refuses another one of the same name
        if wanted not in self._embedders:
            self._embedders[wanted] = embedder_of(space, None, collection)
        return self._embedders[wanted]

    def _enter_model(self, connection: Connection, attachment: Attachment, space: Space) -> None:
        """Enter the model of a collection that was made in SQL, where none could be loaded."""
        embedder = self._given or kinds.load(attachment.model or DEFAULT_EMBEDDER, {})
        if embedder.dimensions != space.dimensions:
            raise EmbeddingError(
                f"embedder {embedder.name} makes {embedder.dimensions} dimensions, collection {attachment.collection!r}"
                f" has {space.dimensions}: attach it with model => the model that has"
            )
        with connection.transaction():
            connection.execute(
                "UPDATE pgvec.vector_spaces SET model_id = %s WHERE id = %s AND model_id IS NULL",
                [register(connection, embedder), space.id],
            )
        self._embedders[embedding.fingerprint(embedder)] = embedder

    def _notified(self, _: Notify) -> None:
        self._woken = True

    def _sleep(self, connection: Connection) -> None:
        """Wait until somebody calls, or it is time to look.

        Who holds the lock is called by whoever writes an attached table; nobody gets it while a writer is under way
        that has seen all awake (sql/705_live_routines.sql).
        """
        self._woken = False
        asleep = "SELECT pg_try_advisory_lock(hashtext('pgvec.sleep'), 0)"
        row = connection.execute(asleep).fetchone()
        held = row is not None and row[0]
        try:
            if not _number(connection, "SELECT count(*) FROM (SELECT FROM pgvec.changes LIMIT 1) c", []):
                self._wait(connection)
        finally:
            if held and not connection.closed:
                connection.execute("SELECT pg_advisory_unlock(hashtext('pgvec.sleep'), 0)")

    def _wait(self, connection: Connection) -> None:
        if self._woken or self._stopped.is_set():
            return
        ready, _, _ = select.select([connection.fileno(), self._bell], [], [], self._poll)
        if connection.fileno() in ready:
            connection.execute("SELECT")  # the server's message is read with the answer; if it is farewell, this fails


def _numbered(connection: Connection) -> int:
    """Draw a number that no other worker has, and hold it for the session."""
    while True:
        worker = random.getrandbits(31)
        row = connection.execute("SELECT pg_try_advisory_lock(hashtext('pgvec.worker'), %s)", [worker]).fetchone()
        if row is not None and row[0]:
            return worker


def _number(connection: Connection, statement: str, parameters: Sequence[object]) -> int:
    row = connection.execute(statement.encode(), parameters).fetchone()
    return 0 if row is None else int(row[0])
