"""Loading over several connections: what is there is always the batches up to one, whatever happens to any of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest import in_order, load
from pgvec_toolkit.ingest.load import Written
from tests.words import WordEmbedder

V = [1.0, 0.0]
# Rows marked `slow` are let in when the test says so, by an advisory lock that it holds.
GATE = """
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.metadata ? 'slow' THEN PERFORM pg_advisory_xact_lock(77); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER gate BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION gate();
"""
COUNTER = """
CREATE TABLE counter AS SELECT 0 AS rows;
CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN UPDATE counter SET rows = rows + 1; RETURN NEW; END $$;
CREATE TRIGGER z_bump AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION bump();
"""


@pytest.fixture
def docs(db: Database, connection: psycopg.Connection) -> Collection:
    collection = db.create_collection("docs", dimensions=2, columns={"i": int})
    connection.execute(GATE.encode())
    return collection


def ids(connection: psycopg.Connection) -> list[int]:
    rows = connection.execute("SELECT d.id FROM docs d JOIN docs_dense v USING (key) ORDER BY d.key").fetchall()
    return [int(id) for (id,) in rows]


def rows(numbers: range, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": number, "vector": V, **fields} for number in numbers]


def in_thread(load: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a load in a thread; what it returns or raises is appended to the list."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(load())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, came


def wait_until(connection: psycopg.Connection, condition: str) -> None:
    """Wait for what will be so soon, or never."""
    for _ in range(6000):
        if connection.execute(f"SELECT {condition}".encode()).fetchone() == (True,):
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"never: {condition}")


IDLE = (
    "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction') = {}"
)
AT_GATE = "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted)"


@pytest.mark.parametrize("connections", [2, 3])
def test_batch_that_is_done_first_waits_for_those_before_it(
    docs: Collection, connection: psycopg.Connection, connections: int
) -> None:
    records = [*rows(range(3)), *rows(range(3, 6), slow=1), *rows(range(6, 15))]
    connection.execute("SELECT pg_advisory_lock(77)")
    thread, came = in_thread(lambda: docs.upsert(records, batch_size=3, connections=connections))
    wait_until(connection, AT_GATE)
    # The second waits for a lock: the later ones have given way, and hold nothing.
    wait_until(connection, f"{IDLE.format(0)} AND {AT_GATE} AND (SELECT count(*) FROM docs_dense) = 3")
    assert ids(connection) == [0, 1, 2]
    connection.execute("SELECT pg_advisory_unlock(77)")
    thread.join()
    assert came == [Written(inserted=15)]
    assert sorted(ids(connection)) == list(range(15))


def test_rows_that_count_in_one_row_do_not_wait_for_each_other(
    docs: Collection, connection: psycopg.Connection
) -> None:
    connection.execute(COUNTER.encode())
    records = rows(range(120))
    assert docs.upsert(records, batch_size=10, connections=3) == Written(inserted=120)
    assert connection.execute("SELECT rows FROM counter").fetchone() == (120,)
    assert sorted(ids(connection)) == list(range(120))


def test_of_an_id_given_twice_the_last_counts(docs: Collection, connection: psycopg.Connection) -> None:
    records = [{"id": number % 7, "vector": V, "i": number} for number in range(200)]
    docs.upsert(iter(records), batch_size=3, connections=4)
    found = connection.execute("SELECT id::int, i FROM docs ORDER BY 1").fetchall()
    assert found == [(id, max(number for number in range(200) if number % 7 == id)) for id in range(7)]


def test_chunks_of_one_ingested_document(db: Database, connection: psycopg.Connection) -> None:
    docs = db.create_collection("docs", embedder=WordEmbedder())
    docs.ingest([{"id": "book", "text": "a page"}])
    records = [{"id": f"book#{number}", "document_id": "book", "text": f"page {number}"} for number in range(40)]
    docs.upsert(records, batch_size=5, connections=4)
    assert connection.execute("SELECT count(*) FROM docs WHERE document_id = 'book'").fetchone() == (40,)
    assert connection.execute("SELECT count(*) FROM pgvec.ledger").fetchone() == (0,)


@pytest.mark.parametrize("wrong", ["record", "server", "iterator"])
@pytest.mark.parametrize("known", [False, True])
def test_what_is_there_after_an_error(
    docs: Collection, connection: psycopg.Connection, wrong: str, known: bool
) -> None:
    """Nothing of the batch and of those after it, and all before it, one of which is still being written."""
    connection.execute("ALTER TABLE docs ADD CHECK (i <> 13)")
    if known:
        docs.upsert(rows(range(40), i=-1))

    def records() -> Iterator[dict[str, Any]]:
        for number in range(40):
            if number == 13 and wrong == "iterator":
                raise LookupError("the source failed")
            yield {
                "id": number,
                "vector": V,
                "i": "thirteen" if number == 13 and wrong == "record" else number + (wrong != "server") * 100,
                **({"slow": 1} if number in (9, 10) else {}),
            }

    connection.execute("SELECT pg_advisory_lock(77)")
    thread, came = in_thread(lambda: docs.upsert(records(), batch_size=3, connections=3))
    if not known:
        wait_until(connection, AT_GATE)
    connection.execute("SELECT pg_advisory_unlock(77)")
    thread.join()
    expected = {"record": InvalidRecord, "server": psycopg.errors.CheckViolation, "iterator": LookupError}[wrong]
    assert isinstance(came[0], expected)
    if wrong == "record":
        assert (came[0].row, came[0].field) == (13, "i")
    written = connection.execute("SELECT id::int FROM docs WHERE i >= 0 ORDER BY 1").fetchall()
    assert [id for (id,) in written] == list(range(12))
    assert docs.upsert(rows(range(40), i=1), connections=3).inserted == (0 if known else 28)


def test_interrupted_while_batches_are_written(
    docs: Collection, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on the server is cancelled, or Ctrl-C would wait for it."""

    def records() -> Iterator[dict[str, Any]]:
        yield from rows(range(6))
        yield from rows(range(6, 12), slow=1)
        yield from rows(range(12, 15))  # is encoded while those before it are written, and yielded after them
        wait_until(connection, AT_GATE)
        raise KeyboardInterrupt

    monkeypatch.setattr("pgvec_toolkit.ingest.in_order._PATIENCE", 60)
    connection.execute("SELECT pg_advisory_lock(77)")
    with pytest.raises(KeyboardInterrupt):
        docs.upsert(records(), batch_size=3, connections=4)
    written = sorted(ids(connection))  # keys are drawn in any order
    assert written in ([], [0, 1, 2], [0, 1, 2, 3, 4, 5])
    wait_until(connection, "NOT " + AT_GATE)
    connection.execute("SELECT pg_advisory_unlock(77)")
    assert docs.upsert(rows(range(15)), connections=4).inserted == 15 - len(written)


def test_texts_of_batches_that_give_way_are_embedded_once_and_none_after_an_interruption(
    db: Database, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder, gave_way, inside, abandoned = WordEmbedder(), *(threading.Event() for _ in range(3))
    docs = db.create_collection("docs", embedder=embedder)
    connection.execute(GATE.encode())
    wait_without, wait = in_order.Job.wait, in_order.wait
    monkeypatch.setattr(in_order.Job, "wait", lambda job: (gave_way.set(), wait_without(job)))
    records = [{"id": n, "text": f"text {n}", **({"slow": 1} if n < 3 else {})} for n in range(6)]
    connection.execute("SELECT pg_advisory_lock(77)")
    thread, came = in_thread(lambda: docs.upsert(records, batch_size=3, connections=2))
    assert gave_way.wait(60)
    connection.execute("SELECT pg_advisory_unlock(77)")
    thread.join()
    assert (came, sorted(embedder.embedded)) == ([Written(inserted=6)], [f"text {n}" for n in range(6)])

    def embed_documents(texts: list[str]) -> Any:
        asked.append(len(texts))
        inside.set()
        assert abandoned.wait(60)
        return WordEmbedder().embed_documents(texts)

    def interrupted() -> Iterator[dict[str, Any]]:
        yield from ({"id": n, "text": f"more {n}"} for n in range(10, 19))
        assert inside.wait(60)
        raise KeyboardInterrupt

    asked: list[int] = []
    monkeypatch.setattr(embedder, "embed_documents", embed_documents)
    monkeypatch.setattr(in_order, "wait", lambda *given: (abandoned.set(), wait(*given))[1])
    with pytest.raises(KeyboardInterrupt):
        docs.upsert(interrupted(), batch_size=3, connections=3)
    assert asked == [3]
    assert len(ids(connection)) == 6


def test_texts_are_embedded_by_one_thread_at_a_time(db: Database) -> None:
    class Alone(WordEmbedder):
        inside = threading.Lock()

        def embed_documents(self, texts: Any) -> Any:
            assert self.inside.acquire(blocking=False)
            try:
                return super().embed_documents(texts)
            finally:
                self.inside.release()

    docs = db.create_collection("docs", embedder=Alone())
    records = [{"id": number, "text": f"text {number}"} for number in range(60)]
    assert docs.upsert(records, batch_size=5, connections=3) == Written(inserted=60)


def test_rows_that_are_new_are_not_looked_up(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    known_rows = load.known_rows
    monkeypatch.setattr(load, "known_rows", lambda *given: looked.append(len(given[2])) or known_rows(*given))
    assert docs.upsert(rows(range(50)), batch_size=5, connections=1) == Written(inserted=50)
    assert looked == [5]
    assert docs.upsert(rows(range(40, 60)), batch_size=5, connections=1) == Written(inserted=10, unchanged=10)
    assert looked == [5, 5, 5, 5, 5]


@pytest.mark.parametrize("connections", [0, 11])
def test_number_of_connections_is_what_the_pool_has(docs: Collection, connections: int) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 10"):
        docs.upsert(rows(range(2)), connections=connections)


def test_pool_of_one_connection(dsn: str, connection: psycopg.Connection) -> None:
    with Database(dsn, max_size=1, timeout=0.1) as db:
        docs = db.create_collection("docs", dimensions=2)
        assert docs.upsert({"id": range(20), "vector": np.ones((20, 2))}, batch_size=3) == Written(inserted=20)
    assert ids(connection) == list(range(20))
    with Database(dsn, max_size=2, timeout=5) as db:
        read = ({"id": id, "vector": V} for number in range(20) for (id,) in db.fetch("SELECT $1::int", [number]))
        assert db.collection("docs").upsert(read, batch_size=3).updated == 20
