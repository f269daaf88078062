"""A model and searches of it, as somebody writes them who has mypy look at them: test_orm_typing.py does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload, sessionmaker

import pgvec_toolkit as pgvec
from pgvec_toolkit import orm


class Base(DeclarativeBase):
    """The models."""


class Product(orm.Embedded, Base, text="description", dimensions=384, distance="cosine", index=orm.HNSW(m=16)):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str]
    price: Mapped[float]
    reviews: Mapped[list[Review]] = relationship()
    image: Mapped[orm.Embedding] = orm.embedding_column(8, "halfvec", index=orm.IVFFlat(lists=10))


class Review(Base):
    __tablename__ = "reviews"
    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))


def search(session: Session, query: orm.Embedding) -> list[Product]:
    statement = orm.nearest(Product, query, k=5, within=0.5, space=Product.image).where(Product.price < 100)
    for row in session.execute(statement):
        assert_type(row[0], Product)
        print(row.distance, row.similarity)
    found = session.scalars(statement.options(selectinload(Product.reviews)).limit(3)).all()
    assert_type(found, Sequence[Product])
    assert_type(found[0].embedding, orm.Embedding | None)
    assert_type(found[0].image, orm.Embedding)
    assert_type(session.scalars(orm.similar_to(found[0])).first(), Product | None)
    assert_type(session.scalars(orm.hybrid(Product, "red lamp", k=3)).first(), Product | None)
    return list(found)


async def search_later(session: AsyncSession) -> Product:
    return (await session.scalars(pgvec.orm.nearest(Product, "red lamp"))).one()


def prepare(make: sessionmaker[Session]) -> None:
    orm.embed_on_flush(make, later=True)
    with make() as session:
        assert_type(orm.register(session, Product, keywords=True), str)
        tuned = orm.tuned(session, orm.nearest(Product, "red lamp"))
        assert_type(session.scalars(tuned).one(), Product)
