-- Search. One statement, whose text depends on the shape of the call only, and which carries its own
-- settings: they are set when its index scan begins and end with its transaction. Nothing has to be
-- SET on a session, and pools and transaction-mode poolers cannot lose or leak anything.

CREATE OR REPLACE FUNCTION pgvec._gate(rows double precision, k integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT least(200000, greatest(1000, 6.3 * sqrt(k * greatest(rows, 0))))::integer $$;
COMMENT ON FUNCTION pgvec._gate(double precision, integer) IS
'The number of matching rows up to which a filtered search is answered exactly. An exact answer costs c1 * matches, an index scan
c2 * k * rows / matches; they are equal at sqrt(c2 / c1 * k * rows), and c2 / c1 was measured at about 40 (384 dimensions, in memory).';

CREATE OR REPLACE FUNCTION pgvec._effort(rows double precision, gate integer) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 1.8 * sqrt(greatest(1, rows / gate)) $$;
COMMENT ON FUNCTION pgvec._effort(double precision, integer) IS
'How many times the tuned setting a filtered scan needs for the same recall: 1.8 / sqrt(share of rows that match), as was measured on shares
from 50 % to 5 %. The gate bounds that share from below; what it is, is not known before the scan.';

CREATE OR REPLACE FUNCTION pgvec._settings_sql(space pgvec.vector_spaces, relation regclass, k integer, effort double precision,
                                               setting integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    index record;
    parts text[] := '{}';
    -- A scan without a filter discards dead rows only, and goes on until it has its k; a filtered one has an exact one to fall back on.
    unlimited text[] := CASE WHEN effort = 1 THEN ARRAY[$s$set_config('hnsw.max_scan_tuples', '2147483647', true)$s$,
                                                        $s$set_config('hnsw.scan_mem_multiplier', '1000', true)$s$] ELSE '{}' END;
BEGIN
    FOR index IN SELECT a.amname AS method, max((regexp_match(array_to_string(i.reloptions, ' '), 'lists=(\d+)'))[1]::integer) AS lists
                 FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
                 WHERE x.indrelid = relation AND x.indisvalid AND a.amname IN ('hnsw', 'ivfflat') GROUP BY 1 ORDER BY 1 LOOP
        parts := parts || format('set_config(%L, %L, true)', index.method || '.iterative_scan', 'relaxed_order')
                       || unlimited || CASE index.method
            WHEN 'hnsw' THEN format('set_config(%L, %s, true)', 'hnsw.ef_search',
                pgvec._setting_sql(space.id, index.method, k, effort, setting, greatest(40, k), 1000))
            ELSE format('set_config(%L, %s, true)', 'ivfflat.probes',
                pgvec._setting_sql(space.id, index.method, k, least(effort, 2), setting, ceil(sqrt(coalesce(index.lists, 100)))::integer, 32768))
            END;
    END LOOP;
    IF parts = '{}' THEN
        RETURN NULL;
    END IF;
    RETURN format('(SELECT concat(%s)) IS NOT NULL', array_to_string(parts, ', '));
END $$;
COMMENT ON FUNCTION pgvec._settings_sql(pgvec.vector_spaces, regclass, integer, double precision, integer) IS
'A condition that is always true and, evaluated once before the index scan it guards, applies the settings of that scan. NULL if no
vector index is there. Being parallel-unsafe it also keeps parallel workers from being started for a branch that is switched off.';

CREATE OR REPLACE FUNCTION pgvec._setting_sql(space_id integer, method text, k integer, effort double precision, setting integer,
                                              untuned integer, largest integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Of profiles for another k the next larger will do; a smaller one is scaled up.
    otherwise integer := coalesce((SELECT ceil(p.setting * greatest(1.0, _setting_sql.k::numeric / p.k)) FROM pgvec.tuning_profiles p
                                   WHERE p.space_id = _setting_sql.space_id AND p.index_method = method
                                   ORDER BY (p.k < _setting_sql.k), abs(p.k - _setting_sql.k) LIMIT 1), untuned);
BEGIN
    IF setting IS NOT NULL THEN
        RETURN quote_literal(least(largest, setting));
    END IF;
    -- The profile for this very k is read when the search runs: a new one reaches statements prepared before it.
    RETURN format('least(%s, ceil(%s * coalesce((SELECT p.setting FROM pgvec.tuning_profiles p WHERE p.space_id = %s '
                  'AND p.index_method = %L AND p.k = %s), %s))::integer)::text',
                  largest, round(effort::numeric, 2), space_id, method, k, otherwise);
END $$;
COMMENT ON FUNCTION pgvec._setting_sql(integer, text, integer, double precision, integer, integer, integer) IS
'An expression for the setting of an index: the given one, or the tuned one times the effort.';

CREATE OR REPLACE FUNCTION pgvec._nearest_sql(collection text, k integer, filter jsonb, space text, setting integer, exact boolean,
                                              beyond integer DEFAULT 0) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted   pgvec.vector_spaces := pgvec._space(collection, space);
    owner    pgvec.collections := pgvec._collection(collection);
    chunks   regclass := pgvec._relation(owner.schema_name, owner.table_name);
    vectors  regclass := pgvec._relation(owner.schema_name, wanted.table_name);
    chunks_  text := format('%I.%I', owner.schema_name, owner.table_name);
    vectors_ text := format('%I.%I', owner.schema_name, wanted.table_name);
    distance text := 'v.embedding ' || (pgvec._distance(wanted.distance)).operator || ' $1';
    rows     double precision := (SELECT reltuples FROM pg_class WHERE oid = vectors);
    gate     integer := pgvec._gate(rows, k);
    predicate text := nullif(pgvec._filter_sql(chunks, coalesce(filter, '{}')), 'true');
    settings text;
    rows_wanted integer := k + beyond;
BEGIN
    settings := pgvec._settings_sql(wanted, vectors, k, CASE WHEN predicate IS NULL THEN 1 ELSE pgvec._effort(rows, gate) END, setting);
    IF predicate IS NULL THEN
        -- Without settings there is no index, and the text must not use one that is built later without them.
        IF exact OR settings IS NULL THEN
            RETURN format('SELECT v.key, %1$s AS distance FROM %2$s v ORDER BY (%1$s) + 0 LIMIT %3$s', distance, vectors_, rows_wanted);
        END IF;
        RETURN format('SELECT v.key, %1$s AS distance FROM %2$s v WHERE %3$s ORDER BY %1$s LIMIT %4$s',
                      distance, vectors_, settings, rows_wanted);
    ELSIF exact OR settings IS NULL THEN
        RETURN format('SELECT d.key, e.distance FROM %1$s d '
                      'CROSS JOIN LATERAL (SELECT %2$s AS distance FROM %3$s v WHERE v.key = d.key OFFSET 0) e '
                      'WHERE %4$s ORDER BY e.distance LIMIT %5$s', chunks_, distance, vectors_, predicate, rows_wanted);
    END IF;
    RETURN format($sql$
  WITH scanned AS MATERIALIZED (
    SELECT v.key, %2$s AS distance FROM %3$s v
    WHERE EXISTS (SELECT FROM %1$s d WHERE %4$s OFFSET %6$s)
      AND %7$s
      AND EXISTS (SELECT FROM %1$s d WHERE d.key = v.key AND %4$s OFFSET 0)
    ORDER BY %2$s LIMIT %5$s
  ), scan AS MATERIALIZED (
    SELECT count(*) = %5$s AS sufficed FROM scanned
  )
  SELECT s.key, s.distance FROM scanned s WHERE (SELECT sufficed FROM scan)
  UNION ALL
  (SELECT d.key, e.distance FROM %1$s d
   CROSS JOIN LATERAL (SELECT %2$s AS distance FROM %3$s v WHERE v.key = d.key OFFSET 0) e
   WHERE NOT (SELECT sufficed FROM scan) AND %4$s ORDER BY e.distance LIMIT %5$s)$sql$,
        chunks_, distance, vectors_, predicate, rows_wanted, gate, settings);
END $$;
COMMENT ON FUNCTION pgvec._nearest_sql(text, integer, jsonb, text, integer, boolean, integer) IS
'The statement that finds (key, distance) of the k nearest, and of some beyond, with the settings for k. Filtered, it gates itself:
the index is scanned, iteratively, if more than gate rows match. If they do not, or if that scan ends short of k rows, the matches are
sorted exactly. Either branch is switched off by a condition that is evaluated once. The filter of the scan must stay a subplan per
candidate (OFFSET 0), for as a join the planner would rather sort; and so must the distance of a match, or it would read all vectors.';

CREATE OR REPLACE FUNCTION pgvec.search_sql(
    collection text,
    k          integer DEFAULT 10,
    filter     jsonb   DEFAULT NULL,
    space      text    DEFAULT NULL,
    ef_search  integer DEFAULT NULL,
    exact      boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._space(collection, space);
    owner  pgvec.collections := pgvec._collection(collection);
    relation regclass := pgvec._relation(owner.schema_name, owner.table_name);
    typed  text;
BEGIN
    IF k IS NULL OR k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k must be from 1 to 10000, not %', quote_nullable(k::text) USING ERRCODE = 'PV005';
    ELSIF ef_search < 1 THEN
        RAISE EXCEPTION 'ef_search must be at least 1, not %', ef_search USING ERRCODE = 'PV005';
    END IF;
    -- Fifty at a time: a function takes 100 arguments.
    SELECT string_agg(part.pairs, ' || ') INTO typed
    FROM (SELECT format('jsonb_strip_nulls(jsonb_build_object(%s))', string_agg(format('%L, d.%I', c."column", c."column"), ', ')) AS pairs
          FROM pgvec._columns(relation) WITH ORDINALITY AS c ("column", type, position) GROUP BY (c.position - 1) / 50) part;
    RETURN format($sql$WITH nearest AS MATERIALIZED (%1$s
)
SELECT d.id, d.document_id, d.text, %2$s AS metadata, n.distance, %3$s AS similarity, %3$s AS score,
       (row_number() OVER (ORDER BY n.distance, n.key))::integer AS rank
FROM nearest n JOIN %4$I.%5$I d ON d.key = n.key
ORDER BY n.distance, n.key$sql$,
        pgvec._nearest_sql(collection, k, filter, space, ef_search, exact),
        CASE WHEN typed IS NULL THEN 'd.metadata' ELSE 'd.metadata || ' || typed END,
        format((pgvec._distance(wanted.distance)).similarity, 'n.distance'),
        owner.schema_name, owner.table_name);
END $$;
COMMENT ON FUNCTION pgvec.search_sql(text, integer, jsonb, text, integer, boolean) IS
'The text of the statement that pgvec.search runs, for PREPARE or for reading. Parameters: $1 the query (vector), and, with a filter,
$2 the filter (jsonb): any filter of the same shape, that is, with the same fields and operators and the same JSON types of values.
ef_search overrides the tuned setting of the index (probes, for IVFFlat); exact => true uses no index.
Example: SELECT pgvec.search_sql(''docs'', k => 3, filter => ''{"year": {"$gte": 2020}}'');';

CREATE OR REPLACE FUNCTION pgvec.search(
    collection text,
    query      vector,
    k          integer DEFAULT 10,
    filter     jsonb   DEFAULT NULL,
    space      text    DEFAULT NULL,
    ef_search  integer DEFAULT NULL,
    exact      boolean DEFAULT false
) RETURNS TABLE (id text, document_id text, text text, metadata jsonb, distance double precision,
                 similarity double precision, score double precision, rank integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE pgvec.search_sql(collection, k, filter, space, ef_search, exact) USING query, filter;
END $$;
COMMENT ON FUNCTION pgvec.search(text, vector, integer, jsonb, text, integer, boolean) IS
'The k nearest chunks to a query vector, nearest first, with the recall that pgvec tune promised.
filter: {"section": "security", "year": {"$gte": 2020}} with $eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not; fields are the
typed columns, id, document_id, position, text, and any metadata key. It never starves: k rows come back if k rows match.
distance: straight from the operator, smaller is nearer; similarity: bigger is nearer; score: what the rows are ranked by.
Example: SELECT id, similarity FROM pgvec.search(''docs'', ''[...]''::vector, k => 3, filter => ''{"section": "security"}'');';
