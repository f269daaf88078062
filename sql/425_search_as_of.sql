-- Search in what a collection was.

CREATE OR REPLACE FUNCTION pgvec.search_as_of(
    collection text,
    query      anycompatible,
    as_of      timestamptz,
    k          integer DEFAULT 10,
    filter     jsonb   DEFAULT NULL,
    space      text    DEFAULT NULL,
    where_sql  text    DEFAULT NULL,
    parameters jsonb   DEFAULT NULL
) RETURNS TABLE (id text, document_id text, text text, metadata jsonb, distance double precision, similarity double precision,
                 score double precision, rank integer, stopped_by text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner      pgvec.collections := pgvec._collection(collection);
    wanted     pgvec.vector_spaces := pgvec._searched_space(collection, space);
    chunks     regclass := pgvec._relation(owner.schema_name, owner.table_name);
    options    jsonb := pgvec._options(chunks, jsonb_build_object('k', k, 'filter', filter, 'where_sql', where_sql));
    similarity text := format((pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).similarity, 'n.distance');
BEGIN
    PERFORM pgvec._check_as_of(owner, as_of);
    RETURN QUERY EXECUTE format($sql$
        SELECT n.id, n.document_id, n.text, n.metadata, n.distance, %1$s, %1$s, (row_number() OVER (ORDER BY n.distance, n.key))::integer,
               CASE WHEN count(*) OVER () = %2$s THEN 'k' ELSE 'complete' END
        FROM (SELECT d.key, d.id, d.document_id, d.text, %3$s AS metadata, %4$s AS distance
              FROM %5$s d JOIN %6$s v ON v.key = d.key WHERE %7$s ORDER BY distance, d.key LIMIT %2$s) n
        ORDER BY n.distance, n.key$sql$,
        similarity, k, pgvec._metadata_sql(chunks), pgvec._distance_sql(wanted, pgvec._query_sql(wanted, query)),
        pgvec._as_of_sql(owner.schema_name, owner.table_name, 'chunk', '$4'), pgvec._as_of_sql(owner.schema_name, wanted.table_name, 'embedding', '$4'),
        coalesce(pgvec._predicate_sql(chunks, options), 'true'))
        USING query, filter, parameters, as_of;
END $$;
COMMENT ON FUNCTION pgvec.search_as_of(text, anycompatible, timestamptz, integer, jsonb, text, text, jsonb) IS
'The k nearest chunks as they were at a time, of a collection that has a history (pgvec.create_history): exact, all rows are compared. Filters are
those of pgvec.search, and apply to the chunks as they were.
Example: SELECT id, similarity FROM pgvec.search_as_of(''docs'', ''[...]'', now() - interval ''1 day'', k => 3);';
