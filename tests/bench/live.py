"""Rows of a table are written while workers follow it: what is lost, how far behind they are, what writers pay.

    python -m tests.bench.live                       (--updates 2000 for less)
    python -m tests.bench.live --kills 100           kill -9 of workers at random moments instead
    python -m tests.bench.live --restarts 10         the embedded server is restarted under them instead

10,000 updates, a few at a time, under two workers, each a process, while a thread searches: of texts, of a copied
column, of a column that is neither, deletes and inserts. The embedder hashes words: all but the model is measured.
In the end the collection is compared with the table, row by row, and embeddings are counted.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.embedded import EmbeddedServer, default_home
from tests.bench import debian
from tests.fire import Fire
from tests.words import WordEmbedder

ROWS, WORKERS, DIMENSIONS = 5000, 2, 64
TABLE = """
DROP TABLE IF EXISTS {0};
CREATE TABLE {0} (id integer PRIMARY KEY, text text, price double precision, seen integer DEFAULT 0);
INSERT INTO {0} SELECT n, 'package number ' || n || ' of many, ' || md5(n::text), n FROM generate_series(1, {1}) n;
"""
DIFFERENT = """
SELECT count(*) FROM live n FULL JOIN live_search d ON d.document_id = n.id::text
LEFT JOIN live_search_dense v USING (key) LEFT JOIN (pgvec.ledger l JOIN pgvec.collections c ON c.id = l.collection_id
 AND c.name = 'live_search') ON l.document_id = d.document_id
WHERE (n.text, n.price) IS DISTINCT FROM (d.text, d.price) OR v.key IS NULL OR l.chunks IS DISTINCT FROM 1
"""
PROGRAM = """
import signal, sys
from pgvec_toolkit.database import Database
from pgvec_toolkit.worker.worker import Worker
from tests.words import WordEmbedder

worker = Worker(Database(sys.argv[1]), embedder=WordEmbedder({0}))
signal.signal(signal.SIGTERM, lambda *_: worker.stop())
done = worker.run()
print(done.documents, done.chunks, done.payloads, done.unchanged, done.failed)
"""
KINDS = ("text", "price", "seen", "row")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=int(os.environ.get("PGVEC_INTERRUPTIONS", "0")))
    parser.add_argument("--restarts", type=int, default=0)
    options = parser.parse_args()
    with debian.connect() as database:
        prepare(database)
        if options.kills:
            kill(database, options.kills)
        elif options.restarts:
            restart(database, options.restarts)
        else:
            follow(database, options.updates)


def prepare(database: Database) -> None:
    """Make the table, attach it, and embed what is in it."""
    with database.connection() as connection:
        database.drop_collection("live_search", if_exists=True)
        connection.execute(TABLE.format("live", ROWS).encode())
        database.attach("live", "text", columns=["price"], embedder=WordEmbedder(DIMENSIONS))
        began = time.perf_counter()
        database.work(embedder=WordEmbedder(DIMENSIONS), batch=256)
        assert not different(connection)
        print(f"backfill: {ROWS} rows in {time.perf_counter() - began:.1f} s by one worker")


def start(database: Database) -> subprocess.Popen[str]:
    """Start a worker."""
    command = [sys.executable, "-c", PROGRAM.format(DIMENSIONS), database.dsn]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def write(connection: psycopg.Connection, draw: random.Random, number: int) -> str:
    """Change a row; return how."""
    id, kind = draw.randint(1, ROWS), draw.choice(KINDS)
    if kind == "row":
        with connection.transaction():
            connection.execute("DELETE FROM live WHERE id = %s", [id])
            connection.execute("INSERT INTO live VALUES (%s, %s, 0)", [id, f"row that came as {number}"])
    else:
        value = f"text that came as {number}" if kind == "text" else number
        connection.execute(f"UPDATE live SET {kind} = %s WHERE id = %s".encode(), [value, id])
    return kind


def settle(connection: psycopg.Connection) -> float:
    """Wait until nothing is pending; return how many seconds that took."""
    began = time.perf_counter()
    while connection.execute("SELECT pending FROM pgvec.queue_lag").fetchone() != (0,):
        time.sleep(0.01)
    return time.perf_counter() - began


def follow(database: Database, updates: int) -> None:
    """Write, search and follow at once; compare in the end."""
    live = database.collection("live_search", embedder=WordEmbedder(DIMENSIONS))
    with database.connection() as connection:
        followed(database, connection, live, updates)
        overhead(connection)


def followed(database: Database, connection: psycopg.Connection, live: Collection, updates: int) -> None:
    """Print the lag while rows are written, what the workers did, and what differs in the end."""
    draw, counts, ages, pending = random.Random(1), dict.fromkeys(KINDS, 0), [], []
    workers = [start(database) for _ in range(WORKERS)]
    with Fire(lambda _: live.search([1.0] + [0.0] * (DIMENSIONS - 1), k=5)) as searches:
        began = time.perf_counter()
        for number in range(updates):
            counts[write(connection, draw, number)] += 1
            if number % 100 == 0:
                lag = database.attachments()[0]
                ages.append(0.0 if lag.oldest_age is None else lag.oldest_age.total_seconds())
                pending.append(lag.pending)
        seconds = time.perf_counter() - began
        rest = settle(connection)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    done = [[int(number) for number in worker.communicate()[0].split()] for worker in workers]
    documents, chunks, payloads, unchanged, failed = (sum(column) for column in zip(*done, strict=True))
    print(f"{updates} updates in {seconds:.1f} s, {sum(searches.rounds)} searches meanwhile: {counts}")
    print(
        f"lag: median {statistics.median(ages):.2f} s, most {max(ages):.2f} s and {max(pending)} documents;"
        f" all done {rest:.2f} s after the last update"
    )
    print(
        f"workers: {documents} documents, {chunks} embedded, {payloads} with another column only,"
        f" {unchanged} unchanged, {failed} failed"
    )
    print(f"rows that differ in the end: {different(connection)}")
    print(f"noted of an update of another column of all rows: {unrelated(connection)}")


def different(connection: psycopg.Connection) -> int:
    """Return how many rows are not as they are searched."""
    row = connection.execute(DIFFERENT.encode()).fetchone()
    assert row is not None
    return int(row[0])


def unrelated(connection: psycopg.Connection) -> int:
    """Return how many rows are noted when a column that is neither embedded nor copied changes in all."""
    connection.execute("UPDATE live SET seen = seen + 1")
    row = connection.execute("SELECT count(*) FROM pgvec.changes").fetchone()
    assert row is not None
    return int(row[0])


def overhead(connection: psycopg.Connection) -> None:
    """Time the same writes on the attached table and on one that is not, in turns; nobody follows."""
    connection.execute(TABLE.format("plain", ROWS).encode())
    statements: dict[str, Callable[[str], None]] = {
        "300 updates of one row's text": lambda table: single(connection, table, "text = text || 'x'"),
        "300 updates of one row's other column": lambda table: single(connection, table, "seen = seen + 1"),
        "an update of all rows' texts": lambda table: run(connection, f"UPDATE {table} SET text = text || 'y'"),
        "an update of all rows' other column": lambda table: run(connection, f"UPDATE {table} SET seen = seen + 1"),
        "an insert of 5,000 rows": lambda table: run(
            connection, f"INSERT INTO {table} SELECT id + 1000000, text FROM {table} WHERE id <= {ROWS}"
        ),
    }
    print("what writers pay, times what it takes on a table that is not attached (median of 7 turns)")
    for name, statement in statements.items():
        seconds: dict[str, list[float]] = {"plain": [], "live": []}
        for _ in range(7):
            for table, taken in seconds.items():
                began = time.perf_counter()
                statement(table)
                taken.append(time.perf_counter() - began)
                run(connection, "TRUNCATE pgvec.changes")
                run(connection, f"DELETE FROM {table} WHERE id > {ROWS}")
                run(connection, "TRUNCATE pgvec.changes")
        plain, live = (statistics.median(taken) for taken in seconds.values())
        print(f"  {name}: {live / plain:.2f} ({plain * 1000:.1f} ms to {live * 1000:.1f} ms)")


def run(connection: psycopg.Connection, statement: str) -> None:
    """Run a statement."""
    connection.execute(statement.encode())


def single(connection: psycopg.Connection, table: str, assignment: str) -> None:
    """Update 300 rows, each by a statement and transaction of its own."""
    for id in range(1, 301):
        connection.execute(f"UPDATE {table} SET {assignment} WHERE id = %s".encode(), [id])


def kill(database: Database, kills: int) -> None:
    """Kill one of two workers after the other while rows are written; compare in the end."""
    draw, number = random.Random(2), 0
    workers = [start(database) for _ in range(WORKERS)]
    with database.connection() as connection:
        for _ in range(kills):
            number = into_work(connection, draw, number)
            victim = workers.pop(0)
            victim.kill()
            victim.communicate()
            workers.append(start(database))
        compared(connection, workers, f"{kills} kills during {number} updates")


def restart(database: Database, restarts: int) -> None:
    """Restart the embedded server under two workers, every other time as a crash; compare in the end."""
    server, draw, number = EmbeddedServer(default_home()), random.Random(2), 0
    assert "PGVEC_BENCH_DSN" not in os.environ, "only the embedded server can be restarted"
    workers = [start(database) for _ in range(WORKERS)]
    for turn in range(restarts):
        with database.connection() as connection:
            number = into_work(connection, draw, number)
        server.stop("immediate" if turn % 2 else "fast")
        server.start()
    with database.connection() as connection:
        compared(connection, workers, f"{restarts} restarts during {number} updates")


def into_work(connection: psycopg.Connection, draw: random.Random, number: int) -> int:
    """Write some rows, until workers are in the midst of them; return how many were written till now."""
    least = number + draw.randint(50, 150)
    while number < least or not working(connection):
        write(connection, draw, number)
        number += 1
    time.sleep(draw.uniform(0, 0.02))
    return number


def working(connection: psycopg.Connection) -> bool:
    """Return whether a worker has rows in work, and others wait."""
    return connection.execute("SELECT pending > 0 AND in_work > 0 FROM pgvec.queue_lag").fetchone() == (True,)


def compared(connection: psycopg.Connection, workers: list[subprocess.Popen[str]], done: str) -> None:
    """Wait for the workers, end them, and print what differs."""
    rest = settle(connection)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        worker.communicate()
        assert worker.returncode == 0
    print(f"{done}; all was embedded {rest:.2f} s later; rows that differ: {different(connection)}")


if __name__ == "__main__":
    main()
