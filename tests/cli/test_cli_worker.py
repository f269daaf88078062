"""`pgvec attach`, `worker`, `attachments`, `detach`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psycopg
import pytest

from tests.cli.outcome import Run

# The command, with a model of that name to load.
PGVEC = """
from pgvec_toolkit.cli import main
from pgvec_toolkit.embed import kinds
from tests.words import WordEmbedder

kinds.load = lambda *_, **__: WordEmbedder()
main()
"""


@pytest.mark.usefixtures("words")
def test_from_a_table_to_a_search(run: Run, dsn: str, connection: psycopg.Connection) -> None:
    nothing = run("attachments")
    assert (nothing.code, nothing.out, "no collection follows a table" in nothing.err) == (0, "", True)
    connection.execute("CREATE TABLE products (id integer PRIMARY KEY, name text, price numeric, stock integer)")
    connection.execute("INSERT INTO products VALUES (1, 'a lamp', 30), (2, 'a kettle', 25)")
    attached = run(
        "attach", "products", "name", "--column", "price", "--model", "w", "--chunking", '{"format": "text"}'
    )
    assert (attached.code, attached.out) == (0, "")
    assert attached.err == "collection products_search follows products; pgvec worker embeds its rows\n"
    worked = run("worker", "--once", "--json", "--collection", "products_search")
    assert (worked.code, worked.json["chunks"], worked.json["failed"]) == (0, 2, 0)
    found = run("search", "products_search", "kettle", "-k", "1", "--where", '{"price": {"$lt": 28}}', "--json")
    assert [hit["document_id"] for hit in found.json] == ["2"]
    connection.execute("UPDATE products SET price = 20 WHERE id = 1; UPDATE products SET stock = 1")
    status = run("worker", "--status", "--json")
    assert [(one["collection"], one["pending"], one["failed"]) for one in status.json] == [("products_search", 1, 0)]
    assert "public.products" in run("attachments").out
    # What Ctrl-C and a service manager send: it ends in order, and has done what there was.
    environment = os.environ | {"PGVEC_DSN": dsn}
    with subprocess.Popen(
        [sys.executable, "-c", PGVEC, "worker"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting for changes; Ctrl-C ends\n"
        while connection.execute("SELECT pending > 0 FROM pgvec.queue_lag").fetchone() == (True,):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert "1 documents: 0 chunks embedded, 1 with other columns only" in process.stderr.read()
    assert process.returncode == 0
    # Nothing can be done now: that is no success.
    connection.execute("ALTER TABLE products RENAME name TO title; UPDATE products SET title = 'a pot'")
    failed = run("worker", "--once")
    assert (failed.code, '2 documents are left: column "name" does not exist' in failed.err) == (1, True)
    wrong = run("worker", "--once", "--collection", "nothing")
    assert (wrong.code, "there is no collection 'nothing'" in wrong.err) == (1, True)
    assert run("detach", "products", "--drop").err == "collection products_search is dropped\n"
