"""What the tests of searches share: distances by the book, a loaded collection, and plans as they went."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database

K = 10


def distances_to(distance: str, query: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distances by the book, in double precision."""
    q, v = query.astype(np.float64), vectors.astype(np.float64)
    if distance == "cosine":
        return 1 - v @ q / (np.linalg.norm(v, axis=1) * np.linalg.norm(q))
    if distance == "l2":
        return np.sqrt(((v - q) ** 2).sum(axis=1))
    if distance == "inner_product":
        return -(v @ q)
    return np.abs(v - q).sum(axis=1)


def literal(vector: NDArray[Any]) -> str:
    """Return a vector as PostgreSQL reads it."""
    return str(vector.tolist())


def without_seqscan(dsn: str) -> str:
    """A DSN for small tables, of which the planner would rather read everything."""
    return make_conninfo(dsn, options="-c enable_seqscan=off")


def load(database: Database, vectors: NDArray[Any], name: str = "docs", **options: Any) -> Collection:
    """Make a collection of vectors; their ids are their positions."""
    docs = database.create_collection(name, dimensions=vectors.shape[1], **options)
    docs.upsert({"id": [str(number) for number in range(len(vectors))], "vector": vectors})
    return docs


def ids(hits: list[Any]) -> list[int]:
    """Return the positions that `load` made ids of."""
    return [int(hit.id) for hit in hits]


def vector_schema(connection: psycopg.Connection[Any]) -> str:
    """Return where the extension lives."""
    row = connection.execute("SELECT pgvec._vector_schema()::text").fetchone()
    assert row is not None
    return str(row[0])


# -- plans -----------------------------------------------------------------------------------------


def prepare(connection: psycopg.Connection[Any], text: str, where: Any) -> None:
    """Prepare a search as `wanted`."""
    types = f"{vector_schema(connection)}.vector" + ("" if where is None else ", jsonb")
    connection.execute(f"PREPARE wanted ({types}) AS {text}".encode())


def arguments(query: NDArray[Any], where: Any) -> str:
    """Return what EXECUTE wants between its parentheses."""
    return f"'{literal(query)}'" + ("" if where is None else f", '{json.dumps(where)}'")


@contextmanager
def prepared(docs: Collection, query: NDArray[Any], where: Any, mode: str, **options: Any) -> Iterator[tuple[Any, str]]:
    """Prepare a search in psql's way; yields the connection, and the statement that executes it."""
    with docs._database.dedicated_connection() as connection:
        row = connection.execute(
            "SELECT pgvec.search_sql(%s, %s, %s, ef_search => %s::integer)",
            [docs.name, options.get("k", K), where and Jsonb(where), options.get("ef_search")],
        ).fetchone()
        assert row is not None
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        prepare(connection, row[0], where)
        yield connection, f"EXECUTE wanted ({arguments(query, where)})"


def explain(docs: Collection, query: NDArray[Any], where: Any, *, mode: str = "auto", **options: Any) -> dict[str, Any]:
    """Run the statement of a search, and return its plan as it went."""
    with prepared(docs, query, where, mode, **options) as (connection, statement):
        row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode()).fetchone()
        assert row is not None
        return dict(row[0][0]["Plan"])


def reads(docs: Collection, query: NDArray[Any], where: Any, *, mode: str = "auto") -> tuple[int, dict[str, int]]:
    """Run a search; return how often all chunks were read, and the entries read of each index of the chunk table.

    By PostgreSQL's own counters: of what functions run EXPLAIN says nothing.
    """
    with prepared(docs, query, where, mode) as (connection, statement), connection.transaction():
        connection.execute(statement.encode())
        scans = connection.execute("SELECT pg_stat_get_xact_numscans(%s::regclass)", [docs.name]).fetchone()
        entries = connection.execute(
            "SELECT indexrelid::regclass::text, pg_stat_get_xact_tuples_returned(indexrelid) FROM pg_index"
            " WHERE indrelid = %s::regclass",
            [docs.name],
        ).fetchall()
        return scans[0], dict(entries)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's nodes, itself first."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def by_index(plan: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the nodes that scan an index."""
    return [node for node in nodes(plan) if node.get("Index Name") == name]


def part(plan: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the plan of a common table expression of the statement."""
    (found,) = (node for node in nodes(plan) if node.get("Subplan Name") == f"CTE pgvec_{name}")
    return found


@dataclass
class Course:
    """Which way a search went.

    Attributes:
        look: how often the first look into the vector index took place; of an unfiltered search: None.
        further: how often the second did; of an unfiltered search: how often it scanned the index.
        exact: how often a vector was looked up by its key, which only exact branches do.
    """

    look: int | None
    further: int
    exact: int


def course(plan: dict[str, Any], index: str = "docs_dense_hnsw", keys: str = "docs_dense_pkey") -> Course:
    """Read a plan, given the names of the vector table's indexes."""
    loops = {}
    for name in ("look_rows", "second_look_rows", "found"):
        if any(node.get("Subplan Name") == f"CTE pgvec_{name}" for node in nodes(plan)):
            for scan in by_index(part(plan, name), index):
                loops[name] = int(scan["Actual Loops"])
    assert len(by_index(plan, index)) == len(loops)  # and nothing else ever scans it
    further = loops.get("second_look_rows", loops.get("found"))
    assert further is not None
    return Course(loops.get("look_rows"), further, sum(int(node["Actual Loops"]) for node in by_index(plan, keys)))
