from __future__ import annotations

from dataclasses import dataclass

import pytest

from pgvec_toolkit.ingest import window
from pgvec_toolkit.ingest.window import Window


@dataclass
class Some:
    read: int
    texts: int


def test_it_is_full_of_texts_or_of_documents_or_when_there_is_nothing_to_embed() -> None:
    found = [Window().is_full(works) for works in ([Some(16, 20)] * 3, [Some(16, 20)] * 4, [Some(16, 0)])]
    assert found == [False, True, True]
    assert Window().is_full([Some(512, 1), Some(512, 0)])


@pytest.mark.parametrize(("seconds", "sizes"), [(0.001, [256, 1024, 1024]), (2.0, [256, 320, 320]), (60.0, [64] * 3)])
def test_it_grows_to_what_is_embedded_in_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, seconds: float, sizes: list[int]
) -> None:
    now, found, grown = [0.0], Window(), []
    monkeypatch.setattr(window.time, "perf_counter", lambda: now[0])
    for _ in range(3):
        with found.timed([Some(16, 64)]):
            now[0] += seconds
        with found.timed([Some(16, 0)]):  # says nothing
            now[0] += 1
        grown.append(found.texts)
    assert grown == sizes
