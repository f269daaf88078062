"""The filters of tests.bench.filters, and the collection they are for.

Clusters are those of the embeddings, by k-means, numbered along the direction in which the clusters differ most:
a range of them is a region of the space. So there are filters that let through what lies near a query, or far from
it. Each package has a `lot`, too, drawn without looking at anything: `lot < n` matches n packages, anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

import pgvec_toolkit as pgvec
from tests.bench import debian

NAME = "bench_filters"
COLUMNS = {**debian.COLUMNS, "cluster": int, "lot": int}
METADATA = ("priority", "maintainer", "version", "installed_kib", "homepage")
CLUSTERS = 64
# In a filter and in the values of its SQL they stand for clusters as seen from the query: the one it lies in, the
# one furthest from it, and lists of the 8 nearest and the 8 furthest.
OWN, FURTHEST, NEAR, FAR = "<own>", "<furthest>", "<near>", "<far>"


@dataclass(frozen=True)
class Case:
    """A filter, and the same by hand.

    Attributes:
        name: what the report calls it.
        where: pgvec's filter.
        predicate: SQL over the chunk table `d`; its first value is $2.
        values: of the predicate; texts, numbers, lists, or dicts for jsonb.
        asked_from: the first and last of the clusters that the queries lie in; None: any.
    """

    name: str
    where: dict[str, Any]
    predicate: str
    values: list[Any]
    asked_from: tuple[int, int] | None = None


def _lots() -> list[Case]:
    return [
        Case(f"lot < {n}", {"lot": {"$lt": n}}, "d.lot < $2", [n])
        for n in (63440, 31720, 12688, 6344, 3172, 1269, 634, 190, 63, 6)
    ]


def _sections() -> list[Case]:
    names = ("libs", "python", "games", "math", "hamradio", "gnustep", "zope")
    few, many = ["shells", "news", "zope"], ["libs", "libdevel", "python", "doc", "perl"]
    return [
        *(Case(f"section = {name}", {"section": name}, "d.section = $2", [name]) for name in names),
        Case("section <> libs", {"section": {"$ne": "libs"}}, "d.section IS DISTINCT FROM $2", ["libs"]),
        Case("section in 5 large", {"section": {"$in": many}}, "d.section = ANY ($2)", [many]),
        Case("section in 3 small", {"section": {"$in": few}}, "d.section = ANY ($2)", [few]),
    ]


def _sizes() -> list[Case]:
    limits = ((0, 2 * 10**9), (1000, 10000), (10**6, 2 * 10**6), (10**8, 2 * 10**9), (0, 900), (5 * 10**8, 2 * 10**9))
    return [
        Case(
            f"size from {low:.0e} to {high:.0e}",
            {"size": {"$gte": low, "$lte": high}},
            "d.size BETWEEN $2 AND $3",
            [low, high],
        )
        for low, high in limits
    ]


def _tags() -> list[Case]:
    names = ("role::program", "uitoolkit::qt", "network::server", "devel::editor")
    some = ["works-with::text", "works-with::audio", "made-of::html"]
    return [
        *(Case(f"tag {name}", {"tags": name}, "d.tags @> ARRAY[$2::text]", [name]) for name in names),
        Case("any of 3 tags", {"tags": {"$in": some}}, "d.tags && $2::text[]", [some]),
    ]


def _metadata() -> list[Case]:
    teams = ["Debian Med Packaging Team", "Debian QA Group", "Debian Printing Team"]
    kib = "(d.metadata ->> 'installed_kib')::bigint"
    pairs = (
        ("priority", "optional"),
        ("maintainer", "Debian Perl Group"),
        ("version", "3.73"),
        ("maintainer", "Debian Printing Team"),
        ("maintainer", "Stefano Rivera"),
    )
    return [
        *(Case(f"metadata {key} = {value}", {key: value}, "d.metadata @> $2", [{key: value}]) for key, value in pairs),
        Case(
            "metadata maintainer in 3",
            {"maintainer": {"$in": teams}},
            "d.metadata ->> 'maintainer' = ANY ($2)",
            [teams],
        ),
        Case("metadata kib >= 1000", {"installed_kib": {"$gte": 1000}}, f"{kib} >= $2", [1000]),
        Case(
            "metadata kib from 1000 to 1100",
            {"installed_kib": {"$gte": 1000, "$lte": 1100}},
            f"{kib} BETWEEN $2 AND $3",
            [1000, 1100],
        ),
        Case("metadata kib >= 1e6", {"installed_kib": {"$gte": 10**6}}, f"{kib} >= $2", [10**6]),
        Case("metadata has homepage", {"homepage": {"$exists": True}}, "d.metadata ? $2", ["homepage"]),
        Case("metadata has no homepage", {"homepage": {"$exists": False}}, "NOT d.metadata ? $2", ["homepage"]),
    ]


def _compounds() -> list[Case]:
    networked = ["net", "web", "mail"]
    return [
        Case(
            "libs and shared-lib (one implies the other)",
            {"section": "libs", "tags": "role::shared-lib"},
            "d.section = $2 AND d.tags @> ARRAY[$3::text]",
            ["libs", "role::shared-lib"],
        ),
        Case(
            "libs and size > 1e6",
            {"section": "libs", "size": {"$gt": 10**6}},
            "d.section = $2 AND d.size > $3",
            ["libs", 10**6],
        ),
        Case(
            "libs and Perl Group (nearly exclusive)",
            {"section": "libs", "maintainer": "Debian Perl Group"},
            "d.section = $2 AND d.metadata @> $3",
            ["libs", {"maintainer": "Debian Perl Group"}],
        ),
        Case(
            "games or gameplaying",
            {"$or": [{"section": "games"}, {"tags": "use::gameplaying"}]},
            "d.section = $2 OR d.tags @> ARRAY[$3::text]",
            ["games", "use::gameplaying"],
        ),
        Case(
            "hamradio or lot < 63",
            {"$or": [{"section": "hamradio"}, {"lot": {"$lt": 63}}]},
            "d.section = $2 OR d.lot < $3",
            ["hamradio", 63],
        ),
        Case("not section = libs", {"$not": {"section": "libs"}}, "(d.section = $2) IS NOT TRUE", ["libs"]),
        Case(
            "(net or web or mail) and program and not x11",
            {"$and": [{"section": {"$in": networked}}, {"tags": "role::program"}], "$not": {"tags": "interface::x11"}},
            "d.section = ANY ($2) AND d.tags @> ARRAY[$3::text] AND NOT d.tags @> ARRAY[$4::text]",
            [networked, "role::program", "interface::x11"],
        ),
    ]


def _regions() -> list[Case]:
    """Filters that correlate with the vectors."""
    return [
        Case("near: own cluster", {"cluster": OWN}, "d.cluster = $2", [OWN]),
        Case("near: own topic (metadata)", {"topic": OWN}, "d.metadata @> $2", [{"topic": OWN}]),
        Case("near: 8 nearest clusters", {"cluster": {"$in": NEAR}}, "d.cluster = ANY ($2)", [NEAR]),
        Case(
            "near: own cluster and lot < 6344",
            {"cluster": OWN, "lot": {"$lt": 6344}},
            "d.cluster = $2 AND d.lot < $3",
            [OWN, 6344],
        ),
        Case("far: not own cluster", {"cluster": {"$ne": OWN}}, "d.cluster IS DISTINCT FROM $2", [OWN]),
        Case(
            "far: not 8 nearest clusters",
            {"cluster": {"$nin": NEAR}},
            "(d.cluster = ANY ($2)) IS NOT TRUE",
            [NEAR],
        ),
        Case("far: furthest cluster", {"cluster": FURTHEST}, "d.cluster = $2", [FURTHEST]),
        Case("far: furthest topic (metadata)", {"topic": FURTHEST}, "d.metadata @> $2", [{"topic": FURTHEST}]),
        Case("far: 8 furthest clusters", {"cluster": {"$in": FAR}}, "d.cluster = ANY ($2)", [FAR]),
        Case(
            "far: furthest cluster and lot < 6344",
            {"cluster": FURTHEST, "lot": {"$lt": 6344}},
            "d.cluster = $2 AND d.lot < $3",
            [FURTHEST, 6344],
        ),
        Case("far: cluster < 32, from 48 on", {"cluster": {"$lt": 32}}, "d.cluster < $2", [32], (48, 63)),
        Case("far: cluster >= 56, from up to 31", {"cluster": {"$gte": 56}}, "d.cluster >= $2", [56], (0, 31)),
        Case("far: cluster = 5, from 16 on", {"cluster": 5}, "d.cluster = $2", [5], (16, 63)),
    ]


def cases() -> list[Case]:
    """Return all filters."""
    return [*_lots(), *_sections(), *_sizes(), *_tags(), *_metadata(), *_compounds(), *_regions()]


def seen_from(part: Any, places: dict[str, Any]) -> Any:
    """Return a filter or values with the clusters as seen from a query; dicts among values are jsonb still."""
    if isinstance(part, dict):
        return {key: seen_from(item, places) for key, item in part.items()}
    if isinstance(part, list):
        return [seen_from(item, places) for item in part]
    return places.get(part, part) if isinstance(part, str) else part


def parameters(values: list[Any]) -> list[Any]:
    """Return values as psycopg takes them."""
    return [Jsonb(value) if isinstance(value, dict) else value for value in values]


def places(query: NDArray[np.float32], centres: NDArray[np.float32]) -> dict[str, Any]:
    """Return what the clusters are as seen from a query."""
    order = np.argsort(-(centres @ query)).tolist()
    return {OWN: order[0], FURTHEST: order[-1], NEAR: order[:8], FAR: order[-8:]}


def clusters(points: NDArray[np.float32], rounds: int = 12) -> NDArray[np.int64]:
    """Return the cluster of each point: spherical k-means, numbered along the centres' first principal axis."""
    centres = points[np.random.default_rng(0).choice(len(points), CLUSTERS, replace=False)]
    for _ in range(rounds):
        nearest = (points @ centres.T).argmax(axis=1)
        sums = np.stack([points[nearest == cluster].sum(axis=0) for cluster in range(CLUSTERS)])
        centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    axis = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)[2][0]
    numbers = np.argsort(np.argsort(centres @ axis))
    return np.asarray(numbers[nearest])


def records() -> Iterator[dict[str, Any]]:
    """Yield the packages with their clusters and lots."""
    belonging = clusters(debian.vectors()).tolist()
    lots = np.random.default_rng(1).permutation(len(belonging)).tolist()
    for record, cluster, lot in zip(debian.records(METADATA), belonging, lots, strict=True):
        yield {**record, "cluster": cluster, "topic": cluster, "lot": lot}


def loaded(database: pgvec.Database) -> pgvec.Collection:
    """Return the collection with an HNSW index, made if it is not there."""
    if NAME in database.collections():
        return database.collection(NAME)
    packages = database.create_collection(NAME, dimensions=384, columns=COLUMNS)
    packages.upsert(records())
    packages.create_index("hnsw")
    return packages


def centres(database: pgvec.Database) -> NDArray[np.float32]:
    """Return the centres of the clusters as stored, of shape (64, 384)."""
    rows = database.fetch(
        f"SELECT avg(v.embedding) FROM {NAME} d JOIN {NAME}_dense v USING (key) GROUP BY d.cluster ORDER BY d.cluster"
    )
    return np.stack([centre.to_numpy() for (centre,) in rows])
