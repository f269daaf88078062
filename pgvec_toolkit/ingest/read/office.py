"""Files that a converter turns into text: HTML, PDF, DOCX, PPTX, XLSX."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pgvec_toolkit.ingest.document import Document
from pgvec_toolkit.ingest.read.converter import Converter
from pgvec_toolkit.ingest.read.origin import Broken, Origin

_WITHOUT_TEXT = {
    "pdf": "it may be a scan, which a program for text recognition can read, as ocrmypdf",
    "html": "it may come from a script, as a browser would run it",
}


def reader(kind: str) -> Callable[[Origin, Converter], Iterator[Document]]:
    """Return the reader of "html", "pdf", "docx", "pptx" or "xlsx"."""

    def read(origin: Origin, convert: Converter) -> Iterator[Document]:
        assert origin.path is not None
        if origin.path.stat().st_size == 0:
            raise Broken("is empty")
        text, fields = convert(origin.path, kind)
        if not text.strip():
            raise Broken(f"holds no text: {_WITHOUT_TEXT.get(kind, 'pictures only, perhaps')}")
        # A PDF has lines, but neither headings nor lists that are marked as such.
        yield origin.document(text, fields, "text" if kind == "pdf" else "markdown")

    return read
