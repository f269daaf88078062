"""Making, opening, listing and dropping collections: what is made, what is refused, what a refusal leaves behind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import (
    CollectionExists,
    CollectionNotFound,
    ConfigurationError,
    EmbeddingError,
    InvalidName,
    PgvecError,
)
from tests.words import WordEmbedder

TYPES = {"t": str, "i": int, "f": float, "b": bool, "d": dt.date, "ts": dt.datetime, "tags": list[str]}
SQL_TYPES = {
    "t": "text",
    "i": "bigint",
    "f": "double precision",
    "b": "boolean",
    "d": "date",
    "ts": "timestamp with time zone",
    "tags": "text[]",
}


def everything(connection: psycopg.Connection) -> tuple[Any, ...]:
    """All relations outside the system's schemas, and what the catalogue holds."""
    relations = connection.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace NOT IN"
        " (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\\_%' OR nspname = 'information_schema') ORDER BY 1"
    ).fetchall()
    tables = ("collections", "vector_spaces", "models", "ledger", "tuning_profiles")
    counts = [connection.execute(f"SELECT count(*) FROM pgvec.{table}".encode()).fetchone() for table in tables]
    return relations, counts


def test_typed_columns_and_their_indexes(db: Database, connection: psycopg.Connection) -> None:
    collection = db.create_collection("docs", dimensions=2, columns=TYPES)
    assert collection.columns == SQL_TYPES
    assert db.collection("docs").columns == SQL_TYPES
    rows = connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'docs'").fetchall()
    definitions = {definition.partition(" USING ")[2] for (definition,) in rows}
    assert definitions == {
        "btree (key)",
        "btree (id)",
        "btree (document_id)",
        "gin (metadata jsonb_path_ops)",
        "gin (tags)",
        *(f"btree ({name}, key)" for name in TYPES if name != "tags"),
    }


def test_sql_names_of_types(db: Database) -> None:
    aliases = {"a": "str", "b": "integer", "c": "timestamptz", "d": "list", "e": "FLOAT", "f": "boolean"}
    types = ["text", "bigint", "timestamp with time zone", "text[]", "double precision", "boolean"]
    assert list(db.create_collection("docs", dimensions=2, columns=aliases).columns.values()) == types


@pytest.mark.parametrize("name", ["a", "_a", "a1_b", "x" * 36, "select", "user"])
def test_names_that_need_no_quoting_and_some_that_do(db: Database, name: str) -> None:
    collection = db.create_collection(name, dimensions=2, columns={"order": int, "embedding": str, "rank": float})
    collection.upsert([{"id": "a", "vector": [1, 2], "order": 1, "embedding": "x", "rank": 0.5}])
    collection.create_index("ivfflat", lists=1)
    collection.drop_index()
    collection.create_index()
    (hit,) = collection.search([1, 2], where={"order": 1, "embedding": "x", "rank": {"$lt": 1}})
    assert (hit.id, hit.metadata) == ("a", {"order": 1, "embedding": "x", "rank": 0.5})
    assert db.collections() == [name]
    assert db.drop_collection(name)


def refusals() -> list[tuple[str, dict[str, Any], type[PgvecError]]]:
    names = ["", "Docs", "1a", "a-b", "a b", 'a"b', "ü", "x" * 37, "a;b", "a\nb", "a\n"]
    reserved = ["key", "id", "document_id", "position", "text", "metadata", "tsv", "vector", "xmin", "ctid"]
    return [
        *((name, {}, InvalidName) for name in names),
        *(("docs", {"columns": {name: str}}, InvalidName) for name in [*reserved, "Year", "a b", "", "x" * 61]),
        *(("docs", {"columns": {"a": wanted}}, ConfigurationError) for wanted in ("inet", "", bytes, ["str"], None)),
        *(("docs", {"dimensions": count}, ConfigurationError) for count in (0, -1, 16_001)),
        *(("docs", {"distance": distance}, ConfigurationError) for distance in ("hamming", "", "Cosine")),
        *(("docs", {"type": wanted}, ConfigurationError) for wanted in ("int", "", "Vector", "vector(3)")),
        ("docs", {"schema": "nowhere"}, ConfigurationError),
        ("docs", {"schema": "no where"}, ConfigurationError),
        ("docs", {"language": "klingon"}, ConfigurationError),
        ("docs", {"language": "no.where"}, ConfigurationError),
        ("docs", {"language": "english'); DROP TABLE pgvec.models; --"}, ConfigurationError),
        ("docs", {"embedder": WordEmbedder(8), "dimensions": 9}, ConfigurationError),
        ("docs", {"embedder": WordEmbedder(8), "dimensions": None, "columns": {"id": str}}, InvalidName),
        ("docs", {"embedder": WordEmbedder(16_001), "dimensions": None}, ConfigurationError),
    ]


def test_refused_creation_leaves_nothing(db: Database, connection: psycopg.Connection) -> None:
    before = everything(connection)
    for name, options, error in refusals():
        with pytest.raises(error):
            db.create_collection(name, **{"dimensions": 2, **options})
        assert everything(connection) == before, (name, options)


def test_largest_and_smallest(db: Database) -> None:
    for dimensions in (1, 2000, 2001, 4000, 4001, 16_000):
        collection = db.create_collection(f"d{dimensions}", dimensions=dimensions, distance="l2")
        collection.upsert([{"id": "a", "vector": np.arange(dimensions)}])
        collection.create_index()
        assert collection.search(np.arange(dimensions), k=1)[0].distance == 0
        assert collection.space.type == ("halfvec" if dimensions in (2001, 4000) else "vector")


def test_name_that_is_taken(db: Database, connection: psycopg.Connection) -> None:
    db.create_collection("docs", dimensions=2)
    connection.execute("CREATE TABLE public.mine (); CREATE VIEW public.yours_dense AS SELECT 1")
    before = everything(connection)
    for name in ("docs", "mine", "yours", "docs_dense"):
        with pytest.raises(CollectionExists, match=r"exists already.*(drop it first|another collection name)"):
            db.create_collection(name, dimensions=2, embedder=None)
    assert everything(connection) == before


def test_unknown_name_lists_the_known_ones(db: Database) -> None:
    with pytest.raises(CollectionNotFound, match="There are none yet"):
        db.collection("docs")
    for name in ("b", "a"):
        db.create_collection(name, dimensions=2)
    assert db.collections() == ["a", "b"]
    for attempt in (db.collection, db.drop_collection):
        with pytest.raises(CollectionNotFound, match=r"'docs'.*Known: a, b"):
            attempt("docs")


def test_drop_takes_all_that_there_is(db: Database, connection: psycopg.Connection, embedder: WordEmbedder) -> None:
    db.create_collection("other", embedder=embedder)
    before = everything(connection)
    collection = db.create_collection("docs", embedder=embedder, columns=TYPES)
    collection.ingest([{"id": "a", "text": "apple"}])
    collection.create_index()
    assert db.drop_collection("docs") is True
    assert everything(connection) == before
    assert db.drop_collection("docs", if_exists=True) is False
    assert db.create_collection("docs", embedder=embedder).ingest([{"id": "a", "text": "apple"}]).chunks == 1


def test_other_schema(db: Database, connection: psycopg.Connection, embedder: WordEmbedder) -> None:
    connection.execute('CREATE SCHEMA "My schema"; CREATE TABLE public.docs ()')
    collection = db.create_collection("docs", embedder=embedder, columns={"n": int}, schema="My schema")
    collection.ingest([{"id": "a", "text": "apple", "n": 1}])
    collection.upsert([{"id": "a#0", "text": "pear", "n": 2}, {"id": "b", "text": "plum", "n": 3}])
    collection.create_index()
    assert [hit.id for hit in collection.search("pear", where={"n": {"$lte": 2}})] == ["a#0"]
    assert db.collection("docs", embedder=embedder).columns == {"n": "bigint"}
    assert db.drop_collection("docs")
    rows = connection.execute("SELECT schemaname, tablename FROM pg_tables WHERE tablename ~ '^docs'").fetchall()
    assert rows == [("public", "docs")]


def test_language_decides_how_words_are_stemmed(db: Database, connection: psycopg.Connection) -> None:
    lexemes = {}
    for language in ("english", "german", "simple"):
        db.create_collection(language, dimensions=2, language=language)
        db.collection(language).upsert([{"id": "a", "vector": [1, 1], "text": "die Häuser and the houses"}])
        row = connection.execute(f"SELECT tsvector_to_array(tsv) FROM {language}".encode()).fetchone()
        assert row is not None
        lexemes[language] = set(row[0])
    assert lexemes["english"] == {"die", "häuser", "hous"}
    assert lexemes["german"] == {"haus", "and", "the", "hous"}
    assert lexemes["simple"] == {"die", "häuser", "and", "the", "houses"}


def test_text_longer_than_a_tsvector_is_stored_whole(db: Database, connection: psycopg.Connection) -> None:
    text = " ".join(f"漢{number}字" for number in range(300_000))
    db.create_collection("docs", dimensions=2).upsert([{"id": "a", "vector": [1, 1], "text": text}])
    assert connection.execute("SELECT text = %s FROM docs", [text]).fetchone() == (True,)


def test_two_sessions_creating_the_same_name_at_once(db: Database, embedder: WordEmbedder) -> None:
    def create(attempt: int) -> str:
        try:
            db.create_collection(f"docs{attempt // 4}", embedder=embedder, columns=TYPES)
        except CollectionExists:
            return "exists"
        return "created"

    with ThreadPoolExecutor(8) as executor:
        outcomes = list(executor.map(create, range(32)))
    assert [sorted(outcomes[start : start + 4]) for start in range(0, 32, 4)] == [["created"] + ["exists"] * 3] * 8
    assert db.collections() == [f"docs{number}" for number in range(8)]


# -- embedders -----------------------------------------------------------------------------------


class Variant(WordEmbedder):
    def __init__(self, details: dict[str, Any], name: str = WordEmbedder.name) -> None:
        super().__init__()
        self.details, self.name = details, name


class Broken(WordEmbedder):
    """An embedder whose output does not fit, after a good start."""

    def __init__(self, output: Callable[[int], Any]) -> None:
        super().__init__()
        self.output = output

    def embed_documents(self, texts: Any) -> Any:
        return self.output(len(texts)) if "broken" in texts else super().embed_documents(texts)

    def embed_query(self, text: str) -> Any:
        return self.output(2) if text == "broken" else super().embed_query(text)


def test_other_embedder_than_the_vectors_were_made_with(db: Database) -> None:
    db.create_collection("docs", embedder=Variant({"prompt": "a"})).upsert([{"id": "a", "text": "x"}])
    for other in (Variant({"prompt": "b"}), Variant({"prompt": "a"}, name="other"), WordEmbedder(32)):
        collection = db.collection("docs", embedder=other)
        with pytest.raises(EmbeddingError, match="another fingerprint"):
            collection.search("x")
        with pytest.raises(EmbeddingError, match="another fingerprint"):
            collection.upsert([{"id": "b", "text": "y"}])
        with pytest.raises(EmbeddingError, match="another fingerprint"):
            collection.ingest([{"id": "b", "text": "y"}])
    same = db.collection("docs", embedder=Variant({"prompt": "a"}))
    assert [hit.id for hit in same.search("x")] == ["a"]
    assert len(same) == 1


def test_without_an_embedder_there_is_no_search_by_text(db: Database) -> None:
    collection = db.create_collection("docs", dimensions=64)
    collection.upsert([{"id": "a", "vector": np.ones(64), "text": "x"}])
    for attempt in (collection.search, lambda text: collection.upsert([{"id": "b", "text": text}])):
        with pytest.raises(EmbeddingError, match="give vectors, or open it with embedder="):
            attempt("y")
    assert db.collection("docs", embedder=WordEmbedder()).search("x")[0].id == "a"
    with pytest.raises(EmbeddingError, match="32 dimensions"):
        db.collection("docs", embedder=WordEmbedder(32)).search("x")


@pytest.mark.parametrize(
    "output",
    [
        lambda count: np.ones((count, 63), np.float32),
        lambda count: np.ones((count + 1, 64), np.float32),
        lambda count: np.ones(64 * count, np.float32),
        lambda count: np.full((count, 64), np.nan, np.float32),
        lambda count: np.full((count, 64), np.inf, np.float32),
        lambda count: [[1.0] * (64 - row) for row in range(count + 1)],
        lambda _count: "vectors",
        lambda _count: None,
    ],
    ids=["narrow", "too many", "flat", "NaN", "infinite", "ragged", "a text", "None"],
)
def test_output_that_does_not_fit_is_not_written(
    db: Database, connection: psycopg.Connection, output: Callable[[int], Any]
) -> None:
    collection = db.create_collection("docs", embedder=Broken(output))
    records = [{"id": text, "text": text} for text in ("good", "fine", "broken", "rest")]
    for load in (lambda: collection.upsert(records, batch_size=2), lambda: collection.ingest(records, strict=True)):
        with pytest.raises(EmbeddingError, match="test/words"):
            load()
        assert connection.execute("SELECT id FROM docs ORDER BY id").fetchall() == [("fine",), ("good",)]
        assert connection.execute("SELECT count(*) FROM docs_dense").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM pgvec.ledger").fetchone() == (0,)
    with pytest.raises(EmbeddingError, match="test/words"):
        collection.search("broken")
