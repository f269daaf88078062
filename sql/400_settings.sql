-- What a search costs, and the index settings that follow from it.
--
-- One law carries them: what it takes to find the first d neighbours grows as (d / k) ^ exponent over what it takes for the first k, which
-- tune measures. A filtered search for k is an unfiltered one for the first d, where d is the rank of the k-th match.

CREATE OR REPLACE FUNCTION pgvec._costs(space_id integer, method text, OUT exact_us double precision, OUT scan_us double precision,
                                        OUT exponent double precision)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Where nothing was calibrated: what 384 dimensions in memory cost on the machine that this was written on.
    SELECT coalesce(max(c.exact_us), 2), coalesce(max(c.scan_us), CASE method WHEN 'hnsw' THEN 9 ELSE 500 END), coalesce(max(c.exponent), 0.5)
    FROM pgvec.calibrations c WHERE c.space_id = _costs.space_id
$$;
COMMENT ON FUNCTION pgvec._costs(integer, text) IS
'The calibration of a space (see table pgvec.calibrations), or what stands in for it until pgvec.calibrate has run.';

CREATE OR REPLACE FUNCTION pgvec._gate(space_id integer, method text, setting double precision, rows double precision) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(200000, power(c.scan_us / c.exact_us * setting * power(rows, c.exponent), 1 / (1 + c.exponent)))::integer
    FROM pgvec._costs(space_id, method) c
$$;
COMMENT ON FUNCTION pgvec._gate(integer, text, double precision, double precision) IS
'The number of matching rows up to which a filtered search is answered exactly: where exact_us * matches, the cost of an exact answer,
equals scan_us * setting * (rows / matches) ^ exponent, the cost of an index scan that finds as much.';

CREATE OR REPLACE FUNCTION pgvec._setting_sql(target jsonb, depth text, options jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN options ? 'ef_search' THEN options ->> 'ef_search'
        ELSE format('pg_catalog.ceil(least(1e9, greatest(%1$s * pg_catalog.power(greatest(1, %2$s / %3$s.0), %4$s), %5$s)))::integer', 't.setting', depth,
                    target ->> 'candidates', target ->> 'exponent',
                    -- An HNSW scan returns no more rows than its setting.
                    CASE target ->> 'method' WHEN 'hnsw' THEN depth ELSE '1' END) END
$$;
COMMENT ON FUNCTION pgvec._setting_sql(jsonb, text, jsonb) IS
'An expression for the setting that finds the first depth neighbours, among which the wanted candidates are expected.';

CREATE OR REPLACE FUNCTION pgvec._settings_sql(method text, relation text, going_on text, query text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql$(SELECT pg_catalog.concat(pg_catalog.set_config('{method}.{setting}', s.value::text, true),
      pg_catalog.set_config('{method}.iterative_scan', CASE WHEN {going_on} THEN 'relaxed_order' ELSE 'off' END, true){limits})
      FROM {relation} s WHERE ({query}) IS NOT NULL) IS NOT NULL$sql$,
        jsonb_build_object('method', method, 'setting', CASE method WHEN 'hnsw' THEN 'ef_search' ELSE 'probes' END,
                           'relation', relation, 'going_on', going_on, 'query', query,
                           -- How far it goes on the LIMIT says.
                           'limits', CASE WHEN going_on = 'false' THEN '' WHEN method = 'hnsw' THEN
                               ', pg_catalog.set_config(''hnsw.max_scan_tuples'', ''2147483647'', true), pg_catalog.set_config(''hnsw.scan_mem_multiplier'', ''1000'', true)'
                               ELSE ', pg_catalog.set_config(''ivfflat.max_probes'', ''32768'', true)' END))
$$;
COMMENT ON FUNCTION pgvec._settings_sql(text, text, text, text) IS
'A condition that is always true and, evaluated once before the index scan it guards, applies its settings: value, of the relation, and whether it
goes on beyond its first batch. Being parallel-unsafe it also keeps parallel workers from being started for a branch that is switched off.
That it asks for the query has it evaluated for each one, where a statement has several.';
