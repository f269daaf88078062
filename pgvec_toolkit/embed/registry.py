"""The model registry: which model's vectors a space holds, and that no other's are compared with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from pgvec_toolkit.embed import base
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import EmbeddingError

if TYPE_CHECKING:
    from pgvec_toolkit.schema.space import Space


def register(connection: psycopg.Connection[Any], embedder: Embedder) -> int:
    """Return the id of the embedder's model in the registry, entered if it is new."""
    row = connection.execute(
        "INSERT INTO pgvec.models (name, fingerprint, dimensions, max_tokens, details) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name RETURNING id",
        [
            embedder.name,
            base.fingerprint(embedder),
            embedder.dimensions,
            base.max_tokens(embedder),
            Jsonb(getattr(embedder, "details", {})),
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])


def embedder_of(space: Space, given: Embedder | None, collection: str) -> Embedder:
    """Return the given embedder, or the space's own; checked to be the one that its vectors were made with."""
    if given is None and space.model is None:
        raise EmbeddingError(
            f"vector space {space.name!r} of collection {collection!r} has no embedder: give vectors, or open it with "
            "embedder=… if it is the default one"
        )
    embedder = given or base.load(str(space.model), space.model_details)
    if space.model_fingerprint not in (None, base.fingerprint(embedder)):
        raise EmbeddingError(
            f"collection {collection!r} holds vectors of {space.model}; embedder {embedder.name} has another "
            "fingerprint (other weights, prompts or truncation), so its vectors cannot be compared with them"
        )
    if embedder.dimensions != space.dimensions:
        raise EmbeddingError(
            f"embedder {embedder.name} makes {embedder.dimensions} dimensions, the collection has {space.dimensions}"
        )
    return embedder
