"""Latency of `orm.nearest` against SQLAlchemy with pgvector-python, written by hand, at the same ef_search.

python -m tests.bench.orm [--rows 20000] [--rounds 300] [--dsn DSN]

By hand means: a transaction, SET LOCAL hnsw.ef_search (and iterative_scan where there is a filter), a select ordered by
cosine_distance. Both load the same columns of ten rows. Sides take turns, a query each. Recall is that of both, against
numpy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Engine, Text, create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pgvec_toolkit as pgvec
from pgvec_toolkit import orm
from tests.conftest import random_vectors
from tests.integration.orm_shop import url

K, EF, DIMENSIONS = 10, 100, 384


class Base(DeclarativeBase):
    """Two models of the same table."""


class Ours(Base):
    __tablename__ = "bench_products"
    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    price: Mapped[int] = mapped_column(index=True)
    embedding: Mapped[orm.Embedding] = orm.embedding_column(DIMENSIONS, index=orm.HNSW(m=16, ef_construction=64))


class OthersBase(DeclarativeBase):
    """The other one."""


class Theirs(OthersBase):
    __tablename__ = "bench_products"
    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    price: Mapped[int]
    embedding: Mapped[Any] = mapped_column(VECTOR(DIMENSIONS))


def fill(engine: Engine, vectors: Any) -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        rows = [{"id": n + 1, "description": f"product {n}", "price": n % 1000} for n in range(len(vectors))]
        for start in range(0, len(rows), 1000):
            session.execute(
                insert(Ours), [row | {"embedding": vectors[row["id"] - 1]} for row in rows[start : start + 1000]]
            )
        session.commit()
        orm.register(session, Ours)
        session.commit()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE bench_products"))


def by_hand(engine: Engine, query: Any, price: int | None) -> list[int]:
    with Session(engine) as session, session.begin():
        session.execute(text(f"SET LOCAL hnsw.ef_search = {EF}"))
        distance = Theirs.embedding.cosine_distance(query)
        statement = select(Theirs, distance.label("distance")).order_by(distance).limit(K)
        if price is not None:
            session.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))
            statement = statement.where(Theirs.price < price)
        return [row.Theirs.id for row in session.execute(statement)]


def by_orm(engine: Engine, query: Any, price: int | None) -> list[int]:
    with Session(engine) as session, session.begin():
        statement = orm.nearest(Ours, query, k=K, ef_search=EF if price is None else None)
        if price is not None:
            statement = statement.where(Ours.price < price)
        return [row.Ours.id for row in session.execute(statement)]


def compare(engine: Engine, vectors: Any, queries: Any, price: int | None) -> str:
    sides: dict[str, Callable[..., list[int]]] = {"by hand": by_hand, "orm": by_orm}
    times: dict[str, list[float]] = {name: [] for name in sides}
    hits = dict.fromkeys(sides, 0)
    numbers, possible = np.arange(len(vectors)) % 1000, 0
    for turn, query in enumerate(queries):
        distances = 1 - vectors @ query
        if price is not None:
            distances[numbers >= price] = np.inf
        wanted = {int(n) + 1 for n in np.argsort(distances)[:K] if np.isfinite(distances[n])}
        possible += len(wanted) if turn >= 20 else 0
        for name in sorted(sides, reverse=bool(turn % 2)):
            start = time.perf_counter()
            found = sides[name](engine, query, price)
            if turn >= 20:  # prepared by then
                times[name].append(time.perf_counter() - start)
                hits[name] += len(wanted & set(found))
    median = {name: float(np.median(values)) * 1000 for name, values in times.items()}
    p95 = {name: float(np.percentile(values, 95)) * 1000 for name, values in times.items()}
    figures = "  ".join(
        f"{name} {median[name]:.2f} ms (p95 {p95[name]:.2f}) recall {hits[name] / possible:.3f}" for name in sides
    )
    filtered = "no filter" if price is None else f"price < {price}"
    return f"{filtered:>12}: {figures}  ratio {median['orm'] / median['by hand']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--dsn", help="of a migrated database; the embedded one unless told")
    options = parser.parse_args()
    vectors = random_vectors(options.rows, DIMENSIONS)
    random = np.random.default_rng(1)
    picked = vectors[random.integers(options.rows, size=options.rounds)]
    queries = picked + 0.03 * random.normal(size=picked.shape)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    with pgvec.connect(options.dsn) as db:
        engine = create_engine(url(db.dsn), connect_args={"options": "-c jit=off"})
        fill(engine, vectors)
        try:
            for price in (None, 500, 100, 20, 2):
                print(compare(engine, vectors, queries, price), flush=True)
        finally:
            db.unregister_table("bench_products")
            Base.metadata.drop_all(engine)
            engine.dispose()


if __name__ == "__main__":
    main()
