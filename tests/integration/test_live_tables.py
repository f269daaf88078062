"""Attached tables: what of a write is noted for workers, and what is left when a table is detached."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionExists, CollectionNotFound, ConfigurationError, InvalidName
from tests.words import WordEmbedder

Connection = psycopg.Connection[Any]
PRODUCTS = """
CREATE TABLE products (
    id integer PRIMARY KEY, name text, note text, price numeric, extra jsonb, seen integer DEFAULT 0);
INSERT INTO products SELECT n, 'name ' || n, 'note ' || n, n FROM generate_series(1, 5) n;
"""
TEXT = "name || ' ' || note"
# All that a database has of tables, functions, triggers, rights and rows of ours.
TRACES = """
SELECT 'class', c.oid::regclass::text, c.relkind::text, c.relacl::text, NULL FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace
UNION ALL SELECT 'proc', p.oid::regprocedure::text, p.proacl::text, md5(p.prosrc), NULL FROM pg_proc p
    WHERE p.pronamespace IN ('public'::regnamespace, 'pgvec'::regnamespace)
UNION ALL SELECT 'trigger', t.tgname, t.tgrelid::regclass::text, NULL, NULL FROM pg_trigger t
    WHERE t.tgrelid = 'products'::regclass
UNION ALL SELECT 'depend', classid::regclass::text, objid::text, refobjid::text, deptype::text FROM pg_depend
    WHERE refobjid = 'products'::regclass
UNION ALL SELECT 'rows', 'attachments', count(*)::text, NULL, NULL FROM pgvec.attachments
UNION ALL SELECT 'rows', 'changes', count(*)::text, NULL, NULL FROM pgvec.changes
UNION ALL SELECT 'rows', 'queue', count(*)::text, NULL, NULL FROM pgvec.queue
ORDER BY 1, 2, 3, 4, 5
"""


@pytest.fixture
def products(connection: Connection) -> Connection:
    """A database with an attached table of five rows, all of them embedded as far as the queue knows."""
    connection.execute(PRODUCTS.encode())
    attach(connection)
    return connection


def attach(connection: Connection, relation: str = "products", text: str = TEXT, **options: Any) -> None:
    options = {"columns": ["price", "extra"], "dimensions": 64} | options
    names = "".join(f", {name} => %({name})s" for name in options)
    connection.execute(
        f"SELECT pgvec.attach(%(relation)s::regclass, text => %(text)s{names})".encode(),
        {"relation": relation, "text": text, **options},
    )


def noted(connection: Connection) -> list[str | None]:
    """Return what was noted since it was last asked, in no order."""
    rows = connection.execute("DELETE FROM pgvec.changes RETURNING document_id").fetchall()
    return sorted((id for (id,) in rows), key=str)


WRITES: list[tuple[str, list[str | None]]] = [
    ("UPDATE products SET seen = seen + 1", []),
    ("UPDATE products SET name = name, price = price", []),
    ("UPDATE products SET name = 'other', seen = 7 WHERE id < 3", ["1", "2"]),
    # Their text is the same: what is compared is the expression.
    ("UPDATE products SET name = 'name 1 note', note = '1' WHERE id = 1", []),
    ("UPDATE products SET price = 9 WHERE id IN (1, 4)", ["1", "4"]),
    ("UPDATE products SET extra = '{\"a\": 1}' WHERE id = 5", ["5"]),
    ("UPDATE products SET note = NULL WHERE id = 2", ["2"]),
    ("UPDATE products SET id = id + 10 WHERE id > 3", ["14", "15", "4", "5"]),
    ("DELETE FROM products WHERE id > 3", ["4", "5"]),
    ("INSERT INTO products VALUES (6, 'six'), (7, 'seven')", ["6", "7"]),
    ("INSERT INTO products (id, name) SELECT 1, 'x' WHERE false", []),
    (
        "INSERT INTO products (id, name) VALUES (1, 'name 1'), (2, 'new'), (8, 'new')"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        ["2", "8"],
    ),
    (
        "MERGE INTO products p USING (VALUES (1), (9)) v (id) ON p.id = v.id WHEN MATCHED THEN DELETE"
        " WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, 'nine')",
        ["1", "9"],
    ),
    ("TRUNCATE products", [None]),
]


def test_only_what_changes_a_document_is_noted(products: Connection) -> None:
    for statement, documents in WRITES:
        with products.transaction(force_rollback=True):
            products.execute(statement.encode())
            assert noted(products) == documents, statement
    assert noted(products) == []  # what is rolled back was never noted
    with products.cursor().copy("COPY products (id, name) FROM STDIN") as copy:
        for id in (20, 21, 22):
            copy.write_row((id, "copied"))
    assert noted(products) == ["20", "21", "22"]


def test_a_writer_that_sees_an_old_snapshot_is_not_failed_by_a_worker(products: Connection, dsn: str) -> None:
    with psycopg.connect(dsn) as writer:
        writer.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        writer.execute("SELECT count(*) FROM products")
        # Meanwhile workers move the same document through the queue.
        products.execute("INSERT INTO pgvec.changes (attachment_id, document_id) VALUES (1, '1')")
        products.execute("SELECT pgvec._fold(10)")
        products.execute("SELECT count(*) FROM pgvec._claim(1, 7, 10, '1 min')")
        writer.execute("UPDATE products SET name = 'mine' WHERE id = 1")
    assert noted(products) == ["1"]


def test_rows_that_are_there_are_queued_by_and_by(products: Connection) -> None:
    products.execute("INSERT INTO products (id) SELECT generate_series(6, 25)")
    products.execute("DELETE FROM pgvec.changes")
    queued = [products.execute("SELECT pgvec._backfill(1, 4)").fetchone() for _ in range(8)]
    assert queued == [(4,)] * 6 + [(1,), (0,)]
    rows = products.execute("SELECT document_id FROM pgvec.queue").fetchall()
    assert {id for (id,) in rows} == {str(number) for number in range(1, 26)}


def test_keys_of_several_columns_are_told_apart(connection: Connection) -> None:
    connection.execute("CREATE TABLE pairs (a text, b text, at timestamptz, t text, PRIMARY KEY (a, b, at))")
    attach(connection, "pairs", "t", columns=[])
    rows = [("x", 'y","z', "2024-01-01"), ('x","y', "z", "2024-01-01"), ("", "é'\\", "2024-06-30")]
    for row in rows:
        connection.execute("SET timezone = 'Asia/Tokyo'")  # the id is the same, whoever writes
        connection.execute("INSERT INTO pairs VALUES (%s, %s, (%s || ' 12:00+00')::timestamptz, 'text')", row)
    ids = noted(connection)
    assert len(set(ids)) == 3
    assert '["", "é\'\\\\", "2024-06-30 12:00:00+00"]' in ids
    connection.execute("SET timezone = 'UTC'")
    found = connection.execute("SELECT document_id FROM pgvec_live_1_rows(%s) ORDER BY 1", [ids]).fetchall()
    assert [id for (id,) in found] == ids
    # One after the other, as they are queued when a table is attached.
    after, walked = "", []
    while rows := connection.execute("SELECT * FROM pgvec_live_1_keys(%s, 1)", [after]).fetchall():
        after = rows[0][0]
        walked.append(after)
    assert sorted(walked) == ids


def test_partitions_are_followed_whichever_way_they_are_written(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE parts ("
        "id integer PRIMARY KEY, t text, v text GENERATED ALWAYS AS (upper(t)) STORED, seen integer)"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE high (v text GENERATED ALWAYS AS (upper(t)) STORED, t text, seen integer, id integer NOT NULL)"
    )
    attach(connection, "parts", "v", columns=["t"])
    connection.execute("ALTER TABLE parts ATTACH PARTITION high FOR VALUES FROM (10) TO (20)")
    for statement, documents in (
        ("INSERT INTO parts (id, t) VALUES (1, 'a'), (2, 'b'), (11, 'c')", ["1", "11", "2"]),
        ("INSERT INTO high (id, t) VALUES (12, 'd')", ["12"]),
        ("UPDATE parts SET seen = 1", []),
        ("UPDATE high SET seen = 2, t = 'e' WHERE id = 12", ["12"]),
        ("UPDATE parts SET id = 15 WHERE id = 2", ["15", "2"]),
        ("DELETE FROM low", ["1"]),
        ("TRUNCATE parts", [None]),
    ):
        connection.execute(statement.encode())
        assert sorted(set(noted(connection)), key=str) == documents, statement
    connection.execute("SELECT pgvec.detach('parts')")
    assert connection.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'pgvec_live%'").fetchall() == []


REFUSED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("products", {"text": "nme"}, ConfigurationError, r'column "nme" does not exist\. Its columns: id, name'),
    ("products", {"text": "max(name)"}, ConfigurationError, "aggregate functions are not allowed"),
    ("products", {"text": "name) FROM products --"}, ConfigurationError, "text is no expression over a row"),
    ("products", {"text": "  "}, ConfigurationError, "text is missing"),
    ("products", {"text": "unaccented(name)"}, ConfigurationError, r"write public\.f\(name\)"),
    ("products", {"columns": ["cost"]}, ConfigurationError, "no column 'cost'. It has: id, name"),
    ("products", {"columns": ["id"]}, InvalidName, "The primary key is document_id already"),
    ("products", {"chunking": {"size": 3}}, ConfigurationError, "unknown options of chunking: size"),
    ("products", {"chunking": {"chunker": "nope"}}, ConfigurationError, "chunker: auto, recursive"),
    ("products", {"collection": "taken"}, CollectionExists, "follows another table: public.others"),
    ("others", {"collection": "taken"}, ConfigurationError, "of 384 dimensions.*: pgvec model swap taken"),
    ("unnamed", {}, ConfigurationError, "it has no primary key"),
    ("view_", {}, ConfigurationError, "it is a view"),
    ("parent", {}, ConfigurationError, "other tables inherit"),
]


def test_what_cannot_be_attached_is_refused_with_the_reason(db: Database, connection: Connection) -> None:
    connection.execute(PRODUCTS.encode())
    connection.execute(
        "CREATE TABLE others (id integer PRIMARY KEY, name text); SELECT pgvec.attach('others', 'name', 'taken');"
        "CREATE TABLE unnamed (name text); CREATE VIEW view_ AS TABLE products;"
        "CREATE TABLE parent (id integer PRIMARY KEY, name text); CREATE TABLE child () INHERITS (parent)"
    )
    for relation, options, error, message in REFUSED:
        with pytest.raises(error, match=message):
            db.attach(relation, **{"text": "name", "embedder": WordEmbedder()} | options)
    assert db.collections() == ["taken"]


def test_a_text_that_is_null_for_some_rows_is_pointed_out(connection: Connection) -> None:
    connection.execute(PRODUCTS.encode())
    connection.execute("UPDATE products SET note = NULL WHERE id < 3")
    notices: list[str | None] = []
    connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    attach(connection)
    assert any("text is NULL in 2 of the first 5 rows" in str(notice) for notice in notices)


def test_detaching_leaves_no_trace(db: Database, connection: Connection) -> None:
    connection.execute(PRODUCTS.encode())
    before = connection.execute(TRACES.encode()).fetchall()
    attach(connection)
    during = connection.execute(TRACES.encode()).fetchall()
    connection.execute("UPDATE products SET name = 'x'; SELECT pgvec._backfill(1, 2), pgvec._fold(2)")
    assert db.detach("products", drop=True) == "products_search"
    assert connection.execute(TRACES.encode()).fetchall() == before != during
    attach(connection)
    connection.execute("UPDATE products SET name = 'y'")
    db.detach("public.products")
    kept = {row[1] for row in connection.execute(TRACES.encode()).fetchall()} - {row[1] for row in before}
    assert "products_search" in kept
    assert all("products_search" in name for name in kept)
    connection.execute("UPDATE products SET name = 'z'")
    assert noted(connection) == []
    with pytest.raises(CollectionNotFound, match="Nothing is attached"):
        db.detach("products")


def test_dropping_the_collection_detaches_its_table(db: Database, connection: Connection) -> None:
    connection.execute(PRODUCTS.encode())
    before = connection.execute(TRACES.encode()).fetchall()
    attach(connection)
    db.drop_collection("products_search")
    assert connection.execute(TRACES.encode()).fetchall() == before


def test_attaching_again_changes_how(products: Connection) -> None:
    attach(products, text="name", columns=["seen"])
    assert noted(products) == [None]  # all is looked at again
    products.execute("UPDATE products SET note = 'x', price = 3")
    assert noted(products) == []
    products.execute("UPDATE products SET seen = 3 WHERE id = 1")
    assert noted(products) == ["1"]


def findings(connection: Connection) -> str:
    rows = connection.execute(
        "SELECT concat_ws(' | ', severity, subject, finding, mend) FROM pgvec.health WHERE subject LIKE 'collection%'"
    ).fetchall()
    return "\n".join(row for (row,) in rows)


ALTERED: list[tuple[str, str, list[str | None], str]] = [
    ("ALTER TABLE products RENAME name TO title", "UPDATE products SET title = 'x' WHERE id = 1", ["1"], "column"),
    ("ALTER TABLE products DROP COLUMN note", "UPDATE products SET seen = 3 WHERE id = 2", ["2"], "column"),
    ("ALTER TABLE products DROP COLUMN price", "DELETE FROM products WHERE id = 2", ["2"], "column"),
    ("ALTER TABLE products RENAME id TO nr", "UPDATE products SET name = 'x' WHERE nr = 1", [None], "column"),
    ("ALTER TABLE products RENAME TO goods", "UPDATE goods SET name = 'x' WHERE id = 1", ["1"], "was called otherwise"),
    ("ALTER TABLE products DISABLE TRIGGER USER", "UPDATE products SET name = 'x'", [], "gone or disabled"),
    ("REVOKE INSERT ON pgvec.changes FROM {owner}", "UPDATE products SET name = 'x'", [], "may not note"),
    ("ALTER TABLE products OWNER TO {owner}", "UPDATE products SET name = 'x' WHERE id = 1", ["1"], "belongs to"),
    ("DROP TABLE products", "SELECT 1", [], "table public.products, which it follows, is gone"),
]


def test_a_table_that_is_altered_can_be_written_and_the_doctor_says_so(
    db: Database, connection: Connection, empty_role: Callable[[str], None]
) -> None:
    owner = f"owner_{os.getpid()}"
    empty_role(owner)
    connection.execute(f"GRANT USAGE ON SCHEMA pgvec TO {owner}; GRANT INSERT ON pgvec.changes TO {owner}".encode())
    for ddl, write, documents, finding in ALTERED:
        connection.execute(PRODUCTS.encode())
        if "REVOKE" in ddl:  # a superuser cannot be refused anything
            connection.execute(f"ALTER TABLE products OWNER TO {owner}".encode())
        attach(connection)
        connection.execute(ddl.format(owner=owner).encode())
        connection.execute(write.encode())
        rows = connection.execute("SELECT document_id FROM pgvec.changes").fetchall()
        assert [id for (id,) in rows] == documents, ddl
        db.work(embedder=WordEmbedder())
        found = findings(connection)
        assert finding in found, ddl
        assert ("columns => '{price,extra}');" in found) == ("pgvec.attach(" in found)  # its mend changes nothing else
        (lag,) = db.attachments()
        gone = {"ALTER TABLE products RENAME TO goods": "public.goods", "DROP TABLE products": "public.products (gone)"}
        assert lag.relation == gone.get(ddl, "public.products")
        if documents and "OWNER" not in ddl:
            assert lag.error is not None, ddl
            assert lag.pending + lag.backfilling > 0, ddl  # nothing is lost: it waits
        db.detach("products_search", drop=True)
        assert findings(connection) == ""
        connection.execute("DROP TABLE IF EXISTS products, goods")


def test_who_writes_the_table_needs_no_rights_here(
    products: Connection, dsn: str, empty_role: Callable[[str], None]
) -> None:
    writer = f"writer_{os.getpid()}"
    empty_role(writer)
    products.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON products TO {writer}".encode())
    products.execute(f"GRANT USAGE ON SCHEMA pgvec TO {writer}; GRANT SELECT ON pgvec.attachments TO {writer}".encode())
    with psycopg.connect(dsn, options=f"-c role={writer}", autocommit=True) as connection:
        # What it has in front of the search path is not what the trigger function calls.
        connection.execute("CREATE TEMPORARY TABLE changes (LIKE products)")
        connection.execute("SET search_path = pg_temp, public")
        connection.execute("UPDATE products SET name = 'x' WHERE id = 1; DELETE FROM products WHERE id = 2")
        for statement in (
            "TABLE pgvec.changes",
            "SELECT * FROM public.pgvec_live_1_rows('{1}')",
            "SELECT * FROM public.pgvec_live_1_keys('', 1)",
            "SELECT pgvec.detach('products')",
            "SELECT pgvec._drop_routines(1)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    assert noted(products) == ["1", "2"]


def test_only_its_owner_attaches_a_table(connection: Connection, empty_role: Callable[[str], None]) -> None:
    other = f"other_{os.getpid()}"
    empty_role(other)
    connection.execute(PRODUCTS.encode())
    connection.execute(f"GRANT ALL ON products TO {other}; GRANT USAGE ON SCHEMA pgvec TO {other}".encode())
    connection.execute(f"SET ROLE {other}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of table"):
        attach(connection)
    connection.execute("RESET ROLE")


def test_who_attaches_a_table_lends_its_owner_no_rights(
    db: Database, connection: Connection, empty_role: Callable[[str], None]
) -> None:
    owner = f"owner_{os.getpid()}"
    empty_role(owner)
    # Whatever reads the column calls a function of the table's owner, which says with whose rights.
    connection.execute(
        f"GRANT USAGE ON SCHEMA pgvec TO {owner}; CREATE SCHEMA own AUTHORIZATION {owner}; SET ROLE {owner};"
        "CREATE TYPE own.name AS (name text); CREATE TABLE own.seen (role name);"
        "CREATE FUNCTION own.look(own.name) RETURNS text LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO own.seen VALUES (current_user); RETURN ($1).name; END$$;"
        "CREATE CAST (own.name AS text) WITH FUNCTION own.look(own.name) AS IMPLICIT;"
        "CREATE TABLE own.people (id integer PRIMARY KEY, name own.name);"
        "INSERT INTO own.people VALUES (1, '(Ada)'); RESET ROLE"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not note changes of it"):
        attach(connection, "own.people", "name", columns=["name"])
    connection.execute(f"GRANT INSERT ON pgvec.changes TO {owner}".encode())
    attach(connection, "own.people", "name", columns=["name"])
    connection.execute("UPDATE own.people SET name = '(Alan)'")
    assert noted(connection) == ["1"]
    assert db.work(embedder=WordEmbedder()).chunks == 1
    connection.execute(
        "CREATE TABLE own.store AS SELECT 1 AS id, 0 AS chunk_seq, 'Ada' AS chunk, NULL::vector(64) AS embedding"
    )
    connection.execute("SELECT pgvec.adopt('people_search', 'own.store')")
    assert connection.execute("SELECT DISTINCT role FROM own.seen").fetchall() == [(owner,)]
    connection.execute("DROP SCHEMA own CASCADE; SELECT pgvec.detach('people_search', drop => true)")


@pytest.fixture
def empty_role(connection: Connection) -> Iterator[Callable[[str], None]]:
    """Makes roles without rights."""
    made: list[str] = []

    def make(name: str) -> None:
        connection.execute(f"CREATE ROLE {name}".encode())
        made.append(name)

    yield make
    connection.execute("RESET ROLE")
    for name in made:
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_the_key_may_be_called_as_our_columns_are(db: Database, connection: Connection) -> None:
    connection.execute("CREATE TABLE letters (document_id integer PRIMARY KEY, text text)")
    connection.execute("INSERT INTO letters SELECT i, 'letter ' || i FROM generate_series(1, 3) i")
    docs = db.attach("letters", text="text", embedder=WordEmbedder())
    assert db.work(embedder=WordEmbedder()).chunks == 3
    assert docs.search("letter 2", k=1)[0].document_id == "2"
