"""Documents that cannot be ingested: recorded, listed, tried again, and never in the way of the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import (
    CollectionNotFound,
    ConfigurationError,
    EmbedderUnavailable,
    EmbeddingError,
    InvalidRecord,
    RejectedText,
)
from pgvec_toolkit.ingest import ledger
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.documents import Ingested, Ingestion
from tests.stored import there
from tests.words import WordEmbedder


class Choosy(WordEmbedder):
    """An embedder that refuses texts as it is told: `refuse` gets each call's texts."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[Sequence[str]], object] = lambda _texts: None
        self.calls = 0

    def embed_documents(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        self.refuse(texts)
        return super().embed_documents(texts)


def poison(texts: Sequence[str]) -> None:
    if any("poison" in text for text in texts):
        raise RejectedText("the model takes no poison", ())


@pytest.fixture
def embedder() -> Choosy:
    return Choosy()


@pytest.fixture
def docs(db: Database, embedder: Choosy) -> Collection:
    return db.create_collection("docs", embedder=embedder, columns={"year": int}, keywords=False)


def test_failing_documents_are_recorded_and_the_others_are_in(
    docs: Collection, embedder: Choosy, connection: psycopg.Connection
) -> None:
    embedder.refuse = poison
    connection.execute("ALTER TABLE docs ADD CHECK (text <> 'forbidden')")
    records: list[dict[str, Any]] = [{"id": number, "text": f"text {number}"} for number in range(40)]
    records[3] = {"id": 3, "text": "three", "year": "not a year"}
    records[20]["text"] = "poison"
    records[21]["text"] = "forbidden"
    records[38]["blob"] = b"no JSON"
    done = docs.ingest(records)
    assert (done.documents, done.unchanged, done.chunks) == (40, 0, 36)
    failed = sorted(done.failed, key=lambda one: int(one.document_id))
    assert [(one.document_id, one.stage, one.attempts, one.retriable) for one in failed] == [
        ("3", "write", 1, True),
        ("20", "embed", 1, True),
        ("21", "write", 1, True),
        ("38", "write", 1, False),
    ]
    errors = [one.error for one in failed]
    assert "'year'" in errors[0]
    assert errors[1] == "the model takes no poison"
    assert "check constraint" in errors[2]
    assert sorted(docs.failures(), key=lambda one: int(one.document_id)) == failed
    assert len(there(connection)) == 36

    again = docs.ingest(records)
    assert (again.unchanged, again.chunks, [one.attempts for one in again.failed]) == (36, 0, [2] * 4)
    view = "SELECT document_id, attempts, retriable FROM pgvec.failed_documents WHERE collection = 'docs' ORDER BY 1"
    assert connection.execute(view).fetchall() == [("20", 2, True), ("21", 2, True), ("3", 2, True), ("38", 2, False)]

    embedder.refuse = lambda _texts: None
    with pytest.raises(ConfigurationError, match="'4' has not failed"):
        docs.retry([4])
    with pytest.raises(ConfigurationError, match="'38' could not be kept"):
        docs.retry([38])
    assert docs.retry([20]) == Ingested(documents=1, chunks=1)
    assert there(connection)["20"] == "poison"
    rest = docs.retry()
    assert [(one.document_id, one.attempts) for one in rest.failed] == [("21", 3), ("3", 3), ("38", 2)]
    assert docs.ingest(records).unchanged == 37  # what was kept is what was given
    docs.delete([3, 21, 38])
    assert docs.failures() == []


def test_what_cannot_be_stored_at_all_is_recorded_too(docs: Collection, connection: psycopg.Connection) -> None:
    long, loop = "x" * 10_000, {}  # type: tuple[str, dict[str, Any]]
    loop["loop"] = loop
    documents: list[Document | Unreadable] = [
        Unreadable(0, "nul\0", "is \0 empty", Path("nul.pdf")),
        Document(1, "nul", "nul \0 text"),
        Document(2, long, "text"),
        Document(3, "loop", "text", loop),
        Document(4, "keys", "text", {"of": {("a", 1): 2}}),
        Document(5, "half \ud800", "text"),
        Document(6, "metadata", "text", {"metadata": "a text"}),
        Document(7, "good", "text"),
    ]
    done = _ingest(docs, documents)
    assert [(one.stage, one.retriable) for one in done.failed] == [
        *[("write", False)] * 1,
        *[("write", False)] * 2,
        ("write", True),
        ("write", False),
        ("read", True),
        ("write", True),
    ]
    assert list(there(connection)) == ["good"]


def _ingest(docs: Collection, documents: Sequence[Document | Unreadable], **options: Any) -> Ingested:
    ingestion = Ingestion(docs._target(), docs.embedder, **options)
    with docs.database.connection() as connection:
        return ingestion.run(connection, documents, lambda _: None)


def test_a_failing_document_keeps_what_is_stored_of_it(
    docs: Collection, embedder: Choosy, connection: psycopg.Connection
) -> None:
    records = [{"id": id, "text": f"first {id}"} for id in "abc"]
    docs.ingest(records)
    entry = connection.execute("SELECT * FROM pgvec.ledger WHERE document_id = 'b'").fetchone()
    embedder.refuse = poison
    changed = [records[0], {"id": "b", "text": "poison"}, {"id": "c", "text": "second c"}]
    done = docs.ingest(changed)
    assert (done.unchanged, done.chunks, [one.document_id for one in done.failed]) == (1, 1, ["b"])
    assert there(connection) == {"a": "first a", "b": "first b", "c": "second c"}
    assert connection.execute("SELECT * FROM pgvec.ledger WHERE document_id = 'b'").fetchone() == entry
    assert docs.ingest(records[:2]).unchanged == 2  # as it was: that is no failure any more
    assert docs.failures() == []
    versions = connection.execute("SELECT document_id, version FROM pgvec.ledger ORDER BY 1").fetchall()
    assert versions == [("a", 1), ("b", 1), ("c", 2)]


def test_a_poison_text_is_found_by_halves(docs: Collection, embedder: Choosy) -> None:
    embedder.refuse = poison
    done = docs.ingest({"id": number, "text": "poison" if number == 5 else f"text {number}"} for number in range(16))
    assert (done.chunks, [one.document_id for one in done.failed]) == (15, ["5"])
    assert embedder.calls == 9  # 16, 8, 4, 4: 2, 2: 1, 1 and the other 8


def test_texts_that_an_embedder_names_cost_no_halves(docs: Collection, embedder: Choosy) -> None:
    def name(texts: Sequence[str]) -> None:
        if bad := tuple(at for at, text in enumerate(texts) if "poison" in text):
            raise RejectedText(f"{len(bad)} texts", bad)

    def name_first(_: Sequence[str]) -> None:
        raise RejectedText("wrong", (0,))

    embedder.refuse = name
    done = docs.ingest([{"id": number, "text": f"poison {number}" if number % 5 else "x"} for number in range(16)])
    assert (done.chunks, {one.error for one in done.failed}) == (4, {"1 texts"})
    assert (len(done.failed), embedder.calls) == (12, 1 + 12 + 1)
    docs.add_space("more", embedder=(more := Choosy()))
    more.refuse = lambda texts: name_first(texts) if more.calls < 2 else name(texts)
    docs.upsert([{"id": "bad", "text": "poison", "vector": np.ones(64)}])
    with pytest.raises(
        RejectedText, match=r"^1 chunks of docs have no vector in more: 'bad'\. The others have one\. Change"
    ):
        docs.embed_space("more")
    missing = "SELECT d.id FROM docs d LEFT JOIN docs_more v USING (key) WHERE v.key IS NULL"
    assert docs._database.fetch(missing) == [("bad",)]
    with pytest.raises(InvalidRecord, match=r"row 2, field 'text': 1 texts \(id 'worse'\)"):
        docs.upsert([{"id": id, "text": f"{id} poison" if id == "worse" else id} for id in ("a", "b", "worse")])


@pytest.mark.parametrize("error", [ValueError("odd"), EmbeddingError("odd")], ids=repr)
def test_an_unknown_error_is_the_texts_fault_if_others_are_embedded(
    docs: Collection, embedder: Choosy, error: Exception
) -> None:
    def odd(texts: Sequence[str]) -> None:
        if any(text.startswith("odd") for text in texts):
            raise error

    embedder.refuse = odd
    done = docs.ingest([{"id": "a", "text": "odd"}, {"id": "b", "text": "odder"}])
    assert [one.stage for one in done.failed] == ["embed", "embed"]
    assert "odd" in done.failed[0].error


def test_an_embedder_that_embeds_nothing_is_no_documents_fault(
    docs: Collection, embedder: Choosy, connection: psycopg.Connection
) -> None:
    def broken(_: Sequence[str]) -> None:
        raise ValueError("broken")

    embedder.refuse = broken
    with pytest.raises(ValueError, match="broken"):
        docs.ingest([{"id": number, "text": f"text {number}"} for number in range(3)])
    assert docs.failures() == []
    assert there(connection) == {}


@pytest.mark.parametrize("error", [EmbedderUnavailable("the server is down"), ConnectionError("refused")], ids=repr)
def test_an_embedder_that_is_down_ends_it_and_the_next_run_goes_on(
    docs: Collection, embedder: Choosy, connection: psycopg.Connection, error: Exception
) -> None:
    def down_in_the_second_batch(_: Sequence[str]) -> None:
        if embedder.calls == 2:
            raise error

    embedder.refuse = down_in_the_second_batch
    records = [{"id": number, "text": f"text {number}"} for number in range(100)]
    with pytest.raises(type(error), match="64 documents" if isinstance(error, EmbeddingError) else "refused"):
        docs.ingest(records)
    assert len(there(connection)) == 64
    assert docs.failures() == []
    done = docs.ingest(records)
    assert (done.unchanged, done.chunks) == (64, 36)


def test_strict_ends_at_the_first_and_records_nothing(docs: Collection, embedder: Choosy) -> None:
    embedder.refuse = poison
    for bad, error in (({"text": "poison"}, RejectedText), ({"text": "x", "year": "last"}, InvalidRecord)):
        with pytest.raises(error):
            docs.ingest([{"id": "good", "text": "text"}, {"id": "bad", **bad}], strict=True)
    with pytest.raises(ConfigurationError, match=r"a\.pdf: is empty"):
        _ingest(docs, [Unreadable(0, "a.pdf", "is empty", Path("a.pdf"))], strict=True)
    assert (docs.failures(), len(docs)) == ([], 0)


def test_a_file_that_failed_is_read_again(docs: Collection, connection: psycopg.Connection, tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    (folder / "deep").mkdir(parents=True)
    file = folder / "deep" / "a.md"
    file.write_text("---\nyear: last\n---\nText")
    done = docs.ingest(folder)
    assert [(one.document_id, one.source) for one in done.failed] == [("handbook/deep/a.md", str(file))]
    assert [one.attempts for one in docs.retry().failed] == [2]
    file.write_text("---\nyear: 2024\n---\nText")
    assert docs.retry(["handbook/deep/a.md"]) == Ingested(documents=1, chunks=1)
    assert there(connection) == {"handbook/deep/a.md": "Text"}
    assert docs.failures() == []

    file.write_text("---\nyear: last\n---\nText")
    docs.ingest(folder)
    file.unlink()
    (failure,) = docs.retry().failed
    assert (failure.stage, failure.attempts) == ("read", 2)
    assert "no longer there" in failure.error
    assert list(there(connection)) == ["handbook/deep/a.md"]


def test_retry_forgets_nothing_that_may_still_be_there(docs: Collection, tmp_path: Path) -> None:
    long = "x" * 3000  # is recorded shortened
    bad, good = ([{"id": id, "text": "text", "year": year} for id in ("r1", long)] for year in ("last", 2024))
    (file := tmp_path / "data" / "r.jsonl").parent.mkdir()
    (page := file.with_name("page.md")).write_text("---\nyear: last\n---\nText")

    def write(*lines: object) -> None:
        file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))

    def attempts() -> dict[str, int]:
        return {one.document_id[:12]: one.attempts for one in docs.failures()}

    write(*bad)
    docs.ingest(file.parent)
    docs.ingest(page)  # the same file under another id
    assert attempts() == {"data/page.md": 1, "page.md": 1, "r1": 1, long[:12]: 1}
    assert len(docs.retry().failed) == 4
    assert docs.sync(file.parent).changes != []
    assert attempts() == {"data/page.md": 3, "page.md": 2, "r1": 3, long[:12]: 3}
    page.unlink()
    write(bad[0], '{"id": "r2", broken')  # of which it is not known which document it is
    docs.delete(["data/page.md", "page.md"])
    docs.retry()
    assert attempts() == {"data/r.jsonl": 1, "r1": 4, long[:12]: 3}
    write()
    assert [one.error for one in docs.retry().failed] == ["is empty"]
    assert attempts().keys() == {"data/r.jsonl", "r1", long[:12]}
    write(good[0])
    assert docs.retry().chunks == 1
    assert docs.failures() == []


def test_whoever_writes_the_same_documents_waits_and_is_in_no_deadlock(
    docs: Collection, dsn: str, connection: psycopg.Connection
) -> None:
    for id in "ba":  # lie in this order
        docs.ingest([{"id": id, "text": "text"}])
        docs.ingest([{"id": id, "text": "text", "year": "last"}])
    collection_id = docs.space.collection_id
    acts: list[tuple[str, Callable[[psycopg.Connection], object]]] = [
        ("ledger", lambda own: ledger.move(own, collection_id, {"a": Path("/a"), "b": Path("/b")})),
        ("failures", lambda own: ledger.forget_failures(own, collection_id, ["a", "b"])),
        ("failures", lambda own: own.execute("SELECT pgvec.delete_documents('docs', '{a,b}')")),
    ]
    as_they_lie = "-c enable_indexscan=off -c enable_bitmapscan=off"
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = %s)"
    with psycopg.connect(dsn) as other, psycopg.connect(dsn, options=as_they_lie) as own, ThreadPoolExecutor(1) as pool:
        for table, act in acts:
            lock = f"SELECT FROM pgvec.{table} WHERE document_id = %s FOR UPDATE NOWAIT".encode()
            other.execute(lock, ["a"])
            acting = pool.submit(act, own)
            while connection.execute(waiting, [own.info.backend_pid]).fetchone() == (False,):
                assert not acting.done()
            other.execute(lock, ["b"])
            other.rollback()
            acting.result()
            own.rollback()


def test_a_collection_dropped_meanwhile_is_said_so(
    docs: Collection, embedder: Choosy, db: Database, connection: psycopg.Connection
) -> None:
    def drop(_: Sequence[str]) -> None:
        connection.execute("SELECT pgvec.drop_collection('docs', true)")

    embedder.refuse = drop
    with pytest.raises(CollectionNotFound, match="'docs' was dropped while"):
        docs.ingest([{"id": "a", "text": "text"}])
    db.create_collection("docs", embedder=embedder, keywords=False)  # another one of that name is not meant
    with pytest.raises(CollectionNotFound, match="'docs' was dropped while"):
        docs.ingest([{"id": "a", "text": "text"}])


def test_steps_that_overlap_end_with_the_last_text(docs: Collection, connection: psycopg.Connection) -> None:
    ingestion = Ingestion(docs._target(), docs.embedder)
    first, second = Document(0, "a", "first"), Document(1, "a", "second")
    done = Ingested()
    with docs.database.connection() as own:
        for turns in ([first], [first, second, second, first]):
            works = [ingestion.prepare(own, [document]) for document in turns]
            for work in works:
                ingestion.embed(work)
            for work in works:
                ingestion.write(own, work, done)
    assert there(connection) == {"a": "first"}
    assert done == Ingested(documents=5, unchanged=2, chunks=3)
    assert ingestion._under_way == {}
    assert connection.execute("SELECT version FROM pgvec.ledger").fetchone() == (3,)


def test_in_a_transaction_of_the_callers(docs: Collection, embedder: Choosy, connection: psycopg.Connection) -> None:
    embedder.refuse = poison
    documents = [Document(0, "a", "text"), Document(1, "b", "poison"), Document(2, "c", "text", {"year": 1})]
    connection.execute("ALTER TABLE docs ADD CHECK (year <> 1)")
    ingestion = Ingestion(docs._target(), embedder)
    with docs.database.connection() as own, own.transaction() as transaction:
        done = ingestion.run(own, documents, lambda _: None)
        assert [one.stage for one in done.failed] == ["embed", "write"]
        raise psycopg.Rollback(transaction)
    assert (there(connection), docs.failures()) == ({}, [])


def test_what_somebody_else_has_just_written_is_not_written_again(
    docs: Collection, embedder: Choosy, connection: psycopg.Connection
) -> None:
    document = Document(0, "a", "text")
    ours, theirs = (Ingestion(docs._target(), embedder) for _ in range(2))
    with docs.database.connection() as own:
        work = ours.prepare(own, [document])
        ours.embed(work)
        counted = Ingested(pruned_vectors=1, pruned_entries=2)
        theirs.run(own, [document], lambda _: None, counted)
        before = connection.execute("SELECT xmin::text FROM docs").fetchall()
        done = Ingested()
        ours.write(own, work, done)
        assert ours.prepare(own, [document]).unchanged == [Document(0, "a", "")]  # the text is held no longer
    assert done == Ingested(documents=1, unchanged=1)
    assert counted == Ingested(documents=1, chunks=1, pruned_vectors=1, pruned_entries=2)
    assert connection.execute("SELECT xmin::text FROM docs").fetchall() == before
    assert np.shape(work.pieces[0].batch.vectors) == (1, 64)
