"""Searches of an AsyncSession, and behind a pooler that lends connections for a transaction."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, NullPool, event, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    selectinload,
    with_loader_criteria,
)

from pgvec_toolkit import orm
from pgvec_toolkit.database import Database
from tests.integration.orm_shop import VECTORS, Category, Product, engine_of, fill, truth
from tests.pooler import pgbouncer
from tests.words import WordEmbedder

Q = VECTORS[77]
NAME = f"t_orm_pools_{os.getpid()}"
SETTINGS = select(
    *(func.current_setting(name, True) for name in ("hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples"))
)
UNTOUCHED = [("40", "off", "20000"), (None, None, None)]


class Patient(WordEmbedder):
    """Embeds once an event loop has had its turn meanwhile."""

    def __init__(self) -> None:
        super().__init__(8)
        self.turn = threading.Event()

    def embed_query(self, text: str) -> NDArray[np.float32]:
        assert self.turn.wait(5), "the event loop stands still"
        return super().embed_query(text)


PATIENT = Patient()


class Notes(DeclarativeBase):
    """A model that embeds for itself."""


class Note(orm.Embedded, Notes, text="body", embedder=PATIENT):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]


@pytest.fixture(scope="module")
def dsn(server_dsn: str, template: str, janitor: Any) -> Iterator[str]:
    with janitor(NAME, template):
        yield make_conninfo(server_dsn, dbname=NAME)


@pytest.fixture(scope="module")
def shop(dsn: str) -> Iterator[Engine]:
    with engine_of(dsn) as engine:
        fill(engine)
        yield engine


def test_an_async_session_searches_as_a_session_does(shop: Engine) -> None:
    async def search(session: AsyncSession, price: int) -> list[int]:
        statement = orm.nearest(Product, Q).where(Product.price < price).options(selectinload(Product.tags))
        found = (await session.scalars(statement)).all()
        assert {len(product.tags) for product in found} <= {2}
        return [product.id for product in found]

    async def searches() -> None:
        engine = create_async_engine(shop.url)
        try:
            make = async_sessionmaker(engine)

            async def one(price: int) -> list[int]:
                async with make() as session:
                    return await search(session, price)

            prices = [10, 30, 100, 500] * 3
            found = await asyncio.gather(*map(one, prices))
            assert found == [truth(Q, lambda n, price=price: n < price) for price in prices]
            async with make() as session:
                dear = with_loader_criteria(Product, Product.stock >= 1900)

                @event.listens_for(session.sync_session, "do_orm_execute")
                def _(state: Any) -> None:
                    state.statement = state.statement.options(dear)

                assert [product.id for product in await session.scalars(orm.nearest(Product, Q))] == truth(
                    Q, lambda n: n >= 1900
                )
                streamed = await session.stream_scalars(orm.nearest(Product, Q))
                assert len(await streamed.all()) == 10
            async with engine.connect() as connection:
                statement = await connection.run_sync(orm.tuned, orm.nearest(Product.__table__, Q, k=3))
                assert [row.id for row in await connection.execute(statement)] == truth(Q, k=3)
                await connection.rollback()
                assert (await connection.execute(SETTINGS)).one() in UNTOUCHED
        finally:
            await engine.dispose()

    asyncio.run(searches())


def test_the_event_loop_goes_on_while_texts_are_embedded(shop: Engine) -> None:
    PATIENT.turn.set()
    Notes.metadata.create_all(shop)
    with Session(shop) as registering:
        orm.register(registering, Note, keywords=True)
        registering.commit()

    async def searches() -> None:
        loop = asyncio.get_running_loop()
        engine = create_async_engine(shop.url)
        make = async_sessionmaker(engine, sync_session_class=type("Embedding", (Session,), {}))
        orm.embed_on_flush(make.kw["sync_session_class"])

        async def meanwhile(awaitable: Awaitable[Any]) -> Any:
            PATIENT.turn.clear()
            loop.call_soon(loop.call_soon, PATIENT.turn.set)
            return await awaitable

        async with make() as session:
            session.add(Note(body="red lamp"))
            await meanwhile(session.flush())
            nearest = orm.nearest(Note, "red lamp")
            assert (await meanwhile(session.scalars(nearest))).one().body == "red lamp"
            assert await meanwhile(session.scalar(select(func.count()).select_from(nearest.subquery()))) == 1
            assert (await meanwhile(session.scalars(orm.hybrid(Note, "red lamp")))).one().body == "red lamp"
        await engine.dispose()

    asyncio.run(searches())


def test_what_was_tuned_is_what_sessions_search_with(shop: Engine, dsn: str) -> None:
    with Database(dsn) as db, Session(shop) as session:
        db.collection("products").tune(recall=0.9, k=7, progress=False)
        (setting,) = db.fetch("SELECT setting FROM pgvec.profiles('products') WHERE k = 7")[0]
        session.scalars(orm.nearest(Product, Q, k=7)).all()
        assert session.scalar(select(func.current_setting("hnsw.ef_search"))) == str(setting)
        session.rollback()
        assert session.execute(SETTINGS).one() in UNTOUCHED


def test_engines_connect_as_they_are_told(dsn: str) -> None:
    arguments = {"options": "-c statement_timeout=1234", "prepare_threshold": None}
    asked = select(func.current_setting("statement_timeout"))
    engine, async_engine = (make(dsn, connect_args=arguments) for make in (orm.engine, orm.async_engine))
    with engine.connect() as connection:
        assert connection.scalar(asked) == "1234ms"
        assert connection.connection.driver_connection.prepare_threshold is None
    engine.dispose()

    async def connect() -> None:
        async with async_engine.connect() as connection:
            assert await connection.scalar(asked) == "1234ms"
            assert (await connection.get_raw_connection()).driver_connection.prepare_threshold is None
        await async_engine.dispose()

    asyncio.run(connect())


def test_behind_a_transaction_pooler_nothing_is_left_or_lost(shop: Engine, dsn: str) -> None:  # noqa: ARG001
    with (
        tempfile.TemporaryDirectory() as folder,
        pgbouncer(dsn, Path(folder), size=1) as pooled,
        engine_of(pooled, poolclass=NullPool, connect_args={"prepare_threshold": None}) as engine,
    ):
        few = orm.nearest(Product, Q).where(Product.price < 30)
        joined = orm.nearest(Product, Q, ef_search=321).join(Product.category).where(Category.name == "c7")
        for _ in range(8):
            with Session(engine) as one, Session(engine) as two:
                assert [product.id for product in one.scalars(few)] == truth(Q, lambda n: n < 30)
                one.commit()  # the other one gets the same server connection
                assert [product.id for product in two.scalars(joined)] == truth(Q, lambda n: n % 10 == 7)
                two.commit()
                assert one.execute(SETTINGS).one() in UNTOUCHED
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            assert len(connection.execute(orm.tuned(connection, joined)).all()) == 10
            assert connection.execute(SETTINGS).one() in UNTOUCHED
