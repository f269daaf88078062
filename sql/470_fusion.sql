-- Fusion: one ranking from several.

CREATE OR REPLACE FUNCTION pgvec._fused_sql(fusion text, weights text, rrf_k text, most text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part text := CASE fusion
        WHEN 'rrf'      THEN '1 / ({rrf_k} + r.rank)'
        WHEN 'relative' THEN 'CASE WHEN r.score IS NULL THEN 0 WHEN max(r.score) OVER leg > min(r.score) OVER leg THEN (r.score - min(r.score) OVER leg) / (max(r.score) OVER leg - min(r.score) OVER leg) ELSE 1 END'
        -- Of equal scores the deviation need not be 0: they have been added up.
        WHEN 'dbsf'     THEN 'CASE WHEN r.score IS NULL THEN 0 WHEN max(r.score) OVER leg > min(r.score) OVER leg AND stddev_samp(r.score) OVER leg > 0 THEN '
                             '(r.score - avg(r.score) OVER leg + 3 * stddev_samp(r.score) OVER leg) / (6 * stddev_samp(r.score) OVER leg) ELSE 0.5 END'
        WHEN 'weighted' THEN 'coalesce(r.score, 0)'
        END;
BEGIN
    IF part IS NULL THEN
        RAISE EXCEPTION 'unknown fusion %', quote_nullable(fusion) USING ERRCODE = 'PV005', HINT = 'One of: rrf, relative, dbsf, weighted.';
    END IF;
    RETURN pgvec._render($sql$parts AS (
  SELECT r.leg, r.key, r.rank, r.score, r.terms, coalesce(({weights} ->> r.leg)::double precision, 1) * {part} AS contribution
  FROM ranked r WINDOW leg AS (PARTITION BY r.leg)
), fused AS MATERIALIZED (
  SELECT p.key, sum(p.contribution) AS score, min(p.rank) AS best, jsonb_object_agg(p.leg, jsonb_strip_nulls(jsonb_build_object(
         'rank', p.rank, 'score', p.score, 'contribution', p.contribution, 'terms', p.terms))) AS legs
  FROM parts p GROUP BY p.key ORDER BY 2 DESC, 3, 1 LIMIT {most}
)$sql$, jsonb_build_object('weights', weights, 'part', replace(part, '{rrf_k}', rrf_k), 'most', most));
END $$;
COMMENT ON FUNCTION pgvec._fused_sql(text, text, text, text) IS
'Common table expressions that fuse relation ranked (leg, key, rank, score, terms), the last of which is fused (key, score, best, legs). A leg adds to the
score of what it found: rrf, weight / (rrf_k + rank) (Cormack and others, 2009); relative, the weighted score on the scale from its lowest to its highest;
dbsf, on the scale of three standard deviations around its mean; weighted, as it is. But for rrf, what has no score adds nothing.';

CREATE OR REPLACE FUNCTION pgvec._check_fusion(legs text[], weights jsonb, rrf_k double precision) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    weight record;
BEGIN
    IF (rrf_k >= 0 AND rrf_k < 'Infinity') IS NOT TRUE THEN
        RAISE EXCEPTION 'rrf_k must be at least 0, not %', coalesce(rrf_k::text, 'NULL') USING ERRCODE = 'PV005', HINT = 'Usual is 60.';
    ELSIF jsonb_typeof(weights) NOT IN ('object', 'null') THEN
        RAISE EXCEPTION 'weights is a JSON object, leg to weight, not %', jsonb_typeof(weights)
            USING ERRCODE = 'PV005', HINT = 'For example {"dense": 0.7, "keyword": 0.3}.';
    END IF;
    FOR weight IN SELECT w.key AS leg, w.value FROM jsonb_each(nullif(weights, 'null')) w LOOP
        IF weight.leg <> ALL (legs) THEN
            RAISE EXCEPTION 'there is a weight for %, which is no leg of the search', quote_literal(weight.leg)
                USING ERRCODE = 'PV005', HINT = format('Its legs are: %s.', array_to_string(legs, ', '));
        ELSIF jsonb_typeof(weight.value) <> 'number' OR (weight.value #>> '{}')::numeric NOT BETWEEN 0 AND 1e300 THEN
            RAISE EXCEPTION 'the weight of % must be a number, at least 0, not %', quote_literal(weight.leg), weight.value USING ERRCODE = 'PV005';
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._check_fusion(text[], jsonb, double precision) IS 'PV005 unless these can be the weights of these legs, and rrf_k.';

CREATE OR REPLACE FUNCTION pgvec.fuse(rankings jsonb, fusion text DEFAULT 'relative', weights jsonb DEFAULT NULL, rrf_k double precision DEFAULT 60)
RETURNS TABLE (id text, score double precision, rank integer, legs jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    twice record;
BEGIN
    IF jsonb_typeof(rankings) IS DISTINCT FROM 'object' OR jsonb_path_exists(rankings, 'strict $.* ? (@.type() != "array")')
       OR jsonb_path_exists(rankings, 'strict $.*[*] ? (@.type() != "array" || @.size() != 2 || (@[1].type() != "number" && @[1].type() != "null") || (@[0].type() != "string" && @[0].type() != "number"))') THEN
        RAISE EXCEPTION 'rankings is a JSON object, leg to a list of [id, score], the best first'
            USING ERRCODE = 'PV005', HINT = 'For example {"dense": [["a", 0.9], ["b", 0.7]], "keyword": [["b", 7.1]]}.';
    END IF;
    PERFORM pgvec._check_fusion(ARRAY(SELECT jsonb_object_keys(rankings)), weights, rrf_k);
    SELECT l.key AS leg, h.value ->> 0 AS id INTO twice
    FROM jsonb_each(rankings) l CROSS JOIN LATERAL jsonb_array_elements(l.value) h GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% is twice in leg %', quote_literal(twice.id), quote_literal(twice.leg)
            USING ERRCODE = 'PV005', HINT = 'A leg ranks each id once: keep the better place.';
    END IF;
    RETURN QUERY EXECUTE format(
        'WITH ranked AS (SELECT l.key AS leg, h.value ->> 0 AS key, h.rank, (h.value ->> 1)::double precision AS score, NULL::jsonb AS terms '
        'FROM jsonb_each($1) l CROSS JOIN LATERAL jsonb_array_elements(l.value) WITH ORDINALITY h (value, rank)), %s '
        'SELECT f.key, f.score, (row_number() OVER (ORDER BY f.score DESC, f.best, f.key))::integer, f.legs FROM fused f ORDER BY 3',
        pgvec._fused_sql(fusion, '$2', '$3', 'ALL')) USING rankings, weights, rrf_k;
EXCEPTION WHEN numeric_value_out_of_range THEN
    RAISE EXCEPTION 'a score is too large, or too small: %', left(SQLERRM, 100) USING ERRCODE = 'PV005';
END $$;
COMMENT ON FUNCTION pgvec.fuse(jsonb, text, jsonb, double precision) IS
'One ranking from several, by the fusions of pgvec.hybrid_search; also of rankings from elsewhere. rankings: leg to [[id, score], ...], the best first.
Example: SELECT id, score FROM pgvec.fuse(''{"dense": [["a", 0.9], ["b", 0.7]], "keyword": [["b", 7.1]]}'');';
