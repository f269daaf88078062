"""The model registry: which model's vectors a space holds, and that no other's are compared with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from pgvec_toolkit.embed import base, kinds
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import EmbeddingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgvec_toolkit.pool import Pool
    from pgvec_toolkit.schema.space import Space

REGISTER = """
INSERT INTO pgvec.models (name, fingerprint, dimensions, max_tokens, details)
VALUES (%(name)s, %(fingerprint)s, %(dimensions)s, %(max_tokens)s, %(details)s)
ON CONFLICT (fingerprint) DO UPDATE SET details = excluded.details RETURNING id
"""
_SHOWN = 60  # characters of a value that an error tells


@dataclass(frozen=True)
class RegisteredModel:
    """A model that the database knows.

    Attributes:
        name: by which it is loaded.
        dimensions: of its vectors.
        max_tokens: of a text that it reads; None if it does not say.
        fingerprint: hash over all that changes its vectors.
        spaces: which hold its vectors, as collection.space.
        details: what the fingerprint covers, and what it takes to load it again.
    """

    name: str
    dimensions: int
    max_tokens: int | None
    fingerprint: str
    spaces: list[str]
    details: dict[str, Any]


def models(database: Pool) -> list[RegisteredModel]:
    """Return the models that the database knows, by name."""
    rows = database.fetch(
        "SELECT m.name, m.dimensions, m.max_tokens, m.fingerprint, coalesce(array_agg(c.name || '.' || s.name "
        "ORDER BY c.name, s.name) FILTER (WHERE s.id IS NOT NULL), '{}'), m.details FROM pgvec.models m "
        "LEFT JOIN pgvec.vector_spaces s ON s.model_id = m.id LEFT JOIN pgvec.collections c ON c.id = s.collection_id "
        "GROUP BY m.id ORDER BY m.name, m.id"
    )
    return [RegisteredModel(*row) for row in rows]


def entry(embedder: Embedder) -> dict[str, Any]:
    """Return what the registry has of a model."""
    return {
        "name": embedder.name,
        "fingerprint": base.fingerprint(embedder),
        "dimensions": embedder.dimensions,
        "max_tokens": base.max_tokens(embedder),
        "details": base.stored_details(embedder),
    }


def register(connection: psycopg.Connection[Any], embedder: Embedder) -> int:
    """Return the id of the embedder's model in the registry, entered if it is new."""
    known = entry(embedder)
    row = connection.execute(REGISTER, known | {"details": Jsonb(known["details"])}).fetchone()
    assert row is not None
    return int(row[0])


def embedder_of(space: Space, given: Embedder | None, collection: str) -> Embedder:
    """Return the given embedder, or the space's own; checked to be the one that its vectors were made with."""
    if given is None and space.model is None:
        raise EmbeddingError(
            f"vector space {space.name!r} of collection {collection!r} has no embedder: give vectors, or open it with "
            "embedder=… if it is the default one"
        )
    embedder = given or kinds.load(str(space.model), space.model_details)
    if space.model_fingerprint not in (None, base.fingerprint(embedder)):
        stored = {"name": space.model, "dimensions": space.dimensions, **space.model_details}
        raise EmbeddingError(
            f"collection {collection!r} holds vectors of {space.model}; embedder {embedder.name} has another "
            f"fingerprint, so its vectors cannot be compared with them ({_difference(stored, base.identity(embedder))})"
        )
    if embedder.dimensions != space.dimensions:
        raise EmbeddingError(
            f"embedder {embedder.name} makes {embedder.dimensions} dimensions, the collection has {space.dimensions}"
        )
    return embedder


def _difference(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Say what differs between two identities."""
    said = []
    for key in sorted({*stored, *given} - {"options"}):
        before, now = stored.get(key), given.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            said += [
                f"{key}.{inner}: stored {_shown(before.get(inner))}, given {_shown(now.get(inner))}"
                for inner in sorted({*before, *now})
                if before.get(inner) != now.get(inner)
            ]
        elif key == "weights":
            said.append("weights: not the same")
        else:
            said.append(f"{key}: stored {_shown(before)}, given {_shown(now)}")
    return "; ".join(said) or "the registry does not say in what"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
