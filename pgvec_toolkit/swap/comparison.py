"""How the searches of two vector spaces of a collection differ: what both find, and what judged queries say."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from psycopg import sql

from pgvec_toolkit.embed import base as embedding
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.evaluate.beir import Qrels, read_queries
from pgvec_toolkit.evaluate.bootstrap import interval
from pgvec_toolkit.evaluate.evaluation import Row, Searched, evaluate
from pgvec_toolkit.ingest.document import CONTEXT, embedded_text
from pgvec_toolkit.progress import progress_bar
from pgvec_toolkit.tune.queries import sampled

if TYPE_CHECKING:
    from pgvec_toolkit.embed.base import Embedder
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space
    from pgvec_toolkit.search.hit import Hits

_LONGEST_QUERY = 300  # characters
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n")


class Comparable(Searched, Protocol):
    """What is compared: a `Collection`, as far as it is needed here."""

    @property
    def similar(self) -> Callable[..., Hits]:
        """See `Collection.similar`."""


@dataclass(frozen=True)
class Comparison:
    """How the searches of the new space differ from those of the old one.

    Attributes:
        k: how many hits were compared.
        queries: how many were asked.
        source: of the queries: "given"; "stored", the first sentences of stored chunks; "vectors", stored vectors.
        overlap: mean share of the hits that both have.
        overlap_low: lower end of its 95 % interval.
        overlap_high: upper end.
        same_first: share of the queries of which both have the same first hit.
        milliseconds_before: mean time of a search in the old space, the embedding of its query included.
        milliseconds_after: in the new one.
        truncated: share of stored chunks that are longer than the new model reads; None if it does not say.
        judged: nDCG and the like of both, if judged queries were given: the second mode is the new space.
    """

    k: int
    queries: int
    source: str
    overlap: float
    overlap_low: float
    overlap_high: float
    same_first: float
    milliseconds_before: float
    milliseconds_after: float
    truncated: float | None = None
    judged: tuple[Row, ...] = ()

    @property
    def is_surely_worse(self) -> bool:
        """Whether the judged queries say that the new space finds less: the interval of the nDCG lies below 0."""
        return any(
            row.metric.startswith("ndcg") and row.difference_high is not None and row.difference_high < 0
            for row in self.judged
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Comparison:
        """Return what `to_dict` returned."""
        return cls(**{**plain, "judged": tuple(Row(**row) for row in plain["judged"])})


@dataclass(frozen=True)
class Asked:
    """What to compare by.

    Attributes:
        queries: query id to text, or the path of a queries.jsonl; None: sentences of stored chunks.
        qrels: judgements of them, or their path.
        k: how many hits to compare.
        sample: how many stored chunks to draw.
    """

    queries: Mapping[str, str] | str | Path | None = None
    qrels: Qrels | str | Path | None = None
    k: int = 10
    sample: int = 200

    def __post_init__(self) -> None:
        if self.qrels is not None and self.queries is None:
            raise ConfigurationError("qrels are judgements of queries: give these, too")
        if self.k < 1 or self.sample < 1:
            raise ConfigurationError(f"k and sample are at least 1, not {self.k} and {self.sample}")

    def texts(self) -> list[str] | None:
        """Return the queries that were given, read if need be."""
        given = read_queries(self.queries) if isinstance(self.queries, str | Path) else self.queries
        return None if given is None else list(given.values())


@dataclass(frozen=True)
class _Query:
    text: str | None  # None: its chunk's vectors are
    chunk: str | None  # that it is from, and must not find


def compare(
    collection: Comparable,
    connection: Connection,
    old: Space,
    new: Space,
    embedder: Embedder,
    asked: Asked,
    progress: bool | None,
) -> Comparison | None:
    """Search both spaces for the same; None if there is nothing to search for."""
    given = asked.texts()
    stored = _stored(connection, new, asked.sample)
    truncated = _truncated(embedder, [_whole(text, context) for _, text, context in stored])
    if given is not None:
        source, queries = "given", [_Query(text, None) for text in given]
    elif old.model is None:
        source, queries = "vectors", [_Query(None, id) for id, *_ in stored]
    else:
        source, queries = "stored", [_Query(_sentence(text), id) for id, text, _ in stored if _sentence(text)]
    if not queries:
        return None
    found, seconds = [], []
    with progress_bar(f"comparing {old.name} and {new.name}", len(queries), progress) as advance:
        for query in queries:
            both = [_search(collection, query, asked.k, space.name) for space in (old, new)]
            found.append([ids for ids, _ in both])
            seconds.append([took for _, took in both])
            advance(1)
    overlaps = np.array([len({*before} & {*after}) / max(1, len(before), len(after)) for before, after in found])
    low, high = interval(overlaps[:, None])
    before_ms, after_ms = (np.mean(seconds, axis=0) * 1000).tolist()
    return Comparison(
        asked.k,
        len(queries),
        source,
        float(overlaps.mean()),
        float(low[0]),
        float(high[0]),
        float(np.mean([before[:1] == after[:1] for before, after in found])),
        before_ms,
        after_ms,
        truncated,
        _judged(collection, old, new, asked, progress),
    )


def _stored(connection: Connection, new: Space, count: int) -> list[tuple[str, str, str | None]]:
    """Return id, text and context of stored chunks, drawn at random: the same ones each time."""
    keys = sampled(connection, new, count, same=True).own_keys.tolist()
    statement = sql.SQL(r"SELECT id, text, metadata ->> {} FROM {} WHERE key = ANY (%s) AND text ~ '\S' ORDER BY key")
    rows: list[tuple[str, str, str | None]] = connection.execute(
        statement.format(sql.Literal(CONTEXT), new.chunks), [keys]
    ).fetchall()
    return rows


def _sentence(text: str) -> str:
    """Return the first sentence: shorter than a chunk, as what people ask is."""
    return _SENTENCE.split(text.strip(), maxsplit=1)[0][:_LONGEST_QUERY].strip()


def _whole(text: str, context: str | None) -> str:
    return embedded_text(text, {CONTEXT: context})


def _truncated(embedder: Embedder, texts: Sequence[str]) -> float | None:
    tokenizer, limit = embedding.tokenizer(embedder), embedding.max_tokens(embedder)
    if tokenizer is None or limit is None or not texts:
        return None
    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    return float(np.mean(np.array(lengths) > limit))


def _search(collection: Comparable, query: _Query, k: int, space: str) -> tuple[list[str], float]:
    """Return the ids of k chunks, and the seconds that it took."""
    began = time.perf_counter()
    if query.text is None:
        hits = collection.similar(str(query.chunk), k, space=space)
    else:
        hits = collection.search(query.text, k + (query.chunk is not None), space=space)
    seconds = time.perf_counter() - began
    return [hit.id for hit in hits if hit.id != query.chunk][:k], seconds


def _judged(collection: Searched, old: Space, new: Space, asked: Asked, progress: bool | None) -> tuple[Row, ...]:
    if asked.qrels is None or asked.queries is None:
        return ()
    modes = {space.name: f"space:{space.name}" for space in (old, new)}
    depth = max(100, asked.k)
    judged = evaluate(collection, asked.queries, asked.qrels, modes=modes, k=asked.k, depth=depth, progress=progress)
    return tuple(judged.table())
