"""Operations in revisions written by hand: online, offline, concurrently, beside the user's own heads."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgvec_toolkit import orm
from pgvec_toolkit.alembic.collection_operations import table_name
from pgvec_toolkit.alembic.vector_index import VectorIndex, checked
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, IndexBuildError
from pgvec_toolkit.schema.migrate import upgrade
from tests.integration.alembic_project import Project
from tests.integration.examples import psql
from tests.integration.test_alembic_autogenerate import hnsw, items

INDEXES = """
SELECT i.relname, x.indisvalid, pg_get_indexdef(i.oid) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am a ON a.oid = i.relam WHERE a.amname IN ('hnsw', 'ivfflat') ORDER BY 1
"""
TABLE = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE items (id int PRIMARY KEY, price int, embedding vector(3));
INSERT INTO items SELECT n, n - 1, ARRAY[n, 1, 1] FROM generate_series(1, 5) n;
"""
MODEL = {"name": "static:none", "fingerprint": "f", "dimensions": 3, "max_tokens": None, "details": {"a b": ":c %"}}
COLLECTION = f"""op.migrate_pgvec()
    op.create_collection("docs", dimensions=3, columns={{"year": int}}, distance="l2", model={MODEL!r})
    op.add_vector_space("docs", "title", dimensions=4, type="halfvec")
    op.create_vector_index("by l2", "docs_dense", "embedding", distance="l2", m=8, concurrently=True)
    op.drop_vector_index("by l2", "docs_dense", concurrently=True)
    op.create_vector_index("docs_half", "docs_dense", "embedding", distance="l2", cast="halfvec(3)", where="key > 0")
    op.execute("CREATE TABLE after (n int)")"""
AWAY = """op.execute("DROP TABLE after")
    op.drop_vector_index("docs_half", "docs_dense")
    op.drop_vector_space("docs", "title")
    op.drop_collection("docs")"""


def project_in(folder: Path, dsn: str) -> Iterator[Project]:
    project = Project(folder / "migrations", dsn)
    yield project
    project.close()


@pytest.fixture
def project(empty_dsn: str, tmp_path: Path) -> Iterator[Project]:
    yield from project_in(tmp_path, empty_dsn)


@pytest.fixture
def migrated(dsn: str, tmp_path: Path) -> Iterator[Project]:
    yield from project_in(tmp_path, dsn)


def run_in_psql(dsn: str, script: str) -> None:
    options = ("-q", "-v", "ON_ERROR_STOP=1")
    done = subprocess.run(psql(dsn, *options), input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_vectors_are_kept_where_they_can_be_and_where_not_a_revision_says_so(project: Project) -> None:
    project.autogenerate(items(hnsw()))
    project.upgrade()
    project.run("INSERT INTO items VALUES (1, 1, 'a', '[1,2,3]')")

    half = items(hnsw(ops={"embedding": "halfvec_l2_ops"}), type=HALFVEC(3))
    assert "USING" not in project.autogenerate(half)
    project.upgrade()
    assert project.run("SELECT embedding::text FROM items") == [("[1,2,3]",)]

    project.options["render_as_batch"] = True
    text = project.autogenerate(items(type=HALFVEC(4)))
    assert "batch_op.alter_column('embedding'" in text
    assert "import pgvector.sqlalchemy\n" in text
    assert "# No halfvec(3) can become a halfvec(4): this empties the column" in text
    assert "concurrently" not in text
    project.upgrade()
    assert project.run("SELECT embedding FROM items") == [(None,)]

    project.run("UPDATE items SET embedding = '[1,2,3,4]'")
    project.autogenerate(items(type=HALFVEC(4), nullable=False))
    project.upgrade()
    project.autogenerate(items(type=VECTOR(9), nullable=False))
    with pytest.raises(sa.exc.IntegrityError, match="contains null values"):
        project.upgrade()
    assert project.run("SELECT embedding::text FROM items") == [("[1,2,3,4]",)]


def test_columns_of_orm_become_plain_ones_of_pgvector(project: Project) -> None:
    class Base(DeclarativeBase):
        pass

    class Product(orm.Embedded, Base, text="name", dimensions=3):
        __tablename__ = "products"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        half: Mapped[orm.Embedding] = orm.embedding_column(3, "halfvec", index=orm.IVFFlat(lists=5))
        sparse: Mapped[Any] = orm.embedding_column(9, "sparsevec", "l2", index=orm.HNSW(m=8))
        bits: Mapped[Any] = orm.embedding_column(8, "bit", index=orm.HNSW())

    text = project.autogenerate(Base.metadata)
    assert text.count("op.create_vector_index('ix_products_") == 4
    for column in ("VECTOR(3)", "HALFVEC(3)", "SPARSEVEC(9)", "BIT(8)"):
        assert f"pgvector.sqlalchemy.{column}" in text
    assert "pgvec_toolkit" not in text
    project.upgrade()
    assert project.differences(Base.metadata) == []


def test_a_build_that_fails_leaves_no_invalid_index_and_may_be_repeated(project: Project) -> None:
    project.run(TABLE)
    build = 'op.create_vector_index("ix", "items", "embedding", distance="cosine", {}concurrently=True)'
    project.write("1", build.format('where="10 / price > 1", '))  # of one row the price is 0
    with pytest.raises(sa.exc.DataError, match="division by zero"):
        project.upgrade()
    assert project.run(INDEXES) == []

    # As a server leaves it that is killed in the midst of it.
    with psycopg.connect(project.dsn, autocommit=True) as connection, pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("CREATE INDEX CONCURRENTLY ix ON items (price) WHERE 10 / price > 1")
    project.write("1", build.format('if_not_exists=True, maintenance_work_mem="77MB", workers=0, '))
    seen: list[str] = []

    @sa.event.listens_for(project.engine, "before_cursor_execute")
    def _(_, cursor, statement, *__):
        if "CREATE INDEX" in statement:
            seen.extend(cursor.connection.execute("SHOW maintenance_work_mem").fetchone())

    project.upgrade()
    ((name, valid, definition),) = project.run(INDEXES)
    assert (name, valid, "hnsw (embedding vector_cosine_ops)" in definition) == ("ix", True, True)
    assert seen == ["77MB"]
    assert project.run("SHOW maintenance_work_mem") != [("77MB",)]


def test_a_build_waits_neither_for_that_of_another_nor_leaves_a_transaction_of_another(project: Project) -> None:
    project.run(TABLE)
    create = "CREATE INDEX CONCURRENTLY ix ON items USING hnsw (embedding vector_l2_ops)"
    there = (
        "SELECT FROM pg_class c JOIN pg_stat_progress_create_index p ON p.index_relid = c.oid WHERE c.relname = 'ix'"
    )
    project.write("1", 'op.create_vector_index("ix", "items", "embedding", distance="l2", concurrently=True)')
    with (
        psycopg.connect(project.dsn) as writer,
        psycopg.connect(project.dsn, autocommit=True) as builder,
        ThreadPoolExecutor() as threads,
    ):
        writer.execute("DELETE FROM items WHERE id = 1")  # the build waits for it to end
        built = threads.submit(builder.execute, create)
        while not project.run(there):
            assert not built.done()
        with pytest.raises(IndexBuildError, match="ix is being built by another session"):
            project.upgrade()
        writer.rollback()
        built.result()
    assert [row[:2] for row in project.run(INDEXES)] == [("ix", True)]

    with project.engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with pytest.raises(ConfigurationError, match="given a connection that is in one"):
            operations.drop_vector_index("ix", "items", concurrently=True)


def test_scripts_of_all_operations_run_in_psql_there_and_back(project: Project) -> None:
    project.write("1", COLLECTION, AWAY)
    run_in_psql(project.dsn, project.sql())
    with Database(project.dsn) as database:
        database.check_migrated()
        assert database.collections() == ["docs"]
        assert database.models()[0].details == MODEL["details"]
    ((name, valid, definition),) = project.run(INDEXES)
    assert (name, valid) == ("docs_half", True)
    assert "((embedding)::halfvec(3)) halfvec_l2_ops) WHERE (key > 0)" in definition
    run_in_psql(project.dsn, project.sql("1:base", down=True))
    assert project.run("SELECT to_regclass('docs'), to_regclass('after')") == [(None, None)]

    project.upgrade()  # the same by Alembic itself
    with Database(project.dsn) as database:
        assert database.collection("docs").columns == {"year": "bigint"}
    project.downgrade("base")
    assert project.run("SELECT to_regclass('docs')") == [(None,)]


def test_schema_pgvec_keeps_to_itself_beside_several_heads_of_the_user(project: Project) -> None:
    created = "op.migrate_pgvec(); op.execute(\"CREATE TABLE a AS SELECT current_setting('search_path') AS path\")"
    project.write("a1", created, "op.drop_table('a')", label="a")
    project.write("b1", "op.create_table('b')", "op.drop_table('b')", label="b")
    project.write("b2", "op.create_collection('docs', dimensions=3)", "op.drop_collection('docs')", down="b1")
    project.upgrade("a@head")
    project.upgrade("b@head")
    assert sorted(project.run("SELECT version_num FROM alembic_version")) == [("a1",), ("b2",)]
    with Database(project.dsn) as database:
        database.check_migrated()
    assert project.run("SELECT path FROM a") == project.run("SHOW search_path")
    project.downgrade("b@base")
    assert project.run("SELECT version_num FROM alembic_version") == [("a1",)]
    assert project.run("SELECT count(*) FROM pgvec.collections") == [(0,)]
    project.upgrade("heads")
    assert project.run("SELECT name FROM pgvec.collections") == [("docs",)]


def test_an_asynchronous_driver_runs_all_but_what_migrates_schema_pgvec(project: Project) -> None:
    project.run("CREATE EXTENSION vector")
    items().create_all(project.engine)
    model = items(hnsw())

    def migrate(connection: sa.Connection) -> None:
        context = MigrationContext.configure(connection)
        with context.begin_transaction():
            operations = Operations(context)
            operations.create_vector_index("ix", "items", "embedding", distance="l1", concurrently=True)
            operations.create_vector_index("ix", "items", "embedding", distance="l2", concurrently=True, replace=True)
            with pytest.raises(ConfigurationError, match="run `pgvec migrate` before"):
                operations.migrate_pgvec()
            upgrade(project.dsn)
            operations.migrate_pgvec()

    async def run() -> Any:
        engine = create_async_engine(
            "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(project.dsn)
        )
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
            found = await connection.run_sync(
                lambda connection: compare_metadata(MigrationContext.configure(connection), model)
            )
        await engine.dispose()
        return found

    ((removed, added),) = asyncio.run(run())
    assert (removed[0], added[0]) == ("remove_index", "add_index")


def test_autogenerate_leaves_alone_what_is_not_the_users(migrated: Project, dsn: str) -> None:
    with Database(dsn) as database:
        docs = database.create_collection("docs", dimensions=3)
        docs.add_space("title", dimensions=3)
        docs.create_history()
    model = items(hnsw())
    model.create_all(migrated.engine)
    for name in ("items_ccnew", "items_ccnew1", "gone"):
        migrated.run(f"CREATE INDEX {name} ON items USING hnsw (embedding vector_l2_ops)")
    migrated.run("CREATE TABLE of_user (n int)")
    for schemas in (False, True):
        migrated.options["include_schemas"] = schemas
        gone = sorted((each[0], each[1].name) for each in migrated.differences(model))
        assert gone == [("remove_index", "gone"), ("remove_table", "of_user")]


def test_a_registered_table_stays_the_users_but_for_what_pgvec_has_made_for_it(migrated: Project) -> None:
    model = items()
    model.create_all(migrated.engine)
    register = 'op.register_table("public.items", name="stock", text="kind", keywords=True)'
    migrated.write("1", register, 'op.unregister_table("stock")')
    run_in_psql(migrated.dsn, migrated.sql())
    migrated.run("INSERT INTO items SELECT n, n, 'lamp', ARRAY[n, 1, 1] FROM generate_series(1, 20) n")
    with Database(migrated.dsn) as database:
        stock = database.collection("stock")
        assert stock.search([3, 1, 1], k=1)[0].document_id == "3"
        built = stock.create_index("ivfflat", lists=2)
    assert migrated.differences(model) == []
    assert [each[1].name for each in migrated.differences(sa.MetaData())] == ["items"]
    migrated.downgrade()
    with Database(migrated.dsn) as database:
        assert database.collections() == []
    (left,) = migrated.differences(model)  # nobody knows any more who has built it
    assert (left[0], left[1].name) == ("remove_index", built)


def test_filters_of_the_user_decide_and_the_plugin_may_be_switched_off(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.run(TABLE)
    metadata = sa.MetaData()
    columns = [sa.Column("id", sa.Integer, primary_key=True), sa.Column("price", sa.Integer)]
    table = sa.Table("items", metadata, *columns, sa.Column("embedding", VECTOR(3)), hnsw(m=5))
    project.run("CREATE INDEX ix ON items USING hnsw (embedding vector_cosine_ops)")
    assert [[each[0] for each in pair] for pair in project.differences(metadata)] == [["remove_index", "add_index"]]

    for options in ({"isolation_level": "AUTOCOMMIT"}, {"postgresql_readonly": True}):
        connected = project.engine
        project.engine = connected.execution_options(**options)
        assert len(project.differences(metadata)) == ("isolation_level" in options)
        project.engine = connected
    assert "vector indexes of items are not compared: cannot execute CREATE TABLE in a read-only" in caplog.text

    asked = []
    project.options["include_object"] = lambda *given: asked.append(given) or given[2] != "index"
    assert project.differences(metadata) == []
    ((index, name, kind, reflected, there),) = [each for each in asked if each[2] == "index"]
    assert (index in table.indexes, name, kind, reflected, there.name) == (True, "ix", "index", False, "ix")

    project.options.clear()
    project.options["autogenerate_plugins"] = ["alembic.autogenerate.*", "~alembic.autogenerate.pgvec"]
    assert project.differences(metadata) == []


def test_indexes_alone_are_replaced_without_blocking_writers(project: Project) -> None:
    project.autogenerate(items(hnsw()))
    project.upgrade()
    # The other name is still there from a session that was killed before it could drop the old one.
    project.run("CREATE INDEX ix_ccnew ON items USING hnsw (embedding vector_cosine_ops) WITH (m = 5)")
    text = project.autogenerate(items(hnsw(m=8), hnsw("more")))
    assert text.count("concurrently=True, replace=True") == 2
    assert text.count("concurrently=True, if_") == 2
    run_in_psql(project.dsn, project.sql(f"{project.revision()}:head"))
    project.downgrade()
    assert [row[0] for row in project.run(INDEXES)] == ["ix"]
    project.upgrade()
    assert [(name, "m='8'" in sql) for name, _, sql in project.run(INDEXES)] == [("ix", True), ("more", False)]
    project.options["pgvec_concurrently"] = False
    assert "concurrently" not in project.autogenerate(items(hnsw(m=9)))


def test_an_index_of_a_long_name_is_replaced(project: Project) -> None:
    name = "ü" * 31 + "x"  # 63 bytes, to which PostgreSQL would cut a longer one
    project.run(TABLE)
    project.run(f'CREATE INDEX "{name}" ON items USING hnsw (embedding vector_cosine_ops)')
    options = 'distance="cosine", m=8, concurrently=True, replace=True'
    project.write("1", f'op.create_vector_index("{name}", "items", "embedding", {options})')
    project.upgrade()
    assert [(found, "m='8'" in sql) for found, _, sql in project.run(INDEXES)] == [(name, True)]


def test_indexes_beside_columns_of_the_users_types_are_compared(project: Project) -> None:
    def model(m: int) -> sa.MetaData:
        state = sa.Column("state", sa.Enum("new", "old", name="state"))
        size = sa.Column("size", sa.Enum("s", "l", name="size", schema="My shop"))
        return items(state, size, sa.Column("code", DOMAIN("code", sa.Text())), hnsw(m=m))

    project.run('CREATE EXTENSION vector; CREATE SCHEMA "My shop"')
    model(16).create_all(project.engine)
    assert project.differences(model(16)) == []
    assert [[each[0] for each in pair] for pair in project.differences(model(24))] == [["remove_index", "add_index"]]


def test_indexes_keep_their_tablespace(project: Project) -> None:
    name = f"t_alembic_{os.getpid()}"
    model = items(hnsw(tablespace=name))
    with psycopg.connect(project.dsn, autocommit=True) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(f"CREATE TABLESPACE {name} LOCATION ''")
        try:
            assert f"tablespace='{name}'" in project.autogenerate(model)
            project.upgrade()
            assert project.differences(model) == []
            _, downgrade = project.autogenerate(items()).split("def downgrade")
            assert f"tablespace='{name}'" in downgrade
            project.upgrade()
            project.downgrade()
            assert project.run("SELECT tablespace FROM pg_indexes WHERE indexname = 'ix'") == [(name,)]
        finally:
            connection.execute("DROP TABLE IF EXISTS items")
            connection.execute(f"DROP TABLESPACE {name}")


def test_a_collection_is_named_as_its_table_however_that_is_written(project: Project) -> None:
    tables = ["Products", "shop.products", 'shop."Price list"', '"a.b"', '"My.shop" . "It""s"', "ÄRGER", "a$1"]
    with project.engine.connect() as connection:
        parse = sa.text("SELECT parse_ident(name) FROM unnest(CAST(:names AS text[])) name")
        parsed = connection.scalars(parse, {"names": tables})
        assert [table_name(each) for each in tables] == [parts[-1] for parts in parsed]


def test_a_table_of_another_schema_and_a_type_of_the_users(project: Project) -> None:
    class Own(sa.types.TypeDecorator[str]):
        impl = VECTOR(3)
        cache_ok = True

    project.run('CREATE SCHEMA "My shop"')
    model = items(hnsw("Ix"), schema="My shop", name="Pro ducts", type=Own())
    project.options.update(
        include_schemas=True,
        render_item=lambda kind, item, _: "sa.Text()" if kind == "type" and isinstance(item, sa.Text) else False,
        user_module_prefix="VECTOR(3) or ",
    )
    text = project.autogenerate(model)
    assert "schema='My shop'" in text
    assert "VECTOR(3) or Own" in text
    project.run("CREATE EXTENSION vector")
    project.run('CREATE TABLE "My shop"."Pro ducts" (id serial PRIMARY KEY, price int, kind text, embedding vector(3))')
    project.run('CREATE INDEX "Ix" ON "My shop"."Pro ducts" USING hnsw (embedding vector_cosine_ops) WITH (m = 16)')
    assert project.differences(model) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "diskann"}, "use hnsw or ivfflat"),
        ({"options": {"lists": 3}}, "lists belongs to ivfflat"),
        ({"options": {"m": 40}}, "ef_construction must be from 80"),
        ({"method": "ivfflat", "options": {"m": 4}}, "belong to hnsw; ivfflat takes lists"),
        ({"distance": None}, "no operator class is the default of hnsw"),
        ({"opclass": "vector_l2_ops"}, "opclass or distance, not both"),
        ({"distance": "cosin"}, "use cosine, l2"),
        ({"distance": "hamming"}, "no index of type vector by distance hamming"),
        ({"distance": None, "opclass": "x) --"}, "not the name of an operator class"),
        ({"cast": "halfvec"}, "a type with its dimensions"),
        ({"cast": "halfvec(3)", "target": sa.text("(a)")}, "say a column"),
    ],
)
def test_wrong_arguments_are_explained(wrong: dict[str, Any], message: str) -> None:
    given = {"name": "ix", "table": "items", "target": "embedding", "distance": "cosine", "cast": None} | wrong
    distance, cast = given.pop("distance"), given.pop("cast")
    with pytest.raises(ConfigurationError, match=message):
        checked(VectorIndex(**given), distance, cast)
