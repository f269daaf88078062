-- Late interaction: a chunk has a vector for each token, and is as near as its tokens are to those of the query.

CREATE OR REPLACE FUNCTION pgvec.maxsim(query vector[], document vector[], cosine boolean DEFAULT false) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
RETURN (SELECT sum(best.similarity)
        FROM (SELECT max(nullif(CASE WHEN cosine THEN 1 - (q.token <=> d.token) ELSE -(q.token <#> d.token) END, 'NaN')) AS similarity
              FROM unnest(query) WITH ORDINALITY AS q (token, position) CROSS JOIN unnest(document) AS d (token) GROUP BY q.position) AS best);
COMMENT ON FUNCTION pgvec.maxsim(vector[], vector[], boolean) IS
'Late interaction (Khattab and Zaharia, 2020): for each vector of the query its largest similarity to one of the document, summed. Similarity
is the inner product, which of vectors of length 1 is the cosine; cosine => true is for others.
Example: SELECT pgvec.maxsim(''{"[1,0]","[0,1]"}'', ''{"[1,0]","[0.6,0.8]"}'');';

CREATE OR REPLACE FUNCTION pgvec._maxsim_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, query text, threshold text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tokens pgvec.vector_spaces := pgvec._space(owner.name, options ->> 'maxsim_space');
BEGIN
    RETURN format($sql$nearest AS MATERIALIZED (%1$s
), rescored AS MATERIALIZED (
  SELECT n.key, n.distance, n.exact, pgvec.maxsim($6, t.embedding, %2$s) AS score
  FROM nearest n LEFT JOIN %3$s t ON t.key = n.key%4$s
), shaped AS (
  SELECT r.*, (row_number() OVER (ORDER BY r.score DESC NULLS LAST, r.distance, r.key))::integer AS place
  FROM rescored r ORDER BY place LIMIT %5$s
)$sql$, pgvec._nearest_sql(owner, wanted, options, greatest((options -> 'candidates')::integer, (options -> 'k')::integer), 0, query),
        (tokens.distance = 'cosine')::text, pgvec._vectors_sql(owner, tokens), threshold, options -> 'k');
END $$;
COMMENT ON FUNCTION pgvec._maxsim_sql(pgvec.collections, pgvec.vector_spaces, jsonb, text, text) IS
'Candidates of one space, ordered by the many vectors ($6: those of the query) of another; chunks without any come last.';

CREATE OR REPLACE FUNCTION pgvec.maxsim_search(
    collection  text,
    query       anycompatible,
    tokens      vector[],
    space       text,
    k           integer DEFAULT 10,
    filter      jsonb   DEFAULT NULL,
    candidates  integer DEFAULT NULL,
    first_space text    DEFAULT NULL,
    where_sql   text    DEFAULT NULL,
    parameters  jsonb   DEFAULT NULL
) RETURNS TABLE (id text, document_id text, text text, metadata jsonb, distance double precision, similarity double precision,
                 score double precision, rank integer, stopped_by text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  pgvec.collections := pgvec._collection(collection);
    wanted pgvec.vector_spaces := pgvec._searched_space(collection, first_space);
    scored pgvec.vector_spaces := pgvec._space(collection, space);
BEGIN
    IF scored.type <> 'vector[]' THEN
        RAISE EXCEPTION 'vector space % is of type %: maxsim needs one of type vector[]', quote_literal(scored.name), scored.type
            USING ERRCODE = 'PV005', HINT = 'Add one with pgvec.add_space(collection, name, dimensions, type => ''vector[]'').';
    END IF;
    PERFORM pgvec._query_sql(scored, tokens);
    IF EXISTS (SELECT FROM unnest(tokens) t (token) WHERE t.token IS NULL OR cardinality(string_to_array(t.token::text, ',')) <> scored.dimensions) THEN
        RAISE EXCEPTION 'all vectors of tokens need % dimensions', scored.dimensions USING ERRCODE = 'PV005';
    END IF;
    RETURN QUERY EXECUTE pgvec._search_sql(owner, wanted, pgvec._query_sql(wanted, query), pgvec._options(pgvec._relation(owner.schema_name, owner.table_name),
            jsonb_build_object('k', k, 'filter', filter, 'where_sql', where_sql, 'maxsim_space', space,
                               'candidates', coalesce(candidates, least(10000, greatest(100, 10 * k))))))
        USING query, filter, parameters, NULL::text[], NULL::double precision, tokens;
END $$;
COMMENT ON FUNCTION pgvec.maxsim_search(text, anycompatible, vector[], text, integer, jsonb, integer, text, text, jsonb) IS
'Search in two stages: candidates (ten times k, at least 100) are found by one vector in first_space, then ordered by late interaction: score is
pgvec.maxsim of tokens, the query''s vectors, and the chunk''s in space, which is of type vector[]. Chunks without such vectors come last.
distance and similarity are those of the first stage. All else as in pgvec.search.
Example: SELECT id, score FROM pgvec.maxsim_search(''docs'', ''[...]'', tokens => ''{"[...]","[...]"}'', space => ''tokens'', k => 3);';
