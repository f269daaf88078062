-- Earlier versions of chunks and vectors, kept by triggers: what deletion and replacement would lose, until it is purged.
--
-- <table>_history has a row a version: closed ones with what they were, and for each row that came or changed since then an open one
-- (valid_to is infinity), which only says since when the row is as it is in the table itself.

CREATE OR REPLACE FUNCTION pgvec.record_history() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The argument: which column of the history says what a version was. No function of schema pgvec is called: who writes rows need
    -- not have rights there.
    history text := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME || '_history');
    kept    text := CASE TG_ARGV[0] WHEN 'chunk' THEN 'to_jsonb(%1$s) - ''tsv''' ELSE '%1$s.embedding' END;
    changed text := CASE TG_ARGV[0] WHEN 'chunk' THEN format('(%s) IS DISTINCT FROM (%s)', format(kept, 'o'), format(kept, 'n'))
                                    ELSE 'NOT (o *= n)' END;
    gone    text := CASE TG_OP WHEN 'DELETE' THEN 'FROM old_rows o'
                               WHEN 'TRUNCATE' THEN format('FROM %I.%I o', TG_TABLE_SCHEMA, TG_TABLE_NAME)
                               WHEN 'UPDATE' THEN 'FROM old_rows o LEFT JOIN new_rows n USING (key) WHERE n.key IS NULL OR ' || changed END;
    come    text := CASE TG_OP WHEN 'INSERT' THEN 'FROM new_rows n'
                               WHEN 'UPDATE' THEN 'FROM new_rows n LEFT JOIN old_rows o USING (key) WHERE o.key IS NULL OR ' || changed END;
BEGIN
    IF gone IS NOT NULL THEN
        -- A version that began in this transaction, or in one that began later, nobody has seen in between.
        EXECUTE format($sql$
            WITH gone AS (SELECT key, %2$s AS kept %3$s),
            fleeting AS (DELETE FROM %1$s h USING gone g WHERE h.key = g.key AND h.valid_to = 'infinity' AND h.valid_from >= now() RETURNING h.key),
            closed AS (UPDATE %1$s h SET valid_to = now(), %4$I = g.kept FROM gone g
                       WHERE h.key = g.key AND h.valid_to = 'infinity' AND h.valid_from < now() RETURNING h.key)
            INSERT INTO %1$s (key, valid_from, valid_to, %4$I)
            SELECT g.key, '-infinity', now(), g.kept FROM gone g
            WHERE g.key NOT IN (SELECT f.key FROM fleeting f) AND g.key NOT IN (SELECT c.key FROM closed c)$sql$,
            history, format(kept, 'o'), gone, TG_ARGV[0]);
    END IF;
    IF come IS NOT NULL THEN
        -- Not before the version before it ended, whichever transaction began first.
        EXECUTE format($sql$
            INSERT INTO %1$s (key, valid_from)
            SELECT key, greatest(now(), (SELECT max(h.valid_to) FROM %1$s h WHERE h.key = n.key AND h.valid_to < 'infinity')) %2$s$sql$, history, come);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgvec.record_history() IS
'Trigger of collections with a history: what a statement deletes, changes or truncates is kept, and since when new rows are there.';

CREATE OR REPLACE FUNCTION pgvec._record(relation regclass, kind text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner   record;
    history text;
    kept    text;
BEGIN
    SELECT n.nspname, c.relname INTO owner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    history := format('%I.%I', owner.nspname, owner.relname || '_history');
    kept := CASE kind WHEN 'chunk' THEN 'jsonb'
                      ELSE (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = 'embedding') END;
    PERFORM pgvec._check_free(owner.nspname, owner.relname || '_history');
    EXECUTE format('CREATE TABLE %s (key bigint NOT NULL, valid_from timestamptz NOT NULL, valid_to timestamptz NOT NULL DEFAULT ''infinity'', %I %s, '
                   'PRIMARY KEY (key, valid_from))', history, kind, kept);
    EXECUTE format('CREATE INDEX ON %s (valid_to)', history);
    IF kind = 'chunk' THEN
        EXECUTE format('CREATE INDEX ON %s ((chunk ->> ''document_id''))', history);
    END IF;
    PERFORM pgvec._grant_as(relation, history::regclass),
            pgvec._create_triggers(relation::text, 'pgvec_history_', format('pgvec.record_history(%L)', kind), on_truncate => 'BEFORE');
END $$;
COMMENT ON FUNCTION pgvec._record(regclass, text) IS 'Begin the history of one table: of chunks, or of the vectors (embedding) of a space.';

CREATE OR REPLACE FUNCTION pgvec.create_history(collection text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  pgvec.collections := pgvec._collection(collection);
    chunks regclass := pgvec._relation(owner.schema_name, owner.table_name);
BEGIN
    PERFORM pgvec._refuse_registered(owner, 'Earlier versions of rows are for a collection of pgvec''s own to keep: pgvec.attach(relation, text) makes one that follows a table.');
    IF EXISTS (SELECT FROM pgvec.histories h WHERE h.collection_id = owner.id) THEN
        RAISE EXCEPTION 'collection % has a history already', quote_literal(collection)
            USING ERRCODE = 'PV002', HINT = 'Forget what it holds with pgvec.purge(collection), or drop it with pgvec.drop_history(collection).';
    ELSIF EXISTS (SELECT FROM pg_class c WHERE c.oid = chunks AND c.relrowsecurity) THEN
        RAISE EXCEPTION 'the chunk table of collection % has row-level security, which a history would not know', quote_literal(collection)
            USING ERRCODE = 'PV005', HINT = 'Keep the history in another collection, or do without.';
    END IF;
    -- From here on nobody else writes until the transaction ends; searches go on.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chunks);
    INSERT INTO pgvec.histories (collection_id, since) VALUES (owner.id, clock_timestamp());
    PERFORM pgvec._record(chunks, 'chunk');
    PERFORM pgvec._record(pgvec._relation(owner.schema_name, s.table_name), 'embedding') FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id;
END $$;
COMMENT ON FUNCTION pgvec.create_history(text) IS
'Keep earlier versions of the chunks and vectors of a collection from now on, in tables <table>_history: what is deleted or replaced can be
searched as of then (pgvec.search_as_of) and brought back (pgvec.restore_documents), until it is forgotten (pgvec.purge). Versions are those of
transactions: their time is when the one that wrote them began. So of two that overlap and write the same chunk, what the later begun one wrote is
not kept if the other one replaces it: it was there from its commit to the other one''s only. Whoever may read or write a table may do so with its history.
Example: SELECT pgvec.create_history(''docs'');';

CREATE OR REPLACE FUNCTION pgvec.drop_history(collection text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
    kept  text;
BEGIN
    -- Asked first: who drops collections that have none needs no right to delete there.
    IF NOT EXISTS (SELECT FROM pgvec.histories h WHERE h.collection_id = owner.id) THEN
        RETURN false;
    END IF;
    DELETE FROM pgvec.histories h WHERE h.collection_id = owner.id;
    FOR kept IN SELECT owner.table_name UNION ALL SELECT s.table_name FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id LOOP
        PERFORM pgvec._drop_triggers(format('%I.%I', owner.schema_name, kept), 'pgvec_history_');
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', owner.schema_name, kept || '_history');
    END LOOP;
    RETURN true;
END $$;
COMMENT ON FUNCTION pgvec.drop_history(text) IS 'Drop the history of a collection; what it is now stays. Returns whether there was one.
Example: SELECT pgvec.drop_history(''docs'');';

CREATE OR REPLACE FUNCTION pgvec._check_as_of(owner pgvec.collections, as_of timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    since  timestamptz := (SELECT h.since FROM pgvec.histories h WHERE h.collection_id = owner.id);
    chunks regclass := pgvec._relation(owner.schema_name, owner.table_name);
BEGIN
    IF since IS NULL THEN
        PERFORM pgvec._refuse_registered(owner, 'Registered tables have no history.');
        RAISE EXCEPTION 'collection % has no history', quote_literal(owner.name)
            USING ERRCODE = 'PV005', HINT = 'Let it have one from now on: pgvec.create_history(collection).';
    ELSIF (as_of >= since) IS NOT TRUE THEN
        RAISE EXCEPTION 'the history of collection % begins at %, after %', quote_literal(owner.name), since, coalesce(as_of::text, 'NULL')
            USING ERRCODE = 'PV005', HINT = 'Ask for a later time.';
    ELSIF row_security_active(chunks) THEN
        RAISE EXCEPTION 'row-level security hides rows of collection % from you, and its history knows nothing of that', quote_literal(owner.name)
            USING ERRCODE = 'PV005', HINT = 'Its owner can search the history.';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_as_of(pgvec.collections, timestamptz) IS 'PV005 unless the history of a collection reaches back to then.';

CREATE OR REPLACE FUNCTION pgvec._promoted_later_sql(chunks regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(string_agg(format($sql$jsonb_build_object(%1$L, CASE WHEN %2$s THEN h.chunk -> 'metadata' -> %1$L END)$sql$, c."column",
        CASE c.type WHEN 'text[]' THEN format('jsonb_typeof(h.chunk -> ''metadata'' -> %L) = ''array''', c."column")
                    ELSE format('pg_input_is_valid(h.chunk -> ''metadata'' ->> %L, %L)', c."column", c.type) END), ' || ') || ' || ', '')
    FROM pgvec._columns(chunks) c WHERE c."column" IN (SELECT pgvec._promoted(chunks))
$$;
COMMENT ON FUNCTION pgvec._promoted_later_sql(regclass) IS
'What a version from before a key was promoted has in its column, as an expression that the version itself is added to.';

CREATE OR REPLACE FUNCTION pgvec._as_of_sql(schema text, table_name text, kind text, as_of text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql$(
    SELECT t.* FROM {table} t
    WHERE NOT EXISTS (SELECT FROM {history} h WHERE h.key = t.key AND h.valid_to = 'infinity' AND h.valid_from > {as_of})
    UNION ALL
    SELECT {version} WHERE h.valid_to > {as_of} AND h.valid_from <= {as_of} AND h.valid_to < 'infinity'
  )$sql$, parts || jsonb_build_object('version', CASE kind
        WHEN 'chunk' THEN pgvec._render('c.* FROM {history} h CROSS JOIN LATERAL jsonb_populate_record(NULL::{table}, {promoted}h.chunk) c',
                                        parts || jsonb_build_object('promoted', pgvec._promoted_later_sql(pgvec._relation(schema, table_name))))
        ELSE pgvec._render('h.key, h.embedding FROM {history} h', parts) END))
    FROM jsonb_build_object('table', format('%I.%I', schema, table_name), 'history', format('%I.%I', schema, table_name || '_history'), 'as_of', as_of) parts
$$;
COMMENT ON FUNCTION pgvec._as_of_sql(text, text, text, text) IS 'The rows of a table as they were at a time: those that have been the same since, and closed versions.';

CREATE OR REPLACE FUNCTION pgvec.document_versions(collection text, document_id text)
RETURNS TABLE (version integer, valid_from timestamptz, valid_to timestamptz, chunks bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
BEGIN
    PERFORM pgvec._check_as_of(owner, 'infinity');
    RETURN QUERY EXECUTE format($sql$
        WITH pieces AS (
            SELECT h.valid_from, h.valid_to FROM %1$I.%3$I h WHERE h.chunk ->> 'document_id' = $1
            UNION ALL
            SELECT coalesce(h.valid_from, '-infinity'), 'infinity' FROM %1$I.%2$I d LEFT JOIN %1$I.%3$I h ON h.key = d.key AND h.valid_to = 'infinity'
            WHERE d.document_id = $1
        ), moments AS (
            SELECT m.moment, lead(m.moment) OVER (ORDER BY m.moment) AS following
            FROM (SELECT p.valid_from AS moment FROM pieces p UNION SELECT p.valid_to FROM pieces p) m
        )
        SELECT (row_number() OVER (ORDER BY m.moment))::integer, m.moment, m.following, count(*)
        FROM moments m JOIN pieces p ON p.valid_from <= m.moment AND m.moment < p.valid_to
        GROUP BY m.moment, m.following ORDER BY m.moment$sql$, owner.schema_name, owner.table_name, owner.table_name || '_history') USING document_id;
END $$;
COMMENT ON FUNCTION pgvec.document_versions(text, text) IS
'The versions of a document that the history of its collection knows, oldest first; -infinity: since before there was a history, infinity: as it
is now. Any time from valid_from on, and before valid_to, will do for pgvec.search_as_of and pgvec.restore_documents.
Example: SELECT version, chunks FROM pgvec.document_versions(''docs'', ''guide.md'');';

CREATE OR REPLACE FUNCTION pgvec.restore_documents(collection text, document_ids text[], as_of timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner    pgvec.collections := pgvec._collection(collection);
    columns  text;
    keys     bigint[];
    space    record;
BEGIN
    PERFORM pgvec._check_as_of(owner, as_of), pgvec.delete_documents(collection, document_ids);
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns FROM pg_attribute a
    WHERE a.attrelid = pgvec._relation(owner.schema_name, owner.table_name) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    EXECUTE format('WITH restored AS (INSERT INTO %I.%I (%s) SELECT %s FROM %s d WHERE d.document_id = ANY ($2) RETURNING key) SELECT array_agg(key) FROM restored',
                   owner.schema_name, owner.table_name, columns, columns, pgvec._as_of_sql(owner.schema_name, owner.table_name, 'chunk', '$1'))
        INTO keys USING as_of, document_ids;
    FOR space IN SELECT s.table_name FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id LOOP
        EXECUTE format('INSERT INTO %I.%I (key, embedding) SELECT v.key, v.embedding FROM %s v WHERE v.key = ANY ($2)', owner.schema_name, space.table_name,
                       pgvec._as_of_sql(owner.schema_name, space.table_name, 'embedding', '$1')) USING as_of, keys;
    END LOOP;
    RETURN coalesce(cardinality(keys), 0);
END $$;
COMMENT ON FUNCTION pgvec.restore_documents(text, text[], timestamptz) IS
'Bring documents back as they were at a time, with their vectors; what they are now becomes history. Those that were not there then are deleted.
Returns the number of chunks restored.
Example: SELECT pgvec.restore_documents(''docs'', ''{guide.md}'', now() - interval ''1 hour'');';

CREATE OR REPLACE FUNCTION pgvec.purge(collection text, before timestamptz DEFAULT now(), document_ids text[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  pgvec.collections := pgvec._collection(collection);
    until  timestamptz := least(before, now());
    keys   bigint[];
    purged bigint;
    space  record;
BEGIN
    PERFORM pgvec._check_as_of(owner, 'infinity');
    IF before IS NULL THEN
        RAISE EXCEPTION 'before is NULL' USING ERRCODE = 'PV005', HINT = 'Give the time before which to forget; now() forgets all history.';
    END IF;
    IF document_ids IS NULL THEN
        UPDATE pgvec.histories h SET since = until WHERE h.collection_id = owner.id AND h.since < until;
    ELSE
        -- Those of chunks that are there, too: their vectors may have been others.
        EXECUTE format('SELECT array_agg(key) FROM (SELECT h.key FROM %1$I.%3$I h WHERE h.chunk ->> ''document_id'' = ANY ($1)
                        UNION SELECT d.key FROM %1$I.%2$I d WHERE d.document_id = ANY ($1)) k', owner.schema_name, owner.table_name, owner.table_name || '_history')
            INTO keys USING document_ids;
    END IF;
    FOR space IN SELECT s.table_name FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id UNION ALL SELECT owner.table_name LOOP
        EXECUTE format('DELETE FROM %I.%I h WHERE h.valid_to <= $1 AND ($2 IS NULL OR h.key = ANY ($3))', owner.schema_name, space.table_name || '_history')
            USING until, document_ids, keys;
        GET DIAGNOSTICS purged = ROW_COUNT;  -- of the last table, the chunks'
    END LOOP;
    RETURN purged;
END $$;
COMMENT ON FUNCTION pgvec.purge(text, timestamptz, text[]) IS
'Forget the history of a collection before a time, or that of some documents only; what the collection is now stays. Returns the number of versions of
chunks that are gone for good.
Example: SELECT pgvec.purge(''docs'', now() - interval ''30 days'');';
