"""Which documents of the ledger belong to a file or a folder."""

from __future__ import annotations

from pathlib import Path

_MADE_BY_PROGRAMS = ("node_modules", "__pycache__")  # installed and made by programs, not written by anybody


def is_passed_over(name: str) -> bool:
    """Tell whether a file or folder of this name is passed over when the folder above it is read."""
    # ~$report.docx is how Office says that somebody has report.docx open.
    return name.startswith((".", "~$")) or name in _MADE_BY_PROGRAMS


def is_there(source: str | Path) -> bool:
    """Tell whether a file is there; one in a folder that may not be entered is taken to be."""
    try:
        return Path(source).exists()
    except OSError:
        return True


def file_id(id: str, source: Path) -> str | None:
    """Return the id of the file that a document's id is made of, alone or with a row's number; None: of no file."""
    for length in range(1, len(source.parts)):
        tail = "/".join(source.parts[-length:])
        if id == tail or (id.startswith(f"{tail}:") and id[len(tail) + 1 :].isdecimal()):
            return tail
    return None


def root_of(id: str, source: Path) -> Path | None:
    """Return the folder whose ingestion gave a document its id; None if it has one of its own, or its file's name."""
    tail = file_id(id, source)
    if tail is None or "/" not in tail:
        return None
    return source.parents[tail.count("/") - 1]


def belongs(id: str, source: Path, folder: Path) -> bool:
    """Tell whether a document that was read from a file below a folder is one of that folder's ingestion.

    One with an id of its own is if the file is among those that are read; of others the id tells whether the file, or
    a folder above or below was ingested.
    """
    tail, below = file_id(id, source), source.relative_to(folder)
    if tail is None:
        return not any(map(is_passed_over, below.parts))
    return tail == f"{folder.name}/{below.as_posix()}"
