-- Measuring recall.

CREATE OR REPLACE FUNCTION pgvec.recall(
    collection text,
    k          integer DEFAULT 10,
    queries    integer DEFAULT 100,
    filter     jsonb   DEFAULT NULL,
    space      text    DEFAULT NULL,
    ef_search  integer DEFAULT NULL,
    target     double precision DEFAULT NULL
) RETURNS TABLE (recall double precision, recall_p5 double precision, queries_measured integer, short_results integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted  pgvec.vector_spaces := pgvec._space(collection, space);
    owner   pgvec.collections := pgvec._collection(collection);
    options jsonb;
    query_  text;
    found_sql text;
    exact_sql text;
    sample  record;
    seen    record;
    shares  double precision[] := '{}';
    short   integer := 0;
BEGIN
    IF (k BETWEEN 1 AND 999 AND queries >= 1) IS NOT TRUE THEN
        RAISE EXCEPTION 'k must be from 1 to 999 and queries at least 1' USING ERRCODE = 'PV005';
    END IF;
    -- One beyond k, because each query is a stored vector and finds itself.
    options := pgvec._options(pgvec._relation(owner.schema_name, owner.table_name),
                              jsonb_build_object('k', k, 'ef_search', ef_search, 'filter', filter, 'recall', target));
    IF wanted.type = 'vector[]' THEN
        RAISE EXCEPTION 'vector space % is for rescoring: no search has it alone', quote_literal(wanted.name) USING ERRCODE = 'PV005';
    END IF;
    query_    := format('($1::%s)', pgvec._embedding_type(wanted.type, wanted.dimensions));
    found_sql := pgvec._nearest_sql(owner, wanted, options, k, 1, query_);
    exact_sql := pgvec._nearest_sql(owner, wanted, options || '{"exact": true}', k, 1, query_);
    -- As text: the plan of USING is kept for the session, and so for spaces of other types.
    FOR sample IN EXECUTE format('SELECT s.key, s.embedding::text AS embedding FROM (%s) s', pgvec._sample_sql(owner, wanted, queries)) LOOP
        SELECT m.recall, m.short INTO seen FROM pgvec._measured_query(found_sql, exact_sql, sample.embedding, filter, sample.key, k) m;
        CONTINUE WHEN seen.recall IS NULL;
        shares := shares || seen.recall;
        short := short + seen.short::integer;
    END LOOP;
    RETURN QUERY SELECT avg(s), percentile_cont(0.05) WITHIN GROUP (ORDER BY s), count(s)::integer, short FROM unnest(shares) s;
END $$;
COMMENT ON FUNCTION pgvec.recall(text, integer, integer, jsonb, text, integer, double precision) IS
'Recall@k that searches get now: stored vectors, drawn at random, searched through the index and exactly, themselves left out.
recall: mean; recall_p5: what all but the worst 5 % of queries reach; short_results: searches that returned fewer rows than exist.
ef_search: with this setting; target: of searches that ask for this recall.
Example: SELECT * FROM pgvec.recall(''docs'');';

CREATE OR REPLACE FUNCTION pgvec._sample_sql(owner pgvec.collections, wanted pgvec.vector_spaces, queries integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Pages enough for about 50 times the sample, and about 50 of them, or chance might take none; then a fair draw among their rows.
    SELECT format('SELECT v.key::bigint, v.embedding FROM %s v ORDER BY random() LIMIT %s', pgvec._vectors_sql(owner, wanted, format('TABLESAMPLE SYSTEM (%s)',
                  least(100, greatest(5000.0 * queries / greatest(c.reltuples, 1), 5000.0 / greatest(c.relpages, 1))))), queries)
    FROM pg_class c WHERE c.oid = pgvec._relation(owner.schema_name, wanted.table_name)
$$;
COMMENT ON FUNCTION pgvec._sample_sql(pgvec.collections, pgvec.vector_spaces, integer) IS 'A statement that draws stored vectors at random.';
