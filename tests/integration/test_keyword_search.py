"""Keyword search finds what scoring every chunk finds, whatever is asked."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from tests.bm25 import Exhaustive, lexemes
from tests.integration.keyword_oracle import check_keyword_index

Connection = psycopg.Connection[Any]
ROWS = 1500
RANDOM = random.Random(5)
# Few are frequent and most are rare, as words are.
WORDS = [f"w{n}" for n in range(400)]
WEIGHTS = [1 / (n + 1) for n in range(400)]
TEXTS = [
    None if row % 50 == 0 else " ".join(RANDOM.choices(WORDS, WEIGHTS, k=RANDOM.choice([0, 3, 10, 17, 60, 300])))
    for row in range(ROWS)
]
SECTIONS = [None if row % 17 == 0 else f"s{RANDOM.randrange(4)}" for row in range(ROWS)]


@dataclass
class Words:
    """A collection, the same through plain SQL, and what is right."""

    docs: Collection
    plain: Connection
    truth: Exhaustive


def words_of(text: str | None) -> list[str]:
    return (text or "").split()


@pytest.fixture(scope="module")
def words(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Words]:
    with janitor("t_keyword_search", template):
        dsn = make_conninfo(server_dsn, dbname="t_keyword_search")
        with Database(dsn, max_size=2) as database, psycopg.connect(dsn, autocommit=True) as plain:
            docs = database.create_collection(
                "docs", dimensions=1, columns={"section": str, "n": int}, language="simple"
            )
            ids = [str(row) for row in range(ROWS)]
            plain.execute(
                b"INSERT INTO docs (id, document_id, text, section, n) SELECT * FROM "
                b"unnest(%s::text[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY",
                [ids, ids, TEXTS, SECTIONS],
            )
            plain.execute("ANALYZE docs, docs_keywords, docs_lexemes")
            yield Words(docs, plain, Exhaustive(plain, "docs"))


PLAIN = st.lists(st.sampled_from([*WORDS[:20], *WORDS[::10], "unknown"]), min_size=1, max_size=9)
QUICK = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(
    query=PLAIN,
    k=st.integers(1, 50),
    k1=st.one_of(st.none(), st.floats(0, 3)),
    b=st.one_of(st.none(), st.floats(0, 1)),
    required=st.lists(st.sampled_from(WORDS[:8]), max_size=2),
    without=st.lists(st.sampled_from(WORDS[:30]), max_size=2),
    section=st.one_of(st.none(), st.sampled_from(["s0", "s1", "absent", None])),
    exclude=st.one_of(st.none(), st.lists(st.integers(0, ROWS - 1).map(str), max_size=30)),
    least=st.one_of(st.none(), st.integers(0, ROWS)),
)
def test_finds_what_scoring_everything_finds(
    words: Words,
    query: list[str],
    k: int,
    k1: float | None,
    b: float | None,
    required: list[str],
    without: list[str],
    section: str | None,
    exclude: list[str] | None,
    least: int | None,
) -> None:
    text = " ".join([*query, *(f"+{word}" for word in required), *(f"-{word}" for word in without)])
    options: dict[str, Any] = {"k1": k1, "b": b, "exclude": exclude}
    if least is not None:
        options |= {"where_sql": "d.n > ($3 ->> 'least')::int", "parameters": {"least": least}}
    where = None if section is None else {"section": section}
    hits = words.docs.keyword_search(text, k, where, **options)
    allowed = []
    for id in map(int, words.truth.ids):
        has = set(words_of(TEXTS[id]))
        allowed.append(
            has.issuperset(required)
            and not has & set(without)
            and (section is None or SECTIONS[id] == section)
            and str(id) not in (exclude or ())
            and (least is None or id + 1 > least)
        )
    words.truth.set(1.2 if k1 is None else k1, 0.75 if b is None else b)
    words.truth.check(hits, [*query, *required], k, allowed)
    assert hits.stopped_by == ("k" if len(hits) == k else "complete")
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    for hit in hits:
        terms = hit.legs["keyword"]["terms"]
        assert hit.score == pytest.approx(sum(terms.values()), rel=1e-12)
        assert set(terms) == set(words_of(hit.text)) & {*query, *required}
    arguments = [text, k, Jsonb(where) if where else None, exclude, options.get("where_sql"), k1, b]
    found = words.plain.execute(
        "SELECT id, score FROM pgvec.keyword_search('docs', %s, %s, %s, exclude => %s::text[], where_sql => %s, "
        "k1 => %s, b => %s, parameters => %s)",
        [*arguments, Jsonb({"least": least}) if least is not None else None],
    ).fetchall()
    assert found == [(hit.id, hit.score) for hit in hits]


def test_filters_of_every_shape(words: Words) -> None:
    words.truth.set(1.2, 0.75)
    for where in (
        {"section": None},
        {"section": {"$ne": None}},
        {"section": {"$exists": False}},
        {"section": {"$in": ["s0", "s3"]}},
        {"$or": [{"n": {"$lt": 100}}, {"$not": {"section": "s1"}}]},
        {},
    ):
        sections = words.plain.execute("SELECT pgvec._filter_sql('docs'::regclass, %s)", [Jsonb(where)]).fetchone()
        assert sections is not None
        condition = sections[0].replace("$2", "%(filter)s")
        matching = words.plain.execute(f"SELECT d.id FROM docs d WHERE {condition}".encode(), {"filter": Jsonb(where)})
        known = {id for (id,) in matching}
        for k in (3, 1000):
            hits = words.docs.keyword_search("w1 w30 w7", k, where)
            words.truth.check(hits, ["w1", "w30", "w7"], k, [id in known for id in words.truth.ids])


@pytest.mark.parametrize("count", [1, 40, 300])
@pytest.mark.parametrize("k", [1, 10, 100, 2000])
def test_queries_of_many_words(words: Words, count: int, k: int) -> None:
    words.truth.set(1.2, 0.75)
    chosen = random.Random(count + k)
    for weights in (None, WEIGHTS):
        query = chosen.choices(WORDS, weights, k=count)
        words.truth.check(words.docs.keyword_search(" ".join(query), k), query, k)


def test_prepared_and_run_often(words: Words) -> None:
    words.truth.set(1.2, 0.75)
    words.plain.execute(
        "PREPARE often (text, integer, jsonb) AS SELECT id, score FROM pgvec.keyword_search('docs', $1, $2, $3)"
    )
    statement = "EXECUTE often (%s, %s, %s)"
    for run in range(12):
        query, k = RANDOM.sample(WORDS[run : run + 30], 3), 5 + run
        with psycopg.ClientCursor(words.plain) as cursor:
            found = cursor.execute(statement, [" ".join(query), k, Jsonb({"section": f"s{run % 4}"})]).fetchall()
        hits = words.docs.keyword_search(" ".join(query), k, {"section": f"s{run % 4}"})
        assert found == [(hit.id, hit.score) for hit in hits]
        words.truth.check(hits, query, k, [SECTIONS[int(id)] == f"s{run % 4}" for id in words.truth.ids])


# -- what a query may look like ----------------------------------------------------------------------

LINES = {
    "rust": "Rust never sleeps",
    "phrase": "the quick brown fox jumps over the lazy dog",
    "jumbled": "brown quick dog; a fox is lazy",
    "hyphen": "a state-of-the-art engine, 5\" disk drives and rock'n'roll",
    "long": "quick " * 40 + "fox",
    "empty": "",
    "stop": "the of and a",
    "null": None,
    "wide": "ünïcödé 漢字 🚀 straße STRASSE café\u0301",
}


@pytest.fixture(scope="module")
def opened(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[tuple[Collection, Connection]]:
    with janitor("t_keyword_lines", template):
        dsn = make_conninfo(server_dsn, dbname="t_keyword_lines")
        with Database(dsn, max_size=2) as database, psycopg.connect(dsn, autocommit=True) as plain:
            docs = database.create_collection("docs", dimensions=1, columns={"n": int})
            for id, text in LINES.items():
                plain.execute("INSERT INTO docs (id, document_id, text) VALUES (%s, %s, %s)", [id, id, text])
            plain.execute("SET statement_timeout = '60s'")
            yield docs, plain


@pytest.fixture
def lines(opened: tuple[Collection, Connection]) -> Collection:
    return opened[0]


@pytest.fixture
def plain(opened: tuple[Collection, Connection]) -> Connection:
    return opened[1]


QUERIES: list[tuple[str, set[str]]] = [
    ("rust", {"rust"}),
    ("RUST!", {"rust"}),
    ("quick", {"phrase", "jumbled", "long"}),
    ("quick quick fox", {"phrase", "jumbled", "long"}),
    ('"quick brown"', {"phrase"}),
    ('"brown quick"', {"jumbled"}),
    ('"quick brown', {"phrase"}),
    ('fox "lazy dog"', {"phrase"}),
    ('"quick brown" "lazy dog"', {"phrase"}),
    ('rust -"quick brown"', {"rust"}),
    ('fox -"quick brown"', {"jumbled", "long"}),
    ('fox -"quick brown".', {"jumbled", "long"}),
    ('fox -"quick brown', {"jumbled", "long"}),
    ("fox -lazy", {"long"}),
    ("fox +lazy", {"phrase", "jumbled"}),
    ('fox +"lazy dog"', {"phrase"}),
    ("+rust +fox", set()),
    ("+rust fox", {"rust"}),
    ("-fox", set()),
    ("-fox -rust", set()),
    ("fox -fox", set()),
    ("the", set()),
    ("the of -and", set()),
    ("+the rust", {"rust"}),
    ("-the rust", {"rust"}),
    ('"the" rust', {"rust"}),
    ('"" rust', {"rust"}),
    ('rust "', {"rust"}),
    ('rust" lazy', {"rust", "phrase", "jumbled"}),
    ('ru"st lazy', {"phrase", "jumbled"}),
    ('5"disk', {"hyphen"}),
    ('the so-called"lazy dog" rust', {"phrase", "jumbled", "rust"}),
    ('"lazy dog"rust', {"phrase"}),
    ('"quick brown""lazy dog"', {"phrase"}),
    ("state-of-the-art", {"hyphen"}),
    ("+state-of-the-art engine", {"hyphen"}),
    ("engine-", {"hyphen"}),
    ('- + -" +" " -- ++ +- -+', set()),
    ("+ rust", {"rust"}),
    ("- rust", {"rust"}),
    ("rust\n-lazy\tfox", {"rust", "long"}),
    ("漢字", {"wide"}),
    ("🚀 ÜNÏCÖDÉ", {"wide"}),
    ("straße", {"wide"}),
    ("'; DROP TABLE docs; --", set()),
    ("a & b | !c <-> d:*", set()),
    ("%s %I $1 {lexemes} \\ rust", {"rust"}),
    ("nothing of this", set()),
    ("\u200b\u202e\ufeff rust", {"rust"}),
]


@pytest.mark.parametrize(("query", "found"), QUERIES)
def test_what_a_query_finds(lines: Collection, plain: Connection, query: str, found: set[str]) -> None:
    hits = lines.keyword_search(query, 20)
    assert {hit.id for hit in hits} == found
    assert hits.stopped_by == "complete"
    assert all(hit.score and hit.score > 0 for hit in hits)
    by_sql = plain.execute("SELECT id, score FROM pgvec.keyword_search('docs', %s, 20)", [query]).fetchall()
    assert by_sql == [(hit.id, hit.score) for hit in hits]


def refused(connection: Connection, query: str | None, message: str, more: str = "") -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        connection.execute(f"SELECT * FROM pgvec.keyword_search('docs', %s{more})".encode(), [query])
    assert caught.value.sqlstate == "PV005"


def test_what_cannot_be_asked(lines: Collection, plain: Connection) -> None:
    for empty in ("", "  \t\n", None):
        refused(plain, empty, "the query is empty")
    for k in ("0", "10001", "NULL"):
        refused(plain, "rust", "k must be from 1 to 10000", f", {k}")
    refused(plain, "rust", "k1 must be from 0 to 1000", ", k1 => -1")
    refused(plain, "rust", "b must be from 0 to 1", ", b => 'NaN'")
    refused(plain, " ".join(f"x{n}" for n in range(1001)), "1001 different words")
    with pytest.raises(ConfigurationError, match="the query is empty"):
        lines.keyword_search("  ")
    assert lines.keyword_search(" ".join(f"x{n}" for n in range(999)) + " rust")[0].id == "rust"


def test_queries_that_are_huge(lines: Collection, plain: Connection) -> None:
    assert lines.keyword_search("rust " * 50_000)[0].id == "rust"
    assert lines.keyword_search("- " * 100_000 + "rust")[0].id == "rust"
    refused(plain, "rust " * 200_000, "1000000 characters, more than 250000")
    refused(plain, "x" * 20_000_000, "more than 250000")
    refused(plain, "-w " * 20_000 + "rust", "more than 1000 phrases")
    refused(plain, '"' * 200_000, "more than 1000 phrases")
    refused(plain, '"a b" ' * 20_000, "more than 1000 phrases")
    assert lines.keyword_search("-w " * 1000 + "rust")[0].id == "rust"
    assert lines.keyword_search("+rust " * 1000)[0].id == "rust"


def test_texts_of_every_length(db: Database, connection: Connection) -> None:
    docs = db.create_collection("docs", dimensions=1, language="simple")
    many = " ".join(f"m{n}" for n in range(16_200))
    texts = {
        "nothing": None, "empty": "", "one": "m1", "several": "m1 m2 common", "common": "common " * 300,
        "most": " ".join(f"m{n}" for n in range(16_000)), "many": many + " common",
        "huge": ("common " + "y" * 93 + " ") * 2500,
        "beyond": "z " * 125_000 + "never",
    }  # fmt: skip
    for id, text in texts.items():
        connection.execute("INSERT INTO docs (id, document_id, text) VALUES (%s, %s, %s)", [id, id, text])
    check_keyword_index(connection)
    boundless = connection.execute("SELECT d.id FROM docs d JOIN docs_keywords k USING (key) WHERE k.terms IS NULL")
    assert boundless.fetchall() == [("many",)]
    truth = Exhaustive(connection, "docs")
    asked = [["common"], ["m1"], ["m1", "common"], ["m16100"], ["m16100", "m1", "y" * 93], ["z"]]
    for k in (1, 2, 50):
        for query in asked:
            truth.check(docs.keyword_search(" ".join(query), k), query, k)
    assert docs.keyword_search("never") == []  # beyond the 250,000 characters that count


def test_many_chunks_without_bounds(db: Database, connection: Connection) -> None:
    docs = db.create_collection("docs", dimensions=1, language="simple")
    connection.execute(
        "INSERT INTO docs (id, document_id, text) "
        "SELECT i, i, repeat('rare ', i % 7) || repeat('common ', i % 11) || i FROM generate_series(1, 400) i"
    )
    connection.execute("UPDATE docs_keywords SET terms = NULL WHERE key % 3 = 0")
    truth = Exhaustive(connection, "docs")
    for query in (["rare"], ["common", "rare"], ["17", "common"]):
        for k in (1, 10, 100):
            truth.check(docs.keyword_search(" ".join(query), k), query, k)


@pytest.mark.parametrize(("language", "query", "found"), [
    ("simple", "haus", []), ("simple", "häuser", ["a"]), ("german", "haus", ["a"]), ("german", "dem Hause", ["a"]),
    ("german", "dem", []), ("english", "houses", ["b"]), ("english", "+house -haus", ["b"]),
])  # fmt: skip
def test_languages(db: Database, language: str, query: str, found: list[str]) -> None:
    docs = db.create_collection("docs", dimensions=1, language=language)
    docs.upsert(
        [{"id": "a", "text": "Die Häuser dem Walde", "vector": [1]}, {"id": "b", "text": "A house", "vector": [1]}]
    )
    assert [hit.id for hit in docs.keyword_search(query)] == found


def test_words_with_variants(db: Database, connection: Connection) -> None:
    """A dictionary may make several lexemes of a word, of which a chunk need not have each."""
    connection.execute(
        "CREATE TEXT SEARCH DICTIONARY variants (template = ispell, dictfile = ispell_sample, afffile = ispell_sample);"
        "CREATE TEXT SEARCH CONFIGURATION varied (copy = simple);"
        "ALTER TEXT SEARCH CONFIGURATION varied ALTER MAPPING FOR asciiword WITH variants, simple"
    )
    docs = db.create_collection("docs", dimensions=1, language="public.varied")
    for id, text in {"a": "foot ball klubber", "b": "football klubber", "c": "footballklubber", "d": "klubber"}.items():
        connection.execute("INSERT INTO docs (id, document_id, text) VALUES (%s, %s, %s)", [id, id, text])
    meant = connection.execute("SELECT phraseto_tsquery('varied', 'footballklubber')").fetchone()
    matching = connection.execute("SELECT id FROM docs WHERE tsv @@ %s::tsquery ORDER BY id", meant).fetchall()
    assert len(matching) >= 2
    found = {hit.id for hit in docs.keyword_search("+footballklubber")}
    assert found == {id for (id,) in matching}


# -- lexemes that share a number ---------------------------------------------------------------------


@pytest.fixture
def twins(connection: Connection) -> list[tuple[str, str]]:
    """Lexemes that share their number."""
    found = connection.execute(
        "SELECT array_agg('t' || i) FROM generate_series(1, 60000) i GROUP BY pgvec._lexeme_number('t' || i) "
        "HAVING count(*) = 2"
    ).fetchall()
    assert len(found) >= 3
    return [(one, other) for ((one, other),) in found]


def test_lexemes_that_share_a_number(db: Database, connection: Connection, twins: list[tuple[str, str]]) -> None:
    docs = db.create_collection("docs", dimensions=1, language="simple")
    chosen = random.Random(1)
    names = [name for pair in twins[:3] for name in pair]
    drawn = [*names, *(f"x{n}" for n in range(30))]
    connection.execute(
        b"INSERT INTO docs (id, document_id, text) SELECT ordinality, 'd', text FROM unnest(%s::text[]) "
        b"WITH ORDINALITY t (text)",
        [[" ".join(chosen.choices(drawn, k=chosen.randint(1, 25))) for _ in range(600)]],
    )
    check_keyword_index(connection)
    truth = Exhaustive(connection, "docs")
    (one, other), (third, fourth) = twins[:2]
    for query in (
        [one],
        [other],
        [one, other],
        [one, one, other, "x1"],
        [one, third],
        names,
        [f"x{n}" for n in range(9)],
    ):
        for k in (1, 10, 700):
            truth.check(docs.keyword_search(" ".join(query), k), query, k)
    both = {id for id, has, _ in truth.rows if {one, fourth} <= set(has)}
    assert {hit.id for hit in docs.keyword_search(f"+{one} +{fourth}", 700)} == both
    without = {id for id, has, _ in truth.rows if one in has and other not in has}
    assert {hit.id for hit in docs.keyword_search(f"{one} -{other}", 700)} == without
    # They stay apart when one of them goes.
    connection.execute("UPDATE docs SET text = replace(text || ' ', %s, '')", [one + " "])
    check_keyword_index(connection)
    truth = Exhaustive(connection, "docs")
    assert docs.keyword_search(one) == []
    truth.check(docs.keyword_search(other, 20), [other], 20)


# -- real texts --------------------------------------------------------------------------------------


def corpus(path: Path) -> list[tuple[str, str]]:
    if not path.is_dir():
        pytest.skip(f"needs the data set in {path}")
    with (path / "corpus.jsonl").open() as lines:
        return [(each["_id"], f"{each.get('title', '')} {each['text']}") for each in map(json.loads, lines)]


def queries(path: Path) -> list[str]:
    with (path / "queries.jsonl").open() as lines:
        return [each["text"] for each in map(json.loads, lines)]


def signless(text: str) -> str:
    """Leave out what would be a sign or a phrase."""
    return " ".join(word.lstrip("+-") for word in text.replace('"', " ").split())


@pytest.mark.parametrize("name", ["scifact", "cranfield"])
def test_real_texts(db: Database, connection: Connection, shared_data: Path, name: str) -> None:
    texts = corpus(shared_data / name)[:2000]
    docs = db.create_collection("docs", dimensions=1)
    with connection.cursor().copy("COPY docs (id, document_id, text) FROM STDIN") as copy:
        for id, text in texts:
            copy.write_row([id, id, text])
    connection.execute("ANALYZE docs, docs_keywords, docs_lexemes")
    truth = Exhaustive(connection, "docs")
    asked = [signless(text) for text in queries(shared_data / name)[:150]]
    tokens = [lexemes(connection, text) for text in asked]
    found = {}
    for text, words in zip(asked, tokens, strict=True):
        found[text] = docs.keyword_search(text, 10)
        truth.check(found[text], words, 10)
    if name == "scifact":
        compare_with_bm25s(truth, asked, tokens, found)
    # The same after a part of it is gone.
    connection.execute("DELETE FROM docs WHERE key % 3 = 0")
    truth = Exhaustive(connection, "docs")
    for text, words in list(zip(asked, tokens, strict=True))[:10]:
        truth.check(docs.keyword_search(text, 100), words, 100)


def compare_with_bm25s(truth: Exhaustive, asked: list[str], tokens: list[list[str]], found: dict[str, Any]) -> None:
    bm25s = pytest.importorskip("bm25s")
    memory = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    memory.index(truth.tokens, show_progress=False)
    for text, words in zip(asked, tokens, strict=True):
        known = [word for word in words if word in truth.places]
        scores: NDArray[np.float32] = memory.retrieve([known], k=10, show_progress=False)[1][0]
        np.testing.assert_allclose([hit.score for hit in found[text]], scores, rtol=1e-4)
