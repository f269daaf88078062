"""Builds and rebuilds are interrupted at random moments: by Ctrl-C, by kill -9, by a restart of the server.

Once each; PGVEC_INTERRUPTIONS=10 does it ten times each, builds and rebuilds in turn.
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
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from pgvec_toolkit.database import Database
from pgvec_toolkit.embedded import EmbeddedServer
from pgvec_toolkit.schema import migrate
from tests.conftest import random_vectors

ROOT = Path(__file__).parents[2]
INTERRUPTIONS = int(os.environ.get("PGVEC_INTERRUPTIONS", "1"))
ROWS, DIMENSIONS = 3000, 16
STORED = random_vectors(ROWS, DIMENSIONS)
QUERIES = random_vectors(5, DIMENSIONS, seed=1)
KINDS = ("concurrently", "rebuild", "plain")
OPTIONS = {"m": 16, "ef_construction": 100}
PROGRAM = f"""
import sys
from pgvec_toolkit.database import Database
docs = Database(sys.argv[1]).collection("docs")
print("begins", flush=True)
if sys.argv[2] == "rebuild":
    docs.rebuild_index(**{OPTIONS}, progress=False)
else:
    docs.create_index(**{OPTIONS}, concurrently=sys.argv[2] == "concurrently", progress=False)
"""
INDEXES = """
SELECT i.relname::text, x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am a ON a.oid = i.relam WHERE a.amname IN ('hnsw', 'ivfflat') ORDER BY 1
"""
AT_WORK = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL (%s::integer[])"


def load(dsn: str) -> None:
    """Make the collection, with a tuned index; and drop that."""
    with Database(dsn) as database:
        docs = database.create_collection("docs", dimensions=DIMENSIONS)
        docs.upsert({"id": [str(row) for row in range(ROWS)], "vector": STORED})
        docs.create_index(m=8, ef_construction=32)
        docs.tune(0.8, sample=60)
        docs.drop_index()


def begin(dsn: str, kind: str) -> subprocess.Popen[str]:
    """Start a program that builds, and return when it is about to."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, dsn, kind],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n", process.communicate()
    return process


def ended(connection: psycopg.Connection[Any], known: list[int]) -> float:
    """Wait until all sessions but the known ones have ended; return how long that took."""
    began = time.monotonic()
    while connection.execute(AT_WORK, [known]).fetchone() is not None:
        assert time.monotonic() - began < 60, connection.execute("TABLE pg_stat_activity").fetchall()
        time.sleep(0.02)
    return time.monotonic() - began


def check(dsn: str, kind: str) -> str:
    """Check what is there after an interruption, and that the next build works; return what was left."""
    with psycopg.connect(dsn, autocommit=True) as connection, Database(dsn) as database:
        docs = database.collection("docs")
        left = connection.execute(INDEXES).fetchall()
        assert all(valid for name, valid in left if name != "docs_dense_ccnew" and kind == "rebuild"), left
        assert (("docs_dense_hnsw", True) in left) or kind != "rebuild"
        assert connection.execute("SELECT count(*) FROM docs JOIN docs_dense USING (key)").fetchone() == (ROWS,)
        for query in QUERIES:
            truth = [hit.id for hit in docs.search(query, 10, exact=True)]
            found = [hit.id for hit in docs.search(query, 10, ef_search=600)]
            # What no index is left for is exact.
            assert found == truth or (any(valid for _, valid in left) and len(set(found) & set(truth)) >= 8)
        assert connection.execute(
            "SELECT count(*) FROM pgvec.tuning_profiles WHERE superseded_at IS NULL"
        ).fetchone() == (0,)
        if kind == "rebuild":
            docs.rebuild_index()
        elif ("docs_dense_hnsw", True) not in left:
            docs.create_index(**OPTIONS)
        assert connection.execute(INDEXES).fetchall() == [("docs_dense_hnsw", True)]
        assert docs.recall(sample=200).recall > 0.8
        docs.drop_index()
    return ", ".join(f"{name} {'valid' if valid else 'INVALID'}" for name, valid in left) or "nothing"


def interrupt(dsn: str, how: Callable[[subprocess.Popen[str]], None], seed: int) -> Counter[tuple[str, str]]:
    """Interrupt builds of all kinds in turn, each at a random moment; count what they left."""
    moments = random.Random(seed)
    found: Counter[tuple[str, str]] = Counter()
    with Database(dsn) as database:
        docs = database.collection("docs")
        began = time.monotonic()
        docs.create_index(**OPTIONS)
        usual = time.monotonic() - began
        docs.drop_index()
    for number in range(INTERRUPTIONS):
        kind = KINDS[number % len(KINDS)]
        if kind == "rebuild":
            with Database(dsn) as database:
                database.collection("docs").create_index(m=8, ef_construction=32)
        with begin(dsn, kind) as process:
            # Somewhat less, as in the end there is nothing to interrupt.
            time.sleep(moments.uniform(0, 0.8 * usual))
            how(process)
            process.communicate(timeout=120)
        found[kind, check(dsn, kind)] += 1
    return found


def test_ctrl_c(dsn: str) -> None:
    load(dsn)

    def press(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=120)
        assert process.returncode == 0 or "KeyboardInterrupt" in complaints, complaints
        with psycopg.connect(dsn, autocommit=True) as connection:
            assert all(valid for _, valid in connection.execute(INDEXES)), "it leaves an INVALID index"

    print("\nCtrl-C:", interrupt(dsn, press, seed=1))


def test_kill_9(dsn: str) -> None:
    load(dsn)
    lasted: list[float] = []

    def kill(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()
        with psycopg.connect(dsn, autocommit=True) as connection:
            lasted.append(ended(connection, [connection.info.backend_pid]))

    print("\nkill -9:", interrupt(dsn, kill, seed=2), f"sessions ended after {max(lasted):.1f} s at most")


def test_a_build_whose_client_was_killed_does_not_go_on(dsn: str) -> None:
    """It waits for a writer's transaction, and would for ever, if nobody noticed that its client is gone."""
    load(dsn)
    with psycopg.connect(dsn) as writer, psycopg.connect(dsn, autocommit=True) as connection:
        writer.execute("UPDATE docs_dense SET key = key WHERE key = 1")
        with begin(dsn, "concurrently") as process:
            while (
                connection.execute("SELECT FROM pg_locks WHERE NOT granted AND locktype = 'virtualxid'").fetchone()
                is None
            ):
                time.sleep(0.02)
            process.kill()
        ended(connection, [writer.info.backend_pid, connection.info.backend_pid])
    assert check(dsn, "concurrently") == "docs_dense_hnsw INVALID"


def test_restart() -> None:
    home = Path(tempfile.mkdtemp(prefix="pgvec-test-"))
    home.chmod(0o711)
    server = EmbeddedServer(home)
    try:
        dsn = server.start()
        migrate.upgrade(dsn)
        load(dsn)

        def restart(process: subprocess.Popen[str]) -> None:
            server.stop("immediate")
            server.start()
            process.communicate(timeout=120)

        print("\nrestart:", interrupt(dsn, restart, seed=3))
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)
