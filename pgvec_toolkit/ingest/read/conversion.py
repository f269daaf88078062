"""Text out of office files; runs in the process that `converter` starts."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Converted = tuple[str, dict[str, Any]]

_LARGEST_UNPACKED = 1 << 29  # bytes of XML; a tree of it takes some ten times that
_OLE = b"\xd0\xcf\x11\xe0"  # how Office files began before 2007, and how encrypted ones still do
_GIVEN_BY_PROGRAMS = ("PowerPoint Presentation", "Word Document")
_DAMAGED = "open it in the program that made it and save it anew, or leave it out"


class Unfit(Exception):
    """A file that cannot be read, said as it follows the name of a file."""


def serve(seconds: float) -> None:
    """Answer questions from standard input, one a line: [path, kind]; end if one takes longer than it may."""
    # What libraries print goes nowhere: only answers may be on the pipe.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    for line in sys.stdin:
        path, kind = json.loads(line)
        faulthandler.dump_traceback_later(seconds, exit=True)
        answer = json.dumps(_answer(Path(path), kind))
        faulthandler.cancel_dump_traceback_later()
        answers.write(answer + "\n")
        answers.flush()


def _answer(path: Path, kind: str) -> dict[str, Any]:
    try:
        text, fields = _KINDS[kind](path)
    except ImportError as error:
        return {"missing": (error.name or str(error)).partition(".")[0]}
    except Unfit as error:
        return {"broken": str(error)}
    except MemoryError:
        return {"broken": "cannot be read: there is not enough memory for it. Split it, or leave it out"}
    except Exception as error:  # whatever a library raises of a file that nobody has seen yet
        if isinstance(error, OSError) and error.errno is not None:
            return {"broken": f"cannot be read: {error.strerror}"}
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return {"broken": f"cannot be read as {kind.upper()} ({said}): {_DAMAGED}"}
    return {"text": text, "fields": {name: value for name, value in fields.items() if value}}


def _pdf(path: Path) -> Converted:
    import pypdfium2

    with path.open("rb") as file:
        if b"%PDF-" not in file.read(1024):
            raise Unfit(f"is not a PDF: {_DAMAGED}")
        # PDFium makes the best of half a file, and says nothing of the other half.
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        if b"%%EOF" not in file.read():
            raise Unfit("is cut off: the mark at the end of a PDF is not there. Copy it anew, or mend it (qpdf does)")
    try:
        pdf = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unfit("is encrypted: save a copy without password") from error
        raise
    with pdf:
        text = "\n\n".join(_pages(pdf))
        return _unwrapped(text), {"title": _line(pdf.get_metadata_value("Title")), "pages": len(pdf)}


def _pages(pdf: Any) -> Iterator[str]:
    for number in range(len(pdf)):
        page = pdf[number]
        try:
            text = page.get_textpage()
            yield text.get_text_range().strip()
            text.close()
        finally:
            page.close()


def _unwrapped(text: str) -> str:
    """Join lines of a PDF: where a word was hyphenated, and where a sentence goes on in lower case."""
    text = text.replace("\ufffe", "").replace("\0", "").replace("\r\n", "\n")  # U+FFFE: a hyphen and the line's end
    return re.sub(r"(?<=[^\s.!?:;])\n(?=(\w))", lambda match: " " if match[1].islower() else "\n", text)


def _docx(path: Path) -> Converted:
    title = _title(path)
    return _without_pictures(_markdown("DocxConverter", path)[0]), {"title": title}


def _pptx(path: Path) -> Converted:
    title = _title(path)
    text = re.sub(r"<!-- Slide number: \d+ -->\n?", "", _markdown("PptxConverter", path)[0])
    return _without_pictures(text), {"title": title}


def _html(path: Path) -> Converted:
    text, title = _markdown("HtmlConverter", path)
    return text, {"title": _line(title)}


def _markdown(converter: str, path: Path) -> tuple[str, str | None]:
    # Not MarkItDown itself: of what is broken it makes a text file, if it finds nothing better.
    from markitdown import MissingDependencyException, StreamInfo, converters

    with path.open("rb") as file:
        try:
            result = getattr(converters, converter)().convert(file, StreamInfo(extension=path.suffix.lower()))
        except MissingDependencyException as error:
            raise ImportError(name=f"markitdown[{path.suffix[1:].lower()}]") from error
    return result.markdown, result.title


def _without_pictures(text: str) -> str:
    """Leave of pictures what they are called: they themselves stay in the file."""
    return re.sub(r"!\[([^\]\n]*)\]\([^)\n]*\)", r"\1", text).strip()


def _xlsx(path: Path) -> Converted:
    from openpyxl import load_workbook

    title = _title(path)
    workbook = load_workbook(path, read_only=True, data_only=True)
    try:
        sheets = [(sheet.title, list(_rows(sheet))) for sheet in workbook.worksheets]
    finally:
        workbook.close()
    tables = [f"## {name}\n\n" + "\n".join(_table(rows)) for name, rows in sheets if rows]
    return "\n\n".join(tables), {"title": title}


def _rows(sheet: Any) -> Iterator[list[str]]:
    sheet.reset_dimensions()  # some programs claim a million rows of 16,384 columns each
    for row in sheet.iter_rows(values_only=True):
        cells = ["" if cell is None else _line(str(cell)).replace("|", "\\|") for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield cells


def _table(rows: list[list[str]]) -> Iterator[str]:
    """Write rows as a Markdown table with the first one as its head."""
    width = max(map(len, rows))
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row + [''] * (width - len(row)))} |"
        if number == 0:
            yield "|" + " --- |" * width


def _title(path: Path) -> str:
    """Return the title in the properties of an Office file, of which it makes sure that it is one."""
    with path.open("rb") as file:
        if file.read(4) == _OLE:
            suffix = path.suffix.lower()
            raise Unfit(f"is encrypted, or of the time before {suffix}: save a copy as {suffix} without password")
    with zipfile.ZipFile(path) as package:
        unpacked = sum(part.file_size for part in package.infolist() if part.filename.endswith((".xml", ".rels")))
        if unpacked > _LARGEST_UNPACKED:
            raise Unfit(f"unpacks to {unpacked >> 20:,} MB of XML, which is too much: split it, or leave it out")
        if "docProps/core.xml" not in package.namelist():
            return ""
        properties = ElementTree.fromstring(package.read("docProps/core.xml"))
    title = _line(properties.findtext("{http://purl.org/dc/elements/1.1/}title"))
    return "" if title in _GIVEN_BY_PROGRAMS else title


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


_KINDS: dict[str, Callable[[Path], Converted]] = {
    "pdf": _pdf,
    "docx": _docx,
    "pptx": _pptx,
    "xlsx": _xlsx,
    "html": _html,
}
