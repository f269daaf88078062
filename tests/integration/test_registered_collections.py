"""A registered table as Python sees it: searched by texts, tuned, its indexes built, its missing vectors made."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError, InvalidName
from tests.conftest import random_vectors
from tests.words import WordEmbedder

THINGS = ("lamp", "table", "chair", "mirror", "shelf")
Connection = psycopg.Connection[Any]


class Meeting(WordEmbedder):
    """An embedder at which two sessions meet: neither goes on before both have their first batch."""

    def __init__(self) -> None:
        super().__init__(16)
        self.both = threading.Barrier(2, timeout=20)
        self.seen = threading.local()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not getattr(self.seen, "met", False):
            self.seen.met = True
            self.both.wait()
        return super().embed_documents(texts)


@pytest.fixture
def notes(connection: Connection) -> Connection:
    """A table of 600 texts without vectors."""
    connection.execute(
        "CREATE TABLE notes (id bigint PRIMARY KEY, body text, colour text, embedding vector(16), image halfvec(4))"
    )
    connection.execute(
        "INSERT INTO notes (id, body, colour) SELECT n, (%s::text[])[1 + n %% 5] || ' number ' || n,"
        " CASE n %% 2 WHEN 0 THEN 'red' ELSE 'blue' END FROM generate_series(1, 600) n",
        [list(THINGS)],
    )
    return connection


def registered(db: Database, embedder: Any) -> Collection:
    return db.register_table("notes", text="body", embedder=embedder)


def test_rows_without_a_vector_get_one_and_texts_find_them(db: Database, notes: Connection) -> None:
    embedder = WordEmbedder(16)
    docs = registered(db, embedder)
    assert (docs.name, len(docs), docs.columns) == ("notes", 600, {"colour": "text"})
    notes.execute("UPDATE notes SET embedding = array_fill(0.25, '{16}')::vector WHERE id = 1")
    notes.execute("UPDATE notes SET body = ' ' WHERE id = 2")
    notes.execute("UPDATE notes SET body = NULL WHERE id = 3")
    assert docs.embed_space().chunks == 597
    assert docs.embed_space("dense").chunks == 0
    assert len(embedder.embedded) == 597
    kept = "SELECT embedding <-> array_fill(0.25, '{16}')::vector FROM notes WHERE id = 1"
    assert notes.execute(kept).fetchone() == (0,)
    hits = docs.search("lamp number 10", 3, {"colour": "red"})
    assert hits[0].text == "lamp number 10"
    assert hits[0].id == "10"
    assert all(hit.metadata == {"colour": "red"} for hit in hits)
    # What has changed is embedded again, whoever sets its vector to NULL.
    notes.execute("UPDATE notes SET body = 'a sextant', embedding = NULL WHERE id = 10")
    assert docs.embed_space().chunks == 1
    assert docs.search("a sextant", 1)[0].id == "10"
    again = db.collection("notes", embedder=WordEmbedder(16))
    assert again.search("a sextant", 1)[0].id == "10"


def test_several_sessions_embed_each_row_once(db: Database, notes: Connection) -> None:
    embedder = Meeting()
    docs = registered(db, embedder)
    done: list[int] = []
    workers = [threading.Thread(target=lambda: done.append(docs.embed_space(progress=False).chunks)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert sum(done) == 600
    assert min(done) > 0
    assert len(embedder.embedded) == len(set(embedder.embedded)) == 600
    assert notes.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_what_changes_while_it_is_embedded_is_left_for_the_next(db: Database, notes: Connection) -> None:
    class Slow(WordEmbedder):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            notes.execute("UPDATE notes SET body = 'another' WHERE id = 1")
            notes.execute("UPDATE notes SET embedding = array_fill(0.5, '{16}')::vector WHERE id = 2")
            return super().embed_documents(texts)

    notes.execute("DELETE FROM notes WHERE id > 3")
    docs = registered(db, Slow(16))
    assert docs.embed_space().chunks == 1
    state = "SELECT id, embedding IS NULL, embedding = array_fill(0.5, '{16}')::vector FROM notes ORDER BY id"
    assert notes.execute(state).fetchall() == [(1, True, None), (2, False, True), (3, False, False)]


def test_a_name_that_needs_quotes_is_told_so(db: Database) -> None:
    with pytest.raises(InvalidName, match=r'written in double quotes, as shop\."Price list"'):
        db.register_table("My shop.x")


def test_an_embedder_that_does_not_fit_registers_nothing(db: Database, notes: Connection) -> None:
    with pytest.raises(ConfigurationError, match="makes 8 dimensions, not 16"):
        registered(db, WordEmbedder(8))
    assert db.collections() == []
    assert notes.execute("SELECT count(*) FROM pgvec.models").fetchone() == (0,)
    docs = registered(db, WordEmbedder(16))
    with pytest.raises(ConfigurationError, match="makes 8 dimensions, not 4"):
        docs.register_space("image", embedder=WordEmbedder(8))
    docs.register_space("image", name="picture", distance="l2")
    db.unregister_table("notes")
    textless = db.register_table("notes", embedder=WordEmbedder(16))
    with pytest.raises(ConfigurationError, match="has no text to embed"):
        textless.embed_space()
    textless.register_space("image", name="picture", distance="l2")
    assert [row[0] for row in db.fetch("SELECT space FROM pgvec.spaces ORDER BY 1")] == ["dense", "picture"]
    with pytest.raises(ConfigurationError, match="is no registered table"):
        db.create_collection("docs", dimensions=4).register_space("image")


@pytest.fixture
def items(db: Database, connection: Connection) -> Collection:
    """A registered table of 1,500 rows with vectors."""
    connection.execute(
        "CREATE TABLE items (code integer NOT NULL UNIQUE, price integer, body text, embedding vector(16),"
        " image halfvec(8))"
    )
    given = random_vectors(1500, 16)
    connection.execute(
        "INSERT INTO items SELECT place, place %% 10, 'item ' || place, v::vector, subvector(v::vector, 1, 8)::halfvec"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS g (v, place)",
        [[str(vector.tolist()) for vector in given]],
    )
    connection.execute("INSERT INTO items SELECT n, 1, 'without' FROM generate_series(1501, 1600) n; ANALYZE items")
    docs = db.register_table("items", text="body", key="code")
    docs.register_space("image")
    return docs


def test_indexes_are_built_tuned_and_used(items: Collection, connection: Connection) -> None:
    small = {"m": 6, "ef_construction": 20, "progress": False}
    assert items.create_index(**small) == "items_embedding_hnsw"
    assert items.create_index("ivfflat", form="binary", space="image", progress=False) == "items_image_ivfflat"
    assert [index.name for index in items.indexes(space="image")] == ["items_image_ivfflat"]
    assert items.builds()[0].rows == 1500
    tuned = items.tune(0.9, sample=20, progress=False)
    assert tuned
    items.tune(0.8, sample=20, space="image", progress=False)
    vector = random_vectors(1500, 16)[3]
    assert "tuned for recall 0.9" in items.explain(vector, 5)
    few = {"id": {"$lt": 30}}  # fewer than the gate
    assert [hit.id for hit in items.search(vector, 5, few)] == [
        hit.id for hit in items.search(vector, 5, few, exact=True)
    ]
    assert items.rebuild_index(progress=False).rebuilt
    assert [index.name for index in items.indexes()] == ["items_embedding_hnsw"]
    assert "tuned for recall 0.9" in items.explain(vector, 5)
    assert items.recall(queries=[vector], k=5).queries == 1
    assert items.prewarm()
    assert items.watch(queries=20).target_recall == 0.9
    assert items.drop_index() == ["items_embedding_hnsw"]
    left = "SELECT count(*) FROM pg_indexes WHERE indexname = 'items_image_ivfflat'"
    assert connection.execute(left).fetchone() == (1,)


def test_the_advisor_copies_what_it_tries(items: Collection, connection: Connection) -> None:
    advice = items.advise(0.5, sample=1000, candidates=[{"m": 4, "ef_construction": 10}], progress=False)
    assert advice.recommended.candidate.m == 4
    assert connection.execute("SELECT count(*), count(embedding) FROM items").fetchone() == (1600, 1500)


def test_an_open_collection_follows_a_rename(items: Collection, connection: Connection) -> None:
    vector = random_vectors(1500, 16)[3]
    before = [hit.id for hit in items.search(vector, 5, {"price": 3})]
    connection.execute("ALTER TABLE items RENAME embedding TO meaning; ALTER TABLE items RENAME TO goods")
    assert [hit.id for hit in items.search(vector, 5, {"price": 3})] == before
    connection.execute("DROP TABLE goods")
    with pytest.raises(CollectionNotFound, match="is gone"):
        items.search(vector)


def test_names_that_need_quotes(db: Database, connection: Connection) -> None:
    connection.execute("""
        CREATE SCHEMA "My Shop";
        CREATE TABLE "My Shop"."Things 100%" ("Key 1" smallint PRIMARY KEY, "price %s" integer, "{text}" varchar,
                                             "Vector $1" vector(16));
        INSERT INTO "My Shop"."Things 100%" VALUES (1, 5, 'a lamp'), (2, 6, 'a lamp and a table'), (3, 7, 'kettle');
        """)
    relation = '"My Shop"."Things 100%"'
    with pytest.raises(InvalidName, match="by name => …"):
        db.register_table(relation, embedding="Vector $1")
    docs = db.register_table(
        relation, name="things", embedder=WordEmbedder(16), keywords=True, text="{text}", embedding="Vector $1"
    )
    assert docs.embed_space().chunks == 3
    assert docs.create_index(m=4, ef_construction=10, progress=False) == "Things 100%_Vector $1_hnsw"
    (hit,) = docs.search("a lamp", 5, {"price %s": {"$lt": 6}})
    assert (hit.id, hit.metadata) == ("1", {"price %s": 5})
    assert [hit.id for hit in docs.hybrid_search("kettle", 1)] == ["3"]
    assert docs.recall(k=1, queries=["a lamp"]).recall == 1
    judged = docs.evaluate({"q": "a lamp"}, {"q": {"1": 1, "9": 1}}, modes=["dense", "keyword"], progress=False)
    assert judged.absent == 1


def test_what_writes_says_what_to_do_instead(items: Collection, db: Database) -> None:
    writes = (
        lambda: items.upsert([{"id": "1", "vector": [0.0] * 16}]),
        lambda: items.ingest([{"id": "1", "text": "text"}]),
        lambda: items.set_vectors("dense", ["1"], [[1.0] * 16]),
        lambda: items.delete(["1"]),
        lambda: items.promote("price", int),
        lambda: items.add_space("other", dimensions=3),
        lambda: items.create_history(),
        lambda: items.swap_model(WordEmbedder(16), progress=False),
    )
    for write in writes:
        with pytest.raises(ConfigurationError, match=r"is table public\.items, which is only read"):
            write()
    db.unregister_table("items")
    assert db.collections() == []
    with pytest.raises(CollectionNotFound):
        db.unregister_table("items")
