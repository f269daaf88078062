-- A canary: whether vector indexes still find what is stored.

CREATE OR REPLACE FUNCTION pgvec.check_indexes(collection text DEFAULT NULL, space text DEFAULT NULL)
RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked integer := CASE WHEN collection IS NOT NULL THEN (pgvec._space(collection, space)).id END;
    index record;
BEGIN
    IF NOT has_table_privilege('pgvec.collections', 'SELECT') OR NOT has_table_privilege('pgvec.vector_spaces', 'SELECT') THEN
        RETURN;
    END IF;
    FOR index IN SELECT i.subject, i.index, s.wanted, s.collection FROM pgvec._all_indexes() i JOIN pgvec._all_spaces() s ON s.space_id = i.space_id
                 WHERE i.usable AND i.place = 1 AND s.readable AND i.rows > 0 AND (asked IS NULL OR i.space_id = asked) LOOP
        subject := index.subject;
        mend := format('REINDEX INDEX CONCURRENTLY %s;', index.index::regclass);
        severity := 'error';
        BEGIN
            finding := pgvec._canary(pgvec._collection(index.collection), index.wanted, index.index);
        EXCEPTION
            WHEN insufficient_privilege OR undefined_table OR undefined_object THEN
                CONTINUE;  -- not ours to read, or dropped by another session meanwhile
            -- What pgvector says of a damaged graph or page is of class XX, what the operating system says of its file 58.
            WHEN OTHERS THEN
                finding := format('a search through it fails: %s (SQLSTATE %s)', SQLERRM, SQLSTATE);
        END;
        IF finding IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec.check_indexes(text, text) IS
'Search a few stored vectors through each vector index (or that of one space): an index that fails at it, or finds none of them, is damaged.
Findings as in pgvec.check_health; no row: all is well. Takes some milliseconds an index, and reads a few of its pages.
Example: SELECT * FROM pgvec.check_indexes();';

CREATE OR REPLACE FUNCTION pgvec._canary(owner pgvec.collections, wanted pgvec.vector_spaces, index oid) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off SET enable_bitmapscan = off
SET enable_indexscan = on SET jit = off SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    relation regclass := pgvec._relation(owner.schema_name, wanted.table_name);
    vectors text := pgvec._vectors_sql(owner, wanted);
    chosen  record;
    query_  text := format('($1::%s)', pgvec._embedding_type(wanted.type, wanted.dimensions));
    near    text;
    search  text;
    plan    jsonb;
    sample  record;
    found   boolean;
    tried   integer := 0;
    missed  integer := 0;
    before  jsonb := jsonb_object_agg(s.name, s.setting) FROM pg_settings s WHERE s.name IN ('hnsw.iterative_scan', 'ivfflat.iterative_scan');
BEGIN
    IF row_security_active(relation) THEN
        RETURN NULL;  -- what a policy hides is not missing
    END IF;
    SELECT i.form, i.dimensions, i.name INTO chosen FROM pgvec._indexes(relation, wanted) i WHERE i.oid = _canary.index;
    -- On to the living, where the nearest are dead rows.
    PERFORM set_config(s.key, 'relaxed_order', true) FROM jsonb_each_text(before) s;
    -- By what the index holds: of many rows with the same signs it may find any.
    near := pgvec._candidate_sql(wanted, chosen.form, chosen.dimensions, query_);
    search := format('SELECT %1$s AS distance FROM %2$s v ORDER BY %1$s LIMIT 40', near, vectors);
    FOR sample IN EXECUTE format('SELECT s.key, s.embedding::text AS embedding FROM (%s) s', pgvec._sample_sql(owner, wanted, 5)) LOOP
        IF plan IS NULL THEN
            EXECUTE 'EXPLAIN (FORMAT JSON) ' || search INTO plan USING sample.embedding;
            IF NOT jsonb_path_exists(plan, '$.** ? (@."Index Name" == $name)', jsonb_build_object('name', chosen.name)) THEN
                -- Of two that would do the planner takes the one that it thinks cheaper: nothing is known of this one.
                RETURN CASE WHEN (SELECT count(*) FROM pgvec._indexes(relation, wanted) i WHERE i.usable) = 1
                            THEN 'the planner does not use it, whatever it costs' END;
            END IF;
        END IF;
        -- A nearest of all is itself, or as near: another may be equal. A vector without a direction is in no index (NaN).
        EXECUTE format('SELECT coalesce((SELECT bool_or(f.distance <= own.distance + 1e-5 * greatest(1, abs(own.distance))) FROM (%s) f), false) '
                       'FROM (SELECT %s AS distance FROM %s v WHERE v.key = $2) own WHERE own.distance <> ''NaN''',
                       search, near, vectors) INTO found USING sample.embedding, sample.key;
        CONTINUE WHEN found IS NULL;
        tried := tried + 1;
        missed := missed + (NOT found)::integer;
    END LOOP;
    PERFORM set_config(s.key, s.value, true) FROM jsonb_each_text(before) s;
    RETURN CASE WHEN tried > 0 AND missed = tried THEN format('of %s stored vectors it finds none: it is damaged, or holds other rows', tried) END;
END $$;
COMMENT ON FUNCTION pgvec._canary(pgvec.collections, pgvec.vector_spaces, oid) IS
'What is wrong with an index, if anything: stored vectors, drawn at random, are searched through it, and it has to find at least one of them.';
