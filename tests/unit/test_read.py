"""Documents from files, folders and records."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest

from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.read import documents, files, suffixes
from tests.reading import strictly


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def only(source: Path) -> Document:
    (document,) = strictly(documents(source))
    return document


def test_folder_is_read_in_one_order_with_its_sub_folders(tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    for name in ("b.md", "a/ü.txt", "A.MARKDOWN", "a/b/c.md"):
        write(folder, name, name)
    for name in (".hidden.md", ".git/x.md", "a/.cache/y.txt", "picture.png", "README", "~$c.docx", "node_modules/d.js"):
        write(folder, name, "not to be read")
    found = list(strictly(documents(folder)))
    expected = ["handbook/A.MARKDOWN", "handbook/a/b/c.md", "handbook/a/ü.txt", "handbook/b.md"]
    assert sorted(document.id for document in found) == expected
    assert [document.id for document in documents(str(folder))] == [document.id for document in found]
    assert [document.row for document in found] == [0, 1, 2, 3]


def test_folder_below_a_hidden_one_is_read(tmp_path: Path) -> None:
    write(tmp_path, ".data/docs/a.md", "text")
    assert only(tmp_path / ".data" / "docs").id == "docs/a.md"


def test_current_folder_gives_its_name_to_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "docs/a.md", "text")
    monkeypatch.chdir(tmp_path / "docs")
    assert only(Path()).id == "docs/a.md"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_front_matter_becomes_fields(tmp_path: Path, start: str, end: str) -> None:
    lines = ["---", "section: ops", "year: 2024", "when: 2024-02-29", "tags: [a, ü]", "---", "", "# Title", "", "Text"]
    document = only(write(tmp_path, "a.md", start + end.join(lines)))
    assert document.fields == {"section": "ops", "year": 2024, "when": dt.date(2024, 2, 29), "tags": ["a", "ü"]}
    assert document.text == "# Title\n\nText"
    assert document.format == "markdown"


@pytest.mark.parametrize(
    "content", ["", "# Title", "---", "---\nno end: of it", "text\n---\na: 1\n---\n", "---\n- a list\n---\nText"]
)
def test_without_front_matter_all_is_text(tmp_path: Path, content: str) -> None:
    document = only(write(tmp_path, "a.md", content))
    assert (document.text, document.fields) == (content, {})


def test_empty_front_matter_is_none(tmp_path: Path) -> None:
    assert only(write(tmp_path, "a.md", "---\n---\nText")).text == "Text"


def test_fields_of_our_own_names_in_front_matter_are_metadata(tmp_path: Path) -> None:
    content = "---\nid: intro\nposition: 3\ntext: x\nvector: y\nmetadata: {a: 1}\nsection: ops\n---\nText"
    document = only(write(tmp_path, "a.md", content))
    metadata = {"id": "intro", "position": 3, "text": "x", "vector": "y", "a": 1}
    assert document.fields == {"metadata": metadata, "section": "ops"}
    assert (document.id, document.text) == ("a.md", "Text")


def test_plain_text_has_no_front_matter(tmp_path: Path) -> None:
    document = only(write(tmp_path, "a.txt", "---\na: 1\n---\nText"))
    assert document.text.startswith("---")
    assert document.format == "text"


def test_json_lines_are_records(tmp_path: Path) -> None:
    lines = '{"id": 1, "text": "a\u2028b", "n": 5}\r\n\n{"id": "ü", "text": "", "metadata": {"x": null}}'
    first, second = strictly(documents(write(tmp_path, "a.jsonl", "\ufeff" + lines)))
    assert (first.id, first.text, first.fields) == ("1", "a\u2028b", {"n": 5})
    assert (second.id, second.text, second.fields) == ("ü", "", {"metadata": {"x": None}})


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"caf\xe9", "a.txt is not UTF-8"),
        ("a.md", "---\na: [1\n---\nText", "a.md: its front matter is not YAML"),
        ("a.md", "---\nmetadata: text\n---\nText", "a.md: metadata in its front matter is not a mapping"),
        ("a.jsonl", '{"id": "a", "text": "b"}\n{"id": ', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"id": "a", "text": "b"}\n\n{"text": "b"}', "a.jsonl, line 3: .*'id'.* is missing"),
        ("a.jsonl", '{"id": "a"}', "a.jsonl, line 1: .*'text'.* is missing"),
        ("a.jsonl", "[1]", "a.jsonl, line 1: .*a document is a mapping"),
        ("a.jsonl", '{"id": "\\u0000", "text": "b"}', "a.jsonl, line 1: .*'id'.* is not a text"),
        ("a.txt", b"nul\0", "a.txt contains a NUL"),
        ("a.zip", b"", "pgvec reads text"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(
    tmp_path: Path, name: str, content: str | bytes, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        list(strictly(documents(write(tmp_path, name, content))))


def test_folder_without_documents_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no"):
        list(documents(tmp_path))
    with pytest.raises(ConfigurationError, match="there is no file or folder"):
        list(documents(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"text": "a"}, "id"),
        ({"id": None, "text": "a"}, "id"),
        ({"id": "", "text": "a"}, "id"),
        ({"id": "nul\0", "text": "a"}, "id"),
        ({"id": True, "text": "a"}, "id"),
        ({"id": "a"}, "text"),
        ({"id": "a", "text": float("nan")}, "text"),
        ({"id": "a", "text": 5}, "text"),
        ({"id": "a", "text": "b", "vector": [1]}, "vector"),
        ({"id": "a", "text": "b", "document_id": "c"}, "document_id"),
        ({"id": "a", "text": "b", "position": 1}, "position"),
        ("text", ""),
    ],
)
def test_record_that_is_no_document_is_named(record: Any, field: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        list(strictly(documents([{"id": "good", "text": "x"}, record])))
    assert (caught.value.row, caught.value.field) == (1, field)
    good, bad, after = documents([{"id": "good", "text": "x"}, record, {"id": 7, "text": "y"}])
    assert (good.id, after.id, good.row, bad.row, after.row) == ("good", "7", 0, 1, 2)
    assert isinstance(bad, Unreadable)
    assert bad.reason == str(caught.value)
    assert bad.id == ("a" if isinstance(record, dict) and record.get("id") == "a" else "row 1")


@pytest.mark.parametrize("value", ["2020-13-45", "&a [*a]", "!!bool maybe", '!!int ""', "!!timestamp soon"])
def test_front_matter_of_impossible_values_is_named(tmp_path: Path, value: str) -> None:
    (found,) = documents(write(tmp_path, "a.md", f"---\na: {value}\n---\nText"))
    assert isinstance(found, Unreadable)
    assert "its front matter is not YAML" in found.reason


def test_what_no_reader_has_foreseen_costs_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> Any:
        raise LookupError("odd")

    monkeypatch.setitem(suffixes._READERS, ".rst", read)
    for name in ("a.rst", "b.txt"):
        write(tmp_path / "docs", name, "text")
    first, second = documents(tmp_path / "docs")
    assert isinstance(first, Unreadable)
    assert first.reason == "cannot be read (LookupError: odd): mend it, or leave it out"
    assert isinstance(second, Document)


def test_source_code_has_the_name_of_its_language(tmp_path: Path) -> None:
    for name in ("a.py", "b.tsx", "c.H", "d.rs", "e.cs", "f.rst"):
        write(tmp_path / "code", name, "x = 1")
    formats = [document.format for document in strictly(documents(tmp_path / "code"))]
    assert formats == ["python", "tsx", "c", "rust", "c_sharp", "text"]


def test_what_cannot_be_opened_is_told_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    write(folder, "a.txt", "text")
    (folder / "b.txt").symlink_to("nowhere")
    write(folder, "c.txt", "text")
    found = list(documents(folder))
    assert [each.id for each in found] == ["docs/a.txt", "docs/b.txt", "docs/c.txt"]
    assert [each.row for each in found] == [0, 1, 2]
    assert isinstance(found[1], Unreadable)
    assert (found[1].source, found[1].reason) == (folder / "b.txt", "is a link to nowhere, which is not there")


def test_a_file_that_goes_while_others_are_read_is_told(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        write(tmp_path / "docs", name, "text")
    found = documents(tmp_path / "docs")
    assert isinstance(next(found), Document)
    (tmp_path / "docs" / "b.txt").unlink()
    (gone,) = found
    assert isinstance(gone, Unreadable)
    assert "not any more" in gone.reason


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "docs", "a.txt", "text")
    write(tmp_path / "docs", "secret/b.txt", "text")
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # to the superuser no folder is closed
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [id for _, id in files(tmp_path / "docs")] == ["docs/a.txt", "docs/secret"]
    _, secret = documents(tmp_path / "docs")
    assert isinstance(secret, Unreadable)
    assert secret.reason == "cannot be read: Permission denied"


def test_documents_that_somebody_else_has_read_are_taken_as_they_are() -> None:
    given = [Document(0, "a", "text", {"n": 1}, "markdown"), Unreadable(1, "b", "is empty")]
    assert list(documents(iter(given))) == given
    with pytest.raises(ConfigurationError, match="b: is empty"):
        list(strictly(given))


@pytest.mark.parametrize("source", [5, b"text", None])
def test_what_holds_no_documents_is_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot read documents from"):
        documents(source)
