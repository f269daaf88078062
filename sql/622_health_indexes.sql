-- What is wrong with vector indexes: leftovers of builds, several where one is used, none where one would help, and those that were
-- tuned for what is no longer there.

CREATE OR REPLACE FUNCTION pgvec._is_building(relation oid, space_id integer DEFAULT NULL) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Of the builds of others a role sees little more than that they are, but of locks everything.
    SELECT EXISTS (SELECT FROM pg_stat_progress_create_index p
                   WHERE p.relid = relation OR p.relid IS NULL AND EXISTS (
                       SELECT FROM pg_locks l WHERE l.pid = p.pid AND l.relation = _is_building.relation
                       AND l.database = p.datid AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock')))
        OR EXISTS (SELECT FROM pg_locks l
                   WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.objid = space_id::oid
                     AND l.classid::bigint = hashtext('pgvec.build_index')::bigint & 4294967295
                     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
$$;
COMMENT ON FUNCTION pgvec._is_building(oid, integer) IS 'Whether an index is being built on a table, by anybody, or a space is locked for a build.';

CREATE OR REPLACE FUNCTION pgvec._is_users(space_id integer, index name) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pgvec.vector_spaces s WHERE s.id = _is_users.space_id AND s.embedding_column IS NOT NULL)
       AND NOT EXISTS (SELECT FROM pgvec.index_builds b WHERE b.space_id = _is_users.space_id AND b.index_name = index)
$$;
COMMENT ON FUNCTION pgvec._is_users(integer, name) IS
'Whether an index is one that the user made on a registered table: what else it serves only they know, and nobody tells them to drop it.';

CREATE OR REPLACE FUNCTION pgvec._leftover_indexes() RETURNS TABLE (space_id integer, schema_name name, name name, index text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT min(s.space_id), n.nspname, c.relname, c.oid::regclass::text
    FROM pgvec._all_spaces() s JOIN pg_index x ON x.indrelid IN (s.chunks, s.vectors)
    JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    -- Of a registered table all but the vector indexes are for others to look after.
    WHERE NOT x.indisvalid AND (NOT s.registered OR c.relam IN (SELECT m.oid FROM pg_am m WHERE m.amname IN ('hnsw', 'ivfflat')))
    GROUP BY c.oid, n.oid
    HAVING NOT bool_or(pgvec._is_building(x.indrelid, s.space_id))
$$;
COMMENT ON FUNCTION pgvec._leftover_indexes() IS 'INVALID indexes that nobody is building: no search uses them, every write pays for them.';

CREATE OR REPLACE FUNCTION pgvec._health_leftovers() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'index ' || l.index, 'is INVALID, left by a build that was interrupted: no search uses it, every write may pay for it',
           format('DROP INDEX CONCURRENTLY %s;', l.index)
    FROM pgvec._leftover_indexes() l
$$;
COMMENT ON FUNCTION pgvec._health_leftovers() IS 'What interrupted builds left behind.';

CREATE OR REPLACE FUNCTION pgvec._health_several() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', i.subject, format('is one of several on %s: searches were tuned for %s, the planner takes the one it thinks cheaper, and writes pay for all',
                                        i.space, used.name),
           CASE WHEN pgvec._is_users(i.space_id, i.name) THEN format('pgvec index list %s', i.arguments)
                ELSE format('DROP INDEX CONCURRENTLY %s;', i.index::regclass) END
    FROM pgvec._all_indexes() i JOIN pgvec._all_indexes() used ON used.space_id = i.space_id AND used.place = 1
    WHERE i.place > 1 AND i.usable AND used.usable AND NOT pgvec._is_building(i.vectors, i.space_id)
$$;
COMMENT ON FUNCTION pgvec._health_several() IS 'Vector indexes beside the one that searches use.';

CREATE OR REPLACE FUNCTION pgvec._health_unusable() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', i.subject, format('is of no use to searches of %s: %s', i.space, CASE WHEN x.indpred IS NOT NULL THEN 'it is partial'
               WHEN i.form = 'other' THEN 'its expression is none that they order by'
               ELSE format('its operator class, %s, is not that of the distance, %s', o.opcname, (s.wanted).distance) END),
           -- Beside another one it is only in the way.
           CASE WHEN yours.yes THEN format('pgvec index create %s %s', i.arguments, i.method)
                ELSE format('DROP INDEX CONCURRENTLY %s;', i.index::regclass) || CASE WHEN other.usable THEN ''
                     ELSE format('  -- then: pgvec index create %s %s', i.arguments, i.method) END END
    FROM pgvec._all_indexes() i
    JOIN pgvec._all_spaces() s ON s.space_id = i.space_id
    JOIN pg_index x ON x.indexrelid = i.index
    JOIN pg_opclass o ON o.oid = x.indclass[0]
    CROSS JOIN LATERAL (SELECT pgvec._is_users(i.space_id, i.name) AS yes) yours
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pgvec._all_indexes() u WHERE u.space_id = i.space_id AND u.usable) AS usable) other
    WHERE i.valid AND NOT i.usable AND NOT (yours.yes AND other.usable)
$$;
COMMENT ON FUNCTION pgvec._health_unusable() IS 'Vector indexes that no search can use.';

CREATE OR REPLACE FUNCTION pgvec._health_missing() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- An exact search of a twentieth of a second is nothing to complain about.
    SELECT CASE WHEN cost.ms > 1000 THEN 'warning' ELSE 'hint' END, s.subject,
           format('has no vector index that searches can use: each one compares all of about %s vectors, which takes about %s ms', s.rows, round(cost.ms::numeric)),
           format('pgvec index create %s', s.arguments)
    FROM pgvec._all_spaces() s
    CROSS JOIN LATERAL (SELECT s.rows * c.exact_us / 1000 AS ms FROM pgvec._costs(s.space_id, 'hnsw') c) cost
    WHERE (s.wanted).type <> 'vector[]' AND cost.ms > 50 AND NOT pgvec._is_building(s.vectors, s.space_id)
      AND NOT EXISTS (SELECT FROM pgvec._all_indexes() i WHERE i.space_id = s.space_id AND i.usable)
$$;
COMMENT ON FUNCTION pgvec._health_missing() IS 'Spaces that an index would make faster.';

CREATE OR REPLACE FUNCTION pgvec._health_lists() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Far fewer, and a search reads much of the table; far more matter only where it spends its time on comparing their centres.
    SELECT CASE WHEN b.lists < w.lists THEN 'warning' ELSE 'hint' END, i.subject,
           format('has lists = %s, and for about %s rows would get %s if it were built now: %s', b.lists, i.rows, w.lists,
                  CASE WHEN b.lists < w.lists THEN 'each search reads a large part of the rows' ELSE 'most lists hold next to nothing' END),
           format('pgvec index rebuild %s --lists %s', i.arguments, w.lists)
    FROM pgvec._all_indexes() i
    CROSS JOIN LATERAL (SELECT substring(i.shape FROM 'lists=(\d+)$')::bigint AS lists) b
    CROSS JOIN LATERAL (SELECT pgvec._lists(i.rows::bigint) AS lists) w
    WHERE i.method = 'ivfflat' AND i.usable AND i.place = 1 AND i.rows > 0 AND (w.lists > 4 * b.lists OR b.lists > 4 * w.lists AND i.rows < 10 * b.lists)
      AND NOT pgvec._is_building(i.vectors, i.space_id)
$$;
COMMENT ON FUNCTION pgvec._health_lists() IS 'IVFFlat indexes that were built for far fewer rows than there are, or for far more.';

CREATE OR REPLACE FUNCTION pgvec._health_unused() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- What was asked since the index was built and since statistics count; the log holds a share of it.
    SELECT 'hint', i.subject, CASE WHEN isfinite(since.moment)
               THEN format('was used by no search since %s, and %s of the logged ones were asked since', to_char(since.moment, 'YYYY-MM-DD'), asked.times)
               -- By hand: nobody knows when.
               ELSE format('was used by no search, and %s are logged, if not all of them from before it was built', asked.times) END,
           format('SELECT * FROM pgvec.explain(%L, (SELECT %s FROM %s LIMIT 1), space => %L);  -- why%s',
                  s.collection, pgvec._embedding_column(s.wanted), i.vectors::regclass, (s.wanted).name,
                  CASE WHEN NOT pgvec._is_users(i.space_id, i.name) THEN format('; or DROP INDEX CONCURRENTLY %s;', i.index::regclass) END)
    FROM pgvec._all_indexes() i
    JOIN pgvec._all_spaces() s ON s.space_id = i.space_id
    JOIN pg_stat_all_indexes u ON u.indexrelid = i.index
    CROSS JOIN LATERAL (SELECT greatest(d.stats_reset, max(b.built_at), '-infinity') AS moment
                        FROM pg_stat_database d LEFT JOIN pgvec.index_builds b ON b.space_id = i.space_id AND b.index_name = i.name
                        WHERE d.datname = current_database() GROUP BY d.stats_reset) since
    CROSS JOIN LATERAL (SELECT count(*) AS times FROM pgvec.query_log l WHERE l.space_id = i.space_id AND l.asked_at > since.moment) asked
    WHERE i.usable AND i.place = 1 AND u.idx_scan = 0 AND asked.times >= 20
$$;
COMMENT ON FUNCTION pgvec._health_unused() IS 'Vector indexes that are there, while searches do without.';

CREATE OR REPLACE FUNCTION pgvec._used_profiles()
RETURNS TABLE (space_id integer, k integer, target_recall double precision, tuned_at timestamptz, tuned_rows double precision,
               shape text, options jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.space_id, p.k, p.target_recall, p.tuned_at,
           -- None were there is what a table says that was not analysed.
           coalesce(CASE jsonb_typeof(p.evidence -> 'rows') WHEN 'number' THEN nullif((p.evidence -> 'rows')::double precision, 0) END,
                    (SELECT nullif(b.rows, 0) FROM pgvec.index_builds b WHERE b.space_id = p.space_id AND b.built_at <= p.tuned_at ORDER BY b.built_at DESC LIMIT 1)),
           p.index_shape, p.evidence -> 'options'
    FROM pgvec.tuning_profiles p
    JOIN pgvec._all_indexes() i ON i.space_id = p.space_id AND i.method = p.index_method AND i.place = 1 AND i.usable
    WHERE p.superseded_at IS NULL AND p.filter_class = '' AND p.is_default
$$;
COMMENT ON FUNCTION pgvec._used_profiles() IS 'The current default profiles for the indexes that searches use, and the number of rows then, as far as it is known.';

CREATE OR REPLACE FUNCTION pgvec._health_untuned() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN other.shape IS NULL THEN 'hint' ELSE 'warning' END, i.space,
           CASE WHEN other.shape IS NULL THEN 'was never tuned: what recall its searches have nobody knows'
                ELSE format('was tuned on another index (%s) than it has now (%s): searches have the usual settings, and a recall that nobody knows',
                            other.shape, i.shape) END,
           format('pgvec tune %s', i.arguments)
    FROM pgvec._all_indexes() i
    LEFT JOIN LATERAL (SELECT min(p.shape) AS shape FROM pgvec._used_profiles() p WHERE p.space_id = i.space_id) other ON true
    WHERE i.place = 1 AND i.usable
      AND NOT EXISTS (SELECT FROM pgvec._used_profiles() p WHERE p.space_id = i.space_id AND p.shape = i.shape)
$$;
COMMENT ON FUNCTION pgvec._health_untuned() IS 'Indexes that no profile is for.';

CREATE OR REPLACE FUNCTION pgvec._health_outgrown() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT ON (i.space_id) 'warning', i.space, format('was tuned for recall %s, but %s', p.target_recall, reason.text), format('pgvec tune %s', i.arguments)
    FROM pgvec._all_indexes() i
    JOIN pgvec._used_profiles() p ON p.space_id = i.space_id AND p.shape = i.shape
    -- Not that it was built anew: a rebuild keeps what was tuned, and any other build ends it.
    CROSS JOIN LATERAL (VALUES
        (EXISTS (SELECT FROM unnest(i.options) o WHERE p.options ->> split_part(o, '=', 1) <> split_part(o, '=', 2)),
         format('on an index with other options (%s)', p.options)),
        (i.rows > 1.5 * p.tuned_rows, format('it has grown from %s rows to about %s', p.tuned_rows, i.rows))) AS reason (applies, text)
    WHERE i.place = 1 AND i.usable AND reason.applies
    ORDER BY i.space_id, reason.text
$$;
COMMENT ON FUNCTION pgvec._health_outgrown() IS 'Profiles that were measured on what is no longer there.';
