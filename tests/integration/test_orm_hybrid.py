"""Keyword search and vectors at once, as statements of SQLAlchemy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Integer, Text, TypeDecorator, bindparam, cast, insert, text, type_coerce
from sqlalchemy.orm import Session

from pgvec_toolkit import orm
from pgvec_toolkit.errors import EmbeddingError
from tests.integration.orm_shop import Base, Category, Product, engine_of
from tests.words import WordEmbedder


@dataclass(frozen=True)
class Price:
    """A price as the user has it, which no driver knows."""

    value: int


class Doubled(TypeDecorator[Price]):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Price | None, dialect: Any) -> int | None:  # noqa: ARG002
        return None if value is None else value.value // 2


def found_prices(session: Session, statement: Any, parameters: Any = None) -> set[int]:
    return {row.Product.price for row in session.execute(statement, parameters)}


def test_keywords_and_vectors_together(dsn: str) -> None:
    with engine_of(dsn) as engine, Session(engine) as session:
        Base.metadata.create_all(engine)
        embedder = WordEmbedder(16)
        session.add(Category(id=1, name="all"))
        session.flush()
        words = ["red lamp", "blue lamp", "green chair", "red chair", "old table"]
        rows = [{"id": n, "description": words[n % 5], "price": n, "stock": n, "category_id": 1} for n in range(1, 51)]
        session.execute(insert(Product), [r | {"embedding": embedder.embed_query(str(r["description"]))} for r in rows])
        assert orm.register(session, Product, keywords=True) == "products"
        assert orm.register(session, Product, keywords=True) == "products"
        session.commit()
        query = embedder.embed_query("red lamp")
        statement = orm.hybrid(Product, "red lamp", k=5, query=query)
        found = session.execute(statement).all()
        assert {row.Product.description for row in found} == {"red lamp"}
        same = session.execute(
            text("SELECT id, score FROM pgvec.hybrid_search('products', :text, CAST(:query AS vector), k => 5)"),
            {"text": "red lamp", "query": str(query.tolist())},
        ).all()
        assert [(str(row.Product.id), row.score) for row in found] == [tuple(row) for row in same]
        assert [row.rank for row in found] == [1, 2, 3, 4, 5]
        filtered = statement.where(Product.price > 40, cast(Product.stock, Text) != "it's 100% $3").limit(3)
        assert [row.Product.price > 40 for row in session.execute(filtered)] == [True] * 3
        joined = statement.join(Product.category).where(Category.name == "none")
        assert session.execute(joined).all() == []
        assert found_prices(session, statement.where(Product.price < bindparam("most", 50)), {"most": 4}) == {1, 2, 3}
        doubled = type_coerce(Product.price, Doubled)
        assert found_prices(session, statement.where(doubled.in_([Price(22), Price(32)]))) == {11, 16}
        with pytest.raises(EmbeddingError, match="which has no embedder"):
            session.execute(orm.nearest(Product, "red lamp"))


def test_tables_are_those_of_the_sessions_search_path(dsn: str) -> None:
    """The search itself has a path of its own; there, and beside the collection, are other tables of this name."""
    with engine_of(dsn, connect_args={"options": "-c search_path=public,other"}) as engine, Session(engine) as session:
        Base.metadata.create_all(engine)
        session.add_all([Category(id=n, name=f"c{n}") for n in (1, 2)])
        session.flush()
        query = WordEmbedder(16).embed_query("lamp")
        lamp = {"description": "lamp", "embedding": query, "stock": 1}
        session.execute(insert(Product), [{"id": n, "price": n, "category_id": n, **lamp} for n in (1, 2)])
        orm.register(session, Product, keywords=True)
        session.execute(text("CREATE SCHEMA other"))
        session.execute(text("ALTER TABLE categories SET SCHEMA other"))
        statement = orm.hybrid(Product, "lamp", query=query).join(Product.category).where(Category.name == "c2")
        assert found_prices(session, statement) == {2}
        session.execute(text("SET LOCAL search_path = other, public"))
        session.execute(text("CREATE TABLE public.categories AS SELECT id, 'c2' AS name FROM other.categories"))
        assert found_prices(session, statement) == {2}
