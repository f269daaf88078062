"""Vector indexes where others build by hand, and by a role that owns the tables and has few rights in schema pgvec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgvec_toolkit as pgvec
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, IndexBuildError

GRANTS = """
CREATE ROLE {0} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA pgvec TO {0}; GRANT CREATE, USAGE ON SCHEMA public TO {0};
GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {0}; ALTER TABLE docs OWNER TO {0}; ALTER TABLE docs_dense OWNER TO {0}
"""
Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def docs(db: Database, vectors: Callable[..., np.ndarray]) -> pgvec.Collection:
    made = db.create_collection("docs", dimensions=8, keywords=False)
    made.upsert({"id": [str(row) for row in range(200)], "vector": vectors(200, 8)})
    return made


@pytest.fixture
def owner(docs: pgvec.Collection, dsn: str, connection: Connection) -> Iterator[pgvec.Collection]:
    """The collection, as the role sees it."""
    role = f"owner_{connection.info.backend_pid}"
    connection.execute(GRANTS.format(role).encode())
    try:
        with Database(make_conninfo(dsn, user=role, password="x")) as database:
            yield database.collection(docs.name)
    finally:
        connection.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_what_another_role_is_building_is_no_leftover(
    owner: pgvec.Collection, dsn: str, connection: Connection
) -> None:
    rights = "GRANT ALL ON ALL TABLES IN SCHEMA pgvec TO {0}; GRANT ALL ON ALL SEQUENCES IN SCHEMA pgvec TO {0}"
    connection.execute(rights.format(owner._database.fetch_one("SELECT current_user::text")[0]).encode())
    named = "CREATE INDEX CONCURRENTLY docs_dense_embedding_idx ON docs_dense USING hnsw (embedding vector_cosine_ops)"
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> %s"
    with (
        psycopg.connect(dsn, autocommit=True) as by_hand,
        psycopg.connect(dsn) as writer,
        ThreadPoolExecutor() as threads,
    ):
        writer.execute("UPDATE docs_dense SET key = key WHERE key = 1")
        made = threads.submit(by_hand.execute, named.encode())
        try:
            while not connection.execute(waits, [0]).fetchone():
                assert not made.done()
            ours = threads.submit(owner.create_index)
            while not ours.done() and not connection.execute(waits, [by_hand.info.backend_pid]).fetchone():
                connection.execute("SELECT pg_sleep(0.005)")
        finally:
            writer.rollback()
        with pytest.raises(IndexBuildError, match="another session is building docs_dense_embedding_idx: wait"):
            ours.result()
        made.result()
    assert [(index.name, index.valid) for index in owner.indexes()] == [("docs_dense_embedding_idx", True)]


def test_rights_are_asked_for_before_the_work(docs: pgvec.Collection, owner: pgvec.Collection) -> None:
    missing = "GRANT SELECT, UPDATE ON pgvec.tuning_profiles TO owner_"
    with pytest.raises(ConfigurationError, match=missing):
        owner.create_index()
    assert docs.indexes() == []
    docs.create_index("ivfflat", lists=4)
    for work in (owner.drop_index, lambda: owner.rebuild_index(lists=8)):
        with pytest.raises(ConfigurationError, match=missing):
            work()
    assert [index.options for index in docs.indexes()] == [["lists=4"]]
    assert owner.rebuild_index().rebuilt  # which ends nothing that was tuned
