"""Documents that failed, once more: files are read again, what came from no file was kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest import ledger
from pgvec_toolkit.ingest.chunk.chunking import Chunker, Chunking, own_chunker
from pgvec_toolkit.ingest.document import Unreadable
from pgvec_toolkit.ingest.documents import Ingested, Ingestion, Read
from pgvec_toolkit.ingest.ledger import Kept, storable_id
from pgvec_toolkit.ingest.seen import Seen
from pgvec_toolkit.ingest.sources import is_there, root_of
from pgvec_toolkit.pool import Connection


@dataclass
class _Attempt:
    """Failures of one source and the same options."""

    kept: list[Kept] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)

    def documents(self) -> Iterator[Read]:
        """Read them again; of a file of which parts could not be read, all: it is known no better what these are."""
        source = self.kept[0].failure.source
        if source is None:
            for row, one in enumerate(self.kept):
                assert one.payload is not None
                yield ledger.kept_document(one.payload, row)
            return
        wanted = {one.failure.document_id for one in self.kept}
        whole = any(one.failure.stage == "read" for one in self.kept)
        for document in self.seen.note(self._of_file(Path(source))):
            # What cannot be read may be any of them.
            if whole or isinstance(document, Unreadable) or storable_id(document.id) in wanted:
                yield document

    def _of_file(self, source: Path) -> Iterable[Read]:
        from pgvec_toolkit.ingest.read import documents

        reason = "is no longer there: delete the document, or sync its folder"
        if is_there(source):
            try:
                return documents(source, **_reading(self.kept[0]))
            except (ConfigurationError, OSError) as error:  # a folder that holds nothing, or may not be entered
                reason = str(error)
        return [Unreadable(0, one.failure.document_id, reason, source) for one in self.kept]

    def solved(self) -> list[str]:
        """Return the failures that are no more, as the file no longer holds what failed."""
        ids = {one.failure.document_id: one.failure.source for one in self.kept}
        return [id for id, source in ids.items() if self.seen.is_gone(id, source)]


def retry(
    connection: Connection,
    collection_id: int,
    document_ids: Sequence[str] | None,
    ingestion: Callable[[Chunking, Mapping[str, Any]], Ingestion],
    chunker: Chunker | None,
    advance: Callable[[float], None],
) -> Ingested:
    """Ingest documents that failed as they were ingested then.

    Args:
        connection: to write on.
        collection_id: of the collection.
        document_ids: which; None: all.
        ingestion: makes one, of how documents are cut and how they are read.
        chunker: the user's own, for documents that were cut by one.
        advance: is told how many documents are done.

    Raises:
        ConfigurationError: one of `document_ids` has not failed, or was not kept; or a chunker is missing.
    """
    kept = ledger.failures(connection, collection_id, document_ids)
    _check(kept, document_ids)
    # Rows of an attached table are left to its workers.
    if rows := [one.failure.document_id for one in kept if (one.failure.source or "").startswith("table:")]:
        ledger.requeue_rows(connection, collection_id, rows)
        kept = [one for one in kept if one.failure.document_id not in rows]
    if chunker is None:
        _check_chunkers(kept)
    done = Ingested()
    for attempt in _attempts(kept):
        options = attempt.kept[0].options
        again = ingestion(Chunking.recorded(options, chunker), options.get("read", {}))
        done.add(again.run(connection, attempt.documents(), advance))
        if attempt.kept[0].failure.source is not None:
            ledger.forget_failures(connection, collection_id, attempt.solved())
    done.failed += [one.failure for one in kept if not one.failure.retriable]
    return done


def _attempts(kept: Sequence[Kept]) -> list[_Attempt]:
    found: dict[tuple[str | None, str], _Attempt] = {}
    for one in kept:
        if one.failure.retriable:
            key = (one.failure.source, json.dumps([one.options, _reading(one)], sort_keys=True))
            found.setdefault(key, _Attempt()).kept.append(one)
    return list(found.values())


def _reading(one: Kept) -> dict[str, Any]:
    """Return how the source of a failure is to be read, for its documents to have the same ids."""
    read = dict(one.options.get("read", {}))
    if one.failure.source is not None and "root" not in read:  # whose documents the user has read by himself
        root = root_of(one.failure.document_id, Path(one.failure.source))
        read |= {} if root is None else {"root": str(root)}
    return read


def _check(kept: Sequence[Kept], document_ids: Sequence[str] | None) -> None:
    there = {one.failure.document_id: one.failure for one in kept}
    for id in document_ids or ():
        if id not in there:
            raise ConfigurationError(f"document {id!r} has not failed: `pgvec failures` lists those that have")
        if not there[id].retriable:
            raise ConfigurationError(
                f"document {id!r} could not be kept when it failed: ingest it again from its source"
            )


def _check_chunkers(kept: Sequence[Kept]) -> None:
    """Refuse documents that were cut by a chunker of the user's own: it could not be recorded."""
    cut = {one.failure.document_id: own_chunker(one.options) for one in kept if one.failure.retriable}
    cut = {id: name for id, name in cut.items() if name is not None}
    if cut:
        names = " and ".join(sorted({str(name) for name in cut.values()}))
        ids = ", ".join(map(repr, list(cut)[:5])) + (", …" if len(cut) > 5 else "")
        raise ConfigurationError(
            f"{ids}: cut by {names}, a chunker of yours, which could not be recorded: in Python, ingest these "
            "documents again with it, or give it to retry (chunker=…). Others can be retried by their ids"
        )
