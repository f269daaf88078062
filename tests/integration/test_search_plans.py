"""Filtered searches of 20,000 rows: which way they go, by their plans, and that they never starve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
from tests.conftest import random_vectors
from tests.integration.search_oracle import K, by_index, course, distances_to, explain, literal, nodes, part, reads

ROWS, DIMENSIONS, FAR = 20_000, 16, 4_000


@dataclass
class Big:
    """A collection that is large enough for the planner to want its index; max_size is 1: one session for all."""

    docs: Collection
    dsn: str
    vectors: NDArray[np.float32]
    anchor: NDArray[np.float32]
    slot: NDArray[np.int64]
    farness: NDArray[np.int64]


@pytest.fixture(scope="module")
def indexed(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Callable[[str, str], Big]]:
    """Makes collections of the same rows, as indexed(name, method)."""
    stored = random_vectors(ROWS, DIMENSIONS)
    anchor = stored[0]
    random = np.random.default_rng(4)
    slot = random.permutation(ROWS)
    farness = np.empty(ROWS, dtype=np.int64)
    farness[np.argsort(distances_to("cosine", anchor, stored), kind="stable")] = np.arange(ROWS)
    with janitor("t_search_big", template), ExitStack() as stack:
        dsn = make_conninfo(server_dsn, dbname="t_search_big")

        def make(name: str, method: str) -> Big:
            with Database(dsn) as database:
                docs = database.create_collection(name, dimensions=DIMENSIONS, columns={"slot": int, "farness": int})
                docs.upsert(
                    {
                        "id": [str(number) for number in range(ROWS)],
                        "vector": stored,
                        "slot": slot.tolist(),
                        "farness": farness.tolist(),
                        "metadata": [{"slot": int(number), "few": int(number) // 40} for number in slot],
                    },
                    connections=1,  # rows lie in their order, and what a search samples of them is the same each time
                )
                docs.create_index(method, **({"m": 16, "ef_construction": 64} if method == "hnsw" else {}))
            database = stack.enter_context(Database(dsn, max_size=1))
            return Big(database.collection(name), dsn, stored, anchor, slot, farness)

        yield make


@pytest.fixture(scope="module")
def big(indexed: Callable[[str, str], Big]) -> Big:
    return indexed("docs", "hnsw")


@pytest.fixture(scope="module")
def flat(indexed: Callable[[str, str], Big]) -> Big:
    return indexed("flat", "ivfflat")


MODES = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])


@MODES
def test_an_unfiltered_search_uses_the_index(big: Big, mode: str) -> None:
    plan = explain(big.docs, big.anchor, None, mode=mode)
    went = course(plan)
    assert (went.look, went.further, went.exact) == (None, 1, 0)
    (scan,) = by_index(plan, "docs_dense_hnsw")
    assert scan["Actual Rows"] == K
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Actual Loops"]]


@MODES
@pytest.mark.parametrize("where", [None, {"slot": {"$lt": 100}}, {"slot": {"$lt": 15_000}}, {"few": 7}])
def test_no_parallel_workers_are_planned(big: Big, mode: str, where: Any) -> None:
    with psycopg.connect(big.dsn, autocommit=True) as connection:
        connection.execute("ALTER DATABASE t_search_big SET parallel_setup_cost = 0")
        connection.execute("ALTER DATABASE t_search_big SET parallel_tuple_cost = 0")
        connection.execute("ALTER DATABASE t_search_big SET min_parallel_table_scan_size = 0")
    try:
        plan = explain(big.docs, big.anchor, where, mode=mode)
    finally:
        with psycopg.connect(big.dsn, autocommit=True) as connection:
            connection.execute("ALTER DATABASE t_search_big RESET ALL")
    assert not [node for node in nodes(plan) if node["Node Type"].startswith("Gather") or "Workers Planned" in node]


# -- the four courses of a filtered search -----------------------------------------------------------


@MODES
@pytest.mark.parametrize(("where", "matches"), [({"slot": {"$lt": 200}}, 200), ({"slot": -5}, 0), ({"few": 7}, 40)])
def test_few_matches_never_touch_the_vector_index(big: Big, mode: str, where: Any, matches: int) -> None:
    went = course(explain(big.docs, big.anchor, where, mode=mode))
    assert (went.look, went.further) == (0, 0)
    assert went.exact == matches  # each is looked up, and nothing else


@MODES
@pytest.mark.parametrize("where", [{"slot": {"$lt": 15_000}}, {"slot": {"$lt": 8000}}, {"farness": {"$lt": FAR}}])
def test_of_many_matches_the_first_look_finds_enough(big: Big, mode: str, where: Any) -> None:
    plan = explain(big.docs, big.anchor, where, mode=mode)
    went = course(plan)
    assert (went.look, went.further, went.exact) == (1, 0, 0)
    assert part(plan, "look_matches")["Actual Rows"] >= K
    for node in nodes(plan):
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "docs_dense":
            assert node["Actual Loops"] == 0


@MODES
def test_matches_a_little_further_are_scanned_for(big: Big, mode: str) -> None:
    """The five hundred nearest do not match, nearly all others do: the first look, which is short, finds nothing."""
    plan = explain(big.docs, big.anchor, {"$not": {"farness": {"$lt": 500}}}, mode=mode)
    went = course(plan)
    assert (went.look, went.further, went.exact) == (1, 1, 0)
    assert part(plan, "look_matches")["Actual Rows"] < K
    assert part(plan, "second_look_matches")["Actual Rows"] >= K


@MODES
def test_matches_far_away_are_sorted(big: Big, mode: str) -> None:
    """A fifth matches, all of it at the other end: to scan until there would cost more than to compare all."""
    plan = explain(big.docs, big.anchor, {"farness": {"$gte": ROWS - FAR}}, mode=mode)
    went = course(plan)
    assert (went.look, went.further, went.exact) == (1, 0, FAR)


@MODES
def test_few_matches_that_no_index_finds_are_scanned_for_and_then_sorted(big: Big, mode: str) -> None:
    """To find them all takes a look at all rows: a look at the nearest comes first."""
    where = {"few": {"$lt": 2}}
    went = course(explain(big.docs, big.anchor, where, mode=mode))
    assert (went.look, went.exact) == (1, 80)
    (all_rows, _) = reads(big.docs, big.anchor, where, mode=mode)
    assert all_rows == 1


@MODES
@pytest.mark.parametrize("where", [{"slot": {"$lt": 200}}, {"slot": {"$lt": 15_000}}, {"few": 7}])
def test_the_share_is_judged_by_a_few_rows(big: Big, mode: str, where: Any) -> None:
    sample = part(explain(big.docs, big.anchor, where, mode=mode), "sample")
    (scan,) = (node for node in nodes(sample) if node.get("Relation Name") == "docs")
    assert scan["Node Type"] == "Tid Scan"
    assert 120 <= scan["Actual Rows"] <= 128  # the last page may hold one row only
    assert not [node for node in nodes(sample) if node["Node Type"] == "Sort"]


@MODES
@pytest.mark.parametrize(
    ("where", "matches"), [({"slot": {"$lt": 150}}, 150), ({"slot": 77}, 1), ({"slot": {"$in": [1, 2, 3]}}, 3)]
)
def test_the_index_of_a_typed_column_finds_the_matches(big: Big, mode: str, where: Any, matches: int) -> None:
    all_rows, entries = reads(big.docs, big.anchor, where, mode=mode)
    assert all_rows == 0
    assert matches <= entries["docs_slot_key_idx"] < 3 * matches + 10


@MODES
@pytest.mark.parametrize("where", [{"few": 7}, {"few": {"$eq": 7}}, {"$and": [{"few": 7}, {"slot": {"$gte": 0}}]}])
def test_the_gin_index_finds_what_is_equal_in_metadata(big: Big, mode: str, where: Any) -> None:
    all_rows, entries = reads(big.docs, big.anchor, where, mode=mode)
    assert all_rows == 0
    assert 40 <= entries["docs_metadata_idx"] < 100
    assert entries["docs_slot_key_idx"] < 100  # though all rows fulfil the condition on it


# -- and they never starve -------------------------------------------------------------------------

FILTERS: dict[str, tuple[dict[str, Any], Callable[[Big], NDArray[np.bool_]]]] = {
    "50 %": ({"slot": {"$lt": 10_000}}, lambda big: big.slot < 10_000),
    "20 %": ({"slot": {"$lt": 4_000}}, lambda big: big.slot < 4_000),
    "10 %": ({"slot": {"$lt": 2_000}}, lambda big: big.slot < 2_000),
    "1 %": ({"slot": {"$lt": 200}}, lambda big: big.slot < 200),
    "0.1 %": ({"slot": {"$lt": 20}}, lambda big: big.slot < 20),
    "7 rows": ({"slot": {"$in": [1, 2, 3, 5, 8, 13, 21]}}, lambda big: np.isin(big.slot, [1, 2, 3, 5, 8, 13, 21])),
    "1 row": ({"slot": 5}, lambda big: big.slot == 5),
    "0 rows": ({"slot": -5}, lambda big: big.slot < 0),
    "far away": ({"farness": {"$gte": ROWS - FAR}}, lambda big: big.farness >= ROWS - FAR),
    "far away, few": ({"farness": {"$gte": ROWS - 50}}, lambda big: big.farness >= ROWS - 50),
    "near by": ({"farness": {"$lt": FAR}}, lambda big: big.farness < FAR),
    "not the nearest": ({"$not": {"farness": {"$lt": 500}}}, lambda big: big.farness >= 500),
    "metadata": ({"few": {"$lt": 250}}, lambda big: big.slot // 40 < 250),
    "metadata, a range of few": ({"few": {"$lt": 2}}, lambda big: big.slot // 40 < 2),
    "metadata, a range of none": ({"few": {"$lt": -1}}, lambda big: big.slot < 0),
    "metadata, few": ({"few": 3}, lambda big: big.slot // 40 == 3),
}


@pytest.mark.parametrize("through", ["python", "sql"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filtered_search_never_starves(big: Big, name: str, through: str) -> None:
    where, matching = FILTERS[name]
    mask = matching(big)
    near_anchor = big.anchor + 0.05 * np.random.default_rng(6).normal(size=(7, DIMENSIONS)).astype(np.float32)
    # About the anchor is what "far" and "near" are about; the others come from anywhere.
    queries = np.concatenate([near_anchor, random_vectors(7, DIMENSIONS, seed=8)])
    shares = []
    for query in queries:  # more than 5 + 5 times: by then everything is prepared, and its plan generic
        if through == "python":
            hits = big.docs.search(query, K, where)
            found = np.asarray([hit.distance for hit in hits])
            assert all(mask[int(hit.id)] for hit in hits)
            assert hits.stopped_by == ("k" if mask.sum() >= K else "complete")
        else:
            with big.docs._database.connection() as connection:
                rows = connection.execute(
                    "SELECT distance, id FROM pgvec.search('docs', %s, %s, %s)", [literal(query), K, Jsonb(where)]
                ).fetchall()
            found = np.asarray([distance for distance, _ in rows])
            assert all(mask[int(id)] for _, id in rows)
        truth = np.sort(distances_to("cosine", query, big.vectors[mask]))[:K]
        assert len(found) == len(truth) == min(K, int(mask.sum()))
        if len(truth):
            shares.append((found <= truth[-1] + 1e-6).mean())
    assert not shares or np.mean(shares) >= 0.85


@pytest.mark.parametrize("k", [1, 100, 1000])
@pytest.mark.parametrize("name", ["50 %", "1 %", "far away"])
def test_a_filtered_search_for_another_number(big: Big, name: str, k: int) -> None:
    where, matching = FILTERS[name]
    mask = matching(big)
    hits = big.docs.search(big.anchor, k, where)
    assert len({hit.id for hit in hits}) == len(hits) == min(k, int(mask.sum()))
    truth = np.sort(distances_to("cosine", big.anchor, big.vectors[mask]))[:k]
    assert np.mean([hit.distance <= truth[-1] + 1e-6 for hit in hits]) >= 0.85


@pytest.mark.parametrize("name", ["50 %", "far away", "not the nearest", "metadata, a range of few"])
def test_the_most_that_can_be_asked_for(big: Big, name: str) -> None:
    where, matching = FILTERS[name]
    hits = big.docs.search(big.anchor, 10_000, where, oversampling=1000)
    assert len(hits) == min(10_000, int(matching(big).sum()))


@pytest.mark.parametrize("name", ["50 %", "1 %", "0 rows", "far away", "near by", "not the nearest", "metadata"])
def test_neither_does_one_of_an_ivfflat_index(flat: Big, name: str) -> None:
    where, matching = FILTERS[name]
    mask = matching(flat)
    shares = []
    for query in [flat.anchor, *random_vectors(7, DIMENSIONS, seed=8)]:
        hits = flat.docs.search(query, K, where)
        truth = np.sort(distances_to("cosine", query, flat.vectors[mask]))[:K]
        assert all(mask[int(hit.id)] for hit in hits)
        assert len(hits) == len(truth)
        shares += [hit.distance <= truth[-1] + 1e-6 for hit in hits]
    assert not shares or np.mean(shares) >= 0.75


@MODES
def test_an_ivfflat_index_goes_the_same_ways(flat: Big, mode: str) -> None:
    def went(where: Any) -> tuple[int | None, int, int]:
        found = course(explain(flat.docs, flat.anchor, where, mode=mode), "flat_dense_ivfflat", "flat_dense_pkey")
        return found.look, found.further, found.exact

    assert went(None) == (None, 1, 0)
    assert went({"slot": {"$lt": 15_000}}) == (1, 0, 0)
    assert went({"slot": {"$lt": 20}}) == (0, 0, 20)


@pytest.mark.parametrize("through", ["python", "sql"])
@pytest.mark.parametrize("name", ["50 %", "1 %", "far away", "not the nearest", "metadata, a range of few"])
def test_pages_leave_nothing_out(big: Big, name: str, through: str) -> None:
    where, matching = FILTERS[name]
    mask = matching(big)
    found: list[str] = []
    for _ in range(12):
        if through == "python":
            page = [hit.id for hit in big.docs.search(big.anchor, K, where, exclude=found)]
        else:
            statement = "SELECT id FROM pgvec.search('docs', $1::text, 10, $2, exclude => $3::text[]) ORDER BY rank"
            page = [id for (id,) in big.docs._database.fetch(statement, [literal(big.anchor), Jsonb(where), found])]
        assert len(page) == min(K, int(mask.sum()) - len(found))
        found += page
    assert len(set(found)) == len(found)
    truth = np.sort(distances_to("cosine", big.anchor, big.vectors[mask]))[: len(found)]
    distances = distances_to("cosine", big.anchor, big.vectors[[int(id) for id in found]])
    assert (distances <= truth[-1] + 1e-6).mean() >= 0.85
