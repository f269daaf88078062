-- Live tables: the functions and triggers that each attached table gets.

CREATE OR REPLACE FUNCTION pgvec._text_settings() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT ' SET timezone = ''UTC'' SET datestyle = ''ISO, YMD'' SET intervalstyle = ''postgres'' SET extra_float_digits = 1 SET bytea_output = ''hex''' $$;
COMMENT ON FUNCTION pgvec._text_settings() IS 'Settings on which the text of a value depends: a document has one id, whoever writes it.';

CREATE OR REPLACE FUNCTION pgvec._create_routines(attachment integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attached pgvec.attachments;
    parts    jsonb;
    template text;
BEGIN
    SELECT a.id, a.relation, a.routines_schema, a.text_sql, a.columns INTO attached.id, attached.relation, attached.routines_schema, attached.text_sql, attached.columns
    FROM pgvec.attachments a WHERE a.id = attachment;
    parts := pgvec._routine_parts(attached);
    FOREACH template IN ARRAY ARRAY[pgvec._rows_routine(), pgvec._keys_routine(),
                                    CASE WHEN (parts ->> 'by_row')::boolean THEN pgvec._row_trigger_routine() ELSE pgvec._trigger_routine() END] LOOP
        EXECUTE pgvec._render(template, parts);
    END LOOP;
    PERFORM pgvec._create_triggers(parts ->> 'relation', format('pgvec_live_%s_', attached.id), (parts ->> 'name') || '_changed()', 'pgvec_%s', (parts ->> 'by_row')::boolean),
            pgvec._grant_routines(attached), pgvec._give_routines(attached);
END $$;
COMMENT ON FUNCTION pgvec._create_routines(integer) IS 'Create the functions and triggers of an attachment.';

CREATE OR REPLACE FUNCTION pgvec._routine_parts(attached pgvec.attachments) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'n', attached.id,
        'name', format('%I.pgvec_live_%s', attached.routines_schema, attached.id),
        'relation', format('%I.%I', n.nspname, c.relname),
        'alias', quote_ident(c.relname),
        -- By their bytes: to some collations different texts are equal.
        'id', format('(%s COLLATE "C")', pgvec._key_sql(attached.relation)),
        'key', (SELECT string_agg(quote_ident(k."column"), ', ' ORDER BY k.place) FROM pgvec._key(attached.relation) k),
        'wanted', pgvec._from_key_sql(attached.relation, 'pgvec_id'),
        'after', pgvec._from_key_sql(attached.relation, '$1'),
        'text', '(' || attached.text_sql || E'\n)::text COLLATE "C"',
        'fields', coalesce((SELECT format('jsonb_build_object(%s)', string_agg(format('%L, %I', f, f), ', ')) FROM unnest(attached.columns) f), '''{}''::jsonb'),
        -- As texts: not every type can be compared.
        'compared', coalesce((SELECT string_agg(format(', %I::text COLLATE "C"', f), '') FROM unnest(attached.columns) f), ''),
        'settings', CASE WHEN (SELECT bool_and(k.plain) FROM pgvec._key(attached.relation) k) THEN '' ELSE pgvec._text_settings() END,
        'text_settings', pgvec._text_settings(),
        'may_notify', 'current_setting(''max_prepared_transactions'') = ''0''',
        'by_row', c.relkind = 'p' OR c.relispartition,
        -- A transition table does not have the values of virtual columns.
        'changed', CASE WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v') THEN 'true' ELSE 'o IS DISTINCT FROM n' END)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = attached.relation
$$;
COMMENT ON FUNCTION pgvec._routine_parts(pgvec.attachments) IS 'What the templates of an attachment''s functions are filled with.';

CREATE OR REPLACE FUNCTION pgvec._rows_routine() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $body$ SELECT $sql$
CREATE FUNCTION {name}_rows(text[]) RETURNS TABLE (document_id text, text text, fields jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp{text_settings}
AS $routine$
    SELECT pgvec_wanted.pgvec_id, pgvec_row.* FROM unnest($1) AS pgvec_wanted (pgvec_id)
    CROSS JOIN LATERAL (SELECT {text}, {fields} FROM {relation} AS {alias} WHERE ({key}) = ({wanted}) AND {id} = pgvec_id) AS pgvec_row
$routine$;
COMMENT ON FUNCTION {name}_rows(text[]) IS 'pgvec: what workers read of an attached table, with its owner''s rights; pgvec.detach drops it.';
$sql$ $body$;
COMMENT ON FUNCTION pgvec._rows_routine() IS 'Template of the function by which workers read rows of an attached table.';

CREATE OR REPLACE FUNCTION pgvec._keys_routine() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $body$ SELECT $sql$
CREATE FUNCTION {name}_keys(text, integer) RETURNS TABLE (document_id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp{text_settings}
AS $routine$
#variable_conflict use_column
BEGIN
    -- By another name: ORDER BY would take that of the text for that of the key.
    IF $1 = '' THEN
        RETURN QUERY SELECT {id} AS pgvec_id FROM {relation} AS {alias} ORDER BY {key} LIMIT $2;
    ELSE
        RETURN QUERY SELECT {id} AS pgvec_id FROM {relation} AS {alias} WHERE ({key}) > ({after}) ORDER BY {key} LIMIT $2;
    END IF;
END $routine$;
COMMENT ON FUNCTION {name}_keys(text, integer) IS 'pgvec: the documents of an attached table after one of them, with its owner''s rights; pgvec.detach drops it.';
$sql$ $body$;
COMMENT ON FUNCTION pgvec._keys_routine() IS 'Template of the function that lists the documents of an attached table.';

-- Nothing here may fail the statement of who writes the table. What cannot be compared, for the expression fails or names a column that is called
-- otherwise now, is noted all the same, by its key; if the key is another, everything is. Only who noted nothing would lose a change: then it warns.
-- To sleep, a worker locks pgvec.sleep: who cannot share that lock wakes it. So there is a NOTIFY, whose commits the server lets through one by one,
-- only where somebody sleeps; and nobody goes to sleep while a writer is under way that has seen all awake. Nor is there one where transactions may
-- be prepared, which those with a NOTIFY cannot: there, workers look each second.
CREATE OR REPLACE FUNCTION pgvec._trigger_frame() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $body$ SELECT $sql$
CREATE FUNCTION {name}_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp{settings}
AS $routine$
#variable_conflict use_column
DECLARE
    pgvec_noted bigint := 0;
BEGIN
{precise}
    IF pgvec_noted > 0 AND {may_notify} AND NOT pg_try_advisory_xact_lock_shared(hashtext('pgvec.sleep'), 0) THEN
        NOTIFY pgvec_queue;
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    BEGIN
        BEGIN
{coarse}
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO pgvec.changes (attachment_id) VALUES ({n});
        END;
        IF {may_notify} THEN
            NOTIFY pgvec_queue;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'pgvec could not note a change of %: %', TG_RELID::regclass, SQLERRM
            USING HINT = 'Searches do not see it until SELECT pgvec.requeue(collection, everything => true). pgvec doctor says what is wrong.';
    END;
    RETURN NULL;
END $routine$;
COMMENT ON FUNCTION {name}_changed() IS 'pgvec: notes changes of an attached table; pgvec.detach drops it and its triggers.';
REVOKE ALL ON FUNCTION {name}_changed() FROM PUBLIC;
$sql$ $body$;
COMMENT ON FUNCTION pgvec._trigger_frame() IS 'What the two kinds of trigger function have in common.';

CREATE OR REPLACE FUNCTION pgvec._trigger_routine() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $body$ SELECT pgvec._render(pgvec._trigger_frame(), jsonb_build_object('precise', $sql$
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO pgvec.changes (attachment_id, document_id)
        SELECT {n}, coalesce(n.pgvec_id, o.pgvec_id)
        FROM (SELECT {id} AS pgvec_id, {text} AS pgvec_text{compared} FROM pgvec_old AS {alias}) o
        FULL JOIN (SELECT {id} AS pgvec_id, {text} AS pgvec_text{compared} FROM pgvec_new AS {alias}) n ON n.pgvec_id = o.pgvec_id
        WHERE {changed};
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO pgvec.changes (attachment_id, document_id) SELECT {n}, {id} FROM pgvec_new AS {alias};
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO pgvec.changes (attachment_id, document_id) SELECT {n}, {id} FROM pgvec_old AS {alias};
    ELSE
        INSERT INTO pgvec.changes (attachment_id) VALUES ({n});
    END IF;
    GET DIAGNOSTICS pgvec_noted = ROW_COUNT;$sql$, 'coarse', $sql$
            IF TG_OP = 'UPDATE' THEN
                INSERT INTO pgvec.changes (attachment_id, document_id)
                SELECT {n}, {id} FROM pgvec_old AS {alias} UNION SELECT {n}, {id} FROM pgvec_new AS {alias};
            ELSE
                RAISE EXCEPTION 'not even its key';
            END IF;$sql$)) $body$;
COMMENT ON FUNCTION pgvec._trigger_routine() IS 'Template of the trigger function of a plain table, which runs once a statement.';

CREATE OR REPLACE FUNCTION pgvec._row_trigger_routine() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $body$ SELECT pgvec._render(pgvec._trigger_frame(), jsonb_build_object('precise', $sql$
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO pgvec.changes (attachment_id, document_id)
        SELECT DISTINCT {n}, d.id
        FROM (SELECT {id} AS pgvec_id, {text} AS pgvec_text{compared} FROM (SELECT (OLD).*) AS {alias}) o
        CROSS JOIN (SELECT {id} AS pgvec_id, {text} AS pgvec_text{compared} FROM (SELECT (NEW).*) AS {alias}) n
        CROSS JOIN LATERAL (VALUES (o.pgvec_id), (n.pgvec_id)) AS d (id)
        WHERE {changed};
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO pgvec.changes (attachment_id, document_id) SELECT {n}, {id} FROM (SELECT (NEW).*) AS {alias};
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO pgvec.changes (attachment_id, document_id) SELECT {n}, {id} FROM (SELECT (OLD).*) AS {alias};
    ELSE
        INSERT INTO pgvec.changes (attachment_id) VALUES ({n});
    END IF;
    GET DIAGNOSTICS pgvec_noted = ROW_COUNT;$sql$, 'coarse', $sql$
            IF TG_OP = 'UPDATE' THEN
                INSERT INTO pgvec.changes (attachment_id, document_id)
                SELECT {n}, {id} FROM (SELECT (OLD).*) AS {alias} UNION SELECT {n}, {id} FROM (SELECT (NEW).*) AS {alias};
            ELSE
                RAISE EXCEPTION 'not even its key';
            END IF;$sql$)) $body$;
COMMENT ON FUNCTION pgvec._row_trigger_routine() IS
'Template of the trigger function of a partitioned table, or of a partition, which runs once a row: whichever of them a statement names.';

CREATE OR REPLACE FUNCTION pgvec._grant_routines(attached pgvec.attachments) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    routine text;
    worker  text;
BEGIN
    FOREACH routine IN ARRAY ARRAY[format('%I.pgvec_live_%s_rows(text[])', attached.routines_schema, attached.id),
                                   format('%I.pgvec_live_%s_keys(text, integer)', attached.routines_schema, attached.id)] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', routine);
        -- Who may empty the queue is a worker.
        FOR worker IN SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
                      FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
                      WHERE c.oid = 'pgvec.queue'::regclass AND a.privilege_type = 'DELETE' LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', routine, worker);
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._grant_routines(pgvec.attachments) IS 'Let workers, and nobody else, read an attached table through its functions.';

CREATE OR REPLACE FUNCTION pgvec._give_routines(attached pgvec.attachments) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner name := (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = attached.relation);
    kind  text;
BEGIN
    IF owner = current_user THEN
        RETURN;
    END IF;
    FOREACH kind IN ARRAY '{changed(),rows(text[]),"keys(text, integer)"}'::text[] LOOP
        EXECUTE format('ALTER FUNCTION %I.pgvec_live_%s_%s OWNER TO %I', attached.routines_schema, attached.id, kind, owner);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._give_routines(pgvec.attachments) IS 'Let the functions of an attachment run with the rights of the table''s owner, and nobody else''s.';
