"""Which file is read how: the one list of suffixes; and which files a folder holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.read import office, tables, text
from pgvec_toolkit.ingest.read.converter import Converter
from pgvec_toolkit.ingest.read.origin import Broken, Origin
from pgvec_toolkit.ingest.sources import is_passed_over

Reader = Callable[[Origin, Converter], Iterator[Document | Unreadable]]

# Languages of programs, named as the grammars of tree-sitter are.
LANGUAGES = {
    "bash": ".sh .bash",
    "c": ".c .h",
    "c_sharp": ".cs",
    "cpp": ".cpp .cc .cxx .hpp .hh .hxx",
    "go": ".go",
    "haskell": ".hs",
    "java": ".java",
    "javascript": ".js .mjs .cjs .jsx",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "php": ".php",
    "python": ".py .pyi",
    "ruby": ".rb",
    "rust": ".rs",
    "scala": ".scala",
    "sql": ".sql",
    "swift": ".swift",
    "tsx": ".tsx",
    "typescript": ".ts .mts .cts",
}
_READERS: dict[str, Reader] = {
    **dict.fromkeys((".txt", ".text", ".rst", ".adoc", ".org", ".tex"), text.as_written("text")),
    **dict.fromkeys((".md", ".markdown"), text.markdown),
    **{suffix: text.as_written(name) for name, suffixes in LANGUAGES.items() for suffix in suffixes.split()},
    **dict.fromkeys((".html", ".htm", ".xhtml"), office.reader("html")),
    **{f".{kind}": office.reader(kind) for kind in ("pdf", "docx", "pptx", "xlsx")},
}
_TABLES: dict[str, Reader] = {
    ".csv": tables.csv_file,
    ".tsv": tables.tsv_file,
    **dict.fromkeys((".jsonl", ".ndjson"), tables.json_lines),
    ".parquet": tables.parquet_file,
    **dict.fromkeys((".arrow", ".feather"), tables.arrow_file),
}
SUFFIXES = (*_READERS, *_TABLES)
SAID = (
    "text (.txt, .md, .rst, …), source code, .html, .pdf, .docx, .pptx, .xlsx, .csv, .tsv, .jsonl, .parquet, .arrow "
    "and .feather"
)


def reader(path: Path) -> Reader:
    """Return what reads a file."""
    if path.is_dir() or not path.exists():
        return _nothing_to_read
    suffix = path.suffix.lower()
    return _READERS.get(suffix) or _TABLES[suffix]


def holds_many(path: Path) -> bool:
    """Tell whether a file holds any number of documents, as a table does."""
    return path.suffix.lower() in _TABLES


def files(source: Path, root: Path | None = None) -> list[tuple[Path, str]]:
    """Return the files to read, in a fixed order, with the document id of each: its path from the folder on.

    Ids are those of `root`, a folder above, if it is given.
    A folder that cannot be listed, and a link to nothing, are among them, as they will be unreadable.
    """
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise ConfigurationError(f"cannot read {source}: pgvec reads {SAID}")
        return [(source, source.name if root is None else f"{root.name}/{source.relative_to(root).as_posix()}")]
    if not source.is_dir():
        raise ConfigurationError(f"there is no file or folder {source}")
    folder = source.resolve()
    root = folder if root is None else root
    found = sorted(_below(folder))
    if not found:
        raise ConfigurationError(f"folder {source} holds no file to read: pgvec reads {SAID}")
    return [(path, f"{root.name}/{path.relative_to(root).as_posix()}") for path in found]


def _below(root: Path) -> Iterator[Path]:
    closed: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = [name for name in folders if not is_passed_over(name)]
        for name in names:
            path = Path(folder, name)
            known = path.suffix.lower() in SUFFIXES and not is_passed_over(name)
            if known and _is_one(path):
                yield path
    yield from closed


def _is_one(path: Path) -> bool:
    try:
        return path.is_file() or (path.is_symlink() and not path.exists())
    except OSError:  # in a folder that may be listed, and not entered: it is told when it is read
        return True


def _nothing_to_read(origin: Origin, _: Converter) -> Iterator[Document | Unreadable]:
    assert origin.path is not None
    if origin.path.is_dir():
        os.scandir(origin.path).close()  # says why it cannot be listed
    elif origin.path.is_symlink():
        raise Broken(f"is a link to {os.readlink(origin.path)}, which is not there")
    raise Broken("was there a moment ago, and is not any more: run it again")
