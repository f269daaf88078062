-- Tuning profiles: which of them a search uses.

CREATE OR REPLACE FUNCTION pgvec.filter_class(filter jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
        RETURN '';
    END IF;
    RETURN coalesce((
        SELECT string_agg(part.class, ', ' ORDER BY part.class COLLATE "C")
        FROM (
            SELECT DISTINCT CASE
                WHEN f.key IN ('$and', '$or') THEN
                    (SELECT format('%s (%s)', f.key, string_agg(DISTINCT pgvec.filter_class(i.value) COLLATE "C", ', ' ORDER BY pgvec.filter_class(i.value) COLLATE "C"))
                     FROM jsonb_array_elements(CASE jsonb_typeof(f.value) WHEN 'array' THEN f.value ELSE '[]' END) i)
                WHEN f.key = '$not' THEN format('$not (%s)', pgvec.filter_class(f.value))
                WHEN starts_with(f.key, '$') THEN f.key
                WHEN jsonb_typeof(f.value) = 'object' AND f.value <> '{}' THEN
                    (SELECT string_agg(format('%s %s', f.key, CASE WHEN o.key = '$not' THEN format('$not (%s)', pgvec.filter_class(o.value)) ELSE o.key END),
                                       ', ' ORDER BY o.key COLLATE "C") FROM jsonb_each(f.value) o)
                ELSE f.key || ' $eq' END AS class
            FROM jsonb_each(filter) f) part), '');
END $$;
COMMENT ON FUNCTION pgvec.filter_class(jsonb) IS
'The class of a filter, by which pgvec tune --filter tells filters apart: its fields with their operators, whatever the values.
Example: SELECT pgvec.filter_class(''{"section": "security", "year": {"$gte": 2020}}'');';

CREATE OR REPLACE FUNCTION pgvec._profile(space_id integer, method text, shape text, lists integer, k integer, class text, recall double precision,
                                          OUT id bigint, OUT setting integer, OUT oversampling double precision)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Of profiles for another k the next larger will do; a smaller one is scaled up.
    SELECT p.id, ceil(p.setting * greatest(1.0, _profile.k::numeric / p.k)), p.oversampling INTO id, setting, oversampling
    FROM pgvec.tuning_profiles p
    WHERE p.space_id = _profile.space_id AND p.index_method = method AND p.index_shape = shape AND p.superseded_at IS NULL
      AND p.filter_class IN ('', class) AND CASE WHEN _profile.recall IS NULL THEN p.is_default ELSE p.target_recall >= _profile.recall END
    ORDER BY (p.k < _profile.k), abs(p.k - _profile.k), p.filter_class DESC, p.target_recall LIMIT 1;
    IF NOT FOUND THEN
        oversampling := CASE split_part(shape, ' ', 1) WHEN 'full' THEN 1 WHEN 'halfvec' THEN 1.5 ELSE 4 END;
        setting := CASE method WHEN 'hnsw' THEN greatest(40, ceil(k * oversampling)) ELSE ceil(sqrt(coalesce(lists, 100))) END;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._profile(integer, text, text, integer, integer, text, double precision) IS
'The setting (ef_search or probes) and the oversampling for k neighbours: tuned for an index of this shape, for this recall and class of filters, or
what is usual for its form (id is null). Without a recall that of the default target; of several for a recall the cheapest that reaches it.';

CREATE OR REPLACE FUNCTION pgvec._tuned_sql(space_id integer, method text, shape text, k integer, otherwise integer, options jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- The profile for this very k is read when the search runs: a new one reaches statements prepared before it.
    SELECT coalesce(options ->> 'ef_search', options ->> 'base', format(
        'coalesce((SELECT p.setting FROM pgvec.tuning_profiles p WHERE p.space_id = %s AND p.index_method = %L AND p.index_shape = %L AND p.k = %s '
        'AND p.superseded_at IS NULL AND p.filter_class %s AND %s), %s)',
        space_id, method, shape, k, CASE class WHEN '' THEN format('= %L', '') ELSE format('IN (%L, %L)', '', class) END,
        CASE WHEN options ? 'recall' THEN format('p.target_recall >= %s::double precision ORDER BY p.filter_class DESC, p.target_recall LIMIT 1', options ->> 'recall')
             WHEN class = '' THEN 'p.is_default' ELSE 'p.is_default ORDER BY p.filter_class DESC LIMIT 1' END, otherwise))
    FROM pgvec.filter_class(options -> 'filter') AS class
$$;
COMMENT ON FUNCTION pgvec._tuned_sql(integer, text, text, integer, integer, jsonb) IS
'An expression for the setting that finds k neighbours: the given one, or the tuned one. base, of the tuner, is in the place of the latter: filtered
searches go on from it as they would from that.';

CREATE OR REPLACE FUNCTION pgvec._unreached(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'no tuning profile of collection % reaches recall %', quote_literal(owner.name), options ->> 'recall'
        USING ERRCODE = 'PV005', HINT = format('tune it first: pgvec tune %s --recall %s%s%s; or search with recall => 1, which is exact.', owner.name, options ->> 'recall',
            CASE WHEN (options -> 'k')::integer <> 10 THEN ' -k ' || (options ->> 'k') END, CASE WHEN NOT wanted.is_default THEN ' --space ' || wanted.name END);
END $$;
COMMENT ON FUNCTION pgvec._unreached(pgvec.collections, pgvec.vector_spaces, jsonb) IS 'PV005: no profile is for the recall of the options.';

CREATE OR REPLACE FUNCTION pgvec.profiles(collection text, space text DEFAULT NULL)
RETURNS TABLE (method text, shape text, k integer, filter_class text, target_recall double precision, is_default boolean, setting integer,
               oversampling double precision, recall double precision, recall_low double precision, recall_high double precision, tail_share double precision,
               reaching_share double precision, evidence jsonb, tuned_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    wanted pgvec.vector_spaces := pgvec._space(collection, space);
BEGIN
    RETURN QUERY
    SELECT p.index_method, p.index_shape, p.k, p.filter_class, p.target_recall, p.is_default, p.setting, p.oversampling, p.recall, p.recall_low,
           p.recall_high, p.tail_share, p.reaching_share, p.evidence, p.tuned_at
    FROM pgvec.tuning_profiles p WHERE p.space_id = wanted.id AND p.superseded_at IS NULL
    ORDER BY p.index_method, p.index_shape, p.k, p.filter_class, p.target_recall;
END $$;
COMMENT ON FUNCTION pgvec.profiles(text, text) IS
'The tuning profiles that searches of a space use. is_default: what a search that asks for no recall uses; filter_class: searches with such
a filter use it, empty: all others; setting: ef_search, or probes; recall: measured, recall_low to recall_high its 95 % interval; reaching_share:
of queries that reach the target each; evidence: queries, where they were from, what else was tried. Earlier ones: pgvec.tuning_profiles.
Example: SELECT k, target_recall, setting, recall, is_default FROM pgvec.profiles(''docs'');';
