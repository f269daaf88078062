-- The statement that finds the nearest rows. Its text depends on the shape of the call only, and it carries its own
-- settings: they are set when its index scan begins and end with its transaction. Nothing has to be SET on a session,
-- and pools and transaction-mode poolers cannot lose or leak anything.
--
-- Parameters: $1 the query, $2 the filter (jsonb), $3 values for where_sql (jsonb), $4 ids to leave out (text[]), $5 a threshold.

CREATE OR REPLACE FUNCTION pgvec._distance_sql(wanted pgvec.vector_spaces, query text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 'v.embedding ' || (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).operator || ' ' || query $$;
COMMENT ON FUNCTION pgvec._distance_sql(pgvec.vector_spaces, text) IS 'The distance of a vector v of a space to the query.';

CREATE OR REPLACE FUNCTION pgvec._candidate_sql(wanted pgvec.vector_spaces, form text, dimensions integer, query text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    vector_schema text := quote_ident(pgvec._vector_schema());
    operator      text := (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).operator;
    -- What an index holds of a vector; the query is brought into the same form, and so into the type that the index knows.
    indexed       text := CASE form
        WHEN 'full'    THEN '%s'
        WHEN 'halfvec' THEN '(%s::' || format('%s.halfvec(%s))', vector_schema, dimensions)
        WHEN 'binary'  THEN format('(%s.binary_quantize(', vector_schema) || '%s' || format(')::bit(%s))', dimensions)
        WHEN 'prefix'  THEN format('(%s.subvector(', vector_schema) || '%s' || format(', 1, %s)::%s.%s(%s))', dimensions, vector_schema, wanted.type, dimensions)
        END;
BEGIN
    IF form = 'binary' THEN
        operator := format('OPERATOR(%s.<~>)', vector_schema);
    END IF;
    RETURN format(indexed, 'v.embedding') || ' ' || operator || ' ' || format(indexed, query);
END $$;
COMMENT ON FUNCTION pgvec._candidate_sql(pgvec.vector_spaces, text, integer, text) IS 'The expression by which an index of some form is ordered.';

CREATE OR REPLACE FUNCTION pgvec._scan_sql(parts jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql$setting AS MATERIALIZED (
    SELECT least({largest}, {first}) AS value FROM tuned t
  ), scanned AS MATERIALIZED (
    SELECT v.key, {distance} AS distance FROM {vectors} v
    WHERE {settings} AND {not_excluded}
    ORDER BY {ordering} LIMIT {candidates}
  ), outcome AS MATERIALIZED (
    SELECT count(*) = {candidates} AS sufficed FROM scanned
  )$sql$, parts || jsonb_build_object('settings', pgvec._settings_sql(parts ->> 'method', 'setting', '2147483647', parts ->> 'query')))
$$;
COMMENT ON FUNCTION pgvec._scan_sql(jsonb) IS
'The unfiltered scan of an index. It goes on until it has all candidates: what it meets in between are dead rows only.';

CREATE OR REPLACE FUNCTION pgvec._filtered_scan_sql(parts jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql$sample AS MATERIALIZED (
    SELECT count(*) AS rows, count(*) FILTER (WHERE {predicate}) AS matching
    FROM {chunks} d WHERE d.ctid = ANY (ARRAY(SELECT format('(%s,%s)', i::bigint * {pages} / 64, o)::tid FROM generate_series(0, 63) i, generate_series(1, 2) o))
  ), matches AS MATERIALIZED (
    SELECT m.key FROM {some_matches} AS m (key)
  ), estimate AS MATERIALIZED (
    SELECT greatest((s.matching + 0.5) / (s.rows + 1), {least_share}) AS share,
           NOT {indexed} OR (s.matching >= 4 AND s.matching > s.rows * 2 * {gate_share}) OR (SELECT count(*) FROM matches) > {gate} AS many
    FROM sample s
  ), setting AS MATERIALIZED (
    SELECT least({largest}, {first}) AS value FROM tuned t, estimate e
  ), batch AS MATERIALIZED (
    SELECT v.key, CASE WHEN EXISTS (SELECT FROM {chunks} d WHERE d.key = v.key AND {predicate} OFFSET 0) THEN {distance} END AS distance
    FROM {vectors} v
    WHERE (SELECT e.many FROM estimate e) AND {first_settings} AND {not_excluded}
    ORDER BY {ordering} LIMIT 1000
  ), matched AS MATERIALIZED (
    SELECT b.key, b.distance, b.depth, row_number() OVER (ORDER BY b.depth) AS nth
    FROM (SELECT b.key, b.distance, row_number() OVER () AS depth FROM batch b) b WHERE b.distance IS NOT NULL
  ), look AS MATERIALIZED (
    SELECT m.depth IS NOT NULL AND {needed} <= 1.15 * (SELECT s.value FROM setting s) AS sufficed, {next} AS value
    FROM (SELECT min(m.depth) FILTER (WHERE m.nth = {candidates}) AS depth,
                 (count(*) + 0.5) / (1.0 + (SELECT count(*) FROM batch)) AS share FROM matched m) m, tuned t
  ), further AS MATERIALIZED (
    SELECT least({largest}, l.value) AS value FROM look l
  ), scanned AS MATERIALIZED (
    SELECT v.key, {distance} AS distance FROM {vectors} v
    WHERE (SELECT e.many AND NOT l.sufficed AND l.value * {step_in_rows} < e.share * {rows} + {search_in_rows} FROM look l, estimate e)
      AND {further_settings} AND {not_excluded} AND EXISTS (SELECT FROM {chunks} d WHERE d.key = v.key AND {predicate} OFFSET 0)
    ORDER BY {ordering} LIMIT {candidates}
  ), outcome AS MATERIALIZED (
    SELECT (SELECT l.sufficed FROM look l) OR count(*) = {candidates} AS sufficed FROM scanned
  )$sql$, parts || jsonb_build_object(
        'first_settings', pgvec._settings_sql(parts ->> 'method', 'setting', NULL, parts ->> 'query'),
        -- To scan further than that would cost more than to compare all matches.
        'further_settings', pgvec._settings_sql(parts ->> 'method', 'further', pgvec._render(
            '((SELECT e.share FROM estimate e) * {rows} + {search_in_rows}) / {step_in_rows}', parts), parts ->> 'query')))
$$;
COMMENT ON FUNCTION pgvec._filtered_scan_sql(jsonb) IS
'The filtered scan of an index, if more than gate rows match, or if only reading all rows would find them. The first two rows of 64 pages tell
the share that matches, and so how far to look at first. That batch shows at what depth the matches lie around this query. If the index was not
searched well enough for that depth (15 % are forgiven), and comparing all matches would cost more, it is scanned again with what that depth
needs. The filter of a scan must stay a subplan per candidate (OFFSET 0), for as a join the planner would rather sort.';

CREATE OR REPLACE FUNCTION pgvec._target(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, k integer, beyond integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    vectors    text := format('%I.%I', owner.schema_name, wanted.table_name);
    rows       double precision := (SELECT greatest(c.reltuples, 1) FROM pg_class c WHERE c.oid = vectors::regclass);
    pages      integer := (SELECT greatest(c.relpages, 1) FROM pg_class c WHERE c.oid = format('%I.%I', owner.schema_name, owner.table_name)::regclass);
    index      record;
    profile    record;
    costs      record;
    candidates integer;
    tuned      text;
BEGIN
    SELECT i.method::text, i.form, i.dimensions, (regexp_match(array_to_string(i.options, ' '), 'lists=(\d+)'))[1]::integer AS lists
    INTO index FROM pgvec._indexes(vectors::regclass, wanted) i WHERE i.usable LIMIT 1;
    IF NOT FOUND OR (options -> 'exact')::boolean THEN
        RETURN NULL;
    END IF;
    profile := pgvec._profile(wanted.id, index.method, index.form, index.lists, k);
    costs := pgvec._costs(wanted.id, index.method);
    candidates := beyond + ceil(k * coalesce((options ->> 'oversampling')::double precision, profile.oversampling));
    tuned := pgvec._tuned_sql(wanted.id, index.method, k, profile.setting, options);
    RETURN jsonb_build_object('chunks', format('%I.%I', owner.schema_name, owner.table_name), 'vectors', vectors, 'rows', rows::bigint, 'pages', pages,
        'method', index.method, 'form', index.form, 'dimensions', index.dimensions, 'candidates', candidates,
        'largest', CASE index.method WHEN 'hnsw' THEN 1000 ELSE coalesce(index.lists, 100) END,
        'gate', least(rows, pgvec._gate(wanted.id, index.method, profile.setting, rows))::integer,
        'step_in_rows', round((costs.scan_us / costs.exact_us)::numeric, 6),
        'tuned', tuned, 'exponent', round(costs.exponent::numeric, 4));
END $$;
COMMENT ON FUNCTION pgvec._target(pgvec.collections, pgvec.vector_spaces, jsonb, integer, integer) IS
'What a search for k scans: the index, how many candidates it wants of it, gate and costs; NULL if it shall be or must be exact.';

CREATE OR REPLACE FUNCTION pgvec._depths(target jsonb, options jsonb, filtered boolean) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    candidates integer := target -> 'candidates';
    excluded   text := CASE WHEN (options -> 'exclude')::boolean THEN ' + coalesce(cardinality($4::text[]), 0)' ELSE '' END;
    -- The rank of the last match that is wanted, if a share of the rows matches at random: its mean, and 1.3 standard deviations.
    expected   text := format('((%1$s + 1.3 * sqrt(%1$s * (1 - %%1$s))) / %%1$s%2$s)', candidates, excluded);
BEGIN
    RETURN jsonb_build_object(
        'first', CASE WHEN filtered THEN pgvec._setting_sql(target, format(expected, 'e.share'), options)
                      WHEN excluded <> '' THEN pgvec._setting_sql(target, format('(%s%s)', candidates, excluded), options) ELSE 't.setting' END,
        'needed', pgvec._setting_sql(target, 'm.depth', options), 'next', pgvec._setting_sql(target, format(expected, 'm.share'), options));
END $$;
COMMENT ON FUNCTION pgvec._depths(jsonb, jsonb, boolean) IS
'Expressions for the setting of the first scan; for the one that the depth of the matches would have needed; for that of the next scan.';

CREATE OR REPLACE FUNCTION pgvec._search_cost(target jsonb, predicate text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    indexed    boolean := predicate IS NULL OR pgvec._is_indexed(target ->> 'chunks', predicate, options);
    gate_share numeric := round((target -> 'gate')::numeric / (target -> 'rows')::numeric, 9);
BEGIN
    -- To read a chunk and look whether it matches costs about a third of fetching and comparing a vector.
    RETURN jsonb_build_object('indexed', indexed, 'search_in_rows', CASE WHEN indexed THEN 0 ELSE round((target -> 'rows')::numeric / 3) END,
                              'gate_share', gate_share, 'least_share', CASE WHEN indexed THEN gate_share ELSE 0 END);
END $$;
COMMENT ON FUNCTION pgvec._search_cost(jsonb, text, jsonb) IS
'Whether an index finds the matches, and what it costs to find all of them, in vectors compared.';

CREATE OR REPLACE FUNCTION pgvec._scans_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, target jsonb, predicate text,
                                            query text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts jsonb := target || pgvec._depths(target, options, predicate IS NOT NULL) || jsonb_build_object(
        'query', query, 'distance', pgvec._distance_sql(wanted, query), 'not_excluded', pgvec._excluded_sql(target ->> 'chunks', options, 'v'),
        'ordering', pgvec._candidate_sql(wanted, target ->> 'form', (target -> 'dimensions')::integer, query));
BEGIN
    RETURN pgvec._render(E'tuned AS MATERIALIZED (\n    SELECT {tuned} AS setting\n  ), ', parts) || CASE WHEN predicate IS NULL
        THEN pgvec._scan_sql(parts)
        ELSE pgvec._filtered_scan_sql(parts || jsonb_build_object('predicate', predicate,
            'some_matches', pgvec._matching_sql(target ->> 'chunks', predicate, options, (target -> 'gate')::integer + 1))) END;
END $$;
COMMENT ON FUNCTION pgvec._scans_sql(pgvec.collections, pgvec.vector_spaces, jsonb, jsonb, text, text) IS
'The common table expressions of the index scans: scanned (key, distance) and outcome (sufficed); filtered, matched and look as well.';

CREATE OR REPLACE FUNCTION pgvec._nearest_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, k integer,
                                              beyond integer DEFAULT 0, query text DEFAULT '$1') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunks    text := format('%I.%I', owner.schema_name, owner.table_name);
    vectors   text := format('%I.%I', owner.schema_name, wanted.table_name);
    distance  text := pgvec._distance_sql(wanted, query);
    predicate text := pgvec._predicate_sql(chunks::regclass, options);
    all_matches text := CASE WHEN predicate IS NOT NULL THEN pgvec._matching_sql(chunks, predicate, options, NULL) END;
    target    jsonb := pgvec._target(owner, wanted, options, k, beyond);
BEGIN
    -- Without an index the text must not use one that is built later: its settings would be missing.
    IF target IS NULL THEN
        RETURN pgvec._exact_sql(chunks, vectors, distance, all_matches, options, 'true', k + beyond);
    END IF;
    target := target || pgvec._search_cost(target, predicate, options);
    RETURN format($sql$
  WITH %1$s
  SELECT n.key, n.distance, n.exact FROM (SELECT s.key, s.distance, false AS exact FROM (SELECT s.key, s.distance FROM scanned s%2$s) s
  WHERE (SELECT sufficed FROM outcome) ORDER BY s.distance LIMIT %3$s) n
  UNION ALL
  (%4$s)$sql$,
        pgvec._scans_sql(owner, wanted, options, target, predicate, query),
        CASE WHEN predicate IS NOT NULL THEN ' UNION ALL SELECT m.key, m.distance FROM matched m WHERE (SELECT sufficed FROM look)' END,
        k + beyond,
        pgvec._exact_sql(chunks, vectors, distance, CASE WHEN predicate IS NOT NULL THEN format(
            '(SELECT m.key FROM matches m WHERE NOT (SELECT many FROM estimate) '
            'UNION ALL SELECT m.key FROM %s AS m (key) WHERE (SELECT many FROM estimate) AND NOT (SELECT sufficed FROM outcome))', all_matches) END,
            options, 'NOT (SELECT sufficed FROM outcome)', k + beyond));
END $$;
COMMENT ON FUNCTION pgvec._nearest_sql(pgvec.collections, pgvec.vector_spaces, jsonb, integer, integer, text) IS
'The statement that finds (key, distance, exact) of the k nearest, and of some beyond, with the settings for k. The candidates that the index
yields are rescored by the distance itself. If few rows match the filter, or if the scan ends short, all matches are sorted exactly. Each
branch is switched off by a condition that is evaluated once.';

CREATE OR REPLACE FUNCTION pgvec._course_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, target jsonb, predicate text,
                                             query text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('WITH %s SELECT e.share, e.many, (SELECT value FROM setting) AS first, l.sufficed AS look_sufficed, o.sufficed, '
                  '(SELECT m.depth FROM matched m WHERE m.nth = %s) AS depth, (SELECT count(*) FROM matched) AS matches, '
                  '(SELECT value FROM further) AS next FROM estimate e, look l, outcome o',
                  pgvec._scans_sql(owner, wanted, options, target, predicate, query), target -> 'candidates')
$$;
COMMENT ON FUNCTION pgvec._course_sql(pgvec.collections, pgvec.vector_spaces, jsonb, jsonb, text, text) IS
'A statement that runs the scans of a filtered search and tells which way it went.';
