"""Columns of documents whose text is as it was: they are written, and no vector is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from pgvec_toolkit.ingest.document import OWN, Document
from pgvec_toolkit.ingest.load import Target
from pgvec_toolkit.pool import Connection

_UPDATE = """
UPDATE {chunks} d SET {assignments} FROM jsonb_to_recordset(%s) AS r (id text, metadata jsonb, typed jsonb)
{typed} WHERE d.document_id = r.id
"""
# What a chunk has of its own stays; all else is of columns, which may be copied no longer.
_METADATA = """
metadata = r.metadata || (SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}')
                          FROM jsonb_each(d.metadata) e WHERE e.key = ANY (%s::text[]))
"""


def write_payloads(
    connection: Connection, target: Target, copied: Sequence[str], contents: Sequence[tuple[Document, bytes]]
) -> None:
    """Write the copied columns of documents, each with its content hash, to all their chunks and the ledger."""
    contents = sorted(contents, key=lambda content: content[0].id)
    typed = {name: kind.sql for name, kind in target.typed.items() if name in copied or name not in OWN}
    plain = [name for name in copied if name not in typed]
    rows = [
        {
            "id": document.id,
            "metadata": _present(document.fields, plain),
            "typed": {name: document.fields.get(name) for name in typed},
        }
        for document, _ in contents
    ]
    assignments = [sql.SQL("{0} = t.{0}").format(sql.Identifier(name)) for name in typed]
    columns = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in typed.items()]
    record = sql.SQL("CROSS JOIN LATERAL jsonb_to_record(r.typed) AS t ({})").format(sql.SQL(", ").join(columns))
    statement = sql.SQL(_UPDATE).format(
        chunks=target.space.chunks,
        assignments=sql.SQL(", ").join([*assignments, sql.SQL(_METADATA)]),
        typed=record if typed else sql.SQL(""),
    )
    connection.execute(statement, [[name for name in OWN if name not in plain], Jsonb(rows)])
    connection.cursor().executemany(
        "UPDATE pgvec.ledger SET content_hash = %s, ingested_at = now() WHERE collection_id = %s AND document_id = %s",
        [(content_hash, target.space.collection_id, document.id) for document, content_hash in contents],
    )


def _present(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: fields[name] for name in names if fields.get(name) is not None}
