"""The command line's whole life on a database."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from pgvec_toolkit.cli import app
from typer.testing import CliRunner

from tests.cli.outcome import Outcome, Run


def test_a_whole_life(bare: Run, empty_dsn: str, words: None, handbook: Path) -> None:
    del words

    def run(*arguments: str) -> Outcome:
        return bare(*arguments, "--dsn", empty_dsn)

    assert run("migrate") == Outcome(0, "", "schema pgvec is up to date\n")
    assert run("migrate") == Outcome(0, "", "schema pgvec is up to date\n")
    assert run("collection", "list", "--json").json == []

    made = run("collection", "create", "docs", "-c", "section:text", "-c", "year:int", "--embedder", "w")
    assert made == Outcome(0, "", "collection docs is there: vector(64), cosine\n")
    loaded = run("ingest", "docs", str(handbook))
    assert (loaded.code, loaded.out) == (0, "")
    assert "40 documents, 0 of them unchanged; 40 chunks written" in loaded.err
    assert "40 of them unchanged; 0 chunks written" in run("ingest", "docs", str(handbook)).err

    (listed,) = run("collection", "list", "--json").json
    assert listed["collection"] == "docs"
    assert (listed["dimensions"], listed["distance"], listed["model"]) == (64, "cosine", "test/words")
    assert "docs" in run("collection", "list").out
    shown = run("collection", "show", "docs", "--json").json
    assert shown["rows"] == 40
    assert shown["columns"] == {"section": "text", "year": "bigint"}
    assert (shown["chunk_table"], shown["vector_table"], shown["indexes"]) == ("public.docs", "public.docs_dense", [])

    no_index = run("tune", "docs")
    assert no_index.code == 1
    assert "no vector index to tune" in no_index.err
    assert run("index", "create", "docs").err.startswith("index docs_dense_hnsw was built in ")
    second = run("index", "create", "docs", "ivfflat")
    assert (second.code, second.err) == (1, "pgvec: docs_dense has a vector index, docs_dense_hnsw: drop it first\n")
    indexes = run("index", "list", "docs", "--json").json
    assert [(index["method"], index["form"], index["usable"]) for index in indexes] == [("hnsw", "full", True)]
    assert "docs_dense_hnsw" in run("index", "list", "docs").out
    assert "ef_construction=200" in run("collection", "show", "docs").out

    tuned = run("tune", "docs", "--recall", "0.9", "-k", "5", "--json").json
    assert tuned["recall"] >= 0.9
    assert (tuned["k"], tuned["parameter"]) == (5, "hnsw.ef_search")
    assert "hnsw.ef_search = " in run("tune", "docs", "--recall", "0.9", "-k", "5").out
    several = run("tune", "docs", "--recall", "0.9", "--recall", "0.5", "--tail-share", "0.5", "--json").json
    assert [(each["k"], each["target_recall"], each["source"]) for each in several] == [
        (10, 0.9, "stored"),
        (10, 0.5, "stored"),
    ]
    listed = run("profiles", "docs", "--json").json
    assert [(each["k"], each["target_recall"], each["is_default"]) for each in listed] == [
        (5, 0.9, True),
        (10, 0.5, False),
        (10, 0.9, True),
    ]
    assert "hnsw.ef_search = " in run("profiles", "docs").out
    assert run("search", "docs", "rotate credentials", "--recall", "0.5", "--json").code == 0
    unreached = run("search", "docs", "rotate credentials", "--recall", "0.99")
    assert (unreached.code, "pgvec tune docs --recall 0.99" in unreached.err) == (1, True)
    measured = run("recall", "docs", "-k", "5", "--sample", "10", "--json").json
    assert (measured["recall"], measured["queries"], measured["short_results"]) == (1.0, 10, 0)
    assert run("recall", "docs", "--where", '{"section": "kitchen"}').out.startswith("recall@10 ")

    fresh = run("index", "rebuild", "docs", "--if-needed")
    assert fresh.err == "index docs_dense_hnsw needs no rebuild\n"
    assert "0% of the rows of docs_dense are dead\n" in fresh.out
    assert run("index", "rebuild", "docs", "--m", "4").err.startswith("index docs_dense_hnsw was rebuilt in ")
    rebuilt = run("index", "rebuild", "docs", "--json").json
    assert (rebuilt["name"], rebuilt["rebuilt"], rebuilt["recall_after"], rebuilt["k"]) == (
        "docs_dense_hnsw",
        True,
        1,
        10,
    )

    assert "rotate credentials" in run("search", "docs", "rotate credentials", "-k", "1").out
    filtered = run(
        "search", "docs", "rotate credentials", "--where", '{"section": "kitchen", "year": {"$lt": 2010}}', "--json"
    )
    assert {hit["metadata"]["section"] for hit in filtered.json} == {"kitchen"}
    assert [hit["rank"] for hit in filtered.json] == [1, 2, 3, 4, 5]
    exact = run("search", "docs", "boil potatoes", "--exact", "--json").json
    assert exact == run("search", "docs", "boil potatoes", "--json").json
    assert run("search", "docs", "boil", "--where", '{"section": "attic"}') == Outcome(0, "", "nothing matches\n")
    assert run("search", "docs", "boil", "--where", '{"section": "attic"}', "--json").json == []

    assert run("index", "drop", "docs", "docs_dense_hnsw").err == "dropped: docs_dense_hnsw\n"
    assert run("index", "create", "docs", "ivfflat", "--lists", "2", "--concurrently").code == 0
    assert run("index", "drop", "docs").err == "dropped: docs_dense_ivfflat\n"
    assert run("index", "drop", "docs").err == "dropped: nothing\n"
    deleted = run("search", "docs", "boil", "-k", "1", "--json").json[0]["document_id"]
    assert run("delete", "docs", deleted).err == "1 chunks deleted\n"
    assert run("delete", "docs", deleted).err == "0 chunks deleted\n"
    status = run("status", "--json").json
    assert (status["kind"], status["schema"], status["collections"]) == ("your server", "up to date", ["docs"])
    assert run("collection", "drop", "docs", "--yes") == Outcome(0, "", "collection docs is gone\n")
    assert run("status", "--json").json["collections"] == []
    assert run("migrate", "--down-to", "base").code == 0
    assert "pgvec migrate" in run("status", "--json").json["schema"]


def test_the_sql_that_is_printed_is_what_a_search_runs(
    docs: Run, connection: psycopg.Connection, embedder: Any
) -> None:
    where = '{"section": "security"}'
    text = docs("search", "docs", "rotate", "-k", "3", "--where", where, "--sql").out
    connection.execute(f"PREPARE printed (vector, jsonb) AS {text}")
    query = "[" + ",".join(map(str, embedder.embed_query("rotate"))) + "]"
    rows = connection.execute(f"EXECUTE printed ('{query}', '{where}')").fetchall()
    assert [row[0] for row in rows] == [
        hit["id"] for hit in docs("search", "docs", "rotate", "-k", "3", "--where", where, "--json").json
    ]


def test_queries_are_read_from_files(docs: Run, tmp_path: Path, embedder: Any) -> None:
    texts = tmp_path / "queries.txt"
    texts.write_text("rotate credentials\n\nboil potatoes\n")
    assert docs("recall", "docs", "--queries", str(texts), "--json").json["queries"] == 2
    mixed = tmp_path / "queries.jsonl"
    vector = json.dumps(embedder.embed_query("x").tolist())
    mixed.write_text(f'{{"text": "boil potatoes"}}\n\n{{"vector": {vector}}}\n')
    assert docs("recall", "docs", "--queries", str(mixed), "--json").json["queries"] == 2
    mixed.write_text('{"query": "boil potatoes"}\n')
    wrong = docs("recall", "docs", "--queries", str(mixed))
    assert (wrong.code, "neither" in wrong.err) == (2, True)
    np.save(tmp_path / "queries.npy", np.stack([embedder.embed_query(str(number)) for number in range(3)]))
    assert docs("recall", "docs", "--queries", str(tmp_path / "queries.npy"), "--json").json["queries"] == 3


def test_brackets_in_the_data_are_not_markup(run: Run, words: None, tmp_path: Path) -> None:
    del words
    (tmp_path / "a.txt").write_text("press [bold]enter[/bold] twice")
    assert run("collection", "create", "docs", "--embedder", "w").code == 0
    assert run("ingest", "docs", str(tmp_path / "a.txt")).code == 0
    assert "press [bold]enter[/bold] twice" in run("search", "docs", "enter").out


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("", False)])
def test_dropping_a_collection_asks(docs: Run, dsn: str, answer: str, gone: bool) -> None:
    asked = CliRunner().invoke(app, ["collection", "drop", "docs", "--dsn", dsn], input=answer)
    assert asked.exit_code == (0 if gone else 1)
    assert "Drop collection docs and its 40 rows?" in asked.stderr
    assert "Drop" not in asked.stdout  # nothing but the answer, which the runner echoes
    assert len(docs("collection", "list", "--json").json) == (0 if gone else 1)


def test_migrations_as_sql_need_no_server(bare: Run) -> None:
    printed = bare("migrate", "--sql", "--dsn", "host=127.0.0.1 port=1")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.startswith("BEGIN;")
    assert printed.out.rstrip().endswith("COMMIT;")


# -- searches of every kind --------------------------------------------------------------------------


def test_search_options(docs: Run) -> None:
    def found(*options: str) -> list[Any]:
        return list(docs("search", "docs", "rotate credentials yearly", *options, "--json").json)

    nearest = found("-k", "3")
    assert [hit["rank"] for hit in nearest] == [1, 2, 3]
    rest = found("-k", "3", *(part for hit in nearest for part in ("--exclude", hit["id"])))
    assert not {hit["id"] for hit in rest} & {hit["id"] for hit in nearest}
    assert found("-k", "3", "--exact", "--ef-search", "100") == nearest

    within = found("-k", "40", "--within", "0.5")
    assert 0 < len(within) < 40
    assert all(hit["distance"] <= 0.5 for hit in within)
    assert found("-k", "40", "--min-similarity", "0.5") == within

    groups = found("-k", "2", "--group-by", "section", "--group-size", "3")
    assert [hit["rank"] for hit in groups] == [1, 1, 1, 2, 2, 2]
    assert [hit["metadata"]["section"] for hit in groups] == ["security"] * 3 + ["kitchen"] * 3
    assert len(found("-k", "5", "--diversity", "0.5")) == 5

    by_sql = found("--where-sql", "d.year >= ($3 ->> 'since')::int", "--parameters", '{"since": 2036}', "-k", "9")
    assert sorted(hit["metadata"]["year"] for hit in by_sql) == [2036, 2037, 2038, 2039]


def test_why_a_search_ends_is_said(docs: Run) -> None:
    assert docs("search", "docs", "rotate", "-k", "3").err == ""
    assert docs("search", "docs", "rotate", "-k", "50").err == "40 of 50 chunks: no more match\n"
    grouped = docs("search", "docs", "rotate", "-k", "5", "--group-by", "section")
    assert grouped.err == "2 of 5 groups: no more match\n"
    assert docs("search", "docs", "rotate", "--where", '{"year": 1}').err == "nothing matches\n"


def test_a_vector_as_query(run: Run, dsn: str) -> None:
    for name, *options in (("points", "--dimensions", "2"), ("bits", "--dimensions", "4", "--type", "bit")):
        assert run("collection", "create", name, *options).code == 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, vector in (("points", "[3,4]"), ("bits", "0110")):
            connection.execute(f"INSERT INTO {name} (id, document_id) VALUES ('a', 'a')".encode())
            connection.execute(f"INSERT INTO {name}_dense SELECT key, '{vector}' FROM {name}".encode())
    (hit,) = run("search", "points", "[6, 8]", "--vector", "--json").json
    assert (hit["id"], hit["distance"]) == ("a", pytest.approx(0))
    (hit,) = run("search", "bits", "0111", "--vector", "--json").json
    assert (hit["id"], hit["distance"]) == ("a", 1)
    wrong = run("search", "points", "[6, 8", "--vector")
    assert (wrong.code, "not a JSON list" in wrong.err) == (2, True)


def test_more_like_some_chunks(docs: Run) -> None:
    kitchen = docs("search", "docs", "boil potatoes", "-k", "2", "--json").json
    ids = [hit["id"] for hit in kitchen]
    more = docs("similar", "docs", *ids, "-k", "5", "--json").json
    assert len(more) == 5
    assert not {hit["id"] for hit in more} & set(ids)
    assert sum(hit["metadata"]["section"] == "kitchen" for hit in more) > 2
    security = docs("search", "docs", "rotate credentials", "-k", "1", "--json").json[0]["id"]
    assert docs("similar", "docs", security, "--unlike", ids[0], "-k", "3").code == 0


def test_explaining(docs: Run) -> None:
    assert docs("index", "create", "docs").code == 0
    shown = docs("explain", "docs", "rotate credentials", "--where", '{"section": "security"}')
    assert (shown.code, shown.err) == (0, "")
    assert "docs_dense_hnsw" in shown.out
    statement = "SELECT key FROM docs_dense ORDER BY embedding <=> (SELECT embedding FROM docs_dense LIMIT 1) LIMIT 3"
    own = docs("explain", "--statement", statement)
    assert own.code == 0
    assert own.out
    assert docs("explain", "docs").code == 2


# -- vector spaces and forms of index ----------------------------------------------------------------


def test_spaces_and_forms(docs: Run, dsn: str) -> None:
    added = docs("collection", "add-space", "docs", "title", "--dimensions", "8", "--distance", "l2")
    said = "vector space title of collection docs is there; fill it with set_vectors in Python\n"
    assert added == Outcome(0, "", said)
    listed = docs("collection", "list", "--json").json
    assert [(each["space"], each["dimensions"], each["distance"]) for each in listed] == [
        ("dense", 64, "cosine"),
        ("title", 8, "l2"),
    ]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO docs_title SELECT key, (SELECT array_agg(sin(key * j)) FROM generate_series(1, 8) j)::vector"
            " FROM docs"
        )
    made = docs("index", "create", "docs", "--space", "title", "--form", "binary")
    assert made.err.startswith("index docs_title_hnsw was built in ")
    (index,) = docs("index", "list", "docs", "--space", "title", "--json").json
    assert (index["form"], index["dimensions"], index["usable"]) == ("binary", 8, True)
    assert docs("index", "list", "docs", "--json").json == []
    query = json.dumps([0.5] * 8)
    assert len(docs("search", "docs", query, "--vector", "--space", "title", "-k", "4", "--json").json) == 4
    assert docs("recall", "docs", "--space", "title", "-k", "3", "--json").json["short_results"] == 0
    assert docs("index", "drop", "docs", "--space", "title").err == "dropped: docs_title_hnsw\n"
    assert docs("index", "create", "docs", "--prefix", "16", "--m", "8").code == 0
    assert docs("index", "list", "docs", "--json").json[0]["dimensions"] == 16
    gone = docs("collection", "drop-space", "docs", "title")
    assert gone == Outcome(0, "", "vector space title of collection docs is gone\n")
    refused = docs("collection", "drop-space", "docs", "dense")
    assert (refused.code, refused.out) == (1, "")


def test_a_metadata_key_becomes_a_column(docs: Run, tmp_path: Path) -> None:
    records = [{"id": str(number), "text": "salt", "price": number if number else "free"} for number in range(3)]
    (tmp_path / "priced.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert docs("ingest", "docs", str(tmp_path / "priced.jsonl")).code == 0
    promoted = docs("collection", "promote", "docs", "price", "int")
    assert (promoted.code, promoted.out) == (0, "")
    assert promoted.err.splitlines()[0] == "price is a column of type bigint: 2 rows have a value"
    assert promoted.err.splitlines()[1].startswith("1 rows hold values that cannot be read as one, for example 'free'")
    assert docs("collection", "promote", "docs", "price", "int", "--json").json["rows"] == 2
    assert docs("collection", "show", "docs", "--json").json["columns"]["price"] == "bigint"


def test_calibrating(run: Run, dsn: str) -> None:
    assert run("collection", "create", "docs", "--dimensions", "8").code == 0
    few = run("calibrate", "docs")
    assert (few.code, "too few vectors to calibrate on" in few.err) == (1, True)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO docs (id, document_id) SELECT i, i FROM generate_series(1, 2000) i")
        connection.execute(
            "INSERT INTO docs_dense SELECT key, (SELECT array_agg(sin(key * j)) FROM generate_series(1, 8) j)::vector"
            " FROM docs"
        )
    assert run("calibrate", "docs").out.splitlines()[-1] == "no index: filtered searches compare all matches"
    assert run("index", "create", "docs").code == 0
    measured = run("calibrate", "docs", "--json").json
    assert all(value > 0 for value in measured.values())
    assert "gate for k = 10" in run("calibrate", "docs").out


# -- with the real model ---------------------------------------------------------------------------


@pytest.mark.embedding
def test_the_default_embedder(run: Run, handbook: Path) -> None:
    assert run("collection", "create", "docs", "-c", "section:text").code == 0
    ingested = run("ingest", "docs", str(handbook), "--chunk-tokens", "64")
    assert (ingested.code, ingested.out) == (0, "")
    (listed,) = run("collection", "list", "--json").json
    assert (listed["dimensions"], listed["model"]) == (384, "sentence-transformers/all-MiniLM-L6-v2")
    found = run("search", "docs", "changing passwords", "-k", "5", "--json")
    assert found.err == ""
    assert {hit["metadata"]["section"] for hit in found.json} == {"security"}


@pytest.mark.embedding
def test_the_demo_twice(run: Run) -> None:
    for _ in range(2):
        shown = run("demo")
        assert shown.code == 0, shown.err
        plain, filtered = re.split("“what happens when the power fails”", shown.out)[1:]
        hits = [re.findall(r"^ *\d +\d\.\d{4} +(.*?)\s*$", part, re.MULTILINE) for part in (plain, filtered)]
        assert [len(each) for each in hits] == [3, 3]
        assert hits[0] != hits[1]
        assert all(hit.startswith("warehouse ") for hit in hits[1])
        assert not all(hit.startswith("warehouse ") for hit in hits[0])
        (recall,) = re.findall(r"recall@10 now: (\d\.\d+)", shown.out)
        assert float(recall) >= 0.95
        assert "ingested the handbook: " in shown.err
    assert [each["collection"] for each in run("collection", "list", "--json").json] == ["demo_handbook"]
