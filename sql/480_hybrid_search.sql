-- Hybrid search: several legs, keyword search and searches of vector spaces, fused into one ranking by one statement.
--
-- Parameters: $1 the text of the keyword leg, $2 the filter (jsonb), $3 values for where_sql (jsonb), $4 ids to leave out (text[]),
-- $5 the weights (jsonb), $6 and so on the queries of the other legs, in their order.

CREATE OR REPLACE FUNCTION pgvec._leg_sql(owner pgvec.collections, leg text, query text, depth integer, options jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces;
BEGIN
    IF leg = 'keyword' THEN
        RETURN format('SELECT %L AS leg, h.key, h.rank, h.score, h.terms FROM pgvec._keyword_hits(%L, %s, %s, %L, %s, %s, %s) h', leg, owner.name, query, depth,
            options - '{filter,k,recall}'::text[], CASE WHEN options ? 'filter' THEN '$2' ELSE 'NULL' END, CASE WHEN options ? 'where_sql' THEN '$3' ELSE 'NULL' END,
            CASE WHEN options ? 'exclude' THEN '$4' ELSE 'NULL' END);
    END IF;
    wanted := pgvec._searched_space(owner.name, leg);
    RETURN format('SELECT %L AS leg, n.key, (row_number() OVER (ORDER BY n.distance, n.key))::integer AS rank, nullif(%s, ''NaN'') AS score, NULL::jsonb AS terms FROM (%s) n%s',
        leg, format((pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).similarity, 'n.distance'),
        pgvec._nearest_sql(owner, wanted, options || jsonb_build_object('k', depth), depth, 0, query),
        -- What shares no term with the query was not found, it fills up.
        CASE WHEN wanted.type = 'sparsevec' AND wanted.distance = 'inner_product' THEN ' WHERE n.distance < 0' ELSE '' END);
END $$;
COMMENT ON FUNCTION pgvec._leg_sql(pgvec.collections, text, text, integer, jsonb) IS 'The statement of one leg, keyword or the name of a vector space: leg, key, rank, score, terms.';

CREATE OR REPLACE FUNCTION pgvec._hybrid_sql(owner pgvec.collections, legs text[], queries text[], depths integer[], fusion text, rrf_k double precision,
                                             options jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format($sql$WITH ranked AS MATERIALIZED (
%1$s
), %2$s
SELECT d.id, d.document_id, d.text, %3$s AS metadata, f.score, (row_number() OVER (ORDER BY f.score DESC, f.best, f.key))::integer AS rank, f.legs,
       CASE WHEN count(*) OVER () >= %4$s THEN 'k'
            WHEN EXISTS (SELECT FROM ranked r JOIN unnest(%6$L::text[], %7$L::integer[]) l (leg, depth) ON l.leg = r.leg AND r.rank >= l.depth) THEN 'depth'
            ELSE 'complete' END AS stopped_by
FROM fused f JOIN %5$s d ON d.key = f.key
ORDER BY rank$sql$,
        (SELECT string_agg('(' || pgvec._leg_sql(owner, l.leg, l.query, l.depth, options) || ')', E'\nUNION ALL\n' ORDER BY l.place)
         FROM unnest(legs, queries, depths) WITH ORDINALITY l (leg, query, depth, place)),
        pgvec._fused_sql(fusion, '$5::jsonb', rrf_k::text, options ->> 'k'),
        pgvec._metadata_sql(pgvec._relation(owner.schema_name, owner.table_name)), options ->> 'k', pgvec._chunks_sql(owner), legs, depths)
$$;
COMMENT ON FUNCTION pgvec._hybrid_sql(pgvec.collections, text[], text[], integer[], text, double precision, jsonb) IS 'The text of a hybrid search with checked options.';

CREATE OR REPLACE FUNCTION pgvec._hybrid_options(owner pgvec.collections, legs text[], k integer, filter jsonb, where_sql text, exclude boolean,
                                                 k1 double precision, b double precision, recall double precision) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunks regclass := pgvec._relation(owner.schema_name, owner.table_name);
BEGIN
    IF coalesce(cardinality(legs), 0) = 0 THEN
        RAISE EXCEPTION 'the search has no leg' USING ERRCODE = 'PV005', HINT = 'Give query_text, query, or queries by the names of vector spaces.';
    ELSIF cardinality(legs) <> (SELECT count(DISTINCT l) FROM unnest(legs) l) THEN
        RAISE EXCEPTION 'a leg is given twice among %', array_to_string(legs, ', ') USING ERRCODE = 'PV005';
    ELSIF 'keyword' = ANY (legs) THEN
        RETURN pgvec._keyword_options(owner, k, filter, where_sql, exclude, k1, b)
               || (pgvec._options(chunks, jsonb_build_object('k', k, 'recall', recall)) - 'k');
    END IF;
    PERFORM pgvec._check_bm25(coalesce(k1, 1), coalesce(b, 1));
    RETURN pgvec._options(chunks, jsonb_build_object(
        'k', k, 'filter', filter, 'where_sql', where_sql, 'exclude', nullif(exclude, false), 'recall', recall));
END $$;
COMMENT ON FUNCTION pgvec._hybrid_options(pgvec.collections, text[], integer, jsonb, text, boolean, double precision, double precision, double precision) IS
'The checked options of a hybrid search.';

CREATE OR REPLACE FUNCTION pgvec._leg_depths(legs text[], k integer, depth integer, depths jsonb) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found numeric[];
BEGIN
    IF jsonb_typeof(depths) NOT IN ('object', 'null') OR EXISTS (SELECT FROM jsonb_each(nullif(depths, 'null')) d WHERE d.key <> ALL (legs) OR jsonb_typeof(d.value) <> 'number') THEN
        RAISE EXCEPTION 'depths is a JSON object, leg to how many it finds, not %', depths
            USING ERRCODE = 'PV005', HINT = format('The legs are: %s.', array_to_string(legs, ', '));
    END IF;
    -- Less than k of a leg could leave the search short.
    found := ARRAY(SELECT coalesce((depths ->> l.leg)::numeric, greatest(k, depth)) FROM unnest(legs) WITH ORDINALITY l (leg, place) ORDER BY l.place);
    IF depth < 1 OR (SELECT bool_and(d BETWEEN 1 AND 10000 AND d = trunc(d)) FROM unnest(found) d) IS NOT TRUE THEN
        RAISE EXCEPTION 'the depth of a leg must be from 1 to 10000' USING ERRCODE = 'PV005';
    END IF;
    RETURN found::integer[];
END $$;
COMMENT ON FUNCTION pgvec._leg_depths(text[], integer, integer, jsonb) IS 'How many each leg finds; PV005 if that cannot be.';

CREATE OR REPLACE FUNCTION pgvec.hybrid_search_sql(
    collection text,
    legs       text[],
    k          integer          DEFAULT 10,
    filter     jsonb            DEFAULT NULL,
    fusion     text             DEFAULT 'relative',
    depth      integer          DEFAULT 100,
    depths     jsonb            DEFAULT NULL,
    rrf_k      double precision DEFAULT 60,
    where_sql  text             DEFAULT NULL,
    exclude    text[]           DEFAULT NULL,
    k1         double precision DEFAULT NULL,
    b          double precision DEFAULT NULL,
    recall     double precision DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner   pgvec.collections := pgvec._collection(collection);
    options jsonb := pgvec._hybrid_options(owner, legs, k, filter, where_sql, exclude IS NOT NULL, k1, b, recall);
BEGIN
    PERFORM pgvec._check_fusion(legs, NULL, rrf_k);
    RETURN pgvec._hybrid_sql(owner, legs, ARRAY(
        SELECT CASE WHEN l.leg = 'keyword' THEN '$1' ELSE '$' || (5 + count(*) FILTER (WHERE l.leg <> 'keyword') OVER (ORDER BY l.place)) END
        FROM unnest(legs) WITH ORDINALITY l (leg, place) ORDER BY l.place), pgvec._leg_depths(legs, k, depth, depths), fusion, rrf_k, options);
END $$;
COMMENT ON FUNCTION pgvec.hybrid_search_sql(text, text[], integer, jsonb, text, integer, jsonb, double precision, text, text[], double precision, double precision, double precision) IS
'The text of the statement that pgvec.hybrid_search runs, for PREPARE or for reading. legs: keyword, and names of vector spaces. Parameters: $1 the text
of the keyword leg; $2 the filter (jsonb), any of the same shape; $3 the values of where_sql (jsonb); $4 the ids to leave out (text[]); $5 the weights
(jsonb); $6 and so on the queries of the vector spaces, in the order of legs and in their types.
Example: SELECT pgvec.hybrid_search_sql(''docs'', ''{dense,keyword}'', k => 3);';

CREATE OR REPLACE FUNCTION pgvec.hybrid_search(
    collection text,
    query_text text             DEFAULT NULL,
    query      anycompatible    DEFAULT NULL::text,
    k          integer          DEFAULT 10,
    filter     jsonb            DEFAULT NULL,
    queries    jsonb            DEFAULT NULL,
    fusion     text             DEFAULT 'relative',
    weights    jsonb            DEFAULT NULL,
    depth      integer          DEFAULT 100,
    depths     jsonb            DEFAULT NULL,
    rrf_k      double precision DEFAULT 60,
    where_sql  text             DEFAULT NULL,
    parameters jsonb            DEFAULT NULL,
    exclude    text[]           DEFAULT NULL,
    k1         double precision DEFAULT NULL,
    b          double precision DEFAULT NULL,
    recall     double precision DEFAULT NULL
) RETURNS TABLE (id text, document_id text, text text, metadata jsonb, score double precision, rank integer, legs jsonb, stopped_by text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner       pgvec.collections := pgvec._collection(collection);
    names       text[] := '{}';
    expressions text[] := '{}';
    other       record;
    options     jsonb;
BEGIN
    IF query IS NOT NULL THEN
        names := names || (pgvec._searched_space(collection, NULL)).name;
        expressions := expressions || pgvec._query_sql(pgvec._searched_space(collection, NULL), query, '$6');
    END IF;
    IF query_text !~ '\S' OR jsonb_typeof(queries -> 'keyword') IS NOT NULL AND (queries ->> 'keyword' ~ '\S') IS NOT TRUE THEN
        RAISE EXCEPTION 'the query is empty' USING ERRCODE = 'PV005', HINT = 'To search without the keyword leg, leave query_text out.';
    ELSIF jsonb_typeof(queries) NOT IN ('object', 'null') THEN
        RAISE EXCEPTION 'queries is a JSON object, leg to its query, not %', jsonb_typeof(queries)
            USING ERRCODE = 'PV005', HINT = 'For example {"title": "[...]"}.';
    END IF;
    IF query_text IS NOT NULL THEN
        names := names || 'keyword'::text;
        expressions := expressions || '$1'::text;
    END IF;
    FOR other IN SELECT q.key AS leg, q.value FROM jsonb_each_text(nullif(queries, 'null')) q LOOP
        names := names || other.leg;
        expressions := expressions || CASE other.leg WHEN 'keyword' THEN '($7 ->> ''keyword'')'
            ELSE pgvec._query_sql(pgvec._searched_space(collection, other.leg), other.value, format('($7 ->> %L)', other.leg)) END;
    END LOOP;
    options := pgvec._hybrid_options(owner, names, k, filter, where_sql, exclude IS NOT NULL, k1, b, recall);
    PERFORM pgvec._check_fusion(names, weights, rrf_k);
    RETURN QUERY EXECUTE pgvec._hybrid_sql(owner, names, expressions, pgvec._leg_depths(names, k, depth, depths), fusion, rrf_k, options)
        USING query_text, filter, parameters, exclude, weights, query, queries;
    IF query IS NOT NULL THEN
        PERFORM pgvec._log_search(pgvec._searched_space(collection, NULL), query, greatest(k, depth), filter, where_sql, recall = 1);
    END IF;
    PERFORM pgvec._log_search(pgvec._searched_space(collection, q.key), q.value, greatest(k, depth), filter, where_sql, recall = 1)
    FROM jsonb_each_text(nullif(queries, 'null')) q WHERE q.key <> 'keyword';
END $$;
COMMENT ON FUNCTION pgvec.hybrid_search(text, text, anycompatible, integer, jsonb, jsonb, text, jsonb, integer, jsonb, double precision, text, jsonb, text[],
                                        double precision, double precision, double precision) IS
'The k chunks that several searches, the legs, agree on, by one statement; the filter holds in each. query_text: for the keyword leg, as in
pgvec.keyword_search (phrases, + and - bind this leg only); query: a vector for the default space; queries: further legs, vector space to its query, as {"title": "[...]"}.
fusion: relative, scores from 0, the lowest of the leg, to 1, its highest; dbsf, scores on the scale of three standard deviations around their mean;
rrf, 1 / (rrf_k + rank); weighted, scores as they are (similarity; BM25). weights: leg to weight, 1 where there is none. depth: how many each leg
finds (at least k); depths: leg to another depth. recall: of the legs that are vector spaces. All else as in pgvec.search and pgvec.keyword_search.
score: of the fusion; stopped_by: k, complete, or depth (a leg was to find no more); legs: of each leg that found the chunk, its rank and score there and what that contributed, and the terms of the keyword leg.
Example: SELECT id, score, legs FROM pgvec.hybrid_search(''docs'', ''rotate credentials'', ''[...]'', k => 3, weights => ''{"keyword": 0.5}'');';
