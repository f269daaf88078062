"""Queries, judgements and documents in the layout of BEIR, and runs in that of TREC."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError

Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade
Run = Mapping[str, Sequence[tuple[str, float]]]  # query id -> (document id, score), best first

_HEADER = ("query-id", "corpus-id", "score")


def read_queries(path: str | Path) -> dict[str, str]:
    """Read queries.jsonl: query id to text."""
    queries: dict[str, str] = {}
    for place, record in _json_lines(path):
        id, text = _id(record, place), _text(record, "text", place)
        if not text.strip():
            raise ConfigurationError(f"{place}: the text of query {id!r} is empty")
        if id in queries:
            raise ConfigurationError(f"{place}: query {id!r} is there already")
        queries[id] = text
    return queries


def read_corpus(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read corpus.jsonl as records for `Collection.ingest`; a text begins with its title, as BEIR embeds it."""
    for place, record in _json_lines(path):
        fields = {name: value for name, value in record.items() if name != "_id"} | {"id": _id(record, place)}
        text = _text(record, "text", place)
        title = "" if record.get("title") is None else _text(record, "title", place)
        yield fields | {"text": f"{title} {text}" if title else text}


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements: query id to document id to grade.

    Of BEIR: query-id, corpus-id, score, with or without that header; or of TREC, whose second column is not used.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, (place, line) in enumerate(_lines(path)):
        fields = _fields(line)
        if number == 0 and tuple(fields) == _HEADER:
            continue
        if len(fields) not in (3, 4):
            raise ConfigurationError(
                f"{place}: {len(fields)} columns; there are query-id, corpus-id, score, or TREC's four"
            )
        query, document, grade = fields[0], fields[-2], _grade(fields[-1], place)
        if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
            raise ConfigurationError(f"{place}: document {document!r} has another grade for query {query!r} already")
    return qrels


def read_run(path: str | Path) -> dict[str, list[tuple[str, float]]]:
    """Read a TREC run; documents come out by score, whatever the order of the lines and their ranks."""
    run: dict[str, dict[str, float]] = {}
    for place, line in _lines(path):
        fields = _fields(line)
        if len(fields) != 6:
            raise ConfigurationError(
                f"{place}: {len(fields)} columns; a run has six: query, Q0, document, rank, score, name"
            )
        query, _, document, _, score, _ = fields
        ranked = run.setdefault(query, {})
        if document in ranked:
            raise ConfigurationError(f"{place}: document {document!r} is ranked for query {query!r} already")
        try:
            ranked[document] = float(score)
        except ValueError as error:
            raise ConfigurationError(f"{place}: score {score!r} is not a number") from error
    return {query: sorted(ranked.items(), key=lambda pair: -pair[1]) for query, ranked in run.items()}


def write_queries(path: str | Path, queries: Mapping[str, str]) -> None:
    """Write queries.jsonl."""
    _write(path, (_json({"_id": id, "text": text}) for id, text in queries.items()))


def write_corpus(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write corpus.jsonl of records with `id`, `text` and perhaps `title`, which is cut off the texts it begins."""
    _write(path, map(_corpus_line, records))


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Write judgements in BEIR's three columns."""
    rows = ((query, document, str(grade)) for query, grades in qrels.items() for document, grade in grades.items())
    _write(path, map(_tabbed, (_HEADER, *rows)))


def write_run(path: str | Path, run: Run, name: str) -> None:
    """Write a TREC run under a name; columns are set apart by tabs, since ids may hold blanks."""
    rows = (
        (query, "Q0", document, str(rank), repr(float(score)), "-".join(name.split()))
        for query, ranked in run.items()
        for rank, (document, score) in enumerate(ranked, 1)
    )
    _write(path, map(_tabbed, rows))


# -- pieces ------------------------------------------------------------------------------------------


def _lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not blank, each after its place for messages."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def _json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, line in _lines(path):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{place}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ConfigurationError(f'{place}: not a JSON object, as {{"_id": "1", "text": "…"}}')
        yield place, record


def _id(record: Mapping[str, Any], place: str) -> str:
    id = record.get("_id")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise ConfigurationError(f"{place}: _id {'is missing' if id is None else f'{id!r} is not an id'}")
    return str(id)


def _text(record: Mapping[str, Any], field: str, place: str) -> str:
    text = record.get(field)
    if not isinstance(text, str):
        raise ConfigurationError(f"{place}: {field} {'is missing' if text is None else f'{text!r} is not a text'}")
    return text


def _grade(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigurationError(f"{place}: grade {text!r} is not a whole number") from error


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t")] if "\t" in line else line.split()


def _tabbed(fields: Sequence[str]) -> str:
    for field in fields:
        if not field or any(character in field for character in "\t\r\n"):
            raise ConfigurationError(f"id {field!r} cannot be written: it is empty, or holds a tab or a line break")
    return "\t".join(fields)


def _corpus_line(record: Mapping[str, Any]) -> str:
    title, text = record.get("title") or "", record.get("text") or ""
    text = text.removeprefix(f"{title} ") if title else text
    return _json({"_id": str(record["id"]), "title": title, "text": text})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write(path: str | Path, lines: Iterable[str]) -> None:
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
