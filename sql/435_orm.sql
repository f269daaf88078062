-- Searches from statements of others: of SQLAlchemy's, over tables that are registered as collections.

CREATE OR REPLACE FUNCTION pgvec._space_of(relation regclass, "column" name) RETURNS pgvec.vector_spaces
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found pgvec.vector_spaces;
BEGIN
    SELECT n.* INTO found
    FROM pgvec.registered_tables r JOIN pgvec.vector_spaces s ON s.collection_id = r.collection_id CROSS JOIN LATERAL pgvec._current_space(s) n
    WHERE r.relation = _space_of.relation AND n.embedding_column = "column" ORDER BY n.is_default DESC, n.id LIMIT 1;
    RETURN found;
END $$;
COMMENT ON FUNCTION pgvec._space_of(regclass, name) IS 'The vector space that is a column of a registered table; NULL if there is none.';

CREATE OR REPLACE FUNCTION pgvec._mapped(relation regclass, "column" name)
RETURNS TABLE (collection text, key text, distance text, model text, details jsonb, fingerprint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._space_of(relation, "column");
BEGIN
    RETURN QUERY
    SELECT c.name, (pgvec._registered(c.id)).key_column::text, wanted.distance, m.name, m.details, m.fingerprint
    FROM pgvec.collections c LEFT JOIN pgvec.models m ON m.id = wanted.model_id WHERE c.id = wanted.collection_id;
END $$;
COMMENT ON FUNCTION pgvec._mapped(regclass, name) IS 'What a vector column of a mapped table is known as; no row if it is not registered.';

CREATE OR REPLACE FUNCTION pgvec._is_found_by_index(relation regclass, statement text, path text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    plan jsonb;
BEGIN
    -- The statement means what it means to its author. The function's own path is back when it ends.
    PERFORM set_config('search_path', path, true);
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || statement INTO plan;
    RETURN NOT jsonb_path_exists(plan, '$.** ? (@."Relation Name" == $name && (@."Node Type" == "Seq Scan"
                                        || @."Node Type" like_regex "^Index" && !exists(@."Index Cond")))',
                                 jsonb_build_object('name', (SELECT c.relname FROM pg_catalog.pg_class c WHERE c.oid = relation)));
END $$;
COMMENT ON FUNCTION pgvec._is_found_by_index(regclass, text, text) IS
'Whether indexes find the rows of a table that a statement, written for some search_path, is about, or whether all have to be read: the planner knows.';

CREATE OR REPLACE FUNCTION pgvec._mapped_sql(relation regclass, "column" name, k integer, beyond integer, keys text, path text,
                                             recall double precision, ef_search integer) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted  pgvec.vector_spaces := pgvec._space_of(relation, "column");
    owner   pgvec.collections := pgvec._collection((SELECT c.name FROM pgvec.collections c WHERE c.id = wanted.collection_id));
    options jsonb := pgvec._options(relation, jsonb_build_object('k', k, 'recall', recall, 'ef_search', ef_search));
    -- In the type of the space, whatever the driver says of it.
    query   text := format(E'(\x01query\x01::%s)', CASE wanted.type WHEN 'bit' THEN 'bit varying'
                                                      ELSE regexp_replace(pgvec._embedding_type(wanted.type, wanted.dimensions), '\(\d+\)', '') END);
BEGIN
    IF pgvec._target(owner, wanted, options, k, beyond) IS NULL THEN
        RETURN NULL;
    ELSIF keys IS NOT NULL THEN
        options := options || jsonb_build_object('matches', E'\x01matches\x01', 'keys', E'\x01keys\x01',
                                                 'indexed', pgvec._is_found_by_index(relation, keys, path));
    ELSIF (SELECT c.relrowsecurity FROM pg_class c WHERE c.oid = relation) THEN
        -- Whoever runs the statement may be another one than who asks for it.
        options := options || '{"where_sql": "true"}';
    END IF;
    RETURN pgvec._nearest_sql(owner, wanted, options, k, beyond, query);
END $$;
COMMENT ON FUNCTION pgvec._mapped_sql(regclass, name, integer, integer, text, text, double precision, integer) IS
'The statement of pgvec._nearest_sql over a registered table, to be a part of a larger one; NULL if there is no index. Between two characters U+0001
stand the names of what is filled in: query; matches, a condition on the key of d; and keys, a statement that returns the keys of matching rows. The one
given is an example of it, with values, written for the search_path path; NULL: there are no conditions.';

CREATE OR REPLACE FUNCTION pgvec._mapped_hybrid(relation regclass, "column" name, query_text text, query text, k integer, fusion text, weights jsonb,
                                                depth integer, recall double precision, where_sql text)
RETURNS TABLE (key bigint, score double precision, rank integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    wanted pgvec.vector_spaces := pgvec._space_of(relation, "column");
    owner  pgvec.collections;
    hits   jsonb;
BEGIN
    IF wanted.id IS NULL THEN
        RAISE EXCEPTION 'column % of table % is not registered', quote_literal("column"), coalesce(relation::text, 'NULL')
            USING ERRCODE = 'PV001', HINT = 'Register it: orm.register(session, Model), or pgvec.register_table(…); and run the statement by a Session.';
    END IF;
    owner := pgvec._collection((SELECT c.name FROM pgvec.collections c WHERE c.id = wanted.collection_id));
    SELECT jsonb_object_agg(h.id, jsonb_build_array(h.score, h.rank)) INTO hits
    FROM pgvec.hybrid_search(owner.name, query_text => query_text, k => k, queries => CASE WHEN query IS NOT NULL THEN jsonb_build_object(wanted.name, query) END,
                             fusion => fusion, weights => weights, depth => depth, recall => recall, where_sql => where_sql) h;
    RETURN QUERY EXECUTE format('SELECT d.key::bigint, ($2 -> d.id ->> 0)::double precision, ($2 -> d.id ->> 1)::integer FROM %s d WHERE %s',
                                pgvec._chunks_sql(owner), pgvec._ids_sql(owner, '$1'))
        USING ARRAY(SELECT jsonb_object_keys(hits)), hits;
END $$;
COMMENT ON FUNCTION pgvec._mapped_hybrid(regclass, name, text, text, integer, text, jsonb, integer, double precision, text) IS
'The hits of pgvec.hybrid_search in the collection that a table is registered as, by their keys; PV001 if it is not.';
