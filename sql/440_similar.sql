-- More like this: stored chunks as examples of what is wanted, and of what is not.

CREATE OR REPLACE FUNCTION pgvec._example_sql(owner pgvec.collections, wanted pgvec.vector_spaces, several boolean, unlike boolean) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    vector_schema text := quote_ident(pgvec._vector_schema());
    -- Directions are averaged, where only they count.
    each     text := CASE wanted.distance WHEN 'cosine' THEN format('%s.l2_normalize(v.embedding)', vector_schema) ELSE 'v.embedding' END;
    examples text := format(' FROM %s d JOIN %s v ON v.key = d.key WHERE ', pgvec._chunks_sql(owner), pgvec._vectors_sql(owner, wanted));
    alike    text := examples || pgvec._ids_sql(owner, '$1');
    average  text := format('%s.avg(%s)', vector_schema, each);
BEGIN
    IF NOT several AND NOT unlike THEN
        RETURN 'SELECT v.embedding::text' || alike;
    ELSIF wanted.type NOT IN ('vector', 'halfvec') THEN
        RAISE EXCEPTION 'vectors of type % cannot be averaged', wanted.type
            USING ERRCODE = 'PV005', HINT = 'Give one example, and none that is unlike what is wanted.';
    ELSIF NOT unlike THEN
        RETURN 'SELECT ' || average || '::text' || alike;
    END IF;
    RETURN format('SELECT (l.mean OPERATOR(%1$s.+) (l.mean OPERATOR(%1$s.-) u.mean))::text FROM (%2$s) l, (%3$s) u', vector_schema,
                  'SELECT ' || average || ' AS mean' || alike, 'SELECT ' || average || ' AS mean' || examples || pgvec._ids_sql(owner, '$2'));
END $$;
COMMENT ON FUNCTION pgvec._example_sql(pgvec.collections, pgvec.vector_spaces, boolean, boolean) IS
'A query vector, as text, from examples: their mean, moved away from the mean of the counter-examples by as much as the two differ.';

CREATE OR REPLACE FUNCTION pgvec.similar(
    collection     text,
    ids            text[],
    unlike         text[]           DEFAULT '{}',
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
    owner    pgvec.collections := pgvec._collection(collection);
    wanted   pgvec.vector_spaces := pgvec._searched_space(collection, space);
    examples text[] := ids || unlike;
    missing  text;
    query    text;
BEGIN
    IF coalesce(cardinality(ids), 0) = 0 THEN
        RAISE EXCEPTION 'similar needs the id of at least one chunk' USING ERRCODE = 'PV005';
    END IF;
    EXECUTE format('SELECT e.id FROM unnest($1) e (id) WHERE NOT EXISTS (SELECT FROM %s d JOIN %s v ON v.key = d.key WHERE %s AND d.id = e.id) LIMIT 1',
                   pgvec._chunks_sql(owner), pgvec._vectors_sql(owner, wanted), pgvec._ids_sql(owner, '$1')) INTO missing USING examples;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'collection % has no chunk % in vector space %', quote_literal(collection), quote_literal(missing), quote_literal(wanted.name)
            USING ERRCODE = 'PV005', HINT = 'Ids are those of chunks, as searches return them.';
    END IF;
    EXECUTE pgvec._example_sql(owner, wanted, cardinality(ids) > 1, coalesce(cardinality(unlike), 0) > 0) INTO query USING ids, unlike;
    RETURN QUERY SELECT * FROM pgvec.search(collection, query, k, filter, space, ef_search, exact, oversampling, where_sql, parameters,
                                            exclude || examples, within, min_similarity, group_by, group_size, diversity, recall);
END $$;
COMMENT ON FUNCTION pgvec.similar(text, text[], text[], integer, jsonb, text, integer, boolean, double precision, text, jsonb, text[],
                                  double precision, double precision, text, integer, double precision, double precision) IS
'More like these: the chunks nearest to the mean of the examples ids, and away from the counter-examples unlike; without the examples
themselves. All else as in pgvec.search.
Example: SELECT id, similarity FROM pgvec.similar(''docs'', ARRAY[''guide.md#0''], k => 3);';
