"""`pgvec index plan` and `pgvec index builds`."""

from __future__ import annotations

from tests.cli.outcome import Run


def test_planning_and_what_came_of_it(docs: Run) -> None:
    planned = docs("index", "plan", "docs", "--no-calibrate", "--rows", "1000000", "--json").json
    assert [(plan["method"], plan["form"]) for plan in planned] == [
        (method, form) for method in ("hnsw", "ivfflat") for form in ("full", "halfvec", "binary")
    ]
    assert planned[0]["options"] == {"m": 24, "ef_construction": 200}
    assert planned[0]["size"] > planned[1]["size"] > planned[2]["size"]
    assert planned[0]["seconds"] is None
    table = docs("index", "plan", "docs", "ivfflat", "--no-calibrate", "--form", "prefix", "--prefix", "8")
    assert "lists=1" in table.out
    assert "hnsw" not in table.out
    assert "Matryoshka" in table.err

    assert docs("index", "builds", "docs", "--json").json == []
    assert docs("index", "create", "docs", "--m", "4").code == 0
    (built,) = docs("index", "builds", "docs", "--json").json
    assert (built["index"], built["rows"], built["options"]) == (
        "docs_dense_hnsw",
        40,
        {"m": 4, "ef_construction": 200},
    )
    assert "docs_dense_hnsw" in docs("index", "builds", "docs").out
    renewed = docs("index", "rebuild", "docs", "docs_dense_hnsw", "--json")
    assert (renewed.code, renewed.json["rebuilt"]) == (0, True)
    assert "searches use docs_dense_hnsw, not 'other'" in docs("index", "rebuild", "docs", "other").err
    wrong = docs("index", "plan", "docs", "--m", "1")
    assert (wrong.code, wrong.out) == (1, "")
    assert "m must be from 2 to 100" in wrong.err
