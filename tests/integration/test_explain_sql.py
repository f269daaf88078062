"""Why an index is not used, said of real tables with real indexes: each reason, its remedy, and nothing that is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

Q = "'[1,2,3]'"
TABLES = """
CREATE TABLE items (id int PRIMARY KEY, grp int, embedding vector(3), half halfvec(3), bare vector, bits bit(3));
INSERT INTO items SELECT i, i % 100, v, v, v, binary_quantize(v)::bit(3)
FROM (SELECT i, format('[%s,%s,%s]', sin(i), cos(i), sin(7 * i))::vector AS v FROM generate_series(1, 5000) i) made;
CREATE INDEX items_cosine ON items USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 16);
CREATE TABLE queries AS SELECT id, grp, embedding FROM items LIMIT 10;
CREATE TABLE plain AS SELECT * FROM items;
CREATE TABLE halved AS SELECT id, embedding FROM items;
CREATE INDEX halved_cosine ON halved
    USING hnsw ((embedding::halfvec(3)) halfvec_cosine_ops) WITH (m = 8, ef_construction = 16);
CREATE TABLE quantized AS SELECT id, embedding FROM items;
CREATE INDEX quantized_hamming ON quantized
    USING hnsw ((binary_quantize(embedding)::bit(3)) bit_hamming_ops) WITH (m = 8, ef_construction = 16);
CREATE TABLE partial AS SELECT id, grp, embedding FROM items;
CREATE INDEX partial_cosine ON partial
    USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 16) WHERE grp < 50;
CREATE TABLE broken AS SELECT id, embedding FROM items;
CREATE INDEX broken_cosine ON broken USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 16);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken_cosine'::regclass;
CREATE TABLE listed AS SELECT id, grp, embedding FROM items;
CREATE INDEX listed_l2 ON listed USING ivfflat (embedding vector_l2_ops) WITH (lists = 10);
CREATE TABLE parted (id int, embedding vector(3)) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (2500);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (2500) TO (9999);
INSERT INTO parted SELECT id, embedding FROM items;
CREATE INDEX ON parted USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 16);
CREATE TABLE wide (embedding vector(3000));
ANALYZE;
"""


@pytest.fixture(scope="module")
def tables(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[str]:
    """A database with tables of 5,000 rows, which no test changes."""
    with janitor("t_explain_sql", template):
        dsn = make_conninfo(server_dsn, dbname="t_explain_sql")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(TABLES.encode())
        yield dsn


@pytest.fixture
def session(tables: str) -> Iterator[psycopg.Connection]:
    """A session of its own."""
    with psycopg.connect(tables, autocommit=True) as connection:
        yield connection


def explain(connection: psycopg.Connection, statement: str) -> tuple[list[str], list[str]]:
    """Return the plan and the findings."""
    lines = [line for (line,) in connection.execute("SELECT * FROM pgvec.explain_sql(%s)", [statement]).fetchall()]
    middle = lines.index("")
    return lines[:middle], lines[middle + 1 :]


def findings(connection: psycopg.Connection, statement: str) -> list[str]:
    return explain(connection, statement)[1]


# -- reasons ---------------------------------------------------------------------------------------

NEAREST = f"ORDER BY embedding <=> {Q} LIMIT 5"
# A statement, how its finding begins, and what every reason for it holds, in order.
REASONS: dict[str, tuple[str, str, list[list[str]]]] = {
    "no index": (
        f"SELECT id FROM plain {NEAREST}",
        "public.plain is sorted by plain.embedding <=> ",
        [["no hnsw or ivfflat index", "CREATE INDEX ON public.plain USING hnsw (embedding vector_cosine_ops);"]],
    ),
    "no index on that column": (
        f"SELECT id FROM items ORDER BY half <-> {Q} LIMIT 5",
        "public.items is sorted by items.half <-> ",
        [["no hnsw or ivfflat index", "(half halfvec_l2_ops);"]],
    ),
    "no index, no dimensions": (
        f"SELECT id FROM items ORDER BY bare <+> {Q} LIMIT 5",
        "public.items is sorted by items.bare <+> ",
        [["no hnsw or ivfflat index", "((bare::vector(n)) vector_l1_ops);"]],
    ),
    "no index on an expression": (
        "SELECT id FROM plain p ORDER BY binary_quantize(embedding)::bit(3) <~> B'111' LIMIT 5",
        "public.plain is sorted by (binary_quantize(p.embedding))::bit(3) <~> ",
        [["no hnsw or ivfflat index", "(((binary_quantize(embedding))::bit(3)) bit_hamming_ops);"]],
    ),
    "no index on bits": (
        "SELECT id FROM items ORDER BY bits <%> B'111' LIMIT 5",
        "public.items is sorted by items.bits <%> ",
        [["no hnsw or ivfflat index", "(bits bit_jaccard_ops);"]],
    ),
    "invalid": (
        f"SELECT id FROM broken {NEAREST}",
        "public.broken is sorted by ",
        [["Index public.broken_cosine is INVALID", "REINDEX INDEX CONCURRENTLY public.broken_cosine."]],
    ),
    "operator class": (
        f"SELECT id FROM items ORDER BY embedding <-> {Q} LIMIT 5",
        "public.items is sorted by ",
        [
            [
                "items_cosine has operator class vector_cosine_ops, which serves <=>",
                "has <->",
                "(embedding vector_l2_ops)",
            ]
        ],
    ),
    "descending": (
        f"SELECT id FROM items ORDER BY embedding <=> {Q} DESC LIMIT 5",
        "public.items is sorted by ",
        [["It sorts DESC", "ORDER BY items.embedding <=> value, ascending"]],
    ),
    "nulls first": (
        f"SELECT id FROM items ORDER BY embedding <=> {Q} NULLS FIRST LIMIT 5",
        "public.items is sorted by ",
        [["It sorts NULLS FIRST"]],
    ),
    "expression": (
        f"SELECT id FROM items d ORDER BY (embedding <=> {Q}) + 0 LIMIT 5",
        "public.items is sorted by (d.embedding <=> ",
        [["an expression around <=>", "Write ORDER BY d.embedding <=> value"]],
    ),
    "similarity": (
        f"SELECT id, 1 - (embedding <=> {Q}) AS similarity FROM items ORDER BY similarity DESC LIMIT 5",
        "public.items is sorted by ",
        [["an expression around <=>"], ["It sorts DESC"]],
    ),
    "function": (
        f"SELECT id FROM items ORDER BY cosine_distance(embedding, {Q}) LIMIT 5",
        "public.items is sorted by cosine_distance(",
        [["calls the function cosine_distance", "Write ORDER BY items.embedding <=> value."]],
    ),
    "inner product": (
        f"SELECT id FROM plain ORDER BY inner_product(embedding, {Q}) LIMIT 5",
        "public.plain is sorted by inner_product(",
        [["calls the function inner_product", "<#> value, the negative of it"], ["vector_ip_ops"]],
    ),
    "second key": (
        f"SELECT id FROM items ORDER BY grp, embedding <=> {Q} LIMIT 5",
        "public.items is sorted by ",
        [["The distance is sort key 2 of 2", "LIMIT n in a subquery"]],
    ),
    "value of another type": (
        f"SELECT id FROM items ORDER BY embedding <=> {Q}::halfvec LIMIT 5",
        "public.items is sorted by (items.embedding)::halfvec <=> ",
        [["items_cosine is on items.embedding", "by (items.embedding)::halfvec.", "a value of the column's type"]],
    ),
    "subquery of another type": (
        "SELECT id FROM items ORDER BY embedding <=> (SELECT half FROM items WHERE id = 1) LIMIT 5",
        "public.items is sorted by (items.embedding)::halfvec <=> ",
        [["items_cosine is on items.embedding", "a value of the column's type"]],
    ),
    "no index, many dimensions": (
        "SELECT 1 FROM wide ORDER BY embedding <-> (SELECT embedding FROM wide LIMIT 1) LIMIT 5",
        "public.wide is sorted by ",
        [["no hnsw or ivfflat index", "((embedding::halfvec(3000)) halfvec_l2_ops);"]],
    ),
    "index on a cast": (
        f"SELECT id FROM halved h {NEAREST}",
        "public.halved is sorted by h.embedding <=> ",
        [["halved_cosine is on (h.embedding)::halfvec(3), and", "Write ORDER BY (h.embedding)::halfvec(3) <=> value"]],
    ),
    "index on a cast with dimensions": (
        f"SELECT id FROM halved ORDER BY embedding::halfvec <=> {Q} LIMIT 5",
        "public.halved is sorted by (halved.embedding)::halfvec <=> ",
        [["halved_cosine is on (halved.embedding)::halfvec(3), and", "sorts by (halved.embedding)::halfvec."]],
    ),
    "index on an expression": (
        f"SELECT id FROM quantized {NEAREST}",
        "public.quantized is sorted by ",
        [
            ["quantized_hamming has operator class bit_hamming_ops"],
            ["quantized_hamming is on (binary_quantize(quantized.embedding))::bit(3)", "::bit(3) <~> value"],
        ],
    ),
    "function of the column": (
        f"SELECT id FROM items ORDER BY l2_normalize(embedding) <=> {Q} LIMIT 5",
        "public.items is sorted by l2_normalize(",
        [["items_cosine is on items.embedding", "sorts by l2_normalize(items.embedding)"]],
    ),
    "partial": (
        f"SELECT id FROM partial WHERE grp < 60 {NEAREST}",
        "public.partial is sorted by ",
        [["partial_cosine is partial", "WHERE does not imply (grp < 50)"]],
    ),
    "two columns": (
        "SELECT d.id FROM items d JOIN queries q ON q.id = d.grp ORDER BY d.embedding <=> q.embedding LIMIT 5",
        "public.items is sorted by d.embedding <=> q.embedding",
        [["compares two columns, d.embedding and q.embedding", "LATERAL"]],
    ),
    "volatile value": (
        "SELECT id FROM items ORDER BY embedding <=> ('[1,2,' || random() || ']')::vector LIMIT 5",
        "public.items is sorted by ",
        [["items_cosine fits, but", "random())", "may differ from row to row", "(SELECT ...)"]],
    ),
    "correlated value": (
        "SELECT id FROM items i ORDER BY embedding <=> (SELECT q.embedding FROM queries q WHERE q.id = i.grp) LIMIT 5",
        "public.items is sorted by i.embedding <=> ",
        [["items_cosine fits, but", "SubPlan 1", "may differ from row to row"]],
    ),
    "groups": (
        f"SELECT embedding, count(*) FROM items GROUP BY embedding ORDER BY embedding <=> {Q} LIMIT 5",
        "public.items is sorted by items.embedding <=> ",
        [["items_cosine fits, but a join, DISTINCT or GROUP BY", "in a subquery on the table alone"]],
    ),
    "cost": (
        f"SELECT id FROM items WHERE id < 5 {NEAREST}",
        "public.items is sorted by ",
        [["found this plan cheaper, at ", "than index public.items_cosine, at "]],
    ),
    "cost, without LIMIT": (
        f"SELECT id FROM items WHERE id < 5 ORDER BY embedding <=> {Q}",
        "public.items is sorted by ",
        [["There is no LIMIT"]],
    ),
    "partitions": (
        f"SELECT id FROM parted ORDER BY embedding <#> {Q} LIMIT 5",
        "public.parted is sorted by parted.embedding <#> ",
        [["parted_1_embedding_idx has operator class vector_cosine_ops", "CREATE INDEX ON public.parted USING hnsw"]],
    ),
    "inside a CTE": (
        f"WITH n AS (SELECT id FROM plain {NEAREST}) SELECT i.grp FROM n JOIN items i USING (id)",
        "public.plain is sorted by ",
        [["no hnsw or ivfflat index"]],
    ),
    "not a sort": (
        f"SELECT id FROM items WHERE embedding <=> {Q} < 0.1",
        "Nothing is sorted by the distance of a vector column.",
        [],
    ),
    "another type's operator": (
        "SELECT 1 FROM (VALUES (point '(1,2)'), (point '(2,3)')) p (p) ORDER BY p <-> point '(0,0)' LIMIT 1",
        "Nothing is sorted by the distance of a vector column.",
        [],
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_reason_and_its_remedy(session: psycopg.Connection, case: str) -> None:
    statement, opening, wanted = REASONS[case]
    first, *reasons = findings(session, statement)
    assert first.startswith(opening)
    assert len(reasons) == len(wanted), reasons
    for reason, parts in zip(reasons, wanted, strict=True):
        assert reason.startswith("  - ")
        assert all(part in reason for part in parts), reason


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT id FROM items {NEAREST}",
        f"SELECT id FROM items ORDER BY {Q} <=> embedding LIMIT 5",
        f"SELECT id, 1 - (embedding <=> {Q}) FROM items ORDER BY embedding <=> {Q}::vector LIMIT 5",
        "SELECT id FROM items ORDER BY embedding <=> (SELECT embedding FROM items WHERE id = 1) LIMIT 5",
        "SELECT id FROM items ORDER BY embedding <=> (SELECT ('[1,2,' || random() || ']')::vector) LIMIT 5",
        f"SELECT id FROM halved ORDER BY embedding::halfvec(3) <=> {Q} LIMIT 5",
        "SELECT id FROM quantized ORDER BY binary_quantize(embedding)::bit(3) <~> B'111' LIMIT 5",
        f"SELECT id FROM partial WHERE grp < 50 {NEAREST}",
        f"SELECT * FROM (SELECT id FROM items {NEAREST}) nearest ORDER BY id",
        "SELECT n.id FROM queries q CROSS JOIN LATERAL"
        " (SELECT id FROM items i ORDER BY i.embedding <=> q.embedding LIMIT 5) n",
        f"SELECT id FROM parted {NEAREST}",
    ],
)
def test_the_remedies_are_remedies(session: psycopg.Connection, statement: str) -> None:
    found = findings(session, statement)
    assert "is read through hnsw index public." in found[0]
    assert "with hnsw.ef_search = 40 and hnsw.iterative_scan = off." in found[0]
    assert not any("sorted by" in line or "LIMIT" in line for line in found)


def test_no_limit(session: psycopg.Connection) -> None:
    statement = f"SELECT id FROM items WHERE grp < 50 ORDER BY embedding <=> {Q}"
    session.execute("SET enable_seqscan = off")
    session.execute("SET enable_sort = off")
    assert "there is no LIMIT, and the index returns at most 40 rows. Add LIMIT n" in findings(session, statement)[1]
    session.execute("SET enable_seqscan = on")
    session.execute("SET enable_sort = on")
    session.execute("SET enable_indexscan = off")
    assert [line[:20] for line in findings(session, statement)[1:]] == ["  - There is no LIMI", "  - enable_indexscan"]


def test_no_limit_counts_only_where_it_stands(session: psycopg.Connection) -> None:
    inner = f"SELECT id, embedding <=> {Q} AS distance FROM plain ORDER BY distance"
    statement = f"WITH all_of_them AS MATERIALIZED ({inner}) SELECT id FROM all_of_them LIMIT 5"
    assert "There is no LIMIT" in findings(session, statement)[-1]


def test_several_keys(session: psycopg.Connection) -> None:
    found = findings(session, f"SELECT id FROM items ORDER BY embedding <=> {Q}, id LIMIT 5")
    if session.info.server_version < 170000:
        assert "The distance is sort key 1 of 2, and an index needs it to be the only one." in found[1]
    else:
        assert "is read through hnsw index public.items_cosine" in found[0]
        (reason,) = findings(session, f"SELECT id FROM plain ORDER BY embedding <=> {Q}, id LIMIT 5")[1:]
        assert "no hnsw or ivfflat index" in reason


def test_index_scans_switched_off(session: psycopg.Connection) -> None:
    session.execute("SET enable_indexscan = off")
    assert findings(session, f"SELECT id FROM items {NEAREST}")[1:] == [
        "  - enable_indexscan is off. SET enable_indexscan = on."
    ]


def test_an_index_that_serves_hides_those_that_do_not(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE t (embedding vector(3))")
    for operators in ("l2", "cosine"):
        connection.execute(f"CREATE INDEX t_{operators} ON t USING hnsw (embedding vector_{operators}_ops)".encode())
    (reason,) = findings(connection, f"SELECT FROM t ORDER BY embedding <=> {Q} DESC LIMIT 1")[1:]
    assert "DESC" in reason
    reasons = findings(connection, f"SELECT FROM t ORDER BY embedding <#> {Q} LIMIT 1")[1:]
    assert ["t_l2" in reason or "t_cosine" in reason for reason in reasons] == [True, True]


# -- an index that is used -------------------------------------------------------------------------


def test_limit_and_ef_search(session: psycopg.Connection) -> None:
    def warnings(tail: str) -> list[str]:
        return findings(session, f"SELECT id FROM items ORDER BY embedding <=> {Q} {tail}")[1:]

    assert warnings("LIMIT 40") == []
    assert "LIMIT, with OFFSET, is 41" in warnings("LIMIT 41")[0]
    assert "SET hnsw.ef_search = 41, or SET hnsw.iterative_scan = relaxed_order." in warnings("LIMIT 41")[0]
    assert warnings("LIMIT 10 OFFSET 30") == []
    assert "LIMIT, with OFFSET, is 41" in warnings("LIMIT 10 OFFSET 31")[0]
    session.execute("SET hnsw.ef_search = 41")
    assert warnings("LIMIT 41") == []
    session.execute("SET hnsw.ef_search = 1")
    session.execute("SET hnsw.iterative_scan = strict_order")
    assert warnings("LIMIT 41") == []
    assert "= 1 and hnsw.iterative_scan = strict_order." in findings(session, f"SELECT id FROM items {NEAREST}")[0]


def test_filters(session: psycopg.Connection) -> None:
    filtered = f"SELECT id FROM items WHERE grp <> 3 {NEAREST}"
    joined = (
        f"SELECT i.id FROM items i JOIN plain p ON p.id = i.id WHERE p.grp <> 3 ORDER BY i.embedding <=> {Q} LIMIT 2"
    )
    session.execute("SET enable_sort = off")
    session.execute("SET enable_seqscan = off")
    session.execute("CREATE INDEX IF NOT EXISTS plain_id ON plain (id)")
    assert "(items.grp <> 3) drops rows after the index has returned at most 40 rows" in findings(session, filtered)[1]
    assert "(p.grp <> 3) drops rows after" in findings(session, joined)[1]
    session.execute("LOAD 'vector'")
    session.execute("SET hnsw.iterative_scan = relaxed_order")
    assert len(findings(session, filtered)) == len(findings(session, joined)) == 1


def test_ivfflat(session: psycopg.Connection) -> None:
    session.execute("SET enable_seqscan = off")
    session.execute("SET enable_sort = off")
    used, warning = findings(session, f"SELECT id FROM listed WHERE grp < 9 ORDER BY embedding <-> {Q} LIMIT 50")
    assert "ivfflat index public.listed_l2" in used
    assert "ivfflat.probes = 1 and ivfflat.iterative_scan = off" in used
    assert "(listed.grp < 9) drops rows after" in warning
    assert "SET ivfflat.iterative_scan = relaxed_order" in warning


def test_what_pgvec_search_runs(connection: psycopg.Connection) -> None:
    connection.execute("SELECT pgvec.create_collection('docs', 3)")
    connection.execute("CREATE INDEX ON docs_dense USING hnsw (embedding vector_cosine_ops)")
    connection.execute("SET enable_seqscan = off")
    connection.execute("SET enable_sort = off")
    (text,) = connection.execute(f"SELECT replace(pgvec.search_sql('docs'), '$1', $${Q}$$)".encode()).fetchone() or (
        "",
    )
    found, *_ = findings(connection, text)  # others are of the branch that answers when the scan ends short
    assert found.startswith("public.docs_dense is read through hnsw index")
    assert found.endswith("with settings that the statement makes itself.")


# -- what is printed, and what is never done -------------------------------------------------------


def test_the_plan_comes_first_without_long_literals(session: psycopg.Connection) -> None:
    statement = f"SELECT id FROM items {NEAREST}"
    plan = [line for (line,) in session.execute(f"EXPLAIN (COSTS OFF) {statement}".encode()).fetchall()]
    assert explain(session, statement)[0] == plan
    session.execute("CREATE TEMP TABLE wide (v vector(500))")
    plan, (found, *_) = explain(session, f"SELECT FROM wide ORDER BY v <=> '{[0.125] * 500}' LIMIT 1")
    assert max(map(len, [*plan, found])) < 200


def test_nothing_is_run(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE precious (id int)")
    connection.execute(
        "CREATE FUNCTION boom() RETURNS int LANGUAGE plpgsql AS $$BEGIN DROP TABLE precious; RETURN 1; END$$"
    )
    statements = [
        "SELECT 1; DROP TABLE precious",
        "SELECT 1; DROP TABLE precious; SELECT 2",
        ";DROP TABLE precious",
        "DROP TABLE precious",
        "ANALYZE SELECT boom()",
        "(ANALYZE) SELECT boom()",
        "EXPLAIN ANALYZE SELECT boom()",
        "DELETE FROM precious",
        "CREATE TABLE t AS SELECT boom()",
        "/* SELECT */ DROP TABLE precious",
        "-- SELECT\nDROP TABLE precious",
        "",
        None,
    ]
    for statement in statements:
        with pytest.raises(psycopg.Error) as caught:
            explain(connection, statement)  # type: ignore[arg-type]
        assert caught.value.sqlstate in ("PV005", "42601"), statement
    connection.execute("INSERT INTO precious VALUES (1)")
    for harmless in ("SELECT boom()", "WITH gone AS (DELETE FROM precious RETURNING id) SELECT id FROM gone"):
        explain(connection, harmless)
    assert connection.execute("SELECT id FROM precious").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "statement", ["SELECT 1;", " -- one\n/* two */ ( (SELECT 1))", "with a as (select 1) table a", "VALUES (1)"]
)
def test_what_is_a_query(connection: psycopg.Connection, statement: str) -> None:
    assert findings(connection, statement)


def test_parameters_are_refused(session: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error, match=r"has parameters: there is no parameter \$1") as caught:
        explain(session, "SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5")
    assert caught.value.sqlstate == "PV005"
    assert "literals" in str(caught.value.diag.message_hint)


def test_the_statements_own_errors_come_through(session: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        explain(session, "SELECT 1 FROM nowhere")
    with pytest.raises(psycopg.errors.SyntaxError):
        explain(session, "SELECT 1 FROM")
    with pytest.raises(psycopg.errors.DataException, match="expected 3 dimensions"):
        explain(session, "SELECT id FROM items ORDER BY embedding <=> '[1]'::vector(3) LIMIT 5")


# -- whose session it is ---------------------------------------------------------------------------


def test_names_are_the_callers(connection: psycopg.Connection) -> None:
    connection.execute('CREATE SCHEMA "My own"')
    connection.execute('CREATE TABLE "My own"."T" ("a <=> b" int, "V" vector(3))')
    connection.execute('CREATE INDEX "I" ON "My own"."T" USING hnsw ("V" vector_l2_ops)')
    statement = f'SELECT FROM "T" "x.y" ORDER BY "V" <=> {Q} LIMIT 1'
    with pytest.raises(psycopg.errors.UndefinedTable):
        explain(connection, statement)
    for path in ('"My own", public', 'public, "My own"'):
        connection.execute(f"SET search_path = {path}".encode())
        (reason,) = findings(connection, statement)[1:]
        assert 'Index "My own"."I" has operator class vector_l2_ops' in reason
        assert 'CREATE INDEX ON "My own"."T" USING hnsw ("V" vector_cosine_ops);' in reason
    connection.execute("SET search_path = pg_catalog")
    qualified = f'SELECT FROM "My own"."T" t ORDER BY "V" OPERATOR(public.<->) {Q}::public.halfvec LIMIT 1'
    (reason,) = findings(connection, qualified)[1:]
    assert 'Index "My own"."I" is on t."V", and the statement sorts by (t."V")::public.halfvec.' in reason


def test_settings_are_as_before(session: psycopg.Connection) -> None:
    names = ("search_path", "enable_seqscan", "enable_sort", "enable_bitmapscan", "enable_indexscan")
    shown = b"SELECT " + ", ".join(f"current_setting('{name}')" for name in names).encode()
    session.execute("SET search_path = public, pg_temp")
    session.execute("SET enable_indexscan = off")
    with session.transaction():
        before = session.execute(shown).fetchone()
        findings(session, f"SELECT id FROM items {NEAREST}")
        assert session.execute(shown).fetchone() == before
    assert session.execute(shown).fetchone() == before


def test_a_read_only_transaction_of_a_plain_role(connection: psycopg.Connection) -> None:
    role = f"explainer_{connection.info.backend_pid}"
    connection.execute("CREATE TABLE seen (embedding vector(3)); CREATE TABLE hidden (embedding vector(3))")
    connection.execute("CREATE INDEX ON seen USING hnsw (embedding vector_l2_ops)")
    connection.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgvec TO {role}; GRANT SELECT ON seen TO {role}".encode()
    )
    try:
        connection.execute(f"SET ROLE {role}".encode())
        connection.execute("SET default_transaction_read_only = on")
        (reason,) = findings(connection, f"SELECT FROM seen ORDER BY embedding <=> {Q} LIMIT 1")[1:]
        assert "vector_l2_ops" in reason
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            findings(connection, f"SELECT FROM hidden ORDER BY embedding <=> {Q} LIMIT 1")
    finally:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("RESET ROLE")
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
