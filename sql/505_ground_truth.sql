-- Ground truth: which queries recall is measured on, and how long what is known of them holds.

CREATE OR REPLACE FUNCTION pgvec._stored_sql(owner pgvec.collections, wanted pgvec.vector_spaces, queries integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('SELECT v.key::bigint, v.embedding FROM %1$s v WHERE v.key = ANY (ARRAY('
                  'SELECT s.key FROM %1$s s ORDER BY hashint8extended(s.key, 0), s.key LIMIT %2$s)) ORDER BY hashint8extended(v.key, 0), v.key',
                  pgvec._vectors_sql(owner, wanted), queries)
$$;
COMMENT ON FUNCTION pgvec._stored_sql(pgvec.collections, pgvec.vector_spaces, integer) IS
'A statement that draws stored vectors, the same ones each time as far as they are still there: their truth may be known.';

CREATE OR REPLACE FUNCTION pgvec._logged_sql(wanted pgvec.vector_spaces, queries integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Each once: what one user asked over and over is one witness.
    SELECT format('SELECT l.query::%s, l.filter FROM pgvec.query_log l WHERE l.id IN (SELECT max(q.id) FROM pgvec.query_log q WHERE q.space_id = %s '
                  'GROUP BY hash_record_extended(ROW(q.query, q.filter), 0)) ORDER BY l.id DESC LIMIT %s',
                  pgvec._embedding_type(wanted.type, wanted.dimensions), wanted.id, queries)
$$;
COMMENT ON FUNCTION pgvec._logged_sql(pgvec.vector_spaces, integer) IS 'A statement for the newest different queries that were logged, with their filters.';

CREATE OR REPLACE FUNCTION pgvec._data_version(schema_name text, table_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    version text;
BEGIN
    -- Each version of a row has another place or another author. Summed, for rows are read in any order.
    EXECUTE format('SELECT concat(count(*), '':'', sum(hash_record_extended(ROW(v.ctid, v.xmin), 0)), '':'', %L::regclass::oid) FROM %1$s v',
                   format('%I.%I', schema_name, table_name)) INTO version;
    RETURN version;
END $$;
COMMENT ON FUNCTION pgvec._data_version(text, text) IS
'A fingerprint of the rows of a table: whatever inserts, updates or deletes any changes it, and so does rewriting the table. One scan, without the values.';
