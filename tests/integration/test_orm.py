"""Searches as statements of SQLAlchemy: what they find, what they compose with, and how they are run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import (
    Column,
    Engine,
    MetaData,
    Select,
    Table,
    column,
    create_engine,
    event,
    func,
    select,
    table,
    text,
    update,
)
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    joinedload,
    selectinload,
    sessionmaker,
    with_loader_criteria,
)

from pgvec_toolkit import orm
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, EmbeddingError
from pgvec_toolkit.orm.literal import literal_sql
from tests.integration.orm_shop import ROWS, VECTORS, Base, Category, Product, Tag, engine_of, fill, recall, truth

Q = VECTORS[77] + 0.1 * VECTORS[1200]
QUERIES = [VECTORS[n] + 0.2 * VECTORS[n + 1] for n in range(0, 1900, 95)]
NAME = f"t_orm_shop_{os.getpid()}"
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def shop(server_dsn: str, template: str, janitor: Any) -> Iterator[Engine]:
    """A registered shop, which the tests of this module only read."""
    with janitor(NAME, template), engine_of(make_conninfo(server_dsn, dbname=NAME)) as engine:
        fill(engine)
        yield engine


@pytest.fixture(scope="module")
def tenants(shop: Engine) -> Engine:
    """The shop with a schema `tenant`, whose products have the vectors of the others, and other ids."""
    with shop.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
        connection.execute(text("CREATE TABLE tenant.products (LIKE public.products INCLUDING ALL)"))
        columns = "id + 9000, description, price, stock, category_id, embedding"
        connection.execute(text(f"INSERT INTO tenant.products SELECT {columns} FROM public.products WHERE id <= 100"))
    with shop.connect().execution_options(schema_translate_map={None: "tenant"}) as connection:
        orm.register(connection, Product, name="theirs")
        connection.commit()
    return shop


def ids(session: Session, statement: Any) -> list[int]:
    return [product.id for product in session.scalars(statement).unique()]


def plan(session: Session, statement: Select[Any]) -> str:
    explained = session.connection().exec_driver_sql(
        "EXPLAIN (ANALYZE, COSTS OFF) " + literal_sql(orm.tuned(session, statement)).replace("%", "%%")
    )
    return "\n".join(line for (line,) in explained)


def test_the_nearest_are_found_by_the_index_with_their_distances(shop: Engine) -> None:
    with Session(shop) as session:
        rows = session.execute(orm.nearest(Product, Q, k=5)).all()
        assert [row.Product.id for row in rows] == truth(Q, k=5)
        assert rows[0].distance == pytest.approx(1 - VECTORS[77] @ Q / np.linalg.norm(Q), abs=1e-6)
        assert [row.similarity for row in rows] == pytest.approx([1 - row.distance for row in rows])
        assert rows[0].Product.embedding.dtype == np.float32
        assert (rows[0].Product.embedding == VECTORS[77]).all()
        assert "Index Scan using ix_products_embedding" in plan(session, orm.nearest(Product, Q))
        assert "Order By: (embedding <=> " not in plan(session, orm.nearest(Product, Q, exact=True))


# What the statement becomes, and the numbers of the products that match.
FILTERS: dict[str, tuple[Change, Any]] = {
    "few": (lambda s: s.where(Product.price < 30), lambda n: n < 30),
    "few, without an index": (lambda s: s.where(Product.stock < 30), lambda n: n < 30),
    "many": (lambda s: s.where(Product.price < 1500), lambda n: n < 1500),
    "joined": (lambda s: s.join(Product.category).where(Category.name == "c3"), lambda n: n % 10 == 3),
    "exists": (lambda s: s.where(Product.category.has(Category.name == "c3")), lambda n: n % 10 == 3),
    "criteria": (
        lambda s: s.options(with_loader_criteria(Product, Product.stock >= 1900)),
        lambda n: n >= 1900,
    ),
    "in": (lambda s: s.where(Product.id.in_([1, 2, 3, 4])), lambda n: n < 4),
    "none": (lambda s: s.where(Product.price < 0), lambda n: n < 0),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_those_of_the_search(shop: Engine, name: str) -> None:
    change, matches = FILTERS[name]
    with Session(shop) as session:
        for query in QUERIES[:4]:
            found, wanted = ids(session, change(orm.nearest(Product, query))), truth(query, matches)
            assert recall(found, wanted) >= 0.9 if wanted else not found
            distances = [row.distance for row in session.execute(change(orm.nearest(Product, query)))]
            assert distances == sorted(distances)


def test_few_matches_are_compared_exactly_and_many_scan_the_index(shop: Engine) -> None:
    few, many = (orm.nearest(Product, Q).where(Product.price < price) for price in (30, 1500))
    with Session(shop) as session:
        assert ids(session, few) == truth(Q, lambda n: n < 30)
        looks = [line for line in plan(session, few).splitlines() if "ix_products_embedding" in line]
        assert looks
        assert all("never executed" in line for line in looks)
        looks = [line for line in plan(session, many).splitlines() if "ix_products_embedding" in line]
        assert any("never executed" not in line for line in looks)


def test_matches_far_from_the_query_are_found(shop: Engine) -> None:
    """The filter takes away all that is near: an index scan alone would end short."""
    with Session(shop) as session:
        near = truth(Q, k=400)
        statement = orm.nearest(Product, Q).where(Product.id.not_in(near))
        assert recall(ids(session, statement), truth(Q, lambda n: ~np.isin(n + 1, near))) == 1.0


def test_tables_may_be_named_as_parts_of_the_search_are(shop: Engine) -> None:
    with shop.connect() as connection:
        for name in ("matches", "sample", "estimate", "look"):
            connection.execute(text(f"CREATE TEMP TABLE {name} ON COMMIT DROP AS SELECT id, stock FROM products"))
            other = table(name, column("id"), column("stock"))
            products = Base.metadata.tables["products"]
            found = orm.nearest(products, Q).join(other, other.c.id == products.c.id).where(other.c.stock < 30)
            assert [row.id for row in connection.execute(orm.tuned(connection, found))] == truth(Q, lambda n: n < 30)


def test_statements_compose(shop: Engine) -> None:
    with Session(shop) as session:
        statement = orm.nearest(Product, Q).options(selectinload(Product.tags), joinedload(Product.category))
        found = session.scalars(statement.where(Product.price < 1500)).unique().all()
        session.expunge_all()
        assert [product.category.name for product in found] == [f"c{product.price % 10}" for product in found]
        assert {len(product.tags) for product in found} == {2}
        named = session.execute(orm.nearest(Product, Q, k=3).join(Product.category).add_columns(Category.name)).all()
        assert [row.name for row in named] == [f"c{(n - 1) % 10}" for n in truth(Q, k=3)]
        eager = orm.nearest(Product, Q).join(Product.category).options(contains_eager(Product.category))
        assert ids(session, eager) == truth(Q)
        twice = orm.nearest(Product, Q).join(Product.tags).where(Tag.name == "t77")
        rows = [row.Product.id for row in session.execute(twice)]
        assert rows == [n for n in truth(Q, lambda n: n % 100 == 77, k=5) for _ in "ab"]
        assert ids(session, twice.distinct()) == truth(Q, lambda n: n % 100 == 77)
        other = aliased(Product)
        assert ids(session, orm.nearest(other, Q).where(other.price < 30)) == truth(Q, lambda n: n < 30)
        with pytest.raises(ConfigurationError, match="d is the row that is looked at"):
            session.execute(orm.nearest(aliased(Product, name="d"), Q).join(Category))
        assert session.scalars(orm.nearest(Product, Q).with_only_columns(Product.price)).all() == [
            n - 1 for n in truth(Q)
        ]
        assert session.scalar(select(func.count()).select_from(orm.nearest(Product, Q).subquery())) == 10
        locked = orm.nearest(Product, Q, k=1).where(Product.price < 100).with_for_update()
        assert ids(session, locked) == truth(Q, lambda n: n < 100, k=1)


def test_pages_go_on_without_skip_or_repeat(shop: Engine) -> None:
    with Session(shop) as session:
        wanted = truth(Q, k=60)
        paged = [n for page in range(0, 60, 20) for n in ids(session, orm.nearest(Product, Q, k=20).offset(page))]
        assert recall(paged, wanted) >= 0.95
        seen: list[int] = []
        for _ in range(3):
            seen += ids(session, orm.nearest(Product, Q, k=20).where(Product.id.not_in(seen)))
        assert recall(seen, wanted) >= 0.95
        assert len(ids(session, orm.nearest(Product, Q, k=3).limit(70))) == 70
        assert len(ids(session, orm.nearest(Product, Q).limit(None))) == ROWS


def test_a_threshold_ends_the_result_but_no_scan_goes_on_for_it(shop: Engine) -> None:
    with Session(shop) as session:
        near = session.execute(orm.nearest(Product, Q, within=0.3)).all()
        assert 0 < len(near) <= 10
        assert max(row.distance for row in near) <= 0.3
        assert len(session.execute(orm.nearest(Product, Q, min_similarity=0.7)).all()) == len(near)
        statement = orm.nearest(Product, Q, within=-1.0).where(Product.price < 1500)
        assert session.execute(statement).all() == []
        rows = [line for line in plan(session, statement).splitlines() if "ix_products_embedding" in line]
        assert all("rows=2000" not in line for line in rows)


def test_more_like_an_instance_leaves_itself_out(shop: Engine) -> None:
    with Session(shop) as session:
        product = session.get_one(Product, 78)
        assert ids(session, orm.similar_to(product, k=5)) == [n for n in truth(VECTORS[77], k=6) if n != 78]
        cheap = ids(session, orm.similar_to(product, k=5).where(Product.price < 100))
        assert cheap == [n for n in truth(VECTORS[77], lambda n: n < 100, k=6) if n != 78]
        fresh = Product(embedding=VECTORS[77])
        assert ids(session, orm.similar_to(fresh, k=1)) == [78]
        with pytest.raises(ConfigurationError, match=r"products.embedding of this row is NULL"):
            orm.similar_to(Product())
        with pytest.raises(ConfigurationError, match="is no instance of a model"):
            orm.similar_to("78")


def test_plans_stay_right_when_they_are_prepared(shop: Engine) -> None:
    with Session(shop) as session:
        for price in (30, 1500):
            for query in QUERIES:
                found = ids(session, orm.nearest(Product, query).where(Product.price < price))
                assert recall(found, truth(query, lambda n, price=price: n < price)) >= 0.9
        prepared = session.scalar(
            text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%look_rows%'")
        )
        assert prepared


def test_statements_are_compiled_once(shop: Engine) -> None:
    with Session(shop) as session:
        kept = []
        for query in QUERIES:
            ids(session, orm.nearest(Product, query).where(Product.price < int(query[0] * 1000) + 2000))
            ids(session, orm.nearest(Product, query))
            kept.append(len(shop._compiled_cache or ()))
        assert kept[1] == kept[-1]


def test_no_round_trip_more_and_no_setting_stays(shop: Engine) -> None:
    sent: list[str] = []
    event.listen(shop, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
    settings = select(*(func.current_setting(name, True) for name in ("hnsw.ef_search", "hnsw.iterative_scan")))
    with Session(shop) as session:
        statement = orm.nearest(Product, Q, ef_search=333).where(Product.price < 1500)
        ids(session, statement)
        sent.clear()
        ids(session, statement)
        assert len(sent) == 1
        assert session.execute(settings).one() == ("333", "off")  # one's own SQL is as sorted as ever
        session.commit()
        assert session.execute(settings).one() in [("40", "off"), (None, None)]
        with pytest.raises(ProgrammingError):
            session.execute(orm.nearest(Product, Q).where(Product.price < func.no_such_function()))
        session.rollback()
        assert session.execute(settings).one() in [("40", "off"), (None, None)]
    with shop.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found = connection.execute(orm.tuned(connection, statement)).all()
        assert [row.id for row in found] == truth(Q, lambda n: n < 1500)
        assert connection.execute(settings).one() in [("40", "off"), (None, None)]


def test_core_tables_are_searched(shop: Engine) -> None:
    table = Base.metadata.tables["products"]
    with shop.connect() as connection:
        statement = orm.nearest(table, Q, k=4).where(table.c.price < 30)
        wanted = truth(Q, lambda n: n < 30, k=4)
        assert [row.id for row in connection.execute(statement)] == wanted
        assert [row.id for row in connection.execute(orm.tuned(connection, statement))] == wanted
        other = table.alias("other")
        statement = orm.nearest(other, Q, k=4).where(other.c.price < 30)
        assert [row.id for row in connection.execute(orm.tuned(connection, statement))] == wanted


def test_the_profile_of_the_collection_is_used(shop: Engine) -> None:
    with Session(shop) as session:
        with pytest.raises(ConfigurationError, match=r"no tuning profile of collection 'products' reaches recall 0.99"):
            session.execute(orm.nearest(Product, Q, recall=0.99))
        session.rollback()
        assert ids(session, orm.nearest(Product, Q, recall=1)) == truth(Q)
        assert "ix_products_embedding" not in plan(session, orm.nearest(Product, Q, recall=1))


def test_criteria_that_an_event_adds_are_those_of_the_search(shop: Engine) -> None:
    make, least = sessionmaker(shop), 0

    @event.listens_for(make, "do_orm_execute")
    def _(state: Any) -> None:
        if state.is_select:
            tenant = least
            criteria = with_loader_criteria(Product, lambda product: product.stock >= tenant, include_aliases=True)
            state.statement = state.statement.options(criteria)

    for least in (1990, 1980, 1980):
        with make() as session:
            event.listen(session, "do_orm_execute", lambda state: state.invoke_statement())  # as one that caches
            assert ids(session, orm.nearest(Product, Q)) == truth(Q, lambda n, least=least: n >= least)
            assert session.scalar(orm.nearest(Product, Q, k=1).with_only_columns(Product.stock)) >= least


@pytest.mark.parametrize("reported", [True, False])
def test_the_tables_are_those_that_names_mean_right_now(
    tenants: Engine, monkeypatch: pytest.MonkeyPatch, reported: bool
) -> None:
    """Whether the server reports its search path, or is older than PostgreSQL 18 and does not."""
    if not reported:
        monkeypatch.setattr(psycopg.ConnectionInfo, "parameter_status", lambda *_: None)
    theirs = {"schema_translate_map": {None: "tenant"}}
    few = orm.nearest(Product, Q).where(Product.price < 30)
    ours_found = truth(Q, lambda n: n < 30)
    theirs_found = [n + 9000 for n in ours_found]
    with Session(tenants) as session:
        for _ in "ab":
            assert ids(session, few) == ours_found
            found = session.scalars(few, execution_options=theirs).all()
            assert [product.id for product in found] == theirs_found
            assert ids(session, few.execution_options(**theirs)) == theirs_found
        for statement in (few, orm.nearest(Product, Q, ef_search=100).where(Product.stock < 30)):
            for path, wanted in (("public", ours_found), ("tenant, public", theirs_found)):
                session.execute(select(func.set_config("search_path", path, True)))
                assert ids(session, statement) == wanted


@pytest.mark.parametrize("reported", [True, False])
def test_a_role_that_may_not_use_pgvec_searches_without_it(
    shop: Engine, monkeypatch: pytest.MonkeyPatch, reported: bool
) -> None:
    if not reported:
        monkeypatch.setattr(psycopg.ConnectionInfo, "parameter_status", lambda *_: None)
    fresh = create_engine(shop.url)
    few = orm.nearest(Product, Q).where(Product.price < 30)
    with Session(shop) as informed, Session(fresh) as ignorant:
        assert ids(informed, few)
        for session in (informed, ignorant):
            session.execute(text("CREATE ROLE nobody_of_pgvec"))
            session.execute(text("GRANT SELECT ON products TO nobody_of_pgvec"))
            session.execute(text("SET LOCAL ROLE nobody_of_pgvec"))
            assert ids(session, few) == truth(Q, lambda n: n < 30)
            assert ids(session, orm.nearest(Product, Q)) == truth(Q)
            session.rollback()
    fresh.dispose()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k must be from 1 to 10000, not 0"),
        ({"ef_search": 0}, "ef_search must be from 1"),
        ({"recall": 0.9, "ef_search": 9}, "give one"),
        ({"within": 1, "min_similarity": 0}, "give one"),
        ({"within": float("nan")}, "not NaN"),
        ({"query": [1.0]}, "the query vector has 1 dimensions, not 16 dimensions"),
        ({"query": np.full(16, np.nan)}, "the query vector contains NaN"),
        ({"query": np.zeros(16)}, "the query vector is zero"),
        ({"query": " "}, "the query is empty"),
        ({"space": "image"}, r"Product has no vector column 'image'. Its vector columns: embedding"),
        ({"entity": Category}, "Category has no vector column 'embedding'. Its vector columns: none"),
        ({"entity": 7}, "7 is no mapped class"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_sent(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        orm.nearest(**{"entity": Product, "query": Q, **options})


def test_without_registration_it_is_pgvector_that_goes_on(empty_dsn: str) -> None:
    """A database without schema pgvec, too: nothing fails, and where a filter would starve the scan, it goes on."""
    with engine_of(empty_dsn) as engine:
        fill(engine, registered=False)
        with Session(engine) as session:
            session.execute(update(Product).where(Product.id == 5).values(embedding=None))
            assert ids(session, orm.nearest(Product, Q)) == truth(Q)
            assert (
                ids(session, orm.nearest(Product, Q, ef_search=200).where(Product.price < 30))
                == [n for n in truth(Q, lambda n: n < 30, k=11) if n != 5][:10]
            )
            assert len(ids(session, orm.nearest(Product, Q).join(Product.category).where(Category.name == "c3"))) == 10
            assert ids(session, orm.nearest(Product, Q, exact=True).limit(ROWS))[-1] != 5
            with pytest.raises(CollectionNotFound, match="is not registered as a collection"):
                session.execute(orm.hybrid(Product, "product"))
            with pytest.raises(EmbeddingError, match="the column is not registered"):
                session.execute(orm.nearest(Product, "product"))
            session.commit()  # the transaction is a sound one


def test_what_is_registered_is_known_when_it_is_committed(dsn: str) -> None:
    with engine_of(dsn) as engine:
        Base.metadata.create_all(engine)
        statement = orm.hybrid(Product, "lamp", query=Q)
        with Session(engine) as one, Session(engine) as two:
            orm.register(one, Product, keywords=True)
            assert one.execute(statement).all() == []
            one.rollback()
            with pytest.raises(CollectionNotFound):
                one.execute(statement)
            orm.register(one, Product, keywords=True)
            with pytest.raises(CollectionNotFound):
                two.execute(statement)
            one.commit()
            assert two.execute(statement).all() == []
        with engine.connect() as connection, connection.begin():
            connection.execute(text("SELECT pgvec.unregister_table('products')"))
            savepoint = connection.begin_nested()
            orm.register(connection, Product, keywords=True)
            savepoint.rollback()
            with pytest.raises(CollectionNotFound):
                orm.tuned(connection, statement)


def test_without_registration_k_rows_come_sorted_and_no_scan_stays_relaxed(empty_dsn: str) -> None:
    table = Base.metadata.tables["products"]
    bare = Table("products", MetaData(), *(Column(name, table.c[name].type) for name in ("id", "price", "embedding")))
    with engine_of(empty_dsn) as engine:
        fill(engine, registered=False)
        with Session(engine) as session:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            for statement in (orm.nearest(Product, Q, k=120), orm.nearest(Product, Q, k=120).where(Product.price > 9)):
                distances = [row.distance for row in session.execute(statement)]
                assert len(distances) == 120
                assert distances == sorted(distances)
                assert session.scalar(text("SELECT current_setting('hnsw.iterative_scan')")) == "off"
            twice = orm.nearest(Product, Q).join(Product.tags).where(Tag.name == "t77").distinct()
            assert ids(session, twice) == truth(Q, lambda n: n % 100 == 77)
            with pytest.raises(ConfigurationError, match="table products has no primary key"):
                session.execute(orm.nearest(bare, Q).where(bare.c.price < 30))
            exact = session.execute(orm.nearest(bare, Q, exact=True).where(bare.c.price < 30))
            assert [row.id for row in exact] == truth(Q, lambda n: n < 30)


def test_nulls_and_two_sessions(dsn: str) -> None:
    with engine_of(dsn) as engine:
        fill(engine)
        with Session(engine) as one, Session(engine) as two:
            first = truth(Q, k=1)[0]
            one.execute(update(Product).where(Product.id == first).values(embedding=None))
            assert ids(one, orm.nearest(Product, Q)) == truth(Q, k=11)[1:]
            assert ids(two, orm.nearest(Product, Q)) == truth(Q)
            one.execute(update(Product).where(Product.price > 5).values(embedding=None))
            assert len(ids(one, orm.nearest(Product, Q))) == 6
            assert len(ids(one, orm.nearest(Product, Q).where(Product.price < 2000))) == 6
