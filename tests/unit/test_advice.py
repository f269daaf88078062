"""What is compared, and which of the compared is recommended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, TuningError
from pgvec_toolkit.schema.space import Space
from pgvec_toolkit.tune.advice import Advice, Option
from pgvec_toolkit.tune.candidates import Candidate, chosen_candidates, default_candidates
from pgvec_toolkit.tune.index_migration import statements, statements_back


def space(type: str = "vector", dimensions: int = 384, distance: Distance = Distance.COSINE) -> Space:
    tables = ("embedding", False, "docs_dense", "public.docs", "public.docs_dense")
    return Space(1, "dense", 1, "public", "docs", "docs_dense", type, dimensions, distance, None, None, "ext", *tables)


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        (space(), "16/64 full, 16/200 full, 24/200 full, 16/200 halfvec, 24/200 halfvec, ivfflat full"),
        (
            space(dimensions=768),
            "16/64 full, 16/200 full, 24/200 full, 16/200 halfvec, 24/200 halfvec, 24/200 binary, ivfflat full",
        ),
        (
            space(dimensions=3000),
            "16/64 halfvec, 16/200 halfvec, 24/200 halfvec, 24/200 binary, ivfflat halfvec",
        ),
        (space(dimensions=5000), "16/64 binary, 16/200 binary, 24/200 binary, ivfflat binary"),
        (space("halfvec", 100), "16/64 full, 16/200 full, 24/200 full, ivfflat full"),
        (
            space(distance=Distance.L1),
            "16/64 full, 16/200 full, 24/200 full, 16/200 halfvec, 24/200 halfvec",
        ),
        (space("bit", 1024, Distance.HAMMING), "16/64 full, 16/200 full, 24/200 full, ivfflat full"),
        (space("bit", 1024, Distance.JACCARD), "16/64 full, 16/200 full, 24/200 full"),
        (space("sparsevec", 30_000), "16/64 full, 16/200 full, 24/200 full"),
    ],
)
def test_every_space_has_its_candidates(of: Space, wanted: str) -> None:
    candidates = default_candidates(of)
    assert ", ".join(each.name.removeprefix("hnsw ") for each in candidates) == wanted
    assert [each.is_default for each in candidates] == [True] + [False] * (len(candidates) - 1)


def test_candidates_are_checked_before_anything_is_built() -> None:
    given = [{"m": 24, "form": "prefix", "prefix": 100}, {"method": "ivfflat", "lists": 7}, {"m": 24}, {"m": 24}]
    prefix, lists, hnsw = chosen_candidates(space(), given)
    assert prefix.arguments["prefix"] == 100
    assert (prefix.name.endswith("prefix 100"), lists.name) == (True, "ivfflat 7 full")
    assert lists.arguments == {"method": "ivfflat", "form": "full", "lists": 7}
    assert (hnsw.arguments["m"], hnsw.arguments["form"]) == (24, "full")
    for wrong, message in (
        ([{"ef_search": 40}], "a candidate has no 'ef_search'"),
        ([{"form": "prefix"}], "prefix=…"),
        ([{"m": 1}], "m must be"),
        ([{"method": "flat"}], "unknown index method"),
        ([], "candidates is a list"),
        ({"m": 24}, "candidates is a list"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            chosen_candidates(space(), wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no IVFFlat index"):
        Candidate.of(space(distance=Distance.L1), {"method": "ivfflat"})


def option(m: int, size: int, milliseconds: dict[float, float], form: str = "full", **more: Any) -> Option:
    candidate = Candidate("hnsw", form, m=m, ef_construction=64 if m == 16 else 200)
    return Option(
        **{
            "candidate": candidate,
            "space": None,
            "build_seconds": 10.0,
            "size": size,
            "memory": 1,
            "memory_limit": 1024**2,
            "workers": 1,
            "fits": True,
            "milliseconds": milliseconds,
            **more,
        }
    )


def advice(*options: Option, **more: Any) -> Advice:
    targets = tuple(sorted({target for each in options for target in each.milliseconds})) or (0.95,)
    return replace(Advice("docs", space(), 10, targets, options, 1000, 1000, 100, 50.0), **more)


def test_the_smallest_of_about_the_fastest_is_recommended() -> None:
    default = option(16, 100, {0.95: 2.0})
    fastest, near, small = (option(24, 120, {0.95: 1.0}), option(20, 60, {0.95: 1.04}), option(8, 10, {0.95: 1.2}))
    found = advice(default, fastest, near, small)
    assert found.recommended is near
    assert advice(default, fastest, near, small, tolerance=0.0).recommended is fastest
    assert advice(default, fastest, near, small, tolerance=0.2).recommended is small
    assert [row.recommended for row in found.rows] == [False, False, True, False]
    assert found.reason.startswith(
        "hnsw 20/200 full answers 962 queries a second at recall 0.95, 1.92 times as many as pgvector's default "
        "(hnsw 16/64 full), in 60% of its size; to build it takes 1.0 times as long. It is the smallest of those "
        "within 5% of the fastest"
    )
    assert "no index" not in found.reason
    assert "need no index yet: an exact search takes 0.5 ms" in replace(found, exact_milliseconds=0.5).reason


def test_what_does_not_fit_memory_is_recommended_only_if_nothing_does() -> None:
    large, small = option(24, 100, {0.95: 1.0}, fits=False), option(20, 90, {0.95: 3.0})
    assert advice(large, small).recommended is small
    alone = advice(large, replace(small, fits=False))
    assert alone.recommended is large
    assert "fits none of them" in alone.reason


def test_one_index_serves_all_targets() -> None:
    low, high = option(16, 10, {0.9: 1.0, 0.99: 4.0}), option(24, 10, {0.9: 1.5, 0.99: 2.0})
    partial = option(20, 10, {0.9: 0.5})
    found = advice(low, high, partial)
    assert found.recommended is high  # 1.5 × 1 against 1 × 2
    assert found.choices == {0.9: partial, 0.99: high}
    assert "For recall 0.9 alone it would be hnsw 20/200 full." in found.reason
    missing = next(row for row in found.rows if row.index == partial.name and row.target_recall == 0.99)
    assert (missing.setting, missing.milliseconds, missing.queries_per_second) == (None, None, None)


def test_a_target_out_of_reach() -> None:
    found = advice(option(16, 10, {}, problem="ef_search = 1000 reaches 0.8"))
    with pytest.raises(TuningError, match=r"no candidate reaches recall 0\.95.*reaches 0\.8"):
        _ = found.recommended
    assert "no candidate reaches" in found.reason
    assert found.choices == {}
    assert found.to_dict()["recommended"] is None


def test_a_sample_stands_for_all_rows() -> None:
    hnsw = option(24, 1000, {0.95: 1.0})
    ivfflat = replace(hnsw, candidate=Candidate("ivfflat", "full"))
    found = advice(hnsw, ivfflat, total_rows=1_000_000)
    assert found.size(hnsw) == 1_000_000
    assert found.build_seconds(hnsw) == pytest.approx(10 * 1000 * 2)  # log 1,000,000 is twice log 1,000
    assert found.build_seconds(ivfflat) == pytest.approx(10 * 1000)
    assert "measured on 1,000 of 1,000,000 rows" in found.reason


def test_statements_of_a_migration(tmp_path: Path) -> None:
    found = advice(option(24, 10, {0.95: 1.0}, form="halfvec"))
    create = (
        'CREATE INDEX CONCURRENTLY "docs_dense_hnsw" ON "public"."docs_dense" USING "hnsw" '
        '((embedding::"ext"."halfvec"(384)) "ext"."halfvec_cosine_ops") WITH ("m" = 24, "ef_construction" = 200)'
    )
    settings = [
        "SET statement_timeout = 0",
        "SET maintenance_work_mem = '1024kB'",
        "SET max_parallel_maintenance_workers = 1",
    ]
    resets = [f"RESET {setting.split()[1]}" for setting in settings]
    assert statements(found)[:5] == [*settings, create, 'ANALYZE "public"."docs_dense"']
    assert statements(found)[-3:] == resets
    larger = replace(found, options=(*found.options, option(16, 20, {}, memory_limit=2 * 1024**2, workers=0)))
    assert statements(larger)[:3] == settings
    # The way back builds what was there, of which is only known what the largest of the others takes.
    settings[1:] = ["SET maintenance_work_mem = '2048kB'", "SET max_parallel_maintenance_workers = 0"]
    back = statements_back(larger)
    assert back[:4] == [*settings, 'DROP INDEX CONCURRENTLY "public"."docs_dense_hnsw"']
    assert back[-3:] == resets
    beside = replace(found, replaces=(("docs_dense_hnsw", "CREATE INDEX docs_dense_hnsw ON public.docs_dense …"),))
    assert [statement.partition(" ON ")[0] for statement in statements(beside)[3:6]] == [
        'CREATE INDEX CONCURRENTLY "docs_dense_hnsw_new"',
        'DROP INDEX CONCURRENTLY "public"."docs_dense_hnsw"',
        'ALTER INDEX "public"."docs_dense_hnsw_new" RENAME TO "docs_dense_hnsw"',
    ]
    of_title = option(24, 10, {0.9: 1.0, 0.99: 1.0}, space="title")
    for name in ("new.sql", "new.py"):
        advice(of_title, k=5).migration(tmp_path / name)
        (then,) = [line for line in (tmp_path / name).read_text().splitlines() if "pgvec tune" in line]
        assert then.endswith("    pgvec tune docs --recall 0.9 --recall 0.99 -k 5 --space title")
    with pytest.raises(ConfigurationError, match=r"name a file \.sql, or \.py"):
        found.migration(tmp_path / "new.txt")
    with pytest.raises(ConfigurationError, match="No such file"):
        found.migration(tmp_path / "absent" / "new.sql")
