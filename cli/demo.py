"""The demo: an invented company's operations handbook, from an empty database to a tuned, filtered search."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer
from pgvec_toolkit.cli.options import Dsn, connect
from pgvec_toolkit.cli.output import excerpt, print_table, say

if TYPE_CHECKING:
    from pgvec_toolkit.collection import Collection

NAME = "demo_handbook"
COLUMNS = {"section": str, "year": int, "audience": list[str], "reviewed": "date", "mandatory": bool}
QUESTION = "what happens when the power fails"
FILTER: dict[str, object] = {"section": "warehouse", "year": {"$gte": 2018}}
CHUNK_TOKENS = 128  # a passage of the handbook; longer chunks would mix its topics
QUERIES = 50


def demo(dsn: Dsn = None) -> None:
    """Search a small handbook: migrate, create, ingest, build an index, tune it, search. Takes seconds."""
    database = connect(dsn)
    say(f"PostgreSQL {database.capabilities.server}, pgvector {'.'.join(map(str, database.capabilities.vector))}")
    database.drop_collection(NAME, if_exists=True)
    with _Step("loaded the model, created a collection"):
        handbook = database.create_collection(NAME, columns=COLUMNS)
    _load(handbook)
    with _Step("built the HNSW index"):
        handbook.create_index("hnsw")
    with _Step("tuned it to recall 0.95") as step:
        profile = handbook.tune(recall=0.95)
        step.result = (
            f"{profile.parameter} = {profile.setting}, recall@10 {profile.recall:.3f} on {profile.queries} queries"
        )
    _show(handbook, QUESTION, None)
    _show(handbook, QUESTION, FILTER)
    measured = handbook.recall()
    milliseconds = _median_latency(handbook)
    typer.echo(
        f"recall@10 now: {measured.recall:.3f} over {measured.queries} searches; "
        f"{milliseconds:.2f} ms each (median), embedding not counted"
    )
    say(
        "PostgreSQL reads a table as small as this one exactly where that is cheaper: so high a recall comes free here."
    )
    say(f'Try:  pgvec search {NAME} "a driver is too tired" -k 3      pgvec psql      pgvec collection drop {NAME}')


def _load(handbook: Collection) -> None:
    from pgvec_toolkit.resources import demo_handbook

    with _Step("ingested the handbook") as step:
        done = handbook.ingest(demo_handbook(), chunk_tokens=CHUNK_TOKENS)
        step.result = f"{done.documents} documents, {done.chunks} chunks"


def _show(handbook: Collection, question: str, where: dict[str, object] | None) -> None:
    began = time.perf_counter()
    hits = handbook.search(question, k=3, where=where)
    milliseconds = (time.perf_counter() - began) * 1000
    title = f"“{question}”" + (f"  where {where}" if where else "")
    rows = [
        (hit.rank, hit.score, hit.metadata["section"], hit.metadata["year"], excerpt(hit.text, 120)) for hit in hits
    ]
    print_table(
        ("rank", "score", "section", "year", "text"),
        rows,
        title=f"{title}  ({milliseconds:.0f} ms, embedding included)",
    )


def _median_latency(handbook: Collection) -> float:
    import statistics

    vector = handbook.embedder.embed_query(QUESTION)
    took = []
    for _ in range(QUERIES):
        began = time.perf_counter()
        handbook.search(vector)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


class _Step:
    """Says what was done and how long it took."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.result = ""

    def __enter__(self) -> _Step:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            say(f"{time.perf_counter() - self._began:6.1f} s  {self.what}{': ' if self.result else ''}{self.result}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)
