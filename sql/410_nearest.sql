-- The statement that finds the nearest rows. Its text depends on the shape of the call only, and it carries its own
-- settings: they are set when its index scan begins and end with its transaction. Nothing has to be SET on a session,
-- and pools and transaction-mode poolers cannot lose or leak anything. The names of its common table expressions begin with
-- pgvec_, as a filter of the user's may be about tables called matches or sample.
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
    parts         jsonb := jsonb_build_object('schema', vector_schema, 'dimensions', dimensions, 'type', wanted.type);
    operator      text := (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).operator;
    -- What an index holds of a vector; the query is brought into the same form, and so into the type that the index knows.
    indexed       text := CASE form
        WHEN 'full'    THEN '{vector}'
        WHEN 'halfvec' THEN '({vector}::{schema}.halfvec({dimensions}))'
        WHEN 'binary'  THEN '({schema}.binary_quantize({vector})::bit({dimensions}))'
        WHEN 'prefix'  THEN '({schema}.subvector({vector}, 1, {dimensions})::{schema}.{type}({dimensions}))'
        END;
BEGIN
    IF form = 'binary' THEN
        operator := format('OPERATOR(%s.<~>)', vector_schema);
    END IF;
    RETURN pgvec._render(indexed, parts || '{"vector": "v.embedding"}') || ' ' || operator || ' '
           || pgvec._render(indexed, parts || jsonb_build_object('vector', query));
END $$;
COMMENT ON FUNCTION pgvec._candidate_sql(pgvec.vector_spaces, text, integer, text) IS 'The expression by which an index of some form is ordered.';

CREATE OR REPLACE FUNCTION pgvec._scan_sql(parts jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql$pgvec_setting AS MATERIALIZED (
    SELECT least({largest}, {first}) AS value FROM pgvec_tuned t
  ), pgvec_found AS MATERIALIZED (
    SELECT v.key, {distance} AS distance FROM {vectors} v
    WHERE {settings} AND {not_excluded}
    ORDER BY {ordering} LIMIT {candidates}
  ), pgvec_outcome AS MATERIALIZED (
    SELECT count(*) = {candidates} AS sufficed FROM pgvec_found
  )$sql$, parts || jsonb_build_object('settings', pgvec._settings_sql(parts ->> 'method', 'pgvec_setting', 'true', parts ->> 'query')))
$$;
COMMENT ON FUNCTION pgvec._scan_sql(jsonb) IS
'The unfiltered scan of an index. It goes on until it has all candidates: what it meets in between are dead rows, and excluded ones.';

CREATE OR REPLACE FUNCTION pgvec._look_sql(parts jsonb, name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql${name}_rows AS MATERIALIZED (
    SELECT v.key, CASE WHEN EXISTS (SELECT FROM {chunks} d WHERE d.key = v.key AND {predicate} OFFSET 0) THEN {distance} END AS distance
    FROM {vectors} v WHERE {condition} AND {settings} AND {not_excluded}
    ORDER BY {ordering} LIMIT {most}
  ), {name}_matches AS MATERIALIZED (
    SELECT r.key, r.distance, r.depth
    FROM (SELECT r.key, r.distance, row_number() OVER () AS depth FROM {name}_rows r) r WHERE r.distance IS NOT NULL
  ), {name} AS MATERIALIZED (
    SELECT m.depth, m.depth IS NOT NULL AND {needed} <= 1.15 * (SELECT s.value FROM {setting} s) AS sufficed, {next} AS next
    FROM (SELECT (SELECT m.depth FROM {name}_matches m OFFSET {candidates} - 1 LIMIT 1) AS depth,
                 ((SELECT count(*) FROM {name}_matches) + 0.5) / (1.0 + (SELECT count(*) FROM {name}_rows)) AS share) m, pgvec_tuned t
  )$sql$, parts || jsonb_build_object('name', name))
$$;
COMMENT ON FUNCTION pgvec._look_sql(jsonb, text) IS
'A look into an index with some setting: the rows nearest to the query, those of them that match, and whether the setting is good enough for the
depth at which the last wanted match lies (15 % are forgiven); if not, what setting would be, as far as the matches that are there tell.
The filter must stay a subplan per row (OFFSET 0), for as a join the planner would rather sort.';

CREATE OR REPLACE FUNCTION pgvec._filtered_scan_sql(parts jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql$pgvec_sample AS MATERIALIZED (
    SELECT {drawn} AS rows, count(*) FILTER (WHERE {predicate}) AS matching FROM {chunks} d WHERE d.ctid = ANY ('{sampled}')
  ), pgvec_matches AS MATERIALIZED (
    SELECT m.key FROM {some_matches} AS m (key)
  ), pgvec_estimate AS MATERIALIZED (
    SELECT (s.matching + 2.0) / (s.rows + 4) AS share,
           NOT {indexed} OR (s.matching >= 4 AND s.matching > s.rows * 2 * {gate_share}) OR (SELECT count(*) FROM pgvec_matches) > {gate} AS many
    FROM pgvec_sample s
  ), pgvec_setting AS MATERIALIZED (
    SELECT least({largest}, {first}) AS value FROM pgvec_tuned t, pgvec_estimate e
  ), {look}, pgvec_further AS MATERIALIZED (
    SELECT n.value, l.next > n.value AND {step_in_rows} * {most} < n.exact_cost AS going_on,
           e.many AND NOT l.sufficed AND n.value > s.value AND {step_in_rows} * n.value < n.exact_cost AS worthwhile
    FROM pgvec_look l, pgvec_setting s, pgvec_estimate e,
         LATERAL (SELECT least({largest}, l.next) AS value, e.share * {rows} + {search_in_rows} AS exact_cost) n
  ), {second_look}, pgvec_found AS MATERIALIZED (
    SELECT m.key, m.distance FROM pgvec_look_matches m WHERE (SELECT l.sufficed FROM pgvec_look l)
    UNION ALL SELECT m.key, m.distance FROM pgvec_second_look_matches m WHERE (SELECT l.sufficed FROM pgvec_second_look l)
  ), pgvec_outcome AS MATERIALIZED (
    SELECT a.sufficed OR b.sufficed AS sufficed FROM pgvec_look a, pgvec_second_look b
  )$sql$, parts || jsonb_build_object(
        'look', pgvec._look_sql(parts || jsonb_build_object('setting', 'pgvec_setting', 'most', 1000, 'condition', '(SELECT e.many FROM pgvec_estimate e)',
            'settings', pgvec._settings_sql(parts ->> 'method', 'pgvec_setting', 'false', parts ->> 'query')), 'pgvec_look'),
        'second_look', pgvec._look_sql(parts || jsonb_build_object('setting', 'pgvec_further', 'condition', '(SELECT f.worthwhile FROM pgvec_further f)',
            'settings', pgvec._settings_sql(parts ->> 'method', 'pgvec_further', 's.going_on', parts ->> 'query')), 'pgvec_second_look')))
$$;
COMMENT ON FUNCTION pgvec._filtered_scan_sql(jsonb) IS
'The filtered scan of an index, if more than gate rows match, or if only reading all rows would find them. The first rows of 128 pages, evenly
spaced, tell the share that matches, and so how far to look at first. That look shows at what depth the matches lie around this query. If the
index was not searched well enough for that depth, it is looked into once more with what that depth needs, unless to compare all matches
costs less: so no search costs much more than twice the cheaper way.';

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
    SELECT i.method::text, i.form, i.dimensions, i.lists, i.shape INTO index FROM pgvec._indexes(vectors::regclass, wanted) i WHERE i.usable LIMIT 1;
    IF NOT FOUND OR (options -> 'exact')::boolean THEN
        RETURN NULL;
    END IF;
    profile := pgvec._profile(wanted.id, index.method, index.shape, index.lists, k, pgvec.filter_class(options -> 'filter'), (options ->> 'recall')::double precision);
    IF options ? 'recall' AND profile.id IS NULL THEN
        PERFORM pgvec._unreached(owner, wanted, options);
    END IF;
    profile.setting := coalesce((options ->> 'base')::integer, profile.setting);
    costs := pgvec._costs(wanted.id, index.method);
    candidates := beyond + ceil(k * coalesce((options ->> 'oversampling')::double precision, profile.oversampling));
    tuned := pgvec._tuned_sql(wanted.id, index.method, index.shape, k, profile.setting, options);
    RETURN jsonb_build_object('relation', format('%I.%I', owner.schema_name, owner.table_name), 'chunks', pgvec._chunks_sql(owner),
        'vectors', pgvec._vectors_sql(owner, wanted), 'rows', rows::bigint, 'pages', pages,
        'method', index.method, 'form', index.form, 'shape', index.shape, 'profile', profile.id, 'setting', profile.setting, 'dimensions', index.dimensions, 'candidates', candidates,
        'most', 5000,
        'largest', CASE index.method WHEN 'hnsw' THEN 1000 ELSE index.lists END,
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
'Expressions for the setting of the first look; for the one that the depth of the matches would have needed; for that of the next look.';

CREATE OR REPLACE FUNCTION pgvec._search_cost(target jsonb, predicate text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    indexed boolean := predicate IS NULL OR coalesce((options -> 'indexed')::boolean, pgvec._is_indexed(target ->> 'chunks', predicate, options));
BEGIN
    -- To read a chunk and look whether it matches costs about a third of fetching and comparing a vector.
    RETURN jsonb_build_object('indexed', indexed, 'search_in_rows', CASE WHEN indexed THEN 0 ELSE round((target -> 'rows')::numeric / 3) END,
                              'gate_share', round((target -> 'gate')::numeric / (target -> 'rows')::numeric, 9));
END $$;
COMMENT ON FUNCTION pgvec._search_cost(jsonb, text, jsonb) IS
'Whether an index finds the matches, and what it costs to find all of them, in vectors compared.';

CREATE OR REPLACE FUNCTION pgvec._scans_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, target jsonb, predicate text,
                                            query text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts jsonb := target || pgvec._depths(target, options, predicate IS NOT NULL) || jsonb_build_object(
        'query', query, 'distance', pgvec._distance_sql(wanted, query), 'not_excluded', pgvec._excluded_sql(owner, options, 'v'),
        'ordering', pgvec._candidate_sql(wanted, target ->> 'form', (target -> 'dimensions')::integer, query));
BEGIN
    RETURN pgvec._render(E'pgvec_tuned AS MATERIALIZED (\n    SELECT {tuned} AS setting\n  ), ', parts) || CASE WHEN predicate IS NULL
        THEN pgvec._scan_sql(parts)
        ELSE pgvec._filtered_scan_sql(parts || jsonb_build_object('predicate', predicate,
            'sampled', (SELECT array_agg(DISTINCT format('(%s,1)', i * (target -> 'pages')::bigint / 128)::tid)::text FROM generate_series(0, 127) i),
            -- What a policy hides was drawn, too.
            'drawn', CASE WHEN row_security_active(target ->> 'relation') THEN least(128, (target -> 'pages')::integer)::text ELSE 'count(*)' END,
            'some_matches', pgvec._matching_sql(target ->> 'chunks', predicate, options, (target -> 'gate')::integer + 1))) END;
END $$;
COMMENT ON FUNCTION pgvec._scans_sql(pgvec.collections, pgvec.vector_spaces, jsonb, jsonb, text, text) IS
'The common table expressions of the index scans, the last of which are found (key, distance) and outcome (sufficed).';

CREATE OR REPLACE FUNCTION pgvec._nearest_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, k integer,
                                              beyond integer DEFAULT 0, query text DEFAULT '$1') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    vectors   text := pgvec._vectors_sql(owner, wanted);
    distance  text := pgvec._distance_sql(wanted, query);
    predicate text := pgvec._predicate_sql(pgvec._relation(owner.schema_name, owner.table_name), options);
    all_matches text := CASE WHEN predicate IS NOT NULL THEN pgvec._matching_sql(pgvec._chunks_sql(owner), predicate, options, NULL) END;
    target    jsonb := pgvec._target(owner, wanted, options, k, beyond);
BEGIN
    -- Without an index the text must not use one that is built later: its settings would be missing.
    IF target IS NULL THEN
        RETURN pgvec._exact_sql(owner, vectors, distance, all_matches, options, 'true', k + beyond);
    END IF;
    target := target || pgvec._search_cost(target, predicate, options);
    RETURN format($sql$
  WITH %1$s
  (SELECT f.key, f.distance, false AS exact FROM pgvec_found f WHERE (SELECT o.sufficed FROM pgvec_outcome o) ORDER BY f.distance LIMIT %2$s)
  UNION ALL
  (%3$s)$sql$,
        pgvec._scans_sql(owner, wanted, options, target, predicate, query), k + beyond,
        pgvec._exact_sql(owner, vectors, distance, CASE WHEN predicate IS NOT NULL THEN format(
            '(SELECT m.key FROM pgvec_matches m WHERE NOT (SELECT e.many FROM pgvec_estimate e) '
            'UNION ALL SELECT m.key FROM %s AS m (key) WHERE (SELECT e.many FROM pgvec_estimate e) AND NOT (SELECT o.sufficed FROM pgvec_outcome o))', all_matches) END,
            options, 'NOT (SELECT o.sufficed FROM pgvec_outcome o)', k + beyond));
END $$;
COMMENT ON FUNCTION pgvec._nearest_sql(pgvec.collections, pgvec.vector_spaces, jsonb, integer, integer, text) IS
'The statement that finds (key, distance, exact) of the k nearest, and of some beyond, with the settings for k. The candidates that the index
yields are rescored by the distance itself. If few rows match the filter, or if the scan ends short, all matches are sorted exactly. Each
branch is switched off by a condition that is evaluated once.';

CREATE OR REPLACE FUNCTION pgvec._course_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, target jsonb, predicate text,
                                             query text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('WITH %s SELECT e.share, e.many, (SELECT s.value FROM pgvec_setting s) AS first, a.sufficed AS look_sufficed, a.depth, '
                  '(SELECT count(*) FROM pgvec_look_matches) AS matches, f.value AS next, f.worthwhile, b.sufficed AS second_sufficed '
                  'FROM pgvec_estimate e, pgvec_look a, pgvec_further f, pgvec_second_look b',
                  pgvec._scans_sql(owner, wanted, options, target, predicate, query))
$$;
COMMENT ON FUNCTION pgvec._course_sql(pgvec.collections, pgvec.vector_spaces, jsonb, jsonb, text, text) IS
'A statement that runs the scans of a filtered search and tells which way it went.';
