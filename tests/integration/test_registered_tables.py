"""A user's table as a collection, in SQL: what the table holds is found, by its indexes, whatever it is called."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from tests.conftest import random_vectors

ROWS, DIMENSIONS = 2000, 8
VECTORS = random_vectors(ROWS, DIMENSIONS)
WORDS = ("lamp", "table", "chair", "mirror", "shelf", "curtain", "kettle")
TABLE = """
CREATE TYPE status AS ENUM ('new', 'sold', 'old');
CREATE SCHEMA shop;
CREATE TABLE shop.products (
    id integer PRIMARY KEY, sku uuid NOT NULL UNIQUE, name varchar(40), code char(3), price numeric(8, 2),
    stock smallint, status status,
    tags text[], sold boolean, made date, added timestamptz, position text, extra jsonb, place point,
    description text, embedding vector(8), image halfvec(4));
"""
FILL = """
INSERT INTO shop.products
SELECT n, md5(n::text)::uuid, 'product ' || n %% 100, 'c' || n %% 10, n %% 50 + 0.5, n %% 7,
       (ARRAY['new', 'sold', 'old'])[1 + n %% 3]::status,
       ARRAY['t' || n %% 5, 'all'], n %% 2 = 0, date '2020-01-01' + n,
       timestamptz '2020-01-01 00:00Z' + n * interval '1 hour', 'shelf',
       jsonb_build_object('colour', n %% 4), point(1, 2), (%s::text[])[1 + n %% 7] || ' number ' || n,
       CASE WHEN n %% 10 > 0 THEN v::vector END,
       subvector(v::vector, 1, 4)::halfvec
FROM unnest(%s::text[]) WITH ORDINALITY AS given (v, place), LATERAL (SELECT (place - 1)::integer AS n) numbered
"""
Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def stocked(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[str]:
    """A database with a table of 2,000 products, a tenth of them without a vector, registered as `products`."""
    name = f"t_registered_{os.getpid()}"
    dsn = make_conninfo(server_dsn, dbname=name)
    with janitor(name, template):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(TABLE.encode())
            connection.execute(FILL.encode(), [list(WORDS), [str(v.tolist()) for v in VECTORS]])
            connection.execute("CREATE INDEX ON shop.products (price); CREATE INDEX ON shop.products (status)")
            connection.execute(
                "CREATE INDEX products_by_hand ON shop.products USING hnsw (embedding vector_cosine_ops)"
                " WITH (m = 32, ef_construction = 256)"
            )
            connection.execute("VACUUM ANALYZE shop.products")
            connection.execute(
                "SELECT pgvec.register_table('shop.products', text => 'description', id => 'sku', metadata => 'extra')"
            )
        yield dsn


@pytest.fixture
def shop(stocked: str) -> Iterator[Connection]:
    """The shop, in a transaction that is rolled back."""
    with psycopg.connect(stocked) as connection:
        yield connection
        connection.rollback()


def query(row: int = 5) -> str:
    return str(VECTORS[row].tolist())


def found(shop: Connection, options: str = "", row: int = 5, k: int = 10) -> list[Any]:
    return shop.execute(
        f"SELECT id, distance FROM pgvec.search('products', %s::text, k => %s{options}) ORDER BY rank".encode(),
        [query(row), k],
    ).fetchall()


def by_hand(shop: Connection, condition: str, row: int = 5, k: int = 10) -> list[Any]:
    with shop.transaction(force_rollback=True):
        shop.execute("SET LOCAL enable_indexscan = off")
        return shop.execute(
            f"SELECT sku::text, embedding <=> %s::vector AS d FROM shop.products WHERE ({condition})"
            " AND embedding IS NOT NULL ORDER BY d, id LIMIT %s".encode(),
            [query(row), k],
        ).fetchall()


def error(connection: Connection, statement: str) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as raised, connection.transaction():
        connection.execute(statement.encode())
    return raised.value.sqlstate, f"{raised.value.diag.message_primary} {raised.value.diag.message_hint}"


# -- what is found ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "condition"),
    [
        ({}, "true"),
        ({"price": 3.5}, "price = 3.5"),
        ({"price": {"$lt": 40}}, "price < 40"),
        ({"status": "sold", "stock": {"$in": [1, 2]}}, "status = 'sold' AND stock IN (1, 2)"),
        ({"code": "c1"}, "code = 'c1'"),
        ({"name": {"$like": "product 1%"}}, "name LIKE 'product 1%%'"),
        ({"tags": {"$contains": "t3"}, "sold": True}, "tags @> '{t3}' AND sold"),
        ({"made": {"$gte": "2022-01-01"}}, "made >= '2022-01-01'"),
        ({"added": {"$lt": "2020-01-03T00:00:00Z"}}, "added < '2020-01-03Z'"),
        ({"colour": 2}, "extra ->> 'colour' = '2'"),
        ({"text": {"$contains": "kettle"}}, "description LIKE '%%kettle%%'"),
        ({"id": {"$ne": "e4da3b7f-bbce-2345-d777-2b0674a318d5"}}, "sku <> 'e4da3b7f-bbce-2345-d777-2b0674a318d5'"),
        ({"position": 1}, "false"),
    ],
)
def test_filters_are_on_the_columns_of_the_table(shop: Connection, given: dict[str, Any], condition: str) -> None:
    expected = by_hand(shop, condition)
    for _ in range(2):
        hits = found(shop, f", filter => {sql.Literal(json.dumps(given)).as_string()}".replace("%", "%%"))
        assert [d for _, d in hits] == pytest.approx([d for _, d in expected], abs=1e-6)
        assert {id for id, _ in hits} == {id for id, _ in expected}
        shop.execute("DROP INDEX IF EXISTS shop.products_by_hand")  # and then without


def test_a_hit_shows_the_row(shop: Connection) -> None:
    row = shop.execute("SELECT * FROM pgvec.search('products', %s::text, k => 1)", [query()]).fetchone()
    assert row is not None
    id, document, text, metadata, distance, similarity, _, rank, stopped_by = row
    assert (id, document) == ("e4da3b7f-bbce-2345-d777-2b0674a318d5",) * 2  # md5('5')
    assert (text, distance, similarity, rank, stopped_by) == ("curtain number 5", 0, 1, 1, "k")
    # No parts of the chunk, no vectors, nothing that filters cannot compare or that a chunk's own column hides.
    assert sorted(metadata) == sorted(
        ("name", "code", "price", "stock", "status", "tags", "sold", "made", "added", "colour")
    )
    assert (metadata["price"], metadata["status"], metadata["colour"]) == (5.5, "old", 1)


def test_odd_metadata_are_none(shop: Connection) -> None:
    shop.execute("UPDATE shop.products SET extra = CASE WHEN id % 2 = 0 THEN '[1]'::jsonb END")
    assert all(
        "colour" not in metadata
        for (metadata,) in shop.execute("SELECT metadata FROM pgvec.search('products', %s::text)", [query()])
    )


def test_all_kinds_of_search(shop: Connection) -> None:
    nearest = found(shop)
    assert nearest == by_hand(shop, "true")
    ids = [id for id, _ in nearest]
    assert [id for id, _ in found(shop, f", exclude => ARRAY['{ids[0]}', 'no uuid']", k=9)] == ids[1:]
    assert len(found(shop, ", group_by => 'name', group_size => 2", k=3)) == 6
    assert found(shop, ", diversity => 0")[0] == nearest[0]
    assert found(shop, ", where_sql => 'd.price < 10 AND d.place IS NOT NULL'") == by_hand(shop, "price < 10")
    assert found(shop, ", within => 0.05") == [hit for hit in nearest if hit[1] <= 0.05]
    many = shop.execute(
        "SELECT query, id FROM pgvec.search_many('products', ARRAY[%s, %s], k => 3) ORDER BY query, rank",
        [query(5), query(7)],
    ).fetchall()
    assert many == [(1, id) for id in ids[:3]] + [(2, id) for id, _ in found(shop, row=7, k=3)]
    similar = shop.execute("SELECT id FROM pgvec.similar('products', %s, k => 9) ORDER BY rank", [ids[:1]]).fetchall()
    assert [id for (id,) in similar] == ids[1:]
    assert error(shop, "SELECT pgvec.similar('products', ARRAY['no uuid'])")[0] == "PV005"


def test_a_space_for_each_vector_column(shop: Connection) -> None:
    shop.execute("SELECT pgvec.register_space('products', 'image', distance => 'l2')")
    hits = shop.execute(
        "SELECT id, distance FROM pgvec.search('products', '[0, 0, 0, 0]', space => 'image', k => 3) ORDER BY rank"
    ).fetchall()
    assert (
        hits
        == shop.execute("SELECT sku::text, image <-> '[0,0,0,0]' AS d FROM shop.products ORDER BY d LIMIT 3").fetchall()
    )
    assert shop.execute("SELECT * FROM pgvec.indexes('products', 'image')").fetchall() == []
    shop.execute("CREATE INDEX image_by_hand ON shop.products USING hnsw ((image::halfvec(4)) halfvec_l2_ops)")
    names = "SELECT index_name, usable FROM pgvec.indexes('products', %s)"
    assert shop.execute(names, ["image"]).fetchall() == [("image_by_hand", True)]
    assert shop.execute(names, [None]).fetchall() == [("products_by_hand", True)]
    assert shop.execute("SELECT pgvec.switch_space('products', 'image')").fetchone() == ("dense",)
    shop.execute("SELECT pgvec.drop_space('products', 'dense')")
    assert shop.execute("SELECT count(embedding) FROM shop.products").fetchone() == (ROWS * 9 // 10,)


def test_the_distance_is_that_of_the_index(shop: Connection) -> None:
    connection = shop
    connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, embedding vector(3), bits bit(8))")
    connection.execute("CREATE INDEX ON t USING hnsw (embedding vector_ip_ops)")
    connection.execute("SELECT pgvec.register_table('t'), pgvec.register_space('t', 'bits')")
    spaces = "SELECT space, type, dimensions, distance, registered FROM pgvec.spaces WHERE collection = 't' ORDER BY 1"
    assert connection.execute(spaces).fetchall() == [
        ("bits", "bit", 8, "hamming", True),
        ("dense", "vector", 3, "inner_product", True),
    ]


# -- how it is found -------------------------------------------------------------------------------


def test_the_user_s_indexes_serve_and_go_on_to(shop: Connection) -> None:
    """A prepared statement becomes generic at its sixth run."""
    for given, wanted in ((None, "products_by_hand"), ({"price": {"$lt": 45}}, "products_by_hand")):
        text = shop.execute(
            "SELECT pgvec.search_sql('products', filter => %s)", [given and json.dumps(given)]
        ).fetchone()
        assert text is not None
        shop.execute(f"PREPARE s (vector, jsonb) AS {text[0]}".encode())
        run = sql.SQL("EXECUTE s ({}, {})").format(query(), json.dumps(given))
        for _ in range(8):
            assert len(shop.execute(run).fetchall()) == 10
        plan = "\n".join(line for (line,) in shop.execute(sql.SQL("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) ") + run))
        assert f"Index Scan using {wanted}" in plan
        assert any(wanted in line and "loops=1)" in line for line in plan.splitlines()), plan
        shop.execute("DEALLOCATE s")
    explained = "\n".join(
        line
        for (line,) in shop.execute(
            "SELECT pgvec.explain('products', %s::text, filter => '{\"price\": 3.5}')", [query()]
        )
    )
    assert "Index products_by_hand" in explained
    assert "the index was not used. To compare them all is cheaper" in explained


def test_a_partial_index_on_the_rows_with_a_vector_serves(shop: Connection) -> None:
    shop.execute('DROP INDEX shop.products_by_hand; ALTER TABLE shop.products RENAME embedding TO "Meaning"')
    partial = "CREATE INDEX partial_{} ON shop.products USING hnsw ({} vector_cosine_ops) WHERE {}"
    shop.execute(partial.format("all", '"Meaning"', '"Meaning" IS NOT NULL').encode())
    shop.execute(partial.format("some", '"Meaning"', "price > 5").encode())
    usable = "SELECT index_name, usable FROM pgvec.indexes('products')"
    assert shop.execute(usable).fetchall() == [("partial_all", True), ("partial_some", False)]
    text = shop.execute("SELECT pgvec.search_sql('products')").fetchone()
    assert text is not None
    shop.execute(f"PREPARE partial (vector) AS {text[0]}".encode())
    plan = shop.execute(sql.SQL("EXPLAIN EXECUTE partial ({})").format(query())).fetchall()
    assert "Index Scan using partial_all" in str(plan)
    # What else indexes of the user's are for pgvec does not know.
    mends = "SELECT mend FROM pgvec.check_health() WHERE mend LIKE '%DROP INDEX%'"
    assert shop.execute(mends).fetchall() == []
    shop.execute("DROP INDEX shop.partial_all")
    assert shop.execute(mends).fetchall() == []


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({"price": {"$gte": 3}}, "products_price_idx"),
        ({"status": "sold"}, "products_status_idx"),
        ({"id": "e4da3b7f-bbce-2345-d777-2b0674a318d5"}, "products_sku_key"),
    ],
)
def test_filters_are_index_conditions(shop: Connection, given: dict[str, Any], index: str) -> None:
    row = shop.execute(
        "SELECT format('SELECT d.key FROM %%s d WHERE %%s', pgvec._chunks_sql(c),"
        " pgvec._filter_sql('shop.products', %s)) FROM pgvec._collection('products') c",
        [Jsonb(given)],
    ).fetchone()
    assert row is not None
    shop.execute("SET enable_seqscan = off")
    plan = "\n".join(
        line
        for (line,) in shop.execute(
            "EXPLAIN " + row[0].replace("$2", "(" + sql.Literal(json.dumps(given)).as_string() + "::jsonb)")
        )
    )
    assert index in plan
    assert "Index Cond" in plan


def test_ids_are_looked_up_by_their_index(shop: Connection) -> None:
    row = shop.execute(
        "SELECT format('EXPLAIN SELECT FROM %s d WHERE %s', pgvec._chunks_sql(c), pgvec._ids_sql(c, '''{a}''::text[]'))"
        " FROM pgvec._collection('products') c"
    ).fetchone()
    assert row is not None
    assert "products_sku_key" in "\n".join(line for (line,) in shop.execute(row[0]))


def test_measuring_watching_and_warming(shop: Connection) -> None:
    assert shop.execute("SELECT recall, short_results FROM pgvec.recall('products', queries => 20)").fetchone() == (
        1,
        0,
    )
    filtered = (
        "SELECT recall, short_results FROM pgvec.recall('products', queries => 20,"
        ' filter => \'{"price": {"$lt": 5}}\')'
    )
    assert shop.execute(filtered).fetchone() == (1, 0)
    measured = shop.execute("SELECT exact_us, scan_us FROM pgvec.calibrate('products')").fetchone()
    assert measured is not None
    assert min(measured) > 0
    assert shop.execute("SELECT recall, alarms FROM pgvec.watch('products', queries => 20)").fetchone() == (1, [])
    warmed = [name for (name,) in shop.execute("SELECT relation FROM pgvec.prewarm('products')")]
    assert len(warmed) == len(set(warmed))
    assert {"shop.products", "shop.products_by_hand", "shop.products_pkey"} <= set(warmed)
    assert shop.execute("SELECT * FROM pgvec.check_indexes('products')").fetchall() == []
    planned = shop.execute("SELECT method, form FROM pgvec.plan_index('products', form => 'halfvec')").fetchall()
    assert planned == [("hnsw", "halfvec"), ("ivfflat", "halfvec")]
    shop.execute("SELECT pgvec.log_queries('products', share => 1)")
    found(shop)
    assert shop.execute("SELECT queries FROM pgvec.logged_queries('products')").fetchone() == (1,)


def test_health_knows_what_is_missing(shop: Connection) -> None:
    told = shop.execute("SELECT subject, finding, mend FROM pgvec.check_health() WHERE subject LIKE '%products%'")
    assert (
        "space products.dense",
        "200 chunks have no vector there: no search of it finds them",
        "pgvec collection embed products dense",
    ) in told.fetchall()


# -- renamed, changed, gone ------------------------------------------------------------------------


def test_everything_may_be_renamed(shop: Connection) -> None:
    shop.execute("SELECT pgvec.create_keyword_index('products')")
    before = found(shop), found(shop, ", filter => '{\"price\": 3.5}'")
    for change in (
        "RENAME TO goods",
        "RENAME id TO number",
        "RENAME sku TO code_of",
        "RENAME description TO says",
        "RENAME embedding TO meaning",
        "RENAME extra TO more",
    ):
        table = "products" if change == "RENAME TO goods" else "goods"
        shop.execute(f"ALTER TABLE shop.{table} {change}".encode())
        assert (found(shop), found(shop, ", filter => '{\"price\": 3.5}'")) == before
    shop.execute("CREATE SCHEMA depot; ALTER TABLE shop.goods SET SCHEMA depot")
    assert found(shop) == before[0]
    shop.execute("UPDATE depot.goods SET says = 'a sextant' WHERE number = 5")
    hits = shop.execute("SELECT text FROM pgvec.keyword_search('products', 'sextants')").fetchall()
    assert hits == [("a sextant",)]
    tables = "SELECT schema_name, chunk_table, vector_table FROM pgvec.spaces"
    assert shop.execute(tables).fetchall() == [("depot", "goods", "goods")]
    # Its name of before is free for others.
    shop.execute("SELECT pgvec.create_collection('more', 3, schema => 'shop')")
    shop.execute("CREATE TABLE shop.products (id integer PRIMARY KEY, embedding vector(3))")
    assert shop.execute("SELECT pgvec.register_table('shop.products', name => 'others')").fetchone() == ("others",)
    assert found(shop) == before[0]


def test_a_schema_may_be_renamed_with_its_keyword_index(shop: Connection) -> None:
    shop.execute("SELECT pgvec.create_keyword_index('products')")
    shop.execute("ALTER SCHEMA shop RENAME TO depot")
    shop.execute("UPDATE depot.products SET description = 'a sextant' WHERE id = 5")
    assert [text for text, *_ in ranking(shop, "products", "sextant")] == ["a sextant"]
    shop.execute("SELECT pgvec.unregister_table('products')")
    assert shop.execute("SELECT count(*) FROM pg_class WHERE relname ~ 'products_(key|lex)'").fetchone() == (0,)


def test_a_key_that_is_none_any_more_is_told(shop: Connection) -> None:
    shop.execute("ALTER TABLE shop.products DROP CONSTRAINT products_pkey")
    told = shop.execute("SELECT finding FROM pgvec.check_health() WHERE subject = 'collection products'").fetchall()
    assert "column 'id' of table shop.products is no key" in str(told)


def test_a_further_column_that_is_gone_can_be_let_go(shop: Connection) -> None:
    shop.execute("SELECT pgvec.register_space('products', 'image'); ALTER TABLE shop.products DROP image")
    told = "SELECT mend FROM pgvec.check_health() WHERE severity = 'error' AND subject = 'collection products'"
    (mend,) = shop.execute(told).fetchone() or ("",)
    assert mend == "SELECT pgvec.drop_space('products', 'image');"
    shop.execute(mend.encode())
    assert shop.execute(told).fetchall() == []


def test_a_restored_table_has_other_numbers(shop: Connection) -> None:
    """A restore leaves out the numbers of dropped columns."""
    columns = "id bigint PRIMARY KEY, {}price text, says text, embedding vector(2)"
    shop.execute(f"CREATE TABLE t ({columns.format('gone text, ')})".encode())
    shop.execute("ALTER TABLE t RENAME price TO description")
    shop.execute("SELECT pgvec.register_table('t', text => 'description', keywords => true)")
    shop.execute("ALTER TABLE t DROP gone; ALTER TABLE t RENAME description TO price")
    triggers = shop.execute(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgname ~ 'keywords'"
    ).fetchall()
    shop.execute("DROP TABLE t")
    shop.execute(f"CREATE TABLE t ({columns.format('')})".encode())
    for (trigger,) in triggers:
        shop.execute(trigger)
    shop.execute(
        "UPDATE pgvec.registered_tables SET relation = 't'::regclass WHERE relation <> 'shop.products'::regclass"
    )
    shop.execute("INSERT INTO t VALUES (1, '3', 'hush', '[1, 0]')")
    assert shop.execute("SELECT count(*) FROM t_keywords").fetchone() == (0,)
    code, message = error(shop, "SELECT * FROM pgvec.search('t', '[1, 0]')")
    assert (code, "column 'description' of table public.t is gone" in message) == ("PV001", True)


def test_what_is_gone_is_told(shop: Connection) -> None:
    shop.execute("SELECT pgvec.create_keyword_index('products')")
    told = "SELECT finding FROM pgvec.check_health() WHERE severity = 'error' AND subject = 'collection products'"
    assert shop.execute(told).fetchall() == []
    for change, code, message in (
        ("ALTER TABLE shop.products DROP extra", "PV001", "'extra' of table shop.products is gone"),
        ("ALTER TABLE shop.products ALTER embedding TYPE halfvec(8)", "PV005", "another type"),
        ("ALTER TABLE shop.products DROP embedding", "PV001", "'embedding' of table shop.products is gone"),
        (
            "DROP TABLE shop.products",
            "PV001",
            "table shop.products, which is registered as collection 'products', is gone",
        ),
    ):
        shop.execute("DROP INDEX IF EXISTS shop.products_by_hand")
        shop.execute(change.encode())
        raised = error(shop, "SELECT * FROM pgvec.search('products', '[1,2,3,4,5,6,7,8]')")
        assert raised[0] == code
        assert message in raised[1]
        assert "unregister_table" in raised[1]
        (finding,) = shop.execute(told).fetchone() or ("",)
        assert finding
    shop.execute("SELECT pgvec.unregister_table('products')")
    assert shop.execute("SELECT to_regclass('shop.products_keywords'), count(*) FROM pgvec.collections").fetchone() == (
        None,
        0,
    )


def test_dropping_leaves_the_table(shop: Connection) -> None:
    for end in ("pgvec.drop_collection('products')", "pgvec.unregister_table('products')"):
        shop.execute("SELECT pgvec.create_keyword_index('products')")
        shop.execute(f"SELECT {end}".encode())
        left = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'shop.products'::regclass"
        assert shop.execute(left).fetchone() == (0,)
        assert shop.execute("SELECT count(*) FROM shop.products").fetchone() == (ROWS,)
        assert shop.execute(
            "SELECT count(*) FROM pg_class WHERE relname ~ 'products_(keywords|lexemes)'"
        ).fetchone() == (0,)
        shop.execute("SELECT pgvec.register_table('shop.products', text => 'description')")


def test_unregistering_drops_what_pgvec_made_alone(shop: Connection) -> None:
    shop.execute("CREATE TABLE shop.products_keywords (word text); CREATE TABLE shop.products_lexemes (word text)")
    shop.execute("SELECT pgvec.unregister_table('products')")
    assert shop.execute("SELECT count(*) FROM pg_class WHERE relname ~ '^products_(key|lex)'").fetchone() == (2,)


# -- what cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "pgvec.delete_documents('products', '{1}')",
        "pgvec.add_space('products', 'other', 3)",
        "pgvec.create_history('products')",
        "pgvec._promote_plan('products', 'colour', 'int')",
        "pgvec.attach('shop.notes', 'text', 'products')",
        "pgvec.search_as_of('products', '[1,2,3,4,5,6,7,8]', now())",
    ],
)
def test_what_writes_is_refused_with_what_to_do(shop: Connection, call: str) -> None:
    shop.execute("CREATE TABLE shop.notes (id integer PRIMARY KEY, text text)")
    code, message = error(shop, f"SELECT {call}")
    assert code == "PV005"
    assert "collection 'products' is table shop.products, which is only read" in message
    assert not message.endswith("None")


@pytest.mark.parametrize(
    ("table", "arguments", "code", "message"),
    [
        ("(id bigint PRIMARY KEY, embedding vector(3)) PARTITION BY HASH (id)", "", "PV005", "partitioned"),
        ("(embedding vector(3))", "", "PV005", "no primary key of one whole number"),
        ("(id uuid PRIMARY KEY, embedding vector(3))", "", "PV005", "ADD COLUMN key bigint GENERATED ALWAYS"),
        ("(id bigint, embedding vector(3))", ", key => 'id'", "PV005", "NOT NULL and unique"),
        ("(id bigint PRIMARY KEY, embedding vector)", "", "PV005", "ALTER COLUMN embedding TYPE vector(n)"),
        ("(id bigint PRIMARY KEY, vec vector(3))", "", "PV005", "or bit: vec."),
        ("(id bigint PRIMARY KEY, embedding vector(3))", ", text => 'body'", "PV005", "has no column 'body'"),
        ("(id bigint PRIMARY KEY, embedding vector(3))", ", text => 'id'", "PV005", "cannot be the text"),
        ("(id bigint PRIMARY KEY, embedding vector(3))", ", keywords => true", "PV005", "no text to search"),
        ("(id bigint PRIMARY KEY, embedding vector(3))", ", distance => 'hamming'", "PV005", "does not apply"),
        ("(id bigint PRIMARY KEY, embedding vector(3))", ", name => 'Things'", "PV003", "lower-case"),
        ("(id bigint PRIMARY KEY, embedding vector(3))", ", name => 'docs'", "PV002", "exists already"),
        ("(id bigint PRIMARY KEY, embedding vector(3))", ", language => 'klingon'", "PV005", "text search"),
    ],
)
def test_what_cannot_be_registered(shop: Connection, table: str, arguments: str, code: str, message: str) -> None:
    connection = shop
    connection.execute("SELECT pgvec.create_collection('docs', 3)")
    connection.execute(f"CREATE TABLE things {table}".encode())
    raised = error(connection, f"SELECT pgvec.register_table('things'{arguments})")
    assert raised[0] == code
    assert message in raised[1]
    assert connection.execute("SELECT count(*) FROM pgvec.registered_tables").fetchone() == (1,)
    for taken in ("docs", "docs_dense"):
        assert error(connection, f"SELECT pgvec.register_table('{taken}')")[0] == "PV002"


def test_a_table_is_registered_once_and_a_view_never(shop: Connection) -> None:
    assert error(shop, "SELECT pgvec.register_table('shop.products', name => 'again')")[0] == "PV002"
    shop.execute("CREATE VIEW shop.v AS SELECT * FROM shop.products")
    again = error(shop, "SELECT pgvec.register_space('products', 'embedding', 'again')")
    assert again[0] == "PV002"
    assert "column 'embedding' of table shop.products is a vector space already" in again[1]
    assert "no views" in error(shop, "SELECT pgvec.register_table('shop.v')")[1]
    shop.execute("CREATE TABLE shop.heir () INHERITS (shop.products)")
    assert "inherits" in error(shop, "SELECT pgvec.register_table('shop.heir')")[1]


def test_unknown_fields_are_errors(shop: Connection) -> None:
    search = "SELECT * FROM pgvec.search('products', '[1,2,3,4,5,6,7,8]', filter => '{}')"
    for field, value, message in (
        ("place", 1, "which filters cannot compare"),
        ("key", 1, "cannot be filtered on"),
        ("id", "abc", "field 'id' is of type uuid"),
        ("document_id", {"$like": "a%"}, "field 'document_id' is of type uuid"),
    ):
        code, told = error(shop, search.replace("{}", json.dumps({field: value})))
        assert (code, message in told) == ("PV004", True)
    shop.execute("SELECT pgvec.unregister_table('products'), pgvec.register_table('shop.products')")
    code, told = error(shop, search.replace("{}", '{"colour": 1}'))
    assert code == "PV004"
    assert "has no column 'colour' to filter by It has: sku, name, code, price" in told
    hits = shop.execute(
        "SELECT id, text FROM pgvec.search('products', %s::text, filter => '{\"id\": {\"$in\": [5, 7]}}')", [query()]
    )
    assert hits.fetchall() == [("5", None), ("7", None)]
    by_text = shop.execute("SELECT id FROM pgvec.search('products', %s::text, filter => '{\"id\": \"7\"}')", [query()])
    assert by_text.fetchall() == [("7",)]


# -- rights ----------------------------------------------------------------------------------------


def test_policies_hide_rows_and_select_is_enough(shop: Connection) -> None:
    shop.execute(
        "CREATE ROLE buyer; GRANT USAGE ON SCHEMA pgvec, shop TO buyer;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO buyer;"
        "GRANT SELECT ON shop.products TO buyer"
    )
    shop.execute("SET ROLE buyer")
    assert found(shop) == by_hand(shop, "true")
    shop.execute("RESET ROLE; ALTER TABLE shop.products ENABLE ROW LEVEL SECURITY")
    shop.execute("CREATE POLICY cheap ON shop.products TO buyer USING (price < 3)")
    shop.execute("SET ROLE buyer")
    assert found(shop) == by_hand(shop, "price < 3")
    assert found(shop, ', filter => \'{"status": "sold"}\'') == by_hand(shop, "price < 3 AND status = 'sold'")
    shop.execute("RESET ROLE; REVOKE SELECT ON shop.products FROM buyer; SET ROLE buyer")
    assert error(shop, "SELECT * FROM pgvec.search('products', '[1,2,3,4,5,6,7,8]')")[0] == "42501"


def test_keyword_indexes_warn_of_policies(shop: Connection) -> None:
    shop.execute("ALTER TABLE shop.products ENABLE ROW LEVEL SECURITY")
    told: list[str] = []
    shop.add_notice_handler(lambda notice: told.append(f"{notice.message_primary} {notice.message_hint}"))
    shop.execute("SELECT pgvec.create_keyword_index('products')")
    assert len(told) == 1
    assert "policies of table shop.products do not cover its keyword index" in told[0]
    assert "REVOKE SELECT ON shop.products_keywords, shop.products_lexemes FROM" in told[0]


# -- keywords --------------------------------------------------------------------------------------


def ranking(shop: Connection, collection: str, words: str) -> list[Any]:
    return shop.execute(
        "SELECT text, round(score::numeric, 9), terms FROM pgvec.keyword_search(%s, %s, k => 500)"
        " ORDER BY score DESC, text",
        [collection, words],
    ).fetchall()


def test_keyword_searches_follow_the_table(shop: Connection) -> None:
    shop.execute("DELETE FROM shop.products WHERE id >= 250")
    shop.execute("SELECT pgvec.create_keyword_index('products'), pgvec.create_collection('twin', 8)")
    for change in (
        "SELECT 1",
        "UPDATE shop.products SET description = 'a mirror, and a mirror' WHERE id % 5 = 0",
        "UPDATE shop.products SET price = 1",
        "UPDATE shop.products SET id = id + 10000 WHERE id < 50",
        "UPDATE shop.products SET description = NULL WHERE id % 7 = 0",
        "DELETE FROM shop.products WHERE id % 11 = 0",
        "INSERT INTO shop.products (id, sku, description) VALUES (-1, gen_random_uuid(), 'mirror')",
    ):
        shop.execute(change.encode())
        shop.execute("TRUNCATE twin CASCADE")
        shop.execute("INSERT INTO twin (id, document_id, text) SELECT id, id, description FROM shop.products")
        assert ranking(shop, "products", "mirror 123 kettle") == ranking(shop, "twin", "mirror 123 kettle")
    phrase = (
        "SELECT count(*) FROM pgvec.keyword_search('products', '\"mirror number\"', k => 1000,"
        " filter => '{\"price\": 1}')"
    )
    expected = "SELECT count(*) FROM shop.products WHERE description ~ '^mirror number' AND price = 1"
    assert shop.execute(phrase).fetchone() == shop.execute(expected).fetchone()
    hybrid = shop.execute(
        "SELECT legs FROM pgvec.hybrid_search('products', 'mirror', %s::text, filter => '{\"status\": \"old\"}')",
        [query()],
    ).fetchall()
    assert {leg for (legs,) in hybrid for leg in legs} == {"dense", "keyword"}
    shop.execute("TRUNCATE shop.products")
    assert ranking(shop, "products", "mirror") == []


def test_who_may_write_the_table_keeps_its_index(shop: Connection) -> None:
    shop.execute(
        "CREATE ROLE keeper; CREATE ROLE clerk; GRANT USAGE ON SCHEMA shop TO clerk; GRANT ALL ON SCHEMA shop TO keeper"
    )
    shop.execute("ALTER TABLE shop.products OWNER TO keeper; GRANT SELECT, INSERT, UPDATE ON shop.products TO clerk")
    shop.execute("SELECT pgvec.create_keyword_index('products')")
    for role in ("keeper", "clerk"):
        shop.execute(f"SET ROLE {role}".encode())
        shop.execute(f"UPDATE shop.products SET description = 'sextant of the {role}' WHERE id = 7".encode())
        shop.execute("RESET ROLE")
        assert [text for text, *_ in ranking(shop, "products", "sextant")] == [f"sextant of the {role}"]
    shop.execute(
        "SELECT pgvec.drop_keyword_index('products'); CREATE ROLE guest; GRANT INSERT ON shop.products TO guest"
    )
    shop.execute(
        "GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO keeper; GRANT INSERT ON pgvec.keyword_indexes TO keeper"
    )
    shop.execute("SET ROLE keeper")
    code, message = error(shop, "SELECT pgvec.create_keyword_index('products')")
    assert (code, "GRANT USAGE ON SCHEMA pgvec TO guest;" in message) == ("PV005", True)


def test_an_update_of_other_columns_does_not_compare_each_row_with_each(shop: Connection) -> None:
    shop.execute("SELECT pgvec.create_keyword_index('products')")
    plans: list[str] = []
    shop.add_notice_handler(lambda notice: plans.append(notice.message_detail or ""))
    shop.execute("SET LOCAL debug_print_plan = on; SET LOCAL client_min_messages = log")
    shop.execute("UPDATE shop.products SET stock = 1")
    compared = [plan for plan in plans if ":enrname old_rows" in plan]
    assert len(compared) == 1
    assert "NESTLOOP" not in compared[0]


def test_writes_go_on_whatever_happens_to_the_text(shop: Connection) -> None:
    shop.execute('ALTER TABLE shop.products RENAME id TO "100%s"; ALTER TABLE shop.products RENAME description TO "%I"')
    shop.execute("SELECT pgvec.unregister_table('products')")
    shop.execute("SELECT pgvec.register_table('shop.products', text => '%I', keywords => true)")
    shop.execute("""UPDATE shop.products SET "%I" = 'a sextant' WHERE "100%s" = 5""")
    assert [text for text, *_ in ranking(shop, "products", "sextant")] == ["a sextant"]
    shop.execute('ALTER TABLE shop.products DROP "%I"')
    shop.execute('UPDATE shop.products SET stock = 1; DELETE FROM shop.products WHERE "100%s" > 5')
    told = shop.execute("SELECT finding FROM pgvec.check_health() WHERE subject = 'collection products'").fetchall()
    assert "column '%I' of table shop.products is gone" in str(told)


def test_names_that_are_taken(shop: Connection) -> None:
    shop.execute("CREATE TABLE shop.products_lexemes ()")
    assert error(shop, "SELECT pgvec.create_keyword_index('products')")[0] == "PV002"
    assert shop.execute("SELECT count(*) FROM pgvec.keyword_indexes").fetchone() == (0,)
