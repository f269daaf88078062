"""What mypy says, in strict mode, of code that uses pgvec_toolkit.orm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.examples import ROOT


def test_searches_have_the_types_that_they_return(tmp_path: Path) -> None:
    layout = Path(sys.prefix) / "layout"  # of `make lint`, whose cache then serves
    if not (layout / "pgvec_toolkit" / "orm").is_dir():
        layout = tmp_path
        (layout / "pgvec_toolkit").mkdir()
        for part in (*(ROOT / "pgvec_toolkit").iterdir(), *(ROOT / name for name in ("cli", "migrations", "sql"))):
            (layout / "pgvec_toolkit" / part.name).symlink_to(part)
    options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, ROOT / "tests/integration/orm_example.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(layout)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr
