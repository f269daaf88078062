-- The queue of live tables: what triggers noted becomes one row a document, workers claim rows, and say how it went.
--
-- No user waits for a worker, nor the other way round: triggers only insert into pgvec.changes. Workers move that into pgvec.queue, in the order
-- of documents. Who writes a document holds FOR KEY SHARE on its row of the queue: changes may be counted meanwhile (version), but nobody claims it.
-- A claim lives as long as the session of its worker, which holds an advisory lock by its number, and until locked_until at most.

CREATE OR REPLACE FUNCTION pgvec._living_workers() RETURNS integer[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(l.objid::bigint::integer), '{}') FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.classid::bigint = hashtext('pgvec.worker')::bigint & 4294967295
$$;
COMMENT ON FUNCTION pgvec._living_workers() IS 'The numbers of workers whose session is there.';

CREATE OR REPLACE FUNCTION pgvec._fold(most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ids bigint[];
BEGIN
    ids := ARRAY(SELECT c.id FROM pgvec.changes c ORDER BY c.id LIMIT most FOR UPDATE SKIP LOCKED);
    IF ids = '{}' THEN
        RETURN 0;
    END IF;
    -- In one order, against deadlocks of two workers: attachments, as who queues all rows, then documents.
    UPDATE pgvec.attachments a SET backfill_after = ''
    WHERE a.id IN (SELECT c.attachment_id FROM pgvec.changes c WHERE c.id = ANY (ids) AND c.document_id IS NULL);
    INSERT INTO pgvec.queue AS q (attachment_id, document_id, changed_at)
    SELECT c.attachment_id, c.document_id, min(c.changed_at)
    FROM pgvec.changes c JOIN pgvec.attachments a ON a.id = c.attachment_id
    WHERE c.id = ANY (ids) AND c.document_id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, c.document_id COLLATE "C"
    ON CONFLICT (attachment_id, document_id) DO UPDATE
    SET version = q.version + 1, attempts = 0, run_after = now(), error = NULL, changed_at = least(q.changed_at, excluded.changed_at);
    DELETE FROM pgvec.changes c WHERE c.id = ANY (ids);
    RETURN cardinality(ids);
END $$;
COMMENT ON FUNCTION pgvec._fold(integer) IS 'Move some changes into the queue, where each document is once; returns how many.';

CREATE OR REPLACE FUNCTION pgvec._backfill(attachment integer, most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    after_ text;
    schema text;
    ids    text[];
    gone   bigint;
BEGIN
    -- One worker at a time; the others have other work.
    SELECT a.backfill_after, a.routines_schema INTO after_, schema FROM pgvec.attachments a
    WHERE a.id = attachment AND a.backfill_after IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    EXECUTE format('SELECT array_agg(k.document_id ORDER BY k.place) FROM ROWS FROM (%I.pgvec_live_%s_keys($1, $2)) WITH ORDINALITY AS k (document_id, place)', schema, attachment)
        INTO ids USING after_, most;
    -- Who has claimed one may have read it by another definition: then it is looked at once more.
    INSERT INTO pgvec.queue AS q (attachment_id, document_id) SELECT attachment, k.id FROM unnest(ids) k (id) ORDER BY k.id COLLATE "C"
    ON CONFLICT (attachment_id, document_id) DO UPDATE SET version = q.version + 1 WHERE q.claimed_by IS NOT NULL;
    IF cardinality(ids) = most THEN
        UPDATE pgvec.attachments a SET backfill_after = ids[most] WHERE a.id = attachment;
        RETURN most;
    END IF;
    -- In the end, what the collection has and the table has not.
    EXECUTE format('INSERT INTO pgvec.queue AS q (attachment_id, document_id) '
                   'SELECT a.id, l.document_id FROM pgvec.attachments a JOIN pgvec.ledger l ON l.collection_id = a.collection_id AND l.source = ''table:'' || a.relation_name '
                   'WHERE a.id = $1 AND l.document_id NOT IN (SELECT k.document_id FROM %I.pgvec_live_%s_keys('''', 2147483647) k) '
                   'ORDER BY l.document_id COLLATE "C" ON CONFLICT (attachment_id, document_id) DO UPDATE SET version = q.version + 1 WHERE q.claimed_by IS NOT NULL',
                   schema, attachment) USING attachment;
    GET DIAGNOSTICS gone = ROW_COUNT;
    UPDATE pgvec.attachments a SET backfill_after = NULL WHERE a.id = attachment;
    RETURN coalesce(cardinality(ids), 0) + gone;
END $$;
COMMENT ON FUNCTION pgvec._backfill(integer, integer) IS
'Queue the next of the rows of a table, all of which are to be looked at, and in the end what is no longer in it; returns how many.';

CREATE OR REPLACE FUNCTION pgvec._claim(attachment integer, worker integer, most integer, lease interval)
RETURNS TABLE (id bigint, document_id text, version bigint, attempts integer)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pgvec.queue q SET claimed_by = _claim.worker, locked_until = clock_timestamp() + _claim.lease
    FROM (SELECT w.id FROM pgvec.queue w
          WHERE w.attachment_id = _claim.attachment AND w.run_after <= clock_timestamp()
            -- One's own is left over, for it changed while it was being written.
            AND (w.claimed_by IS NULL OR w.claimed_by = _claim.worker OR w.locked_until < clock_timestamp() OR w.claimed_by <> ALL ((SELECT pgvec._living_workers())::integer[]))
          ORDER BY w.run_after, w.id LIMIT _claim.most FOR UPDATE SKIP LOCKED) mine
    WHERE q.id = mine.id
    RETURNING q.id, q.document_id, q.version, q.attempts
$$;
COMMENT ON FUNCTION pgvec._claim(integer, integer, integer, interval) IS 'Claim documents that are due and nobody''s, or of a worker that is no more.';

CREATE OR REPLACE FUNCTION pgvec._renew(ids bigint[], worker integer, lease interval) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pgvec.queue q SET locked_until = clock_timestamp() + _renew.lease
    FROM (SELECT w.id FROM pgvec.queue w WHERE w.id = ANY (ids) AND w.claimed_by = _renew.worker ORDER BY w.id FOR NO KEY UPDATE SKIP LOCKED) mine WHERE q.id = mine.id
$$;
COMMENT ON FUNCTION pgvec._renew(bigint[], integer, interval) IS 'Go on holding what a worker has claimed, if nobody claimed it since.';

CREATE OR REPLACE FUNCTION pgvec._still_claimed(ids bigint[], worker integer) RETURNS bigint[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(mine.id), '{}')
    FROM (SELECT q.id FROM pgvec.queue q WHERE q.id = ANY (ids) AND q.claimed_by = _still_claimed.worker ORDER BY q.id FOR KEY SHARE SKIP LOCKED) mine
$$;
COMMENT ON FUNCTION pgvec._still_claimed(bigint[], integer) IS
'Which of these a worker may write: nobody claimed them since, nor can until its transaction ends. Changes can be counted meanwhile.';

CREATE OR REPLACE FUNCTION pgvec._settle(ids bigint[], versions bigint[], worker integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    settled bigint;
BEGIN
    -- What changed since it was claimed stays, and so does what is being counted right now.
    DELETE FROM pgvec.queue q
    USING (SELECT w.id FROM pgvec.queue w JOIN unnest(ids, versions) AS d (id, version) ON d.id = w.id AND d.version = w.version
           WHERE w.claimed_by = _settle.worker ORDER BY w.id FOR UPDATE OF w SKIP LOCKED) mine
    WHERE q.id = mine.id;
    GET DIAGNOSTICS settled = ROW_COUNT;
    RETURN settled;
END $$;
COMMENT ON FUNCTION pgvec._settle(bigint[], bigint[], integer) IS 'Take out of the queue what is done, if it is still of the version that was claimed.';

CREATE OR REPLACE FUNCTION pgvec._postpone(ids bigint[], worker integer, seconds double precision, error text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pgvec.queue q SET claimed_by = NULL, locked_until = NULL, attempts = q.attempts + 1, error = _postpone.error,
           run_after = clock_timestamp() + make_interval(secs => _postpone.seconds)
    FROM (SELECT w.id FROM pgvec.queue w WHERE w.id = ANY (ids) AND w.claimed_by = _postpone.worker ORDER BY w.id FOR UPDATE SKIP LOCKED) mine
    WHERE q.id = mine.id
$$;
COMMENT ON FUNCTION pgvec._postpone(bigint[], integer, double precision, text) IS 'Try documents again, but not yet.';

CREATE OR REPLACE FUNCTION pgvec._bury(attachment integer, document_id text, stage text, error text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgvec.failures AS f (collection_id, document_id, source, stage, error)
    SELECT a.collection_id, _bury.document_id, 'table:' || a.relation_name, _bury.stage, _bury.error FROM pgvec.attachments a WHERE a.id = attachment
    ON CONFLICT ON CONSTRAINT failures_pkey DO UPDATE SET stage = excluded.stage, error = excluded.error, source = excluded.source, attempts = f.attempts + 1, last_at = now()
$$;
COMMENT ON FUNCTION pgvec._bury(integer, text, text, text) IS 'Enter a document that cannot be embedded among the failures.';

CREATE OR REPLACE FUNCTION pgvec._count_work(attachment integer, documents bigint, error text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pgvec.attachments a
    SET rate = a.rate * exp(extract(epoch FROM a.rate_at - clock_timestamp()) / 60) + documents, rate_at = clock_timestamp(),
        error = _count_work.error, error_at = CASE WHEN _count_work.error IS NOT NULL THEN clock_timestamp() END
    WHERE a.id = attachment
$$;
COMMENT ON FUNCTION pgvec._count_work(integer, bigint, text) IS 'Count documents that were done, and say why none can be.';

CREATE OR REPLACE FUNCTION pgvec._requeue_failed(collection_id integer, document_ids text[]) RETURNS text[]
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    WITH gone AS (
        DELETE FROM pgvec.failures f USING pgvec.attachments a
        WHERE a.collection_id = _requeue_failed.collection_id AND f.collection_id = a.collection_id AND f.source = 'table:' || a.relation_name
          AND (document_ids IS NULL OR f.document_id = ANY (document_ids))
        RETURNING a.id, f.document_id
    ), noted AS (
        INSERT INTO pgvec.changes (attachment_id, document_id) SELECT g.id, g.document_id FROM gone g
    )
    SELECT coalesce(array_agg(g.document_id), '{}') FROM gone g
$$;
COMMENT ON FUNCTION pgvec._requeue_failed(integer, text[]) IS 'Have rows of an attached table that failed tried again, all or some; returns which.';

CREATE OR REPLACE FUNCTION pgvec.requeue(collection text, everything boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attachment integer := pgvec._attachment(collection);
    owner      integer := (SELECT a.collection_id FROM pgvec.attachments a WHERE a.id = attachment);
    requeued   bigint;
BEGIN
    requeued := cardinality(pgvec._requeue_failed(owner, NULL));
    IF everything THEN
        INSERT INTO pgvec.changes (attachment_id) VALUES (attachment);
    END IF;
    UPDATE pgvec.queue q SET run_after = now(), attempts = 0
    FROM (SELECT w.id FROM pgvec.queue w WHERE w.attachment_id = attachment AND w.run_after > now() FOR UPDATE SKIP LOCKED) waiting WHERE q.id = waiting.id;
    NOTIFY pgvec_queue;
    RETURN requeued;
END $$;
COMMENT ON FUNCTION pgvec.requeue(text, boolean) IS
'Have the documents of an attached table tried again that failed, and those that wait for another attempt at once; returns how many had failed.
everything: all its documents are compared with the table, and what differs is embedded.
Example: SELECT pgvec.requeue(''products_search'');';

CREATE OR REPLACE VIEW pgvec.queue_lag AS
SELECT c.name AS collection, coalesce(n.nspname || '.' || k.relname, a.relation_name || ' (gone)') AS relation,
       coalesce(w.pending, 0) + coalesce(h.pending, 0) AS pending, a.backfill_after IS NOT NULL AS backfilling,
       CASE WHEN now() > least(w.oldest, h.oldest) THEN date_trunc('milliseconds', now() - least(w.oldest, h.oldest)) END AS oldest_age,
       coalesce(w.in_work, 0) AS in_work, coalesce(w.waiting, 0) AS waiting, coalesce(f.failed, 0) AS failed,
       round((a.rate * exp(least(0, extract(epoch FROM a.rate_at - now())) / 60))::numeric, 1) AS per_minute,
       coalesce(a.error, w.error) AS error
FROM pgvec.attachments a
JOIN pgvec.collections c ON c.id = a.collection_id
LEFT JOIN pg_catalog.pg_class k ON k.oid = a.relation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
LEFT JOIN (SELECT q.attachment_id, count(*) AS pending, min(q.changed_at) AS oldest, count(*) FILTER (WHERE q.locked_until > now()) AS in_work,
                  count(*) FILTER (WHERE q.run_after > now()) AS waiting, max(q.error) AS error
           FROM pgvec.queue q GROUP BY q.attachment_id) w ON w.attachment_id = a.id
LEFT JOIN (SELECT g.attachment_id, count(DISTINCT coalesce(g.document_id, '')) AS pending, min(g.changed_at) AS oldest
           FROM pgvec.changes g GROUP BY g.attachment_id) h ON h.attachment_id = a.id
LEFT JOIN LATERAL (SELECT count(*) AS failed FROM pgvec.failures f
                   WHERE f.collection_id = a.collection_id AND f.source = 'table:' || a.relation_name) f ON true;
COMMENT ON VIEW pgvec.queue_lag IS
'How far collections are behind the tables that they follow. pending: documents that wait, or that workers have claimed (in_work); waiting: those whose
last attempt failed, and that are tried again later; oldest_age: how long the oldest of them is waiting; backfilling: whether rows that were there
before are still to be queued; failed: documents that are given up until pgvec.requeue; per_minute: documents that were done, decaying;
error: why none can be, or the last attempt failed.
Example: SELECT collection, pending, oldest_age, failed FROM pgvec.queue_lag;';

CREATE OR REPLACE FUNCTION pgvec._attach_sql(attachment integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('SELECT pgvec.attach(%L, text => %L, collection => %L%s%s);', coalesce(quote_ident(n.nspname) || '.' || quote_ident(k.relname), a.relation_name), a.text_sql, c.name,
                  CASE WHEN a.columns <> '{}' THEN format(', columns => %L', a.columns) END, CASE WHEN a.chunking <> '{}' THEN format(', chunking => %L', a.chunking) END)
    FROM pgvec.attachments a JOIN pgvec.collections c ON c.id = a.collection_id
    LEFT JOIN pg_class k ON k.oid = a.relation LEFT JOIN pg_namespace n ON n.oid = k.relnamespace WHERE a.id = attachment
$$;
COMMENT ON FUNCTION pgvec._attach_sql(integer) IS 'The statement that attaches a table again as it is.';

CREATE OR REPLACE FUNCTION pgvec._health_attached() RETURNS TABLE (severity text, subject text, finding text, mend text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH attached AS (
        SELECT a.id, a.error, pgvec._attach_sql(a.id) AS again, c.name AS collection, k.oid AS relation, k.relowner, pgvec._attached_name(a.id) AS name,
               quote_ident(s.nspname) || '.' || quote_ident(k.relname) AS quoted, p.oid AS routine, p.proowner, r.prosrc AS rows_source,
               (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = k.oid AND t.tgname LIKE format('pgvec\_live\_%s\_%%', a.id) AND t.tgenabled IN ('O', 'A')) AS triggers
        FROM pgvec.attachments a JOIN pgvec.collections c ON c.id = a.collection_id
        LEFT JOIN pg_class k ON k.oid = a.relation LEFT JOIN pg_namespace s ON s.oid = k.relnamespace
        -- By name: to_regprocedure would fail where the schema is not ours to use.
        LEFT JOIN pg_namespace h ON h.nspname = a.routines_schema
        LEFT JOIN pg_proc p ON p.pronamespace = h.oid AND p.proname = format('pgvec_live_%s_changed', a.id)
        LEFT JOIN pg_proc r ON r.pronamespace = h.oid AND r.proname = format('pgvec_live_%s_rows', a.id)
    ), lag AS MATERIALIZED (
        SELECT l.collection, l.relation, l.pending, l.in_work, l.waiting, l.failed, l.oldest_age FROM pgvec.queue_lag l
    )
    SELECT 'error', 'collection ' || a.collection, format('table %s, which it follows, is gone', a.name), format('SELECT pgvec.detach(%L);', a.collection)
    FROM attached a WHERE a.relation IS NULL
    UNION ALL
    SELECT 'error', 'collection ' || a.collection, format('triggers or functions of table %s, which it follows, are gone or disabled: changes are not seen', a.name), a.again
    FROM attached a WHERE a.relation IS NOT NULL AND (a.routine IS NULL OR a.triggers < 4)
    UNION ALL
    SELECT 'error', 'collection ' || a.collection, format('table %s, which it follows, was called otherwise when it was attached: workers read what is called so now', a.name), a.again
    FROM attached a WHERE position(format('FROM %s AS', a.quoted) IN a.rows_source) = 0
    UNION ALL
    SELECT 'error', 'collection ' || a.collection,
           format('functions that read table %s run with the rights of role %s, and it belongs to %s', a.name, a.proowner::regrole, a.relowner::regrole), a.again
    FROM attached a WHERE a.proowner <> a.relowner
    UNION ALL
    SELECT 'error', 'collection ' || a.collection, format('no row of table %s, which it follows, can be embedded: %s', a.name, a.error),
           a.again || '  -- with what text is now; or see to the model'
    FROM attached a WHERE a.relation IS NOT NULL AND a.error IS NOT NULL
    UNION ALL
    SELECT 'error', 'collection ' || a.collection, format('role %s may not note changes of table %s', a.proowner::regrole, a.name),
           format('GRANT USAGE ON SCHEMA pgvec TO %1$s; GRANT INSERT ON pgvec.changes TO %1$s; SELECT pgvec.requeue(%2$L, everything => true);', a.proowner::regrole, a.collection)
    FROM attached a WHERE NOT (has_schema_privilege(a.proowner, 'pgvec', 'USAGE') AND has_table_privilege(a.proowner, 'pgvec.changes', 'INSERT'))
    UNION ALL
    SELECT 'warning', 'collection ' || l.collection, format('%s documents wait for a worker, the oldest for %s', l.pending, date_trunc('second', l.oldest_age)),
           'pgvec worker --collection ' || l.collection
    FROM lag l WHERE l.pending > 0 AND l.in_work = 0 AND l.waiting < l.pending AND l.oldest_age > interval '10 minutes'
    UNION ALL
    SELECT 'warning', 'collection ' || l.collection, format('%s documents of table %s could not be embedded (see pgvec.failures)', l.failed, l.relation),
           format('SELECT pgvec.requeue(%L);  -- after seeing to the reasons', l.collection)
    FROM lag l WHERE l.failed > 0
$$;
COMMENT ON FUNCTION pgvec._health_attached() IS 'Collections that cannot follow their table, or do not.';
