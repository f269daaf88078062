"""Embedding on flush: what is embedded, when, and what happens if that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from pgvec_toolkit import orm
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, RejectedText
from tests.integration.orm_shop import Base, Category, Product, engine_of
from tests.words import WordEmbedder


class Counting(WordEmbedder):
    """Counts its calls; refuses what is "bad", and breaks at what is "worse"."""

    def __init__(self) -> None:
        super().__init__(16)
        self.batches: list[list[str]] = []

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        if "bad" in texts:
            raise RejectedText("the text is bad", (list(texts).index("bad"),))
        if "worse" in texts:
            raise RuntimeError("out of order")
        return super().embed_documents(texts)


@pytest.fixture
def engine(dsn: str) -> Iterator[Engine]:
    with engine_of(dsn) as engine:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Category(id=1, name="all"))
            session.commit()
        yield engine


def product(text: str | None, **more: object) -> Product:
    return Product(description=text, price=1, stock=1, category_id=1, **more)


def test_texts_that_changed_are_embedded_in_one_batch(engine: Engine) -> None:
    embedder = Counting()
    make = sessionmaker(engine)
    orm.embed_on_flush(make, embedder)
    with make() as session:
        given = np.ones(16, np.float32)
        lamps, empty, own = [product("red lamp"), product("blue lamp")], product(None), product("x", embedding=given)
        session.add_all([*lamps, empty, own])
        session.commit()
        assert embedder.batches == [["red lamp", "blue lamp"]]
        assert np.allclose(lamps[0].embedding, embedder.embed_query("red lamp"))
        assert empty.embedding is None
        assert np.array_equal(own.embedding, given)
        lamps[0].price = 2
        assert lamps[1].description == "blue lamp"
        lamps[1].description = "blue lamp"
        session.commit()
        assert len(embedder.batches) == 1
        lamps[0].description, lamps[1].description = "green lamp", " "
        session.commit()
        assert embedder.batches[1:] == [["green lamp"]]
        assert lamps[1].embedding is None
        found = session.scalars(orm.nearest(Product, embedder.embed_query("green lamp"), k=1)).one()
        assert found is lamps[0]
        session.execute(insert(Product), [{"description": "bulk", "price": 1, "stock": 1, "category_id": 1}])
        assert len(embedder.batches) == 2  # what the unit of work does not see


def test_an_embedder_that_fails_fails_the_flush(engine: Engine) -> None:
    with Session(engine) as session:
        orm.embed_on_flush(session, Counting())
        session.add_all([product("good"), product("bad")])
        with pytest.raises(RejectedText, match=r"the text is bad \(<.*Product"):
            session.flush()
        session.rollback()
        session.add(product("worse"))
        with pytest.raises(EmbeddingError, match="embedder test/words failed, nothing was written: out of order"):
            session.commit()
        session.rollback()
        assert session.scalars(select(Product)).all() == []
        session.add(product("good"))
        session.commit()
        assert session.scalars(select(Product)).one().embedding is not None


def test_a_text_that_no_attribute_is_is_named(engine: Engine) -> None:
    class Models(DeclarativeBase):
        pass

    class Letter(orm.Embedded, Models, text="bodi", dimensions=16):
        __tablename__ = "letters"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]

    with Session(engine) as session:
        orm.embed_on_flush(session, Counting())
        session.add(Letter(body="dear all"))
        with pytest.raises(ConfigurationError, match="Letter has no attribute 'bodi' to embed"):
            session.flush()


def test_later_leaves_a_gap_for_the_worker(engine: Engine) -> None:
    with Session(engine) as session:
        orm.embed_on_flush(session, later=True)
        one = product("red lamp", embedding=np.ones(16))
        session.add(one)
        session.commit()
        assert one.embedding is not None
        one.description = "blue lamp"
        session.commit()
        assert one.embedding is None


def test_without_an_embedder_it_says_so(engine: Engine) -> None:
    with Session(engine) as session:
        orm.embed_on_flush(session)
        session.add(product("red lamp"))
        with pytest.raises(EmbeddingError, match=r"no embedder for column products.embedding.*is not registered"):
            session.flush()
