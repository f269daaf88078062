-- Which rows a search is about: those that match its filter, less those that it leaves out.

CREATE OR REPLACE FUNCTION pgvec._predicate_sql(chunks regclass, options jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN nullif(concat_ws(' AND ', options ->> 'matches',
        CASE WHEN options ? 'filter' THEN nullif(pgvec._filter_sql(chunks, options -> 'filter'), 'true') END,
        -- The line feed ends what might be a comment at the end of it.
        '(' || (options ->> 'where_sql') || E'\n)',
        -- A policy filters as well: a scan that knows nothing of it would starve.
        CASE WHEN row_security_active(chunks) THEN 'true' END), '');
END $$;
COMMENT ON FUNCTION pgvec._predicate_sql(regclass, jsonb) IS
'What rows of the chunk table d must fulfil, the filter and where_sql, or what pgvec._mapped_sql leaves to others; NULL if nothing.';

CREATE OR REPLACE FUNCTION pgvec._excluded_sql(owner pgvec.collections, options jsonb, alias text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN (options -> 'exclude')::boolean
                THEN format('%s.key NOT IN (SELECT d.key FROM %s d WHERE %s)', alias, pgvec._chunks_sql(owner), pgvec._ids_sql(owner, '$4::text[]')) ELSE 'true' END
$$;
COMMENT ON FUNCTION pgvec._excluded_sql(pgvec.collections, jsonb, text) IS 'The condition that leaves out the ids of $4.';

CREATE OR REPLACE FUNCTION pgvec._matching(statement text, filter jsonb, parameters jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE statement USING NULL::text, filter, parameters;
END $$;
COMMENT ON FUNCTION pgvec._matching(text, jsonb, jsonb) IS
'Keys of matching rows. The statement is planned for the values at hand at each call, which takes 0.1 ms: a plan for any values takes a range for
a third of the table, and an OR of two columns for a reason to read all of it.';

CREATE OR REPLACE FUNCTION pgvec._matching_sql(chunks text, predicate text, options jsonb, most integer) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN options ? 'keys' THEN format('(SELECT m.key FROM (%s) m (key) LIMIT %s)', options ->> 'keys', coalesce(most::text, 'ALL'))
        ELSE format('pgvec._matching(%L, %s, %s)', format('SELECT d.key::bigint FROM %s d WHERE %s%s', chunks, predicate, ' LIMIT ' || most),
                  CASE WHEN options ? 'filter' THEN '$2' ELSE 'NULL' END, CASE WHEN options ? 'where_sql' THEN '$3' ELSE 'NULL' END) END
$$;
COMMENT ON FUNCTION pgvec._matching_sql(text, text, jsonb, integer) IS 'The call that returns the keys of matching rows, of so many at most (NULL: of all).';

CREATE OR REPLACE FUNCTION pgvec._is_indexed(chunks text, predicate text, options jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    plan jsonb;
BEGIN
    -- A subquery for $3, which is not known yet: of NULL itself the planner would make a condition that is never true.
    EXECUTE format('EXPLAIN (FORMAT JSON) SELECT d.key FROM %s d WHERE %s', chunks, regexp_replace(predicate, '\$3\M', '(SELECT NULL::jsonb)', 'g')) INTO plan
        USING NULL::text, options -> 'filter';
    RETURN NOT jsonb_path_exists(plan, '$.** ? (@."Alias" == "d" && (@."Node Type" == "Seq Scan"
                                        || @."Node Type" like_regex "^Index" && !exists(@."Index Cond")))');
END $$;
COMMENT ON FUNCTION pgvec._is_indexed(text, text, jsonb) IS 'Whether an index can find the matching rows, or whether all have to be read: the planner knows.';

CREATE OR REPLACE FUNCTION pgvec._exact_sql(owner pgvec.collections, vectors text, distance text, matches text, options jsonb,
                                            condition text, rows_wanted integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN matches IS NULL
        THEN format('SELECT v.key, %1$s AS distance, true AS exact FROM %2$s v WHERE %3$s AND %4$s ORDER BY (%1$s) + 0 LIMIT %5$s',
                    distance, vectors, condition, pgvec._excluded_sql(owner, options, 'v'), rows_wanted)
        -- The distance of a match must stay a lookup (OFFSET 0), or all vectors would be read.
        ELSE format('SELECT m.key, e.distance, true AS exact FROM %1$s AS m (key) '
                    'CROSS JOIN LATERAL (SELECT %2$s AS distance FROM %3$s v WHERE v.key = m.key OFFSET 0) e '
                    'WHERE %4$s AND %5$s ORDER BY e.distance LIMIT %6$s',
                    matches, distance, vectors, condition, pgvec._excluded_sql(owner, options, 'm'), rows_wanted) END
$$;
COMMENT ON FUNCTION pgvec._exact_sql(pgvec.collections, text, text, text, jsonb, text, integer) IS
'The statement that compares every row, or every match: matches is a relation of keys.';
