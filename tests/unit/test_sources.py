"""From its id and its file it is known which ingestion brought a document."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgvec_toolkit.ingest.sources import belongs, file_id, root_of


@pytest.mark.parametrize(
    ("id", "file", "made_from", "root"),
    [
        ("handbook/a.md", "/x/handbook/a.md", "handbook/a.md", "/x/handbook"),
        ("handbook/deep/a.csv:17", "/x/handbook/deep/a.csv", "handbook/deep/a.csv", "/x/handbook"),
        ("a.md", "/x/handbook/a.md", "a.md", None),
        ("a.csv:1", "/x/handbook/a.csv", "a.csv", None),
        ("17", "/x/handbook/a.jsonl", None, None),
        ("a.md#1", "/x/handbook/a.md", None, None),
        ("book/a.md", "/x/handbook/a.md", None, None),
    ],
)
def test_ids_tell_which_folder_they_come_from(id: str, file: str, made_from: str | None, root: str | None) -> None:
    assert file_id(id, Path(file)) == made_from
    assert root_of(id, Path(file)) == (None if root is None else Path(root))
    assert belongs(id, Path(file), Path("/x/handbook")) == (root is not None or made_from is None)
    assert belongs(id, Path(file), Path("/x")) == (made_from is None)
