"""From pgai's vectorizer: its tables as it leaves them, and docs/from-pgai.md as it says to go about it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from tests.integration.examples import examples, psql_outputs
from tests.words import WordEmbedder

Connection = psycopg.Connection[Any]
# What ai.create_vectorizer('blog', …) has made of a table, with two chunks of the first row, none yet of the last one,
# an old one of the third, which waits in its queue, and one of a row that is no more.
VECTORIZED = """
CREATE SCHEMA ai;
CREATE TABLE ai.vectorizer (
    id integer PRIMARY KEY, source_schema name, source_table name, source_pk jsonb, trigger_name name,
    queue_schema name, queue_table name, queue_failed_table name, config jsonb, name name);
INSERT INTO ai.vectorizer VALUES (
    1, 'public', 'blog', '[{"attnum": 1, "pknum": 1, "attname": "id", "typname": "int4"}]', '_vectorizer_src_trg_1',
    'ai', '_vectorizer_q_1', '_vectorizer_q_failed_1', '{
        "loading": {"implementation": "column", "config_type": "loading", "column_name": "contents"},
        "embedding": {"implementation": "openai", "model": "text-embedding-3-small", "dimensions": 3},
        "formatting": {"implementation": "python_template", "template": "$chunk"},
        "destination": {"implementation": "table", "target_schema": "public", "target_table": "blog_embedding_store",
                        "view_schema": "public", "view_name": "blog_embedding"}}', 'public_blog_embedding_store');
CREATE TABLE blog (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, title text, contents text NOT NULL, category text);
INSERT INTO blog (title, contents, category) VALUES
    ('Keys', 'Rotate keys. Often.', 'work'), ('Plants', 'Water the plants.', 'home'),
    ('Doors', 'Close the doors, all.', 'home'), ('Lamps', 'Dust the lamps.', 'home');
CREATE TABLE blog_embedding_store (
    embedding_uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(), id integer NOT NULL, chunk_seq integer NOT NULL,
    chunk text NOT NULL, embedding vector({n}) NOT NULL, UNIQUE (id, chunk_seq));
CREATE VIEW blog_embedding AS SELECT t.*, s.title FROM blog_embedding_store t LEFT JOIN blog s USING (id);
CREATE TABLE ai._vectorizer_q_1 (id integer NOT NULL, queued_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE ai._vectorizer_q_failed_1 (
    id integer NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), failure_step text NOT NULL DEFAULT '');
INSERT INTO ai._vectorizer_q_1 (id) VALUES (3), (4);
"""
STORE = [(1, 1, "Often."), (1, 0, "Rotate keys."), (2, 0, "Water the plants."), (3, 0, "Open doors."), (9, 0, "Gone.")]


class Counting(WordEmbedder):
    def __init__(self) -> None:
        super().__init__(3)


def vectorize(connection: Connection) -> None:
    connection.execute(VECTORIZED.replace("{n}", "3").encode())
    connection.cursor().executemany(
        "INSERT INTO blog_embedding_store (id, chunk_seq, chunk, embedding) VALUES (%s, %s, %s, %s::text::vector)",
        [(*row, str(Counting().embed_query(row[2]).tolist())) for row in STORE],
    )


def test_only_what_pgai_had_not_embedded_is_embedded(db: Database, connection: Connection) -> None:
    vectorize(connection)
    embedder = Counting()
    db.attach("blog", "contents", columns=["category"], embedder=embedder)
    pending = "{ai._vectorizer_q_1,ai._vectorizer_q_failed_1}"
    adopt = "SELECT pgvec.adopt('blog_search', 'blog_embedding_store', pending => %s)"
    assert connection.execute(adopt, [pending]).fetchone() == (2,)
    assert connection.execute(adopt, [pending]).fetchone() == (0,)  # again: what is there stays
    done = db.work(embedder=embedder)
    assert embedder.embedded == ["Close the doors, all.", "Dust the lamps."]
    assert (done.payloads, done.chunks, done.failed) == (2, 2, 0)
    found = connection.execute(
        "SELECT d.id, d.text, d.category, v.embedding::text = (SELECT s.embedding::text FROM blog_embedding_store s"
        " WHERE s.id::text = d.document_id AND s.chunk_seq = d.position)"
        " FROM blog_search d JOIN blog_search_dense v USING (key) ORDER BY d.id"
    ).fetchall()
    assert found == [
        ("1#0", "Rotate keys.", "work", True),
        ("1#1", "Often.", "work", True),
        ("2#0", "Water the plants.", "home", True),
        ("3#0", "Close the doors, all.", "home", False),
        ("4#0", "Dust the lamps.", "home", None),
    ]
    connection.execute("UPDATE blog SET title = 'x'; UPDATE blog SET contents = 'Rotate all keys.' WHERE id = 1")
    assert db.requeue("blog", everything=True) == 0
    db.work(embedder=embedder)
    assert embedder.embedded[2:] == ["Rotate all keys."]


def test_vectors_that_are_a_column_of_the_table_are_taken_over(db: Database, connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE notes (id integer PRIMARY KEY, note text, embedding vector(3));"
        "INSERT INTO notes VALUES (1, 'one', '[1, 0, 0]'), (2, 'two', NULL)"
    )
    embedder = Counting()
    db.attach("notes", "note", embedder=embedder)
    assert connection.execute("SELECT pgvec.adopt('notes_search', 'notes')").fetchone() == (1,)
    db.work(embedder=embedder)
    assert embedder.embedded == ["two"]
    assert db.collection("notes_search", embedder=embedder).search([1, 0, 0], k=1)[0].text == "one"


def test_a_store_that_does_not_fit_is_refused(db: Database, connection: Connection) -> None:
    vectorize(connection)
    db.attach("blog", "contents", embedder=WordEmbedder(4))
    for call, message in (
        ("'blog_embedding_store'", "holds vectors of 3 dimensions, collection 'blog_search' those of 4"),
        ("'ai._vectorizer_q_1'", "has no column chunk, chunk_seq, embedding"),
        ("'blog_embedding_store', pending => '{ai.vectorizer, pg_class}'", "pg_class has no column id"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            db.fetch(f"SELECT pgvec.adopt('blog_search', {call})")


def test_the_page_does_what_it_says(connection: Connection, dsn: str) -> None:
    vectorize(connection)
    blocks = [example for example in examples("docs/from-pgai.md") if example.language == "sql"]
    outputs = psql_outputs(dsn, [block.text for block in blocks])
    for block, output in zip(blocks, outputs, strict=True):
        assert output == block.output, f"docs/from-pgai.md, line {block.line}"


def test_what_is_adopted_is_read_as_workers_read_it(db: Database, connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE talks (at timestamptz PRIMARY KEY, title text, embedding vector(3));"
        "INSERT INTO talks VALUES ('2024-07-01 12:00+00', 'On pots', '[1,0,0]')"
    )
    db.attach("talks", "concat_ws(' ', title, at)", embedder=Counting())
    connection.execute("SET timezone = 'Asia/Tokyo'")
    assert connection.execute("SELECT pgvec.adopt('talks_search', 'talks')").fetchone() == (1,)
    done = db.work(embedder=Counting())
    assert (done.chunks, done.deleted) == (0, 0)
    found = connection.execute("SELECT document_id, text FROM talks_search").fetchall()
    assert found == [("2024-07-01 12:00:00+00", "On pots 2024-07-01 12:00:00+00")]
