"""Workers: whatever happens, what is searched is what the table holds, and nothing is embedded twice for nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import EmbedderUnavailable, RejectedText
from pgvec_toolkit.worker import follower
from pgvec_toolkit.worker.worker import Worker
from tests.words import WordEmbedder

Connection = psycopg.Connection[Any]
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PGVEC_INTERRUPTIONS", "2"))
PATIENCE = 60  # seconds, of which none pass if all is well
NOTES = "CREATE TABLE notes (id integer PRIMARY KEY, text text, price numeric, other integer DEFAULT 0)"
ROWS = "INSERT INTO notes SELECT n, 'note number ' || n, n FROM generate_series(1, {}) n"
# What is searched, and what there is: equal when a worker is done.
FOLLOWED = """
SELECT coalesce(n.id::text, d.document_id), n.text, d.text, n.price::double precision, d.price, l.chunks, count(v.key)
FROM notes n FULL JOIN notes_search d ON d.document_id = n.id::text LEFT JOIN notes_search_dense v USING (key)
LEFT JOIN pgvec.ledger l ON l.document_id = d.document_id GROUP BY 1, 2, 3, 4, 5, 6
"""
PROGRAM = """
import sys
from pgvec_toolkit.database import Database
from pgvec_toolkit.worker.worker import Worker
from tests.words import WordEmbedder

class Talking(WordEmbedder):
    def embed_documents(self, texts):
        print("embedding", flush=True)
        return super().embed_documents(texts)

Worker(Database(sys.argv[1]), batch=8, embedder=Talking()).run(once=True)
"""


class Moody(WordEmbedder):
    """An embedder that asks `mood` before it embeds."""

    mood: Callable[[Sequence[str]], object] = staticmethod(lambda _: None)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.mood(texts)
        return super().embed_documents(texts)


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.fixture
def notes(db: Database, connection: Connection, moody: Moody) -> Collection:
    """A collection that follows a table of six rows, and has done so."""
    connection.execute(NOTES.encode())
    connection.execute(ROWS.format(6).encode())
    attached = db.attach("notes", "text", columns=["price"], embedder=moody)
    db.work(embedder=moody)
    moody.embedded.clear()
    return attached


def check_followed(connection: Connection, rows: int) -> None:
    found = connection.execute(FOLLOWED.encode()).fetchall()
    assert len(found) == rows
    for id, there, searched, price, searched_price, in_ledger, vectors in found:
        assert (there, price, 1, 1) == (searched, searched_price, in_ledger, vectors), id
    assert connection.execute("SELECT count(*) FROM pgvec.queue").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM pgvec.changes").fetchone() == (0,)


def test_only_changed_texts_are_embedded(db: Database, connection: Connection, notes: Collection, moody: Moody) -> None:
    connection.execute("UPDATE notes SET other = 1")
    assert db.work(embedder=moody).documents == 0
    connection.execute("UPDATE notes SET price = price + 1 WHERE id < 4; DELETE FROM notes WHERE id = 6")
    vectors = connection.execute("SELECT key, xmin FROM notes_search_dense ORDER BY 1").fetchall()
    done = db.work(embedder=moody)
    assert (done.payloads, done.deleted, done.chunks, moody.embedded) == (3, 1, 0, [])
    assert connection.execute("SELECT key, xmin FROM notes_search_dense ORDER BY 1").fetchall() == vectors[:5]
    check_followed(connection, 5)
    connection.execute("UPDATE notes SET text = 'a kettle' WHERE id = 2; UPDATE notes SET text = '' WHERE id = 3")
    connection.execute("UPDATE notes SET text = text || '!' WHERE id = 4; UPDATE notes SET text = rtrim(text, '!')")
    done = db.work(embedder=moody)
    assert (done.documents, done.unchanged, moody.embedded) == (3, 1, ["a kettle"])
    assert notes.search("kettle", k=1)[0].document_id == "2"
    assert {hit.document_id for hit in notes.search("note", k=9)} == {"1", "2", "4", "5"}
    assert db.requeue("notes", everything=True) == 0
    done = db.work(embedder=moody)
    assert (done.documents, done.unchanged, len(moody.embedded)) == (5, 5, 1)
    connection.execute("TRUNCATE notes; INSERT INTO notes VALUES (7, 'seven', 7)")
    db.work(embedder=moody)
    check_followed(connection, 1)


@pytest.mark.usefixtures("notes")
def test_a_change_while_it_is_embedded_is_not_lost(db: Database, connection: Connection, moody: Moody) -> None:
    texts = iter(["second", "third"])

    def change(_: Sequence[str]) -> None:
        if (text := next(texts, None)) is not None:
            connection.execute("UPDATE notes SET text = %s WHERE id = 1", [text])
            # As another worker does at once.
            connection.execute("SELECT pgvec._fold(10)")

    moody.mood = change
    connection.execute("UPDATE notes SET text = 'first' WHERE id = 1")
    db.work(embedder=moody)
    assert moody.embedded == ["first", "second", "third"]
    check_followed(connection, 6)


@pytest.mark.usefixtures("notes")
def test_a_worker_that_was_taken_for_dead_overwrites_nothing(
    db: Database, connection: Connection, moody: Moody
) -> None:
    other = WordEmbedder()

    def overtake(_: Sequence[str]) -> None:
        connection.execute("UPDATE notes SET text = 'newer' WHERE id = 1")
        connection.execute("UPDATE pgvec.queue SET locked_until = '-infinity'")
        assert db.work(embedder=other).documents == 1

    moody.mood = overtake
    connection.execute("UPDATE notes SET text = 'older' WHERE id = 1")
    assert db.work(embedder=moody).documents == 0
    assert (moody.embedded, other.embedded) == (["older"], ["newer"])
    check_followed(connection, 6)


@pytest.mark.usefixtures("notes")
def test_what_takes_longer_than_a_claim_holds_is_written_all_the_same(
    db: Database, connection: Connection, moody: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = "UPDATE pgvec.queue SET locked_until = '-infinity' WHERE attachment_id = 1"
    left = "SELECT extract(epoch FROM max(locked_until) - now()) FROM pgvec.queue WHERE claimed_by IS NOT NULL"
    seconds: list[float] = []

    def overtake(_: Sequence[str]) -> None:
        seconds.append((connection.execute(left.encode()).fetchone() or (0,))[0])
        connection.execute(expired.encode())
        if len(seconds) == 1:
            db.work(embedder=WordEmbedder())
            connection.execute("UPDATE notes SET text = 'a newer text' WHERE id = 1")

    moody.mood = overtake
    connection.execute("UPDATE notes SET text = 'a new text' WHERE id = 1")
    done = Worker(db, embedder=moody, lease=1000).run(once=True)
    assert (done.overtaken, done.documents) == (1, 1)
    assert 900 < seconds[0] < 1000 < 1900 < seconds[1] < 2000
    # In parts, of which each begins the claim anew.
    monkeypatch.setattr(follower, "_TEXTS_AT_ONCE", 2)
    connection.execute("UPDATE notes SET text = 'part ' || id")
    done = Worker(db, embedder=moody, lease=1000).run(once=True)
    assert (done.overtaken, done.documents, len(seconds)) == (0, 6, 5)
    assert all(900 < some < 1000 for some in seconds[2:])


def test_poison_is_found_and_the_others_go_on(
    db: Database, connection: Connection, notes: Collection, moody: Moody
) -> None:
    def mood(texts: Sequence[str]) -> None:
        if any("poison" in text for text in texts):
            raise RejectedText("too bitter\0\ud800")

    moody.mood = mood
    connection.execute("UPDATE notes SET text = 'changed ' || id; UPDATE notes SET text = 'poison' WHERE id IN (2, 5)")
    connection.execute("UPDATE notes SET price = 'NaN' WHERE id = 3")  # JSON has no such number
    done = db.work(embedder=moody)
    assert (done.failed, done.chunks) == (3, 3)
    failures = "SELECT document_id, stage, error, attempts FROM pgvec.failures ORDER BY 1"
    found = connection.execute(failures).fetchall()
    assert [row[:2] for row in found] == [("2", "embed"), ("3", "chunk"), ("5", "embed")]
    assert "too bitter" in found[0][2]
    (lag,) = db.attachments()
    assert (lag.pending, lag.failed, lag.error) == (0, 3, None)
    assert "3 documents of table public.notes could not be embedded" in str(db.health())
    # Repaired in the table: tried again by itself. The others by requeue.
    connection.execute("UPDATE notes SET text = 'cured' WHERE id = 2; UPDATE notes SET price = 1 WHERE id = 3")
    assert db.work(embedder=moody).failed == 0
    assert db.requeue("notes_search") == 1
    assert db.work(embedder=moody).failed == 1
    assert notes.retry(["5"]).failed == []  # left to workers
    assert db.work(embedder=moody).failed == 1
    moody.mood = lambda _: None
    db.requeue("notes_search")
    db.work(embedder=moody)
    check_followed(connection, 6)


def test_a_row_of_which_the_expression_fails_is_poison(db: Database, connection: Connection, moody: Moody) -> None:
    connection.execute(NOTES.encode())
    connection.execute(ROWS.format(9).encode())
    db.attach("notes", "'note ' || 12 / (other + 1)", columns=["price"], embedder=moody)
    db.work(embedder=moody)
    connection.execute("UPDATE notes SET other = CASE id WHEN 7 THEN -1 ELSE 1 END")  # nothing fails here
    done = db.work(embedder=moody)
    assert (done.chunks, done.failed) == (8, 1)
    assert connection.execute("SELECT document_id, stage, error FROM pgvec.failures").fetchall() == [
        ("7", "read", "division by zero")
    ]


CODES = ("P0001", "21000", "38000", "XX000", "55000", "08001")


def test_what_an_expression_says_of_a_row_stops_no_other(db: Database, connection: Connection, moody: Moody) -> None:
    connection.execute(NOTES.encode())
    connection.execute(ROWS.format(9).encode())
    connection.execute("CREATE TABLE more AS TABLE notes; ALTER TABLE more ADD PRIMARY KEY (id)")
    connection.execute(
        "CREATE FUNCTION fail(code text) RETURNS text LANGUAGE plpgsql AS"
        " $$BEGIN RAISE '% happened', code USING ERRCODE = code; END$$"
    )
    text = "CASE WHEN text LIKE 'fail%' THEN public.fail(substr(text, 5)) ELSE text END"
    db.attach("notes", text, embedder=moody)
    db.attach("more", "text", embedder=moody)
    db.work(embedder=moody)
    connection.execute("UPDATE notes SET text = coalesce('fail' || (%s::text[])[id], 'changed')", [list(CODES)])
    done = db.work(embedder=moody)
    assert (done.chunks, done.failed, done.postponed) == (3, 6, 0)
    failures = connection.execute("SELECT document_id, error FROM pgvec.failures ORDER BY 1").fetchall()
    assert failures == [(str(number), f"{code} happened") for number, code in enumerate(CODES, 1)]
    # Of all rows alike, it is no row's, and another table is followed in the same session.
    connection.execute("UPDATE notes SET text = 'fail55000'; UPDATE more SET text = 'more ' || id")
    connection.execute("DELETE FROM notes WHERE id = 9")  # and what is gone does not tell
    done = db.work(embedder=moody)
    assert (done.chunks, done.failed, done.postponed) == (9, 0, 9)
    assert [lag.error for lag in db.attachments()] == [None, "55000 happened"]
    # Nor is it if the server is in trouble for a moment.
    connection.execute("UPDATE notes SET text = CASE id WHEN 1 THEN 'fail53100' ELSE 'fine' END")
    done = db.work(embedder=moody)
    assert (done.failed, done.postponed) == (0, 8)
    # Of two that exclude each other, one is given up in the end.
    connection.execute("CREATE UNIQUE INDEX ON more_search (md5(text))")
    connection.execute("UPDATE more SET text = 'the same' WHERE id < 3; UPDATE more SET text = 'other' WHERE id = 3")
    done = Worker(db, ["more_search"], embedder=moody, waits=lambda _: 0).run(once=True)
    assert (done.chunks, done.failed, done.postponed) == (2, 1, 4)


@pytest.mark.usefixtures("notes")
def test_what_is_nobodys_fault_is_tried_again(db: Database, connection: Connection, moody: Moody) -> None:
    waits: list[int] = []
    away = [ConnectionResetError("away")] * 5
    troubles = iter([MemoryError("no room"), EmbedderUnavailable("busy"), *away, None])

    def mood(_: Sequence[str]) -> None:
        if (trouble := next(troubles)) is not None:
            raise trouble

    def wait(attempts: int) -> float:
        waits.append(attempts)
        return 0.0

    moody.mood = mood
    connection.execute("UPDATE notes SET text = 'changed' WHERE id = 1")
    done = Worker(db, embedder=moody, waits=wait).run(once=True)
    assert (done.postponed, done.failed, done.documents, waits) == (7, 0, 1, [0, 0, 1, 2, 3, 4, 5])
    check_followed(connection, 6)
    # Nobody knows what it is: after some attempts it is given up, and the others are not.
    moody.mood = lambda texts: 1 / ("odd" not in texts)
    connection.execute("UPDATE notes SET text = CASE id WHEN 1 THEN 'odd' ELSE 'even' END")
    done = Worker(db, embedder=moody, waits=wait).run(once=True)
    assert (done.postponed, done.failed, done.chunks) == (4, 1, 5)


@pytest.mark.usefixtures("notes")
def test_a_model_that_does_not_fit_gives_up_no_document(db: Database, connection: Connection) -> None:
    connection.execute("UPDATE notes SET text = 'changed'")
    done = db.work(embedder=WordEmbedder(32))
    assert (done.failed, done.postponed) == (0, 6)
    (lag,) = db.attachments()
    assert (lag.pending, lag.waiting) == (6, 6)
    assert "test/words" in str(lag.error)


def test_a_collection_made_in_sql_gets_its_model_from_the_first_worker(
    db: Database, connection: Connection, moody: Moody
) -> None:
    connection.execute(NOTES.encode())
    connection.execute("SELECT pgvec.attach('notes', 'text', dimensions => 64, model => 'some/model')")
    connection.execute("INSERT INTO notes VALUES (1, 'one', 1)")
    db.work(embedder=moody)
    assert connection.execute("SELECT model FROM pgvec.spaces").fetchone() == ("test/words",)
    assert db.collection("notes_search", embedder=moody).search("one", k=1)[0].text == "one"
    connection.execute("UPDATE notes_search SET text = 'two'")
    assert connection.execute("SELECT count(*) FROM notes_search_dense").fetchone() == (0,)


@pytest.mark.usefixtures("notes")
def test_what_was_read_before_it_is_attached_again_is_looked_at_again(
    db: Database, connection: Connection, moody: Moody
) -> None:
    again = iter([True])

    def attach(_: Sequence[str]) -> None:
        if next(again, False):
            db.attach("notes", "text || '!'", columns=["price"])
            # As another worker does at once.
            connection.execute("SELECT pgvec._fold(10), pgvec._backfill(1, 100)")
            connection.execute("SELECT pgvec._fold(10), pgvec._backfill(1, 100)")

    moody.mood = attach
    connection.execute("UPDATE notes SET text = 'changed' WHERE id = 1")
    db.work(embedder=moody)
    assert moody.embedded[0] == "changed"
    texts = "SELECT document_id FROM notes_search WHERE text NOT LIKE '%!'"
    assert connection.execute(texts.encode()).fetchall() == []


def test_other_columns_embed_nothing(db: Database, connection: Connection, moody: Moody) -> None:
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET timezone = 'Europe/Berlin'".encode())
    connection.execute(
        "CREATE TABLE events (id integer PRIMARY KEY, text text, at timestamp, price integer, tag jsonb, seats integer)"
        ";"
        "INSERT INTO events SELECT n, '# Event ' || n, '2024-07-01 12:00', 1, '1', 2 FROM generate_series(1, 3) n"
    )
    chunking = {"format": "markdown"}
    db.attach("events", "text", columns=["at", "tag", "price"], embedder=moody, chunking=chunking)
    db.work(embedder=moody)
    before = connection.execute("SELECT at FROM events_search ORDER BY id").fetchall()
    moody.embedded.clear()
    db.attach("events", "text", columns=["seats", "at"], chunking=chunking)
    done = db.work(embedder=moody)
    assert (done.payloads, moody.embedded) == (3, [])
    assert connection.execute("SELECT at FROM events_search ORDER BY id").fetchall() == before
    assert connection.execute("SELECT price, metadata FROM events_search WHERE document_id = '2'").fetchall() == [
        (None, {"seats": 2, "headings": ["Event 2"]})
    ]


def test_what_chunks_have_of_their_own_stays(db: Database, connection: Connection, moody: Moody) -> None:
    connection.execute(NOTES.encode())
    connection.execute("INSERT INTO notes VALUES (1, E'# Part\n\ntext', 1)")
    db.create_collection("notes_search", embedder=moody, columns={"headings": list[str], "price": float})
    db.attach("notes", "text", columns=["price"], chunking={"format": "markdown"})
    db.work(embedder=moody)
    connection.execute("UPDATE notes SET price = 2.5")
    assert db.work(embedder=moody).payloads == 1
    assert connection.execute("SELECT headings, price FROM notes_search").fetchall() == [(["Part"], 2.5)]


@pytest.fixture
def running(db: Database, moody: Moody) -> Iterator[Callable[[], Worker]]:
    """Starts workers in threads of their own, that only a NOTIFY wakes."""
    started: list[tuple[Worker, threading.Thread]] = []

    def start() -> Worker:
        worker = Worker(db, batch=16, embedder=moody, poll=PATIENCE, waits=lambda _: 0.01)
        thread = threading.Thread(target=worker.run)
        thread.start()
        started.append((worker, thread))
        return worker

    yield start
    for worker, _ in started:
        worker.stop()
    for worker, thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()
        worker.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def is_quiet(connection: Connection) -> bool:
    return connection.execute(
        "SELECT NOT EXISTS (SELECT FROM pgvec.queue) AND NOT EXISTS (SELECT FROM pgvec.changes)"
    ).fetchone() == (True,)


def test_no_update_is_lost_under_two_workers_while_searches_run(
    connection: Connection, notes: Collection, running: Callable[[], Worker]
) -> None:
    connection.execute("INSERT INTO notes SELECT n, 'row ' || n, n FROM generate_series(7, 40) n")
    workers = [running(), running()]
    draw = random.Random(5)
    for number in range(200):
        id = draw.randint(1, 40)
        column, value = draw.choice([("text", f"text {number}"), ("price", number), ("other", number), ("", 0)])
        if column:
            connection.execute(f"UPDATE notes SET {column} = %s WHERE id = %s".encode(), [value, id])
        else:
            connection.execute("DELETE FROM notes WHERE id = %s", [id])
            connection.execute("INSERT INTO notes VALUES (%s, %s, 0)", [id, f"back {number}"])
        if number % 20 == 0:
            assert len(notes.search("text", k=5)) == 5
    until(lambda: is_quiet(connection))
    for worker in workers:
        worker.stop()
    check_followed(connection, 40)
    assert sum(worker.done.failed for worker in workers) == 0


def test_a_sleeping_worker_is_woken_and_outlives_its_session(
    connection: Connection, notes: Collection, running: Callable[[], Worker]
) -> None:
    asleep = (
        "SELECT l.pid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.objid = 0 AND l.granted"
        " AND l.classid::bigint = hashtext('pgvec.sleep')::bigint & 4294967295"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    running()
    for text in ("woken", "woken again"):
        until(lambda: connection.execute(asleep).fetchone())
        (pid,) = connection.execute(asleep).fetchone() or (0,)
        connection.execute("UPDATE notes SET text = %s WHERE id = 1", [text])
        until(lambda text=text: notes.search(text, k=1)[0].text == text)
        # As when the server restarts.
        until(lambda: connection.execute(asleep).fetchone())
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        until(lambda pid=pid: connection.execute(asleep).fetchone() not in (None, (pid,)))
    check_followed(connection, 6)


def test_killed_workers_lose_nothing(db: Database, connection: Connection, dsn: str) -> None:
    connection.execute(NOTES.encode())
    connection.execute(ROWS.format(100).encode())
    db.attach("notes", "text", columns=["price"], embedder=WordEmbedder())
    moments = random.Random(3)
    for kill in range(KILLS):
        connection.execute("UPDATE notes SET text = text || %s, price = price + 1 WHERE id %% 2 = 0", [f" {kill}"])
        connection.execute("DELETE FROM notes WHERE id = %s", [kill + 1])
        connection.execute("INSERT INTO notes VALUES (%s, 'new')", [1000 + kill])
        processes = [
            subprocess.Popen([sys.executable, "-c", PROGRAM, dsn], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        victim, other = processes
        assert victim.stdout is not None
        for _ in range(moments.randint(1, 3)):
            victim.stdout.readline()
        time.sleep(moments.uniform(0, 0.01))
        os.kill(victim.pid, signal.SIGKILL)
        for process in processes:
            process.communicate(timeout=PATIENCE)
        assert other.returncode == 0
    # What a session had claimed is free when the server has noticed its end; what failed, a moment later.
    until(lambda: db.work(embedder=WordEmbedder()).documents == 0 and is_quiet(connection))
    check_followed(connection, 100)
