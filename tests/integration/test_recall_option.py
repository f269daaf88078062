"""search(recall=): each search may ask for another recall than the default one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.database import Database
from pgvec_toolkit.errors import ConfigurationError
from tests.conftest import random_vectors

ROWS, DIMENSIONS = 1500, 8
STORED = random_vectors(ROWS, DIMENSIONS)
# k, target, setting, default, class of filters; those of another k, and one that is history.
PROFILES = [
    (10, 0.9, 31, True, ""),
    (10, 0.95, 52, False, ""),
    (10, 0.99, 211, False, ""),
    (40, 0.9, 91, True, ""),
    (10, 0.9, 77, True, "n $gte"),
    (10, 0.95, 88, False, "n $gte"),
]


@pytest.fixture(scope="module")
def profiled(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    """A collection with an index and profiles of our own invention."""
    with janitor("t_recall_option", template):
        dsn = make_conninfo(server_dsn, dbname="t_recall_option", options="-c enable_seqscan=off")
        with Database(dsn) as database:
            docs = database.create_collection("docs", dimensions=DIMENSIONS, distance="l2", columns={"n": int})
            docs.upsert({"id": [str(n) for n in range(ROWS)], "vector": STORED, "n": list(range(ROWS))})
            docs.create_index(m=4, ef_construction=8)
            with database.connection() as connection:
                for profile in PROFILES:
                    connection.execute(
                        "INSERT INTO pgvec.tuning_profiles"
                        " (space_id, index_method, k, target_recall, setting, is_default, filter_class, recall)"
                        " VALUES (%s, 'hnsw', %s, %s, %s, %s, %s, 0.5)",
                        [docs.space.id, *profile],
                    )
                connection.execute(
                    "INSERT INTO pgvec.tuning_profiles (space_id, index_method, k, target_recall, setting, recall,"
                    " superseded_at) VALUES (%s, 'hnsw', 10, 0.999, 999, 0.5, now())",
                    [docs.space.id],
                )
            yield docs


def setting_of(docs: Collection, function: str, arguments: str) -> int:
    """Return what ef_search a call in SQL sets, read in its transaction."""
    with docs._database.connection() as connection, connection.transaction():
        connection.execute(f"SELECT count(*) FROM pgvec.{function}('docs', {arguments})".encode())
        row = connection.execute("SELECT current_setting('hnsw.ef_search')::integer").fetchone()
        assert row is not None
        return int(row[0])


QUERY = f"'{STORED[0].tolist()}'"


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ("10", 31),
        ("10, recall => 0.5", 31),
        ("10, recall => 0.9", 31),
        ("10, recall => 0.91", 52),
        ("10, recall => 0.95", 52),
        ("10, recall => 0.951", 211),
        ("3, recall => 0.99", 211),  # of the next larger k
        ("20", 91),
        ("20, recall => 0.9", 91),
        ("20, recall => 0.95", 104),  # no larger k has one: 52 scaled up
        ("40, recall => 0.99", 844),
    ],
)
def test_the_profile_is_that_of_the_recall(profiled: Collection, arguments: str, setting: int) -> None:
    assert setting_of(profiled, "search", f"{QUERY}, {arguments}") == setting


def test_every_way_to_search_takes_it(profiled: Collection) -> None:
    assert setting_of(profiled, "search_many", f"ARRAY[{QUERY}], recall => 0.99") == 211
    assert setting_of(profiled, "hybrid_search", f"query => {QUERY}::text, depth => 10, recall => 0.99") == 211
    for name in ("similar", "explain"):
        argument = "ARRAY['5']" if name == "similar" else QUERY
        # The example itself is left out, which takes a candidate more.
        assert 211 <= setting_of(profiled, name, f"{argument}, recall => 0.99") <= 230
    assert "tuned for recall 0.99 at k = 10" in profiled.explain(STORED[0], recall=0.97)
    assert "tuned for recall 0.9 at k = 10" in profiled.explain(STORED[0])


def test_recall_one_is_exact(profiled: Collection) -> None:
    nearest = np.argsort(np.linalg.norm(STORED - STORED[7], axis=1))[:50]
    assert [int(hit.id) for hit in profiled.search(STORED[7], 50, recall=1)] == nearest.tolist()
    assert "asked to be exact" in profiled.explain(STORED[7], recall=1.0)
    assert profiled.search(STORED[7], 50, recall=1, within=-1).stopped_by == "complete"
    assert profiled.search_sql(recall=1) == profiled.search_sql(exact=True)


def test_a_recall_that_was_not_tuned_for_says_what_to_do(profiled: Collection) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no tuning profile.*0\.995.*pgvec tune docs --recall 0\.995[^k]*exact"
    ):
        profiled.search(STORED[0], recall=0.995)
    with pytest.raises(ConfigurationError, match=r"--recall 0\.999 -k 7"):
        profiled.search(STORED[0], 7, recall=0.999)
    with pytest.raises(ConfigurationError, match="give one"):
        profiled.search(STORED[0], recall=0.9, ef_search=50)
    for recall in (-0.1, 1.01, float("nan")):
        with pytest.raises(ConfigurationError, match="recall must be from 0 to 1"):
            profiled.search(STORED[0], recall=recall)


def test_without_an_index_any_recall_is_reached(db: Database) -> None:
    docs = db.create_collection("docs", dimensions=DIMENSIONS)
    docs.upsert({"id": ["a"], "vector": STORED[:1]})
    assert [hit.id for hit in docs.search(STORED[0], recall=0.999)] == ["a"]


def test_a_profile_made_later_reaches_what_was_prepared(profiled: Collection) -> None:
    with profiled._database.dedicated_connection() as connection:
        schema = connection.execute("SELECT pgvec._vector_schema()::text").fetchone()
        assert schema is not None
        statement = profiled.search_sql(10, recall=0.97)
        connection.execute(f"PREPARE search ({schema[0]}.vector) AS {statement}".encode())

        def setting() -> int:
            with connection.transaction():
                connection.execute(f"EXECUTE search ({QUERY})".encode())
                row = connection.execute("SELECT current_setting('hnsw.ef_search')::integer").fetchone()
                assert row is not None
                return int(row[0])

        assert {setting() for _ in range(7)} == {211}
        connection.execute(
            "INSERT INTO pgvec.tuning_profiles (space_id, index_method, k, target_recall, setting, is_default, recall)"
            " VALUES (%s, 'hnsw', 10, 0.98, 123, false, 0.5)",
            [profiled.space.id],
        )
        assert setting() == 123
        connection.execute("DELETE FROM pgvec.tuning_profiles WHERE target_recall = 0.98")
        assert setting() == 211


def test_filters_have_profiles_of_their_own(profiled: Collection, connection: psycopg.Connection) -> None:
    # All rows match: nothing but the base setting decides how far the search looks.
    filters = {'{"n": {"$gte": 0}}': (77, 88, 211), '{"n": {"$lt": 10000}}': (31, 52, 211)}
    for filter, settings in filters.items():
        for recall, base in zip(("NULL", "0.95", "0.99"), settings, strict=True):
            setting = setting_of(profiled, "search", f"{QUERY}, filter => '{filter}', recall => {recall}")
            assert base <= setting <= base * 1.2, (filter, recall)
    classes = {
        "{}": "",
        '{"a": 1}': "a $eq",
        '{"a": {}}': "a $eq",
        '{"b": {"$lt": 1, "$gte": 0}, "a": null}': "a $eq, b $gte, b $lt",
        '{"$or": [{"b": 1}, {"a": [1]}, {"b": 2}]}': "$or (a $eq, b $eq)",
        '{"$not": {"a": {"$in": [1, 2]}}}': "$not (a $in)",
        '{"a": {"$not": {"$gt": 3}}}': "a $not ($gt)",
        "7": "",
    }
    for filter, wanted in classes.items():
        assert connection.execute("SELECT pgvec.filter_class(%s)", [filter]).fetchone() == (wanted,)
