-- Builds: those that are going on, and whether somebody else would notice one.

CREATE OR REPLACE VIEW pgvec.build_progress WITH (security_invoker = true) AS
SELECT r.collection, r.space, b.index, b.phase, b.share,
       b.elapsed, CASE WHEN b.share > 0 THEN b.elapsed * (1 / b.share - 1) END AS eta, b.pid
-- By name: regclass would fail where the schema is not the reader's to use.
FROM (SELECT c.name AS collection, s.name AS space, r.oid FROM pgvec.collections c JOIN pgvec.vector_spaces s ON s.collection_id = c.id AND s.embedding_column IS NULL
      JOIN pg_catalog.pg_namespace n ON n.nspname = c.schema_name JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = s.table_name
      UNION ALL
      SELECT c.name, NULL, r.oid FROM pgvec.collections c
      JOIN pg_catalog.pg_namespace n ON n.nspname = c.schema_name JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = c.table_name
      WHERE NOT EXISTS (SELECT FROM pgvec.registered_tables g WHERE g.collection_id = c.id)
      -- Of which of its columns the index is the progress does not say.
      UNION ALL
      SELECT c.name, CASE count(*) WHEN 1 THEN min(s.name) END, g.relation FROM pgvec.collections c JOIN pgvec.registered_tables g ON g.collection_id = c.id
      JOIN pgvec.vector_spaces s ON s.collection_id = c.id GROUP BY c.name, g.relation) r
CROSS JOIN LATERAL (
    SELECT p.pid, p.phase, clock_timestamp() - a.query_start AS elapsed,
           -- Of others' uncommitted indexes only the statement knows the name.
           coalesce((SELECT i.relname::text FROM pg_catalog.pg_class i WHERE i.oid = p.index_relid),
                    trim('"' FROM substring(a.query FROM '(?i)INDEX\s+(?:CONCURRENTLY\s+)?(?:IF NOT EXISTS\s+)?("[^"]+"|[a-z_0-9]+)\s+ON'))) AS index,
           least(1, CASE
               WHEN p.phase = 'building index: performing k-means' THEN 0.05
               WHEN p.phase = 'building index: assigning tuples' THEN 0.1 + 0.6 * done.blocks
               -- Each row costs more than the one before: rows ^ 1.25 is about the work.
               WHEN p.phase = 'building index: loading tuples' THEN CASE WHEN p.tuples_total > 0 THEN 0.7 + 0.3 * done.tuples ELSE done.blocks ^ 1.25 END
               WHEN p.phase LIKE 'building index%' THEN greatest(done.blocks, done.tuples)
               WHEN p.phase IN ('initializing', 'waiting for writers before build') THEN 0
               ELSE 1 END * CASE WHEN p.command LIKE '%CONCURRENTLY' THEN 0.95 ELSE 1 END
             + CASE WHEN p.phase = 'index validation: scanning table' THEN 0.02 + 0.02 * done.blocks
                    WHEN p.phase LIKE 'waiting for old snapshots' OR p.phase LIKE 'waiting for readers%' THEN 0.04
                    WHEN p.phase LIKE 'index validation%' THEN 0.01 ELSE 0 END)::double precision AS share
    FROM pg_catalog.pg_stat_progress_create_index p
    JOIN pg_catalog.pg_stat_activity a ON a.pid = p.pid
    CROSS JOIN LATERAL (SELECT coalesce(p.blocks_done::double precision / nullif(p.blocks_total, 0), 0) AS blocks,
                               coalesce(p.tuples_done::double precision / nullif(p.tuples_total, 0), 0) AS tuples) done
    WHERE p.relid = r.oid AND p.datname = current_database()
) b;
GRANT SELECT ON pgvec.build_progress TO PUBLIC;
COMMENT ON VIEW pgvec.build_progress IS
'Index builds that are going on on tables of collections; those of other roles are shown to members of pg_read_all_stats. space: NULL for indexes
of the chunk table, and where a registered table has several; share: of the work, from 0 to 1; eta: what is left, if the rest is as fast.';

CREATE OR REPLACE FUNCTION pgvec._served(space_id integer, own integer[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN s.embedding_column IS NOT NULL THEN 'it is a table of somebody who uses it'
        WHEN EXISTS (SELECT FROM pgvec.index_builds b WHERE b.space_id = s.id)
             OR EXISTS (SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
                        WHERE x.indrelid = to_regclass(format('%I.%I', c.schema_name, s.table_name)) AND x.indisvalid AND a.amname IN ('hnsw', 'ivfflat'))
            THEN 'it has had an index before'
        WHEN EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = current_database() AND coalesce(a.backend_type, 'client backend') = 'client backend' AND a.pid <> ALL (own))
            THEN 'others are connected to this database' END
    FROM pgvec.vector_spaces s JOIN pgvec.collections c ON c.id = s.collection_id WHERE s.id = _served.space_id
$$;
COMMENT ON FUNCTION pgvec._served(integer, integer[]) IS
'Why others may be using a vector space, NULL if nothing says so; own: processes of one''s own sessions.';

CREATE OR REPLACE FUNCTION pgvec.builds(collection text, space text DEFAULT NULL)
RETURNS TABLE (index_name text, method text, form text, dimensions integer, options jsonb, online boolean, rows bigint, workers integer, memory_limit bigint,
               forecast_memory bigint, forecast_bytes bigint, bytes bigint, forecast_seconds double precision, seconds double precision,
               spilled_after bigint, built_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._space(collection, space);
BEGIN
    RETURN QUERY
    SELECT b.index_name, b.method, b.form, b.dimensions, b.options, b.online, b.rows, b.workers, b.memory_limit, b.forecast_memory, b.forecast_bytes,
           b.bytes, b.forecast_seconds, b.seconds, b.spilled_after, b.built_at
    FROM pgvec.index_builds b WHERE b.space_id = wanted.id ORDER BY b.built_at DESC, b.id DESC;
END $$;
COMMENT ON FUNCTION pgvec.builds(text, text) IS
'Builds of vector indexes of a space that pgvec index create completed, the latest first: forecast against reality. online: CONCURRENTLY;
memory_limit: maintenance_work_mem; spilled_after: the number of rows after which the graph no longer fitted into it, NULL if it did.
Example: SELECT index_name, rows, forecast_bytes, bytes, forecast_seconds, seconds FROM pgvec.builds(''docs'');';
