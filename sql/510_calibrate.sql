-- What searches cost on this server.

CREATE OR REPLACE FUNCTION pgvec._milliseconds(statement text, query text, keys bigint[]) RETURNS double precision
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began timestamptz := clock_timestamp();
BEGIN
    EXECUTE statement USING query, keys;
    RETURN 1000 * extract(epoch FROM clock_timestamp() - began);
END $$;
COMMENT ON FUNCTION pgvec._milliseconds(text, text, bigint[]) IS 'How long a statement takes; $1 is a query as text, $2 keys.';

CREATE OR REPLACE FUNCTION pgvec._step_us(owner pgvec.collections, wanted pgvec.vector_spaces, target jsonb, queries text[]) RETURNS double precision
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    method  text := target ->> 'method';
    small   integer := CASE method WHEN 'hnsw' THEN 40 ELSE 1 END;
    large   integer := least((target -> 'largest')::integer, CASE method WHEN 'hnsw' THEN 240 ELSE 9 END);
    -- A candidate of a filtered search costs its look at the chunk table, too.
    scan    text := format('SELECT count(*) FROM (SELECT v.key FROM %s v WHERE EXISTS (SELECT FROM %s d WHERE d.key = v.key OFFSET 0) ORDER BY %s LIMIT 1000) s',
        target ->> 'vectors', target ->> 'chunks', pgvec._candidate_sql(wanted, target ->> 'form', (target -> 'dimensions')::integer,
        format('($1::%s)', pgvec._embedding_type(wanted.type, wanted.dimensions))));
    spent   double precision[] := '{}';
    setting integer;
    query   text;
BEGIN
    PERFORM set_config(method || '.iterative_scan', 'off', true);
    FOREACH query IN ARRAY queries LOOP
        FOREACH setting IN ARRAY ARRAY[large, small, large, small] LOOP  -- the first of each pair of rounds only warms up
            PERFORM set_config(CASE method WHEN 'hnsw' THEN 'hnsw.ef_search' ELSE 'ivfflat.probes' END, setting::text, true);
            spent := spent || pgvec._milliseconds(scan, query, NULL);
        END LOOP;
        spent := spent[:cardinality(spent) - 4] || spent[cardinality(spent) - 1:];
    END LOOP;
    RETURN (SELECT greatest(0.01, 1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY spent[i] - spent[i + 1]) / greatest(1, large - small))
            FROM generate_series(1, cardinality(spent), 2) i);
END $$;
COMMENT ON FUNCTION pgvec._step_us(pgvec.collections, pgvec.vector_spaces, jsonb, text[]) IS
'Microseconds of one step of an index setting: the difference between a large and a small one.';

CREATE OR REPLACE FUNCTION pgvec.calibrate(collection text, space text DEFAULT NULL)
RETURNS TABLE (exact_us double precision, exact_cold_us double precision, scan_us double precision, gate integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner   pgvec.collections := pgvec._collection(collection);
    wanted  pgvec.vector_spaces := pgvec._space(collection, space);
    vectors text := pgvec._vectors_sql(owner, wanted);
    target  jsonb := pgvec._target(owner, wanted, '{}', 10, 0);
    compare text;
    keys    bigint[];
    queries text[];
    spent   double precision[] := '{}';
BEGIN
    IF wanted.type = 'vector[]' THEN
        RAISE EXCEPTION 'vector space % is for rescoring: there is nothing to calibrate', quote_literal(wanted.name) USING ERRCODE = 'PV005';
    END IF;
    -- Keys from the chunk table, so that the first look at their vectors is a first look.
    EXECUTE format('SELECT array_agg(k.key ORDER BY random()) FROM (SELECT d.%4$I AS key FROM %1$I.%5$I d TABLESAMPLE SYSTEM (%2$s) WHERE EXISTS (SELECT FROM %3$s v WHERE v.key = d.%4$I) '
                   'ORDER BY random() LIMIT 2000) k', owner.schema_name,
                   (SELECT least(100, 1000000.0 / greatest(c.reltuples, 1)) FROM pg_class c WHERE c.oid = pgvec._relation(owner.schema_name, owner.table_name)), vectors,
                   coalesce((pgvec._registered(owner.id)).key_column, 'key'), owner.table_name) INTO keys;
    IF coalesce(cardinality(keys), 0) < 100 THEN
        RAISE EXCEPTION 'vector space % holds too few vectors to calibrate on', quote_literal(wanted.name)
            USING ERRCODE = 'PV005', HINT = 'Load it and ANALYZE it first; searches of few rows need no calibration.';
    END IF;
    EXECUTE format('SELECT array_agg(v.embedding::text) FROM %s v WHERE v.key = ANY ($1)', vectors) INTO queries USING keys[:10];
    compare := format('SELECT count(e.distance) FROM unnest($2) t (key) CROSS JOIN LATERAL (SELECT v.embedding %s $1::%s AS distance FROM %s v WHERE v.key = t.key OFFSET 0) e',
                      (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).operator, pgvec._embedding_type(wanted.type, wanted.dimensions), vectors);
    FOR round IN 1 .. 5 LOOP
        spent := spent || 1000 * pgvec._milliseconds(compare, queries[1], keys) / cardinality(keys);
    END LOOP;
    exact_cold_us := spent[1];
    exact_us := (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s) FROM unnest(spent[2:]) s);
    IF target IS NOT NULL THEN
        scan_us := pgvec._step_us(owner, wanted, target, queries);
    END IF;
    INSERT INTO pgvec.calibrations AS c (space_id, exact_us, exact_cold_us, scan_us)
    VALUES (wanted.id, calibrate.exact_us, calibrate.exact_cold_us, calibrate.scan_us)
    ON CONFLICT (space_id) DO UPDATE SET exact_us = excluded.exact_us, exact_cold_us = excluded.exact_cold_us, scan_us = excluded.scan_us, calibrated_at = now();
    gate := (pgvec._target(owner, wanted, '{}', 10, 0) -> 'gate')::integer;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION pgvec.calibrate(text, text) IS
'Measure what searches of a space cost on this server, and have them use it: in microseconds, to fetch and compare one vector (cached; and at
the first touch), and one step of the index setting. gate: the number of matches, for k = 10, up to which they now sort exactly. Takes about
a second; pgvec tune runs it.
Example: SELECT * FROM pgvec.calibrate(''docs'');';
