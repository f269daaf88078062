"""Documents from files and records: .txt, .md with front matter, .jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.batch import identifier, settle
from pgvec_toolkit.ingest.document import Document

SUFFIXES = (".txt", ".md", ".markdown", ".jsonl")
_MADE_BY_INGEST = ("vector", "document_id", "position")


def documents(source: str | Path | Iterable[Mapping[str, Any]], *, root: Path | None = None) -> Iterator[Document]:
    """Read documents from a file, from a folder with all its sub-folders, or from records with `id` and `text`.

    A file gets the id that it has when `root`, a folder above it, is read.
    """
    if isinstance(source, str | Path):
        for row, (file, id) in enumerate(files(Path(source), root)):
            yield from _read_file(file, id, row)
    else:
        for row, record in enumerate(source):
            yield _from_record(record, row)


def files(source: Path, root: Path | None = None) -> list[tuple[Path, str]]:
    """Return the files to read, in a fixed order, with the document id of each."""
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise ConfigurationError(f"cannot read {source}: pgvec reads {', '.join(SUFFIXES)}")
        return [(source, source.name if root is None else f"{root.name}/{source.relative_to(root).as_posix()}")]
    if not source.is_dir():
        raise ConfigurationError(f"there is no file or folder {source}")
    root = source.resolve()
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not _hidden(path, root)
    )
    if not found:
        raise ConfigurationError(f"folder {source} holds no {', '.join(SUFFIXES)} file")
    return [(path, f"{root.name}/{path.relative_to(root).as_posix()}") for path in found]


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _read_file(file: Path, id: str, row: int) -> Iterator[Document]:
    try:
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 text: {error}. Convert it, or leave it out") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    if file.suffix.lower() == ".jsonl":
        yield from _json_lines(file, content)
        return
    fields: dict[str, Any] = {}
    if file.suffix.lower() != ".txt":
        fields, content = split_front_matter(content, str(file))
        if not isinstance(fields.get("metadata", {}), dict):
            raise ConfigurationError(f"{file}: metadata in its front matter is not a mapping")
        # Site generators have keys of these names; here they are no more than metadata.
        own = {name: fields.pop(name) for name in ("id", "text", *_MADE_BY_INGEST) if name in fields}
        if own:
            fields["metadata"] = own | fields.get("metadata", {})
    format = "text" if file.suffix.lower() == ".txt" else "markdown"
    yield Document(row, id, content, fields, format, source=file.resolve())


def _json_lines(file: Path, content: str) -> Iterator[Document]:
    for number, line in enumerate(content.split("\n")):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigurationError(f"{file}, line {number + 1}: not JSON: {error}") from error
            try:
                yield _from_record(record, number)
            except InvalidRecord as error:
                raise ConfigurationError(f"{file}, line {number + 1}: {error}") from error


def _from_record(record: Mapping[str, Any], row: int) -> Document:
    if not isinstance(record, Mapping):
        raise InvalidRecord(row, "", f"a document is a mapping with id and text, not a {type(record).__name__}")
    fields = dict(record)
    id, text = settle([fields.pop("id", None), fields.pop("text", None)])
    id = identifier(id, row)
    if not isinstance(text, str):
        raise InvalidRecord(row, "text", "is missing" if text is None else f"{text!r} is not a text")
    for own in _MADE_BY_INGEST:
        if own in fields:
            raise InvalidRecord(row, own, "is made by ingest; to write chunks as they are, use upsert")
    return Document(row, id, text, fields)


def split_front_matter(content: str, name: str) -> tuple[dict[str, Any], str]:
    """Split YAML front matter from a Markdown text."""
    if not content.startswith("---\n") and not content.startswith("---\r\n"):
        return {}, content
    head, separator, body = content[3:].partition("\n---")
    if not separator:
        return {}, content
    try:
        fields = yaml.safe_load(head) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2020-13-45
        raise ConfigurationError(f"{name}: its front matter is not YAML: {error}") from error
    if not isinstance(fields, dict):
        return {}, content
    return _text_keys(fields), body.partition("\n")[2].lstrip()


def _text_keys(value: Any) -> Any:
    """Make all keys texts, as JSON has them: YAML reads 2024-01-01: and 42: as dates and numbers."""
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value
