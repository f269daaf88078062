"""What docs/sql.md says that a role needs for documents and for the life of an index is enough."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from tests.conftest import random_vectors
from tests.words import WordEmbedder

ROWS, DIMENSIONS = 1250, 4
POOR = {"m": 2, "ef_construction": 4}


def calibrate_plan(docs: Collection) -> None:
    docs.plan_index("ivfflat", form="full", calibrate=True)


def do_all_that_anybody_may(docs: Collection) -> None:
    docs.plan_index("hnsw", calibrate=False)
    docs.recall(queries=random_vectors(20, DIMENSIONS))
    docs.prewarm()
    docs.database.doctor()


def advise(docs: Collection) -> None:
    docs.advise(0.1, sample=1000, candidates=[POOR], progress=False)


def fix(docs: Collection) -> None:
    done = docs.database.mend()
    assert [mended.problem for mended in done] == [None] * 2, done


def tune(docs: Collection) -> None:
    docs.tune(0.1, sample=20, progress=False)


def ingest(docs: Collection) -> None:
    """Ingest a document that can be stored, and one that cannot; then the other way round; then neither is there."""
    docs = docs.database.collection("docs", embedder=WordEmbedder(DIMENSIONS))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            Path(folder, f"{name}.md").write_text("Text.")
        Path(folder, "bad.md").write_text("---\nnumbers: [.nan]\n---\nText.")
        assert (len(docs.ingest(folder).failed), len(docs.retry().failed)) == (1, 1)
        Path(folder, "bad.md").write_text("Text.")
        Path(folder, "b.md").unlink()
        Path(folder, "a.md").write_text("Another text.")
        done = docs.sync(folder)
        assert (done.added, done.updated, done.deleted, done.failed) == (1, 1, 1, [])
        docs.delete([f"{Path(folder).name}/{name}.md" for name in ("a", "bad")])


def attach(docs: Collection) -> None:
    docs.database.attach("products", "name", collection="docs")
    docs.database.fetch("INSERT INTO products VALUES (1, 'a lamp')")
    assert docs.database.fetch("SELECT document_id FROM pgvec.changes") == [("1",)]
    docs.database.detach("products")


def register(docs: Collection) -> None:
    docs.database.register_table("products", text="name")
    docs.database.unregister_table("products")


def work(docs: Collection) -> None:
    done = docs.database.work(embedder=WordEmbedder(DIMENSIONS))
    assert (done.chunks, done.failed, done.postponed) == (1, 1, 0)
    assert docs.database.requeue("products") == 1


ATTACHED = "INSERT INTO products VALUES (0), (1); SELECT pgvec.attach('products', '''lamp '' || 1 / id', 'docs')"


def swap_model(docs: Collection) -> None:
    docs = docs.database.collection("docs", embedder=WordEmbedder(DIMENSIONS))  # which workers may have entered
    docs.swap_model(WordEmbedder(8), name="words", sample=5, switch=True, progress=False)
    docs.rollback_model()
    docs.drop_swapped()


# The first cell of a row; how what it names is done; what an administrator does before.
TASKS: dict[str, tuple[Callable[[Collection], Any], str]] = {
    "`plan_index`, `recall`, `prewarm`, `doctor`": (do_all_that_anybody_may, ""),
    "`ingest`, `sync`, `retry`, `delete_documents`": (ingest, ""),
    "`register_table`, `unregister_table`": (register, "ALTER TABLE products ADD COLUMN embedding vector(2)"),
    "`attach`, `detach`": (attach, ""),
    "`work`, `requeue`": (work, ATTACHED),
    "`plan_index` with `calibrate`": (calibrate_plan, ""),
    "`create_index`": (lambda docs: docs.create_index(**POOR, progress=False), "DROP INDEX docs_dense_hnsw"),
    "`drop_index`": (lambda docs: docs.drop_index(), ""),
    "`rebuild_index`": (lambda docs: docs.rebuild_index(progress=False), ""),
    "`tune`": (tune, ""),
    "`calibrate`": (lambda docs: docs.calibrate(), ""),
    "`advise`": (advise, ""),
    "`watch`": (lambda docs: docs.watch(queries=5), ""),
    "`doctor --fix`": (
        fix,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'docs_dense_hnsw'::regclass;"
        "UPDATE pg_class SET reltuples = -1 WHERE oid = 'docs_dense'::regclass",
    ),
    "`swap_model`": (swap_model, "UPDATE docs SET text = 'text ' || id"),
}


def rows() -> dict[str, list[str]]:
    """Return the table: the first cell of each row to the others."""
    text = Path("docs/sql.md").read_text().partition("\n## Permissions\n")[2]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    return {cells[0]: cells[1:] for cells in table}


def test_every_task_is_tried() -> None:
    assert rows().keys() == TASKS.keys()


@pytest.fixture(scope="module")
def owners(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Database]:
    """A database, on which nobody but its owner may do anything."""
    name = f"t_permissions_{os.getpid()}"
    with janitor(name, template), Database(make_conninfo(server_dsn, dbname=name)) as database:
        docs = database.create_collection("docs", dimensions=DIMENSIONS, keywords=False)
        docs.upsert({"id": [str(n) for n in range(ROWS)], "vector": random_vectors(ROWS, DIMENSIONS)})
        database.fetch(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        database.fetch("ANALYZE docs, docs_dense")
        yield database


@pytest.fixture
def role(owners: Database) -> Iterator[str]:
    """A role that may search; docs has an index."""
    role = f"operator_{os.getpid()}"
    with owners.connection() as connection:
        owner = connection.info.user
        connection.execute("CREATE TABLE products (id integer PRIMARY KEY, name text)")
        connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}".encode())
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgvec, public TO {role}".encode())
        connection.execute(f"REVOKE SELECT ON pgvec.query_log FROM {role}".encode())
        connection.execute("DROP INDEX IF EXISTS docs_dense_hnsw")
        connection.execute("CREATE INDEX docs_dense_hnsw ON docs_dense USING hnsw (embedding vector_cosine_ops)")
        try:
            yield role
        finally:
            connection.execute("SELECT pgvec._detach(id) FROM pgvec.attachments; DROP TABLE products")
            connection.execute(f"ALTER TABLE docs OWNER TO {owner}; ALTER TABLE docs_dense OWNER TO {owner}".encode())
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def open_as(owners: Database, role: str) -> Database:
    return Database(make_conninfo(owners.dsn, options=f"-c role={role}"))


@pytest.mark.parametrize("task", TASKS)
def test_what_a_role_needs_is_enough(owners: Database, role: str, task: str) -> None:
    owned, needed = rows()[task]
    call, before = TASKS[task]
    with owners.connection() as connection:
        for table in re.findall("`(.*?)`", owned):
            connection.execute(f"ALTER TABLE {table} OWNER TO {role}".encode())
        for privileges, of in re.findall("`([A-Z, ]+?)(?: ON (.*?))?`", needed):
            of = of or f"DATABASE {connection.info.dbname}"
            connection.execute(f"GRANT {privileges} ON {of} TO {role}".encode())
        if before:
            connection.execute(before.encode())
    with open_as(owners, role) as database:
        call(database.collection("docs"))


def test_who_lacks_a_right_is_told_where_it_says_which(owners: Database, role: str) -> None:
    with open_as(owners, role) as database, pytest.raises(ConfigurationError, match=r"docs/sql\.md#permissions") as no:
        database.collection("docs").calibrate()
    assert isinstance(no.value.__cause__, psycopg.errors.InsufficientPrivilege)
