"""A folder's documents are made equal to the folder, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.documents import Ingested
from tests.stored import there
from tests.words import WordEmbedder


class Acting(WordEmbedder):
    """An embedder that does something else while it embeds, once."""

    action: Any = None

    def embed_documents(self, texts: Sequence[str]) -> Any:
        action, self.action = self.action, None
        if action is not None:
            action()
        return super().embed_documents(texts)


@pytest.fixture
def embedder() -> Acting:
    return Acting()


@pytest.fixture
def docs(db: Database, embedder: Acting) -> Collection:
    return db.create_collection("docs", embedder=embedder, columns={"year": int}, keywords=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of five files, one in a folder below."""
    folder = tmp_path / "handbook"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", "deep/e.txt"):
        (folder / name).write_text(f"The text of {name}.")
    return folder


def in_folder(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {f"{folder.name}/{path.relative_to(folder).as_posix()}": path.read_text() for path in files}


def test_the_collection_becomes_the_folder(
    docs: Collection, embedder: Acting, connection: psycopg.Connection, folder: Path
) -> None:
    docs.ingest([{"id": "handbook/record", "text": "A record."}])
    first = docs.sync(folder)
    assert (first.added, first.updated, first.deleted, first.unchanged, first.failed) == (5, 0, 0, 0, [])
    (folder / "a.txt").unlink()
    (folder / "b.txt").write_text("Another text.")
    (folder / "f.txt").write_text("A new text.")
    shutil.rmtree(folder / "deep")
    embedder.embedded.clear()
    before = connection.execute("SELECT * FROM docs ORDER BY id").fetchall()
    plan = docs.sync(folder, dry_run=True)
    assert [(change.document_id, change.action, change.reason) for change in plan.changes] == [
        ("handbook/b.txt", "update", "has changed, or is ingested with other options"),
        ("handbook/f.txt", "add", "is new"),
        ("handbook/a.txt", "delete", "its file is gone"),
        ("handbook/deep/e.txt", "delete", "its file is gone"),
    ]
    assert connection.execute("SELECT * FROM docs ORDER BY id").fetchall() == before
    assert embedder.embedded == []
    done = docs.sync(folder)
    assert done.changes == plan.changes
    for counts in (plan, done):
        assert (counts.added, counts.updated, counts.deleted, counts.unchanged) == (1, 1, 2, 2)
    assert there(connection) == in_folder(folder) | {"handbook/record": "A record."}
    again = docs.sync(folder)
    assert (again.added, again.updated, again.deleted, again.unchanged, again.changes) == (0, 0, 0, 4, [])


def test_nothing_is_deleted_because_a_folder_is_not_there(
    docs: Collection, connection: psycopg.Connection, folder: Path
) -> None:
    docs.sync(folder)
    before = there(connection)
    folder.rename(folder.with_name("away"))
    with pytest.raises(ConfigurationError, match="not there: nothing was deleted"):
        docs.sync(folder, force=True)
    folder.mkdir()  # as a mount point is without its file system
    with pytest.raises(ConfigurationError, match="holds no"):
        docs.sync(folder, force=True)
    with pytest.raises(ConfigurationError, match="is not a folder: use ingest"):
        docs.sync(folder.with_name("away") / "a.txt")
    assert there(connection) == before


def test_most_of_a_folder_is_deleted_by_force_only(
    docs: Collection, connection: psycopg.Connection, folder: Path
) -> None:
    for number in range(15):
        (folder / f"more{number}.txt").write_text(f"More {number}.")
    docs.sync(folder)
    for number in range(11):
        (folder / f"more{number}.txt").unlink()
    (folder / "new.txt").write_text("New.")
    before = there(connection)
    plan = docs.sync(folder, dry_run=True)
    assert (plan.deleted, plan.needs_force) == (11, True)
    with pytest.raises(ConfigurationError, match=r"11 of the 20 documents.*--force"):
        docs.sync(folder)
    assert there(connection) == before
    (folder / "more10.txt").write_text("More 10.")  # 10 of 20 are not most
    assert docs.sync(folder).deleted == 10
    for path in list(folder.rglob("*.txt")):
        if path.name != "new.txt":
            path.unlink()
    with pytest.raises(ConfigurationError, match="10 of the 11"):
        docs.sync(folder)
    assert docs.sync(folder, force=True).deleted == 10
    assert there(connection) == in_folder(folder)


def test_few_documents_may_all_go(docs: Collection, connection: psycopg.Connection, folder: Path) -> None:
    docs.sync(folder)
    for path in list(folder.rglob("*.txt")):
        path.unlink()
    (folder / "new.txt").write_text("New.")
    assert docs.sync(folder).deleted == 5
    assert there(connection) == {"handbook/new.txt": "New."}


def test_what_other_ingestions_brought_stays(docs: Collection, connection: psycopg.Connection, folder: Path) -> None:
    other = folder.parent / "elsewhere" / "handbook"
    other.mkdir(parents=True)
    (other / "z.txt").write_text("Of another handbook.")
    docs.sync(other)
    docs.ingest(folder / "a.txt")
    docs.sync(folder / "deep")
    docs.sync(folder)
    before = there(connection)
    assert len(before) == 5 + 1 + 1 + 1
    assert docs.sync(folder).changes == []
    assert docs.sync(folder / "deep").changes == []
    assert docs.sync(other).changes == []
    (other / "a.txt").write_text("A namesake.")
    with pytest.raises(ConfigurationError, match="would replace"):
        docs.sync(other)
    assert there(connection) == before


def test_what_fails_keeps_what_it_had(docs: Collection, connection: psycopg.Connection, folder: Path) -> None:
    docs.sync(folder)
    (folder / "a.txt").rename(folder / "a.md")
    (folder / "a.md").write_text("---\nyear: last\n---\nText")
    docs.sync(folder)
    (folder / "b.md").write_text("---\nyear: 1\n---\nText of b")
    docs.sync(folder)
    (folder / "b.md").write_text("---\nyear: last\n---\nText")
    before = there(connection)
    done = docs.sync(folder)
    assert [one.document_id for one in done.failed] == ["handbook/a.md", "handbook/b.md"]
    assert Counter(change.action for change in done.changes) == {"fail": 2}
    assert there(connection) == before
    (folder / "a.md").unlink()
    (folder / "b.md").unlink()
    docs.sync(folder)
    assert docs.failures() == []
    assert there(connection) == in_folder(folder)


def test_records_of_files(docs: Collection, connection: psycopg.Connection, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [json.dumps({"id": f"r{number}", "text": f"Record {number}."}) for number in range(4)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "b.csv").write_text("id,text\nx,Text of x.\ny,Text of y.\n")
    assert docs.sync(folder).added == 6
    (folder / "a.jsonl").write_text("\n".join([lines[0], "{broken", lines[3]]))
    (folder / "b.csv").write_text("id,text\ny,Text of y.\n")
    done = docs.sync(folder)  # of the broken line it is not known which record it was
    assert [(change.document_id, change.action) for change in done.changes] == [
        ("data/a.jsonl:2", "fail"),
        ("x", "delete"),
    ]
    assert set(there(connection)) == {"r0", "r1", "r2", "r3", "y"}
    assert "is no longer in its file" in done.changes[1].reason
    (folder / "a.jsonl").write_text("\n".join([lines[0], lines[2], lines[3]]))
    assert docs.retry() == Ingested(documents=3, unchanged=3)
    assert docs.failures() == []
    (folder / "a.jsonl").rename(folder / "c.jsonl")  # the same records elsewhere are the same documents
    assert [change.document_id for change in docs.sync(folder).changes] == ["r1"]
    assert set(there(connection)) == {"r0", "r2", "r3", "y"}


def test_records_belong_to_the_folder_that_reads_their_file(
    docs: Collection, embedder: Acting, connection: psycopg.Connection, tmp_path: Path
) -> None:
    def write(path: str, *ids: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps({"id": id, "text": f"Text of {id}, in {path}."}) + "\n" for id in ids))
        return file

    docs.ingest(write("data/.cache/items.jsonl", "hidden"))
    write("data/a.jsonl", "r1", "r2")
    write("data/b.jsonl", "r2")
    record = {"id": "moved", "text": "text"}
    (tmp_path / "data" / "m.jsonl").write_text(json.dumps(record))
    (note,) = docs.sync(tmp_path / "data").ingested.notes
    assert "more than one document has id 'r2': the last one" in note
    assert docs.sync(tmp_path / "data", dry_run=True).ingested.notes == [note]

    def move() -> None:
        write("elsewhere/m.jsonl").write_text(json.dumps(record))
        docs.ingest(tmp_path / "elsewhere")

    (tmp_path / "data" / "m.jsonl").unlink()
    write("data/a.jsonl", "r1", "r3")
    embedder.action = move
    assert docs.sync(tmp_path / "data").deleted == 0
    assert set(there(connection)) == {"hidden", "moved", "r1", "r2", "r3"}


def test_what_cannot_be_read_keeps_what_it_had(
    docs: Collection, connection: psycopg.Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "target")
    (folder.parent / "target").write_text("Linked.")
    docs.sync(folder)
    before = there(connection)
    assert before["handbook/link.txt"] == "Linked."
    (folder / "a.txt").write_bytes(b"\xff\xfe\xff")
    (folder.parent / "target").unlink()
    listed, looked_at = os.scandir, Path.stat

    def closed(path: Any) -> Any:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    def not_entered(path: Path, **options: Any) -> Any:
        if path.parent.name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return looked_at(path, **options)

    monkeypatch.setattr(os, "scandir", closed)  # to root, no folder is closed
    monkeypatch.setattr(Path, "stat", not_entered)
    done = docs.sync(folder)
    assert sorted((one.document_id, one.stage) for one in done.failed) == [
        ("handbook/a.txt", "read"),
        ("handbook/deep", "read"),
        ("handbook/link.txt", "read"),
    ]
    assert there(connection) == before
    assert [one.attempts for one in docs.retry().failed] == [2, 2, 2]
    monkeypatch.undo()
    (folder / "deep" / "e.txt").rename(folder / "e.txt")
    (failure,) = docs.retry(["handbook/deep"]).failed
    assert "holds no file to read" in failure.error
    (folder / "e.txt").rename(folder / "deep" / "e.txt")
    (folder / "a.txt").write_text(before["handbook/a.txt"])
    assert docs.retry(["handbook/a.txt", "handbook/deep"]) == Ingested(documents=2, unchanged=2)
    (folder / "link.txt").unlink()
    assert [change.document_id for change in docs.sync(folder).changes] == ["handbook/link.txt"]
    assert docs.failures() == []


def test_a_folder_that_has_moved(docs: Collection, connection: psycopg.Connection, folder: Path) -> None:
    docs.sync(folder)
    moved = folder.parent / "archive" / "handbook"
    moved.parent.mkdir()
    folder.rename(moved)
    done = docs.sync(moved)
    assert (done.unchanged, done.changes) == (5, [])
    (moved / "a.txt").unlink()
    assert [(change.document_id, change.action) for change in docs.sync(moved).changes] == [
        ("handbook/a.txt", "delete")
    ]
    assert there(connection) == in_folder(moved)


def test_what_comes_back_meanwhile_is_not_deleted(
    docs: Collection, embedder: Acting, connection: psycopg.Connection, folder: Path
) -> None:
    docs.sync(folder)
    (folder / "a.txt").unlink()
    (folder / "new.txt").write_text("New.")

    def bring_back() -> None:
        (folder / "a.txt").write_text("Back, and changed.")
        docs.ingest(folder)

    embedder.action = bring_back
    done = docs.sync(folder)
    assert done.deleted == 0
    assert there(connection) == in_folder(folder)
