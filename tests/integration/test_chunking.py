"""How documents are cut, on a real server: what is stored of it, what is embedded, what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, InvalidRecord
from pgvec_toolkit.ingest.chunk import Chunking, split
from pgvec_toolkit.ingest.document import Chunk, Document
from pgvec_toolkit.ingest.documents import Ingested, Ingestion
from pgvec_toolkit.ingest.load import Written
from tests.tokenized import TokenEmbedder

LONG = "the key " * 20  # 40 tokens, of which 30 are read
READ = "the key " * 14 + "the key"
GUIDE = "# Key\n\nThe key is in the vault.\n\n## Water\n\n" + "Boil the pasta. " * 5


@pytest.fixture
def model() -> TokenEmbedder:
    return TokenEmbedder(30)


@pytest.fixture
def docs(db: Database, model: TokenEmbedder) -> Collection:
    return db.create_collection("docs", embedder=model, columns={"headings": list[str]})


def stored(connection: psycopg.Connection, columns: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT {columns} FROM docs ORDER BY id").fetchall()  # type: ignore[arg-type]


def test_headings_and_context_are_stored_and_embedded_in_every_space(
    docs: Collection, model: TokenEmbedder, connection: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "guide.md").write_text(f"---\ntitle: Vault\n---\n{GUIDE}")
    docs.ingest(tmp_path / "guide.md", context=True)
    rows = stored(connection, "text, headings, metadata")
    assert [(headings, metadata) for _, headings, metadata in rows] == [
        (["Key"], {"title": "Vault", "pgvec_context": "Vault > Key"}),
        (["Key", "Water"], {"title": "Vault", "pgvec_context": "Vault > Key > Water"}),
    ]
    whole = [f"{metadata['pgvec_context']}\n\n{text}" for text, _, metadata in rows]
    assert model.embedded == whole
    docs.add_space("second", embedder=(again := TokenEmbedder(30)))
    assert docs.embed_space("second").truncated == 0
    assert again.embedded == whole
    records = [{"id": "a", "text": "key", "metadata": rows[0][2]}, {"id": "b", "text": "key", "pgvec_context": "C"}]
    docs.upsert(records)
    assert model.embedded[2:] == ["Vault > Key\n\nkey", "C\n\nkey"]


class Lines:
    """Cuts at line ends."""

    def cut(self, document: Document) -> list[Chunk]:
        return [Chunk(line, {"line": number}) for number, line in enumerate(document.text.splitlines())]


def test_documents_are_cut_again_when_they_are_to_be_cut_otherwise(
    docs: Collection, connection: psycopg.Connection
) -> None:
    records = [{"id": "a", "text": "the key\nthe vault " + "water salt " * 12}]
    assert docs.ingest(records).chunks == 1
    assert docs.ingest(records).unchanged == 1
    for options in ({"overlap": 3}, {"chunker": "fixed", "chunk_tokens": 20}, {"chunker": Lines()}, {"context": True}):
        assert docs.ingest(records, **options).unchanged == 0  # type: ignore[arg-type]
        assert docs.ingest(records, **options).unchanged == 1  # type: ignore[arg-type]
        if "chunker" in options:
            assert len(stored(connection, "id")) == 2
        if isinstance(options.get("chunker"), Lines):
            assert stored(connection, "metadata") == [({"line": 0},), ({"line": 1},)]


def test_what_is_split_and_truncated_is_counted(
    docs: Collection, model: TokenEmbedder, connection: psycopg.Connection
) -> None:
    records = [{"id": "a", "text": LONG}, {"id": "b", "text": "key"}]
    assert docs.ingest(records) == Ingested(documents=2, chunks=3)
    assert docs.ingest(records, chunker="none") == Ingested(documents=2, chunks=3, split=1)
    model.embedded.clear()
    assert docs.ingest(records, chunker="none", too_long="truncate") == Ingested(documents=2, chunks=2, truncated=1)
    assert model.embedded == [READ, "key"]
    assert stored(connection, "text") == [(LONG,), ("key",)]
    docs.add_space("second", embedder=TokenEmbedder(30))
    assert docs.embed_space("second").truncated == 1
    assert docs.ingest([{"id": "c", "text": "x = 1"}]).notes == []


def test_what_cannot_be_cut_so_is_refused_before_anything_is_written(
    docs: Collection, connection: psycopg.Connection
) -> None:
    for options in ({"chunker": "words"}, {"chunk_tokens": 31}, {"overlap": 30}, {"too_long": "keep"}):
        with pytest.raises(ConfigurationError):
            docs.ingest([{"id": "a", "text": "key"}], **options)  # type: ignore[arg-type]
    assert stored(connection, "id") == []


def test_what_is_too_long_can_be_a_failure_and_is_retried_so(
    docs: Collection, connection: psycopg.Connection, model: TokenEmbedder
) -> None:
    records = [{"id": "a", "text": "key"}, {"id": "b", "text": LONG}]
    said = "'b' has 40 tokens, and embedder test/tokens reads 30"
    with pytest.raises(InvalidRecord, match=said):
        docs.ingest(records, chunker="none", too_long="error", strict=True)
    assert stored(connection, "id") == []
    (failure,) = docs.ingest(records, chunker="none", too_long="error").failed
    assert (failure.document_id, failure.stage, said in failure.error) == ("b", "chunk", True)
    assert stored(connection, "id") == [("a#0",)]
    assert [one.attempts for one in docs.retry().failed] == [2]
    model.max_tokens = 40
    assert docs.retry() == Ingested(documents=1, chunks=1)
    assert docs.ingest(records, chunker="none", too_long="error").unchanged == 2


def test_failures_are_retried_with_all_options_and_ones_own_chunker(
    docs: Collection, connection: psycopg.Connection
) -> None:
    bad = {"id": "bad", "text": "the key\nthe vault", "headings": 1}
    options: dict[str, Any] = {
        "chunker": "fixed",
        "chunk_tokens": 20,
        "overlap": 2,
        "context": True,
        "too_long": "truncate",
    }
    recorded = "SELECT options FROM pgvec.failures"
    assert len(docs.ingest([bad], **options).failed) == 1
    assert connection.execute(recorded).fetchone() == ({**options, "read": {"id": "id", "text": "text"}},)
    assert len(docs.retry().failed) == 1
    assert connection.execute(recorded).fetchone() == ({**options, "read": {"id": "id", "text": "text"}},)
    docs.ingest([bad, {"id": "other", "text": "key", "headings": 1}], chunker=Lines())
    docs.ingest([{"id": "other", "text": "key", "headings": 1}])
    with pytest.raises(ConfigurationError, match=r"'bad': cut by \S+\.Lines, .* which could not be recorded"):
        docs.retry()
    assert [one.attempts for one in docs.retry(["other"]).failed] == [3]
    connection.execute("UPDATE pgvec.failures SET payload = payload #- '{fields,headings}' WHERE document_id = 'bad'")
    assert docs.retry(["bad"], chunker=Lines()) == Ingested(documents=1, chunks=2)


def test_documents_are_not_changed_by_another_model(
    docs: Collection, db: Database, connection: psycopg.Connection
) -> None:
    records = [{"id": "a", "text": "key"}]
    docs.ingest(records)
    hashes = connection.execute("SELECT content_hash FROM pgvec.ledger").fetchall()
    other = TokenEmbedder(20)
    other.name = "test/other"
    with pytest.raises(EmbeddingError, match="test/other"):
        db.collection("docs", embedder=other).ingest(records)
    second = db.create_collection("second", embedder=other)
    second.ingest(records)
    both = connection.execute("SELECT DISTINCT content_hash FROM pgvec.ledger").fetchall()
    assert both == hashes


def test_an_ingestion_that_runs_twice_counts_each_time(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    ingestion = Ingestion(docs._target(), docs.embedder, Chunking("none"))
    with docs.database.connection() as own:
        for id in "ab":
            documents = [Document(0, id, LONG), Document(1, f"{id}.kt", "val x = 1", format="kotlin")]
            assert ingestion.run(own, documents, lambda _: None).split == 1
        code = Ingestion(docs._target(), docs.embedder)
        for id in "cd":
            documents = [Document(row, f"{id}{row}.kt", f"val {id}", format="nothing_known") for row in range(2)]
            assert len(code.run(own, documents, lambda _: None).notes) == 1
        assert code.compare(own, documents).changed == []
        monkeypatch.setattr(split, "grammar", lambda _language: object)
        assert code.compare(own, documents).changed == documents  # its grammar is there now


def test_texts_of_records_are_not_cut_off_in_silence(
    docs: Collection, model: TokenEmbedder, connection: psycopg.Connection
) -> None:
    records = [{"id": "a", "text": "key"}, {"id": "b", "text": LONG}]
    with pytest.raises(InvalidRecord, match=r"row 1, field 'text': has 40 tokens, and embedder test/tokens reads 30"):
        docs.upsert(records, too_long="error")
    with pytest.raises(ConfigurationError, match="too_long is truncate or error, not 'split'"):
        docs.upsert(records, too_long="split")
    assert stored(connection, "id") == []
    assert docs.upsert(records) == Written(inserted=2, truncated=1)
    assert docs.upsert(records) == Written(unchanged=2)
    assert model.embedded == ["key", READ]
    assert stored(connection, "text") == [("key",), (LONG,)]
    vectors = np.ones((2, model.dimensions))
    assert docs.upsert({"id": ["c", "d"], "text": [LONG, LONG], "vector": vectors}) == Written(inserted=2)
