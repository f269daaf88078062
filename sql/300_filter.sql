-- The filter language, compiled to a predicate over the alias `d` of the chunk table.
--
-- The values stay in the parameter $2 (jsonb); the text holds only their paths, so one prepared
-- statement serves every filter of the same shape. Each condition is two-valued where it is
-- negated: $ne, $nin and $not are exact complements, and so match rows without the field.

CREATE OR REPLACE FUNCTION pgvec._filter_sql(relation regclass, filter jsonb, path text[] DEFAULT '{}') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entry record;
    operator record;
    terms text[] := '{}';
BEGIN
    IF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'a filter is a JSON object, not %', coalesce(jsonb_typeof(filter), 'NULL')
            USING ERRCODE = 'PV004', HINT = 'For example {"section": "security", "year": {"$gte": 2020}}.';
    END IF;
    FOR entry IN SELECT f.key, f.value FROM jsonb_each(filter) f LOOP
        IF entry.key IN ('$and', '$or') THEN
            terms := terms || pgvec._filter_list_sql(relation, entry.key, entry.value, path || entry.key);
        ELSIF entry.key = '$not' THEN
            terms := terms || format('(%s) IS NOT TRUE', pgvec._filter_sql(relation, entry.value, path || entry.key));
        ELSIF entry.key LIKE '$%' THEN
            PERFORM pgvec._unknown_operator(entry.key);
        ELSIF jsonb_typeof(entry.value) = 'object' AND entry.value <> '{}' THEN
            FOR operator IN SELECT o.key, o.value FROM jsonb_each(entry.value) o LOOP
                terms := terms || pgvec._condition_sql(relation, entry.key, operator.key, operator.value,
                                                       path || ARRAY[entry.key, operator.key]);
            END LOOP;
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
        RAISE EXCEPTION '% takes a list of at least one filter', connective USING ERRCODE = 'PV004';
    END IF;
    RETURN (SELECT '(' || string_agg('(' || pgvec._filter_sql(relation, f.value, path || (f.position - 1)::text) || ')',
                                     CASE connective WHEN '$and' THEN ' AND ' ELSE ' OR ' END ORDER BY f.position) || ')'
            FROM jsonb_array_elements(filters) WITH ORDINALITY AS f (value, position));
END $$;
COMMENT ON FUNCTION pgvec._filter_list_sql(regclass, text, jsonb, text[]) IS 'Compile $and and $or.';

CREATE OR REPLACE FUNCTION pgvec._unknown_operator(operator text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'unknown filter operator %', quote_literal(operator)
        USING ERRCODE = 'PV004', HINT = 'One of: $eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not.';
END $$;
COMMENT ON FUNCTION pgvec._unknown_operator(text) IS 'PV004: no such operator.';

CREATE OR REPLACE FUNCTION pgvec._condition_sql(relation regclass, field text, operator text, value jsonb, path text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type text;
BEGIN
    IF operator <> ALL ('{$eq,$ne,$gt,$gte,$lt,$lte,$in,$nin,$exists}') THEN
        PERFORM pgvec._unknown_operator(operator);
    ELSIF operator = '$exists' AND jsonb_typeof(value) <> 'boolean' THEN
        RAISE EXCEPTION '$exists of field % takes true or false', quote_literal(field) USING ERRCODE = 'PV004';
    ELSIF operator IN ('$in', '$nin') AND (jsonb_typeof(value) <> 'array' OR value @> '[null]') THEN
        RAISE EXCEPTION '% of field % takes a list without nulls', operator, quote_literal(field) USING ERRCODE = 'PV004';
    ELSIF operator IN ('$gt', '$gte', '$lt', '$lte') AND jsonb_typeof(value) NOT IN ('string', 'number') THEN
        RAISE EXCEPTION '% of field % takes a number or a string, not %', operator, quote_literal(field), jsonb_typeof(value)
            USING ERRCODE = 'PV004';
    ELSIF field = ANY ('{key,metadata,tsv}') THEN
        RAISE EXCEPTION 'field % cannot be filtered on', quote_literal(field) USING ERRCODE = 'PV004';
    END IF;
    SELECT format_type(a.atttypid, NULL) INTO type FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attname = field AND a.attnum > 0 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        RETURN pgvec._metadata_condition_sql(field, operator, path, value);
    ELSIF type = 'text[]' THEN
        RETURN pgvec._array_condition_sql(field, operator, path, value);
    END IF;
    -- All whole numbers meet as bigint, so that none is out of range for a smaller column.
    RETURN pgvec._column_condition_sql(field, CASE WHEN type IN ('smallint', 'integer') THEN 'bigint' ELSE type END,
                                       operator, path, value);
END $$;
COMMENT ON FUNCTION pgvec._condition_sql(regclass, text, text, jsonb, text[]) IS 'Compile one {field: {operator: value}}.';

CREATE OR REPLACE FUNCTION pgvec._compared_type(field text, type text, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted text := CASE WHEN type IN ('bigint', 'double precision', 'real', 'numeric') THEN 'number'
                        WHEN type = 'boolean' THEN 'boolean' ELSE 'string' END;
BEGIN
    IF jsonb_typeof(value) = wanted THEN
        IF type = 'bigint' AND (value #>> '{}') !~ '^-?\d{1,18}$' THEN
            RETURN 'numeric';  -- 2020.5, or beyond bigint: compared as what it is
        END IF;
        EXECUTE format('SELECT $1::%s', type) USING value #>> '{}';
        RETURN type;
    END IF;
    RAISE EXCEPTION 'field % is of type %: % is not a % that it can be compared with',
            quote_literal(field), type, value, wanted USING ERRCODE = 'PV004';
EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION 'field % is of type %: % cannot be read as one', quote_literal(field), type, value
        USING ERRCODE = 'PV004';
END $$;
COMMENT ON FUNCTION pgvec._compared_type(text, text, jsonb) IS 'The type in which a column and a filter value meet; PV004 if they cannot.';

CREATE OR REPLACE FUNCTION pgvec._instant(value text) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$ SELECT value::timestamptz $$;
COMMENT ON FUNCTION pgvec._instant(text) IS 'Read a timestamp; without a zone it is UTC, as it is when it is loaded, whatever the zone of the session.';

CREATE OR REPLACE FUNCTION pgvec._column_condition_sql(field text, type text, operator text, path text[], value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    met text := type;
    read text;
    symbol text := CASE operator WHEN '$gt' THEN '>' WHEN '$gte' THEN '>=' WHEN '$lt' THEN '<' WHEN '$lte' THEN '<=' ELSE '=' END;
    item jsonb;
BEGIN
    IF operator = '$exists' THEN
        RETURN format('(d.%I IS NOT NULL) = ($2 #>> %L)::boolean', field, path);
    ELSIF operator IN ('$in', '$nin') THEN
        FOR item IN SELECT e.value FROM jsonb_array_elements(value) e LOOP
            IF pgvec._compared_type(field, type, item) = 'numeric' THEN
                met := 'numeric';
            END IF;
        END LOOP;
        read := CASE type WHEN 'timestamp with time zone' THEN 'pgvec._instant(e)' ELSE 'e::' || met END;
        RETURN format('(d.%I%s = ANY (ARRAY(SELECT %s FROM jsonb_array_elements_text($2 #> %L) e)))%s', field,
                      CASE WHEN met <> type THEN '::numeric' END, read, path, CASE operator WHEN '$nin' THEN ' IS NOT TRUE' END);
    ELSIF value = 'null' THEN
        RETURN format(CASE operator WHEN '$eq' THEN 'd.%I IS NULL' ELSE 'd.%I IS NOT NULL' END, field);
    END IF;
    met := pgvec._compared_type(field, type, value);
    IF operator = '$ne' THEN
        symbol := 'IS DISTINCT FROM';
    END IF;
    read := CASE type WHEN 'timestamp with time zone' THEN '(SELECT pgvec._instant($2 #>> %L))' ELSE '($2 #>> %L)::' || met END;
    RETURN format('d.%I%s %s ', field, CASE WHEN met <> type THEN '::numeric' END, symbol) || format(read, path);
END $$;
COMMENT ON FUNCTION pgvec._column_condition_sql(text, text, text, text[], jsonb) IS 'A condition on a typed column: a btree index condition wherever the operator allows.';

CREATE OR REPLACE FUNCTION pgvec._array_condition_sql(field text, operator text, path text[], value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    negated text := CASE WHEN operator IN ('$ne', '$nin') THEN ' IS NOT TRUE' ELSE '' END;
    kind text := jsonb_typeof(value);
BEGIN
    IF operator = '$exists' THEN
        RETURN format('(d.%I IS NOT NULL) = ($2 #>> %L)::boolean', field, path);
    ELSIF operator NOT IN ('$eq', '$ne', '$in', '$nin')
          OR kind NOT IN ('string', 'array', 'null')
          OR kind = 'array' AND EXISTS (SELECT FROM jsonb_array_elements(value) e WHERE jsonb_typeof(e.value) <> 'string') THEN
        RAISE EXCEPTION 'field % is a list of texts: % % does not apply to it', quote_literal(field), operator, value
            USING ERRCODE = 'PV004',
                  HINT = '$eq "x": has x among its elements; $eq ["x", "y"]: is this list; $in ["x", "y"]: has any of them.';
    ELSIF operator IN ('$in', '$nin') THEN
        RETURN format('(d.%I && ARRAY(SELECT jsonb_array_elements_text($2 #> %L)))%s', field, path, negated);
    ELSIF kind = 'null' THEN
        RETURN format(CASE operator WHEN '$eq' THEN 'd.%I IS NULL' ELSE 'd.%I IS NOT NULL' END, field);
    ELSIF kind = 'array' THEN
        RETURN format('(d.%I = ARRAY(SELECT jsonb_array_elements_text($2 #> %L)))%s', field, path, negated);
    END IF;
    RETURN format('(d.%I @> ARRAY[$2 #>> %L])%s', field, path, negated);
END $$;
COMMENT ON FUNCTION pgvec._array_condition_sql(text, text, text[], jsonb) IS 'A condition on a text[] column: one text means membership.';

CREATE OR REPLACE FUNCTION pgvec._metadata_condition_sql(field text, operator text, path text[], value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    negated text := CASE WHEN operator IN ('$ne', '$nin') THEN ' IS NOT TRUE' ELSE '' END;
BEGIN
    IF operator = '$exists' THEN
        RETURN format('jsonb_exists(d.metadata, %L) = ($2 #>> %L)::boolean', field, path);
    ELSIF operator IN ('$in', '$nin') THEN
        RETURN format('(d.metadata -> %L = ANY (ARRAY(SELECT jsonb_array_elements($2 #> %L))))%s', field, path, negated);
    ELSIF operator NOT IN ('$eq', '$ne') THEN
        -- Guarded by the type: jsonb would order every string below every number.
        RETURN format('(jsonb_typeof(d.metadata -> %1$L) = jsonb_typeof($2 #> %2$L) AND d.metadata -> %1$L %3$s ($2 #> %2$L))', field, path,
                      CASE operator WHEN '$gt' THEN '>' WHEN '$gte' THEN '>=' WHEN '$lt' THEN '<' ELSE '<=' END);
    ELSIF value = 'null' THEN
        RETURN format('(coalesce(d.metadata -> %L, ''null'') = ''null'')%s', field, negated);
    ELSIF jsonb_typeof(value) IN ('array', 'object') THEN
        RETURN format('(d.metadata -> %L = ($2 #> %L))%s', field, path, negated);
    END IF;
    -- Containment of a scalar is equality, and the GIN index on metadata serves it.
    RETURN format('(d.metadata @> jsonb_build_object(%L, $2 #> %L))%s', field, path, negated);
END $$;
COMMENT ON FUNCTION pgvec._metadata_condition_sql(text, text, text[], jsonb) IS 'A condition on a metadata key: values of different JSON types are unequal and unordered, never an error.';
