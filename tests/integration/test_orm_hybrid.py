"""Keyword search and vectors at once, as statements of SQLAlchemy."""

from __future__ import annotations

import pytest
from sqlalchemy import Text, cast, insert, text
from sqlalchemy.orm import Session

from pgvec_toolkit import orm
from pgvec_toolkit.errors import EmbeddingError
from tests.integration.orm_shop import Base, Category, Product, engine_of
from tests.words import WordEmbedder


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
        with pytest.raises(EmbeddingError, match="which has no embedder"):
            session.execute(orm.nearest(Product, "red lamp"))
