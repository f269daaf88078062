"""ingest, sync, failures, retry and delete."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, collection
from pgvec_toolkit.cli.output import excerpt, print_json, print_table, say, say_cut, say_pruned

from pgvec_toolkit.ingest.chunk.chunking import CHUNKERS, POLICIES

if TYPE_CHECKING:
    from pgvec_toolkit.ingest.documents import Ingested
    from pgvec_toolkit.ingest.ledger import Failure
    from pgvec_toolkit.ingest.sync import Change, Synced

_MOST_SAID = 10

ChunkTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Largest chunk in tokens. [default: all that the model reads]", show_default=False),
]
ChunkerName = Annotated[str, typer.Option(help=f"How to cut: {', '.join(CHUNKERS)}.")]
Overlap = Annotated[int, typer.Option(min=0, help="Tokens, at most, that a chunk repeats of the last one.")]
Context = Annotated[
    bool, typer.Option("--context", help="Embed the document's title and the headings above a chunk with it.")
]
TooLong = Annotated[
    str, typer.Option(help=f"What becomes of a chunk longer than the model reads: {', '.join(POLICIES)}.")
]
IdColumn = Annotated[str, typer.Option(help="Column of a table that names its documents; '': number its rows.")]
TextColumns = Annotated[
    list[str] | None,
    typer.Option(help="Column of a table that is its text; several are joined. [default: text]", show_default=False),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first document that fails; the exit code is 1 then.")
]


def ingest(
    name: Name,
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: text, HTML, PDF, Office, code, tables.")],
    id: IdColumn = "id",
    text: TextColumns = None,
    chunker: ChunkerName = "auto",
    chunk_tokens: ChunkTokens = None,
    overlap: Overlap = 0,
    context: Context = False,
    too_long: TooLong = "split",
    strict: Strict = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after an interruption. It always does: this only says so.")
    ] = False,
    dsn: Dsn = None,
) -> None:
    """Ingest documents: chunk, embed, write. Unchanged ones are skipped; interrupt and repeat it at will.

    Documents that fail are listed and recorded, the others go on, and the exit code is 0: see failures and retry.
    """
    from pgvec_toolkit.ingest.documents import Ingested

    del resume
    target = collection(name, dsn)
    for path in paths:
        done = Ingested()
        with _said(f"{path}", done):
            target.ingest(
                path,
                id=id or None,
                text=text or "text",
                chunker=chunker,
                chunk_tokens=chunk_tokens,
                overlap=overlap,
                context=context,
                too_long=too_long,
                strict=strict,
                done=done,
            )
        _say_failed(name, done.failed)


def sync(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="The folder.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Delete even more than half of the folder's documents, if they are gone.")
    ] = False,
    id: IdColumn = "id",
    text: TextColumns = None,
    chunker: ChunkerName = "auto",
    chunk_tokens: ChunkTokens = None,
    overlap: Overlap = 0,
    context: Context = False,
    too_long: TooLong = "split",
    strict: Strict = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Make a folder's documents equal to the folder: add new ones, update changed ones, delete those that are gone.

    Documents from elsewhere stay; files that cannot be read keep what is stored of them. --json prints each change.
    """
    from pgvec_toolkit.ingest.sync import Synced

    done = Synced()
    target = collection(name, dsn)
    with _said(f"{folder}", done.ingested, done):
        target.sync(
            folder,
            dry_run=dry_run,
            force=force,
            id=id or None,
            text=text or "text",
            chunker=chunker,
            chunk_tokens=chunk_tokens,
            overlap=overlap,
            context=context,
            too_long=too_long,
            strict=strict,
            done=done,
        )
    if as_json:
        print_json([asdict(change) for change in done.changes])
    elif dry_run:
        print_table(("document", "action", "why", "file"), map(_row, done.changes))
    if dry_run:
        say("a dry run: nothing was written")
        if done.needs_force:
            say(f"{done.deleted} deletions are more than half of the folder's documents: they need --force")
    else:
        _say_failed(name, done.failed)


def failures(name: Name, dsn: Dsn = None, as_json: Json = False) -> None:
    """List the documents that could not be ingested, each with its reason."""
    found = collection(name, dsn).failures()
    if as_json:
        print_json([asdict(failure) for failure in found])
    elif found:
        print_table(
            ("document", "stage", "error", "attempts", "last"),
            ((f.document_id, f.stage, f.error, f.attempts, f"{f.last_at:%Y-%m-%d %H:%M}") for f in found),
        )
    else:
        say("no document failed")


def retry(
    name: Name,
    document_ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of documents that failed. [default: all]", show_default=False)
    ] = None,
    dsn: Dsn = None,
) -> None:
    """Ingest documents that failed once more, in the way they were ingested: files are read again."""
    with _said("retried", done := _nothing()):
        done.add(collection(name, dsn).retry(document_ids or None))
    _say_failed(name, done.failed)


def delete(
    name: Name,
    document_ids: Annotated[list[str], typer.Argument(help="Ids of the documents.")],
    dsn: Dsn = None,
) -> None:
    """Delete documents with their chunks and vectors, and what is recorded of their failures."""
    say(f"{collection(name, dsn).delete(document_ids)} chunks deleted")


def _nothing() -> Ingested:
    from pgvec_toolkit.ingest.documents import Ingested

    return Ingested()


@contextmanager
def _said(what: str, done: Ingested, synced: Synced | None = None) -> Iterator[None]:
    """Say what was done, of something that was interrupted or failed, too."""
    began = time.perf_counter()
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted or done.documents:
            say(f"{what}: {_summary(done, synced)} until it {'was interrupted' if interrupted else 'stopped'}")
        raise
    say(f"{what}: {_summary(done, synced)} in {time.perf_counter() - began:.1f} s")
    more = {
        "texts had known vectors": done.cached,
        "were there twice": done.duplicates,
    }
    if any(more.values()):
        say("  " + ", ".join(f"{count} {of_what}" for of_what, count in more.items() if count))
    say_pruned(done.pruned_vectors, done.pruned_entries)
    say_cut(done.split, done.truncated, done.notes)


def _summary(done: Ingested, synced: Synced | None) -> str:
    read = f"{done.documents} documents, {done.unchanged} of them unchanged" if synced is None else _counts(synced)
    failed = f", {len(done.failed)} failed" if done.failed and synced is None else ""
    return f"{read}{failed}; {done.chunks} chunks written"


def _counts(done: Synced) -> str:
    failed = len(done.failed) or sum(change.action == "fail" for change in done.changes)
    counts = f"{done.added} added, {done.updated} updated, {done.deleted} deleted, {done.unchanged} unchanged"
    return f"{counts}, {failed} failed" if failed else counts


def _row(change: Change) -> tuple[str, str, str, str]:
    return change.document_id, change.action, change.reason, change.source or ""


def _say_failed(name: str, failed: Sequence[Failure]) -> None:
    if not failed:
        return
    for failure in failed[:_MOST_SAID]:
        say(f"  {failure.document_id} ({failure.stage}): {excerpt(failure.error)}")
    more = f"… and {len(failed) - _MOST_SAID} more. " if len(failed) > _MOST_SAID else ""
    say(
        f"  {more}What was stored of them is kept. `pgvec failures {name}` lists them, `pgvec retry {name}` "
        "tries them again"
    )


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (ingest, sync, failures, retry, delete):
        app.command()(command)
