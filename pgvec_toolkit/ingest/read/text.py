"""Files that are text: plain, Markdown with front matter, source code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import yaml

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.document import Document
from pgvec_toolkit.ingest.read.converter import Converter
from pgvec_toolkit.ingest.read.origin import Broken, Origin
from pgvec_toolkit.ingest.read.records import MADE_BY_INGEST

NOT_UTF8 = "is not UTF-8 text: {}. Convert it (iconv does), or leave it out"


def as_written(format: str) -> Callable[[Origin, Converter], Iterator[Document]]:
    """Return a reader of files whose text stays as it is: "text", or the name of a programming language."""

    def read(origin: Origin, _: Converter) -> Iterator[Document]:
        yield origin.document(_content(origin), {}, format)

    return read


def markdown(origin: Origin, _: Converter) -> Iterator[Document]:
    """Read Markdown; its front matter becomes columns and metadata."""
    try:
        fields, text = _front_matter(_content(origin))
    except ValueError as error:
        raise Broken(str(error), ConfigurationError(f"{origin.path}: {error}")) from error
    if not isinstance(fields.get("metadata", {}), dict):
        problem = "metadata in its front matter is not a mapping"
        raise Broken(problem, ConfigurationError(f"{origin.path}: {problem}"))
    # Site generators have keys of these names; here they are no more than metadata.
    own = {name: fields.pop(name) for name in ("id", "text", *MADE_BY_INGEST) if name in fields}
    if own:
        fields["metadata"] = own | fields.get("metadata", {})
    yield origin.document(text, fields, "markdown")


def _content(origin: Origin) -> str:
    assert origin.path is not None
    try:
        return origin.path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Broken(NOT_UTF8.format(error)) from error


def _front_matter(content: str) -> tuple[dict[str, Any], str]:
    """Split YAML front matter from a Markdown text; raises ValueError if it is not YAML."""
    if not content.startswith("---\n") and not content.startswith("---\r\n"):
        return {}, content
    head, separator, body = content[3:].partition("\n---")
    if not separator:
        return {}, content
    try:
        fields = _text_keys(yaml.safe_load(head) or {})
    except Exception as error:  # ValueError of 2020-13-45, KeyError of !!bool maybe, what else PyYAML lets through
        said = " ".join(str(error).split())
        raise ValueError(f"its front matter is not YAML: {said}. Mend it, or take it out") from error
    if not isinstance(fields, dict):
        return {}, content
    return fields, body.partition("\n")[2].lstrip()


def _text_keys(value: Any) -> Any:
    """Make all keys texts, as JSON has them: YAML reads 2024-01-01: and 42: as dates and numbers."""
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value
