"""The examples of a Markdown file, and what it shows as their output."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pgvec_toolkit.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "-- the next example --"


class Example(NamedTuple):
    """A block of code; `output` is the ```text block after it, None if there is none."""

    language: str
    text: str
    output: str | None
    line: int


def examples(file: str) -> Iterator[Example]:
    """Yield the examples of a file of the repository."""
    markdown = (ROOT / file).read_text(encoding="utf-8")
    found = [(match[1], match[2], markdown.count("\n", 0, match.start()) + 1) for match in _BLOCK.finditer(markdown)]
    for (language, text, line), following in zip(found, [*found[1:], ("", "", 0)], strict=True):
        if language != "text":
            yield Example(language, text, following[1] if following[0] == "text" else None, line)


def psql(dsn: str, *arguments: str) -> list[str]:
    """Return the command that starts psql, whatever the user's .psqlrc says."""
    return [EmbeddedServer().binary("psql"), dsn, "-X", *arguments]


def psql_outputs(dsn: str, texts: Sequence[str]) -> list[str]:
    """Return what psql prints for each of the texts, all in one session: rows, errors and notices."""
    script = "".join(f"{text}\n\\echo {_MARK}\n" for text in texts)
    done = subprocess.run(psql(dsn), input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    outputs = done.stdout.split(f"{_MARK}\n")
    assert len(outputs) == len(texts) + 1, done.stdout
    return outputs[:-1]
