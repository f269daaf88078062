-- Another model for a collection, without downtime: a second vector space is filled beside the one that searches use, and takes its place.
-- A vector of a model is always one of the text that is there: the trigger below sees to it, whoever writes.

CREATE OR REPLACE FUNCTION pgvec.drop_outdated_vectors() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    texts    bigint[];
    contexts bigint[];
    space    record;
BEGIN
    -- Planned each time: what suits a few rows would take for ever with many.
    EXECUTE $sql$
        SELECT array_agg(n.key) FILTER (WHERE o.text IS DISTINCT FROM n.text), array_agg(n.key) FROM old_rows o JOIN new_rows n ON n.key = o.key
        WHERE o.text IS DISTINCT FROM n.text OR o.metadata -> 'pgvec_context' IS DISTINCT FROM n.metadata -> 'pgvec_context'$sql$ INTO texts, contexts;
    IF contexts IS NULL THEN
        RETURN NULL;
    END IF;
    FOR space IN SELECT s.table_name, s.is_default FROM pgvec.collections c JOIN pgvec.vector_spaces s ON s.collection_id = c.id
                 WHERE c.schema_name = TG_TABLE_SCHEMA AND c.table_name = TG_TABLE_NAME AND s.model_id IS NOT NULL LOOP
        -- upsert goes by the text, and would not make the vector of another context anew.
        EXECUTE format('DELETE FROM %I.%I WHERE key = ANY ($1)', TG_TABLE_SCHEMA, space.table_name)
            USING CASE WHEN space.is_default THEN texts ELSE contexts END;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgvec.drop_outdated_vectors() IS
'Trigger of chunk tables with a space that has a model: whatever changes a text, its vectors of models go, in the same transaction, to be made anew.';

CREATE OR REPLACE FUNCTION pgvec._follow_texts(owner pgvec.collections) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunks regclass := pgvec._relation(owner.schema_name, owner.table_name);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = chunks AND t.tgname = 'pgvec_vectors_update') THEN
        EXECUTE format('CREATE TRIGGER pgvec_vectors_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
                       'FOR EACH STATEMENT EXECUTE FUNCTION pgvec.drop_outdated_vectors()', chunks);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._follow_texts(pgvec.collections) IS 'Give a chunk table the trigger that drops the vectors of changed texts.';

CREATE OR REPLACE FUNCTION pgvec._unembedded(collection text, space text, OUT missing bigint, OUT textless bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner   pgvec.collections := pgvec._collection(collection);
    wanted  pgvec.vector_spaces := pgvec._space(collection, space);
    default_ pgvec.vector_spaces := pgvec._space(collection, NULL);
BEGIN
    -- The keys alone first: indexes have them, and few are left whose text has to be read.
    EXECUTE format($sql$
        WITH without AS MATERIALIZED (SELECT d.key FROM %1$s d WHERE NOT EXISTS (SELECT FROM %2$s v WHERE v.key = d.key))
        SELECT count(*) FILTER (WHERE t.embeddable), count(*) FILTER (WHERE NOT t.embeddable AND EXISTS (SELECT FROM %3$s v WHERE v.key = w.key))
        FROM without w JOIN %1$s d ON d.key = w.key CROSS JOIN LATERAL (SELECT coalesce(d.text ~ '\S', false) AS embeddable) t$sql$,
        pgvec._chunks_sql(owner), pgvec._vectors_sql(owner, wanted), pgvec._vectors_sql(owner, default_)) INTO missing, textless;
END $$;
COMMENT ON FUNCTION pgvec._unembedded(text, text) IS
'How many chunks with text have no vector in a space (missing), and how many without text have one in the default space only (textless).';

CREATE OR REPLACE FUNCTION pgvec._hold_writers(owner pgvec.collections) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunks  regclass := pgvec._relation(owner.schema_name, owner.table_name);
    given   text := current_setting('lock_timeout');
    wait    integer := 50;  -- milliseconds for which writers may have to queue behind us
    patient timestamptz := clock_timestamp() + interval '10 minutes';
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '10min', true);
            -- It stops no reader and no writer, and only for it does autovacuum give way.
            EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', chunks);
            PERFORM set_config('lock_timeout', wait || 'ms', true);
            EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chunks);
            PERFORM set_config('lock_timeout', given, true);
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF clock_timestamp() > patient THEN
                RAISE EXCEPTION 'others have been writing to % for 10 minutes', chunks
                    USING ERRCODE = 'PV005', HINT = format('Try again when their transactions have ended (pg_stat_activity.pid: %s).',
                        (SELECT string_agg(DISTINCT l.pid::text, ', ') FROM pg_locks l WHERE l.relation = chunks AND l.granted AND l.pid <> pg_backend_pid()));
            END IF;
        END;
        PERFORM pg_sleep(0.004 * wait);
        wait := least(2 * wait, 1000);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._hold_writers(pgvec.collections) IS
'Have nobody else write chunks until the transaction ends; searches go on. Until then no writer queues behind this for more than a second.';

CREATE OR REPLACE FUNCTION pgvec._grant_same(model regclass, relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    granted record;
BEGIN
    IF (SELECT m.relrowsecurity AND NOT r.relrowsecurity FROM pg_class m, pg_class r WHERE m.oid = model AND r.oid = relation) THEN
        RAISE EXCEPTION 'table % has row-level security, % has none', model, relation
            USING ERRCODE = 'PV005', HINT = format('Give it the same policies, and ALTER TABLE %s ENABLE ROW LEVEL SECURITY.', relation);
    END IF;
    FOR granted IN
        SELECT a.grantee, a.privilege_type, bool_or(a.is_grantable) AS is_grantable
        FROM pg_class m CROSS JOIN LATERAL aclexplode(coalesce(m.relacl, acldefault('r', m.relowner))) a JOIN pg_class r ON r.oid = relation
        WHERE m.oid = model AND a.grantee <> r.relowner
          AND NOT EXISTS (SELECT FROM aclexplode(r.relacl) h WHERE h.grantee = a.grantee AND h.privilege_type = a.privilege_type AND h.is_grantable >= a.is_grantable)
        GROUP BY 1, 2 LOOP
        EXECUTE format('GRANT %s ON %s TO %s%s', granted.privilege_type, relation, CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END,
                       CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._grant_same(regclass, regclass) IS 'Let those who may use one table use another that takes its place; PV005 if policies guard the first only.';

CREATE OR REPLACE FUNCTION pgvec._make_default(owner pgvec.collections, before pgvec.vector_spaces, wanted pgvec.vector_spaces) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgvec._grant_same(pgvec._relation(owner.schema_name, before.table_name), pgvec._relation(owner.schema_name, wanted.table_name));
    IF EXISTS (SELECT FROM pgvec.histories h WHERE h.collection_id = owner.id) THEN
        PERFORM pgvec._grant_same(pgvec._relation(owner.schema_name, before.table_name || '_history'), pgvec._relation(owner.schema_name, wanted.table_name || '_history'));
    END IF;
    UPDATE pgvec.vector_spaces s SET is_default = false WHERE s.id = before.id;
    UPDATE pgvec.vector_spaces s SET is_default = true WHERE s.id = wanted.id;
    UPDATE pgvec.swaps w SET state = CASE WHEN w.to_space_id = wanted.id THEN 'switched' ELSE 'rolled back' END, changed_at = clock_timestamp()
    WHERE w.collection_id = owner.id AND (w.from_space_id, w.to_space_id) IN ((before.id, wanted.id), (wanted.id, before.id));
    -- Who has queries logged goes on having them logged.
    IF has_table_privilege('pgvec.query_sampling', 'SELECT') AND has_table_privilege('pgvec.query_sampling', 'INSERT') THEN
        INSERT INTO pgvec.query_sampling (space_id, share, keep) SELECT wanted.id, q.share, q.keep FROM pgvec.query_sampling q WHERE q.space_id = before.id
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._make_default(pgvec.collections, pgvec.vector_spaces, pgvec.vector_spaces) IS
'Flip the default space of a collection, which nobody else writes, and whose chunks have their vectors in the other one.';

CREATE OR REPLACE FUNCTION pgvec.switch_space(collection text, space text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  pgvec.collections := pgvec._collection(collection);
    wanted pgvec.vector_spaces := pgvec._searched_space(collection, space);
    before pgvec.vector_spaces;
    absent record;
BEGIN
    -- What others wrote since the snapshot was taken would not be looked at.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'the default space cannot be switched in a transaction that is %', current_setting('transaction_isolation')
            USING ERRCODE = 'PV005', HINT = 'Switch in one that is READ COMMITTED.';
    END IF;
    PERFORM pgvec._hold_writers(owner);
    before := pgvec._space(collection, NULL);
    wanted := pgvec._searched_space(collection, space);
    IF wanted.is_default THEN
        RETURN before.name;
    END IF;
    SELECT u.missing, u.textless INTO absent FROM pgvec._unembedded(collection, space) u;
    IF absent.missing + absent.textless > 0 THEN
        RAISE EXCEPTION '% chunks would no longer be found: they have no vector in vector space %', absent.missing + absent.textless, quote_literal(wanted.name)
            USING ERRCODE = 'PV005', HINT = CASE WHEN absent.textless > 0 OR wanted.model_id IS NULL THEN 'Write their vectors first, with set_vectors or in SQL.'
                ELSE format('Embed them first: pgvec collection embed %s %s.', collection, wanted.name) END;
    END IF;
    PERFORM pgvec._make_default(owner, before, wanted);
    RETURN before.name;
END $$;
COMMENT ON FUNCTION pgvec.switch_space(text, text) IS
'Make a vector space of a collection the one that searches use unless they name another; returns the name of the one that was it, to which the same
leads back. Searches go on; writers wait while it counts that no chunk would be lost (PV005 if one would), and it waits for them, one second at a
time. Whoever may use the table of the old one may use that of the new one. Indexes, profiles and vectors of both stay as they are.
Example: SELECT pgvec.switch_space(''docs'', ''title'');';

CREATE OR REPLACE VIEW pgvec.model_swaps AS
SELECT c.name AS collection, w.from_space, w.to_space, w.from_model, w.to_model, w.state,
       w.from_space_id IS NOT NULL AND w.to_space_id IS NOT NULL AS is_open, w.comparison, w.started_at, w.changed_at
FROM pgvec.swaps w JOIN pgvec.collections c ON c.id = w.collection_id;
COMMENT ON VIEW pgvec.model_swaps IS
'Swaps of models, by pgvec model swap. is_open: both spaces are still there; state: backfilling, indexing, tuning, comparing, ready, switched,
rolled back; comparison: how the searches of both differ.';

CREATE OR REPLACE FUNCTION pgvec._follow_all_texts() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections;
BEGIN
    FOR owner IN SELECT c.id, c.name, c.schema_name, c.table_name, c.language, c.created_at FROM pgvec.collections c
                 WHERE EXISTS (SELECT FROM pgvec.vector_spaces s WHERE s.collection_id = c.id AND s.model_id IS NOT NULL)
                   AND NOT EXISTS (SELECT FROM pgvec.registered_tables r WHERE r.collection_id = c.id)
                   AND to_regclass(format('%I.%I', c.schema_name, c.table_name)) IS NOT NULL LOOP
        BEGIN
            PERFORM pgvec._follow_texts(owner);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING 'collection %: its tables belong to another role; to change a text leaves outdated vectors until it runs SELECT pgvec._follow_all_texts()',
                quote_literal(owner.name);
        END;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._follow_all_texts() IS
'Give the trigger that drops the vectors of changed texts to collections that are older than it is: the end of a migration.';
