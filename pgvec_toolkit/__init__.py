"""pgvec turns PostgreSQL with pgvector into a search engine that keeps its promises.

import pgvec_toolkit as pgvec

db = pgvec.connect()
docs = db.create_collection("docs", columns={"section": str, "year": int})
docs.ingest("handbook/")
docs.create_index("hnsw")
docs.tune(recall=0.95)
for hit in docs.search("rotate credentials", k=3, where={"section": "security"}):
    print(hit.score, hit.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgvec_toolkit import errors
from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import PgvecError

if TYPE_CHECKING:
    from pgvec_toolkit import orm
    from pgvec_toolkit.aio.collection import AsyncCollection
    from pgvec_toolkit.aio.database import AsyncDatabase, connect_async
    from pgvec_toolkit.collection import Collection
    from pgvec_toolkit.database import Database, connect
    from pgvec_toolkit.embed.base import Embedder
    from pgvec_toolkit.ingest.chunk.chunking import Chunker
    from pgvec_toolkit.ingest.document import Chunk, Document
    from pgvec_toolkit.ingest.read.database import read_sql
    from pgvec_toolkit.rerank.http import HttpReranker
    from pgvec_toolkit.rerank.spec import Rerank
    from pgvec_toolkit.search.hit import Hit

__version__ = "0.1.0"
__all__ = [
    "AsyncCollection",
    "AsyncDatabase",
    "Chunk",
    "Chunker",
    "Collection",
    "Database",
    "Distance",
    "Document",
    "Embedder",
    "Hit",
    "HttpReranker",
    "PgvecError",
    "Rerank",
    "connect",
    "connect_async",
    "errors",
    "orm",
    "read_sql",
]

# Imported when first used: psycopg and numpy take longer to import than most commands take to run.
_HOMES = {
    "AsyncCollection": "pgvec_toolkit.aio.collection",
    "AsyncDatabase": "pgvec_toolkit.aio.database",
    "Chunk": "pgvec_toolkit.ingest.document",
    "Chunker": "pgvec_toolkit.ingest.chunk.chunking",
    "Collection": "pgvec_toolkit.collection",
    "Database": "pgvec_toolkit.database",
    "connect": "pgvec_toolkit.database",
    "connect_async": "pgvec_toolkit.aio.database",
    "Document": "pgvec_toolkit.ingest.document",
    "Embedder": "pgvec_toolkit.embed.base",
    "Hit": "pgvec_toolkit.search.hit",
    "read_sql": "pgvec_toolkit.ingest.read.database",
    "HttpReranker": "pgvec_toolkit.rerank.http",
    "Rerank": "pgvec_toolkit.rerank.spec",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "orm":
        return import_module("pgvec_toolkit.orm")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
