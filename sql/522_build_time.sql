-- How long a build will take: by builds of samples, and by those that were real.

CREATE OR REPLACE FUNCTION pgvec._build_work(method text, measured pgvec.build_calibrations, lists bigint, rows bigint, samples bigint, processes double precision)
RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- HNSW: to place a row takes the longer the more there are; the growth slows down beyond what was measured.
    -- IVFFlat: k-means in one process; all compare each row with each centre; then one writes the lists.
    SELECT CASE method
        WHEN 'hnsw' THEN rows * coalesce(measured.row_us, 1000) / processes
            * (least(rows, 65536) / coalesce(measured.rows, 10000)::double precision) ^ coalesce(measured.growth, 0.25) * (greatest(rows, 65536) / 65536.0) ^ 0.12
        ELSE samples * lists * coalesce(measured.kmeans_us, 0.3) + rows * (coalesce(measured.row_us, 10) + lists * coalesce(measured.list_us, 0.1) / processes)
        END / 1e6
$$;
COMMENT ON FUNCTION pgvec._build_work(text, pgvec.build_calibrations, bigint, bigint, bigint, double precision) IS
'Seconds of a build by what was measured, or without a measurement in some unit.';

CREATE OR REPLACE FUNCTION pgvec._build_processes(workers integer, cores integer) RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT least(workers + 1, coalesce(cores, workers + 1))::double precision ^ 0.9 $$;
COMMENT ON FUNCTION pgvec._build_processes(integer, integer) IS 'How many times as fast as one process the processes of a build are.';

CREATE OR REPLACE FUNCTION pgvec._build_seconds(space_id integer, sized jsonb, workers integer, cores integer) RETURNS double precision
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind     jsonb := CASE sized ->> 'method' WHEN 'hnsw' THEN sized -> 'options' ELSE '{}' END;
    measured pgvec.build_calibrations;
    past     record;
    seconds  double precision;
BEGIN
    SELECT c.* INTO measured FROM pgvec.build_calibrations c
    WHERE c.space_id = _build_seconds.space_id AND c.method = sized ->> 'method' AND c.form = sized ->> 'form'
      AND c.dimensions = (sized -> 'dimensions')::integer AND c.options = kind;
    seconds := pgvec._build_work(sized ->> 'method', measured, (sized -> 'options' -> 'lists')::bigint, (sized -> 'rows')::bigint, (sized -> 'samples')::bigint,
                                 pgvec._build_processes(workers, cores));
    -- A real build knows better: what was measured only scales it.
    SELECT b.seconds / nullif(pgvec._build_work(b.method, measured, (b.options -> 'lists')::bigint, b.rows, least(b.rows, greatest(10000, 50 * (b.options -> 'lists')::bigint)),
                                                pgvec._build_processes(b.workers, cores)), 0) AS ratio INTO past
    FROM pgvec.index_builds b
    WHERE b.space_id = _build_seconds.space_id AND b.method = sized ->> 'method' AND b.form = sized ->> 'form' AND b.dimensions = (sized -> 'dimensions')::integer
      AND b.spilled_after IS NULL AND b.rows >= 1000 AND (kind = '{}' OR b.options = kind)
    ORDER BY b.built_at DESC LIMIT 1;
    RETURN CASE WHEN (sized -> 'rows')::bigint = 0 THEN 0 ELSE seconds * coalesce(past.ratio, CASE WHEN measured.space_id IS NOT NULL THEN 1 END) END;
END $$;
COMMENT ON FUNCTION pgvec._build_seconds(integer, jsonb, integer, integer) IS
'How long a build will take, by the last real one of its kind, else by a calibration, NULL without either.';

CREATE OR REPLACE FUNCTION pgvec._index_milliseconds(kind jsonb, options text, first bigint, last bigint) RETURNS double precision
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began timestamptz;
    spent double precision;
BEGIN
    began := clock_timestamp();
    EXECUTE format('CREATE INDEX pgvec_calibrated ON pg_temp.pgvec_calibration_%s USING %I (%s %s) WITH (%s) WHERE number BETWEEN %s AND %s',
                   pg_backend_pid(), kind ->> 'method', kind ->> 'expression', kind ->> 'opclass', options, first, last);
    spent := 1000 * extract(epoch FROM clock_timestamp() - began);
    DROP INDEX pg_temp.pgvec_calibrated;
    RETURN spent;
END $$;
COMMENT ON FUNCTION pgvec._index_milliseconds(jsonb, text, bigint, bigint) IS 'How long it takes to build an index on some rows of the sample.';

CREATE OR REPLACE FUNCTION pgvec._calibrate_hnsw(kind jsonb, available bigint, OUT rows bigint, OUT row_us double precision, OUT growth double precision)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    options text := format('m = %s, ef_construction = %s', kind -> 'options' -> 'm', kind -> 'options' -> 'ef_construction');
    small   bigint := least(available, 1000);
    spent   double precision := pgvec._index_milliseconds(kind, options, 1, small);
    second  double precision;
BEGIN
    -- As many more as take a second or two; four times the rows take about six times as long.
    rows := least(available, greatest(2 * small, least(8000, small * (1500 / spent) ^ 0.75))::bigint);
    second := pgvec._index_milliseconds(kind, options, 1, rows);
    row_us := 1000 * second / rows;
    growth := CASE WHEN rows < 2 * small THEN 0.3 ELSE least(0.3, greatest(0.15, ln(row_us / (1000 * spent / small)) / ln(rows::double precision / small))) END;
END $$;
COMMENT ON FUNCTION pgvec._calibrate_hnsw(jsonb, bigint) IS 'Build HNSW indexes on samples of two sizes; microseconds per row, and how they grow with the number of rows.';

CREATE OR REPLACE FUNCTION pgvec._calibrate_ivfflat(kind jsonb, available bigint, OUT row_us double precision, OUT list_us double precision, OUT kmeans_us double precision)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lists double precision := least(200, (kind -> 'options' -> 'lists')::integer, greatest(1, available / 50));
    one   double precision := 1000 * pgvec._index_milliseconds(kind, 'lists = 1', 1, available);
    -- Copies of one row: k-means of them is over at once, and what is left are distances: of rows, of samples, of centres.
    same  double precision := 1000 * pgvec._index_milliseconds(kind, 'lists = 200', -5000, -1);
    many  double precision := 1000 * pgvec._index_milliseconds(kind, format('lists = %s', lists), 1, available);
BEGIN
    row_us := one / available;
    list_us := greatest(0.01, (same - 5000 * row_us) / (2 * 5000 * 200 + 200 * 200));
    kmeans_us := greatest(0, many - available * (row_us + list_us * lists)) / (least(available, 10000) * lists);
END $$;
COMMENT ON FUNCTION pgvec._calibrate_ivfflat(jsonb, bigint) IS
'Build IVFFlat indexes on samples; microseconds per row, per row and list, and of k-means per sample and list.';

CREATE OR REPLACE FUNCTION pgvec._distinct_share(expression text, relation regclass, rows bigint, bytes double precision) RETURNS double precision
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET work_mem = '128MB'
AS $$
DECLARE
    percent double precision := least(100, 100 * least(100000, 150e6 / bytes) / greatest(1, rows));
    found   record;
BEGIN
    -- Of a sample: the estimator of Haas and Stokes that ANALYZE has, too, which looks at the values seen once.
    EXECUTE format('SELECT sum(g.n)::double precision AS seen, count(*)::double precision AS different, count(*) FILTER (WHERE g.n = 1)::double precision AS once '
                   'FROM (SELECT count(*) AS n FROM (SELECT %s AS value FROM %s %s) v GROUP BY v.value) g', expression, relation,
                   CASE WHEN percent < 100 THEN format('TABLESAMPLE %s (%s)', CASE WHEN rows <= 2000000 THEN 'BERNOULLI' ELSE 'SYSTEM' END, percent) END) INTO found;
    RETURN CASE WHEN found.seen > 0 THEN least(1, found.different / (found.seen - found.once + found.once * percent / 100) * percent / 100) ELSE 1 END;
END $$;
COMMENT ON FUNCTION pgvec._distinct_share(text, regclass, bigint, double precision) IS 'The share of different values among all: HNSW stores ten rows of the same value as one.';

CREATE OR REPLACE FUNCTION pgvec._calibrate_builds(wanted pgvec.vector_spaces, relation regclass, kinds jsonb[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET maintenance_work_mem = '512MB' SET max_parallel_maintenance_workers = 0 SET client_min_messages = warning
AS $$
DECLARE
    there     bigint := pgvec._estimated_rows(relation);
    sample    text := format('pgvec_calibration_%s', pg_backend_pid());
    embedding text := pgvec._embedding_column(wanted);
    kind      jsonb;
    measured  record;
    available bigint;
BEGIN
    -- The column has the name that the expressions of indexes know.
    EXECUTE format('CREATE TEMP TABLE %I (number integer, %s %s) ON COMMIT DROP', sample, embedding, pgvec._embedding_type(wanted.type, wanted.dimensions));
    EXECUTE format('ALTER TABLE pg_temp.%I ALTER %s SET STORAGE PLAIN', sample, embedding);
    EXECUTE format('INSERT INTO pg_temp.%I SELECT row_number() OVER (), s.%2$s FROM (SELECT v.%2$s FROM %3$s v %4$s WHERE v.%2$s IS NOT NULL LIMIT 20000) s', sample, embedding, relation,
                   CASE WHEN there > 30000 THEN format('TABLESAMPLE SYSTEM (%s)', 100 * 25000.0 / there) END);
    GET DIAGNOSTICS available = ROW_COUNT;
    EXECUTE format('INSERT INTO pg_temp.%1$I SELECT - copy, s.%2$s FROM pg_temp.%1$I s, generate_series(1, 5000) copy WHERE s.number = 1', sample, embedding);
    FOREACH kind IN ARRAY CASE WHEN available < 100 THEN '{}' ELSE kinds END LOOP
        IF kind ->> 'method' = 'hnsw' THEN
            SELECT c.rows, c.row_us, c.growth, NULL::double precision AS list_us, NULL::double precision AS kmeans_us,
                   pgvec._distinct_share(kind ->> 'expression', relation, there, (kind -> 'bytes')::double precision) AS distinct_share
            INTO measured FROM pgvec._calibrate_hnsw(kind, available) c;
        ELSE
            SELECT available AS rows, c.row_us, NULL::double precision AS growth, c.list_us, c.kmeans_us, 1::double precision AS distinct_share
            INTO measured FROM pgvec._calibrate_ivfflat(kind, available) c;
        END IF;
        INSERT INTO pgvec.build_calibrations AS c (space_id, method, form, dimensions, options, rows, row_us, growth, list_us, kmeans_us, distinct_share)
        VALUES (wanted.id, kind ->> 'method', kind ->> 'form', (kind -> 'dimensions')::integer, CASE kind ->> 'method' WHEN 'hnsw' THEN kind -> 'options' ELSE '{}' END,
                measured.rows, measured.row_us, measured.growth, measured.list_us, measured.kmeans_us, measured.distinct_share)
        ON CONFLICT (space_id, method, form, dimensions, options) DO UPDATE
        SET rows = excluded.rows, row_us = excluded.row_us, growth = excluded.growth, list_us = excluded.list_us, kmeans_us = excluded.kmeans_us,
            distinct_share = excluded.distinct_share, measured_at = now();
    END LOOP;
    EXECUTE format('DROP TABLE pg_temp.%I', sample);
END $$;
COMMENT ON FUNCTION pgvec._calibrate_builds(pgvec.vector_spaces, regclass, jsonb[]) IS 'Build indexes on a sample of the vectors, and keep how long it took.';
