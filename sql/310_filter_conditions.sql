-- What a single condition of a filter means. One table says it, _operators(): for each operator and kind
-- of operand a template for each home of a field, that is, a typed column, a column of texts, a list
-- column, or a key of metadata. Where there is no template, the operator does not apply.

CREATE OR REPLACE FUNCTION pgvec._operators() RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
SELECT jsonb_object_agg(operator.name, operator.operands) FROM (
    SELECT known.name, jsonb_object_agg(known.operand, jsonb_strip_nulls(jsonb_build_object(
        'column', known.on_column, 'text', known.on_text, 'list', known.on_list, 'metadata', known.on_metadata))) AS operands
    FROM (VALUES
        ('$exists',   'boolean', '(%1$s IS NOT NULL) = %7$s::boolean', NULL, '(%1$s IS NOT NULL) = %7$s::boolean',
                                 'jsonb_exists(d.metadata, %6$s) = %7$s::boolean'),
        ('$eq',       'null',    '%1$s IS NULL', NULL, '%1$s IS NULL', 'coalesce(%1$s, ''null'') = ''null'''),
        -- Containment of a scalar is equality, and the GIN index on metadata serves it.
        ('$eq',       'scalar',  '%1$s = %2$s', NULL, '%1$s @> ARRAY[%2$s]', 'd.metadata @> jsonb_build_object(%6$s, %2$s)'),
        ('$eq',       'array',   NULL, NULL, '%1$s = %3$s', '%1$s = %2$s'),
        ('$eq',       'nulls',   NULL, NULL, NULL, '%1$s = %2$s'),
        ('$eq',       'object',  NULL, NULL, NULL, '%1$s = %2$s'),
        -- Guarded by the type: jsonb would order every text below every number.
        ('$gt',       'ordered', '%1$s > %2$s', NULL, NULL, 'jsonb_typeof(%1$s) = jsonb_typeof(%2$s) AND %1$s > %2$s'),
        ('$gte',      'ordered', '%1$s >= %2$s', NULL, NULL, 'jsonb_typeof(%1$s) = jsonb_typeof(%2$s) AND %1$s >= %2$s'),
        ('$lt',       'ordered', '%1$s < %2$s', NULL, NULL, 'jsonb_typeof(%1$s) = jsonb_typeof(%2$s) AND %1$s < %2$s'),
        ('$lte',      'ordered', '%1$s <= %2$s', NULL, NULL, 'jsonb_typeof(%1$s) = jsonb_typeof(%2$s) AND %1$s <= %2$s'),
        ('$between',  'range',   '%1$s BETWEEN %4$s AND %5$s', NULL, NULL,
                                 'jsonb_typeof(%1$s) = jsonb_typeof(%4$s) AND %1$s BETWEEN %4$s AND %5$s'),
        ('$like',     'string',  NULL, '%1$s::text LIKE (SELECT pgvec._pattern(%7$s))', NULL,
                                 'jsonb_typeof(%1$s) = ''string'' AND d.metadata ->> %6$s LIKE (SELECT pgvec._pattern(%7$s))'),
        ('$ilike',    'string',  NULL, '%1$s::text ILIKE (SELECT pgvec._pattern(%7$s))', NULL,
                                 'jsonb_typeof(%1$s) = ''string'' AND d.metadata ->> %6$s ILIKE (SELECT pgvec._pattern(%7$s))'),
        ('$contains', 'string',  NULL, 'strpos(%1$s::text, %7$s) > 0', '%1$s @> ARRAY[%2$s]',
                                 'd.metadata @> jsonb_build_object(%6$s, jsonb_build_array(%2$s))'
                                 ' OR jsonb_typeof(%1$s) = ''string'' AND strpos(d.metadata ->> %6$s, %7$s) > 0'),
        ('$contains', 'scalar',  NULL, NULL, NULL, 'd.metadata @> jsonb_build_object(%6$s, jsonb_build_array(%2$s))'),
        ('$contains', 'array',   NULL, NULL, '%1$s @> %3$s', 'd.metadata @> jsonb_build_object(%6$s, %2$s)'),
        ('$contains', 'object',  NULL, NULL, NULL, 'd.metadata @> jsonb_build_object(%6$s, %2$s)'
                                 ' OR d.metadata @> jsonb_build_object(%6$s, jsonb_build_array(%2$s))'),
        -- For each of a few scalars, joined by OR: GIN can look up several of them, but knows no = ANY.
        ('$in',       'each',    NULL, NULL, NULL, 'd.metadata @> jsonb_build_object(%6$s, %2$s)'),
        ('$in',       'array',   '%1$s = ANY (%3$s)', NULL, '%1$s && %3$s', '%1$s = ANY (%3$s)'),
        ('$any',      'each',    NULL, NULL, NULL, 'd.metadata @> jsonb_build_object(%6$s, %2$s)'
                                 ' OR d.metadata @> jsonb_build_object(%6$s, jsonb_build_array(%2$s))'),
        ('$any',      'array',   '%1$s = ANY (%3$s)', NULL, '%1$s && %3$s',
                                 'EXISTS (SELECT FROM jsonb_array_elements(%8$s) had WHERE had.value = ANY (%3$s))'),
        ('$all',      'empty',   '%1$s IS NOT NULL', NULL, '%1$s IS NOT NULL', 'jsonb_typeof(%1$s) = ''array'''),
        -- The containments are there for the index; of lists and objects they say less than equality.
        ('$all',      'array',   '%1$s = ALL (%3$s)', NULL, '%1$s @> %3$s',
                                 '(d.metadata @> jsonb_build_object(%6$s, %2$s) OR d.metadata @> jsonb_build_object(%6$s, %2$s -> 0))'
                                 ' AND NOT EXISTS (SELECT FROM jsonb_array_elements(%2$s) wanted'
                                 ' WHERE wanted.value <> ALL (SELECT jsonb_array_elements(%8$s)))')
    ) AS known (name, operand, on_column, on_text, on_list, on_metadata)
    GROUP BY known.name) operator
$$;
COMMENT ON FUNCTION pgvec._operators() IS
'The operators: {operator: {kind of operand: {home of the field: template}}}. Kinds: null, boolean, string, ordered (a number or a text),
scalar, object, and for lists those of _list_kinds. In a template %1$s is the stored value, %2$s the operand, %3$s the operand as an array,
%4$s and %5$s its first and second element, all as the field''s type or as jsonb; %6$s the metadata key, %7$s the operand as text, %8$s the
stored value as a list. $ne and $nin are $eq and $in, negated.';

CREATE OR REPLACE FUNCTION pgvec._list_kinds(operand jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    length integer := jsonb_array_length(operand);
    first text := jsonb_typeof(operand -> 0);
    kinds text[] := '{array}';
BEGIN
    IF operand @> '[null]' THEN
        RETURN '{nulls}';
    ELSIF length = 0 THEN
        RETURN '{empty,array}';
    ELSIF length <= 16 AND NOT jsonb_path_exists(operand, 'strict $[*] ? (@.type() == "array" || @.type() == "object")') THEN
        kinds := array_prepend('each', kinds);
    END IF;
    IF length = 2 AND first = jsonb_typeof(operand -> 1) AND first IN ('number', 'string') THEN
        kinds := array_prepend('range', kinds);
    END IF;
    RETURN kinds;
END $$;
COMMENT ON FUNCTION pgvec._list_kinds(jsonb) IS
'What a list is as an operand, the narrowest first: nulls, with a null in it; empty; range, of two numbers or two texts; each, of up to
16 scalars; array, any without nulls.';

CREATE OR REPLACE FUNCTION pgvec._condition_sql(relation regclass, field text, operator text, operand jsonb, path text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    positive text := CASE operator WHEN '$ne' THEN '$eq' WHEN '$nin' THEN '$in' ELSE operator END;
    templates jsonb := pgvec._operators() -> positive;
    kinds text[] := CASE jsonb_typeof(operand)  -- what the operand is, the narrowest first
        WHEN 'null' THEN '{"null"}' WHEN 'boolean' THEN '{scalar,boolean}' WHEN 'number' THEN '{scalar,ordered}'
        WHEN 'string' THEN '{string,scalar,ordered}' WHEN 'object' THEN '{object}' ELSE pgvec._list_kinds(operand) END;
    kind text;
    home text;
    "column" text := field;
    type text;
    template text;
    condition text;
    registered integer := (SELECT r.collection_id FROM pgvec.registered_tables r WHERE r.relation = _condition_sql.relation);
BEGIN
    IF templates IS NULL THEN
        PERFORM pgvec._unknown_operator(operator, field);
    ELSIF field IN ('key', 'metadata', 'tsv') THEN
        RAISE EXCEPTION 'field % cannot be filtered on', quote_literal(field)
            USING ERRCODE = 'PV004', HINT = 'Fields are the typed columns, id, document_id, position, text, and the keys of metadata.';
    END IF;
    IF registered IS NULL THEN
        SELECT format_type(a.atttypid, NULL) INTO type FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attname = field AND a.attnum > 0 AND NOT a.attisdropped AND NOT starts_with(field, 'pgvec_promoting_');
    ELSE
        SELECT f.field, f.type INTO "column", type FROM pgvec._registered_field(pgvec._registered(registered), field, operand) f;
    END IF;
    home := CASE WHEN type IS NULL THEN 'metadata' WHEN type = 'text[]' THEN 'list'
                 WHEN type IN ('text', 'character varying', 'character') THEN 'text' ELSE 'column' END;
    FOREACH kind IN ARRAY kinds LOOP
        template := coalesce(templates #>> ARRAY[kind, home], CASE home WHEN 'text' THEN templates #>> ARRAY[kind, 'column'] END);
        EXIT WHEN template IS NOT NULL;
    END LOOP;
    IF template IS NULL THEN
        PERFORM pgvec._misapplied(field, home, type, operator, operand, jsonb_exists_any(templates, kinds));
    ELSIF home <> 'metadata' THEN
        condition := pgvec._column_condition_sql(field, "column", type, template, operand, path);
    ELSIF kind = 'each' THEN
        FOR i IN 0 .. jsonb_array_length(operand) - 1 LOOP
            condition := concat(condition || ' OR ', pgvec._metadata_condition_sql(field, template, path || i::text));
        END LOOP;
    ELSE
        condition := pgvec._metadata_condition_sql(field, template, path);
    END IF;
    RETURN format(CASE positive WHEN operator THEN '(%s)' ELSE '(%s) IS NOT TRUE' END, condition);
END $$;
COMMENT ON FUNCTION pgvec._condition_sql(regclass, text, text, jsonb, text[]) IS 'Compile one {field: {operator: operand}}.';

CREATE OR REPLACE FUNCTION pgvec._misapplied(field text, home text, type text, operator text, operand jsonb, elsewhere boolean) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT elsewhere THEN
        RAISE EXCEPTION '% of field % takes %, not %', operator, quote_literal(field),
            CASE WHEN operator = '$exists' THEN 'true or false'
                 WHEN operator IN ('$like', '$ilike') THEN 'a text'
                 WHEN operator IN ('$gt', '$gte', '$lt', '$lte') THEN 'a number or a text'
                 WHEN operator = '$between' THEN 'a list [lowest, highest] of two numbers or two texts'
                 WHEN operator = '$contains' THEN 'a text, a number, true, false, an object or a list without nulls'
                 ELSE 'a list without nulls' END, pgvec._shown(operand) USING ERRCODE = 'PV004';
    END IF;
    RAISE EXCEPTION 'field % is of type %: % % does not apply to it', quote_literal(field), type, operator, pgvec._shown(operand)
        USING ERRCODE = 'PV004', HINT = CASE home
            WHEN 'list' THEN 'What does: $eq "x", $contains "x" (has x among its elements), $eq ["x", "y"] (is this list), '
                             '$any, $in ["x", "y"] (has any of them), $all, $contains ["x", "y"] (has all of them), $ne, $nin, $exists.'
            WHEN 'text' THEN 'What does, with texts: $eq $ne $gt $gte $lt $lte $between $in $nin $any $all $like $ilike $contains $exists.'
            ELSE 'What does: $eq $ne $gt $gte $lt $lte $between $in $nin $any $all $exists.' END;
END $$;
COMMENT ON FUNCTION pgvec._misapplied(text, text, text, text, jsonb, boolean) IS
'PV004: the operator takes no such operand, or does so (elsewhere) only on other fields than this one.';

CREATE OR REPLACE FUNCTION pgvec._shown(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN length(value::text) > 200 THEN left(value::text, 200) || '...' ELSE value::text END $$;
COMMENT ON FUNCTION pgvec._shown(jsonb) IS 'A value for an error message.';

CREATE OR REPLACE FUNCTION pgvec._compared_type(field text, type text, operand jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- All whole numbers meet as bigint, so that none is out of range for a smaller column.
    met text := CASE WHEN type IN ('smallint', 'integer') THEN 'bigint' WHEN type = 'text[]' THEN 'text'
                     WHEN type = 'character' THEN 'bpchar'  -- by that name it would have one letter
                     ELSE type END;
    whole boolean := met = 'bigint';
    wanted text := CASE WHEN whole OR type IN ('double precision', 'real', 'numeric') THEN 'number'
                        WHEN type = 'boolean' THEN 'boolean' ELSE 'string' END;
    item jsonb := operand;
BEGIN
    FOR i IN 0 .. CASE jsonb_typeof(operand) WHEN 'array' THEN jsonb_array_length(operand) - 1 ELSE 0 END LOOP
        IF jsonb_typeof(operand) = 'array' THEN
            item := operand -> i;
        END IF;
        IF jsonb_typeof(item) <> wanted THEN
            RAISE EXCEPTION 'field % is of type %: % is not a % that it can be compared with',
                quote_literal(field), type, pgvec._shown(item), CASE wanted WHEN 'string' THEN 'text' ELSE wanted END
                USING ERRCODE = 'PV004';
        ELSIF whole THEN
            IF (item #>> '{}') !~ '^-?\d{1,18}$' THEN
                met := 'numeric';  -- 2020.5, or beyond bigint: compared as what it is
            END IF;
        ELSIF met NOT IN ('text', 'numeric', 'boolean') AND NOT (wanted = 'number' AND length(item #>> '{}') < 38) THEN  -- all floats hold that
            BEGIN
                EXECUTE format('SELECT $1::%s', met) USING item #>> '{}';
            EXCEPTION WHEN data_exception THEN
                RAISE EXCEPTION 'field % is of type %: % cannot be read as one', quote_literal(field), type, pgvec._shown(item)
                    USING ERRCODE = 'PV004';
            END;
        END IF;
    END LOOP;
    RETURN met;
END $$;
COMMENT ON FUNCTION pgvec._compared_type(text, text, jsonb) IS
'The type in which a column and an operand, or all elements of a list, meet; PV004 if they cannot.';

CREATE OR REPLACE FUNCTION pgvec._instant(value text) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$ SELECT value::timestamptz $$;
COMMENT ON FUNCTION pgvec._instant(text) IS 'Read a timestamp; without a zone it is UTC, as it is when it is loaded, whatever the zone of the session.';

CREATE OR REPLACE FUNCTION pgvec._pattern(value text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT value || CASE WHEN length(substring(value FROM '\\*$')) % 2 = 1 THEN '\' ELSE '' END $$;
COMMENT ON FUNCTION pgvec._pattern(text) IS 'A pattern for LIKE; a last backslash that escapes nothing stands for itself.';

CREATE OR REPLACE FUNCTION pgvec._column_condition_sql(field text, "column" text, type text, template text, operand jsonb, path text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stored text := 'd.' || quote_ident("column");
    place text := quote_literal(path);
    met text;
    opening text := '(';
    closing text;
BEGIN
    IF template !~ '%[2-5]' THEN  -- nothing in it is read as the column's type
        RETURN format(template, stored, NULL, NULL, NULL, NULL, NULL, '($2 #>> ' || place || ')');
    END IF;
    met := pgvec._compared_type(field, type, operand);
    IF met = 'numeric' AND type <> 'numeric' THEN
        stored := stored || '::numeric';
    END IF;
    closing := ')::' || met;
    IF met = 'timestamp with time zone' THEN
        opening := '(SELECT pgvec._instant(';
        closing := '))';
    END IF;
    RETURN format(template, stored, opening || '$2 #>> ' || place || closing,
                  'ARRAY(SELECT ' || opening || 'e.value' || closing || ' FROM jsonb_array_elements_text($2 #> ' || place || ') e)',
                  opening || '$2 #> ' || place || ' ->> 0' || closing, opening || '$2 #> ' || place || ' ->> 1' || closing);
END $$;
COMMENT ON FUNCTION pgvec._column_condition_sql(text, text, text, text, jsonb, text[]) IS
'A condition on a typed column, which errors call by the name of the field: an index condition wherever the operator allows.';

CREATE OR REPLACE FUNCTION pgvec._metadata_condition_sql(field text, template text, path text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key text := quote_literal(field);
    stored text := '(d.metadata -> ' || key || ')';
    place text := quote_literal(path);
BEGIN
    RETURN format(template, stored, '($2 #> ' || place || ')', 'ARRAY(SELECT jsonb_array_elements($2 #> ' || place || '))',
                  '($2 #> ' || place || ' -> 0)', '($2 #> ' || place || ' -> 1)', key, '($2 #>> ' || place || ')',
                  'CASE jsonb_typeof(' || stored || ') WHEN ''array'' THEN ' || stored || ' ELSE jsonb_build_array(' || stored || ') END');
END $$;
COMMENT ON FUNCTION pgvec._metadata_condition_sql(text, text, text[]) IS
'A condition on a metadata key: values of different JSON types are unequal and unordered, never an error.';
