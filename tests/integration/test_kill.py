"""Loading is killed (SIGKILL) at random moments: nothing is ever there by half, and a last run completes it.

PGVEC_KILLS=100 kills each program that often, and restarts the server under it ten times.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.embedded import EmbeddedServer
from pgvec_toolkit.errors import ConnectionFailed
from tests.integration.keyword_oracle import check_keyword_index
from tests.words import WordEmbedder

ROOT = Path(__file__).parents[2]
DOCUMENTS, ROWS = 60, 3000
KILLS = int(os.environ.get("PGVEC_KILLS", "2"))

# Says a line before every few documents or rows, so that its progress can be watched without a clock.
COMMON = """
import sys
from pgvec_toolkit.database import Database
from pgvec_toolkit.ingest import documents, window
from tests.words import WordEmbedder

documents.DOCUMENTS_AT_ONCE = window._LEAST = window._MOST = 4

class Talking(WordEmbedder):
    def embed_documents(self, texts):
        print("embedding", flush=True)
        return super().embed_documents(texts)

def document(number):
    parts = (f"Part {part} of {number}. " * 30 for part in range(number % 5))
    return {"id": f"doc{number}", "text": "\\n\\n".join(parts)}

def row(number):
    if number % 100 == 0:
        print("row", number, flush=True)
    return {"id": number, "text": f"row {number} of many", "number": number}

collection = Database(sys.argv[1]).collection("docs", embedder=Talking())
"""
INGEST = COMMON + f"collection.ingest((document(number) for number in range({DOCUMENTS})), progress=False)"
SYNC = COMMON + "collection.sync(sys.argv[2], progress=False)"
TEXTS = COMMON + (
    f"texts = (row(number) for number in range({ROWS}))\n"
    "collection.upsert(texts, batch_size=100, progress=False, connections=CONNECTIONS)"
)
VECTORS = COMMON + (
    "numbers = [[1.0 + (n + d) % 7 for d in range(64)] for n in range(7)]\n"
    f"vectors = (row(number) | {{'vector': numbers[number % 7]}} for number in range({ROWS}))\n"
    "collection.upsert(vectors, batch_size=100, progress=False, connections=CONNECTIONS)"
)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def run(program: str, *arguments: str) -> int:
    """Run a program to its end; returns how many lines it said."""
    with start(program, *arguments) as process:
        said, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    return said.count("\n")


def kill(program: str, *arguments: str, after: int, pause: float) -> None:
    """Kill a program when it has said so many lines, and some moments later."""
    with start(program, *arguments) as process:
        assert process.stdout is not None
        for _ in range(after):
            assert process.stdout.readline(), "it ended before it was to be killed"
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL


def state(connection: psycopg.Connection) -> dict[str, tuple[Any, ...]]:
    """What there is of each document: ledger's chunks, chunk rows, vector rows, all in one snapshot."""
    rows = connection.execute(
        "SELECT document_id, l.chunks, coalesce(t.chunks, 0), coalesce(t.vectors, 0), coalesce(t.positions, '{}')"
        " FROM pgvec.ledger l FULL JOIN (SELECT document_id, count(*) AS chunks, count(v.key) AS vectors,"
        " array_agg(d.position ORDER BY d.position) AS positions"
        " FROM docs d LEFT JOIN docs_dense v USING (key) GROUP BY document_id) t USING (document_id)"
    ).fetchall()
    return {document: tuple(rest) for document, *rest in rows}


def check_documents(found: dict[str, tuple[Any, ...]]) -> None:
    for document, (in_ledger, chunks, vectors, positions) in found.items():
        assert in_ledger == chunks == vectors, document
        assert positions == list(range(chunks)), document


def test_ingestion_killed_at_any_moment(db: Database, dsn: str, connection: psycopg.Connection) -> None:
    whole = db.create_collection("docs", embedder=WordEmbedder())
    lines = run(INGEST, dsn)
    expected = state(connection)
    texts = connection.execute("SELECT id, text FROM docs ORDER BY id").fetchall()
    assert len(expected) == DOCUMENTS
    assert len(texts) > DOCUMENTS
    check_documents(expected)

    moments = random.Random(8)
    for _ in range(KILLS):
        connection.execute("TRUNCATE docs, docs_dense; DELETE FROM pgvec.ledger")
        reached = 0
        for _ in range(2):  # the second run is killed while it does the rest
            left = lines - reached // 4
            kill(INGEST, dsn, after=moments.randint(1, max(1, left // 3)), pause=moments.uniform(0, 0.015))
            found = state(connection)
            check_documents(found)
            assert len(found) >= reached
            assert found.items() <= expected.items()
            reached = len(found)
        assert reached < DOCUMENTS
    run(INGEST, dsn)
    assert state(connection) == expected
    assert connection.execute("SELECT id, text FROM docs ORDER BY id").fetchall() == texts
    assert run(INGEST, dsn) == 0  # nothing is left to embed
    assert whole.search("Part 3 of 4", k=1)[0].document_id == "doc4"


@pytest.mark.parametrize(
    ("program", "connections"), [(TEXTS, 1), (TEXTS, 2), (VECTORS, 2)], ids=["texts-1", "texts-2", "vectors-2"]
)
def test_upsert_killed_at_any_moment(
    db: Database, dsn: str, connection: psycopg.Connection, program: str, connections: int
) -> None:
    program = program.replace("CONNECTIONS", str(connections))
    whole = db.create_collection("docs", embedder=WordEmbedder(), columns={"number": int})
    moments = random.Random(9)
    before = 0
    for _ in range(KILLS):
        kill(program, dsn, after=moments.randint(3, 15), pause=moments.uniform(0, 0.015))
        rows = connection.execute("SELECT d.id, v.key FROM docs d LEFT JOIN docs_dense v USING (key)").fetchall()
        assert all(vector is not None for _, vector in rows)
        # Batches are whole, and in their order.
        assert len(rows) % 100 == 0
        assert {int(id) for id, _ in rows} == set(range(len(rows)))
        assert before <= len(rows) < ROWS
        before = len(rows)
        if before > ROWS / 2:
            connection.execute("TRUNCATE docs CASCADE")
            before = 0
    run(program, dsn)
    rows = connection.execute(
        "SELECT id, text, number FROM docs JOIN docs_dense USING (key) ORDER BY number"
    ).fetchall()
    assert rows == [(str(number), f"row {number} of many", number) for number in range(ROWS)]
    assert len(whole) == ROWS
    check_keyword_index(connection)


def test_synchronisation_killed_at_any_moment(
    db: Database, dsn: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """A folder in which half is new, changed or gone; a run is killed twice, and the last one does the rest."""
    collection = db.create_collection("docs", embedder=WordEmbedder())
    collection.ingest([{"id": "record", "text": "from elsewhere"}])
    moments = random.Random(10)
    for number in range(DOCUMENTS):
        (tmp_path / f"{number}.txt").write_text(f"Text of {number}. " * (number % 7 + 1) * 20)
    collection.sync(tmp_path, progress=False)
    for change in range(max(1, KILLS // 2)):
        for number in range(DOCUMENTS):
            file = tmp_path / f"{number}.txt"
            if (number + change) % 9 == 0:
                file.unlink()
            elif (number + change) % 2 == 0 or not file.exists():
                file.write_text(f"Text {change} of {number}. " * (number % 5 + 1) * 20)
        for _ in range(2):
            kill(SYNC, dsn, str(tmp_path), after=moments.randint(1, 3), pause=moments.uniform(0, 0.03))
            check_documents(state(connection))
        run(SYNC, dsn, str(tmp_path))
        found = state(connection)
        check_documents(found)
        wanted = {f"{tmp_path.name}/{file.name}": file.read_text() for file in tmp_path.iterdir()}
        assert found.keys() == {"record", *wanted}
        texts = connection.execute("SELECT document_id, string_agg(text, ' ' ORDER BY position) FROM docs GROUP BY 1")
        for document, text in texts.fetchall():
            assert document == "record" or text.split() == wanted[document].split()


@pytest.mark.parametrize("program", [INGEST, TEXTS.replace("CONNECTIONS", "2")], ids=["ingest", "upsert"])
def test_processes_loading_the_same_at_once(
    db: Database, dsn: str, connection: psycopg.Connection, program: str
) -> None:
    db.create_collection("docs", embedder=WordEmbedder(), columns={"number": int})
    processes = [start(program, dsn) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=600)
        assert process.returncode == 0
    if program is INGEST:
        found = state(connection)
        check_documents(found)
        assert sorted(found) == sorted(f"doc{number}" for number in range(DOCUMENTS))
        # Whoever came second to a document found it done.
        assert connection.execute("SELECT DISTINCT version FROM pgvec.ledger").fetchall() == [(1,)]
    else:
        rows = connection.execute("SELECT number FROM docs JOIN docs_dense USING (key) ORDER BY number").fetchall()
        assert rows == [(number,) for number in range(ROWS)]


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server that only this test uses."""
    home = Path(tempfile.mkdtemp(prefix="pgvec-test-"))
    home.chmod(0o711)
    server = EmbeddedServer(home)
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


def test_server_restarts_while_it_is_loaded(own_server: EmbeddedServer) -> None:
    moments = random.Random(10)
    with Database(own_server.start()) as db:
        db.migrate()
        docs = db.create_collection("docs", embedder=WordEmbedder(), columns={"number": int}, keywords=False)

        def restarting(number: int, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            moment = moments.randrange(60, len(records) * 3 // 4)  # some is being written by then
            for position, record in enumerate(records):
                if position == moment:
                    own_server.stop("immediate" if number % 2 else "fast")
                    own_server.start()
                yield record

        rows = [{"id": n, "text": f"row {n} of many", "number": n} for n in range(400)]
        documents = [{"id": f"doc{n}", "text": f"# Part {n}"} for n in range(200)]
        for number in range(10 if KILLS >= 10 else 1):
            with pytest.raises(ConnectionFailed, match=r"connection|terminat|shut"):
                docs.upsert(restarting(number, rows), batch_size=20)
            found = db.fetch("SELECT d.number FROM docs d JOIN docs_dense USING (key) ORDER BY 1")
            assert [n for (n,) in found] == list(range(len(found)))
            assert len(found) % 20 == 0
            assert docs.upsert(rows, connections=2).inserted == 400 - len(found)
            assert db.fetch("SELECT number FROM docs JOIN docs_dense USING (key) ORDER BY 1") == [
                (n,) for n in range(400)
            ]
            with pytest.raises(ConnectionFailed, match=r"connection|terminat|shut"):
                docs.ingest(restarting(number + 1, documents))
            done = docs.ingest(documents)
            assert (done.documents, done.unchanged + done.chunks) == (200, 200)
            assert db.fetch("SELECT count(*) FROM docs JOIN docs_dense USING (key) WHERE number IS NULL") == [(200,)]
            db.fetch("TRUNCATE docs CASCADE")
            db.fetch("DELETE FROM pgvec.ledger")
