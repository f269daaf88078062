-- Watching recall: what searches find now of the true nearest, as a series over time, and how far the embeddings have drifted.

CREATE OR REPLACE FUNCTION pgvec._measured_query(found_sql text, exact_sql text, query text, filter jsonb, own_key bigint, k integer,
                                                 OUT recall double precision, OUT short boolean, OUT milliseconds double precision, OUT nearest double precision)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A stored row, as a query, must not find itself.
    distances text := 'SELECT array_agg(t.distance ORDER BY t.distance) FROM (%s) t WHERE t.key IS DISTINCT FROM $3';
    began     timestamptz := clock_timestamp();
    found     double precision[];
    truth     double precision[];
    farthest  double precision;
BEGIN
    EXECUTE format(distances, found_sql) INTO found USING query, filter, own_key;
    milliseconds := 1000 * extract(epoch FROM clock_timestamp() - began);
    EXECUTE format(distances, exact_sql) INTO truth USING query, filter, own_key;
    nearest := truth[1];
    truth := truth[:k];
    farthest := truth[cardinality(truth)];
    -- By distance, not by id: of exact duplicates, any one is as good as another.
    recall := (SELECT count(*) FROM unnest(found[:k]) f WHERE f <= farthest + 1e-7 * greatest(1, abs(farthest)))::double precision / cardinality(truth);
    short := coalesce(cardinality(found), 0) < cardinality(truth);
END $$;
COMMENT ON FUNCTION pgvec._measured_query(text, text, text, jsonb, bigint, integer) IS
'Run a query by two statements of _nearest_sql, the one that searches use and the exact one. recall: NULL if nothing matches; short: whether fewer rows
came than match; nearest: the least true distance. own_key: the query''s own row, if it is a stored one.';

CREATE OR REPLACE FUNCTION pgvec._watched_queries(owner pgvec.collections, wanted pgvec.vector_spaces, queries integer)
RETURNS TABLE (source text, query text, filter jsonb, own_key bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fewest CONSTANT integer := 20;
BEGIN
    IF has_table_privilege('pgvec.query_log', 'SELECT') THEN
        -- Each once: what one user asked over and over is one witness.
        RETURN QUERY
        WITH logged AS (
            SELECT DISTINCT l.query, l.filter
            FROM (SELECT q.query, q.filter FROM pgvec.query_log q WHERE q.space_id = wanted.id ORDER BY q.id DESC LIMIT 10 * greatest(queries, fewest)) l)
        SELECT 'log', l.query, l.filter, NULL::bigint FROM logged l WHERE (SELECT count(*) FROM logged) >= fewest ORDER BY random() LIMIT queries;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY EXECUTE format('SELECT ''stored'', s.embedding::text, NULL::jsonb, s.key FROM (%s) s', pgvec._sample_sql(owner, wanted, queries));
END $$;
COMMENT ON FUNCTION pgvec._watched_queries(pgvec.collections, pgvec.vector_spaces, integer) IS
'The queries to watch by: some of the newest logged ones, each with its own filter, if there are 20 different ones that may be read, else rows.';

CREATE OR REPLACE FUNCTION pgvec._measured_queries(owner pgvec.collections, wanted pgvec.vector_spaces, k integer, queries integer)
RETURNS TABLE (source text, recall double precision, short boolean, milliseconds double precision, nearest double precision)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    query_  text := format('($1::%s)', pgvec._embedding_type(wanted.type, wanted.dimensions));
    drawn   record;
    options jsonb;
BEGIN
    FOR drawn IN SELECT w.source, w.query, w.filter, w.own_key FROM pgvec._watched_queries(owner, wanted, queries) w LOOP
        source := drawn.source;
        options := CASE WHEN drawn.filter IS NULL THEN '{}' ELSE jsonb_build_object('filter', drawn.filter) END;
        BEGIN
            SELECT m.recall, m.short, m.milliseconds, m.nearest INTO recall, short, milliseconds, nearest
            FROM pgvec._measured_query(pgvec._nearest_sql(owner, wanted, options, k, (drawn.own_key IS NOT NULL)::integer, query_),
                                       pgvec._nearest_sql(owner, wanted, options || '{"exact": true}', k, (drawn.own_key IS NOT NULL)::integer, query_),
                                       drawn.query, drawn.filter, drawn.own_key, k) m;
        EXCEPTION WHEN SQLSTATE 'PV004' OR data_exception THEN
            CONTINUE;  -- a logged filter that no longer fits the columns
        END;
        IF recall IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._measured_queries(pgvec.collections, pgvec.vector_spaces, integer, integer) IS
'What comes of the queries to watch by, those of which nothing matches left out.';

CREATE OR REPLACE FUNCTION pgvec._embedding_statistics(owner pgvec.collections, wanted pgvec.vector_spaces,
                                                       OUT mean text, OUT spread double precision, OUT vectors integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF wanted.type NOT IN ('vector', 'halfvec') THEN
        RETURN;
    END IF;
    EXECUTE format('WITH drawn AS MATERIALIZED (SELECT s.embedding::%1$I.vector AS embedding FROM (%2$s) s), mean AS MATERIALIZED (SELECT %1$I.avg(d.embedding) AS mean FROM drawn d) '
                   'SELECT max(m.mean::text), sqrt(avg((d.embedding OPERATOR(%1$I.<->) m.mean) ^ 2)), count(*)::integer FROM drawn d, mean m',
                   pgvec._vector_schema(), pgvec._sample_sql(owner, wanted, 2000)) INTO mean, spread, vectors;
END $$;
COMMENT ON FUNCTION pgvec._embedding_statistics(pgvec.collections, pgvec.vector_spaces) IS
'The mean of a random sample of the stored vectors, as text, and their root mean square distance from it; NULL for types that have no mean.';

CREATE OR REPLACE FUNCTION pgvec._mean_shift(owner pgvec.collections, wanted pgvec.vector_spaces, baseline pgvec.drift_baselines,
                                             OUT shift double precision, OUT by_chance double precision)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present record;
BEGIN
    IF baseline.spread > 0 THEN
        present := pgvec._embedding_statistics(owner, wanted);
        EXECUTE format('SELECT ($1::%1$I.vector OPERATOR(%1$I.<->) $2::%1$I.vector) / $3', pgvec._vector_schema())
            INTO shift USING present.mean, baseline.mean, baseline.spread;
        -- In units of the spread the means of n and of m vectors of one population are sqrt(1/n + 1/m) apart, root mean square; in many dimensions hardly more.
        by_chance := greatest(0.1, 4 * sqrt(1.0 / present.vectors + 1.0 / baseline.vectors));
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._mean_shift(pgvec.collections, pgvec.vector_spaces, pgvec.drift_baselines) IS
'How far the mean of the stored vectors is from the baseline''s, in units of the baseline''s spread, and how far it may be by chance: four standard
errors, and a tenth, less than which matters to nobody.';

CREATE OR REPLACE FUNCTION pgvec._distance_shift(before double precision[], present double precision[],
                                                 OUT shift double precision, OUT by_chance double precision, OUT farther boolean)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT max(abs(s.gap)), sqrt(-ln(0.0001 / 2) / 2 * (1.0 / cardinality(before) + 1.0 / cardinality(present))), max(s.gap) >= -min(s.gap)
    FROM (SELECT count(*) FILTER (WHERE d.before) OVER (ORDER BY d.distance)::double precision / cardinality(_distance_shift.before)
                 - count(*) FILTER (WHERE NOT d.before) OVER (ORDER BY d.distance)::double precision / cardinality(present) AS gap
          FROM (SELECT b.distance, true AS before FROM unnest(_distance_shift.before) b (distance)
                UNION ALL SELECT p.distance, false FROM unnest(present) p (distance)) d) s
$$;
COMMENT ON FUNCTION pgvec._distance_shift(double precision[], double precision[]) IS
'The Kolmogorov-Smirnov statistic of two samples, 0 to 1; what it exceeds once in 10,000 times if both are of one population; and whether the second
lies farther out.';

CREATE OR REPLACE FUNCTION pgvec._ln_choose(n integer, k integer) RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN k BETWEEN 0 AND n THEN coalesce(sum(ln((n - k + i)::double precision / i)), 0) ELSE '-Infinity' END FROM generate_series(1, CASE WHEN k <= n THEN k ELSE 0 END) i $$;
COMMENT ON FUNCTION pgvec._ln_choose(integer, integer) IS 'The logarithm of the number of ways to choose k of n.';

CREATE OR REPLACE FUNCTION pgvec._out_of_range(before double precision[], present double precision[],
                                               OUT share double precision, OUT chance double precision)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m     integer := cardinality(before);
    n     integer := cardinality(present);
    rank  integer := m + 1 - ceil(0.99 * m)::integer;  -- of the 99th percentile, counted from the largest
    beyond integer;
BEGIN
    SELECT count(*) INTO beyond FROM unnest(present) p (distance)
    WHERE p.distance > (SELECT b.distance FROM unnest(before) b (distance) ORDER BY b.distance DESC OFFSET rank - 1 LIMIT 1);
    share := beyond::double precision / n;
    -- So many are beyond it if among the beyond + rank - 1 largest of all at most rank - 1 are of the baseline: the hypergeometric distribution says how
    -- likely that is, whatever the distances are like. That the percentile is itself an estimate is in it; a binomial of 1 % would cry wolf.
    chance := (SELECT sum(exp(pgvec._ln_choose(m, i) + pgvec._ln_choose(n, beyond + rank - 1 - i) - pgvec._ln_choose(m + n, beyond + rank - 1)))
               FROM generate_series(0, rank - 1) i);
END $$;
COMMENT ON FUNCTION pgvec._out_of_range(double precision[], double precision[]) IS
'The share of the second sample beyond the 99th percentile of the first, and the chance that it is as much or more if both are of one population.';

CREATE OR REPLACE FUNCTION pgvec._set_baseline(owner pgvec.collections, wanted pgvec.vector_spaces, source text, distances double precision[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgvec.drift_baselines AS b (space_id, mean, spread, vectors, distances, source)
    SELECT wanted.id, e.mean, e.spread, e.vectors, ARRAY(SELECT d FROM unnest(_set_baseline.distances) d ORDER BY d), _set_baseline.source
    FROM pgvec._embedding_statistics(owner, wanted) e
    ON CONFLICT (space_id) DO UPDATE SET mean = excluded.mean, spread = excluded.spread, vectors = excluded.vectors, distances = excluded.distances,
                                         source = excluded.source, taken_at = now()
$$;
COMMENT ON FUNCTION pgvec._set_baseline(pgvec.collections, pgvec.vector_spaces, text, double precision[]) IS
'Store what the embeddings are like now, with the distances of queries to their nearest, as what later ones are compared with.';

CREATE OR REPLACE FUNCTION pgvec._check_stores(what text, VARIADIC needed text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing text := (SELECT string_agg(format('GRANT %s TO %I;', g, current_user), ' ' ORDER BY o) FROM unnest(needed) WITH ORDINALITY AS n (g, o)
                     WHERE EXISTS (SELECT FROM regexp_split_to_table(split_part(g, ' ON ', 1), ', ') AS p WHERE NOT has_table_privilege(split_part(g, ' ON ', 2), p)));
BEGIN
    IF current_setting('transaction_read_only') = 'on' THEN
        RAISE EXCEPTION '% stores what it measures, and this transaction is read-only', what
            USING ERRCODE = 'PV005', HINT = 'Call it on the primary server, in a transaction that may write.';
    ELSIF missing IS NOT NULL THEN
        RAISE EXCEPTION '% stores what it measures, and role % may not', what, quote_ident(current_user) USING ERRCODE = 'PV005', HINT = missing;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_stores(text, text[]) IS
'PV005 if what is to store something could not, before it measures for long; needed: such as SELECT, INSERT ON pgvec.recall_checks.';

CREATE OR REPLACE FUNCTION pgvec.set_drift_baseline(collection text, space text DEFAULT NULL, queries integer DEFAULT 100) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner     pgvec.collections := pgvec._collection(collection);
    wanted    pgvec.vector_spaces := pgvec._searched_space(collection, space);
    source    text;
    distances double precision[];
BEGIN
    IF (queries BETWEEN 20 AND 10000) IS NOT TRUE THEN
        RAISE EXCEPTION 'queries must be from 20 to 10000' USING ERRCODE = 'PV005', HINT = 'Fewer tell too little of what is usual.';
    END IF;
    PERFORM pgvec._check_stores('set_drift_baseline', 'SELECT, INSERT, UPDATE ON pgvec.drift_baselines');
    SELECT min(m.source), array_agg(m.nearest) INTO source, distances FROM pgvec._measured_queries(owner, wanted, 1, queries) m;
    IF coalesce(cardinality(distances), 0) < 20 THEN
        RAISE EXCEPTION 'collection % holds too little to say what is usual: at least 21 vectors are needed', quote_literal(collection)
            USING ERRCODE = 'PV005', HINT = 'Load it first.';
    END IF;
    PERFORM pgvec._set_baseline(owner, wanted, source, distances);
END $$;
COMMENT ON FUNCTION pgvec.set_drift_baseline(text, text, integer) IS
'Take what the embeddings of a space are like now for what is usual: pgvec.watch measures drift from there. The first watch does so by itself; call
it when a drift that watch alarms about is as it should be. queries: of so many the distance to the nearest is measured.
Example: SELECT pgvec.set_drift_baseline(''docs'');';

CREATE OR REPLACE FUNCTION pgvec._watched_drift(owner pgvec.collections, wanted pgvec.vector_spaces, source text, distances double precision[],
                                                OUT mean_shift double precision, OUT distance_shift double precision, OUT out_of_range double precision, OUT alarms text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    baseline pgvec.drift_baselines;
    mean     record;
    distance record;
    range    record;
BEGIN
    alarms := '{}';
    SELECT b.* INTO baseline FROM pgvec.drift_baselines b WHERE b.space_id = wanted.id;
    IF baseline.space_id IS NULL THEN
        IF cardinality(distances) >= 20 THEN
            PERFORM pgvec._set_baseline(owner, wanted, source, distances);
        END IF;
        RETURN;
    END IF;
    mean := pgvec._mean_shift(owner, wanted, baseline);
    mean_shift := mean.shift;
    IF mean.shift > mean.by_chance THEN
        alarms := alarms || format('drift: the stored embeddings have moved by %s of their spread since %s (by chance at most %s): is their model the one of the queries?',
                                   round(mean.shift::numeric, 2), baseline.taken_at::date, round(mean.by_chance::numeric, 2));
    END IF;
    IF baseline.source <> source THEN
        -- Stored rows leave themselves out and are nearer to others than queries are: these are not to be compared. Real queries are to be had from now on.
        IF source = 'log' AND cardinality(distances) >= 20 THEN
            UPDATE pgvec.drift_baselines b SET distances = ARRAY(SELECT d FROM unnest(_watched_drift.distances) d ORDER BY d), source = 'log' WHERE b.space_id = wanted.id;
        END IF;
        RETURN;
    END IF;
    distance := pgvec._distance_shift(baseline.distances, distances);
    range := pgvec._out_of_range(baseline.distances, distances);
    distance_shift := distance.shift;
    out_of_range := range.share;
    IF distance.shift > distance.by_chance THEN
        alarms := alarms || format('drift: queries are %s their nearest than on %s: the distances have shifted by %s (by chance at most %s)', CASE WHEN distance.farther THEN 'farther from'
                                   ELSE 'nearer to' END, baseline.taken_at::date, round(distance.shift::numeric, 2), round(distance.by_chance::numeric, 2));
    END IF;
    IF range.chance < 0.0001 THEN
        alarms := alarms || format('drift: %s of the queries are farther from their nearest than 0.99 were on %s: what they ask for may not be there',
                                   round(range.share::numeric, 2), baseline.taken_at::date);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._watched_drift(pgvec.collections, pgvec.vector_spaces, text, double precision[]) IS
'Drift since the baseline, which is taken if there is none: nothing is compared then.';

CREATE OR REPLACE FUNCTION pgvec._is_drift(alarm text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT starts_with(alarm, 'drift: ') $$;
COMMENT ON FUNCTION pgvec._is_drift(text) IS 'Whether an alarm of a check is one of _watched_drift, which all begin so.';

CREATE OR REPLACE FUNCTION pgvec._watched_target(owner pgvec.collections, wanted pgvec.vector_spaces, k integer, OUT target_recall double precision, OUT tail_share double precision)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.target_recall, p.tail_share
    FROM (SELECT i.method, i.shape FROM pgvec._indexes(pgvec._relation(owner.schema_name, wanted.table_name), wanted) i WHERE i.usable LIMIT 1) i
    JOIN pgvec.tuning_profiles p ON p.space_id = wanted.id AND p.index_method = i.method AND p.index_shape = i.shape
    WHERE p.filter_class = '' AND p.is_default AND p.superseded_at IS NULL
    ORDER BY (p.k < _watched_target.k), abs(p.k - _watched_target.k) LIMIT 1
$$;
COMMENT ON FUNCTION pgvec._watched_target(pgvec.collections, pgvec.vector_spaces, integer) IS
'What the profile promises that searches for k neighbours use if they name no recall (see pgvec._profile); NULL without one.';

CREATE OR REPLACE FUNCTION pgvec._recall_interval(mean double precision, deviation double precision, n double precision, z double precision,
                                                  OUT low double precision, OUT high double precision)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most     double precision := mean * (1 - mean);  -- the variance of shares that are 0 or 1
    -- As if another query had that: the spread of few queries says little of what others would have.
    variance double precision := (coalesce(deviation, 0) ^ 2 * (n - 1) + most) / n;
    tries    double precision := CASE WHEN most > 0 THEN n * most / variance ELSE n END;
    centre   double precision := (mean + z ^ 2 / (2 * tries)) / (1 + z ^ 2 / tries);
    half     double precision := z / (1 + z ^ 2 / tries) * sqrt(greatest(0, most) / tries + z ^ 2 / (4 * tries ^ 2));
BEGIN
    low := greatest(0, least(mean, centre - half));
    high := least(1, greatest(mean, centre + half));
END $$;
COMMENT ON FUNCTION pgvec._recall_interval(double precision, double precision, double precision, double precision) IS
'A confidence interval of a mean of n shares from 0 to 1, z standard errors to each side: Wilson''s, of as many tries as their spread is worth. It
stays within 0 and 1, and says something where all of them are the same. As pgvec_toolkit.tune.profile.interval.';

CREATE OR REPLACE FUNCTION pgvec._recall_alarms(seen pgvec.recall_checks, deviation double precision) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    alarms text[] := '{}';
    p      double precision := seen.reaching_share;
    -- What chance exceeds once in 10,000 times. A loop that checks every ten minutes would cry wolf daily at the ends of the 95 % interval.
    z      CONSTANT double precision := 3.72;
    mean   record;
    share  record;
BEGIN
    SELECT i.low, i.high INTO mean FROM pgvec._recall_interval(seen.recall, deviation, seen.queries, z) i;
    SELECT i.low, i.high INTO share FROM pgvec._recall_interval(p, sqrt(p * (1 - p)), seen.queries, z) i;
    IF mean.high < seen.target_recall THEN
        alarms := alarms || format('recall %s (%s to %s) is below the target %s: tune again, or rebuild the index', round(seen.recall::numeric, 2),
                                   round(seen.recall_low::numeric, 2), round(seen.recall_high::numeric, 2), seen.target_recall);
    END IF;
    IF share.high < seen.tail_share THEN
        alarms := alarms || format('%s of the queries (%s to %s) reach the recall %s each, not %s of them: tune again, or rebuild the index', round(p::numeric, 2),
                                   round(share.low::numeric, 2), round(share.high::numeric, 2), seen.target_recall, seen.tail_share);
    END IF;
    IF seen.short_results > 0 THEN
        alarms := alarms || format('%s searches returned fewer rows than match: rebuild the index', seen.short_results);
    END IF;
    RETURN alarms;
END $$;
COMMENT ON FUNCTION pgvec._recall_alarms(pgvec.recall_checks, double precision) IS
'What is wrong with the searches of a check; deviation: of the recall of each. A recall or a share is, only if it is below what the profile promises by
more than chance explains once in 10,000 times.';

CREATE OR REPLACE FUNCTION pgvec.watch(
    collection text,
    k          integer DEFAULT 10,
    queries    integer DEFAULT 50,
    space      text    DEFAULT NULL
) RETURNS pgvec.recall_checks
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner     pgvec.collections := pgvec._collection(collection);
    wanted    pgvec.vector_spaces := pgvec._searched_space(collection, space);
    target    record;
    seen      pgvec.recall_checks;
    drift     record;
    deviation double precision;
    distances double precision[];
BEGIN
    IF (k BETWEEN 1 AND 999 AND queries BETWEEN 1 AND 10000) IS NOT TRUE THEN
        RAISE EXCEPTION 'k must be from 1 to 999 and queries from 1 to 10000' USING ERRCODE = 'PV005';
    END IF;
    PERFORM pgvec._check_stores('watch', 'SELECT, INSERT ON pgvec.recall_checks', 'SELECT, INSERT, UPDATE ON pgvec.drift_baselines');
    SELECT t.target_recall, t.tail_share INTO target FROM pgvec._watched_target(owner, wanted, k) t;
    seen.target_recall := target.target_recall;
    seen.tail_share := target.tail_share;
    SELECT min(m.source), count(*), avg(m.recall), stddev_samp(m.recall), avg((m.recall >= target.target_recall - 1e-9)::integer), count(*) FILTER (WHERE m.short),
           avg(m.milliseconds), array_agg(m.nearest)
    INTO seen.source, seen.queries, seen.recall, deviation, seen.reaching_share, seen.short_results, seen.milliseconds, distances
    FROM pgvec._measured_queries(owner, wanted, k, queries) m;
    IF seen.queries = 0 THEN
        RAISE EXCEPTION 'there is nothing to watch: no query finds anything in collection %', quote_literal(collection) USING ERRCODE = 'PV005', HINT = 'Load it first.';
    END IF;
    SELECT i.low, i.high INTO seen.recall_low, seen.recall_high FROM pgvec._recall_interval(seen.recall, deviation, seen.queries, 1.96) i;
    drift := pgvec._watched_drift(owner, wanted, seen.source, distances);
    INSERT INTO pgvec.recall_checks AS r (space_id, k, source, queries, recall, recall_low, recall_high, reaching_share, short_results, milliseconds, target_recall,
                                     tail_share, mean_shift, distance_shift, out_of_range, alarms)
    VALUES (wanted.id, watch.k, seen.source, seen.queries, seen.recall, seen.recall_low, seen.recall_high, seen.reaching_share, seen.short_results, seen.milliseconds,
            seen.target_recall, seen.tail_share, drift.mean_shift, drift.distance_shift, drift.out_of_range, pgvec._recall_alarms(seen, deviation) || drift.alarms)
    RETURNING r.* INTO seen;
    IF has_table_privilege('pgvec.recall_checks', 'DELETE') THEN
        DELETE FROM pgvec.recall_checks r WHERE r.space_id = wanted.id AND r.checked_at < now() - interval '1 year';
    END IF;
    RETURN seen;
END $$;
COMMENT ON FUNCTION pgvec.watch(text, integer, integer, text) IS
'Check once how good searches are now, and store that in pgvec.recall_checks, the series over time: for pg_cron, or pgvec watch --every 10m. Some of
the newest logged queries (source log; see pgvec.log_queries), each with its own filter, or stored rows while there are not 20 of these (source
stored; they are easier, and leave themselves out), are searched as searches are now, and exactly. recall: mean recall@k, recall_low to recall_high
its 95 % interval; reaching_share: the share of queries that reach the target each; short_results: searches that returned fewer rows than match;
milliseconds: mean of a search, planning included; target_recall, tail_share: what the profile promises. Drift since the first watch or
pgvec.set_drift_baseline: mean_shift, of the stored vectors'' mean, in units of their spread; distance_shift, of the queries'' distances to their
nearest, 0 to 1 (Kolmogorov-Smirnov); out_of_range, the share of queries farther from their nearest than 99 % were. alarms: what is wrong beyond
chance; empty is good; those of drift begin with "drift: ". Takes an exact scan a query. Checks of the space older than a year are deleted, if the role
may.
Example: SELECT recall, recall_low, recall_high, alarms FROM pgvec.watch(''docs'');';
