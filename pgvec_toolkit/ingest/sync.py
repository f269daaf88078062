"""A folder's documents in a collection, made equal to the folder: added, updated, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest import ledger
from pgvec_toolkit.ingest.document import Document
from pgvec_toolkit.ingest.documents import DOCUMENTS_AT_ONCE, Ingested, Ingestion, Read
from pgvec_toolkit.ingest.ledger import Entry, Failure
from pgvec_toolkit.ingest.seen import Seen
from pgvec_toolkit.ingest.sources import belongs, is_there
from pgvec_toolkit.pool import Connection

_DELETED_AT_ONCE = 1000
_FEW = 10  # deletions that need no leave, whatever share they are


@dataclass(frozen=True)
class Change:
    """What becomes, or would become, of a document.

    Attributes:
        document_id: of the document.
        action: add, update, delete; fail if it could not be read.
        reason: why.
        source: the file it is read from, or was.
    """

    document_id: str
    action: Literal["add", "update", "delete", "fail"]
    reason: str
    source: str | None


@dataclass
class Synced:
    """What a synchronisation did, or would do.

    Attributes:
        added: documents that were not there.
        updated: documents that were there with another content, or ingested with other options.
        deleted: documents whose files, or which in their files, are no more.
        unchanged: documents that are there as they are in the folder.
        failed: documents that could not be ingested; what was stored of them is kept.
        changes: each document but the unchanged ones; of those that failed, with `dry_run`, what could not be read.
        ingested: counts of chunks and texts.
        dry_run: whether nothing was written.
        needs_force: whether so much would be deleted that it has to be forced.
    """

    added: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    ingested: Ingested = field(default_factory=Ingested)
    dry_run: bool = False
    needs_force: bool = False


@dataclass(frozen=True)
class Synchronisation:
    """How a folder's documents get into a collection, and out of it.

    Attributes:
        ingestion: of its files.
        collection: by name.
        folder: resolved.
        force: whether most documents may be deleted.
    """

    ingestion: Ingestion
    collection: str
    folder: Path
    force: bool = False

    def run(
        self, connection: Connection, documents: Iterable[Read], advance: Callable[[float], None], done: Synced
    ) -> Synced:
        """Ingest what is there, then delete what is not. Killed, run it again.

        Raises:
            ConfigurationError: it would delete more than half of the documents.
        """
        known, failures = self._known(connection)
        # Before anything is written; rows that are gone from their files are known only when these were read.
        self._check_share([id for id, entry in known.items() if not is_there(entry.source or "")], known)

        def written(document: Document, version: int) -> None:
            action: Literal["add", "update"] = "add" if version == 1 else "update"
            done.added += version == 1
            done.updated += version > 1
            done.changes.append(_change(document, action))

        seen = Seen()
        done.failed = done.ingested.failed
        try:
            replace(self.ingestion, written=written).run(connection, seen.note(documents), advance, done.ingested)
        finally:
            done.unchanged = done.ingested.unchanged
            done.ingested.notes += _notes(seen)
        done.changes += [Change(failure.document_id, "fail", failure.error, failure.source) for failure in done.failed]
        gone = {id: entry for id, entry in known.items() if seen.is_gone(id, entry.source)}
        self._check_share(gone, known)
        self._delete(connection, gone, done)
        self._forget(connection, [id for id, source in failures.items() if seen.is_gone(id, source)])
        return done

    def plan(
        self, connection: Connection, documents: Iterable[Read], advance: Callable[[float], None], done: Synced
    ) -> Synced:
        """Tell what `run` would do; nothing is written."""
        known, _ = self._known(connection)
        seen = Seen()
        noted = seen.note(documents)
        while some := list(islice(noted, DOCUMENTS_AT_ONCE)):
            found = self.ingestion.compare(connection, some)
            for document in found.changed:
                there = document.id in found.known and found.known[document.id].content_hash is not None
                done.added += not there
                done.updated += there
                done.changes.append(_change(document, "update" if there else "add"))
            done.changes += [
                Change(one.document.id, "fail", one.error, _text(one.document.source)) for one in found.failed
            ]
            done.unchanged += len(found.unchanged)
            done.ingested.documents += found.read
            advance(len(some))
        gone = {id: entry for id, entry in known.items() if seen.is_gone(id, entry.source)}
        done.ingested.notes += _notes(seen)
        done.deleted, done.needs_force = len(gone), is_too_much(len(gone), len(known))
        done.changes += [_deletion(id, entry) for id, entry in gone.items()]
        return done

    def _known(self, connection: Connection) -> tuple[dict[str, Entry], dict[str, str]]:
        folder = Path(ledger.storable(str(self.folder)))
        written, failures = ledger.below(connection, self.ingestion.target.space.collection_id, folder)
        known = {id: entry for id, entry in written.items() if belongs(id, Path(entry.source or ""), folder)}
        return known, {id: source for id, source in failures.items() if belongs(id, Path(source), folder)}

    def _check_share(self, gone: Iterable[str], known: Mapping[str, Entry]) -> None:
        count = len(list(gone))
        if not self.force and is_too_much(count, len(known)):
            raise ConfigurationError(
                f"{count} of the {len(known)} documents of {self.folder} are no longer there, and nothing of them was "
                "deleted: is it the right folder, and all of it mounted? To delete them, force it (--force)"
            )

    def _delete(self, connection: Connection, gone: Mapping[str, Entry], done: Synced) -> None:
        collection = self.ingestion.target.space.collection_id
        ordered = iter(sorted(gone.items()))
        while some := dict(islice(ordered, _DELETED_AT_ONCE)):
            with connection.transaction():
                # Those that somebody else has written meanwhile are there.
                ids = ledger.unchanged(connection, collection, some)
                connection.execute("SELECT pgvec.delete_documents(%s, %s::text[])", [self.collection, ids])
            done.deleted += len(ids)
            done.changes += [_deletion(id, gone[id]) for id in ids]

    def _forget(self, connection: Connection, failures: list[str]) -> None:
        ledger.forget_failures(connection, self.ingestion.target.space.collection_id, failures)


def folder_of(source: str | Path) -> Path:
    """Return a folder that is to be synchronised, resolved."""
    folder = Path(source)
    if not folder.is_dir():
        what = "is not a folder: use ingest" if folder.exists() else "is not there: nothing was deleted"
        raise ConfigurationError(f"cannot synchronise with {source}: it {what}")
    return folder.resolve()


def is_too_much(deleted: int, known: int) -> bool:
    """Tell whether deleting so many documents of those that are known needs to be forced."""
    return deleted >= _FEW and deleted * 2 > known


def _notes(seen: Seen) -> list[str]:
    if not seen.twice:
        return []
    others = f" (and {len(seen.twice) - 1} other ids)" if len(seen.twice) > 1 else ""
    return [
        f"more than one document has id {min(seen.twice)!r}{others}: the last one that is read is kept, and where they "
        "differ they are written anew each time. Give them ids that differ"
    ]


def _change(document: Document, action: Literal["add", "update"]) -> Change:
    reason = "is new" if action == "add" else "has changed, or is ingested with other options"
    return Change(document.id, action, reason, _text(document.source))


def _deletion(id: str, entry: Entry) -> Change:
    there = entry.source is not None and is_there(entry.source)
    return Change(id, "delete", "is no longer in its file" if there else "its file is gone", entry.source)


def _text(source: Path | None) -> str | None:
    return None if source is None else str(source)
