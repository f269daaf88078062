"""What a search returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


# Not frozen: that would make ten hits cost as much as borrowing a connection and asking for them.
@dataclass(slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        id: the chunk's id.
        document_id: its document's.
        text: its text; None where vectors were loaded without one.
        metadata: its typed columns and its metadata, as they were put in.
        distance: straight from the operator; smaller is nearer.
        similarity: bigger is nearer. 1 - distance for cosine, 1 / (1 + distance) for l2 and l1, the
            inner product itself for inner_product.
        score: what the hits are ranked by; without fusion or reranking, the similarity.
        rank: 1 for the first.
    """

    id: str
    document_id: str
    text: str | None
    metadata: dict[str, Any]
    distance: float
    similarity: float
    score: float
    rank: int

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict, for JSON."""
        return asdict(self)
