"""What is wrong with a database, one thing at a time, for test_health: on collection docs and its space, dense."""

from __future__ import annotations

BUILD = "UPDATE pgvec.index_builds SET "
LOGGED = (
    "INSERT INTO pgvec.query_log (space_id, query, k, filter, asked_at)"
    " SELECT space_id, '[]', 10, {}, now() + '1 h' FROM pgvec.index_builds, generate_series(1, 30)"
)
CHECKED = (
    "INSERT INTO pgvec.recall_checks (space_id, k, source, queries, recall, recall_low, recall_high, short_results,"
    " milliseconds, target_recall, alarms)"
    " SELECT space_id, 10, 'log', 50, 0.8, 0.75, {}, 0, 1, 0.95, '{{{}}}' FROM pgvec.index_builds"
)
MOVED = "drift: the stored embeddings have moved by 2.00 of their spread"
IVFFLAT = "CREATE INDEX other ON docs_dense USING ivfflat (embedding {}) WITH (lists = 2) {}"

# What provokes it; severity; subject; what the finding says; the mend.
CASES = {
    "spilled": (
        BUILD + "spilled_after = 100, forecast_memory = 1::bigint << 33",
        "warning",
        "maintenance_work_mem",
        "outgrew",
        "SET maintenance_work_mem = '",
    ),
    "off at a table": (
        "ALTER TABLE docs_dense SET (autovacuum_enabled = off)",
        "warning",
        "docs_dense",
        "autovacuum",
        "ALTER TABLE",
    ),
    "forced by the database": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET enable_indexscan = off', current_database()); END $$",
        "warning",
        "enable_indexscan",
        "no search uses",
        "ALTER DATABASE",
    ),
    "set for a role": (
        "CREATE ROLE pgvec_searcher; ALTER ROLE pgvec_searcher SET ivfflat.probes = 3",
        "hint",
        "ivfflat.probes",
        "is 3 by default",
        "ALTER ROLE pgvec_searcher RESET",
    ),
    "invalid": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'docs_dense_hnsw'::regclass",
        "warning",
        "docs_dense_hnsw",
        "INVALID",
        "DROP INDEX CONCURRENTLY public.docs_dense_hnsw",
    ),
    "invalid, of a filter": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'docs_year_key_idx'::regclass",
        "warning",
        "docs_year_key_idx",
        "INVALID",
        "DROP INDEX CONCURRENTLY",
    ),
    "several": (
        IVFFLAT.format("vector_cosine_ops", ""),
        "warning",
        "index public.other",
        "one of several",
        "DROP INDEX CONCURRENTLY public.other",
    ),
    "another distance": (
        "DROP INDEX docs_dense_hnsw; " + IVFFLAT.format("vector_l2_ops", ""),
        "warning",
        "index public.other",
        "vector_l2_ops, is not that of the distance, cosine",
        "^DROP INDEX CONCURRENTLY public.other;  -- then: pgvec index create docs ivfflat$",
    ),
    "another distance, beside one that serves": (
        IVFFLAT.replace("other", '"O\'Hara"').format("vector_l2_ops", ""),
        "warning",
        "O'Hara",
        "is not that of the distance",
        """^DROP INDEX CONCURRENTLY public."O'Hara";$""",
    ),
    "partial": (
        "DROP INDEX docs_dense_hnsw; " + IVFFLAT.format("vector_cosine_ops", "WHERE key > 9"),
        "warning",
        "index public.other",
        "it is partial",
        "DROP INDEX CONCURRENTLY public.other",
    ),
    "built for fewer rows": (
        "DROP INDEX docs_dense_hnsw;" + IVFFLAT.format("vector_cosine_ops", "") + ";"
        "UPDATE pg_class SET reltuples = 9000 WHERE oid = 'docs_dense'::regclass",
        "warning",
        "index public.other",
        "lists = 2, and for about 9000 rows would get 9",
        "^pgvec index rebuild docs --lists 9$",
    ),
    "built for more rows": (
        "DROP INDEX docs_dense_hnsw;" + IVFFLAT.format("vector_cosine_ops", "").replace("lists = 2", "lists = 300"),
        "hint",
        "index public.other",
        "lists = 300, and for about 2000 rows would get 2",
        "^pgvec index rebuild docs --lists 2$",
    ),
    "no index": (
        "DROP INDEX docs_dense_hnsw;"
        "INSERT INTO pgvec.calibrations (space_id, exact_us) SELECT space_id, 100 FROM pgvec.index_builds",
        "hint",
        "space docs.dense",
        "takes about 200 ms",
        "pgvec index create docs",
    ),
    "unused": (
        "SELECT pg_stat_reset_single_table_counters('docs_dense_hnsw'::regclass), pg_stat_clear_snapshot(); "
        + LOGGED.format("NULL"),
        "hint",
        "docs_dense_hnsw",
        "was used by no search",
        r"pgvec.explain\(",
    ),
    "untuned": ("DELETE FROM pgvec.tuning_profiles", "hint", "space docs.dense", "never tuned", "pgvec tune docs"),
    "tuned on another form": (
        "UPDATE pgvec.tuning_profiles SET index_shape = 'halfvec'",
        "warning",
        "space docs.dense",
        r"another index \(halfvec\)",
        "pgvec tune docs",
    ),
    "tuned with other options": (
        """UPDATE pgvec.tuning_profiles SET evidence = '{"options": {"m": 99, "ef_construction": 198}}'""",
        "warning",
        "space docs.dense",
        "other options",
        "pgvec tune docs",
    ),
    "outgrown": (
        """UPDATE pgvec.tuning_profiles SET evidence = '{"rows": 1000}'""",
        "warning",
        "space docs.dense",
        "grown from 1000 rows to about 2000",
        "pgvec tune docs",
    ),
    "outgrown, by the build": (
        "UPDATE pgvec.tuning_profiles SET evidence = '{}'; " + BUILD + "rows = 1000",
        "warning",
        "space docs.dense",
        "grown from 1000",
        "pgvec tune docs",
    ),
    "a filter's index is gone": (
        "DROP INDEX docs_section_key_idx",
        "warning",
        "table public.docs",
        "column section has no index",
        r"\(section, key\)",
    ),
    "a list's index is gone": (
        "DROP INDEX docs_tags_idx",
        "warning",
        "table public.docs",
        "column tags has no index",
        r"USING gin \(tags\)",
    ),
    "the metadata's index is gone": (
        "DROP INDEX docs_metadata_idx",
        "warning",
        "table public.docs",
        "column metadata has no index",
        "jsonb_path_ops",
    ),
    "a range on metadata": (
        LOGGED.format("""'{"views": {"$gt": 3}}'"""),
        "warning",
        "collection docs",
        r"30 of the last 30 .* views \(\$gt\)",
        "pgvec collection promote docs views int",
    ),
    "a nested range": (
        LOGGED.format("""'{"$or": [{"section": "a"}, {"score": {"$between": [0.5, 1]}}]}'"""),
        "warning",
        "collection docs",
        r"score \(\$between\)",
        "pgvec collection promote docs score float",
    ),
    "a swollen index": (
        BUILD + "bytes = 1000",
        "warning",
        "docs_dense_hnsw",
        "would be about 1000 bytes",
        "pgvec index rebuild docs$",
    ),
    "never analysed": (
        "UPDATE pg_class SET reltuples = -1 WHERE oid = 'docs'::regclass",
        "warning",
        "table public.docs",
        "never analysed",
        "ANALYZE public.docs;",
    ),
    "analysed long ago": (
        "UPDATE pg_class SET relpages = 5, reltuples = 90 WHERE oid = 'docs_dense'::regclass",
        "warning",
        "table public.docs_dense",
        "held about 90 rows",
        "ANALYZE public.docs_dense;",
    ),
    "recall": (
        CHECKED.format("0.85", "recall is low"),
        "error",
        "space docs.dense",
        "recall@10 was 0.800.*recall is low",
        "pgvec tune docs && pgvec watch docs$",
    ),
    "recall, perhaps": (
        CHECKED.format("0.96", "recall is low"),
        "warning",
        "space docs.dense",
        "recall is low",
        "pgvec tune docs && pgvec watch docs$",
    ),
    "drift": (
        CHECKED.format("0.85", MOVED),
        "warning",
        "space docs.dense",
        "at its last check, on [0-9-]*, drift: the stored embeddings have moved",
        "pgvec watch docs --new-baseline",
    ),
    "keywords of another server": (
        "UPDATE pgvec.keyword_indexes SET probe = probe + 1",
        "error",
        "collection docs",
        "numbers words otherwise",
        "drop_keyword_index",
    ),
    "keywords without triggers": (
        "ALTER TABLE docs DISABLE TRIGGER USER",
        "error",
        "collection docs",
        "gone or disabled",
        "drop_keyword_index",
    ),
    "no vector": (
        "DELETE FROM docs_dense WHERE key IN (SELECT key FROM docs_dense LIMIT 2)",
        "hint",
        "space docs.dense",
        "^2 chunks have no vector",
        "pgvec collection embed docs dense",
    ),
    "no chunk table": (
        "DROP TABLE docs CASCADE",
        "error",
        "collection docs",
        "public.docs is gone",
        "SELECT pgvec.drop_collection",
    ),
    "no vector table": (
        "DROP TABLE docs_dense",
        "error",
        "space docs.dense",
        "public.docs_dense is gone",
        "CREATE TABLE public.docs_dense",
    ),
}
# Running the mend there and then does not show in these: they take what was, or what a build was to be.
LATER = {"spilled", "a swollen index", "keywords without triggers"}
