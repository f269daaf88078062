-- Promoting a metadata key to a typed column, online. schema/promote.py runs the steps in their order: CREATE INDEX CONCURRENTLY
-- cannot run in a function.
--
-- The metadata stays what counts, and the column follows it: loaders go on writing metadata, and a statement that was compiled
-- against the metadata stays right for ever. Until it holds every value the column has a name that pgvec._columns leaves out.

CREATE OR REPLACE FUNCTION pgvec.keep_promoted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The arguments: the column, the metadata key, the column's type; and "write" where the column was written, and the metadata follow.
    -- No function of schema pgvec is called: who writes rows need not have rights there.
    given jsonb;
    value jsonb;
    moment text;
BEGIN
    IF TG_ARGV[3] = 'write' THEN
        given := to_jsonb(NEW) -> TG_ARGV[0];
        NEW.metadata := CASE WHEN given = 'null' THEN NEW.metadata - TG_ARGV[1] ELSE NEW.metadata || jsonb_build_object(TG_ARGV[1], given) END;
        RETURN NEW;
    END IF;
    given := NEW.metadata -> TG_ARGV[1];
    BEGIN
        -- What a loader takes for a typed column (schema/columns.py), as a text that is read the same in every session.
        CASE TG_ARGV[2] || ' of ' || coalesce(jsonb_typeof(given), '')
            WHEN 'boolean of boolean', 'double precision of number' THEN value := given;
            WHEN 'bigint of number' THEN value := CASE WHEN given::numeric = trunc(given::numeric) THEN to_jsonb(given::bigint) END;
            WHEN 'text of string' THEN value := CASE WHEN octet_length(given #>> '{}') <= 2600 THEN given END;
            WHEN 'text[] of array' THEN
                value := CASE WHEN NOT EXISTS (SELECT FROM jsonb_array_elements(given) e
                                               WHERE jsonb_typeof(e.value) <> 'string' OR octet_length(e.value #>> '{}') > 2600) THEN given END;
            WHEN 'date of string' THEN value := CASE WHEN given #>> '{}' ~ '^(\d{4}-\d\d-\d\d|\d{8})$' THEN given END;
            WHEN 'timestamp with time zone of string' THEN
                -- Three plain matches: one with groups costs thirty times as much.
                moment := given #>> '{}';
                IF moment ~ '^(\d{4}-\d\d-\d\d|\d{8})([T ]([01]\d|2[0-3]):?[0-5]\d(:?[0-5]\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?$' THEN
                    moment := CASE WHEN moment ~ '\.\d{7}' THEN regexp_replace(moment, '(\.\d{6})\d+', '\1') ELSE moment END;
                    value := to_jsonb(moment || CASE WHEN moment !~ '[T ]' THEN 'T00:00Z'
                                                     WHEN substr(moment, 11) ~ '[-+Z]' THEN '' ELSE 'Z' END);
                END IF;
            ELSE value := NULL;
        END CASE;
        NEW := jsonb_populate_record(NEW, jsonb_build_object(TG_ARGV[0], value));
    EXCEPTION WHEN data_exception THEN  -- 30 February, 1e400
        value := NULL;
        NEW := jsonb_populate_record(NEW, jsonb_build_object(TG_ARGV[0], NULL));
    END;
    IF value IS NULL AND TG_OP = 'UPDATE' AND current_setting('pgvec.promoting', true) = TG_ARGV[0] THEN
        RETURN NULL;  -- the backfill has nothing to write here
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION pgvec.keep_promoted() IS
'Trigger of promoted columns: the column follows its metadata key; a value that cannot be read as its type leaves it NULL. What is written to
the column itself is written to the metadata as well, and counts over them.';

CREATE OR REPLACE FUNCTION pgvec._promoted(relation regclass) RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT a.attname
    FROM pg_trigger t JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = ANY (t.tgattr)
    WHERE t.tgrelid = relation AND starts_with(t.tgname, 'pgvec_promoted_')
$$;
COMMENT ON FUNCTION pgvec._promoted(regclass) IS 'The typed columns that follow a metadata key: loaders write the metadata only.';

CREATE OR REPLACE FUNCTION pgvec._promote_name(key text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT left(key, 36) || '_' || left(md5(key), 8) $$;
COMMENT ON FUNCTION pgvec._promote_name(text) IS 'A key as a part of names, of which PostgreSQL keeps 63 characters.';

CREATE OR REPLACE FUNCTION pgvec._promote_plan(collection text, key text, type text,
    OUT relation regclass, OUT wanted text, OUT hidden text, OUT state text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
    found text;
BEGIN
    PERFORM pgvec._check_name('column', key), pgvec._refuse_registered(owner, 'Add a column to it yourself: it is a typed column at once.');
    wanted := pgvec._column_type(type);
    relation := pgvec._relation(owner.schema_name, owner.table_name);
    hidden := 'pgvec_promoting_' || pgvec._promote_name(key);
    SELECT c.type INTO found FROM pgvec._columns(relation) c WHERE c."column" = key;
    IF found <> wanted THEN
        RAISE EXCEPTION 'column % of collection % is of type % already', quote_literal(key), quote_literal(collection), found
            USING ERRCODE = 'PV005', HINT = format('Promote another key, or drop it first: ALTER TABLE %s DROP COLUMN %I CASCADE.', relation, key);
    ELSIF found IS NULL AND (key = 'vector' OR starts_with(key, 'pgvec_promoting_')
                             OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = key AND NOT a.attisdropped)) THEN
        RAISE EXCEPTION '% is a column of every collection', quote_literal(key)
            USING ERRCODE = 'PV003', HINT = 'Only a metadata key can be promoted, of another name than these columns.';
    ELSIF found IS NULL AND NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = relation), 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table % to promote a key of it', relation
            USING ERRCODE = '42501', HINT = format('Do it as role %s.', (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = relation));
    END IF;
    state := CASE WHEN found IS NOT NULL THEN 'done' WHEN EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = hidden AND format_type(a.atttypid, a.atttypmod) = wanted)
        AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND starts_with(t.tgname, 'pgvec_promoted_' || pgvec._promote_name(key) || '_'))
        THEN 'begun' ELSE 'new' END;
END $$;
COMMENT ON FUNCTION pgvec._promote_plan(text, text, text) IS
'What a promotion is to do, and how far it is: new, begun (the hidden column is there, and the triggers) or done; PV001, PV003, PV005, 42501 if it cannot be.';

CREATE OR REPLACE FUNCTION pgvec._promote_drop(collection text, key text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
    trigger record;
BEGIN
    FOR trigger IN SELECT t.tgname FROM pg_trigger t WHERE t.tgrelid = pgvec._relation(owner.schema_name, owner.table_name)
                   AND starts_with(t.tgname, 'pgvec_promoted_' || pgvec._promote_name(key) || '_') LOOP
        EXECUTE format('DROP TRIGGER %I ON %I.%I', trigger.tgname, owner.schema_name, owner.table_name);
    END LOOP;
    EXECUTE format('ALTER TABLE %I.%I DROP COLUMN IF EXISTS %I', owner.schema_name, owner.table_name,
                   'pgvec_promoting_' || pgvec._promote_name(key));
END $$;
COMMENT ON FUNCTION pgvec._promote_drop(text, text) IS 'Drop what there is of an unfinished promotion: triggers, hidden column, its index.';

CREATE OR REPLACE FUNCTION pgvec._promote_trigger(relation regclass, key text, number integer, events text, condition text, arguments text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The names decide in which order they fire. Conditions spare all rows that are in step a call.
    EXECUTE format('CREATE TRIGGER %I BEFORE %s ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION pgvec.keep_promoted(%s)',
                   format('pgvec_promoted_%s_%s', pgvec._promote_name(key), number), events, relation,
                   replace(format(condition, arguments[1]), ':key', quote_literal(key)),
                   (SELECT string_agg(quote_literal(a), ', ' ORDER BY o) FROM unnest(arguments) WITH ORDINALITY AS u (a, o)));
END $$;
COMMENT ON FUNCTION pgvec._promote_trigger(regclass, text, integer, text, text, text[]) IS
'Create one of the triggers that keep a column and its key in step; condition names the column %1$I, the key :key.';

CREATE OR REPLACE FUNCTION pgvec._promote_begin(collection text, key text, type text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan record := pgvec._promote_plan(collection, key, type);
BEGIN
    IF plan.state <> 'new' THEN
        RETURN;
    END IF;
    PERFORM pgvec._promote_drop(collection, key);
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', plan.relation, plan.hidden, plan.wanted);
    PERFORM pgvec._promote_trigger(plan.relation, key, 3, 'INSERT OR UPDATE', 'NEW.metadata -> :key IS DISTINCT FROM to_jsonb(NEW.%1$I)',
                                   ARRAY[plan.hidden, key, plan.wanted]);
END $$;
COMMENT ON FUNCTION pgvec._promote_begin(text, text, text) IS
'Add the hidden column, and the trigger that fills it for all who write from now on. What was begun for another type is dropped.';

CREATE OR REPLACE FUNCTION pgvec._promote_batch(relation regclass, hidden text, metadata_key text, after bigint, upto bigint,
                                                OUT filled bigint, OUT busy boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('pgvec.promoting', hidden, true);
    -- Rows that others hold are left out: nobody waits for the other, nobody dies of a deadlock.
    EXECUTE format($sql$
        WITH due AS MATERIALIZED (
            SELECT d.key FROM %1$s d
            WHERE d.key > $1 AND d.key <= $2 AND d.%2$I IS NULL AND jsonb_typeof(d.metadata -> $3) <> 'null'
        ), held AS MATERIALIZED (
            SELECT d.key FROM %1$s d
            WHERE d.key > $1 AND d.key <= $2 AND d.%2$I IS NULL AND jsonb_typeof(d.metadata -> $3) <> 'null'
            FOR NO KEY UPDATE SKIP LOCKED
        ), filled AS (
            UPDATE %1$s d SET metadata = d.metadata FROM held h WHERE d.key = h.key AND d.key > $1 AND d.key <= $2 RETURNING d.key
        )
        SELECT (SELECT count(*) FROM filled), (SELECT count(*) FROM due) > (SELECT count(*) FROM held)$sql$, relation, hidden)
    INTO filled, busy USING after, upto, metadata_key;
    PERFORM set_config('pgvec.promoting', '', true);
END $$;
COMMENT ON FUNCTION pgvec._promote_batch(regclass, text, text, bigint, bigint) IS
'Fill the hidden column of rows with keys in (after, upto]: what the trigger makes of them. busy: some were locked, and have to be looked at again.';

CREATE OR REPLACE FUNCTION pgvec._promote_indexes(relation regclass, hidden text) RETURNS TABLE (name text, valid boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT x.indexrelid::regclass::text, x.indisvalid
    FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
    WHERE x.indrelid = relation AND a.attname = hidden
$$;
COMMENT ON FUNCTION pgvec._promote_indexes(regclass, text) IS 'Indexes of a column, and whether their build was completed.';

CREATE OR REPLACE FUNCTION pgvec._promote_finish(collection text, key text, type text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
    plan record := pgvec._promote_plan(collection, key, type);
    stem text := left(owner.table_name || '_' || key, 55);
    index text := stem || '_idx';
    column_differs text := 'NEW.metadata -> :key IS DISTINCT FROM to_jsonb(NEW.%1$I)';
BEGIN
    EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', plan.relation, plan.hidden, key);
    WHILE to_regclass(format('%I.%I', owner.schema_name, index)) IS NOT NULL LOOP
        index := stem || '_idx' || coalesce(substring(index FROM '_idx(\d+)$')::integer, 0) + 1;
    END LOOP;
    EXECUTE format('ALTER INDEX %s RENAME TO %I', (SELECT i.name FROM pgvec._promote_indexes(plan.relation, key) i WHERE i.valid LIMIT 1), index);
    PERFORM pgvec._promote_drop(collection, key);
    PERFORM pgvec._promote_trigger(plan.relation, key, 1, format('INSERT OR UPDATE OF %I', key), 'NEW.%1$I IS NOT NULL AND ' || column_differs,
                                   ARRAY[key, key, plan.wanted, 'write']);
    PERFORM pgvec._promote_trigger(plan.relation, key, 2, format('UPDATE OF %I', key), 'NEW.%1$I IS NULL AND OLD.%1$I IS NOT NULL',
                                   ARRAY[key, key, plan.wanted, 'write']);
    PERFORM pgvec._promote_trigger(plan.relation, key, 3, 'INSERT OR UPDATE', column_differs, ARRAY[key, key, plan.wanted]);
END $$;
COMMENT ON FUNCTION pgvec._promote_finish(text, text, text) IS 'Give the column its name, its index one, and the triggers the column as it is called now.';

CREATE OR REPLACE FUNCTION pgvec._promote_survey(relation regclass, "column" text, metadata_key text,
                                                 OUT rows bigint, OUT unreadable bigint, OUT examples jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    odd text := format('d.%I IS NULL AND jsonb_typeof(d.metadata -> $1) <> ''null''', "column");
BEGIN
    EXECUTE format('SELECT count(d.%I), count(*) FILTER (WHERE %s) FROM %s d', "column", odd, relation) INTO rows, unreadable USING metadata_key;
    IF unreadable > 0 THEN
        EXECUTE format('SELECT jsonb_agg(jsonb_build_array(e.id, e.value)) FROM (SELECT d.id, d.metadata -> $1 AS value FROM %s d WHERE %s LIMIT 3) e',
                       relation, odd) INTO examples USING metadata_key;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._promote_survey(regclass, text, text) IS
'How many rows have a value in the column; how many have none though their metadata hold the key, with up to three examples [id, value].';
