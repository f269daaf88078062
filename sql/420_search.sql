-- Search: the nearest rows, joined with what they say, in the shape that was asked for.

CREATE OR REPLACE FUNCTION pgvec._options(chunks regclass, options jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given jsonb := CASE WHEN options -> 'recall' = '1' THEN '{"exact": true}' ELSE '{}'::jsonb END || jsonb_strip_nulls(options - 'filter')
                   || CASE WHEN options -> 'filter' <> 'null' THEN jsonb_build_object('filter', options -> 'filter') ELSE '{}' END;
    bounds record;
BEGIN
    FOR bounds IN SELECT * FROM (VALUES ('k', 1, 10000), ('ef_search', 1, 1000000), ('oversampling', 1, 1000), ('group_size', 1, 1000), ('candidates', 1, 10000),
                                        ('diversity', 0, 1), ('recall', 0, 1)) AS b (name, least, most) LOOP
        IF (given ->> bounds.name)::double precision NOT BETWEEN bounds.least AND bounds.most OR NOT given ? 'k' THEN
            RAISE EXCEPTION '% must be from % to %, not %', bounds.name, bounds.least, bounds.most, coalesce(given ->> bounds.name, 'NULL')
                USING ERRCODE = 'PV005';
        END IF;
    END LOOP;
    IF 'NaN' IN (given ->> 'within', given ->> 'min_similarity') THEN
        RAISE EXCEPTION 'a threshold is a number, not NaN' USING ERRCODE = 'PV005';
    ELSIF given ? 'within' AND given ? 'min_similarity' THEN
        RAISE EXCEPTION 'within and min_similarity are two ways to say the same: give one' USING ERRCODE = 'PV005';
    ELSIF given ? 'recall' AND given ? 'ef_search' THEN
        RAISE EXCEPTION 'recall and ef_search both say how well to search: give one' USING ERRCODE = 'PV005', HINT = 'recall takes the ef_search that was tuned for it.';
    ELSIF given ? 'group_size' AND NOT given ? 'group_by' THEN
        RAISE EXCEPTION 'group_size goes with group_by' USING ERRCODE = 'PV005';
    ELSIF given ? 'group_by' AND given ? 'diversity' THEN
        RAISE EXCEPTION 'group_by and diversity cannot be combined' USING ERRCODE = 'PV005', HINT = 'Groups are diverse by themselves.';
    ELSIF given ? 'group_by' AND given ->> 'group_by' NOT IN ('document', 'document_id') AND NOT EXISTS (
            SELECT FROM pgvec._columns(chunks) c WHERE c."column" = given ->> 'group_by' AND c.type <> 'text[]') THEN
        RAISE EXCEPTION 'cannot group by %', quote_literal(given ->> 'group_by')
            USING ERRCODE = 'PV005', HINT = format('By document, or by a typed column: %s. promote() makes a typed column of a metadata key.',
                coalesce((SELECT string_agg(c."column", ', ') FROM pgvec._columns(chunks) c WHERE c.type <> 'text[]'), 'there is none'));
    END IF;
    RETURN given;
END $$;
COMMENT ON FUNCTION pgvec._options(regclass, jsonb) IS 'The options of a search that are given, checked; PV005 says which is wrong.';

CREATE OR REPLACE FUNCTION pgvec._searched_space(collection text, space text) RETURNS pgvec.vector_spaces
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._space(collection, space);
BEGIN
    IF wanted.type = 'vector[]' THEN
        RAISE EXCEPTION 'vector space % holds several vectors a chunk, and no index orders them', quote_literal(wanted.name)
            USING ERRCODE = 'PV005', HINT = 'Search another space and rescore with this one: pgvec.maxsim_search(...).';
    END IF;
    RETURN wanted;
END $$;
COMMENT ON FUNCTION pgvec._searched_space(text, text) IS 'The catalogue row of a space that a search can be in; PV001 if there is none, PV005 if it is for rescoring.';

CREATE OR REPLACE FUNCTION pgvec._metadata_sql(chunks regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Fifty at a time: a function takes 100 arguments. What a jsonb column of somebody else holds need not be an object.
    SELECT concat_ws(' || ', CASE WHEN EXISTS (SELECT FROM pgvec.registered_tables r WHERE r.relation = chunks AND r.metadata_column IS NOT NULL)
                                  THEN 'CASE WHEN jsonb_typeof(d.metadata) = ''object'' THEN d.metadata ELSE ''{}'' END' ELSE 'd.metadata' END,
                     string_agg(part.pairs, ' || '))
    FROM (SELECT format('jsonb_strip_nulls(jsonb_build_object(%s))', string_agg(format('%L, d.%I', c."column", c."column"), ', ')) AS pairs
          FROM pgvec._columns(chunks) WITH ORDINALITY AS c ("column", type, position)
          WHERE c."column" NOT IN (SELECT pgvec._promoted(chunks)) GROUP BY (c.position - 1) / 50) part
$$;
COMMENT ON FUNCTION pgvec._metadata_sql(regclass) IS 'The expression for what a hit shows as its metadata: typed columns and all else.';

CREATE OR REPLACE FUNCTION pgvec._shaped_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, query text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k         integer := options -> 'k';
    threshold text := CASE WHEN options ? 'within' THEN ' WHERE n.distance <= $5::double precision' WHEN options ? 'min_similarity'
        THEN format(' WHERE %s >= $5::double precision', format((pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).similarity, 'n.distance')) ELSE '' END;
BEGIN
    IF options ? 'group_by' THEN
        RETURN pgvec._grouped_sql(owner, wanted, options, query, threshold);
    ELSIF options ? 'diversity' THEN
        RETURN pgvec._diverse_sql(owner, wanted, options, query, threshold);
    ELSIF options ? 'maxsim_space' THEN
        RETURN pgvec._maxsim_sql(owner, wanted, options, query, threshold);
    END IF;
    RETURN format(E'nearest AS MATERIALIZED (%s\n), shaped AS (\n  SELECT n.key, n.distance, n.exact, NULL::double precision AS score, '
                  'NULL::integer AS place FROM nearest n%s\n)', pgvec._nearest_sql(owner, wanted, options, k, 0, query), threshold);
END $$;
COMMENT ON FUNCTION pgvec._shaped_sql(pgvec.collections, pgvec.vector_spaces, jsonb, text) IS
'Common table expressions, the last of which is shaped (key, distance, exact, score, place): score and place only where they are not what
the distance says. The threshold lies outside the scan: inside, one that nothing reaches would let it go on and on.';

CREATE OR REPLACE FUNCTION pgvec._search_sql(owner pgvec.collections, wanted pgvec.vector_spaces, query text, options jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    similarity text := format((pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).similarity, 'n.distance');
    shaped     boolean := options ?| '{group_by,diversity,maxsim_space}';
BEGIN
    RETURN format($sql$WITH %1$s
SELECT d.id, d.document_id, d.text, %2$s AS metadata, n.distance, %3$s AS similarity, %4$s AS score, %5$s AS rank,
       CASE WHEN %6$s >= %7$s THEN 'k' WHEN bool_and(n.exact) OVER () THEN 'complete' ELSE 'threshold' END AS stopped_by
FROM shaped n JOIN %8$s d ON d.key = n.key
ORDER BY %9$s n.distance, n.key$sql$,
        pgvec._shaped_sql(owner, wanted, options, query),
        pgvec._metadata_sql(pgvec._relation(owner.schema_name, owner.table_name)), similarity,
        CASE WHEN options ?| '{diversity,maxsim_space}' THEN 'n.score' ELSE similarity END,
        CASE WHEN shaped THEN 'n.place' ELSE '(row_number() OVER (ORDER BY n.distance, n.key))::integer' END,
        CASE WHEN shaped THEN 'max(n.place) OVER ()' ELSE 'count(*) OVER ()' END,
        options -> 'k', pgvec._chunks_sql(owner), CASE WHEN shaped THEN 'n.place,' END);
END $$;
COMMENT ON FUNCTION pgvec._search_sql(pgvec.collections, pgvec.vector_spaces, text, jsonb) IS 'The text of a search with checked options.';

CREATE OR REPLACE FUNCTION pgvec.search_sql(
    collection     text,
    k              integer          DEFAULT 10,
    filter         jsonb            DEFAULT NULL,
    space          text             DEFAULT NULL,
    ef_search      integer          DEFAULT NULL,
    exact          boolean          DEFAULT false,
    oversampling   double precision DEFAULT NULL,
    where_sql      text             DEFAULT NULL,
    exclude        text[]           DEFAULT NULL,
    within         double precision DEFAULT NULL,
    min_similarity double precision DEFAULT NULL,
    group_by       text             DEFAULT NULL,
    group_size     integer          DEFAULT NULL,
    diversity      double precision DEFAULT NULL,
    query          text             DEFAULT '$1',
    recall         double precision DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
BEGIN
    RETURN pgvec._search_sql(owner, pgvec._searched_space(collection, space), query, pgvec._options(pgvec._relation(owner.schema_name, owner.table_name),
        jsonb_build_object('k', k, 'filter', filter, 'ef_search', ef_search, 'exact', nullif(exact, false), 'oversampling', oversampling,
                           'where_sql', where_sql, 'exclude', CASE WHEN exclude IS NOT NULL THEN true END, 'within', within,
                           'min_similarity', min_similarity, 'group_by', group_by, 'group_size', group_size, 'diversity', diversity,
                           'recall', recall)));
END $$;
COMMENT ON FUNCTION pgvec.search_sql(text, integer, jsonb, text, integer, boolean, double precision, text, text[], double precision,
                                     double precision, text, integer, double precision, text, double precision) IS
'The text of the statement that pgvec.search runs, for PREPARE or for reading. Parameters: $1 the query, in the type of the space; $2 the
filter (jsonb): any of the same shape, that is, with the same fields and operators and the same JSON types of values; $3 the values of
where_sql (jsonb); $4 the ids to leave out (text[]); $5 the threshold. Of exclude, within and min_similarity it matters here only
whether they are given. query: another expression for the query than $1.
Example: SELECT pgvec.search_sql(''docs'', k => 3, filter => ''{"year": {"$gte": 2020}}'');';

CREATE OR REPLACE FUNCTION pgvec._query_sql(wanted pgvec.vector_spaces, query anyelement, parameter text DEFAULT '$1') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type_   text := CASE wanted.type WHEN 'bit' THEN 'bit varying' ELSE regexp_replace(pgvec._embedding_type(wanted.type, wanted.dimensions), '\(\d+\)', '') END;
    -- Under cosine a vector without direction is at the distance NaN from everything, itself included.
    lost_   text := CASE WHEN wanted.distance = 'cosine' AND wanted.type <> 'vector[]'
                         THEN format('($1::%1$s %2$s $1::%1$s) = ''NaN''', type_, (pgvec._distance('cosine', wanted.type, wanted.dimensions)).operator) ELSE 'false' END;
    length_ text := CASE wanted.type WHEN 'bit' THEN 'length($1::bit varying)' WHEN 'sparsevec' THEN format('split_part(($1::%s)::text, ''/'', 2)::integer', type_)
                                     WHEN 'vector[]' THEN format('%I.vector_dims(($1::%s)[1])', pgvec._vector_schema(), type_)
                                     ELSE format('%I.vector_dims($1::%s)', pgvec._vector_schema(), type_) END;
    found   integer;
    lost    boolean;
BEGIN
    IF query IS NULL THEN
        RAISE EXCEPTION 'the query is NULL' USING ERRCODE = 'PV005', HINT = 'If it comes from a subquery, that found no row.';
    END IF;
    BEGIN
        EXECUTE format('SELECT %s, %s', length_, lost_) INTO found, lost USING query;
    EXCEPTION WHEN cannot_coerce OR data_exception OR syntax_error THEN
        RAISE EXCEPTION 'the query cannot be read as a %: %', wanted.type, SQLERRM
            USING ERRCODE = 'PV005', HINT = format('Give a %s, or its text, as ''%s''.', wanted.type, CASE wanted.type
                WHEN 'bit' THEN '0101…' WHEN 'sparsevec' THEN format('{1:0.5,7:0.25}/%s', wanted.dimensions) WHEN 'vector[]' THEN '{"[0.1,0.2,…]","[…]"}' ELSE '[0.1,0.2,…]' END);
    END;
    IF found IS DISTINCT FROM wanted.dimensions THEN
        RAISE EXCEPTION '%', format('the query has %s dimensions, vector space %L has %s%s', coalesce(found::text, 'no'), wanted.name, wanted.dimensions,
            (SELECT ': it holds vectors of ' || m.name FROM pgvec.models m WHERE m.id = wanted.model_id)) USING ERRCODE = 'PV005';
    END IF;
    IF lost THEN
        RAISE EXCEPTION 'the query is zero: it has no direction to compare' USING ERRCODE = 'PV005';
    END IF;
    -- In the type of the space: an implicit cast of the column would keep its index from being used.
    RETURN CASE WHEN format_type(pg_typeof(query), NULL) = type_ THEN parameter ELSE format('(%s::%s)', parameter, type_) END;
END $$;
COMMENT ON FUNCTION pgvec._query_sql(pgvec.vector_spaces, anyelement, text) IS
'The expression by which a query, whatever its type, becomes one of the type of the space; PV005 if it cannot.';

CREATE OR REPLACE FUNCTION pgvec.search(
    collection     text,
    query          anycompatible,
    k              integer          DEFAULT 10,
    filter         jsonb            DEFAULT NULL,
    space          text             DEFAULT NULL,
    ef_search      integer          DEFAULT NULL,
    exact          boolean          DEFAULT false,
    oversampling   double precision DEFAULT NULL,
    where_sql      text             DEFAULT NULL,
    parameters     jsonb            DEFAULT NULL,
    exclude        text[]           DEFAULT NULL,
    within         double precision DEFAULT NULL,
    min_similarity double precision DEFAULT NULL,
    group_by       text             DEFAULT NULL,
    group_size     integer          DEFAULT NULL,
    diversity      double precision DEFAULT NULL,
    recall         double precision DEFAULT NULL
) RETURNS TABLE (id text, document_id text, text text, metadata jsonb, distance double precision, similarity double precision,
                 score double precision, rank integer, stopped_by text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._searched_space(collection, space);
BEGIN
    RETURN QUERY EXECUTE pgvec.search_sql(collection, k, filter, space, ef_search, exact, oversampling, where_sql, exclude, within, min_similarity,
                                          group_by, group_size, diversity, pgvec._query_sql(wanted, query), recall)
        USING query, filter, parameters, exclude, coalesce(within, min_similarity);
    PERFORM pgvec._log_search(wanted, query, k, filter, where_sql, exact OR recall = 1);
END $$;
COMMENT ON FUNCTION pgvec.search(text, anycompatible, integer, jsonb, text, integer, boolean, double precision, text, jsonb, text[],
                                 double precision, double precision, text, integer, double precision, double precision) IS
'The k nearest chunks to a query vector, nearest first, with the recall that pgvec tune promised. It never starves: k rows come back if k match.
query: a vector of the space''s type, or its text. filter: {"section": "security", "year": {"$gte": 2020}} with $eq $ne $gt $gte $lt
$lte $in $nin $between $exists $like $ilike $contains $any $all $and $or $not; fields are the typed columns, id, document_id, position, text,
and any metadata key. where_sql: a condition in SQL on the chunk table d, with values as ($3 ->> ''name'') from parameters.
exclude: ids to leave out, so pages go on without skip or repeat. within, min_similarity: a threshold. group_by: document or a typed column:
k groups, group_size chunks of each, all with the rank of their group. diversity: 0 to 1, by maximal marginal relevance.
recall: another target than the default one, of those that pgvec tune has tuned for (pgvec.profiles); 1 is exact. ef_search, oversampling:
instead of the tuned ones (probes, for IVFFlat); exact: no index.
distance: straight from the operator, smaller is nearer; similarity: bigger is nearer; score: what the rows are ranked by. stopped_by:
k (as many as asked for), complete (no more match), threshold (the index found no more within it; exact => true proves it).
Example: SELECT id, similarity FROM pgvec.search(''docs'', ''[...]'', k => 3, filter => ''{"section": "security"}'');';

CREATE OR REPLACE FUNCTION pgvec.search_many(
    collection     text,
    queries        anycompatiblearray,
    k              integer          DEFAULT 10,
    filter         jsonb            DEFAULT NULL,
    space          text             DEFAULT NULL,
    ef_search      integer          DEFAULT NULL,
    exact          boolean          DEFAULT false,
    oversampling   double precision DEFAULT NULL,
    where_sql      text             DEFAULT NULL,
    parameters     jsonb            DEFAULT NULL,
    exclude        text[]           DEFAULT NULL,
    within         double precision DEFAULT NULL,
    min_similarity double precision DEFAULT NULL,
    group_by       text             DEFAULT NULL,
    group_size     integer          DEFAULT NULL,
    diversity      double precision DEFAULT NULL,
    recall         double precision DEFAULT NULL
) RETURNS TABLE (query integer, id text, document_id text, text text, metadata jsonb, distance double precision, similarity double precision,
                 score double precision, rank integer, stopped_by text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._searched_space(collection, space);
    cast_  text;
BEGIN
    IF array_ndims(queries) > 1 THEN
        RAISE EXCEPTION 'queries is an array of vectors, not of numbers' USING ERRCODE = 'PV005', HINT = 'As ARRAY[''[1,0]'', ''[0,1]''].';
    END IF;
    FOR query IN 1 .. coalesce(cardinality(queries), 0) LOOP
        cast_ := pgvec._query_sql(wanted, queries[query], 'q.query');
    END LOOP;
    IF cast_ IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT q.position::integer, h.* FROM (SELECT %s AS query, q.position FROM unnest($1) WITH ORDINALITY q (query, position) OFFSET 0) q '
        'CROSS JOIN LATERAL (%s) h ORDER BY q.position, h.rank, h.distance', cast_,
        pgvec.search_sql(collection, k, filter, space, ef_search, exact, oversampling, where_sql, exclude, within, min_similarity,
                         group_by, group_size, diversity, 'q.query', recall))
        USING queries, filter, parameters, exclude, coalesce(within, min_similarity);
    PERFORM pgvec._log_search(wanted, q.query, k, filter, where_sql, exact OR recall = 1) FROM unnest(queries) q (query);
END $$;
COMMENT ON FUNCTION pgvec.search_many(text, anycompatiblearray, integer, jsonb, text, integer, boolean, double precision, text, jsonb, text[],
                                      double precision, double precision, text, integer, double precision, double precision) IS
'Several searches in one round trip. query: which of them, counted from 1; all else as in pgvec.search.
Example: SELECT query, rank, id FROM pgvec.search_many(''docs'', ARRAY[''[...]'', ''[...]''], k => 3);';
