"""Promotion of a metadata key: online, resumable, and the same rows match at every moment."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import lt
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, IndexBuildError, InvalidName
from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema import promote as module
from pgvec_toolkit.schema.promote import Promoted
from tests.words import WordEmbedder

ROOT = Path(__file__).parents[2]
AT = dt.datetime(2020, 2, 29, 10, 20, tzinfo=dt.UTC)
# Of each type: values that a loader takes for a typed column, as metadata hold them, with what the column then holds.
READABLE: dict[str, list[tuple[Any, Any]]] = {
    "text": [("x", "x"), ("", ""), ("2020", "2020"), ("ü" * 1300, "ü" * 1300)],
    "int": [(2020, 2020), (-3.0, -3), (1e3, 1000), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63))],
    "float": [(1, 1.0), (0.1, 0.1), (-1e308, -1e308), (2**60, float(2**60))],
    "bool": [(True, True), (False, False)],
    "date": [("2020-02-29", dt.date(2020, 2, 29)), ("20200105", dt.date(2020, 1, 5)), ("0001-01-01", dt.date(1, 1, 1))],
    "timestamp": [
        ("2020-02-29", AT.replace(hour=0, minute=0)),
        ("2020-02-29T10:20", AT),
        ("2020-02-29 10:20:30.5", AT.replace(second=30, microsecond=500_000)),
        ("2020-02-29T10:20:30Z", AT.replace(second=30)),
        ("2020-02-29T10:20+02:00", AT.replace(hour=8)),
        ("2020-02-29T10:20:30.123456789-0130", AT.replace(hour=11, minute=50, second=30, microsecond=123_456)),
        ("20200229T102030", AT.replace(second=30)),
    ],
    "text[]": [(["a", "b"], ["a", "b"]), ([], []), (["x" * 2600], ["x" * 2600])],
}
UNREADABLE: dict[str, list[Any]] = {
    "text": [1, True, ["x"], {"a": 1}, "x" * 2601],
    "int": [0.5, "2020", True, 2**63, -(2**63) - 1, 10**400, [1], {}],
    "float": ["0.1", True, 10**400, [0.1]],
    "bool": [0, 1, "true", []],
    "date": ["2020-02-30", "0000-01-01", "29.2.2020", "2020-02-29T00:00:00", "infinity", "today", 20200229, ""],
    "timestamp": ["2020-02-30", "2020-02-29T24:00", "2020-02-29T10:60", "now", "infinity", "10:20", 0, "2020-02-29T1"],
    "text[]": ["x", ["x", 1], ["x", None], [["x"]], {"x": 1}, ["x" * 2601]],
}


def promote(db: Database, key: str, type: object, collection: str = "docs") -> Promoted:
    return module.promote(db, collection, db.collection(collection).space, key, type, progress=False)


def rows(values: list[Any], first: int = 0) -> list[dict[str, Any]]:
    metadata = [{} if value is ... else {"year": value} for value in values]
    return [{"id": id, "vector": [1, id], "metadata": each} for id, each in enumerate(metadata, first)]


def column(connection: Connection) -> dict[str, Any]:
    return dict(connection.execute("SELECT id, year FROM docs").fetchall())


def leftovers(connection: Connection) -> list[Any]:
    """What a promotion that was not completed leaves: the hidden column, and an index that is not valid."""
    return connection.execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname LIKE 'pgvec_promoting%'"
        " UNION ALL SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'docs'::regclass AND NOT"
        " indisvalid"
    ).fetchall()


def versions(connection: Connection) -> Any:
    return connection.execute("SELECT id, ctid::text, xmin::text FROM docs ORDER BY id").fetchall()


@pytest.fixture
def docs(db: Database) -> Collection:
    return db.create_collection("docs", dimensions=2, distance="l2")


@pytest.mark.parametrize("type", READABLE)
def test_values_are_read_as_loaded(db: Database, connection: Connection, docs: Collection, type: str) -> None:
    given = [value for value, _ in READABLE[type]]
    odd = UNREADABLE[type]
    docs.upsert(rows([*given, *odd, None, ...]))
    promoted = promote(db, "year", type)
    expected = {str(number): value for number, (_, value) in enumerate(READABLE[type])}
    expected |= {str(number): None for number in range(len(given), len(given) + len(odd) + 2)}
    assert column(connection) == expected
    assert (promoted.column, promoted.rows, promoted.unreadable) == ("year", len(given), len(odd))
    assert docs.columns == {"year": promoted.type}
    assert [odd[int(id) - len(given)] for id, _ in promoted.examples] == [value for _, value in promoted.examples]
    assert len(promoted.examples) == 3

    # Written afterwards they come out the same, by COPY and by UPDATE.
    count = len(given) + len(odd) + 2
    docs.upsert(rows([*given, *odd, None, ...], first=count))
    docs.upsert(rows([..., *given, *odd, None][:count]))
    after = column(connection)
    assert {str(int(id) - count): value for id, value in after.items() if int(id) >= count} == expected
    assert [after[str(number + 1)] for number in range(count - 1)] == list(expected.values())[:-1]
    assert after["0"] is None

    # A typed column takes the same, written as itself.
    db.create_collection("typed", dimensions=2, columns={"year": type}).upsert(
        [{"id": number, "vector": [1, 1], "year": value} for number, value in enumerate(given)]
    )
    assert connection.execute("SELECT year FROM typed ORDER BY id").fetchall() == [(v,) for _, v in READABLE[type]]


def test_python_types_and_hits_that_stay_as_they_were(db: Database, docs: Collection) -> None:
    types = (str, int, float, bool, dt.date, dt.datetime, list[str])
    values = ("x", 3, 0.5, True, dt.date(2020, 1, 5), dt.datetime(2020, 1, 5, 10), ["x", "y"])
    kinds = {f"k{place}": pair for place, pair in enumerate(zip(types, values, strict=True))}
    record = {"id": "r", "vector": [1, 2], **{key: value for key, (_, value) in kinds.items()}}
    docs.upsert([record])
    before = docs.search([1, 2])
    for key, (kind, _) in kinds.items():
        assert promote(db, key, kind).rows == 1
    assert list(docs.columns) == list(kinds)
    docs._searcher.forget_texts()
    assert docs.search([1, 2]) == before
    assert docs.upsert([record]).unchanged == 1
    for key, (_, value) in kinds.items():
        assert [hit.id for hit in docs.search([1, 2], where={key: value})] == ["r"], key
    assert [hit.id for hit in docs.search([1, 2], where={"k6": {"$in": ["y", "z"]}, "k1": {"$gte": 3}})] == ["r"]
    assert docs.search([1, 2], group_by="k1")[0].id == "r"


def test_filters_use_the_index(db: Database, connection: Connection, docs: Collection) -> None:
    tags = [["t", str(number)] for number in range(5000)]
    docs.upsert({"id": range(5000), "vector": np.ones((5000, 2)), "year": range(5000), "tags": tags})
    promote(db, "year", int)
    promote(db, "tags", list)
    rows = connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'docs'").fetchall()
    definitions = [definition for (definition,) in rows]
    assert "CREATE INDEX docs_year_idx ON public.docs USING btree (year, key)" in definitions
    assert "CREATE INDEX docs_tags_idx ON public.docs USING gin (tags)" in definitions
    btree = "Index Only Scan using docs_year_idx"
    plans = {
        '{"year": 7}': btree,
        '{"year": {"$lt": 5}}': btree,
        '{"tags": "77"}': "Bitmap Index Scan on docs_tags_idx",
    }
    for filter, index in plans.items():
        (predicate,) = connection.execute("SELECT pgvec._filter_sql('docs', %s)", [filter]).fetchone() or ("",)
        statement = f"EXPLAIN SELECT d.key FROM docs d WHERE {predicate}".replace("$2", f"'{filter}'::jsonb")
        plan = "\n".join(line for (line,) in connection.execute(statement.encode()).fetchall())
        assert index in plan


def test_again_is_nothing_and_tells_the_same(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1, 2, "odd"]))
    first = promote(db, "year", int)
    assert first == Promoted("year", "bigint", 2, 1, (("2", "odd"),))
    before = versions(connection)
    assert promote(db, "year", "bigint") == first
    assert versions(connection) == before
    with pytest.raises(
        ConfigurationError, match=r"'year' of collection 'docs' is of type bigint already.*DROP COLUMN year"
    ):
        promote(db, "year", str)


def test_refusals(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1]))
    with pytest.raises(CollectionNotFound, match="there is no collection 'nope'"):
        module.promote(db, "nope", docs.space, "year", int)
    own = ["key", "id", "document_id", "position", "text", "metadata", "tsv", "vector", "xmin", "ctid"]
    for key in [*own, "pgvec_promoting_x", "Year", "a b", "", "x" * 61]:
        with pytest.raises(InvalidName):
            promote(db, key, int)
    for type in ("inet", "", bytes, ["str"], None):
        with pytest.raises(ConfigurationError):
            promote(db, "year", type)
    assert (leftovers(connection), docs.columns) == ([], {})


def test_nothing_readable_is_taken_back(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([2020, 2021, None]))
    before = versions(connection)
    with pytest.raises(
        ConfigurationError, match=r"none of the 2 values.*read as date, for example 2020 of '0', 2021 of '1'"
    ):
        promote(db, "year", dt.date)
    assert leftovers(connection) == []
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgvec\\_promot%'").fetchone() == (0,)
    assert versions(connection) == before
    assert promote(db, "never_seen", int).rows == 0
    assert promote(db, "year", int).rows == 2


def test_two_keys_of_the_longest_names(db: Database, connection: Connection, docs: Collection) -> None:
    long = ["x" * 59 + "a", "x" * 59 + "b"]
    docs.upsert([{"id": i, "vector": [1, i], long[0]: ["odd", 1][i % 2], long[1]: i} for i in range(10)])
    assert (promote(db, long[0], int).rows, promote(db, long[1], int).rows) == (5, 10)
    assert list(docs.columns) == long
    assert docs.upsert([{"id": 0, "vector": [1, 0], long[0]: 8, long[1]: 9}]).updated == 1
    assert connection.execute(f"SELECT {long[0]}, {long[1]} FROM docs WHERE id = '0'".encode()).fetchone() == (8, 9)


# -- interrupted -------------------------------------------------------------------------------------


STEPS = ("begin", "backfill", "invalid index", "index")


def run_until(db: Database, docs: Collection, step: str) -> None:
    """Do the steps of a promotion up to one, and then no more."""
    with db.dedicated_connection() as connection:
        plan = module._plan(connection, "docs", "year", "int")
        begin = "SELECT pgvec._promote_begin(%s, %s, %s)"
        module._briefly_alone(connection, docs.space, begin, ["docs", "year", "int"])
        if step != "begin":
            first, upto, _ = next(module._ranges(connection, docs.space, 1, 2))
            assert module._fill(connection, plan, "year", first, upto) == (2, False)
        if step == "invalid index":
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute(f"CREATE UNIQUE INDEX CONCURRENTLY broken ON docs ({plan.hidden})".encode())
        if step in STEPS[3:]:
            module._backfill(connection, docs.space, "year", plan, False)
            module._build_index(db, connection, docs.space, "year", plan, False)


@pytest.mark.parametrize("step", STEPS)
def test_resumed_after_every_step(db: Database, connection: Connection, docs: Collection, step: str) -> None:
    docs.upsert(rows([1, 1, 2, "odd", ..., 7]))
    run_until(db, docs, step)
    # Unfinished, nobody sees it; what is written meanwhile is in it.
    assert docs.columns == {}
    assert [hit.id for hit in docs.search([1, 0], where={"year": 1})] == ["0", "1"]
    docs.upsert([*rows([5]), *rows([8], first=6)])
    before = versions(connection)
    assert promote(db, "year", int).rows == 5
    assert column(connection) == {"0": 5, "1": 1, "2": 2, "3": None, "4": None, "5": 7, "6": 8}
    assert leftovers(connection) == []
    rewritten = {old[0] for old, new in zip(before, versions(connection), strict=True) if old != new}
    assert rewritten == ({"1", "2", "5"} if step == "begin" else {"2", "5"} if step != "index" else set())


def test_begun_for_another_type(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1, 1, 2]))
    run_until(db, docs, "index")
    assert (promote(db, "year", float).type, leftovers(connection)) == ("double precision", [])
    assert column(connection) == {"0": 1.0, "1": 1.0, "2": 2.0}


# Says a line before every step.
PROGRAM = """
import sys
from pgvec_toolkit.database import Database
from pgvec_toolkit.schema import promote
def talking(step):
    return lambda *arguments: (print(step, flush=True), step(*arguments))[1]
for name in ("_briefly_alone", "_fill", "_build_index"):
    setattr(promote, name, talking(getattr(promote, name)))
promote.ROWS_PER_BATCH = 100
db = Database(sys.argv[1])
promote.promote(db, "docs", db.collection("docs").space, "year", int, progress=False)
"""


def test_killed_at_any_moment(db: Database, dsn: str, connection: Connection, docs: Collection) -> None:
    docs.upsert({"id": range(3000), "vector": np.ones((3000, 2)), "year": range(3000)})
    for kill, steps in enumerate((1, 2, 3, 20, 30, 31)):  # 30 batches, then the index
        command = [sys.executable, "-c", PROGRAM, dsn]
        # Its end waits for the reader: it cannot be at its end before it is killed.
        with psycopg.connect(dsn) as reader, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert all(process.stdout.readline() for _ in range(min(steps, 2)))
            if steps > 2:
                reader.execute("SELECT count(*) FROM docs")
            assert all(process.stdout.readline() for _ in range(steps - 2))
            time.sleep(0.002 * (kill % 3))
            os.kill(process.pid, signal.SIGKILL)
        assert docs.columns == {}
        docs.upsert([{"id": kill, "vector": [1, 1], "year": kill + 10_000}])
    assert leftovers(connection) != []
    assert promote(db, "year", int).rows == 3000
    assert column(connection) == {str(number): number + 10_000 * (number < 6) for number in range(3000)}
    assert leftovers(connection) == []


# -- others meanwhile --------------------------------------------------------------------------------


@contextmanager
def meanwhile(*works: Callable[[int], None]) -> Iterator[list[int]]:
    """Do each work over and over in a thread of its own until the block ends; raise what one raised."""
    ended = threading.Event()
    rounds = [0] * len(works)

    def repeat(place: int) -> None:
        while not ended.is_set():
            works[place](rounds[place])
            rounds[place] += 1

    with ThreadPoolExecutor(len(works)) as threads:
        repeated = [threads.submit(repeat, place) for place in range(len(works))]
        try:
            yield rounds
        finally:
            ended.set()
    for each in repeated:
        each.result()


def test_others_never_see_a_wrong_result(
    db: Database, connection: Connection, docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_BATCH", 200)
    count = 6000
    docs.upsert({"id": range(count), "vector": np.ones((count, 2)), "year": [n % 100 for n in range(count)]})
    embedded = db.create_collection("texts", embedder=WordEmbedder())
    expected = {str(number) for number in range(7, count, 100)}
    stale = db.collection("docs")  # asks for its statements once, as another process would
    new = db.collection("docs")

    def search(searched: Collection) -> None:
        for where in ({"year": 7}, {"year": {"$gte": 7, "$lt": 8}}, {"year": {"$in": [7]}}, {"year": 7.0}):
            assert {hit.id for hit in searched.search([1, 1], 1000, where)} == expected, where
        assert searched.search([1, 1], where={"year": 1000}) == []

    def upsert(turn: int) -> None:
        # Other rows' years change, new rows come; those of year 7 get another text.
        docs.upsert([{"id": 100 * n + 8, "vector": [1, 1], "year": 8 + turn % 5 * 100} for n in range(10)])
        docs.upsert([{"id": 100 * n + 7, "vector": [1, 1], "year": 7, "text": str(turn)} for n in range(10, 60)])
        docs.upsert([{"id": f"new{turn}", "vector": [1, 1], "year": 2000 + turn}])

    def ingest(turn: int) -> None:
        embedded.ingest([{"id": "a", "text": f"apple {turn}", "year": turn}], progress=False)

    def search_anew(_: int) -> None:
        new._searcher.forget_texts()
        search(new)

    search(stale)
    with meanwhile(lambda _: search(stale), search_anew, upsert, ingest) as rounds:
        promoted = promote(db, "year", int)
        promote(db, "year", int, collection="texts")
        wanted = [turns + 3 for turns in rounds]
        deadline = time.monotonic() + 300
        while any(map(lt, rounds, wanted)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not any(map(lt, rounds, wanted))
    assert promoted.unreadable == 0
    for table in ("docs", "texts"):
        wrong = f"SELECT FROM {table} WHERE year IS DISTINCT FROM (metadata -> 'year')::bigint"
        assert connection.execute(wrong.encode()).fetchall() == []
    # The statement that was compiled before finds what was written afterwards.
    assert [hit.id for hit in stale.search([1, 1], 1, {"year": 2000 + rounds[2] - 1})] == [f"new{rounds[2] - 1}"]


def test_sessions_that_began_before(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1, 2, 3]))
    promote(db, "year", int)
    assert docs._target().typed == {}  # loaders write what they always wrote
    assert docs.upsert([{"id": 0, "vector": [1, 0], "year": 1}]).unchanged == 1
    assert docs.upsert([{"id": 0, "vector": [1, 0], "year": 5}, {"id": 9, "vector": [1, 9], "year": 9}]).updated == 1
    docs.upsert([{"id": 1, "vector": [1, 1]}])
    assert column(connection) == {"0": 5, "1": None, "2": 3, "9": 9}


def test_sql_writers(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1, 2, 3, "odd"]))
    promote(db, "year", int)

    def row(id: str) -> Any:
        return connection.execute("SELECT year, metadata FROM docs WHERE id = %s", [id]).fetchone()

    insert = "INSERT INTO docs (id, document_id, year, metadata) VALUES (%s, 'd', %s, %s)"
    given = {"a": (5, {}), "b": (None, {"year": 6}), "c": (7, {"year": 6, "x": 1}), "d": (None, {"x": 1})}
    for id, (year, metadata) in given.items():
        connection.execute(insert.encode(), [id, year, Jsonb(metadata)])
    assert list(map(row, given)) == [(5, {"year": 5}), (6, {"year": 6}), (7, {"year": 7, "x": 1}), (None, {"x": 1})]
    for id, change, expected in (
        ("a", "year = 8", (8, {"year": 8})),
        ("a", "year = NULL", (None, {})),
        ("b", "metadata = '{\"x\": 2}'", (None, {"x": 2})),
        ("b", "year = 9, metadata = '{\"x\": 3}'", (9, {"year": 9, "x": 3})),
        ("b", "year = 9, metadata = '{\"x\": 4}'", (9, {"year": 9, "x": 4})),
        ("c", "metadata = jsonb_set(metadata, '{year}', '\"odd\"')", (None, {"year": "odd", "x": 1})),
        ("c", "position = 3", (None, {"year": "odd", "x": 1})),
        ("3", "metadata = '{\"year\": 3.0}'", (3, {"year": 3.0})),
    ):
        connection.execute(f"UPDATE docs SET {change} WHERE id = %s".encode(), [id])
        assert row(id) == expected, change


def test_time_zone_does_not_matter(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows(["2020-01-05T10:00:00"]))
    promote(db, "year", dt.datetime)
    connection.execute("SET timezone = 'Asia/Tokyo'; SET datestyle = 'German, DMY'")
    connection.execute("INSERT INTO docs (id, document_id, metadata) SELECT 'a', 'd', metadata FROM docs")
    connection.execute("UPDATE docs SET position = 4")
    moments = connection.execute("SELECT DISTINCT year AT TIME ZONE 'UTC' = '2020-01-05 10:00' FROM docs").fetchall()
    assert moments == [(True,)]


def test_a_long_reader_makes_nobody_queue(
    db: Database, dsn: str, docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.upsert(rows([1, 2]))
    with psycopg.connect(dsn) as reader, ThreadPoolExecutor() as threads:
        reader.execute("SELECT * FROM docs")  # and its transaction stays open
        promotion = threads.submit(promote, db, "year", int)
        try:
            with psycopg.connect(dsn, autocommit=True, options="-c lock_timeout=1500ms") as other:
                for _ in range(200):
                    other.execute("SELECT count(*) FROM docs")
                    time.sleep(0.005)
            assert not promotion.done()
            with monkeypatch.context() as patch, db.dedicated_connection() as connection:
                patch.setattr(locks, "PATIENCE", 0.3)
                with pytest.raises(IndexBuildError, match=rf"{reader.info.backend_pid}.*promote again"):
                    module._briefly_alone(connection, docs.space, "SELECT 1", [])
        finally:
            reader.rollback()
        assert promotion.result().rows == 2


def test_rows_that_others_hold(db: Database, dsn: str, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1, 2, 3]))
    run_until(db, docs, "begin")
    with psycopg.connect(dsn) as holder:
        holder.execute("SELECT * FROM docs WHERE id = '1' FOR UPDATE")
        with db.dedicated_connection() as worker:
            plan = module._plan(worker, "docs", "year", "int")
            assert module._fill(worker, plan, "year", 0, 10) == (2, True)
    assert promote(db, "year", int).rows == 3
    assert column(connection) == {"0": 1, "1": 2, "2": 3}


def test_two_at_once(db: Database, docs: Collection) -> None:
    docs.upsert({"id": range(3000), "vector": np.ones((3000, 2)), "year": range(3000)})
    with ThreadPoolExecutor() as threads:
        results = list(threads.map(lambda _: promote(db, "year", int), range(3)))
    assert results == [Promoted("year", "bigint", 3000, 0, ())] * 3


# -- rights and surroundings -------------------------------------------------------------------------


def test_roles_without_rights(db: Database, dsn: str, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1, 2]))
    role = f"writer_{connection.info.backend_pid}"
    grants = f"GRANT SELECT, INSERT, UPDATE ON docs TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA pgvec TO {role}"
    usage = f"GRANT USAGE ON SCHEMA pgvec TO {role}"
    connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; {usage}; {grants}".encode())
    try:
        limited = Database(make_conninfo(dsn, user=role, password="x"))
        with limited, pytest.raises(ConfigurationError, match=r"must be owner of table public.docs .*Do it as role"):
            promote(limited, "year", int)
        promote(db, "year", int)
        # Who writes needs no right in schema pgvec.
        connection.execute(f"REVOKE ALL ON SCHEMA pgvec FROM {role}; SET ROLE {role}".encode())
        connection.execute("INSERT INTO docs (id, document_id, metadata) VALUES ('a', 'd', '{\"year\": 3}')")
        connection.execute("UPDATE docs SET year = 4 WHERE id = 'a'")
        assert connection.execute("SELECT year, metadata FROM docs WHERE id = 'a'").fetchone() == (4, {"year": 4})
    finally:
        connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_migrated_dropped_and_promoted_again(db: Database, connection: Connection, docs: Collection) -> None:
    docs.upsert(rows([1, 2]))
    promote(db, "year", int)
    connection.execute("UPDATE pgvec.run_always_sql SET checksum = 'another'")
    db.migrate()  # which drops and creates functions, but not those of triggers
    docs.upsert(rows([2]))
    assert column(connection) == {"0": 2, "1": 2}
    connection.execute("ALTER TABLE docs DROP COLUMN year CASCADE")
    docs.upsert(rows([3]))
    assert [hit.id for hit in db.collection("docs").search([1, 1], where={"year": {"$in": [2, 3]}})] == ["1", "0"]
    assert promote(db, "year", float).rows == 2
    assert column(connection) == {"0": 3.0, "1": 2.0}


def test_other_schema_and_a_name_that_is_taken(db: Database, connection: Connection) -> None:
    connection.execute('CREATE SCHEMA "My schema"; CREATE TABLE "My schema".docs_year_idx ()')
    db.create_collection("docs", dimensions=2, schema="My schema").upsert(rows([1, 2]))
    assert promote(db, "year", int).rows == 2
    assert connection.execute("SELECT FROM pg_indexes WHERE indexname = 'docs_year_idx1'").fetchall() == [()]


def test_a_column_from_the_start_is_left_as_it_is(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=2, columns={"year": int})
    docs.upsert([{"id": "a", "vector": [1, 1], "year": 1}])
    assert promote(db, "year", int) == Promoted("year", "bigint", 1, 0, ())
    assert list(docs._target().typed) == ["year"]
