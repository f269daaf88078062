"""Loading rows that have vectors: `upsert` against the limit, and against pgvector-python's example.

limit    the same bytes, encoded beforehand, one binary COPY into each of the same tables
write_row  pgvector-python's loading example: one write_row a row, into the same tables
no keywords  upsert into a collection without a keyword index: what that costs
"""

from __future__ import annotations

import resource
import statistics
import time
from typing import Any

import psycopg
from pgvector import Vector
from psycopg import sql

import pgvec_toolkit as pgvec
from pgvec_toolkit.ingest import binary
from pgvec_toolkit.ingest.batch import batches
from pgvec_toolkit.schema.columns import column_type
from pgvec_toolkit.vectors import vector_type
from tests.bench import debian

NAME = "bench_upsert"
CHUNK_COLUMNS = ["key", "id", "document_id", "position", "text", "metadata", "section", "size", "tags"]


def fresh(database: pgvec.Database, *, keywords: bool = True) -> pgvec.Collection:
    """Return an empty collection."""
    database.drop_collection(NAME, if_exists=True)
    return database.create_collection(NAME, dimensions=384, columns=debian.COLUMNS, keywords=keywords)


def copy(table: str, columns: list[str]) -> sql.Composed:
    """Return a COPY statement."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(sql.Identifier(table), names)


def limit(database: pgvec.Database, encoded: tuple[bytes, bytes]) -> float:
    """Copy bytes that are ready."""
    fresh(database)
    with database.connection() as connection:
        began = time.perf_counter()
        with connection.transaction():
            for table, columns, data in zip(
                (NAME, f"{NAME}_dense"), (CHUNK_COLUMNS, ["key", "embedding"]), encoded, strict=True
            ):
                with connection.cursor().copy(copy(table, columns)) as stream:
                    stream.write(data)
        return time.perf_counter() - began


def write_row(database: pgvec.Database, rows: list[dict[str, Any]]) -> float:
    """Copy row by row."""
    fresh(database)
    with database.connection() as connection:
        began = time.perf_counter()
        with connection.transaction():
            with connection.cursor().copy(copy(NAME, CHUNK_COLUMNS)) as stream:
                stream.set_types(["int8", "text", "text", "int4", "text", "jsonb", "text", "int8", "text[]"])
                for key, row in enumerate(rows):
                    metadata = {"priority": row["priority"], "installed_kib": row["installed_kib"]}
                    stream.write_row(
                        [
                            key,
                            row["id"],
                            row["id"],
                            0,
                            row["text"],
                            psycopg.types.json.Jsonb(metadata),
                            row["section"],
                            row["size"],
                            row["tags"],
                        ]
                    )
            with connection.cursor().copy(copy(f"{NAME}_dense", ["key", "embedding"])) as stream:
                stream.set_types(["int8", "vector"])
                for key, row in enumerate(rows):
                    stream.write_row([key, Vector(row["vector"])])
        return time.perf_counter() - began


def upsert(database: pgvec.Database, rows: list[dict[str, Any]], *, keywords: bool = True) -> float:
    """Load as users do."""
    collection = fresh(database, keywords=keywords)
    began = time.perf_counter()
    collection.upsert(iter(rows), progress=False)
    return time.perf_counter() - began


def encode(rows: list[dict[str, Any]]) -> tuple[bytes, bytes]:
    """Return the bytes of both tables."""
    typed = {"section": column_type("text"), "size": column_type("bigint"), "tags": column_type("text[]")}
    kind = vector_type("vector")
    (batch,) = batches(rows, kind, 384, pgvec.Distance.COSINE, len(rows))
    keys = range(len(batch))
    assert batch.vectors is not None
    return binary.chunk_rows(batch, keys, typed), kind.rows(keys, batch.vectors)


def client_memory(database: pgvec.Database) -> None:
    """Load from a generator in this process, and print what it took at most."""
    collection = fresh(database)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    collection.upsert(debian.records(), progress=False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of a process that streams: {after / 1024:.0f} MB (before loading {before / 1024:.0f} MB)")


def main(rounds: int = 3) -> None:
    """Measure in turn, and print rows/s and ratios."""
    with debian.connect() as database:
        client_memory(database)  # first: the peak is the process's
        rows = list(debian.records())
        encoded = encode(rows)
        ratios: dict[str, list[float]] = {"limit": [], "write_row": [], "no keywords": []}
        for _ in range(rounds):
            took = {
                "limit": limit(database, encoded),
                "upsert": upsert(database, rows),
                "write_row": write_row(database, rows),
                "no keywords": upsert(database, rows, keywords=False),
            }
            print("  ".join(f"{name} {len(rows) / seconds:,.0f} rows/s" for name, seconds in took.items()))
            for name in ratios:
                ratios[name].append(took[name] / took["upsert"])
        for name, found in ratios.items():
            print(f"upsert / {name}: median {statistics.median(found):.2f}, {min(found):.2f} to {max(found):.2f}")
        database.drop_collection(NAME)


if __name__ == "__main__":
    main()
