"""What a search returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
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
        distance: straight from the operator; smaller is nearer. None of a keyword or hybrid search.
        similarity: bigger is nearer. 1 - distance for cosine and jaccard, 1 / (1 + distance) for l2 and l1, the
            inner product itself for inner_product, the share of equal bits for hamming. None where distance is.
        score: what the hits are ranked by: the similarity; with diversity, the marginal relevance; of maxsim its sum,
            None for a chunk without vectors to rescore; BM25; what a fusion or a reranker gave.
        rank: 1 for the first; of groups, that of the group.
        legs: of a keyword or hybrid search, leg name to {"rank", "score", "contribution"}: the place of the chunk in
            the leg, its score there, and what that added to the hit's score; of the keyword leg also "terms", the
            words that matched and what each added.
        first_rank: the rank that the search gave, where a reranker gave another.
    """

    id: str
    document_id: str
    text: str | None
    metadata: dict[str, Any]
    distance: float | None
    similarity: float | None
    score: float | None
    rank: int
    legs: dict[str, dict[str, Any]] = field(default_factory=dict)
    first_rank: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict, for JSON."""
        return asdict(self)


class Hits(list[Hit]):
    """The hits of a search, nearest first: a list, and why it ends where it does.

    Attributes:
        stopped_by: "k": as many as were asked for; "complete": no more match; "threshold": the index found no
            more within it (`exact=True` proves it); "depth": a leg of a hybrid search was to find no more.
        reranked: whether a reranker ordered them.
        note: why it did not, if it was asked to.
    """

    def __init__(
        self, hits: Iterable[Hit], stopped_by: str, *, reranked: bool = False, note: str | None = None
    ) -> None:
        super().__init__(hits)
        self.stopped_by = stopped_by
        self.reranked = reranked
        self.note = note

    @property
    def complete(self) -> bool:
        """Whether these are all that match, beyond doubt."""
        return self.stopped_by == "complete"
