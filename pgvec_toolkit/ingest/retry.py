"""Documents that failed, once more: files are read again, what came from no file was kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.ingest import ledger
from pgvec_toolkit.ingest.document import Unreadable
from pgvec_toolkit.ingest.documents import Ingested, Ingestion, Read
from pgvec_toolkit.ingest.ledger import Kept
from pgvec_toolkit.ingest.sources import root_of
from pgvec_toolkit.pool import Connection


@dataclass
class _Attempt:
    """Failures of one source and the same options."""

    kept: list[Kept] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

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
        for document in self._of_file(Path(source)):
            self.seen.add(document.id)
            if whole or document.id in wanted:
                yield document

    def _of_file(self, source: Path) -> Iterable[Read]:
        from pgvec_toolkit.ingest.read import documents

        options = self.kept[0].options.get("read", {})
        root = next((found for one in self.kept if (found := root_of(one.failure.document_id, source))), None)
        if not source.exists():
            reason = "is no longer there: delete the document, or sync its folder"
            return [Unreadable(0, one.failure.document_id, reason, source) for one in self.kept]
        return documents(source, root=root, **options)

    def solved(self) -> list[str]:
        """Return the failures that are no more, as the file no longer holds what failed."""
        return [one.failure.document_id for one in self.kept if one.failure.document_id not in self.seen]


def retry(
    connection: Connection,
    collection_id: int,
    document_ids: Sequence[str] | None,
    ingestion: Callable[[Mapping[str, Any]], Ingestion],
    advance: Callable[[float], None],
) -> Ingested:
    """Ingest documents that failed as they were ingested then.

    Args:
        connection: to write on.
        collection_id: of the collection.
        document_ids: which; None: all.
        ingestion: makes one from recorded options.
        advance: is told how many documents are done.

    Raises:
        ConfigurationError: one of `document_ids` has not failed, or was not kept.
    """
    kept = ledger.failures(connection, collection_id, document_ids)
    _check(kept, document_ids)
    # Rows of an attached table are left to its workers.
    if rows := [one.failure.document_id for one in kept if (one.failure.source or "").startswith("table:")]:
        ledger.requeue_rows(connection, collection_id, rows)
        kept = [one for one in kept if one.failure.document_id not in rows]
    done = Ingested()
    for attempt in _attempts(kept):
        options = attempt.kept[0].options
        done.add(ingestion(options).run(connection, attempt.documents(), advance))
        if attempt.kept[0].failure.source is not None:
            ledger.forget_failures(connection, collection_id, attempt.solved())
    done.failed += [one.failure for one in kept if not one.failure.retriable]
    return done


def _attempts(kept: Sequence[Kept]) -> list[_Attempt]:
    found: dict[tuple[str | None, str], _Attempt] = {}
    for one in kept:
        if one.failure.retriable:
            key = (one.failure.source, json.dumps(one.options, sort_keys=True))
            found.setdefault(key, _Attempt()).kept.append(one)
    return list(found.values())


def _check(kept: Sequence[Kept], document_ids: Sequence[str] | None) -> None:
    there = {one.failure.document_id: one.failure for one in kept}
    for id in document_ids or ():
        if id not in there:
            raise ConfigurationError(f"document {id!r} has not failed: `pgvec failures` lists those that have")
        if not there[id].retriable:
            raise ConfigurationError(
                f"document {id!r} could not be kept when it failed: ingest it again from its source"
            )
