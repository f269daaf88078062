"""A folder of files of all kinds, some of them broken, each in its own way."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import docx
import openpyxl
import pptx
import pyarrow as pa
from fpdf import FPDF
from pyarrow import parquet

Broken = tuple[str, bytes, str]  # the suffix, the content, what the reason says


def sentence(number: int) -> str:
    """Return a text that no other number has."""
    return f"Parcel {number} of Ålesund was weighed, sealed and sent on to depot {number * 7919 % 1000}."


def pdf(text: str, password: str | None = None) -> bytes:
    """Return a PDF of one page."""
    document = FPDF()
    document.set_title("On parcels")
    document.add_page()
    document.set_font("Helvetica", size=12)
    if text:
        document.multi_cell(0, text=text)
    if password:
        document.set_encryption(owner_password=password, user_password=password)
    return bytes(document.output())


def docx_file(text: str) -> bytes:
    """Return a Word file with a heading, a paragraph and a table."""
    document, out = docx.Document(), io.BytesIO()
    document.core_properties.title = "On parcels"
    for style in list(document.styles):  # of which there are a thousand, and each is read
        if style.name not in ("Normal", "Heading 1"):
            style.delete()
    if text:
        document.add_heading("Parcels", 1)
        document.add_paragraph(text)
        document.add_table(1, 2).rows[0].cells[0].text = "weight"
    document.save(out)
    return out.getvalue()


def pptx_file(text: str) -> bytes:
    """Return a presentation of one slide."""
    presentation, out = pptx.Presentation(), io.BytesIO()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = text
    presentation.save(out)
    return out.getvalue()


def xlsx(text: str) -> bytes:
    """Return a workbook of one sheet."""
    workbook, out = openpyxl.Workbook(), io.BytesIO()
    workbook.active.append(["depot", "note"])
    workbook.active.append([7, text])
    workbook.save(out)
    return out.getvalue()


def csv_file(rows: list[tuple[str, str]]) -> bytes:
    """Return a CSV file with header."""
    out = io.StringIO()
    csv.writer(out).writerows([("id", "text"), *rows])
    return out.getvalue().encode()


def parquet_file(rows: list[tuple[str, str]]) -> bytes:
    """Return a Parquet file."""
    out = io.BytesIO()
    parquet.write_table(pa.table({"id": [id for id, _ in rows], "text": [text for _, text in rows]}), out)
    return out.getvalue()


def json_lines(rows: list[tuple[str, str]]) -> bytes:
    """Return a JSON Lines file."""
    return "".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in rows).encode()


WHOLE: dict[str, Callable[[str], bytes]] = {
    ".txt": str.encode,
    ".md": lambda text: f"---\nsection: depot\n---\n# Parcels\n\n{text}\n".encode(),
    ".html": lambda text: f"<html><head><title>On parcels</title></head><body><p>{text}</p></body></html>".encode(),
    ".py": lambda text: f'"""{text}"""\n'.encode(),
    ".ts": lambda text: f"// {text}\n".encode(),
    ".rs": lambda text: f"// {text}\n".encode(),
    ".pdf": pdf,
    ".docx": docx_file,
    ".pptx": pptx_file,
    ".xlsx": xlsx,
}
TABLES: dict[str, Callable[[list[tuple[str, str]]], bytes]] = {
    ".csv": csv_file,
    ".jsonl": json_lines,
    ".parquet": parquet_file,
}


def damaged(package: bytes) -> bytes:
    """Return an Office file with a byte of its largest part turned round."""
    with zipfile.ZipFile(io.BytesIO(package)) as files:
        largest = max(files.infolist(), key=lambda part: part.compress_size if part.filename.endswith(".xml") else 0)
    position = largest.header_offset + 30 + len(largest.filename) + largest.compress_size // 2
    return package[:position] + bytes([package[position] ^ 0xFF]) + package[position + 1 :]


def without(package: bytes, name: str) -> bytes:
    """Return an Office file that lacks a part."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as files, zipfile.ZipFile(out, "w") as fewer:
        for part in files.namelist():
            if part != name:
                fewer.writestr(part, files.read(part))
    return out.getvalue()


def broken_files() -> list[Broken]:
    """Return files that cannot be read at all, each with a word of the reason that is to be given."""
    word, deck, sheet = docx_file(sentence(1)), pptx_file(sentence(2)), xlsx(sentence(3))
    table = parquet_file([("a", sentence(4))])
    return [
        (".txt", "Ålesund".encode("latin-1"), "not UTF-8"),
        (".txt", "Ålesund".encode("utf-16"), "not UTF-8"),
        (".txt", b"half\0binary", "NUL"),
        (".md", b"---\nsection: [depot\n---\nText", "not YAML"),
        (".md", b"---\nmetadata: depot\n---\nText", "not a mapping"),
        (".py", b"name = '\xe9'", "not UTF-8"),
        (".html", b"", "is empty"),
        (".html", b"<html><script>draw()</script></html>", "no text"),
        (".pdf", b"", "is empty"),
        (".pdf", pdf(sentence(5))[:-500], "cut off"),
        (".pdf", b"<html>404</html>", "not a PDF"),
        (".pdf", b"%PDF-1.7\nnothing\n%%EOF\n", "cannot be read as PDF"),
        (".pdf", pdf(sentence(6), password="secret"), "encrypted"),
        (".pdf", pdf(""), "no text"),
        (".docx", b"", "is empty"),
        (".docx", word[: len(word) // 2], "cannot be read as DOCX"),
        (".docx", damaged(word), "cannot be read as DOCX"),
        (".docx", without(word, "word/document.xml"), "cannot be read as DOCX"),
        (".docx", b"\xd0\xcf\x11\xe0" + bytes(500), "encrypted"),
        (".docx", docx_file(""), "no text"),
        (".docx", b"just text", "cannot be read as DOCX"),
        (".pptx", deck[:1000], "cannot be read as PPTX"),
        (".pptx", without(deck, "ppt/presentation.xml"), "cannot be read as PPTX"),
        (".xlsx", sheet[:-30], "cannot be read as XLSX"),
        (".xlsx", without(sheet, "xl/workbook.xml"), "cannot be read as XLSX"),
        (".xlsx", word, "cannot be read as XLSX"),
        (".jsonl", b"", "is empty"),
        (".csv", b"number,note\n1,x\n", "no column 'id'"),
        (".csv", b"id,text,text\n1,x,y\n", "more than one column"),
        (".csv", sheet, "UTF-8"),
        (".parquet", table[:-8], "cannot be read as Parquet"),
        (".parquet", b"PAR1", "cannot be read as Parquet"),
        (".parquet", b"", "is empty"),
        (".arrow", b"ARROW1\0\0", "cannot be read as Arrow"),
    ]


# Tables of which lines are broken, and the rest is to be read: the ids of the rest, the broken lines and the reasons.
BROKEN_LINES: list[tuple[str, bytes, list[str], dict[int, str]]] = [
    (
        ".jsonl",
        b'{"id": "j1", "text": "x"}\n{"id": "j2", "te\n{"id": "j3", "text": "y"}\n',
        ["j1", "j3"],
        {2: "not JSON"},
    ),
    (".jsonl", b'{"id": "j4", "text": "\xe9"}\n{"id": "j5", "text": "y"}\n', ["j5"], {1: "not UTF-8"}),
    (".jsonl", b'{"text": "x"}\n[1]\n{"id": "j6", "text": "y"}\n', ["j6"], {1: "'id'", 2: "a mapping"}),
    (".csv", b'id,text\nc1,x\nc2,"y\nc3,z\nc4,"an ""inch"""\n', ["c1", "c3", "c4"], {3: "not CSV"}),
    (".csv", b"id,text\nc5,x,y\nc6,\xe9\nc7,z\n", ["c7"], {2: "3 cells", 3: "not UTF-8"}),
]


def build(folder: Path, files: int = 60, broken: int = 41) -> tuple[set[str], dict[str, str]]:
    """Fill a folder with files of all kinds, some of them broken.

    Returns:
        The ids of all documents that can be read, and of each that cannot a part of the reason.
    """
    readable: set[str] = set()
    reasons: dict[str, str] = {}
    folder.mkdir()
    ways = _ways_to_break()
    for number in range(broken):
        name = f"broken{number:03}"
        next(ways)(folder, name, readable, reasons)
    kinds = cycle([*WHOLE, *TABLES])
    for number, suffix in enumerate(islice(kinds, files - broken)):
        path = folder / f"part{number % 7}" / f"whole{number:03}{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix in TABLES:
            rows = [(f"{suffix}{number}-{row}", sentence(number + row)) for row in range(3)]
            path.write_bytes(TABLES[suffix](rows))
            readable.update(id for id, _ in rows)
        else:
            path.write_bytes(WHOLE[suffix](sentence(number)))
            readable.add(f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return readable, reasons


def _ways_to_break() -> Iterator[Callable[[Path, str, set[str], dict[str, str]], None]]:
    """Yield functions that write a broken file each: all the ways there are, over and over."""

    def whole(suffix: str, content: bytes, reason: str) -> Callable[[Path, str, set[str], dict[str, str]], None]:
        def write(folder: Path, name: str, _: set[str], reasons: dict[str, str]) -> None:
            (folder / f"{name}{suffix}").write_bytes(content)
            reasons[f"{folder.name}/{name}{suffix}"] = reason

        return write

    def lines(
        suffix: str, content: bytes, ids: list[str], broken: dict[int, str]
    ) -> Callable[[Path, str, set[str], dict[str, str]], None]:
        def write(folder: Path, name: str, readable: set[str], reasons: dict[str, str]) -> None:
            (folder / f"{name}{suffix}").write_bytes(content)
            readable.update(ids)
            reasons.update({f"{folder.name}/{name}{suffix}:{line}": reason for line, reason in broken.items()})

        return write

    def dangling(folder: Path, name: str, _: set[str], reasons: dict[str, str]) -> None:
        (folder / f"{name}.md").symlink_to(folder / "nowhere.md")
        reasons[f"{folder.name}/{name}.md"] = "not there"

    def closed(folder: Path, name: str, _: set[str], reasons: dict[str, str]) -> None:
        path = folder / f"{name}.txt"
        if os.geteuid() == 0:  # to whom no file is closed; this one has nothing where it begins
            path.symlink_to("/proc/self/mem")
        else:
            path.write_text("secret")
            path.chmod(0)
        reasons[f"{folder.name}/{name}.txt"] = "cannot be read"

    ways = [whole(*file) for file in broken_files()] + [lines(*file) for file in BROKEN_LINES] + [dangling, closed]
    return cycle(ways)
