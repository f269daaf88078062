"""Forecast against reality: memory, disk and time of index builds, form by form.

    python -m tests.bench.forecast --json forecast.json    (--data debian --forms hnsw-full ivfflat-binary for less)

Each form is forecast from samples alone, then built. Memory of HNSW is what the server says of a second, serial build
that is given a fifth of the forecast: "graph no longer fits into maintenance_work_mem after N tuples" (a fifth /
N bytes a row); of IVFFlat, what it asks for when it is given a little less: "memory required is N MB".
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

import pgvec_toolkit as pgvec
from pgvec_toolkit.schema.forecast import Forecast
from tests.bench import debian

FORMS = tuple(f"{method}-{form}" for method in ("hnsw", "ivfflat") for form in ("full", "halfvec", "binary", "prefix"))
NOISE = 12.0  # of bytes from 0 to 255, in each dimension
DATA = ("debian", "sift")
MB = 2**20


@dataclass(frozen=True)
class Row:
    """What was foretold of a form, and what came; megabytes and seconds."""

    data: str
    form: str
    rows: int
    memory: tuple[float, float]
    size: tuple[float, float]
    seconds: tuple[float, float]

    def __str__(self) -> str:
        parts = [
            f"{foretold:10.1f} |{real:9.1f} |{real / foretold if foretold else float('nan'):6.2f}"
            for foretold, real in (self.memory, self.size, self.seconds)
        ]
        return f"{self.data:7}{self.form:16}{self.rows:8,}  {'   '.join(parts)}"


def sift(rows: int) -> NDArray[np.float32]:
    """Return SIFT vectors, drawn from ten thousand real ones and blurred."""
    base = np.load(debian.DATA.parent / "bigann10k" / "base_u8.npy").astype(np.float32)
    rng = np.random.default_rng(0)
    drawn = base[rng.integers(len(base), size=rows)]
    drawn += rng.normal(0, NOISE, drawn.shape).astype(np.float32)
    return np.clip(drawn, 0, 255).round()


def loaded(database: pgvec.Database, data: str, rows: int | None) -> pgvec.Collection:
    """Return a collection of so many vectors, made if it is not there."""
    vectors = debian.vectors()[:rows] if data == "debian" else sift(rows or 500_000)
    name = f"bench_forecast_{data}_{len(vectors)}"
    if name in database.collections():
        found = database.collection(name)
        if len(found) == len(vectors):
            return found
        database.drop_collection(name)  # loading was interrupted
    distance = "cosine" if data == "debian" else "l2"
    made = database.create_collection(name, dimensions=vectors.shape[1], distance=distance, keywords=False)
    made.upsert({"id": [str(row) for row in range(len(vectors))], "vector": vectors})
    with database.connection() as connection:
        connection.execute(f"VACUUM ANALYZE {name}_dense".encode())
    return made


def memory(database: pgvec.Database, collection: pgvec.Collection, forecast: Forecast) -> float:
    """Return the bytes of memory that the server says the build takes."""
    name = collection.indexes()[0].name
    with database.dedicated_connection() as connection:
        (statement,) = connection.execute("SELECT pg_get_indexdef(%s::regclass)", [name]).fetchone() or ("",)
        collection.drop_index()
        heard: list[str] = []

        def hear(notice: psycopg.errors.Diagnostic) -> None:
            heard.append(notice.message_primary or "")
            if "no longer fits" in heard[-1]:
                connection.cancel()

        connection.add_notice_handler(hear)
        hnsw = forecast.method == "hnsw"
        limit = max(int(forecast.memory * (0.2 if hnsw else 0.97)) // MB, 3 if hnsw else 1)
        connection.execute("SET max_parallel_maintenance_workers = 0")
        connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", [f"{limit}MB"])
        try:
            connection.execute(statement.encode())
        except psycopg.Error as error:
            heard.append(str(error))
    for text in heard:
        if found := re.search(r"after (\d+) tuples", text):
            return limit * MB * forecast.rows / int(found[1])
        if found := re.search(r"memory required is (\d+) MB", text):
            return (int(found[1]) - 0.5) * MB
    return float("nan")


def measure(database: pgvec.Database, collection: pgvec.Collection, data: str, form: str, options: Any) -> Row:
    """Foretell a form, build it, and compare."""
    method, kind = form.split("-")
    given: dict[str, Any] = {"m": options.m, "ef_construction": options.ef_construction} if method == "hnsw" else {}
    collection.drop_index()
    with database.connection() as connection:
        connection.execute("TRUNCATE pgvec.index_builds, pgvec.build_calibrations")
    (forecast,) = collection.plan_index(method, form=kind, prefix=options.prefix, **given)
    collection.create_index(
        method, form=kind, prefix=options.prefix if kind == "prefix" else None, concurrently=False, **given
    )
    (built,) = collection.builds()
    real = memory(database, collection, forecast) if options.memory else float("nan")
    return Row(
        data,
        form,
        forecast.rows,
        (forecast.memory / MB, real / MB),
        (forecast.size / MB, built.size / MB),
        (forecast.seconds or float("nan"), built.seconds),
    )


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """Yield what was measured, form by form."""
    with debian.connect() as database:
        for data in options.data:
            collection = loaded(database, data, options.rows)
            for form in options.forms:
                yield measure(database, collection, data, form, options)


def main() -> None:
    """Compare all forms, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS, metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--rows", type=int, help="only so many rows; default 63,440 of debian, 500,000 of sift")
    parser.add_argument("--prefix", type=int, default=64)
    parser.add_argument("--m", type=int)
    parser.add_argument("--ef-construction", type=int)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="ask for memory, too")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    print(f"{'':31}  memory, MB (forecast | real | ratio)   disk, MB{'':26}time, s")
    rows = []
    for row in measured(options):
        rows.append(row)
        print(row, flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
