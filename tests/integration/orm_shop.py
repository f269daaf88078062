"""The models of a shop, and its tables filled with clustered vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, ForeignKey, create_engine, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from pgvec_toolkit import orm
from tests.conftest import random_vectors

ROWS, DIMENSIONS = 2000, 16
VECTORS = random_vectors(ROWS, DIMENSIONS, seed=5)
NUMBERS = np.arange(ROWS)


class Base(DeclarativeBase):
    """The shop's models."""


class Category(Base):
    __tablename__ = "categories"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    products: Mapped[list[Product]] = relationship(back_populates="category")


class Product(orm.Embedded, Base, text="description", dimensions=DIMENSIONS, index=orm.HNSW(m=12, ef_construction=60)):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str | None]
    price: Mapped[int] = mapped_column(index=True)
    stock: Mapped[int]
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"))
    category: Mapped[Category] = relationship(back_populates="products")
    tags: Mapped[list[Tag]] = relationship(back_populates="product")


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), index=True)
    product: Mapped[Product] = relationship(back_populates="tags")


def url(dsn: str, **options: str) -> Any:
    """Return a DSN of libpq as what SQLAlchemy takes."""
    from psycopg.conninfo import conninfo_to_dict
    from sqlalchemy import URL

    parts = {**conninfo_to_dict(dsn), **options}
    user, password, database = parts.pop("user", None), parts.pop("password", None), parts.pop("dbname", None)
    return URL.create("postgresql+psycopg", user, password, database=database, query=parts)


@contextmanager
def engine_of(dsn: str, **options: Any) -> Iterator[Engine]:
    """An engine, disposed of at the end."""
    engine = create_engine(url(dsn), **options)
    try:
        yield engine
    finally:
        engine.dispose()


def fill(engine: Engine, *, registered: bool = True) -> None:
    """Make the tables: product n costs n, is of category n % 10, has tag t<n % 100> twice, and vector n - 1."""
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(insert(Category), [{"id": number, "name": f"c{number}"} for number in range(10)])
        rows = [
            {"id": n + 1, "description": f"product {n}", "price": n, "stock": n, "category_id": n % 10}
            for n in range(ROWS)
        ]
        session.execute(insert(Product), [row | {"embedding": VECTORS[row["price"]]} for row in rows])
        session.execute(insert(Tag), [{"name": f"t{n % 100}", "product_id": n + 1} for n in range(ROWS) for _ in "ab"])
        session.commit()
        session.execute(text("ANALYZE"))
        session.commit()
        if registered:
            orm.register(session, Product)
            session.commit()


def truth(query: NDArray[Any], matches: Callable[[NDArray[Any]], Any] = lambda n: n >= 0, k: int = 10) -> list[int]:
    """Return the ids of the k nearest of those whose number matches, by an exact scan."""
    distances = 1 - VECTORS @ query / np.linalg.norm(query)
    distances[~matches(NUMBERS)] = np.inf
    return [int(n) + 1 for n in np.argsort(distances, kind="stable")[:k] if np.isfinite(distances[n])]


def recall(found: list[int], wanted: list[int]) -> float:
    """Return the share of the wanted that was found; never more than the found say."""
    assert len(found) == len(set(found)) == len(wanted)
    return len(set(found) & set(wanted)) / len(wanted)
