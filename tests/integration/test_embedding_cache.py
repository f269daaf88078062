"""Texts become vectors once: duplicates, and what the database's cache has, are not embedded again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from pgvec_toolkit.database import Database
from pgvec_toolkit.embed import texts
from pgvec_toolkit.embed.registry import register
from pgvec_toolkit.embed.texts import TextCounts, embed_texts
from pgvec_toolkit.errors import RejectedText
from pgvec_toolkit.pool import Connection
from tests.sparse_words import VOCABULARY, SparseWords
from tests.words import WordEmbedder


class Kept(WordEmbedder):
    """One whose vectors are cached."""

    cached = True

    def __init__(self, dimensions: int = 8, salt: str = "") -> None:
        super().__init__(dimensions)
        self.details = {"salt": salt}
        self.calls: list[int] = []

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(len(texts))
        rejected = tuple(at for at, text in enumerate(texts) if text == "poison")
        if rejected:
            raise RejectedText("no", rejected)
        # Numbers that no text form would keep.
        return super().embed_documents(texts) / np.float32(3)


class KeptSparse(SparseWords):
    """One of sparse vectors that are cached."""

    cached = True


@pytest.fixture
def cache(db: Database) -> Iterator[Connection]:
    """A connection to a database that knows the embedders."""
    with db.connection() as connection:
        for embedder in (Kept(), Kept(salt="other"), KeptSparse()):
            register(connection, embedder)
        yield connection


def stored(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM pgvec.embedding_cache").fetchone()
    assert row is not None
    return int(row[0])


def some_texts(count: int) -> list[str]:
    return [f"text {number} " + "and more " * (number * 7 % 13) for number in range(count)]


def test_each_text_is_embedded_once_in_the_order_given() -> None:
    embedder, counts = WordEmbedder(), TextCounts()
    given = [*some_texts(5), *some_texts(3), "last"]
    found = embed_texts(embedder, given, counts=counts)
    assert np.array_equal(found, np.stack([embedder.embed_query(text) for text in given]))
    assert embedder.embedded == [*some_texts(5), "last"]
    assert (counts.embedded, counts.duplicates, counts.cached) == (6, 3, 0)
    assert embed_texts(embedder, []).shape == (0, 64)


def test_a_hit_is_what_was_stored_and_no_other_models(cache: Connection) -> None:
    given, counts = some_texts(20), TextCounts()
    first = embed_texts(Kept(), given, cache)
    again = Kept()
    second = embed_texts(again, [*given, "new"], cache, counts)
    assert np.array_equal(first.view(np.uint32), second[:20].view(np.uint32))
    assert second.dtype == np.float32
    assert again.embedded == ["new"]
    assert (counts.embedded, counts.cached) == (1, 20)
    other = Kept(salt="other")
    embed_texts(other, given, cache)
    assert other.embedded == given
    unregistered = Kept(salt="unknown")
    for _ in range(2):
        embed_texts(unregistered, given, cache)
    assert unregistered.embedded == given * 2
    assert stored(cache) == 41


def test_sparse_vectors_are_kept(cache: Connection) -> None:
    given = [" ".join(VOCABULARY[:count]) for count in range(5)]  # the first has no entry
    first = embed_texts(KeptSparse(), given, cache)
    again = KeptSparse()
    assert embed_texts(again, given, cache) == first == KeptSparse().embed_documents(given)
    assert again.batches == 0


def test_no_cache_for_who_does_not_ask_and_in_transactions(cache: Connection) -> None:
    embed_texts(WordEmbedder(8), some_texts(3), cache)
    with cache.transaction():
        embed_texts(Kept(), some_texts(3), cache)
    assert stored(cache) == 0


def test_what_was_embedded_before_a_failure_is_kept(cache: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_KEPT_AT_ONCE", 4)
    given = [*some_texts(6), "poison", "poison"]  # the shortest: it comes last
    with pytest.raises(RejectedText) as raised:
        embed_texts(Kept(), given, cache)
    assert raised.value.positions == (6, 7)
    assert stored(cache) == 4
    again = Kept()
    embed_texts(again, given[:6], cache)
    assert again.calls == [2]


def test_the_least_recently_used_go_first(cache: Connection) -> None:
    cache.execute("SELECT pgvec.cache_embeddings(4)")
    embed_texts(Kept(), ["a", "b", "c"], cache)
    cache.execute("UPDATE pgvec.embedding_cache SET used_at = used_at - interval '2 days'")
    embed_texts(Kept(), ["b"], cache)  # of use again
    embed_texts(Kept(), ["d", "e", "f"], cache)  # a limit of 4 is looked at each time
    again = Kept()
    embed_texts(again, ["b", "d", "e", "f"], cache)
    assert again.embedded == []
    assert stored(cache) == 4
    assert cache.execute("SELECT pgvec.cache_embeddings(0)").fetchone() == (4,)
    embed_texts(Kept(), ["g"], cache)
    assert stored(cache) == 0


def test_forgotten_by_model_and_by_time(cache: Connection) -> None:
    embed_texts(Kept(), ["a", "b"], cache)
    cache.execute("UPDATE pgvec.embedding_cache SET used_at = '2020-01-01'")
    embed_texts(Kept(salt="other"), ["a"], cache)
    embed_texts(KeptSparse(), ["rotate"], cache)
    rows = cache.execute("SELECT model, embeddings, bytes, most_recently_used::date::text FROM pgvec.cached_embeddings")
    assert ("test/words", 2, 2 * 8 * 4, "2020-01-01") in rows.fetchall()
    forgotten = [
        cache.execute(f"SELECT pgvec.forget_embeddings({arguments})".encode()).fetchone()
        for arguments in ("before => '2021-01-01'", "model => 'nobody'", "model => 'test/sparse'", "")
    ]
    assert forgotten == [(2,), (0,), (1,), (1,)]


def test_two_writers_of_the_same_texts(db: Database, cache: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_KEPT_AT_ONCE", 10)
    cache.execute("SELECT pgvec.cache_embeddings(50)")
    given = some_texts(200)

    def write(order: int) -> NDArray[np.float32]:
        with db.connection() as connection:
            found = [embed_texts(Kept(), given[::order], connection) for _ in range(3)]
        return found[-1][::order]

    with ThreadPoolExecutor(2) as executor:
        one, other = executor.map(write, (1, -1))
    assert np.array_equal(one, other)
    assert stored(cache) <= 50 + 20  # each may have added some while the other was evicting


def test_who_may_not_write_it_embeds_without(cache: Connection) -> None:
    embed_texts(Kept(), ["a"], cache)
    try:
        cache.execute("CREATE ROLE pgvec_test_poor")
        cache.execute("GRANT USAGE ON SCHEMA pgvec TO pgvec_test_poor; GRANT SELECT ON pgvec.models TO pgvec_test_poor")
        cache.execute("SET ROLE pgvec_test_poor")
        poor = Kept()
        embed_texts(poor, ["a", "b"], cache)
        assert poor.embedded == ["a", "b"]
        cache.execute("RESET ROLE; GRANT SELECT ON pgvec.embedding_cache TO pgvec_test_poor; SET ROLE pgvec_test_poor")
        reader = Kept()
        embed_texts(reader, ["a", "b"], cache)
        assert reader.embedded == ["b"]
    finally:
        cache.execute("RESET ROLE")
        cache.execute("DROP OWNED BY pgvec_test_poor; DROP ROLE pgvec_test_poor")
    assert stored(cache) == 1


def test_a_collections_texts_pass_through_it(db: Database) -> None:
    records = [{"id": text, "text": text} for text in ("rotate keys", "cook pasta", "boil water")]
    for name, embedded in (("one", 3), ("two", 0)):
        embedder = Kept()
        docs = db.create_collection(name, embedder=embedder)
        docs.upsert(records, progress=False)
        assert len(embedder.embedded) == embedded
        docs.ingest([*records, {"id": "again", "text": "rotate keys"}], progress=False)
        assert len(embedder.embedded) == embedded
        assert docs.search("cook pasta", k=1)[0].text == "cook pasta"
