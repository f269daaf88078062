-- The filter language, compiled to a predicate over the alias `d` of the chunk table: what holds filters together.
-- What a single condition means is in 310_filter_conditions.sql.
--
-- The values stay in the parameter $2 (jsonb); the text holds only their paths, so one prepared
-- statement serves every filter of the same shape. Each condition is two-valued where it is
-- negated: $ne, $nin and $not are exact complements, and so match rows without the field.

CREATE OR REPLACE FUNCTION pgvec._filter_sql(relation regclass, filter jsonb, path text[] DEFAULT '{}') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entry record;
    terms text[] := '{}';
BEGIN
    IF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'a filter is a JSON object, not %', coalesce(jsonb_typeof(filter), 'NULL')
            USING ERRCODE = 'PV004', HINT = 'For example {"section": "security", "year": {"$gte": 2020}}.';
    ELSIF path = '{}' AND length(filter::text) > 300 THEN  -- none that is shorter can be too large
        PERFORM pgvec._check_filter_size(filter);
    END IF;
    FOR entry IN SELECT f.key, f.value FROM jsonb_each(filter) f LOOP
        IF entry.key IN ('$and', '$or') THEN
            terms := terms || pgvec._filter_list_sql(relation, entry.key, entry.value, path || entry.key);
        ELSIF entry.key = '$not' THEN
            terms := terms || format('(%s) IS NOT TRUE', pgvec._filter_sql(relation, entry.value, path || entry.key));
        ELSIF starts_with(entry.key, '$') THEN
            PERFORM pgvec._unknown_operator(entry.key);
        ELSIF jsonb_typeof(entry.value) = 'object' AND entry.value <> '{}' THEN
            terms := terms || pgvec._field_sql(relation, entry.key, entry.value, path || entry.key);
        ELSE
            terms := terms || pgvec._condition_sql(relation, entry.key, '$eq', entry.value, path || entry.key);
        END IF;
    END LOOP;
    RETURN coalesce(nullif(array_to_string(terms, ' AND '), ''), 'true');
END $$;
COMMENT ON FUNCTION pgvec._filter_sql(regclass, jsonb, text[]) IS 'Compile a filter; path is where in $2 this part of it stands.';

CREATE OR REPLACE FUNCTION pgvec._filter_list_sql(relation regclass, connective text, filters jsonb, path text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(filters) <> 'array' OR filters = '[]' THEN
        RAISE EXCEPTION '% takes a list of at least one filter', connective
            USING ERRCODE = 'PV004', HINT = format('For example {"%s": [{"section": "security"}, {"year": {"$gte": 2020}}]}.', connective);
    END IF;
    RETURN (SELECT '(' || string_agg('(' || pgvec._filter_sql(relation, f.value, path || (f.position - 1)::text) || ')',
                                     CASE connective WHEN '$and' THEN ' AND ' ELSE ' OR ' END ORDER BY f.position) || ')'
            FROM jsonb_array_elements(filters) WITH ORDINALITY AS f (value, position));
END $$;
COMMENT ON FUNCTION pgvec._filter_list_sql(regclass, text, jsonb, text[]) IS 'Compile $and and $or.';

CREATE OR REPLACE FUNCTION pgvec._field_sql(relation regclass, field text, conditions jsonb, path text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entry record;
    terms text[] := '{}';
BEGIN
    IF jsonb_typeof(conditions) <> 'object' OR conditions = '{}' THEN
        RAISE EXCEPTION '$not of field % takes operators, not %', quote_literal(field), pgvec._shown(conditions)
            USING ERRCODE = 'PV004', HINT = 'For example {"year": {"$not": {"$gt": 2020}}}; for "is not this value" there is $ne.';
    END IF;
    FOR entry IN SELECT c.key, c.value FROM jsonb_each(conditions) c LOOP
        IF entry.key = '$not' THEN
            terms := terms || format('(%s) IS NOT TRUE', pgvec._field_sql(relation, field, entry.value, path || entry.key));
        ELSIF NOT starts_with(entry.key, '$') THEN
            RAISE EXCEPTION '% of field % is not an operator', quote_literal(entry.key), quote_literal(field)
                USING ERRCODE = 'PV004', HINT = format('Nested objects are matched with %s.', pgvec._shown(
                    jsonb_build_object(field, jsonb_build_object('$contains', jsonb_build_object(entry.key, entry.value)))));
        ELSE
            terms := terms || pgvec._condition_sql(relation, field, entry.key, entry.value, path || entry.key);
        END IF;
    END LOOP;
    RETURN array_to_string(terms, ' AND ');
END $$;
COMMENT ON FUNCTION pgvec._field_sql(regclass, text, jsonb, text[]) IS 'Compile {operator: value, ...} of one field.';

CREATE OR REPLACE FUNCTION pgvec._unknown_operator(operator text, field text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'unknown filter operator %', quote_literal(operator) || coalesce(' of field ' || quote_literal(field), '')
        USING ERRCODE = 'PV004',
              HINT = 'One of: $eq $ne $gt $gte $lt $lte $between $in $nin $any $all $contains $like $ilike $exists $not; around filters: $and $or $not.';
END $$;
COMMENT ON FUNCTION pgvec._unknown_operator(text, text) IS 'PV004: no such operator.';

CREATE OR REPLACE FUNCTION pgvec._check_filter_size(filter jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deepest integer;
    conditions bigint;
BEGIN
    IF jsonb_path_exists(filter, 'strict $.**{101}') THEN
        RAISE EXCEPTION 'the filter is nested deeper than 100 levels of lists and objects' USING ERRCODE = 'PV004';
    END IF;
    WITH RECURSIVE part (level, key, value) AS (
        SELECT 0, f.key, f.value FROM jsonb_each(filter) f
        UNION ALL
        SELECT p.level + starts_with(p.key, '$')::integer, inner_.key, inner_.value
        FROM part p
        CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN p.key NOT IN ('$and', '$or') THEN jsonb_build_array(p.value)
                                                     WHEN jsonb_typeof(p.value) = 'array' THEN p.value ELSE '[]' END) filter_
        CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(filter_) WHEN 'object' THEN filter_ ELSE '{}' END) inner_
        WHERE p.key IN ('$and', '$or', '$not') OR NOT starts_with(p.key, '$')
    )
    SELECT max(p.level + (p.key IN ('$and', '$or', '$not'))::integer),
           count(*) FILTER (WHERE p.key NOT IN ('$and', '$or', '$not') AND (starts_with(p.key, '$') OR jsonb_typeof(p.value) <> 'object' OR p.value = '{}'))
    INTO deepest, conditions FROM part p;
    IF deepest > 32 THEN
        RAISE EXCEPTION 'the filter is nested deeper than 32 levels of $and, $or and $not' USING ERRCODE = 'PV004';
    ELSIF conditions > 1000 THEN
        RAISE EXCEPTION 'the filter has % conditions, more than 1000', conditions
            USING ERRCODE = 'PV004', HINT = 'Many values of one field are one condition: {"field": {"$in": [...]}}.';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_filter_size(jsonb) IS 'PV004 if a filter is nested deeper than 32 levels, or has more than 1000 conditions.';
