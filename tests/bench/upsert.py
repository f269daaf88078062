"""Loading rows that have vectors: `upsert` against the limit, and against pgvector-python's example.

limit      the same bytes, encoded beforehand, one binary COPY into each of the same tables, on one connection
upsert 1   on one connection; `upsert 2` on two
write_row  pgvector-python's loading example: one write_row a row, into the same tables

All of them into a collection with a keyword index, which triggers keep, and into one without. They take turns, and
ratios are of one turn. What each costs of a processor, of the server's and of the client's, is measured, too: on
a machine that others use, these say more than the clock.

    python -m tests.bench.upsert [--rows 63440] [--rounds 3] [--index] [--memory]

--index measures appends to a collection that has an HNSW index, and updates of rows that are there. --memory
measures the peak memory of processes that load 63,440 and 1,000,000 rows from a generator, of 64 dimensions.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
Rows = list[dict[str, Any]]
Cost = tuple[float, float, float]  # seconds: by the clock, of the server's processor, of the client's


def fresh(database: pgvec.Database, *, keywords: bool = True, dimensions: int = 384) -> pgvec.Collection:
    """Return an empty collection."""
    database.drop_collection(NAME, if_exists=True)
    return database.create_collection(NAME, dimensions=dimensions, columns=debian.COLUMNS, keywords=keywords)


def copy(table: str, columns: list[str]) -> sql.Composed:
    """Return a COPY statement."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(sql.Identifier(table), names)


def limit(database: pgvec.Database, encoded: tuple[bytes, bytes]) -> None:
    """Copy bytes that are ready."""
    with database.connection() as connection, connection.transaction():
        for table, columns, data in zip(
            (NAME, f"{NAME}_dense"), (CHUNK_COLUMNS, ["key", "embedding"]), encoded, strict=True
        ):
            with connection.cursor().copy(copy(table, columns)) as stream:
                stream.write(data)


def write_row(database: pgvec.Database, rows: Rows) -> None:
    """Copy row by row."""
    with database.connection() as connection, connection.transaction():
        with connection.cursor().copy(copy(NAME, CHUNK_COLUMNS)) as stream:
            stream.set_types(["int8", "text", "text", "int4", "text", "jsonb", "text", "int8", "text[]"])
            for key, row in enumerate(rows):
                metadata = psycopg.types.json.Jsonb({name: row.get(name) for name in ("priority", "installed_kib")})
                own = [key, row["id"], row["id"], 0, row["text"], metadata]
                stream.write_row([*own, row["section"], row["size"], row["tags"]])
        with connection.cursor().copy(copy(f"{NAME}_dense", ["key", "embedding"])) as stream:
            stream.set_types(["int8", "vector"])
            for key, row in enumerate(rows):
                stream.write_row([key, Vector(row["vector"])])


def encode(rows: Rows) -> tuple[bytes, bytes]:
    """Return the bytes of both tables."""
    typed = {"section": column_type("text"), "size": column_type("bigint"), "tags": column_type("text[]")}
    kind = vector_type("vector")
    (batch,) = batches(rows, kind, 384, pgvec.Distance.COSINE, len(rows))
    keys = range(len(batch))
    assert batch.vectors is not None
    return binary.chunk_rows(batch, keys, typed), kind.rows(keys, batch.vectors)


def processor_seconds(processes: list[int]) -> float:
    """Return what server processes have used so far; 0 where the server is not on this machine."""
    used = 0
    for process in processes:
        stat = Path(f"/proc/{process}/stat")
        if stat.exists():
            fields = stat.read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def measured(database: pgvec.Database, run: Callable[[], object]) -> Cost:
    """Return what a run costs; a connection that it opens counts from its start."""
    before = processor_seconds(database.own_processes())
    client, began = time.process_time(), time.perf_counter()
    run()
    took, client = time.perf_counter() - began, time.process_time() - client
    return took, processor_seconds(database.own_processes()) - before, client


def report(name: str, rows: int, costs: list[Cost], reference: list[Cost]) -> None:
    """Print the median rows/s, the ratio to a reference of the same turn, and microseconds of processors a row."""
    took, server, client = (statistics.median(part) for part in zip(*costs, strict=True))
    ratios = [other[0] / own[0] for own, other in zip(costs, reference, strict=True)]
    print(
        f"{name:24}{rows / took:8,.0f} rows/s  {statistics.median(ratios):5.2f} x ({min(ratios):.2f} to "
        f"{max(ratios):.2f})   processor, us/row: {server / rows * 1e6:.0f} server, {client / rows * 1e6:3.0f} client",
        flush=True,
    )


def in_turn(
    database: pgvec.Database, runs: dict[str, tuple[Callable[[], object], Callable[[], object]]], rounds: int
) -> dict[str, list[Cost]]:
    """Run in turn, each after what prepares it."""
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in itertools.islice(itertools.cycle(runs), number, number + len(runs)):  # none is always the first
            prepare, run = runs[name]
            prepare()
            costs[name].append(measured(database, run))
    return costs


def compare(database: pgvec.Database, rows: Rows, rounds: int) -> None:
    """Load an empty collection."""
    encoded = encode(rows)
    for keywords in (False, True):

        def load(connections: int) -> None:
            database.collection(NAME).upsert(iter(rows), connections=connections, progress=False)

        def prepare(keywords: bool = keywords) -> None:
            fresh(database, keywords=keywords)

        runs: dict[str, Callable[[], object]] = {
            "limit": lambda: limit(database, encoded),
            "upsert 1": lambda: load(1),
            "upsert 2": lambda: load(2),
            "write_row": lambda: write_row(database, rows),
        }
        costs = in_turn(database, {name: (prepare, run) for name, run in runs.items()}, rounds)
        print("with a keyword index" if keywords else "without a keyword index")
        for name in runs:
            report(f"  {name}", len(rows), costs[name], costs["limit"])


def compare_with_index(database: pgvec.Database, rows: Rows, rounds: int) -> None:
    """Append to a collection with an HNSW index; update what is there: nothing, a column, the vectors."""
    base, more = rows[: len(rows) // 2], rows[len(rows) // 2 :]

    def prepare() -> None:
        collection = fresh(database, keywords=False)
        collection.upsert(base, progress=False)
        collection.create_index("hnsw", m=16, ef_construction=64)

    def upsert(records: Rows, connections: int) -> Callable[[], object]:
        return lambda: database.collection(NAME).upsert(records, connections=connections, batch_size=1000)

    for name, records in {
        "append": more,
        "the same again": base,
        "another column": [row | {"size": row["size"] + 1} for row in base],
        "other vectors": [row | {"vector": -row["vector"]} for row in base],
    }.items():
        runs = {f"{name} {n}": (prepare, upsert(records, n)) for n in (1, 2)}
        costs = in_turn(database, runs, rounds)
        for run in runs:
            report(f"  {run}", len(records), costs[run], costs[f"{name} 1"])


def repeated(count: int, dimensions: int) -> Iterator[dict[str, Any]]:
    """Yield as many rows as wanted: some packages again and again, under new ids."""
    stored = np.load(debian.DATA / "embeddings.f16.npy", mmap_mode="r")[:10_000, :dimensions].astype(np.float32)
    some = [
        {"id": "", "text": package["body"], "vector": vector, **{name: package[name] for name in debian.COLUMNS}}
        for package, vector in zip(debian.packages(), stored, strict=False)
    ]
    for number in range(count):
        yield some[number % len(some)] | {"id": f"{number}"}


def peak_memory(count: int, connections: int) -> None:
    """Load from a generator, and print the most memory that this process has had."""
    with debian.connect() as database:
        collection = fresh(database, keywords=False, dimensions=64)
        rows = repeated(count, 64)
        next(rows)  # what reading the data takes, it takes here
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        collection.upsert(rows, connections=connections, progress=False)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{count:9,} rows, {connections} connections: {before / 1024:.0f} MB before, peak {after / 1024:.0f} MB")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=63_440)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak_memory(*options.peak)
    elif options.memory:
        for count in (63_440, 1_000_000):
            for connections in (1, 2):  # each in a process of its own: the peak is a process's
                command = [sys.executable, "-m", "tests.bench.upsert", "--peak", str(count), str(connections)]
                subprocess.run(command, check=True)
    else:
        with debian.connect() as database:
            rows = list(itertools.islice(debian.records(), options.rows))
            (compare_with_index if options.index else compare)(database, rows, options.rounds)
            database.drop_collection(NAME, if_exists=True)


if __name__ == "__main__":
    main()
