"""What is stored of the collection docs."""

from __future__ import annotations

import psycopg


def there(connection: psycopg.Connection) -> dict[str, str]:
    """Return the texts, by document, one chunk each; ledger and vectors agree."""
    texts: dict[str, str] = dict(connection.execute("SELECT document_id, text FROM docs ORDER BY id").fetchall())
    ledger = connection.execute("SELECT document_id FROM pgvec.ledger ORDER BY 1").fetchall()
    assert sorted(texts) == [id for (id,) in ledger]
    assert connection.execute("SELECT count(*) FROM docs_dense").fetchone() == (len(texts),)
    return texts
