"""`pgvec collection register`, `unregister`, and what the commands say of such a collection."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.cli.outcome import Run


def test_a_table_from_registration_to_its_end(run: Run, words: None, connection: psycopg.Connection[Any]) -> None:
    del words
    connection.execute(
        "CREATE TABLE products (id bigint PRIMARY KEY, sku uuid DEFAULT gen_random_uuid(), price integer,"
        " description text, embedding vector(64))"
    )
    connection.execute(
        "INSERT INTO products (id, price, description)"
        " SELECT n, n, 'product ' || n || CASE n WHEN 7 THEN ' sextant' ELSE '' END FROM generate_series(1, 20) n"
    )
    done = run("collection", "register", "products", "--text", "description", "--embedder", "w", "--keywords")
    assert (done.code, done.out) == (0, "")
    assert "table public.products is collection products: vector(64), cosine" in done.err
    assert "20 chunks embedded into dense" in run("collection", "embed", "products").err
    (hit,) = run("search", "products", "sextant", "-k", "1", "--where", '{"price": {"$lt": 10}}', "--json").json
    assert (hit["id"], hit["metadata"]["price"]) == ("7", 7)
    assert run("search", "products", "sextant", "--mode", "keyword", "--json").json[0]["id"] == "7"
    assert run("collection", "list", "--json").json[0]["registered"] is True
    shown = run("collection", "show", "products", "--json").json
    assert (shown["registered"], shown["chunk_table"], shown["rows"]) == (True, "public.products", 20)
    refused = run("upsert", "products", __file__)
    assert refused.code == 1
    assert "unregister" not in run("collection", "list").err
    assert "is no collection any more" in run("collection", "unregister", "products").err
    assert run("collection", "list", "--json").json == []
    again = run("collection", "register", "products", "--id", "sku", "--name", "goods", "--distance", "l2")
    assert "collection goods: vector(64), l2" in again.err
    assert run("collection", "drop", "goods").code == 0
    assert connection.execute("SELECT count(*), count(embedding) FROM products").fetchone() == (20, 20)
