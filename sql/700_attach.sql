-- Live tables: rows of a user's own table are documents of a collection. Triggers note what changes, workers (pgvec worker) follow.
--
-- Of an attachment number n there are, in the schema of its table, pgvec_live_n_changed(), the trigger function; pgvec_live_n_rows(ids), what
-- workers read; pgvec_live_n_keys(after, count), the documents in order, for rows that were there before. They belong to the owner of the table
-- and run with his rights: whoever writes the table needs no rights here, and a worker needs none on the table. Nobody else's rights will do, not
-- those of who attached it: by a type of a column, or a function that the expression names, the owner decides what they execute.

CREATE OR REPLACE FUNCTION pgvec._key(relation regclass) RETURNS TABLE ("column" name, type text, place integer, plain boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), k.place::integer,
           a.atttypid::regtype::text = ANY ('{smallint,integer,bigint,oid,uuid,text,character varying,character,boolean,numeric,name}')
    FROM pg_constraint c CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
    WHERE c.conrelid = relation AND c.contype = 'p' ORDER BY k.place
$$;
COMMENT ON FUNCTION pgvec._key(regclass) IS 'The columns of a primary key. plain: of a type whose text no setting of a session changes.';

CREATE OR REPLACE FUNCTION pgvec._key_sql(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Of several columns, a JSON array: no value can be taken for the end of the one before.
    SELECT CASE count(*) WHEN 1 THEN format('%I::text', min(k."column"))
           ELSE format('jsonb_build_array(%s)::text', string_agg(format('%I::text', k."column"), ', ' ORDER BY k.place)) END
    FROM pgvec._key(relation) k
$$;
COMMENT ON FUNCTION pgvec._key_sql(regclass) IS 'The document id of a row: its primary key as text, a JSON array of texts if it has several columns.';

CREATE OR REPLACE FUNCTION pgvec._from_key_sql(relation regclass, id text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE count(*) WHEN 1 THEN format('%s::%s', id, min(k.type))
           ELSE string_agg(format('(%s::jsonb ->> %s)::%s', id, k.place - 1, k.type), ', ' ORDER BY k.place) END
    FROM pgvec._key(relation) k
$$;
COMMENT ON FUNCTION pgvec._from_key_sql(regclass, text) IS 'The primary key of a document id, which is an expression.';

CREATE OR REPLACE FUNCTION pgvec._check_attachable(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found record;
BEGIN
    SELECT c.relkind, c.relpersistence, c.relnamespace, c.relowner::regrole AS owner, pg_has_role(c.relowner, 'USAGE') AS own,
           has_schema_privilege(c.relowner, 'pgvec', 'USAGE') AND has_table_privilege(c.relowner, 'pgvec.changes', 'INSERT') AS may_note,
           c.relowner = current_user::regrole OR (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user)
               OR has_schema_privilege(c.relowner, c.relnamespace, 'CREATE') AS may_have_functions,
           EXISTS (SELECT FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid WHERE i.inhparent = c.oid AND NOT k.relispartition) AS has_children
    INTO found FROM pg_class c WHERE c.oid = relation;
    IF found.relkind IS NULL THEN
        RAISE EXCEPTION 'there is no table %', quote_nullable(relation::text) USING ERRCODE = 'PV005', HINT = 'Name a table of this database.';
    ELSIF found.relkind NOT IN ('r', 'p') OR found.relpersistence = 't' OR found.relnamespace = 'pgvec'::regnamespace THEN
        RAISE EXCEPTION '% cannot be attached: it is %', relation, CASE found.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
                WHEN 'f' THEN 'a foreign table' ELSE CASE found.relpersistence WHEN 't' THEN 'a temporary table' ELSE 'no table of yours' END END
            USING ERRCODE = 'PV005', HINT = 'Attach the table that its rows are stored in; text may be any expression over a row.';
    ELSIF NOT found.own THEN
        RAISE EXCEPTION 'must be owner of table %', relation USING ERRCODE = '42501';
    ELSIF NOT found.may_note THEN
        RAISE EXCEPTION 'role %, to which table % belongs, may not note changes of it', found.owner, relation
            USING ERRCODE = '42501', HINT = format('GRANT USAGE ON SCHEMA pgvec TO %1$s; GRANT INSERT ON pgvec.changes TO %1$s;', found.owner);
    ELSIF NOT found.may_have_functions THEN
        RAISE EXCEPTION 'role %, to which table % belongs, may not have the functions that read it', found.owner, relation
            USING ERRCODE = '42501', HINT = format('GRANT CREATE ON SCHEMA %s TO %s; or attach it as that role.', found.relnamespace::regnamespace, found.owner);
    ELSIF found.has_children THEN
        RAISE EXCEPTION '% cannot be attached: other tables inherit from it, and their rows have no key in common', relation
            USING ERRCODE = 'PV005', HINT = 'Attach each of them, or make them partitions.';
    ELSIF NOT EXISTS (SELECT FROM pgvec._key(relation)) THEN
        RAISE EXCEPTION '% cannot be attached: it has no primary key, which names the documents', relation
            USING ERRCODE = 'PV005', HINT = format('ALTER TABLE %s ADD PRIMARY KEY (…);', relation);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_attachable(regclass) IS 'PV005 unless rows of this relation can be documents; 42501 unless it is the caller''s own, and its owner may note changes.';

CREATE OR REPLACE FUNCTION pgvec._check_text_sql(relation regclass, text_sql text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- In WHERE: there, neither an aggregate nor a set is allowed. Prepared, an expression is not executed, with the caller's rights as it would be.
    statement text := format('PREPARE pgvec_text_sql AS SELECT FROM %s AS %I WHERE (%s' || E'\n)::text IS NOT NULL',
                             relation, (SELECT c.relname FROM pg_class c WHERE c.oid = relation), text_sql);
BEGIN
    IF text_sql IS NULL OR text_sql !~ '\S' THEN
        RAISE EXCEPTION 'text is missing: what is embedded of a row' USING ERRCODE = 'PV005', HINT = 'Give an expression over its columns, as text => ''name''.';
    END IF;
    BEGIN
        EXECUTE statement;
        DEALLOCATE pgvec_text_sql;
    EXCEPTION WHEN syntax_error_or_access_rule_violation OR data_exception OR feature_not_supported THEN
        RAISE EXCEPTION 'text is no expression over a row of %: %', relation, SQLERRM
            USING ERRCODE = 'PV005',
                  HINT = format('Its columns: %s. It is read with search_path pg_catalog: write public.f(name) for a function of your own.',
                                (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
    END;
END $$;
COMMENT ON FUNCTION pgvec._check_text_sql(regclass, text) IS 'PV005 unless this is an expression over a row of the relation.';

CREATE OR REPLACE FUNCTION pgvec._point_out_empty_texts(relation regclass, rows_routine text, keys_routine text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rows  bigint;
    empty bigint;
BEGIN
    BEGIN
        EXECUTE format('SELECT count(*), count(*) FILTER (WHERE r.text IS NULL) FROM %s(ARRAY(SELECT k.document_id FROM %s('''', 1000) k)) r', rows_routine, keys_routine)
            INTO rows, empty;
    EXCEPTION WHEN OTHERS THEN
        RETURN;  -- of one row; workers say of which
    END;
    IF empty > 0 THEN
        RAISE NOTICE 'text is NULL in % of the first % rows of %, which are not found then. a || b is NULL if either is: concat_ws('' '', a, b) leaves it out', empty, rows, relation;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._point_out_empty_texts(regclass, text, text) IS 'Say so if some rows of an attached table have no text.';

CREATE OR REPLACE FUNCTION pgvec._copied_columns(relation regclass, columns text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted text;
    typed  jsonb := '{}';
    type   text;
BEGIN
    FOREACH wanted IN ARRAY columns LOOP
        SELECT CASE WHEN t.typtype = 'e' THEN 'text'
                    WHEN t.oid::regtype::text IN ('smallint', 'integer', 'bigint') THEN 'bigint'
                    WHEN t.oid::regtype::text IN ('real', 'double precision', 'numeric') THEN 'double precision'
                    WHEN t.oid::regtype::text IN ('text', 'character varying', 'character', 'uuid', 'name') THEN 'text'
                    WHEN t.oid::regtype::text LIKE 'timestamp%' THEN 'timestamp with time zone'
                    WHEN t.oid::regtype::text IN ('boolean', 'date') THEN t.oid::regtype::text
                    WHEN t.oid::regtype::text IN ('text[]', 'character varying[]') THEN 'text[]'
                    ELSE 'metadata' END
        INTO type
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = relation AND a.attname = wanted AND a.attnum > 0 AND NOT a.attisdropped;
        IF type IS NULL THEN
            RAISE EXCEPTION '% has no column %', relation, quote_nullable(wanted) USING ERRCODE = 'PV005',
                HINT = format('It has: %s.', (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
        ELSIF wanted = ANY ('{key,id,document_id,position,text,metadata,tsv,vector}') THEN
            RAISE EXCEPTION 'column % cannot be copied: each collection has a column of this name', quote_literal(wanted) USING ERRCODE = 'PV003',
                HINT = CASE WHEN wanted = 'id' THEN 'The primary key is document_id already.' ELSE 'Add a generated column of another name, and copy that.' END;
        END IF;
        typed := typed || jsonb_build_object(wanted, type);
    END LOOP;
    RETURN typed;
END $$;
COMMENT ON FUNCTION pgvec._copied_columns(regclass, text[]) IS 'The types that columns of a table have in a collection: those of its typed columns, or metadata.';

CREATE OR REPLACE FUNCTION pgvec._check_chunking(chunking jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text := (SELECT string_agg(k, ', ') FROM jsonb_object_keys(CASE jsonb_typeof(chunking) WHEN 'object' THEN chunking ELSE '{"?": 0}' END) k
                     WHERE k <> ALL ('{chunker,chunk_tokens,overlap,context,too_long,format}'));
BEGIN
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'unknown options of chunking: %', unknown USING ERRCODE = 'PV005',
            HINT = 'A JSON object of chunker, chunk_tokens, overlap, context, too_long (as ingest has them), format (text or markdown).';
    ELSIF chunking ->> 'chunker' <> ALL ('{auto,recursive,markdown,sentences,code,fixed,none}') OR chunking ->> 'too_long' <> ALL ('{error,split,truncate}') THEN
        RAISE EXCEPTION 'chunker or too_long is wrong: %', chunking USING ERRCODE = 'PV005',
            HINT = 'chunker: auto, recursive, markdown, sentences, code, fixed or none; too_long: error, split or truncate.';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_chunking(jsonb) IS 'PV005 unless these are options by which texts are cut.';

CREATE OR REPLACE FUNCTION pgvec._search_name(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT left(regexp_replace(lower(c.relname), '[^a-z0-9_]', '_', 'g'), 29) || '_search' FROM pg_class c WHERE c.oid = relation $$;
COMMENT ON FUNCTION pgvec._search_name(regclass) IS 'What the collection of an attached table is called unless told.';

CREATE OR REPLACE FUNCTION pgvec._attached_collection(relation regclass, collection text, columns jsonb, dimensions integer, model text, model_id integer, type text,
                                                      distance text, language text, schema text) RETURNS pgvec.collections
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    space   pgvec.vector_spaces;
    known   pgvec.models;
    size    integer;
    -- What the library embeds with unless told.
    default_model      CONSTANT text := 'sentence-transformers/all-MiniLM-L6-v2';
    default_dimensions CONSTANT integer := 384;
BEGIN
    IF EXISTS (SELECT FROM pgvec.collections c WHERE c.name = collection) THEN
        space := pgvec._space(collection, NULL);
        IF space.model_id <> model_id
           -- The name that it was attached with leads to the same model.
           OR (model <> (SELECT m.name FROM pgvec.models m WHERE m.id = space.model_id) AND model IS DISTINCT FROM
               (SELECT a.model FROM pgvec.attachments a WHERE a.collection_id = space.collection_id))
           OR dimensions <> space.dimensions OR type <> space.type OR distance <> space.distance THEN
            RAISE EXCEPTION 'collection % is there already, of % dimensions, type %, distance %', quote_literal(collection), space.dimensions, space.type,
                concat_ws(', model ', space.distance, (SELECT m.name FROM pgvec.models m WHERE m.id = space.model_id))
                USING ERRCODE = 'PV005', HINT = format('Leave these out. To change the model: pgvec model swap %s --to NAME.', collection);
        END IF;
        PERFORM pgvec._refuse_registered(pgvec._collection(collection), 'Name another collection: one that follows a table has tables of its own.');
        RETURN pgvec._collection(collection);
    END IF;
    SELECT m.id, m.name, m.fingerprint, m.dimensions INTO known.id, known.name, known.fingerprint, known.dimensions FROM pgvec.models m
    WHERE CASE WHEN model_id IS NULL THEN m.name = model ELSE m.id = model_id END ORDER BY m.id DESC LIMIT 1;
    size := coalesce(dimensions, known.dimensions, CASE WHEN coalesce(model, default_model) = default_model THEN default_dimensions END);
    IF size IS NULL THEN
        RAISE EXCEPTION 'nothing is known of model %, not even the length of its vectors', quote_literal(model) USING ERRCODE = 'PV005',
            HINT = 'Give dimensions => n; workers load the model by its name and check.';
    END IF;
    PERFORM pgvec.create_collection(collection, size, type => type, distance => distance, language => language, schema => schema, model_id => coalesce(model_id, known.id),
                                    columns => (SELECT coalesce(jsonb_object_agg(c.key, c.value), '{}') FROM jsonb_each(columns) c WHERE c.value <> '"metadata"'));
    RETURN pgvec._collection(collection);
END $$;
COMMENT ON FUNCTION pgvec._attached_collection(regclass, text, jsonb, integer, text, integer, text, text, text, text) IS 'The collection of an attachment, created if there is none; PV005 if it is of another model.';

CREATE OR REPLACE FUNCTION pgvec.attach(
    relation   regclass,
    text       text,
    collection text    DEFAULT NULL,
    columns    text[]  DEFAULT '{}',
    chunking   jsonb   DEFAULT '{}',
    model      text    DEFAULT NULL,
    dimensions integer DEFAULT NULL,
    model_id   integer DEFAULT NULL,
    type       text    DEFAULT NULL,
    distance   text    DEFAULT NULL,
    language   text    DEFAULT 'english',
    schema     text    DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    owner_schema text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = attach.relation);
    name_        text := coalesce(attach.collection, pgvec._search_name(attach.relation));
    typed        jsonb;
    owner        pgvec.collections;
    known        pgvec.attachments;
BEGIN
    PERFORM pgvec._check_attachable(attach.relation), pgvec._check_text_sql(attach.relation, attach.text), pgvec._check_chunking(attach.chunking);
    typed := pgvec._copied_columns(attach.relation, coalesce(attach.columns, '{}'));
    SELECT a.id, a.relation INTO known.id, known.relation FROM pgvec.attachments a JOIN pgvec.collections c ON c.id = a.collection_id WHERE c.name = name_;
    IF known.relation <> attach.relation THEN
        RAISE EXCEPTION 'collection % follows another table: %', quote_literal(name_), pgvec._attached_name(known.id)
            USING ERRCODE = 'PV002', HINT = 'Name another collection => …, or detach it first: pgvec.detach(name).';
    END IF;
    owner := pgvec._attached_collection(attach.relation, name_, typed, attach.dimensions, attach.model, attach.model_id, attach.type, attach.distance, attach.language,
                                        coalesce(attach.schema, owner_schema));
    -- If it has no model yet, workers enter one, who could not make the trigger.
    IF has_table_privilege(pgvec._relation(owner.schema_name, owner.table_name), 'TRIGGER') THEN
        PERFORM pgvec._follow_texts(owner);
    END IF;
    IF known.id IS NOT NULL THEN
        PERFORM pgvec._drop_routines(known.id);
        UPDATE pgvec.attachments a SET text_sql = attach.text, columns = coalesce(attach.columns, '{}'), chunking = attach.chunking, model = coalesce(attach.model, a.model),
               routines_schema = owner_schema, backfill_after = '', error = NULL, error_at = NULL WHERE a.id = known.id;
    ELSE
        INSERT INTO pgvec.attachments AS a (collection_id, relation, relation_name, routines_schema, text_sql, columns, chunking, model)
        VALUES (owner.id, attach.relation, owner_schema || '.' || (SELECT c.relname FROM pg_class c WHERE c.oid = attach.relation), owner_schema, attach.text,
                coalesce(attach.columns, '{}'), attach.chunking, attach.model)
        RETURNING a.id INTO known.id;
    END IF;
    PERFORM pgvec._create_routines(known.id),
            pgvec._point_out_empty_texts(attach.relation, format('%I.pgvec_live_%s_rows', owner_schema, known.id), format('%I.pgvec_live_%s_keys', owner_schema, known.id));
    IF known.relation IS NOT NULL THEN
        -- Documents that another definition made are looked at again, too.
        INSERT INTO pgvec.changes (attachment_id) VALUES (known.id);
    END IF;
    NOTIFY pgvec_queue;
    RETURN name_;
END $$;
COMMENT ON FUNCTION pgvec.attach(regclass, text, text, text[], jsonb, text, integer, integer, text, text, text, text) IS
'Make the rows of a table the documents of a collection, and keep them so: triggers note what changes, pgvec worker embeds it. Rows that are
there are taken by and by. A document''s id is the primary key as text, a JSON array of texts if it has several columns.
text: an expression over the row, what is searched; NULL: not found. collection: its name, <relation>_search unless told; it is created if there
is none, for the model or of so many dimensions (default: all-MiniLM-L6-v2). columns: copied for filters, into typed columns; where only they
change, nothing is embedded. chunking: {"chunk_tokens": 200, "overlap": 20, …}, as ingest has them, and "format": "markdown".
Called again it changes these, but not the model (pgvec model swap does), and all documents are looked at again. The table has to be the caller''s
own, or that of a role that he is a member of, with whose rights it is read.
Example: SELECT pgvec.attach(''products'', text => ''concat_ws('' '', name, description)'', columns => ''{price,category}'');';

CREATE OR REPLACE FUNCTION pgvec._attached_name(attachment integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Not by regclass: of a table that was dropped it is a number.
    SELECT coalesce(n.nspname || '.' || c.relname, a.relation_name)
    FROM pgvec.attachments a LEFT JOIN pg_class c ON c.oid = a.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.id = attachment
$$;
COMMENT ON FUNCTION pgvec._attached_name(integer) IS 'What an attached table is called now; if it is gone, what it was called.';

CREATE OR REPLACE FUNCTION pgvec._drop_routines(attachment integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    home name;
    kind text;
BEGIN
    -- Where the triggers say that they are: their schema may have got another name.
    FOR home IN SELECT a.routines_schema FROM pgvec.attachments a WHERE a.id = attachment
                UNION SELECT n.nspname FROM pgvec.attachments a JOIN pg_trigger t ON t.tgrelid = a.relation JOIN pg_proc p ON p.oid = t.tgfoid
                      JOIN pg_namespace n ON n.oid = p.pronamespace WHERE a.id = attachment AND p.proname = format('pgvec_live_%s_changed', attachment) LOOP
        FOREACH kind IN ARRAY '{changed(),rows(text[]),"keys(text, integer)"}'::text[] LOOP
            EXECUTE format('DROP FUNCTION IF EXISTS %I.pgvec_live_%s_%s CASCADE', home, attachment, kind);
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._drop_routines(integer) IS 'Drop the functions of an attachment, with their triggers; 42501 unless they are the caller''s own.';

CREATE OR REPLACE FUNCTION pgvec._detach(attachment integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgvec._drop_routines(attachment);
    DELETE FROM pgvec.attachments a WHERE a.id = attachment;  -- its queue goes with it
    DELETE FROM pgvec.changes c WHERE c.attachment_id = attachment;
END $$;
COMMENT ON FUNCTION pgvec._detach(integer) IS 'Undo what attach did, but for the collection.';

CREATE OR REPLACE FUNCTION pgvec._attachment(name text) RETURNS integer
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found integer[] := ARRAY(SELECT a.id FROM pgvec.attachments a JOIN pgvec.collections c ON c.id = a.collection_id WHERE c.name = _attachment.name);
BEGIN
    IF found = '{}' THEN
        found := ARRAY(SELECT a.id FROM pgvec.attachments a
                       WHERE _attachment.name IN (pgvec._attached_name(a.id), a.relation_name)
                          OR a.relation = CASE WHEN _attachment.name ~ '\S' THEN to_regclass(CASE WHEN position('.' IN _attachment.name) = 0 THEN 'public.' ELSE '' END || _attachment.name) END
                          OR split_part(pgvec._attached_name(a.id), '.', 2) = _attachment.name);
    END IF;
    IF cardinality(found) <> 1 THEN
        RAISE EXCEPTION '%', CASE cardinality(found) WHEN 0 THEN format('no table is attached as %L', name) ELSE format('%L is attached more than once', name) END
            USING ERRCODE = CASE cardinality(found) WHEN 0 THEN 'PV001' ELSE 'PV005' END,
                  HINT = coalesce('Name the collection, one of: ' || (SELECT string_agg(c.name, ', ' ORDER BY c.name) FROM pgvec.attachments a JOIN pgvec.collections c ON c.id = a.collection_id
                                                                      WHERE cardinality(found) = 0 OR a.id = ANY (found)) || '.', 'Nothing is attached: pgvec.attach(relation, text => …).');
    END IF;
    RETURN found[1];
END $$;
COMMENT ON FUNCTION pgvec._attachment(text) IS 'An attachment, by its collection or its table; PV001 if there is none, PV005 if there are several.';

CREATE OR REPLACE FUNCTION pgvec.detach(name text, drop boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    attachment integer := pgvec._attachment(name);
    collection text := (SELECT c.name FROM pgvec.attachments a JOIN pgvec.collections c ON c.id = a.collection_id WHERE a.id = attachment);
BEGIN
    PERFORM pgvec._detach(attachment);
    IF drop THEN
        PERFORM pgvec.drop_collection(collection);
    END IF;
    RETURN collection;
END $$;
COMMENT ON FUNCTION pgvec.detach(text, boolean) IS
'Let a collection follow its table no longer: triggers, functions and queue are dropped, nothing is left on the table. The collection stays as it
is, unless drop. name: of the collection or the table. It waits for those who write the table at the moment.
Example: SELECT pgvec.detach(''products_search'');';
