"""Which documents of the ledger belong to a file or a folder."""

from __future__ import annotations

from pathlib import Path


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

    One with an id of its own is; of others the id tells whether the file, or a folder above or below was ingested.
    """
    tail = file_id(id, source)
    return tail is None or tail == f"{folder.name}/{source.relative_to(folder).as_posix()}"
