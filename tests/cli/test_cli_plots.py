"""Pictures of what was tuned, built and watched: `--plot`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.outcome import Run

pytest.importorskip("matplotlib", reason="needs the extra `plot`")


def test_pictures(docs: Run, tmp_path: Path) -> None:
    assert docs("index", "create", "docs", "--m", "4", "--ef-construction", "16").code == 0
    assert docs("watch", "docs", "--sample", "20").code == 0
    commands = (("tune", "docs", "--recall", "0.5"), ("index", "builds", "docs"), ("watch", "docs"))
    for number, command in enumerate(commands):
        picture = tmp_path / f"{number}.png"
        drawn = docs(*command, "--plot", str(picture))
        assert drawn.code == 0, drawn.err
        assert f"picture: {picture}\n" in drawn.err
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", [("tune", "docs"), ("index", "builds", "docs"), ("watch", "docs")])
def test_a_file_that_nothing_draws(bare: Run, command: tuple[str, ...]) -> None:
    failed = bare(*command, "--plot", "a.svg")
    assert (failed.code, failed.out) == (1, "")
    assert "name a file .png or .html" in failed.err
