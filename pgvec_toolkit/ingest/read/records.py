"""Documents from records: mappings with an id and a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from pgvec_toolkit.errors import ConfigurationError, InvalidRecord
from pgvec_toolkit.ingest.batch import identifier, settle
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.read.origin import Broken, Columns, Origin, unstorable

MADE_BY_INGEST = ("vector", "document_id", "position")


def from_records(records: Iterable[Any], origin: Origin) -> Iterator[Document | Unreadable]:
    """Read what an iterable yields: records, or documents that somebody else has read."""
    if not isinstance(records, Iterable) or isinstance(records, bytes):
        raise ConfigurationError(
            f"cannot read documents from a {type(records).__name__}: give a file or folder, a table, or an iterable "
            "of records"
        )
    return _read(records, origin)


def _read(records: Iterable[Any], origin: Origin) -> Iterator[Document | Unreadable]:
    for number, record in enumerate(records):
        if isinstance(record, Document | Unreadable):
            next(origin.numbers)
            yield record
        else:
            yield from_record(record, origin, "row", number)


def from_table(
    rows: Iterable[tuple[int, Mapping[str, Any] | Broken]], origin: Origin, unit: str
) -> Iterator[Document | Unreadable]:
    """Read numbered rows that all have the same columns; a `Broken` is a row that could not be read.

    Raises:
        Broken: columns are missing, in a file.
        ConfigurationError: columns are missing, in memory.
    """
    checked = False
    for number, row in rows:
        if isinstance(row, Broken):
            yield origin.unreadable_part(unit, number, str(row))
            continue
        if not checked and (problem := _wrong_columns(row, origin.columns)):
            raise ConfigurationError(f"the table {problem}") if origin.path is None else Broken(problem)
        checked = True
        yield from_record(row, origin, unit, number)


def _wrong_columns(row: Mapping[str, Any], columns: Columns) -> str | None:
    names = ", ".join(map(repr, row))
    if columns.id is not None and columns.id not in row:
        return (
            f"has no column {columns.id!r}: its columns are {names}. Name the one that tells documents apart "
            "(id=…, --id …), or have the rows numbered (id=None, --id '')"
        )
    for name in columns.text:
        if name not in row:
            return f"has no column {name!r}: its columns are {names}. Name the one to read (text=…, --text …)"
    for name in MADE_BY_INGEST:
        if name in row and name not in (columns.id, *columns.text):
            return f"has a column {name!r}, which is made by ingest: rename it; to write chunks as they are, use upsert"
    return None


def from_record(record: Any, origin: Origin, unit: str, number: int) -> Document | Unreadable:
    """Return a record as a document; every field but its id and its text becomes a column or metadata."""
    if not isinstance(record, Mapping):
        problem = f"a document is a mapping with id and text, not a {type(record).__name__}"
        return origin.unreadable_part(unit, number, problem)
    id = None
    try:
        fields = dict(zip(map(str, record), settle(record.values()), strict=True))
        id = _id(fields, origin, number)
        text = _text(fields, origin.columns.text)
        _settle_own_names(fields)
    except InvalidRecord as error:
        return origin.unreadable_part(unit, number, error.problem, error.field, id)
    return Document(next(origin.numbers), id, text, fields, source=origin.source)


def _id(fields: dict[str, Any], origin: Origin, number: int) -> str:
    name = origin.columns.id
    if name is None:
        return str(origin.part(number))
    value = fields.pop(name, None)
    if isinstance(value, UUID):
        value = str(value)
    elif isinstance(value, Decimal) and value.is_finite() and value == int(value):
        value = int(value)
    try:
        return identifier(value, number)
    except InvalidRecord as error:
        raise InvalidRecord(number, name, error.problem) from error


def _text(fields: dict[str, Any], names: tuple[str, ...]) -> str:
    """Take the text out of the fields; of several, those that there are, as paragraphs, and leave the title."""
    if len(names) == 1:
        (name,) = names
        text = fields.pop(name, None)
        if not isinstance(text, str):
            raise InvalidRecord(0, name, "is missing" if text is None else f"{text!r} is not a text")
    else:
        parts = {name: fields.pop(name, None) for name in names}
        name = next(iter(parts))
        text = "\n\n".join(str(part) for part in parts.values() if part is not None and part != "")
        if "title" in parts:  # what later chunks are to be embedded with, too
            fields["title"] = parts["title"]
        if not text:
            raise InvalidRecord(0, name, f"is missing, as are {', '.join(map(repr, names[1:]))}")
    if problem := unstorable(text):
        raise InvalidRecord(0, name, problem)
    return str(text)


def _settle_own_names(fields: dict[str, Any]) -> None:
    """Refuse fields that ingest makes; `id` and `text`, where others are the id and the text, are metadata."""
    for name in MADE_BY_INGEST:
        if name in fields:
            raise InvalidRecord(0, name, "is made by ingest; to write chunks as they are, use upsert")
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidRecord(0, "metadata", f"{metadata!r} is not a mapping")
    own = {name: value for name in ("id", "text") if (value := fields.pop(name, None)) is not None}
    if own:
        fields["metadata"] = {**own, **(metadata or {})}
