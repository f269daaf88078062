"""From its id and its file it is known which ingestion brought a document."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgvec_toolkit.ingest.sources import belongs, file_id


@pytest.mark.parametrize(
    ("id", "file", "made_from", "is_of_folder"),
    [
        ("handbook/a.md", "/x/handbook/a.md", "handbook/a.md", True),
        ("handbook/deep/a.csv:17", "/x/handbook/deep/a.csv", "handbook/deep/a.csv", True),
        ("a.md", "/x/handbook/a.md", "a.md", False),
        ("a.csv:1", "/x/handbook/a.csv", "a.csv", False),
        ("17", "/x/handbook/a.jsonl", None, True),
        ("17", "/x/handbook/.cache/a.jsonl", None, False),
        ("17", "/x/handbook/node_modules/b/a.jsonl", None, False),
        ("a.md#1", "/x/handbook/a.md", None, True),
        ("book/a.md", "/x/handbook/a.md", None, True),
    ],
)
def test_ids_tell_which_folder_they_come_from(id: str, file: str, made_from: str | None, is_of_folder: bool) -> None:
    assert file_id(id, Path(file)) == made_from
    assert belongs(id, Path(file), Path("/x/handbook")) == is_of_folder
    assert belongs(id, Path(file), Path("/x")) == (made_from is None and is_of_folder)
