"""What a search can be asked beside k and a filter, against brute force: thresholds, pages, groups, diversity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import CollectionNotFound, ConfigurationError
from tests.conftest import random_vectors

Floats = NDArray[Any]
ROWS, DIMENSIONS, K = 3000, 16, 10
NUMBERS = ["cosine", "l2", "inner_product", "l1"]
CATEGORIES = [None if row % 11 == 0 else f"c{row % 7}" for row in range(ROWS)]
SLOTS = np.random.default_rng(3).permutation(ROWS)


def oracle(distance: str, query: Floats, vectors: Floats) -> NDArray[np.float64]:
    """Return distances by the book, in double precision."""
    q, v = query.astype(np.float64), vectors.astype(np.float64)
    if distance == "cosine":
        return 1 - v @ q / (np.linalg.norm(v, axis=1) * np.linalg.norm(q))
    if distance == "l2":
        return np.sqrt(((v - q) ** 2).sum(axis=1))
    if distance == "inner_product":
        return -(v @ q)
    if distance == "jaccard":
        return 1 - np.minimum(v, q).sum(axis=1) / np.maximum(v, q).sum(axis=1)
    return np.abs(v - q).sum(axis=1)


def similarity(distance: str, value: float) -> float:
    if distance in ("l2", "l1"):
        return 1 / (1 + value)
    if distance == "hamming":
        return 1 - value / DIMENSIONS
    return -value if distance == "inner_product" else 1 - value


def ids(hits: list[Any]) -> list[int]:
    return [int(hit.id) for hit in hits]


@dataclass
class Two:
    """The same rows twice: with an index, and without one."""

    indexed: Collection
    flat: Collection
    vectors: Floats
    queries: Floats

    def __iter__(self) -> Iterator[Collection]:
        return iter((self.flat, self.indexed))


@pytest.fixture(scope="module")
def two(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Two]:
    vectors, queries = random_vectors(ROWS, DIMENSIONS), random_vectors(6, DIMENSIONS, seed=5)
    rows = {
        "id": [str(row) for row in range(ROWS)],
        "document_id": [f"d{row % 300}" for row in range(ROWS)],
        "vector": vectors,
        "category": CATEGORIES,
        "slot": SLOTS.tolist(),
        "half": [row % 2 == 0 for row in range(ROWS)],
    }
    with janitor("t_shapes", template), Database(make_conninfo(server_dsn, dbname="t_shapes")) as database:
        collections = []
        for name in ("indexed", "flat"):
            columns = {"category": str, "slot": int, "half": bool, "tags": list}
            docs = database.create_collection(name, dimensions=DIMENSIONS, columns=columns)
            docs.upsert(rows)
            collections.append(docs)
        collections[0].create_index()
        yield Two(collections[0], collections[1], vectors, queries)


# -- thresholds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [*NUMBERS, "hamming", "jaccard"])
def test_thresholds(db: Database, distance: str) -> None:
    vectors, query = random_vectors(400, DIMENSIONS), random_vectors(1, DIMENSIONS, seed=5)[0]
    type = "vector"
    if distance in ("hamming", "jaccard"):
        type, vectors, query = "bit", (vectors > 0).astype(np.uint8), (query > 0).astype(np.uint8)
    docs = db.create_collection("docs", dimensions=DIMENSIONS, distance=distance, type=type, columns={"n": int})
    docs.upsert({"id": [str(row) for row in range(400)], "vector": vectors, "n": list(range(400))})
    truth = np.sort(oracle(distance, query, vectors))
    for index in (False, True):
        if index:
            docs.create_index()
        for wanted in (0, 1, 25, 60):
            steps = np.flatnonzero(np.diff(truth) > 1e-6)
            last = steps[steps >= wanted - 1][0] if wanted else -1
            bound = float((truth[last] + truth[last + 1]) / 2) if wanted else float(truth[0]) - 0.01
            within = int((truth <= bound).sum())
            for options in ({"within": bound}, {"min_similarity": similarity(distance, bound)}):
                for exact in (False, True):
                    given: dict[str, Any] = {**options, "exact": exact, "ef_search": 1000}
                    hits = docs.search(query, 399, **given)
                    assert len(hits) == within, (wanted, given)
                    np.testing.assert_allclose([hit.distance for hit in hits], truth[:within], rtol=1e-5, atol=1e-6)
                    assert [hit.rank for hit in hits] == list(range(1, within + 1))
                    if exact or (within and not index):
                        assert hits.stopped_by == "complete"
                        assert hits.complete
                    else:  # of no rows the library cannot know
                        assert hits.stopped_by == "threshold"
                    assert docs.search_many([query, query], 399, **given) == [hits, hits]
                    assert [found.stopped_by for found in docs.search_many([query], 399, **given)] == [hits.stopped_by]
            if within > 5:
                assert docs.search(query, 5, within=bound).stopped_by == "k"
                few = docs.search(query, 400, {"n": {"$lt": 20}}, within=bound)  # below the gate: exact
                assert len(few) == int((oracle(distance, query, vectors[:20]) <= bound).sum())
                assert not few or few.stopped_by == "complete"
        assert docs.search(query, 400).stopped_by == "k"
        assert docs.search(query, 401).stopped_by == "complete"
        assert docs.search(query, 10, {"n": -1}).stopped_by == "complete"


# -- leaving out, and pages ----------------------------------------------------------------------


def test_exclude(two: Two) -> None:
    for docs in two:
        for where in (None, {"half": True}, {"slot": {"$lt": 40}}):
            plain = docs.search(two.queries[0], 30, where, ef_search=1000)
            out = [hit.id for hit in plain[:25:2]]
            kept = docs.search(two.queries[0], 30, where, exclude=[*out, "unknown"], ef_search=1000)
            assert [hit.id for hit in kept[:17]] == [hit.id for hit in plain if hit.id not in out][:17]
            assert not {hit.id for hit in kept} & set(out)
            assert len(kept) == (30 if where != {"slot": {"$lt": 40}} else 40 - len(out))
            assert docs.search(two.queries[0], 30, where, exclude=[], ef_search=1000) == plain
            assert docs.search(two.queries[0], 30, where, exclude=None, ef_search=1000) == plain
        for call in (docs.search, docs.pages):
            with pytest.raises(ConfigurationError, match="exclude is a list of ids"):
                list(call(two.queries[0], 10, exclude="12"))


@pytest.mark.parametrize("where", [None, {"half": True}, {"slot": {"$lt": 150}}, {"slot": {"$lt": 0}}])
@pytest.mark.parametrize("options", [{}, {"ef_search": 1}, {"diversity": 0.4}])
def test_pages_bring_every_match_once(two: Two, where: Any, options: Any) -> None:
    matching = [
        row
        for row in range(ROWS)
        if where is None or (row % 2 == 0 if "half" in where else SLOTS[row] < where["slot"]["$lt"])
    ]
    for docs in two:
        pages = list(docs.pages(two.queries[1], 170, where, **options))
        found = [row for page in pages for row in ids(page)]
        assert len(found) == len(matching)
        assert sorted(found) == matching
        assert [len(page) for page in pages[:-1]] == [170] * (len(pages) - 1)


def test_pages_go_on_while_rows_are_written(db: Database) -> None:
    vectors = random_vectors(900, DIMENSIONS)
    docs = db.create_collection("docs", dimensions=DIMENSIONS)
    docs.upsert({"id": [str(row) for row in range(600)], "vector": vectors[:600]})
    docs.create_index()
    found: list[int] = []
    for number, page in enumerate(docs.pages(vectors[0], 50)):
        found += ids(page)
        if number < 3:
            new = range(600 + 100 * number, 700 + 100 * number)
            docs.upsert({"id": [str(row) for row in new], "vector": vectors[new.start : new.stop]})
        elif number == 4:
            docs.delete([str(found[0])])
    assert len(found) == len(set(found))
    assert set(range(900)) <= set(found)


def test_a_keyset_over_the_index_loses_rows_where_pages_do_not(db: Database, connection: psycopg.Connection) -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
    docs = db.create_collection("docs", dimensions=32, distance="l2")
    docs.upsert({"id": [str(row) for row in range(2000)], "vector": vectors})
    docs.create_index(m=4, ef_construction=8)
    query = np.random.default_rng(1).normal(size=32).astype(np.float32)
    for setting in ("enable_seqscan = off", "hnsw.ef_search = 2", "hnsw.iterative_scan = relaxed_order"):
        connection.execute(f"SET {setting}".encode())
    connection.execute("SET hnsw.max_scan_tuples = 1000000")
    literal = str(query.tolist())
    statement = (
        "SELECT d.id, v.embedding <-> %s::vector FROM docs_dense v JOIN docs d USING (key)"
        " WHERE (v.embedding <-> %s::vector, d.id) > (%s, %s) ORDER BY v.embedding <-> %s::vector LIMIT 50"
    )
    by_keyset: list[str] = []
    last: tuple[float, str] = (-1.0, "")
    while rows := connection.execute(statement.encode(), [literal, literal, *last, literal]).fetchall():
        by_keyset += [id for id, _ in rows]
        last = max((distance, id) for id, distance in rows)
    assert len(set(by_keyset)) < 2000
    by_pages = [hit.id for page in docs.pages(query, 50, ef_search=2) for hit in page]
    assert len(by_pages) == len(set(by_pages)) == 2000


def test_pages_of_groups_are_refused_or_complete(two: Two) -> None:
    try:
        found = [row for page in two.flat.pages(two.queries[0], 10, group_by="category") for row in ids(page)]
    except ConfigurationError:
        return
    assert sorted(found) == [row for row in range(ROWS) if CATEGORIES[row] is not None]


# -- examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["vector", "halfvec"])
@pytest.mark.parametrize("distance", NUMBERS)
def test_similar(db: Database, type: str, distance: str) -> None:
    vectors = random_vectors(300, DIMENSIONS) * np.linspace(0.5, 2, 300, dtype=np.float32)[:, None]
    vectors = vectors.astype(np.float16).astype(np.float32)
    docs = db.create_collection("docs", dimensions=2)
    docs.upsert({"id": [str(row) for row in range(301)], "vector": np.ones((301, 2))})
    docs.add_space("other", dimensions=DIMENSIONS, type=type, distance=distance)
    docs.set_vectors("other", [str(row) for row in range(300)], vectors)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if distance == "cosine" else vectors
    tolerance = 1e-5 if type == "vector" else 5e-3
    for like, unlike, where_out in (([3], [], []), ([3, 4, 5], [], [7, 8]), ([3], [9], []), ([3, 4], [9, 10, 11], [3])):
        if len(like) == 1 and not unlike:
            query = vectors[like[0]]
        else:
            mean = directions[like].mean(axis=0)
            query = mean + (mean - directions[unlike].mean(axis=0)) if unlike else mean
        truth = oracle(distance, query, vectors)
        truth[[*like, *unlike, *where_out]] = np.inf
        expected = np.sort(truth)[:K]
        given = [[str(row) for row in rows] for rows in (like, unlike, where_out)]
        hits = docs.similar(given[0], K, unlike=given[1], exclude=given[2], space="other", exact=True)
        np.testing.assert_allclose([hit.distance for hit in hits], expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose([truth[row] for row in ids(hits)], expected, rtol=tolerance, atol=tolerance)
    assert docs.similar("3", K, space="other") == docs.similar(["3"], K, space="other")
    with pytest.raises(ConfigurationError, match="no chunk '300' in vector space 'other'"):
        docs.similar("300", space="other")


@pytest.mark.parametrize("type", ["bit", "sparsevec"])
def test_similar_of_types_without_a_mean(db: Database, type: str) -> None:
    vectors = random_vectors(100, DIMENSIONS)
    docs = db.create_collection("docs", dimensions=DIMENSIONS, type=type)
    docs.upsert({"id": list(range(100)), "vector": vectors > 0 if type == "bit" else vectors})
    found = docs.similar("4", 5)
    assert found == docs.search(vectors[4] > 0 if type == "bit" else vectors[4], 5, exclude=["4"])
    for given in ({"ids": ["4", "5"]}, {"ids": "4", "unlike": "5"}):
        with pytest.raises(ConfigurationError, match=f"vectors of type {type} cannot be averaged"):
            docs.similar(**given)


def test_similar_with_options_and_without_an_answer(two: Two) -> None:
    for docs in two:
        hits = docs.similar("3", 5, {"half": True}, group_by="category", within=0.9, ef_search=1000)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        assert all(row % 2 == 0 for row in ids(hits))
        for like, unlike, problem in (
            (["unknown"], [], "'indexed' has no chunk 'unknown'|'flat' has no chunk 'unknown'"),
            (["3"], ["unknown"], "has no chunk 'unknown'"),
            ([], ["3"], "needs the id of at least one"),
        ):
            with pytest.raises(ConfigurationError, match=problem):
                docs.similar(like, unlike=unlike)
        with pytest.raises(CollectionNotFound):
            docs.similar("3", space="none")


def test_examples_that_cancel_each_other_out_have_no_direction(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=2)
    docs.upsert({"id": ["a", "b", "c"], "vector": [[1, 0], [-1, 0], [0, 1]]})
    with pytest.raises(ConfigurationError):
        docs.similar(["a", "b"])


# -- groups --------------------------------------------------------------------------------------


def groups_of(by: str) -> list[Any]:
    if by == "document":
        return [f"d{row % 300}" for row in range(ROWS)]
    return {"category": CATEGORIES, "slot": SLOTS.tolist(), "half": [row % 2 == 0 for row in range(ROWS)]}[by]


def grouped(truth: Floats, by: str, size: int, k: int, mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (row, rank of its group) by brute force."""
    value = groups_of(by)
    members: dict[Any, list[int]] = {}
    for row in np.argsort(truth, kind="stable").tolist():
        if mask[row] and value[row] is not None:
            members.setdefault(value[row], []).append(row)
    return [(row, rank) for rank, rows in enumerate(list(members.values())[:k], 1) for row in rows[:size]]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("by", "k"), [("document", 10), ("document", 400), ("category", 4), ("category", 20), ("half", 2), ("slot", 5)]
)
def test_groups(two: Two, by: str, k: int, size: int) -> None:
    everything = np.ones(ROWS, dtype=bool)
    for query in two.queries[:2]:
        truth = oracle("cosine", query, two.vectors)
        near = float(np.sort(truth)[59:61].mean())
        for where, within, mask in (
            (None, None, everything),
            ({"slot": {"$lt": 1500}}, None, SLOTS < 1500),
            ({"slot": {"$lt": 30}}, None, SLOTS < 30),
            (None, near, truth <= near),
            ({"half": False}, near, (truth <= near) & (np.arange(ROWS) % 2 == 1)),
        ):
            expected = grouped(truth, by, size, k, mask)
            for docs in two:
                hits = docs.search(query, k, where, group_by=by, group_size=size, within=within, ef_search=1000)
                found = [(int(hit.id), hit.rank) for hit in hits]
                assert found == expected, (docs.name, where, within)
                full = len({rank for _, rank in expected}) == k
                assert hits.stopped_by in (
                    ("k",) if full else ("complete",) if within is None else ("complete", "threshold")
                )


# -- diversity -----------------------------------------------------------------------------------


def diverse(distance: str, query: Floats, vectors: Floats, k: int, diversity: float) -> list[int]:
    """Return maximal marginal relevance over the pool that search takes."""
    truth = oracle(distance, query, vectors)
    pool = np.argsort(truth, kind="stable")[: max(4 * k, 40)]
    relevance = np.asarray([similarity(distance, value) for value in truth[pool]])
    redundancy = np.zeros(len(pool))
    chosen: list[int] = []
    for step in range(min(k, len(pool))):
        score = (1 - diversity) * relevance - diversity * redundancy
        score[chosen] = -np.inf
        chosen.append(int(score.argmax()))
        last = np.asarray(
            [similarity(distance, value) for value in oracle(distance, vectors[pool[chosen[-1]]], vectors[pool])]
        )
        redundancy = np.maximum(redundancy, last) if step else last
    return pool[chosen].tolist()


@pytest.mark.parametrize("distance", NUMBERS)
@pytest.mark.parametrize("type", ["vector", "halfvec", "sparsevec"])
def test_diversity(db: Database, type: str, distance: str) -> None:
    vectors = random_vectors(200, DIMENSIONS).astype(np.float16).astype(np.float32)
    query = (vectors[0] + vectors[1]).astype(np.float16).astype(np.float32)
    docs = db.create_collection("docs", dimensions=DIMENSIONS, type=type, distance=distance)
    docs.upsert({"id": [str(row) for row in range(200)], "vector": vectors})
    for k in (1, 7, 30, 300):
        for diversity in (0.0, 0.3, 0.7):
            hits = docs.search(query, k, diversity=diversity)
            expected = diverse(distance, query, vectors, k, diversity)
            assert ids(hits)[:30] == expected[:30]  # far down the scores are equal but for rounding
            assert sorted(ids(hits)) == sorted(expected)
            assert [hit.rank for hit in hits] == list(range(1, min(k, 200) + 1))
            assert hits.stopped_by == ("k" if k <= 200 else "complete")
        assert ids(docs.search(query, k, diversity=0)) == ids(docs.search(query, k))
    assert docs.search(query, 7, where_sql="false", diversity=0.5) == []


def test_diversity_with_an_index(two: Two) -> None:
    for query in two.queries:
        hits = two.indexed.search(query, K, diversity=0.5, ef_search=1000)
        assert (
            ids(hits) == diverse("cosine", query, two.vectors, K, 0.5) == ids(two.flat.search(query, K, diversity=0.5))
        )
        mask = SLOTS < 1500
        expected = np.flatnonzero(mask)[diverse("cosine", query, two.vectors[mask], K, 0.5)]
        assert (
            ids(two.indexed.search(query, K, {"slot": {"$lt": 1500}}, diversity=0.5, ef_search=1000))
            == expected.tolist()
        )


# -- many at once, and conditions in SQL -----------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"where": {"slot": {"$lt": 1500}}},
    {"where": {"slot": {"$lt": 20}}},
    {"ef_search": 15},
    {"exact": True},
    {"oversampling": 3.0},
    {"within": 0.3},
    {"min_similarity": 0.7, "where": {"half": True}},
    {"within": -1.0},
    {"exclude": [str(row) for row in range(0, ROWS, 3)]},
    {"exclude": ["1"], "where": {"category": "c2"}},
    {"group_by": "document", "group_size": 2},
    {"group_by": "category", "group_size": 3, "where": {"half": True}, "within": 0.8},
    {"diversity": 0.6},
    {"where_sql": "d.slot % ($3 ->> 'of')::bigint = 0", "parameters": {"of": 3}},
    {"where_sql": "d.half -- a comment", "where": {"slot": {"$gte": 100}}, "exclude": ["2"], "diversity": 0.2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
def test_many_searches_are_what_one_by_one_finds(two: Two, options: dict[str, Any]) -> None:
    for docs in two:
        one_by_one = [docs.search(query, K, **options) for query in two.queries]
        many = docs.search_many(two.queries, K, **options)
        assert many == one_by_one
        assert [hits.stopped_by for hits in many] == [hits.stopped_by for hits in one_by_one]
    assert docs.search_many([], K, **options) == []


def test_many_of_no_queries_in_sql(two: Two) -> None:
    rows = two.flat._database.fetch("SELECT * FROM pgvec.search_many('flat', '{}'::text[])")
    assert rows == []


@pytest.mark.parametrize("rows", [30, 300, 2500])
def test_a_condition_in_sql(two: Two, rows: int) -> None:
    truth = np.where(rows > SLOTS, oracle("cosine", two.queries[0], two.vectors), np.inf)
    for docs in two:
        options: dict[str, Any] = {"where_sql": "d.slot < ($3 ->> 'rows')::bigint", "parameters": {"rows": rows}}
        assert ids(docs.search(two.queries[0], K, ef_search=1000, **options)) == np.argsort(truth)[:K].tolist()
        both = docs.search(two.queries[0], K, {"half": True}, ef_search=1000, **options)
        assert ids(both) == [row for row in np.argsort(truth)[:rows].tolist() if row % 2 == 0][:K]
        by_sql = docs._database.fetch(
            "SELECT id FROM pgvec.search($1, $2::text, ef_search => 1000, where_sql => $3, parameters => $4)",
            [docs.name, str(two.queries[0].tolist()), options["where_sql"], Jsonb(options["parameters"])],
        )
        assert [int(id) for (id,) in by_sql] == np.argsort(truth)[:K].tolist()


WRONG = [
    ({"within": 0.1, "min_similarity": 0.1}, "two ways to say the same"),
    ({"group_by": "document", "diversity": 0.1}, "cannot be combined"),
    ({"group_by": "nothing"}, "cannot group by 'nothing'"),
    ({"group_by": "tags"}, "cannot group by 'tags'"),
    ({"group_by": "id"}, "cannot group by 'id'"),
    ({"group_by": "document", "group_size": 0}, "group_size must be from 1"),
    ({"group_size": 2}, "group_by"),
    ({"diversity": 1.1}, "diversity must be from 0 to 1"),
    ({"diversity": float("nan")}, "diversity must be from 0 to 1"),
    ({"oversampling": 0.5}, "oversampling must be from 1"),
    ({"ef_search": 0}, "ef_search must be from 1"),
]


@pytest.mark.parametrize(
    ("options", "problem"), WRONG, ids=lambda value: "+".join(value) if isinstance(value, dict) else ""
)
def test_what_does_not_go_together_is_refused(two: Two, options: dict[str, Any], problem: str) -> None:
    for call in (
        two.indexed.search,
        two.indexed.explain,
        lambda query, **given: two.flat.search_many([query], **given),
    ):
        with pytest.raises(ConfigurationError, match=problem) as caught:
            call(two.queries[0], **options)
        assert isinstance(caught.value.__cause__, psycopg.Error)
        assert caught.value.__cause__.sqlstate == "PV005"


def test_what_no_statement_could_be_made_of_is_refused(two: Two) -> None:
    for given, problem in (
        ({"k": 0}, "k must be"),
        ({"k": 10_001}, "k must be"),
        ({"limit": 3}, "unknown search option 'limit'"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            two.flat.search(two.queries[0], **given)
    assert len(two.flat.search(two.queries[0], np.int64(3))) == 3
