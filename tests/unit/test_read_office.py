"""Documents from HTML, PDF and Office files, by way of the process that reads them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("fpdf")
pytest.importorskip("markitdown")

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest.document import Document, Unreadable
from pgvec_toolkit.ingest.read import documents
from pgvec_toolkit.ingest.read.conversion import _unwrapped
from pgvec_toolkit.ingest.read.converter import Converter
from pgvec_toolkit.ingest.read.origin import Broken
from tests import mixed_folder


def test_a_folder_of_mixed_files_is_read_but_for_what_is_broken(tmp_path: Path) -> None:
    given = os.environ.get("PGVEC_MIXED_FILES")
    readable, reasons = mixed_folder.build(tmp_path / "mixed", *((int(given), 40) if given else ()))
    found = list(documents(tmp_path / "mixed"))
    assert [each.row for each in found] == list(range(len(found)))
    read = {each.id: each for each in found if isinstance(each, Document)}
    unread = {each.id: each.reason for each in found if isinstance(each, Unreadable)}
    assert len(found) == len(read) + len(unread)
    assert (read.keys(), unread.keys()) == (readable, reasons.keys())
    assert {id: reason for id, reason in unread.items() if reasons[id] not in reason} == {}
    assert len({reason.partition(" (")[0] for reason in unread.values()}) >= 12

    by_suffix = {Path(id).suffix: document for id, document in read.items() if "whole" in id}
    assert {suffix: document.format for suffix, document in by_suffix.items()} == {
        **dict.fromkeys((".md", ".html", ".docx", ".pptx", ".xlsx"), "markdown"),
        **{".txt": "text", ".pdf": "text", ".py": "python", ".ts": "typescript", ".rs": "rust"},
    }
    for suffix, document in by_suffix.items():
        assert "Ålesund was weighed, sealed and sent on to depot" in document.text, suffix
    assert by_suffix[".pdf"].fields == {"title": "On parcels", "pages": 1}
    assert by_suffix[".docx"].fields == by_suffix[".html"].fields == {"title": "On parcels"}
    assert by_suffix[".docx"].text.startswith("# Parcels\n\nParcel ")
    assert by_suffix[".docx"].text.endswith("| weight |  |")
    assert by_suffix[".pptx"].text.startswith("# Parcel ")
    assert by_suffix[".xlsx"].text.startswith("## Sheet\n\n| depot | note |\n| --- | --- |\n| 7 | Parcel ")


def test_lines_of_a_pdf_are_joined_where_a_sentence_goes_on() -> None:
    text = "1 Headline\r\nThe man\ufffeagement of\r\nparcels, and\r\nof depots.\r\nmodes: a\r\n• one\r\nTwo"
    assert _unwrapped(text) == "1 Headline\nThe management of parcels, and of depots.\nmodes: a\n• one\nTwo"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that is never at its end")
def test_a_file_without_end_costs_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless.pdf")
    with Converter(seconds=0.1) as converter:
        with pytest.raises(Broken, match=r"after 0\.1 seconds there was no end to it"):
            converter(tmp_path / "endless.pdf", "pdf")
        assert converter._process is None


def test_another_end_of_the_process_is_not_taken_for_a_long_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Converter(seconds=-1.0) as converter, pytest.raises(Broken, match=r"crashed \(exit code 70\)"):
        converter(tmp_path / "a.pdf", "pdf")
    for seconds in ("soon", "0", "nan"):
        monkeypatch.setenv("PGVEC_READ_SECONDS", seconds)
        with pytest.raises(ConfigurationError, match=f"PGVEC_READ_SECONDS is '{seconds}'"):
            Converter()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that waits to be opened")
def test_a_crash_costs_the_file_that_was_being_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(mixed_folder.pdf("Text"))
    os.mkfifo(tmp_path / "deadly.pdf")
    with Converter() as converter:
        expected = converter(tmp_path / "a.pdf", "pdf")
        process = converter._process
        assert process is not None

        def kill() -> None:
            with (tmp_path / "deadly.pdf").open("wb"):  # waits until the process opens it, too
                os.kill(process.pid, signal.SIGSEGV)

        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(Broken, match=r"crashed \(signal 11\)"):
            converter(tmp_path / "deadly.pdf", "pdf")
        assert converter(tmp_path / "a.pdf", "pdf") == expected
        assert converter._process is not None
        converter._process.kill()  # between two files it costs none
        converter._process.wait()
        assert converter(tmp_path / "a.pdf", "pdf") == expected


def test_without_the_extra_each_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "pypdfium2.py").write_text("print('chatter')\nraise ImportError(name='pypdfium2')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "modules"), *sys.path])
    (tmp_path / "a.pdf").write_bytes(mixed_folder.pdf("Text"))
    (found,) = documents(tmp_path / "a.pdf")
    assert isinstance(found, Unreadable)
    assert found.reason == "cannot be read: pypdfium2 is not installed: pip install 'pgvec-toolkit[files]'"
