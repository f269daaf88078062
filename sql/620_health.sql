-- What is wrong with this database, and what mends it: the server, its extension and its settings. What is wrong with indexes is in
-- 622_health_indexes.sql, with tables and queries in 624_health_data.sql.
--
-- No table of more than 4 MB is read, but the catalogue and the last logged queries: of larger ones statistics tell, so what is said of their
-- rows is an estimate. Each check is a function pgvec._health_<name>; to whom rights are missing it says less, and never fails.

CREATE OR REPLACE FUNCTION pgvec.check_health() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    topic text;
    found jsonb := '[]';
    more  jsonb;
BEGIN
    -- The settings of pgvector are there as soon as something of it was called.
    EXECUTE format('SELECT ''[1]''::%I.vector', pgvec._vector_schema());
    FOREACH topic IN ARRAY ARRAY['server', 'extension', 'build_memory', 'memory', 'planner', 'forced', 'autovacuum',
                                 'lost', 'scratch', 'unreadable', 'leftovers', 'several', 'unusable', 'missing', 'lists', 'unused', 'untuned', 'outgrown',
                                 'registered', 'columns', 'filters', 'dead', 'swollen', 'stale', 'cold', 'recall', 'keywords', 'vectorless', 'attached'] LOOP
        BEGIN
            EXECUTE format('SELECT jsonb_agg(h) FROM pgvec.%I() h', '_health_' || topic) INTO more;
            found := found || coalesce(more, '[]');
        EXCEPTION
        WHEN insufficient_privilege OR undefined_table OR undefined_object THEN
            NULL;  -- not ours to read, or dropped by another session meanwhile
        WHEN OTHERS THEN
            -- One check that fails, over something that nobody thought of, must not hide what the others find.
            found := found || jsonb_build_object('severity', 'warning', 'subject', 'check ' || topic, 'finding', 'could not be made: ' || SQLERRM,
                                                 'mend', format('SELECT * FROM pgvec.%I();', '_health_' || topic));
        END;
    END LOOP;
    RETURN QUERY SELECT f.severity, f.subject, f.finding, f.mend
                 FROM ROWS FROM (jsonb_to_recordset(found) AS (severity text, subject text, finding text, mend text))
                     WITH ORDINALITY AS f (severity, subject, finding, mend, position)
                 ORDER BY array_position('{error,warning,hint}'::text[], f.severity), f.position;
END $$;
COMMENT ON FUNCTION pgvec.check_health() IS
'What is wrong with this database, the worst first: of the server, its extension and settings, of the indexes and tables of collections.
severity: error (results are wrong or data in danger), warning (searches are slower or worse than they need be), hint (worth a look). mend: a
statement, or a command, to run. It reads statistics, and no table of more than 4 MB, and takes some milliseconds; what it says of rows is an
estimate. A role that may see less gets fewer findings.
Example: SELECT * FROM pgvec.check_health() WHERE severity = ''error'';';

CREATE OR REPLACE VIEW pgvec.health AS SELECT h.severity, h.subject, h.finding, h.mend FROM pgvec.check_health() h;
-- What it may see is for the caller's own rights to say, and USAGE on the schema.
GRANT SELECT ON pgvec.health TO PUBLIC;
COMMENT ON VIEW pgvec.health IS 'What is wrong with this database, the worst first, and what mends it: pgvec.check_health().';

CREATE OR REPLACE FUNCTION pgvec._scratch_names() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT '^pgvec_advice_[0-9a-f]{8}$' $$;
COMMENT ON FUNCTION pgvec._scratch_names() IS 'What collections are called that pgvec advise tries indexes on, and drops.';

CREATE OR REPLACE FUNCTION pgvec._all_spaces()
RETURNS TABLE (space_id integer, subject text, arguments text, collection text, wanted pgvec.vector_spaces, schema_name text, chunk_table text,
               chunks oid, vectors oid, rows double precision, readable boolean, registered boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- By name in pg_class: regclass would fail where the schema is not ours to use.
    SELECT s.id, format('space %s.%s', c.name, s.name), c.name || CASE WHEN s.is_default THEN '' ELSE ' --space ' || s.name END, c.name, s,
           c.schema_name, c.table_name, d.oid, v.oid, greatest(v.reltuples, 0),
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(v.oid, 'SELECT') AND has_table_privilege(d.oid, 'SELECT'), false
    FROM pgvec.collections c
    JOIN pgvec.vector_spaces s ON s.collection_id = c.id AND s.embedding_column IS NULL
    LEFT JOIN pg_namespace n ON n.nspname = c.schema_name
    LEFT JOIN pg_class d ON d.relnamespace = n.oid AND d.relname = c.table_name
    LEFT JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = s.table_name
    WHERE c.name !~ pgvec._scratch_names()
    UNION ALL
    SELECT s.id, format('space %s.%s', c.name, s.name), c.name || CASE WHEN s.is_default THEN '' ELSE ' --space ' || s.name END, c.name, pgvec._current_space(s),
           n.nspname, d.relname, d.oid, d.oid, greatest(d.reltuples, 0), has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(d.oid, 'SELECT'), true
    FROM pgvec.collections c
    JOIN pgvec.vector_spaces s ON s.collection_id = c.id AND s.embedding_column IS NOT NULL
    JOIN pgvec.registered_tables r ON r.collection_id = c.id
    JOIN pg_class d ON d.oid = r.relation
    JOIN pg_namespace n ON n.oid = d.relnamespace
    WHERE pgvec._registration_trouble(s) IS NULL  -- it has a finding of its own
$$;
COMMENT ON FUNCTION pgvec._all_spaces() IS
'All vector spaces but those of the advisor''s trials, with their tables (NULL if they are gone), their estimated rows, and how commands name them.';

CREATE OR REPLACE FUNCTION pgvec._all_indexes()
RETURNS TABLE (space_id integer, space text, arguments text, index oid, name text, subject text, method name, form text, shape text, options text[],
               valid boolean, usable boolean, place bigint, bytes bigint, rows double precision, vectors oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.space_id, s.subject, s.arguments, i.oid, i.name, format('index %I.%I', s.schema_name, i.name), i.method, i.form, i.shape, i.options,
           i.valid, i.usable, row_number() OVER (PARTITION BY s.space_id ORDER BY i.position), pg_relation_size(i.oid), s.rows, s.vectors
    FROM pgvec._all_spaces() s
    CROSS JOIN LATERAL ROWS FROM (pgvec._indexes(s.vectors, s.wanted)) WITH ORDINALITY
        AS i (oid, name, method, form, options, valid, usable, dimensions, lists, shape, position)
    WHERE s.vectors IS NOT NULL
$$;
COMMENT ON FUNCTION pgvec._all_indexes() IS 'All vector indexes; place: 1 is the one of its space that searches use, if it is usable.';

CREATE OR REPLACE FUNCTION pgvec._version(version text) RETURNS integer[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT array_agg(m.part[1]::integer ORDER BY m.position) FROM regexp_matches(version, '\d+', 'g') WITH ORDINALITY AS m (part, position) $$;
COMMENT ON FUNCTION pgvec._version(text) IS 'A version that can be compared.';

CREATE OR REPLACE FUNCTION pgvec._advisories(version text, server text DEFAULT version())
RETURNS TABLE (severity text, fixed_in text, advisory text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.severity, a.fixed_in, format('%s (fixed in pgvector %s)', a.advisory, a.fixed_in)
    FROM (VALUES ('error',   '0.8.2', '64', 'CVE-2026-3172: buffer overflow in parallel HNSW builds'),
                 ('error',   '0.8.3', '64', 'HNSW indexes can be corrupted by vacuuming'),
                 ('warning', '0.8.4', '64', 'HNSW graphs can be left unrepaired by vacuuming'),
                 ('error',   '0.8.6', '32', 'CVE-2026-18022: integer overflow in IVFFlat of 32-bit builds')) AS a (severity, fixed_in, bits, advisory)
    WHERE pgvec._version(_advisories.version) < pgvec._version(a.fixed_in) AND (a.bits = '64' OR server LIKE '%32-bit%')
$$;
COMMENT ON FUNCTION pgvec._advisories(text, text) IS
'Known vulnerabilities and data-damaging bugs of a version of the extension vector; server: as version() prints it.';

CREATE OR REPLACE FUNCTION pgvec._health_server(version integer DEFAULT current_setting('server_version_num')::integer, today date DEFAULT current_date)
RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'server', format('PostgreSQL %s gets no more repairs since %s', m.major, m.until), 'pg_upgrade --help  # to a newer major version'
    FROM (VALUES (12, '2024-11-21'), (13, '2025-11-13'), (14, '2026-11-12'), (15, '2027-11-11'), (16, '2028-11-09'), (17, '2029-11-08'),
                 (18, '2030-11-14')) AS m (major, until)
    WHERE m.major = version / 10000 AND today > m.until::date
$$;
COMMENT ON FUNCTION pgvec._health_server(integer, date) IS 'A major version whose life has ended.';

CREATE OR REPLACE FUNCTION pgvec._health_extension(version text DEFAULT NULL, server text DEFAULT version())
RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH installed AS (
        SELECT coalesce(_health_extension.version, e.extversion) AS version,
               (SELECT v.version FROM pg_available_extension_versions v
                WHERE v.name = 'vector' AND pgvec._version(v.version) > pgvec._version(coalesce(_health_extension.version, e.extversion))
                ORDER BY pgvec._version(v.version) DESC LIMIT 1) AS newer
        FROM pg_extension e WHERE e.extname = 'vector'
    ), advised AS (
        SELECT i.newer, a.severity, a.fixed_in, a.advisory FROM installed i CROSS JOIN LATERAL pgvec._advisories(i.version, server) a
    )
    SELECT a.severity, 'extension vector', a.advisory,
           CASE WHEN pgvec._version(a.newer) >= pgvec._version(a.fixed_in) THEN 'ALTER EXTENSION vector UPDATE;'
                ELSE format('apt install postgresql-%s-pgvector  # or another way to pgvector %s; then ALTER EXTENSION vector UPDATE;',
                            current_setting('server_version_num')::integer / 10000, a.fixed_in) END
    FROM advised a
    UNION ALL
    SELECT 'hint', 'extension vector', format('is of version %s here, and the server has %s', i.version, i.newer), 'ALTER EXTENSION vector UPDATE;'
    FROM installed i WHERE i.newer IS NOT NULL
$$;
COMMENT ON FUNCTION pgvec._health_extension(text, text) IS 'Advisories on the extension vector, and updates that wait.';

CREATE OR REPLACE FUNCTION pgvec._default_setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT s.reset_val FROM pg_settings s WHERE s.name = _default_setting.name $$;
COMMENT ON FUNCTION pgvec._default_setting(text) IS 'What sessions like this one begin with, whatever this one has SET since.';

CREATE OR REPLACE FUNCTION pgvec._set_sql(name text, value text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('ALTER DATABASE %I SET %s = %L;', current_database(), name, value) $$;
COMMENT ON FUNCTION pgvec._set_sql(text, text) IS 'The statement that changes a setting for new sessions of this database.';

CREATE OR REPLACE FUNCTION pgvec._health_build_memory() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- The build raises maintenance_work_mem as far as it dares; it is what it dared that did not suffice.
    SELECT 'warning', 'setting maintenance_work_mem',
           format('index %s outgrew its %s after %s of %s rows, and took longer for it: such a build needs about %s', b.index_name,
                  pg_size_pretty(b.memory_limit), b.spilled_after, b.rows, pg_size_pretty(b.forecast_memory)),
           pgvec._set_sql('maintenance_work_mem', ceil(1.15 * b.forecast_memory / 1048576) || 'MB')
    FROM (SELECT DISTINCT ON (b.space_id) b.index_name, b.memory_limit, b.spilled_after, b.rows, b.forecast_memory
          FROM pgvec.index_builds b ORDER BY b.space_id, b.built_at DESC) b
    WHERE b.spilled_after IS NOT NULL AND b.forecast_memory > 1024 * pgvec._default_setting('maintenance_work_mem')::bigint
    UNION ALL
    SELECT 'hint', 'setting max_parallel_maintenance_workers', 'is 0: one process alone builds an index',
           pgvec._set_sql('max_parallel_maintenance_workers', '2')
    WHERE pgvec._default_setting('max_parallel_maintenance_workers') = '0'
$$;
COMMENT ON FUNCTION pgvec._health_build_memory() IS 'Settings that make builds of indexes slow.';

CREATE OR REPLACE FUNCTION pgvec._health_memory(buffers bigint DEFAULT pg_size_bytes(current_setting('shared_buffers')))
RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH memory AS (
        SELECT coalesce(sum(i.bytes), 0)::bigint AS indexes, 8192 * pgvec._default_setting('effective_cache_size')::bigint AS cache
        FROM pgvec._all_indexes() i WHERE i.usable
    )
    SELECT CASE WHEN m.indexes > m.cache THEN 'warning' ELSE 'hint' END, 'setting shared_buffers',
           format('the vector indexes, %s, do not fit into shared_buffers, %s%s', pg_size_pretty(m.indexes), pg_size_pretty(buffers),
                  CASE WHEN m.indexes > m.cache THEN ', nor into the memory that effective_cache_size promises: searches read from disk' ELSE '' END),
           format('ALTER SYSTEM SET shared_buffers = ''%sMB'';  -- then restart the server; or have a smaller index: --form halfvec, binary',
                  ceil(1.25 * m.indexes / 1048576))
    FROM memory m WHERE m.indexes > buffers
    UNION ALL
    SELECT 'hint', 'setting effective_cache_size', format('is %s, less than shared_buffers, %s: the planner takes index scans for dearer than they are',
           pg_size_pretty(m.cache), pg_size_pretty(buffers)), pgvec._set_sql('effective_cache_size', 2 * buffers / 1048576 || 'MB')
    FROM memory m WHERE m.cache < buffers
$$;
COMMENT ON FUNCTION pgvec._health_memory(bigint) IS 'Vector indexes against the memory that the server has for them.';

CREATE OR REPLACE FUNCTION pgvec._health_planner() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'hint', 'setting jit', 'is on: to compile a search takes longer than to run it (pgvec''s own connections switch it off)',
           pgvec._set_sql('jit', 'off')
    WHERE pgvec._default_setting('jit') = 'on'
    UNION ALL
    SELECT 'hint', 'setting random_page_cost',
           format('is %s, though the database, %s, fits into memory: the planner shuns indexes', pgvec._default_setting('random_page_cost'),
                  pg_size_pretty(pg_database_size(current_database()))),
           pgvec._set_sql('random_page_cost', '1.1')
    WHERE pgvec._default_setting('random_page_cost')::double precision >= 4
      AND pg_database_size(current_database()) < 8192 * pgvec._default_setting('effective_cache_size')::bigint
$$;
COMMENT ON FUNCTION pgvec._health_planner() IS 'Settings that were made for other databases, or other disks.';

CREATE OR REPLACE FUNCTION pgvec._health_forced() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH stored AS (
        SELECT split_part(c.setting, '=', 1) AS name, substr(c.setting, position('=' IN c.setting) + 1) AS value,
               CASE WHEN s.setrole <> 0 THEN 'ALTER ROLE ' || quote_ident(r.rolname) || coalesce(' IN DATABASE ' || quote_ident(d.datname), '')
                    WHEN s.setdatabase <> 0 THEN 'ALTER DATABASE ' || quote_ident(d.datname) ELSE 'ALTER ROLE ALL' END AS alter_sql
        FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
        LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
        WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
    ), forced AS (
        SELECT s.name, s.value, s.alter_sql || ' RESET ' || s.name || ';' AS mend FROM stored s
        UNION ALL
        SELECT s.name, s.reset_val, CASE s.source WHEN 'client' THEN 'unset PGOPTIONS  # or take it out of the connection string'
                                    ELSE format('ALTER SYSTEM SET %s = %L; SELECT pg_reload_conf();', s.name, s.boot_val) END
        FROM pg_settings s WHERE s.reset_val <> s.boot_val AND s.name NOT IN (SELECT o.name FROM stored o)
    )
    SELECT CASE WHEN f.name IN ('enable_indexscan', 'enable_sort') THEN 'warning' ELSE 'hint' END, 'setting ' || f.name,
           format('is %s by default: %s', f.value, CASE WHEN f.name = 'enable_indexscan' THEN 'no search uses a vector index'
               WHEN f.name LIKE 'enable%' THEN 'it forces the plans of all statements'
               ELSE 'statements of your own have it, wanted or not; pgvec''s searches set what they need' END), f.mend
    FROM forced f
    WHERE f.name IN ('enable_indexscan', 'enable_seqscan', 'enable_sort', 'enable_bitmapscan', 'enable_indexonlyscan', 'enable_nestloop')
          AND f.value IN ('off', 'false', 'no', '0')
       OR f.name IN ('hnsw.ef_search', 'hnsw.iterative_scan', 'ivfflat.probes', 'ivfflat.iterative_scan')
$$;
COMMENT ON FUNCTION pgvec._health_forced() IS 'Settings of scans that were made for a role, the database or the server, and so for everybody.';

CREATE OR REPLACE FUNCTION pgvec._health_autovacuum() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'setting autovacuum', 'is off: dead rows slow searches down, and row counts are out of date',
           'ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf();'
    WHERE pgvec._default_setting('autovacuum') = 'off'
    UNION ALL
    SELECT DISTINCT 'warning', format('table %s', c.oid::regclass), 'autovacuum leaves it out', format('ALTER TABLE %s RESET (autovacuum_enabled);', c.oid::regclass)
    FROM pgvec._all_spaces() s JOIN pg_class c ON c.oid IN (s.chunks, s.vectors)
    WHERE array_to_string(c.reloptions, ' ') ~ '\yautovacuum_enabled=(false|off|no|0)\y'
$$;
COMMENT ON FUNCTION pgvec._health_autovacuum() IS 'Tables that nobody vacuums.';
