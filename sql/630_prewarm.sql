-- Filling shared_buffers, without contrib modules.
--
-- A sequential scan of a large table goes through a small ring of buffers, and leaves nothing behind. Scans that do not: one of a range of
-- ctids, which reads the pages one after the other; one of all of a btree or a GIN index; one of all of an HNSW graph. IVFFlat uses a ring as
-- well, but each scan has a new one, and what fits into it stays: so its lists are visited one by one.

CREATE OR REPLACE FUNCTION pgvec.prewarm(collection text, space text DEFAULT NULL)
RETURNS TABLE (relation text, blocks bigint, read bigint, complete boolean, milliseconds double precision)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  pgvec.collections := pgvec._collection(collection);
    wanted pgvec.vector_spaces := pgvec._space(collection, space);
    -- A tenth is left to others.
    room   bigint := 0.9 * (SELECT s.setting::bigint FROM pg_settings s WHERE s.name = 'shared_buffers');
    block  integer := current_setting('block_size');
    total  bigint := 0;
    held   bigint := 0;
    most   bigint;
    part   record;
    began  timestamptz;
BEGIN
    -- What walks the vector index looks into the table, too: so that one is read first. But first comes, first served, the index.
    FOR part IN SELECT p.relation, p.kind, CASE WHEN p.position = 1 THEN pg_relation_size(p.index) / block ELSE 0 END AS spared
                FROM pgvec._warm_parts(owner, wanted) p ORDER BY p.position LOOP
        began := clock_timestamp();
        relation := part.relation::regclass;
        blocks := pg_relation_size(part.relation) / block;
        CONTINUE WHEN blocks = 0;
        most := greatest(0, least(blocks, room - held - coalesce(part.spared, 0)));
        SELECT w.read, w.complete INTO read, complete FROM pgvec._warm(owner, wanted, part.relation, part.kind, blocks, most) w;
        held := held + most;
        total := total + blocks;
        milliseconds := round(1000 * extract(epoch FROM clock_timestamp() - began), 1);
        RETURN NEXT;
    END LOOP;
    IF total > room THEN
        RAISE NOTICE 'all of it takes %, more than nine tenths of shared_buffers, %: the rest was left out', pg_size_pretty(total * block), current_setting('shared_buffers')
            USING HINT = 'Raise shared_buffers, or build a smaller index: of form halfvec or binary.';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec.prewarm(text, text) IS
'Read a vector index, and the tables and indexes beside it, into shared_buffers, as after a restart; the most important of it, as
much as fits. read: blocks that were not there yet; complete: all of it was read, or what of an index searches can reach. Takes about 30 µs a row
of an HNSW index. Other searches go on, and no contrib module is needed.
Example: SELECT relation, blocks, complete FROM pgvec.prewarm(''docs'');';

CREATE OR REPLACE FUNCTION pgvec._warm_parts(owner pgvec.collections, wanted pgvec.vector_spaces)
RETURNS TABLE (relation oid, kind text, index oid, "position" bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH tables AS (
        -- Of a registered table the vector table and the chunk table are one.
        SELECT c.oid, c.reltoastrelid, min(t.position) AS position
        FROM unnest(ARRAY[format('%I.%I', owner.schema_name, wanted.table_name), format('%I.%I', owner.schema_name, owner.table_name),
                          pgvec._keyword_table(owner, '_keywords'), pgvec._keyword_table(owner, '_lexemes')]) WITH ORDINALITY AS t (name, position)
        JOIN pg_class c ON c.oid = to_regclass(t.name)
        WHERE has_table_privilege(c.oid, 'SELECT') GROUP BY c.oid, c.reltoastrelid
    ), used AS (
        SELECT i.oid FROM tables t CROSS JOIN LATERAL pgvec._indexes(t.oid, wanted) i WHERE t.position = 1 AND i.usable LIMIT 1
    ), parts AS (
        SELECT t.oid AS relation, 'table' AS kind, t.position AS "table", 0 AS rank FROM tables t
        UNION ALL
        SELECT u.oid, 'vector', 1, 1 FROM used u
        UNION ALL
        -- TOAST tables can be read as such by those only whom their schema lets in.
        SELECT t.reltoastrelid, 'table', t.position, 4 FROM tables t WHERE t.reltoastrelid <> 0 AND has_schema_privilege('pg_toast', 'USAGE')
        UNION ALL
        SELECT x.indexrelid, a.amname::text, t.position, CASE WHEN x.indisprimary THEN 2 ELSE 3 END
        FROM tables t JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_am a ON a.oid = c.relam
        WHERE a.amname IN ('btree', 'gin') AND x.indisvalid AND x.indpred IS NULL AND x.indkey[0] <> 0
    )
    SELECT p.relation, p.kind, (SELECT u.oid FROM used u), row_number() OVER (ORDER BY p."table", p.rank, p.relation) FROM parts p
$$;
COMMENT ON FUNCTION pgvec._warm_parts(pgvec.collections, pgvec.vector_spaces) IS
'What searches of a space read, in the order in which it is warmed; index: the vector index that they use.';

CREATE OR REPLACE FUNCTION pgvec._warm(owner pgvec.collections, wanted pgvec.vector_spaces, relation oid, kind text, blocks bigint, most bigint,
                                       OUT read bigint, OUT complete boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off SET jit = off
SET max_parallel_workers_per_gather = 0 SET enable_indexscan = on SET enable_indexonlyscan = on SET enable_bitmapscan = on
AS $$
DECLARE
    parent regclass;
    stored text;
    rows   bigint;
BEGIN
    complete := most = blocks;
    read := 0;
    IF most = 0 THEN
        RETURN;
    ELSIF kind = 'vector' THEN
        SELECT w.read, w.complete INTO read, complete FROM pgvec._warm_vector_index(owner, wanted, relation, blocks, most) w;
        RETURN;
    ELSIF kind = 'table' THEN
        read := pgvec._blocks_read(format('SELECT count(*) FROM %s WHERE ctid >= ''(0,0)'' AND ctid < ''(%s,0)''', relation::regclass, most), NULL);
        RETURN;
    END IF;
    SELECT x.indrelid, a.attname, greatest(c.reltuples, 0) * most / blocks INTO parent, stored, rows
    FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] JOIN pg_class c ON c.oid = x.indexrelid
    WHERE x.indexrelid = relation;
    IF kind = 'gin' THEN
        IF complete THEN
            read := pgvec._blocks_read(format('SELECT count(*) FROM %s WHERE %I @> ''{}''', parent, stored), NULL);
        END IF;
    ELSE
        read := pgvec._blocks_read(format('SELECT count(*) FROM (SELECT %1$I FROM %2$s ORDER BY %1$I LIMIT %3$s) s', stored, parent,
                                          CASE WHEN complete THEN 'ALL' ELSE rows::text END), NULL);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._warm(pgvec.collections, pgvec.vector_spaces, oid, text, bigint, bigint) IS 'Read a relation of so many blocks, or most of them.';

CREATE OR REPLACE FUNCTION pgvec._blocks_read(statement text, query text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan jsonb;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ' || statement INTO plan USING query;
    RETURN plan #> '{0,Plan,Shared Read Blocks}';
END $$;
COMMENT ON FUNCTION pgvec._blocks_read(text, text) IS 'Run a statement, $1 a query as text; returns how many blocks it had to read into shared_buffers.';

CREATE OR REPLACE FUNCTION pgvec._warm_vector_index(owner pgvec.collections, wanted pgvec.vector_spaces, index oid, blocks bigint, most bigint,
                                                    OUT read bigint, OUT complete boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation regclass := pgvec._relation(owner.schema_name, wanted.table_name);
    vectors text := pgvec._vectors_sql(owner, wanted);
    query_  text := format('($1::%s)', pgvec._embedding_type(wanted.type, wanted.dimensions));
    chosen  record;
    before  jsonb;
    walk    text;
    query   text;
BEGIN
    SELECT i.method, i.form, i.dimensions, i.lists INTO chosen FROM pgvec._indexes(relation, wanted) i WHERE i.oid = index;
    EXECUTE format('SELECT v.embedding::text FROM %s v LIMIT 1', vectors) INTO query;
    read := 0;
    complete := true;
    IF query IS NULL THEN
        RETURN;
    END IF;
    walk := format('SELECT v.key FROM %s v ORDER BY %s', vectors, pgvec._candidate_sql(wanted, chosen.form, chosen.dimensions, query_));
    SELECT jsonb_object_agg(s.name, s.setting) INTO before FROM pg_settings s
    WHERE s.name IN ('hnsw.ef_search', 'hnsw.iterative_scan', 'hnsw.max_scan_tuples', 'hnsw.scan_mem_multiplier', 'ivfflat.probes', 'ivfflat.iterative_scan');
    IF chosen.method = 'hnsw' THEN
        PERFORM set_config('hnsw.ef_search', '1000', true), set_config('hnsw.iterative_scan', 'relaxed_order', true),
                set_config('hnsw.max_scan_tuples', '2147483647', true), set_config('hnsw.scan_mem_multiplier', '1000', true);
        -- A row's neighbours are looked at, too, and lie anywhere: to walk a part of the graph takes many more pages than that part of it.
        read := pgvec._blocks_read(format('SELECT count(*) FROM (%s LIMIT %s) s', walk, CASE WHEN most = blocks THEN 'ALL'
            ELSE (SELECT (greatest(c.reltuples, 0) * most / blocks / 10)::bigint::text FROM pg_class c WHERE c.oid = relation) END), query);
        complete := most = blocks;
    ELSE
        PERFORM set_config('ivfflat.iterative_scan', 'off', true);
        SELECT w.read, w.complete INTO read, complete FROM pgvec._warm_lists(owner, wanted, walk, query, chosen.lists, most) w;
    END IF;
    PERFORM set_config(s.key, s.value, true) FROM jsonb_each_text(before) s;
END $$;
COMMENT ON FUNCTION pgvec._warm_vector_index(pgvec.collections, pgvec.vector_spaces, oid, bigint, bigint) IS
'Read a vector index. HNSW: one scan that walks the graph to its end meets whatever a search can meet.';

CREATE OR REPLACE FUNCTION pgvec._warm_lists(owner pgvec.collections, wanted pgvec.vector_spaces, walk text, query text, lists integer, most bigint,
                                             OUT read bigint, OUT complete boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    count_  text := format('SELECT count(*) FROM (%s) s', walk);
    keys    bigint[];
    queries text[];
    inside  bigint[];
    fresh   bigint;
BEGIN
    read := 0;
    PERFORM set_config('ivfflat.probes', '1', true);
    EXECUTE format('SELECT array_agg(s.key), array_agg(s.embedding::text) FROM (%s) s', pgvec._sample_sql(owner, wanted, 10 * lists))
        INTO keys, queries;
    -- The list of one of ten vectors a list, then of the next that was in none so far.
    WHILE cardinality(keys) > 0 AND read < most LOOP
        FOR attempt IN 1 .. 50 LOOP  -- a list longer than the ring leaves its end there, each time
            fresh := pgvec._blocks_read(count_, queries[1]);
            read := read + fresh;
            EXIT WHEN fresh <= 32;  -- the smallest ring there is
        END LOOP;
        EXECUTE format('SELECT array_agg(s.key) FROM (%s) s WHERE s.key = ANY ($2)', walk) INTO inside USING queries[1], keys;
        SELECT array_agg(r.key), array_agg(r.query) INTO keys, queries
        FROM unnest(keys[2:], queries[2:]) AS r (key, query) WHERE r.key <> ALL (coalesce(inside, '{}'));
    END LOOP;
    -- Short lists that no sample was of: a scan of all finds them, and they fit into its ring.
    PERFORM set_config('ivfflat.probes', lists::text, true);
    FOR attempt IN 1 .. 3 LOOP
        fresh := CASE WHEN read < most THEN pgvec._blocks_read(count_, query) END;
        EXIT WHEN fresh IS NULL OR fresh = 0;
        read := read + fresh;
    END LOOP;
    complete := coalesce(fresh, 1) = 0;
END $$;
COMMENT ON FUNCTION pgvec._warm_lists(pgvec.collections, pgvec.vector_spaces, text, text, integer, bigint) IS 'Read an IVFFlat index, list by list.';
