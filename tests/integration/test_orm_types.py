"""Vector columns: their types, indexes and values, and how models declare them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pgvector import HalfVector, SparseVector, Vector
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, create_engine, func, insert, inspect, select
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column

from pgvec_toolkit import orm
from pgvec_toolkit.errors import ConfigurationError
from tests.integration.orm_shop import engine_of
from tests.words import WordEmbedder


class Base(DeclarativeBase):
    """Models of this module."""


class Picture(Base):
    __tablename__ = "pictures"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[orm.Embedding] = orm.embedding_column(3, distance="l2", index=orm.HNSW(m=4, ef_construction=20))
    half: Mapped[orm.Embedding | None] = orm.embedding_column(3, "halfvec", index=orm.IVFFlat(lists=2))
    bits: Mapped[Any | None] = orm.embedding_column(3, "bit", index=orm.HNSW(), name="its_bits")
    words: Mapped[SparseVector | None] = orm.embedding_column(3, "sparsevec", "inner_product")


class Animal(orm.Embedded, Base, text="sound", dimensions=3):
    __tablename__ = "animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    sound: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


class Dog(Animal):
    __tablename__ = "dogs"
    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    breed: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Note(orm.Embedded, Base, text="body", embedder=WordEmbedder(8), index=None):
    __abstract__ = True


class Letter(Note):
    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]


class DataBase(MappedAsDataclass, DeclarativeBase):
    """Models that are data classes."""


class Point(orm.Embedded, DataBase, text="label", dimensions=3):
    __tablename__ = "points"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    label: Mapped[str]


def test_values_come_back_as_float32(dsn: str) -> None:
    with engine_of(dsn) as engine, Session(engine) as session:
        Base.metadata.create_all(engine)
        given = [[1, 2, 3], np.array([1.5, 2, 3]), Vector([1, 2, 3]), HalfVector([1, 2, 3]), np.arange(3)]
        halves = [HalfVector([1, 2, 3]), [1, 2, -3], None, np.ones(3, np.float16), (0.5, 0, 0)]
        bits = [[True, False, True], "011", None, np.array([0, 0, 1]), np.array([True, True, True])]
        words = [{1: 2.0}, SparseVector({0: 1.0}, 3), None, [0, 0, 5], {"2": 1}]
        session.execute(
            insert(Picture),
            [
                {"title": a, "half": b, "bits": c, "words": d}
                for a, b, c, d in zip(given, halves, bits, words, strict=True)
            ],
        )
        session.commit()
        pictures = session.scalars(select(Picture).order_by(Picture.id)).all()
        assert [picture.title.tolist() for picture in pictures] == [
            [1, 2, 3],
            [1.5, 2, 3],
            [1, 2, 3],
            [1, 2, 3],
            [0, 1, 2],
        ]
        assert {picture.title.dtype for picture in pictures} == {np.dtype(np.float32)}
        assert [None if p.half is None else (p.half.dtype, p.half[0]) for p in pictures][:3] == [
            ("float32", 1),
            ("float32", 1),
            None,
        ]
        assert [None if p.bits is None else p.bits.tolist() for p in pictures] == [
            [1, 0, 1],
            [0, 1, 1],
            None,
            [0, 0, 1],
            [1, 1, 1],
        ]
        assert [None if p.words is None else p.words.to_list() for p in pictures][:2] == [[0, 2, 0], [1, 0, 0]]
        pictures[0].title = [1, 2, 3]
        assert not session.is_modified(pictures[0])
        pictures[0].title = [1, 2, 4]
        session.commit()
        assert pictures[0].title.tolist() == [1, 2, 4]
        for space, query in {"title": [1, 2, 4], "half": [1, 2, 3], "bits": "101", "words": {1: 2.0}}.items():
            found = session.execute(orm.nearest(Picture, query, k=1, space=space)).one()
            assert found.Picture is pictures[0], space
        jaccard = session.execute(select(func.min(Picture.bits.jaccard_distance("101")))).scalar()
        assert jaccard == 0
        with pytest.raises(ConfigurationError, match="Picture has several vector columns: give space="):
            orm.nearest(Picture, [1, 2, 3])


@pytest.mark.parametrize(
    ("value", "said"),
    [([1, 2], "has 2 dimensions, not 3"), ([1, 2, np.nan], "contains NaN"), ("abc", "is not a list of numbers")],
)
def test_what_is_no_vector_is_refused_before_it_is_sent(value: Any, said: str) -> None:
    # No server listens there: nothing could be sent.
    engine = create_engine("postgresql+psycopg://nowhere.invalid/none")
    processor = Picture.__table__.c.title.type.dialect_impl(engine.dialect).bind_processor(engine.dialect)
    with pytest.raises(ConfigurationError, match=said):
        processor(value)


def test_errors_of_values_name_what_is_wrong(dsn: str) -> None:
    with engine_of(dsn) as engine, Session(engine) as session:
        Base.metadata.create_all(engine)
        session.add(Picture(title=[1.0, 2.0]))
        with pytest.raises(StatementError, match="the vector has 2 dimensions, not 3 dimensions"):
            session.flush()


def test_indexes_are_those_that_were_declared(dsn: str) -> None:
    with engine_of(dsn) as engine:
        Base.metadata.create_all(engine)
        DataBase.metadata.create_all(engine)
        with engine.connect() as connection:
            made = connection.exec_driver_sql(
                "SELECT indexdef FROM pg_indexes WHERE indexdef ~ 'USING (hnsw|ivfflat)' ORDER BY indexname"
            )
            assert [definition.partition("ON public.")[2] for (definition,) in made] == [
                "animals USING hnsw (embedding vector_cosine_ops) WITH (m='24', ef_construction='200')",
                "pictures USING ivfflat (half halfvec_cosine_ops) WITH (lists='2')",
                "pictures USING hnsw (its_bits bit_hamming_ops) WITH (m='24', ef_construction='200')",
                "pictures USING hnsw (title vector_l2_ops) WITH (m='4', ef_construction='20')",
                "points USING hnsw (embedding vector_cosine_ops) WITH (m='24', ef_construction='200')",
            ]
        table = Table("pictures", MetaData(), autoload_with=engine)
        assert {column.name: str(column.type) for column in table.columns} == {
            "id": "INTEGER",
            "title": "VECTOR(3)",
            "half": "HALFVEC(3)",
            "its_bits": "BIT",
            "words": "SPARSEVEC(3)",
        }
        # A reflected table says by its index how it is compared.
        with engine.connect() as connection:
            assert "<->" in str(orm.nearest(table, [1, 2, 3], space="title"))
            assert connection.execute(orm.nearest(table, [1, 2, 3], space="title")).all() == []


def test_a_copied_table_has_its_indexes_once(dsn: str) -> None:
    copies = MetaData()
    for table in Base.metadata.tables.values():
        assert len(table.to_metadata(copies).indexes) == len(table.indexes)
    with engine_of(dsn) as engine:
        copies.create_all(engine)
        assert len(inspect(engine).get_indexes("pictures")) == 3


def test_models_of_all_kinds_have_the_column(dsn: str) -> None:
    assert inspect(Letter).columns.embedding.type.dim == 8
    assert inspect(Letter).columns.embedding.info["pgvec"].embedder.name == "test/words"
    point = Point("here")
    assert (point.embedding, point) == (None, Point("here"))
    with engine_of(dsn) as engine, Session(engine) as session:
        Base.metadata.create_all(engine)
        session.add_all(
            [
                Cat(sound="miaow", embedding=[1, 0, 0]),
                Dog(sound="woof", breed="pug", embedding=[1, 0.1, 0]),
                Animal(sound="moo", embedding=[1, 0.2, 0]),
                Letter(body="dear all", embedding=WordEmbedder(8).embed_query("dear all")),
            ]
        )
        session.commit()
        orm.register(session, Animal)
        assert [type(animal) for animal in session.scalars(orm.nearest(Animal, [1, 0, 0]))] == [Cat, Dog, Animal]
        for kind in (Cat, Dog):
            assert [type(animal) for animal in session.scalars(orm.nearest(kind, [1, 0, 0]))] == [kind]
        dog = session.scalars(orm.nearest(Dog, [1, 0, 0]).where(Dog.breed == "pug")).one()
        assert [type(animal) for animal in session.scalars(orm.similar_to(dog))] == []
        assert session.scalars(orm.nearest(Letter, "dear all")).one().body == "dear all"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dimensions": 3, "type": "text"}, "type text"),
        ({"dimensions": 3, "type": "bit", "distance": "l2"}, "no index of type bit by distance l2"),
        ({"dimensions": 3000, "index": orm.HNSW()}, "at most 2,000 dimensions, not 3,000"),
        ({"dimensions": 3, "index": orm.IVFFlat()}, "IVFFlat needs lists"),
        ({"dimensions": 3, "distance": "l1", "index": orm.IVFFlat(3)}, "no IVFFlat index for type vector"),
        ({"dimensions": 3, "embedder": WordEmbedder(8)}, "makes 8 dimensions, the column has 3"),
    ],
)
def test_columns_that_cannot_be_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        orm.embedding_column(**arguments)


def test_a_core_table_says_its_distance_by_its_index() -> None:
    from sqlalchemy import Index

    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("v", orm.Vector(3)))
    assert "<=>" in str(orm.nearest(table, [1, 2, 3]))
    Index("i", table.c.v, postgresql_using="hnsw", postgresql_ops={"v": "vector_ip_ops"})
    assert "<#>" in str(orm.nearest(table, [1, 2, 3]))
