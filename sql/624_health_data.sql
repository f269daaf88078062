-- What is wrong with the tables of collections, and with what their queries ask: indexes that filters miss, dead rows, statistics, caches,
-- recall, keyword indexes, tables and vectors that are not there.

CREATE OR REPLACE FUNCTION pgvec._health_lost() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT 'error', 'collection ' || s.collection, format('its table %I.%I is gone', s.schema_name, s.chunk_table),
           format('SELECT pgvec.drop_collection(%L);  -- or restore it from a backup', s.collection)
    FROM pgvec._all_spaces() s WHERE s.chunks IS NULL
    UNION ALL
    SELECT 'error', s.subject, format('its table %I.%I is gone', s.schema_name, (s.wanted).table_name),
           format('CREATE TABLE %1$I.%2$I (key bigint PRIMARY KEY REFERENCES %1$I.%3$I ON DELETE CASCADE, embedding %4$s NOT NULL);  -- then fill it', s.schema_name,
                  (s.wanted).table_name, s.chunk_table, pgvec._embedding_type((s.wanted).type, (s.wanted).dimensions))
    FROM pgvec._all_spaces() s WHERE s.chunks IS NOT NULL AND s.vectors IS NULL
$$;
COMMENT ON FUNCTION pgvec._health_lost() IS 'Tables of which only the catalogue is left.';

CREATE OR REPLACE FUNCTION pgvec._health_registered() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Of a column that only a further space is of nothing else depends.
    SELECT DISTINCT 'error', 'collection ' || c.name, t.trouble,
           CASE WHEN NOT s.is_default AND EXISTS (SELECT FROM pgvec.vector_spaces e WHERE e.collection_id = c.id AND e.is_default AND pgvec._registration_trouble(e) IS NULL)
                THEN format('SELECT pgvec.drop_space(%L, %L);', c.name, s.name)
                ELSE format('SELECT pgvec.unregister_table(%L);  -- then register it again', c.name) END
    FROM pgvec.collections c JOIN pgvec.vector_spaces s ON s.collection_id = c.id AND s.embedding_column IS NOT NULL
    CROSS JOIN LATERAL (SELECT pgvec._registration_trouble(s) AS trouble) t WHERE t.trouble IS NOT NULL
$$;
COMMENT ON FUNCTION pgvec._health_registered() IS 'Registered tables that are gone, or no longer what they were registered as.';

CREATE OR REPLACE FUNCTION pgvec._health_unreadable() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'hint', s.subject, format('role %s cannot read its tables', quote_ident(current_user)),
           format('GRANT USAGE ON SCHEMA %1$I TO %4$I; GRANT SELECT ON %1$I.%2$I, %1$I.%3$I TO %4$I;', s.schema_name, s.chunk_table,
                  (s.wanted).table_name, current_user)
    FROM pgvec._all_spaces() s WHERE NOT s.readable
$$;
COMMENT ON FUNCTION pgvec._health_unreadable() IS 'Spaces that this role cannot search.';

CREATE OR REPLACE FUNCTION pgvec._health_scratch() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'hint', 'collection ' || c.name, 'was left by an advisor that was killed', format('SELECT pgvec.drop_collection(%L);', c.name)
    FROM pgvec.collections c
    -- One that is at work holds a lock by its name.
    WHERE c.name ~ pgvec._scratch_names() AND NOT EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
          AND l.classid::bigint = hashtext('pgvec.advise')::bigint & 4294967295 AND l.objid::bigint = hashtext(c.name)::bigint & 4294967295)
$$;
COMMENT ON FUNCTION pgvec._health_scratch() IS 'Collections that pgvec advise tried indexes on, and that nobody uses any more.';

CREATE OR REPLACE FUNCTION pgvec._health_columns() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'table ' || chunks.oid::regclass, format('column %I has no index: filters on it read the whole table', c.name),
           format('CREATE INDEX CONCURRENTLY ON %s %s;', chunks.oid::regclass,
                  CASE c.type WHEN 'text[]' THEN format('USING gin (%I)', c.name) WHEN 'jsonb' THEN format('USING gin (%I jsonb_path_ops)', c.name)
                              ELSE format('(%I%s)', c.name, CASE c.name WHEN 'document_id' THEN '' ELSE ', key' END) END)
    -- Of a registered table only its user knows which columns are filtered by.
    FROM (SELECT DISTINCT s.chunks FROM pgvec._all_spaces() s WHERE s.chunks IS NOT NULL AND NOT s.registered) AS chunks (oid)
    CROSS JOIN LATERAL (SELECT k."column", k.type FROM pgvec._columns(chunks.oid) k
                        UNION ALL VALUES ('document_id'::name, 'text'), ('metadata', 'jsonb')) AS c (name, type)
    JOIN pg_attribute a ON a.attrelid = chunks.oid AND a.attname = c.name AND NOT a.attisdropped
    WHERE c.type IN ('text', 'bigint', 'integer', 'smallint', 'double precision', 'numeric', 'real', 'boolean', 'date', 'timestamp with time zone', 'text[]', 'jsonb')
      AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = chunks.oid AND x.indkey[0] = a.attnum AND x.indisvalid AND x.indpred IS NULL)
      AND NOT pgvec._is_building(chunks.oid)
$$;
COMMENT ON FUNCTION pgvec._health_columns() IS 'Columns for filters whose index somebody dropped.';

CREATE OR REPLACE FUNCTION pgvec._logged_conditions(collection_id integer)
RETURNS TABLE (query bigint, field text, operator text, operand jsonb, decisive boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE logged AS MATERIALIZED (
        SELECT l.id, l.filter FROM pgvec.query_log l JOIN pgvec.vector_spaces s ON s.id = l.space_id
        WHERE s.collection_id = _logged_conditions.collection_id ORDER BY l.id DESC LIMIT 500
    ), part AS (
        SELECT l.id, f.key, f.value, true AS decisive FROM logged l CROSS JOIN LATERAL jsonb_each(l.filter) f  -- NULL has none
        UNION ALL
        SELECT p.id, f.key, f.value, p.decisive AND p.key = '$and'
        FROM part p
        CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN p.key IN ('$and', '$or') THEN p.value ELSE '[]' END) e
        CROSS JOIN LATERAL jsonb_each(e.value) f
    )
    SELECT p.id, p.key, c.operator, c.operand, p.decisive
    FROM part p
    CROSS JOIN LATERAL (SELECT o.key, o.value FROM jsonb_each(CASE WHEN jsonb_typeof(p.value) = 'object' THEN p.value ELSE '{}' END) o
                        UNION ALL SELECT '$eq', p.value WHERE jsonb_typeof(p.value) <> 'object') AS c (operator, operand)
    WHERE NOT starts_with(p.key, '$') AND c.operator <> '$not'
$$;
COMMENT ON FUNCTION pgvec._logged_conditions(integer) IS
'The conditions of the filters of the last 500 logged queries. decisive: all rows that the filter lets pass fulfil it.';

CREATE OR REPLACE FUNCTION pgvec._condition_kinds(collection_id integer, chunks regclass)
RETURNS TABLE (field text, operator text, kind text, queries bigint[], decisive bigint[], type text, indexed boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked record;
    rows  text := pgvec._chunks_sql(pgvec._collection(c.name)) FROM pgvec.collections c WHERE c.id = _condition_kinds.collection_id;
BEGIN
    FOR asked IN
        SELECT c.field, c.operator,
               concat_ws(' of ', jsonb_typeof(c.operand), jsonb_typeof(c.operand -> 0),
                         -- Of few values each is looked up; of many the whole list is compared.
                         CASE WHEN jsonb_typeof(c.operand) = 'array' THEN jsonb_array_length(c.operand) > 16 END) AS kind,
               array_agg(DISTINCT c.query) AS queries, array_agg(DISTINCT c.query) FILTER (WHERE c.decisive) AS decisive, (array_agg(c.operand))[1] AS operand,
               CASE WHEN bool_and(e.kind = 'boolean') THEN 'bool' WHEN bool_and(e.kind = 'number' AND e.text ~ '^-?\d{1,18}$') THEN 'int'
                    WHEN bool_and(e.kind = 'number') THEN 'float' WHEN bool_and(e.kind = 'string' AND e.text ~ '^\d{4}-\d\d-\d\d$') THEN 'date'
                    WHEN bool_and(e.kind = 'string' AND e.text ~ '^\d{4}-\d\d-\d\d[T ]\d\d:') THEN 'timestamp' WHEN bool_and(e.kind = 'string') THEN 'text' END AS type
        FROM pgvec._logged_conditions(_condition_kinds.collection_id) c
        CROSS JOIN LATERAL (SELECT jsonb_typeof(f.value) AS kind, f.value #>> '{}' AS text
                            FROM (SELECT CASE jsonb_typeof(c.operand) WHEN 'array' THEN c.operand -> 0 ELSE c.operand END AS value) f) e
        GROUP BY 1, 2, 3 ORDER BY count(DISTINCT c.query) DESC LIMIT 20
    LOOP
        BEGIN
            indexed := pgvec._is_indexed(rows, pgvec._filter_sql(chunks, f.filter), jsonb_build_object('filter', f.filter))
                       FROM (SELECT jsonb_build_object(asked.field, jsonb_build_object(asked.operator, asked.operand)) AS filter) f;
        EXCEPTION WHEN SQLSTATE 'PV004' THEN
            CONTINUE;  -- of a column that has changed since
        END;
        field := asked.field; operator := asked.operator; kind := asked.kind; queries := asked.queries; decisive := asked.decisive; type := asked.type;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._condition_kinds(integer, regclass) IS
'The twenty kinds of condition that were logged most often: by which queries, for which of them they alone decide, the type of their operands, and
whether an index finds the rows.';

CREATE OR REPLACE FUNCTION pgvec._health_filters() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH asked AS MATERIALIZED (
        SELECT s.collection, s.chunks, n.total, k.kinds
        FROM pgvec._all_spaces() s
        CROSS JOIN LATERAL (SELECT count(*) AS total FROM pgvec.query_log l JOIN pgvec.vector_spaces o ON o.id = l.space_id
                            WHERE o.collection_id = (s.wanted).collection_id) n
        CROSS JOIN LATERAL (SELECT jsonb_agg(k) AS kinds FROM pgvec._condition_kinds((s.wanted).collection_id, s.chunks) k) k
        WHERE s.readable AND (s.wanted).is_default AND n.total > 0 AND NOT s.registered  -- its metadata are not pgvec's to promote
    ), kinds AS (
        SELECT a.collection, a.chunks, least(a.total, 500) AS total, k.* FROM asked a
        CROSS JOIN LATERAL jsonb_to_recordset(a.kinds) AS k (field text, operator text, queries bigint[], decisive bigint[], type text, indexed boolean)
    ), slow AS (
        SELECT k.collection, k.field, min(k.total) AS total, string_agg(DISTINCT k.operator, ' ') AS operators,
               CASE WHEN count(DISTINCT k.type) = 1 THEN min(k.type) WHEN bool_and(k.type IN ('int', 'float')) THEN 'float' ELSE 'text' END AS type,
               (SELECT count(DISTINCT q) FROM kinds o CROSS JOIN LATERAL unnest(o.queries) q
                WHERE o.collection = k.collection AND o.field = k.field AND NOT o.indexed
                  AND NOT EXISTS (SELECT FROM kinds i WHERE i.collection = k.collection AND i.indexed AND q = ANY (i.decisive))) AS queries
        FROM kinds k
        -- What a typed column would serve; and what is one already has its index, or is another finding.
        WHERE NOT k.indexed AND k.type IS NOT NULL AND k.operator IN ('$eq', '$gt', '$gte', '$lt', '$lte', '$between', '$in', '$any')
          AND k.field ~ '^[a-z_][a-z0-9_]{0,59}$'
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.chunks AND a.attname = k.field AND NOT a.attisdropped)
        GROUP BY k.collection, k.field
    )
    SELECT CASE WHEN s.queries >= 0.2 * s.total AND s.queries >= 20 THEN 'warning' ELSE 'hint' END, 'collection ' || s.collection,
           format('%s of the last %s logged queries filter by metadata key %s (%s), which no index serves', s.queries, s.total, s.field, s.operators),
           format('pgvec collection promote %s %s %s', s.collection, s.field, s.type)
    FROM slow s WHERE s.queries >= greatest(5, 0.05 * s.total)
$$;
COMMENT ON FUNCTION pgvec._health_filters() IS 'Metadata keys that are often filtered by, in queries that no index helps.';

CREATE OR REPLACE FUNCTION pgvec._health_dead() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'table ' || u.relid::regclass,
           format('%s %% of its rows are dead (about %s): searches of its index walk through them', 100 * u.n_dead_tup / (u.n_live_tup + u.n_dead_tup), u.n_dead_tup),
           -- VACUUM takes them out of an index, but mends its graph badly.
           CASE WHEN EXISTS (SELECT FROM pgvec._all_indexes() i WHERE i.space_id = s.space_id AND i.usable) THEN format('pgvec index rebuild %s --if-needed', s.arguments)
                ELSE format('VACUUM (ANALYZE) %s;', u.relid::regclass) END
    FROM pgvec._all_spaces() s JOIN pg_stat_all_tables u ON u.relid = s.vectors
    WHERE u.n_dead_tup > 1000 AND u.n_dead_tup > 0.2 * (u.n_live_tup + u.n_dead_tup)
$$;
COMMENT ON FUNCTION pgvec._health_dead() IS 'Vector tables with many dead rows, as statistics estimate them.';

CREATE OR REPLACE FUNCTION pgvec._stale_tables() RETURNS TABLE (schema_name name, name name, relation text, known double precision)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT n.nspname, c.relname, c.oid::regclass::text, c.reltuples
    FROM pgvec._all_spaces() s JOIN pg_class c ON c.oid IN (s.chunks, s.vectors) JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables u ON u.relid = c.oid
    -- Below that a table is read whole anyway.
    WHERE pg_relation_size(c.oid) > 65536
      -- What was loaded just before ANALYZE may count as changed since: all of it, but not twice.
      AND (c.reltuples < 0 OR u.n_mod_since_analyze > 1000 + 2 * c.reltuples OR pg_relation_size(c.oid) / 8192 > 1.5 * c.relpages)
$$;
COMMENT ON FUNCTION pgvec._stale_tables() IS 'Tables whose statistics are far from what they hold.';

CREATE OR REPLACE FUNCTION pgvec._health_swollen() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', i.subject, format('is %s, and would be about %s if it were built now', pg_size_pretty(i.bytes), pg_size_pretty(fresh.bytes)),
           format('pgvec index rebuild %s', i.arguments)
    FROM pgvec._all_indexes() i
    -- From what its last build came to: a few pages more count for nothing, and growth as in pgvec_toolkit.tune.rebuild.
    CROSS JOIN LATERAL (SELECT (b.bytes * i.rows / greatest(b.rows, 1))::bigint AS bytes FROM pgvec.index_builds b
                        WHERE b.space_id = i.space_id AND b.index_name = i.name ORDER BY b.built_at DESC LIMIT 1) fresh
    WHERE i.valid AND i.vectors::regclass::text NOT IN (SELECT t.relation FROM pgvec._stale_tables() t)
      AND i.place = 1 AND i.bytes > 1.3 * fresh.bytes + 16 * 8192
$$;
COMMENT ON FUNCTION pgvec._health_swollen() IS 'Indexes much larger than they need be, for the rows that there are.';

CREATE OR REPLACE FUNCTION pgvec._health_stale() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'table ' || t.relation,
           CASE WHEN t.known < 0 THEN 'was never analysed: filtered searches weigh their ways by the number of rows'
                ELSE format('was analysed when it held about %s rows, much has changed since: filtered searches weigh their ways by that number', t.known) END,
           format('ANALYZE %s;', t.relation)
    FROM pgvec._stale_tables() t
$$;
COMMENT ON FUNCTION pgvec._health_stale() IS 'Statistics that are out of date.';

CREATE OR REPLACE FUNCTION pgvec._health_cold(blocks bigint DEFAULT 1000, share double precision DEFAULT 0.1)
RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'hint', i.subject, format('%s %% of its blocks that were asked for were not in shared_buffers', 100 * u.idx_blks_read / (u.idx_blks_read + u.idx_blks_hit)),
           format('SELECT * FROM pgvec.prewarm(%s);', concat_ws(', ', quote_literal(split_part(i.arguments, ' ', 1)), quote_literal(nullif(split_part(i.arguments, ' ', 3), ''))))
    FROM pgvec._all_indexes() i JOIN pg_statio_all_indexes u ON u.indexrelid = i.index
    WHERE i.usable AND i.place = 1 AND u.idx_blks_read + u.idx_blks_hit >= _health_cold.blocks AND u.idx_blks_read > share * (u.idx_blks_read + u.idx_blks_hit)
$$;
COMMENT ON FUNCTION pgvec._health_cold(bigint, double precision) IS
'Vector indexes that are read from disk since statistics count, if that is at least so many blocks, and more than a share of them.';

CREATE OR REPLACE FUNCTION pgvec._health_recall() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN NOT a.drift AND r.recall_high < r.target_recall THEN 'error' ELSE 'warning' END, s.subject,
           format('at its last check, on %s, %s%s', to_char(r.checked_at, 'YYYY-MM-DD'),
                  CASE WHEN NOT a.drift THEN format('recall@%s was %s%s: ', r.k, round(r.recall::numeric, 3), ' (target ' || r.target_recall || ')') END, a.alarms),
           CASE WHEN a.drift THEN format('pgvec watch %s --new-baseline  # if it is as it should be', s.arguments)
                ELSE format('pgvec tune %1$s && pgvec watch %1$s', s.arguments) END
    FROM pgvec._all_spaces() s
    CROSS JOIN LATERAL (SELECT c.k, c.recall, c.recall_high, c.target_recall, c.alarms, c.checked_at FROM pgvec.recall_checks c
                        WHERE c.space_id = s.space_id ORDER BY c.checked_at DESC, c.id DESC LIMIT 1) r
    CROSS JOIN LATERAL (SELECT pgvec._is_drift(u.alarm) AS drift, string_agg(u.alarm, '; ' ORDER BY u.position) AS alarms
                        FROM unnest(r.alarms) WITH ORDINALITY AS u (alarm, position) GROUP BY 1) a
    -- What was done about it since has to be judged by another check.
    WHERE CASE WHEN a.drift THEN NOT EXISTS (SELECT FROM pgvec.drift_baselines b WHERE b.space_id = s.space_id AND b.taken_at > r.checked_at)
               ELSE NOT EXISTS (SELECT FROM pgvec._used_profiles() p WHERE p.space_id = s.space_id AND p.tuned_at > r.checked_at)
                    -- Of the index that searches use: a rebuild that was refused has built one, too.
                    AND NOT EXISTS (SELECT FROM pgvec.index_builds b JOIN pgvec._all_indexes() i ON i.space_id = b.space_id AND i.name = b.index_name
                                    WHERE b.space_id = s.space_id AND i.place = 1 AND b.built_at > r.checked_at) END
$$;
COMMENT ON FUNCTION pgvec._health_recall() IS
'Alarms of the last check, of recall unless it was tuned or the index built since, of drift unless a baseline was taken since.';

CREATE OR REPLACE FUNCTION pgvec._health_keywords() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT 'error', 'collection ' || s.collection, problem.text,
           format('SELECT pgvec.drop_keyword_index(%1$L); SELECT pgvec.create_keyword_index(%1$L, k1 => %2$s, b => %3$s);', s.collection, k.k1, k.b)
    FROM pgvec.keyword_indexes k
    JOIN pgvec._all_spaces() s ON (s.wanted).collection_id = k.collection_id AND s.chunks IS NOT NULL
    CROSS JOIN LATERAL (VALUES
        (k.probe <> pgvec._lexeme_number('probe'), 'its keyword index was built on a server that numbers words otherwise: no search can use it'),
        -- As pg_restore --disable-triggers, or session_replication_role, leave them.
        ((SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = s.chunks AND starts_with(t.tgname, 'pgvec_keywords_') AND t.tgenabled IN ('O', 'A')) < 4,
         'the triggers that keep its keyword index are gone or disabled: keyword searches miss what was written since')) AS problem (applies, text)
    WHERE problem.applies
$$;
COMMENT ON FUNCTION pgvec._health_keywords() IS 'Keyword indexes that give wrong answers.';

CREATE OR REPLACE FUNCTION pgvec._health_vectorless() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    space  record;
    absent double precision;
    owner  pgvec.collections;
BEGIN
    FOR space IN SELECT s.*, c.reltuples, pg_relation_size(c.oid) AS bytes FROM pgvec._all_spaces() s JOIN pg_class c ON c.oid = s.chunks
                 WHERE s.readable AND (s.wanted).is_default LOOP
        IF space.bytes < 4194304 THEN  -- small enough to count
            owner := pgvec._collection(space.collection);
            EXECUTE format('SELECT count(*) FROM %s d WHERE NOT EXISTS (SELECT FROM %s v WHERE v.key = d.key)', pgvec._chunks_sql(owner),
                           pgvec._vectors_sql(owner, space.wanted)) INTO absent;
        ELSIF space.registered THEN
            absent := space.reltuples * coalesce((SELECT s.null_frac FROM pg_stats s WHERE (s.schemaname, s.tablename) = (space.schema_name, space.chunk_table)
                                                  AND s.attname = (space.wanted).embedding_column), 0);
        ELSE
            absent := CASE WHEN space.reltuples - space.rows > 0.02 * space.reltuples THEN space.reltuples - space.rows ELSE 0 END;
        END IF;
        IF absent > 0 THEN
            severity := 'hint';
            subject := space.subject;
            finding := format('%s%s chunks have no vector there: no search of it finds them', CASE WHEN space.bytes < 4194304 THEN '' ELSE 'about ' END, absent);
            mend := format('pgvec collection embed %s %s', space.collection, (space.wanted).name);
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._health_vectorless() IS 'Chunks without a vector in the default space: counted where that is quick, else estimated.';
