-- The query log: a sample of what is asked, kept for tuning and watching, if and only if somebody switched it on.

CREATE OR REPLACE FUNCTION pgvec._may_log() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Who logs must be able to cut the log, or it would grow without end; to read the queries is not needed for that.
    SELECT current_setting('transaction_read_only') = 'off' AND has_table_privilege('pgvec.query_sampling', 'SELECT')
        AND has_table_privilege('pgvec.query_log', 'INSERT') AND has_table_privilege('pgvec.query_log', 'DELETE')
        AND has_column_privilege('pgvec.query_log', 'space_id', 'SELECT') AND has_column_privilege('pgvec.query_log', 'id', 'SELECT')
$$;
COMMENT ON FUNCTION pgvec._may_log() IS 'Whether queries can be logged by this role, in this transaction, on this server.';

CREATE OR REPLACE FUNCTION pgvec._log_query(space_id integer, query text, k integer, filter jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most integer;
BEGIN
    IF NOT pgvec._may_log() THEN
        RETURN;
    END IF;
    SELECT s.keep INTO most FROM pgvec.query_sampling s WHERE s.space_id = _log_query.space_id;
    IF NOT FOUND THEN
        RETURN;  -- switched off since the caller looked
    END IF;
    INSERT INTO pgvec.query_log (space_id, query, k, filter) VALUES (_log_query.space_id, _log_query.query, _log_query.k, nullif(_log_query.filter, 'null'));
    -- Now and then; and not while another transaction does, whose row locks this one would wait for.
    IF random() * greatest(1, least(most / 10, 1000)) < 1 AND pg_try_advisory_xact_lock(hashtext('pgvec.query_log'), _log_query.space_id) THEN
        DELETE FROM pgvec.query_log q
        WHERE q.space_id = _log_query.space_id
          AND q.id <= (SELECT l.id FROM pgvec.query_log l WHERE l.space_id = _log_query.space_id ORDER BY l.id DESC OFFSET most LIMIT 1);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'a query of vector space % was not logged: %', space_id, SQLERRM;
END $$;
COMMENT ON FUNCTION pgvec._log_query(integer, text, integer, jsonb) IS
'Keep a query that was sampled, and delete the oldest now and then. It does nothing where it must not, and never raises: no search fails for it.';

CREATE OR REPLACE FUNCTION pgvec._log_search(wanted pgvec.vector_spaces, query anyelement, k integer, filter jsonb,
                                             where_sql text DEFAULT NULL, exact boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    as_text text;
BEGIN
    -- Rights are checked for a statement as a whole: what it reads has to be in one of its own.
    IF where_sql IS NOT NULL OR exact OR NOT has_table_privilege('pgvec.query_sampling', 'SELECT') THEN
        RETURN;
    ELSIF (SELECT random() < s.share FROM pgvec.query_sampling s WHERE s.space_id = wanted.id) IS NOT TRUE THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT (%s)::text', pgvec._query_sql(wanted, query)) INTO as_text USING query;
    PERFORM pgvec._log_query(wanted.id, as_text, k, filter);
END $$;
COMMENT ON FUNCTION pgvec._log_search(pgvec.vector_spaces, anyelement, integer, jsonb, text, boolean) IS
'Log a search if its space is sampled and chance has it; but no exact one, which says nothing of an index, and none with conditions in SQL.';

CREATE OR REPLACE FUNCTION pgvec._sampling(collection text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pgvec._may_log() THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT jsonb_object_agg(n.name, jsonb_build_array(s.space_id, s.share))
            FROM pgvec.collections c
            JOIN pgvec.vector_spaces v ON v.collection_id = c.id
            JOIN pgvec.query_sampling s ON s.space_id = v.id
            CROSS JOIN LATERAL (VALUES (v.name), (CASE WHEN v.is_default THEN '' END)) n (name)
            WHERE c.name = collection AND n.name IS NOT NULL);
END $$;
COMMENT ON FUNCTION pgvec._sampling(text) IS
'Which spaces are logged by who asks, for clients that sample themselves: space to [id, share], the default one also as ""; NULL if none.';

CREATE OR REPLACE FUNCTION pgvec.log_queries(
    collection text,
    share      double precision DEFAULT 0.01,
    keep       integer          DEFAULT 10000,
    space      text             DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._searched_space(collection, space);
BEGIN
    IF coalesce(share, 0) = 0 THEN
        DELETE FROM pgvec.query_sampling s WHERE s.space_id = wanted.id;
        RETURN;
    ELSIF NOT (share > 0 AND share <= 1) THEN
        RAISE EXCEPTION 'share must be from 0 to 1, not %', share USING ERRCODE = 'PV005', HINT = 'It is the share of the queries that is logged: 0.01 is one in a hundred.';
    ELSIF (keep BETWEEN 1 AND 100000) IS NOT TRUE THEN
        RAISE EXCEPTION 'keep must be from 1 to 100000, not %', coalesce(keep::text, 'NULL') USING ERRCODE = 'PV005', HINT = 'It is the number of queries that are kept, the newest ones.';
    END IF;
    INSERT INTO pgvec.query_sampling AS s (space_id, share, keep) VALUES (wanted.id, log_queries.share, log_queries.keep)
    ON CONFLICT (space_id) DO UPDATE SET share = excluded.share, keep = excluded.keep;
END $$;
COMMENT ON FUNCTION pgvec.log_queries(text, double precision, integer, text) IS
'Log a share of the queries that a space is asked, drawn at random: the vector as text, k, the filter, and when, in pgvec.query_log. share NULL or
0 switches it off and keeps what was logged. About the newest keep of them are kept. Off unless switched on; pgvec.watch and tuning then go by what
users ask. Searches log with the rights of who searches, who needs INSERT and DELETE on pgvec.query_log and SELECT on its columns id and space_id:
without these, in read-only transactions and on standbys a search logs nothing, and never fails for it. Exact searches, and those with where_sql,
are not logged. Python takes up to a minute to notice. A vector can tell what was asked: grant SELECT on pgvec.query_log with care.
Example: SELECT pgvec.log_queries(''docs'', share => 0.05);';

CREATE OR REPLACE FUNCTION pgvec.logged_queries(collection text, space text DEFAULT NULL)
RETURNS TABLE (share double precision, keep integer, queries bigint, filtered bigint, oldest timestamptz, newest timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted pgvec.vector_spaces := pgvec._searched_space(collection, space);
BEGIN
    RETURN QUERY
    SELECT s.share, s.keep, count(q.id), count(q.filter), min(q.asked_at), max(q.asked_at)
    FROM (VALUES (wanted.id)) w (id)
    LEFT JOIN pgvec.query_sampling s ON s.space_id = w.id
    LEFT JOIN pgvec.query_log q ON q.space_id = w.id
    GROUP BY s.share, s.keep;
END $$;
COMMENT ON FUNCTION pgvec.logged_queries(text, text) IS
'What is logged of the queries of a space: the share and how many are kept (NULL: it is off), how many there are, how many of them have a
filter, and since when.
Example: SELECT * FROM pgvec.logged_queries(''docs'');';

CREATE OR REPLACE FUNCTION pgvec.forget_queries(collection text, space text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted    pgvec.vector_spaces := pgvec._searched_space(collection, space);
    forgotten bigint;
BEGIN
    DELETE FROM pgvec.query_log q WHERE q.space_id = wanted.id;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
COMMENT ON FUNCTION pgvec.forget_queries(text, text) IS
'Delete the logged queries of a space; it returns how many there were. Logging goes on if it is on.
Example: SELECT pgvec.forget_queries(''docs'');';
