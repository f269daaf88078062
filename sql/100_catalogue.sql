-- Looking things up in the catalogue, and what types and distances there are.
-- SQLSTATEs of this schema: PV001 no such collection or space, PV002 name taken, PV003 bad name,
-- PV004 bad filter, PV005 bad argument. Clients tell them apart by these, never by the text.

CREATE OR REPLACE FUNCTION pgvec._vector_schema() RETURNS name
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector' $$;
COMMENT ON FUNCTION pgvec._vector_schema() IS 'Schema of the extension vector; operators are qualified with it, so no search_path can hide them.';

CREATE OR REPLACE FUNCTION pgvec._distance(distance text, type text, dimensions integer,
                                          OUT operator text, OUT similarity text, OUT suffix text)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted_types text := CASE type WHEN 'bit' THEN 'bit' WHEN 'vector[]' THEN 'array' ELSE 'number' END;
    served text;
BEGIN
    SELECT format('OPERATOR(%I.%s)', pgvec._vector_schema(), known.symbol), replace(known.similarity, 'dimensions', dimensions::text),
           known.suffix, known.types
    INTO operator, similarity, suffix, served
    FROM (VALUES ('cosine',        '<=>', '1 - %s',              'cosine',  'number array'),
                 ('l2',            '<->', '1 / (1 + %s)',        'l2',      'number'),
                 ('inner_product', '<#>', '-(%s)',               'ip',      'number array'),
                 ('l1',            '<+>', '1 / (1 + %s)',        'l1',      'number'),
                 ('hamming',       '<~>', '1 - %s / dimensions', 'hamming', 'bit'),
                 ('jaccard',       '<%>', '1 - %s',             'jaccard', 'bit')
         ) AS known (name, symbol, similarity, suffix, types)
    WHERE known.name = distance;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown distance %', quote_nullable(distance)
            USING ERRCODE = 'PV005', HINT = 'One of: cosine, l2, inner_product, l1; for type bit: hamming, jaccard.';
    ELSIF position(wanted_types IN served) = 0 THEN
        RAISE EXCEPTION 'distance % does not apply to type %', distance, type
            USING ERRCODE = 'PV005', HINT = CASE wanted_types WHEN 'bit' THEN 'For type bit: hamming or jaccard.'
                WHEN 'array' THEN 'For type vector[]: cosine or inner_product.' ELSE 'One of: cosine, l2, inner_product, l1.' END;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._distance(text, text, integer) IS
'Operator of a distance, similarity formula (of %s, the distance), and what it is called in operator classes; PV005 if it does not apply to the type.';

CREATE OR REPLACE FUNCTION pgvec._embedding_type(type text, dimensions integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- What the type holds; for bit and sparsevec also what an index holds.
    most integer := CASE type WHEN 'vector' THEN 16000 WHEN 'halfvec' THEN 16000 WHEN 'vector[]' THEN 16000
                              WHEN 'bit' THEN 64000 WHEN 'sparsevec' THEN 1000000000 END;
BEGIN
    IF most IS NULL THEN
        RAISE EXCEPTION 'unknown vector type %', quote_nullable(type)
            USING ERRCODE = 'PV005', HINT = 'One of: vector, halfvec, bit, sparsevec, vector[].';
    ELSIF (dimensions BETWEEN 1 AND most) IS NOT TRUE THEN
        RAISE EXCEPTION 'dimensions of type % must be from 1 to %, not %', type, most, quote_nullable(dimensions::text)
            USING ERRCODE = 'PV005';
    END IF;
    RETURN CASE type WHEN 'bit' THEN format('bit(%s)', dimensions)
                     WHEN 'vector[]' THEN format('%I.vector(%s)[]', pgvec._vector_schema(), dimensions)
                     ELSE format('%I.%I(%s)', pgvec._vector_schema(), type, dimensions) END;
END $$;
COMMENT ON FUNCTION pgvec._embedding_type(text, integer) IS 'The SQL type of the vectors of a space; PV005 if the type cannot hold them.';

CREATE OR REPLACE FUNCTION pgvec._collection(collection text) RETURNS pgvec.collections
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found pgvec.collections;
    its   record;
BEGIN
    SELECT c.id, c.name, c.schema_name, c.table_name, c.language, c.created_at INTO found
    FROM pgvec.collections c WHERE c.name = collection;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'there is no collection %', quote_nullable(collection)
            USING ERRCODE = 'PV001',
                  HINT = coalesce('Known: ' || (SELECT string_agg(c.name, ', ' ORDER BY c.name) FROM pgvec.collections c) || '.',
                                  'There are none yet: create one with pgvec.create_collection(name, dimensions => n).');
    END IF;
    -- The table of a user may be called otherwise now.
    SELECT r.relation, n.nspname, k.relname INTO its FROM pgvec.registered_tables r
    LEFT JOIN pg_class k ON k.oid = r.relation LEFT JOIN pg_namespace n ON n.oid = k.relnamespace WHERE r.collection_id = found.id;
    IF its.relation IS NOT NULL THEN
        IF its.relname IS NULL THEN
            RAISE EXCEPTION 'table %.%, which is registered as collection %, is gone', quote_ident(found.schema_name), quote_ident(found.table_name), quote_literal(collection)
                USING ERRCODE = 'PV001', HINT = format('End it: SELECT pgvec.unregister_table(%L); a table made anew can be registered again.', collection);
        END IF;
        found.schema_name := its.nspname;
        found.table_name := its.relname;
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION pgvec._collection(text) IS 'The catalogue row of a collection, with what its table is called now; PV001 if there is none.';

CREATE OR REPLACE FUNCTION pgvec._space(collection text, space text) RETURNS pgvec.vector_spaces
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
    found pgvec.vector_spaces;
BEGIN
    SELECT s.id, s.collection_id, s.name, s.table_name, s.type, s.dimensions, s.distance, s.model_id, s.is_default, s.created_at,
           s.embedding_column, s.embedding_attnum
    INTO found
    FROM pgvec.vector_spaces s
    WHERE s.collection_id = owner.id AND CASE WHEN space IS NULL THEN s.is_default ELSE s.name = space END;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'collection % has no vector space %', quote_literal(collection), quote_nullable(space)
            USING ERRCODE = 'PV001', HINT = format('It has: %s.', (SELECT string_agg(s.name, ', ' ORDER BY s.name) FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id));
    END IF;
    RETURN CASE WHEN found.embedding_column IS NULL THEN found ELSE pgvec._current_space(found) END;
END $$;
COMMENT ON FUNCTION pgvec._space(text, text) IS 'The catalogue row of a vector space (NULL: the default one); PV001 if there is none.';

CREATE OR REPLACE FUNCTION pgvec._check_name(kind text, name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- collection, space and index method make one name, of which PostgreSQL keeps 63 characters
    longest integer := CASE kind WHEN 'collection' THEN 36 WHEN 'vector space' THEN 16 ELSE 60 END;
BEGIN
    IF name IS NULL OR name !~ '^[a-z_][a-z0-9_]*$' OR length(name) > longest THEN
        RAISE EXCEPTION '% cannot be the name of a %', quote_nullable(name), kind
            USING ERRCODE = 'PV003',
                  HINT = format('Use 1 to %s lower-case letters, digits and underscores, not starting with a digit.', longest);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_name(text, text) IS 'PV003 unless the name is one that needs no quoting anywhere.';

CREATE OR REPLACE FUNCTION pgvec._column_type(type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE canonical text;
BEGIN
    SELECT known.canonical INTO canonical
    FROM (VALUES ('text', 'text'), ('str', 'text'), ('string', 'text'),
                 ('bigint', 'bigint'), ('int', 'bigint'), ('integer', 'bigint'),
                 ('double precision', 'double precision'), ('float', 'double precision'),
                 ('boolean', 'boolean'), ('bool', 'boolean'),
                 ('date', 'date'),
                 ('timestamp with time zone', 'timestamp with time zone'), ('timestamptz', 'timestamp with time zone'),
                 ('timestamp', 'timestamp with time zone'), ('datetime', 'timestamp with time zone'),
                 ('text[]', 'text[]'), ('list', 'text[]'), ('list[str]', 'text[]')) AS known (alias, canonical)
    WHERE known.alias = lower(type);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown column type %', quote_nullable(type)
            USING ERRCODE = 'PV005', HINT = 'One of: text, int, float, bool, date, timestamp, text[].';
    END IF;
    RETURN canonical;
END $$;
COMMENT ON FUNCTION pgvec._column_type(text) IS 'The SQL type of a typed column, from any of its usual names.';

CREATE OR REPLACE FUNCTION pgvec._is_filterable(type oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.typtype = 'e' OR CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
           IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'uuid'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype,
               'numeric'::regtype, 'bool'::regtype, 'date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'text[]'::regtype)
    FROM pg_type t WHERE t.oid = type
$$;
COMMENT ON FUNCTION pgvec._is_filterable(oid) IS 'Whether filters can compare values of a type: of a domain, those of what it is based on.';

CREATE OR REPLACE FUNCTION pgvec._columns(relation regclass)
RETURNS TABLE ("column" name, type text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a LEFT JOIN pgvec.registered_tables r ON r.relation = _columns.relation
    WHERE a.attrelid = _columns.relation AND a.attnum > 0 AND NOT a.attisdropped
      AND a.attname <> ALL ('{key,id,document_id,position,text,metadata,tsv}') AND NOT starts_with(a.attname, 'pgvec_promoting_')
      -- The others of a registered table; but what is shown as a part of the chunk is not shown twice.
      AND (r.relation IS NULL OR pgvec._is_filterable(a.atttypid) AND a.attname <> ALL (ARRAY[r.key_column, r.id_column, coalesce(r.text_column, ''), 'pgvec_id'])
                                 AND (r.relation <> r.relation_number OR a.attnum <> ALL (array_remove(r.attnums, NULL))))
    ORDER BY a.attnum
$$;
COMMENT ON FUNCTION pgvec._columns(regclass) IS
'The typed columns of a chunk table. The table itself is the record: a column added by ALTER TABLE counts, one that promote() is filling does not. Of a
registered table those that filters can compare.';

CREATE OR REPLACE FUNCTION pgvec._relation(schema_name text, table_name text) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('%I.%I', schema_name, table_name)::regclass $$;
COMMENT ON FUNCTION pgvec._relation(text, text) IS 'A table of the catalogue as regclass.';

CREATE OR REPLACE FUNCTION pgvec._render(template text, parts jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- In one pass: what is filled in may have braces of its own.
    SELECT string_agg(m.piece[1] || coalesce(parts ->> m.piece[2], '{' || m.piece[2] || '}', ''), '' ORDER BY m.position)
    FROM regexp_matches(template, '([^{]*)(?:\{(\w+)\})?', 'g') WITH ORDINALITY AS m (piece, position)
$$;
COMMENT ON FUNCTION pgvec._render(text, jsonb) IS 'A statement from a template: {name} stands for parts ->> name, which is text of ours or has been quoted.';

CREATE OR REPLACE FUNCTION pgvec._create_triggers(relation text, prefix text, routine text, rows text DEFAULT '%s_rows', by_row boolean DEFAULT false,
                                                  on_truncate text DEFAULT 'AFTER') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    event text;
BEGIN
    FOREACH event IN ARRAY '{INSERT,UPDATE,DELETE,TRUNCATE}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER %I %s %s ON %s %s%s FOR EACH %s EXECUTE FUNCTION %s', prefix || lower(event),
                       CASE event WHEN 'TRUNCATE' THEN on_truncate ELSE 'AFTER' END, event, relation,
                       CASE WHEN event IN ('UPDATE', 'DELETE') AND NOT by_row THEN format(' REFERENCING OLD TABLE AS %I', format(rows, 'old')) END,
                       CASE WHEN event IN ('INSERT', 'UPDATE') AND NOT by_row THEN format(' %s NEW TABLE AS %I', CASE event WHEN 'INSERT' THEN 'REFERENCING' END, format(rows, 'new')) END,
                       CASE WHEN by_row AND event <> 'TRUNCATE' THEN 'ROW' ELSE 'STATEMENT' END, routine);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._create_triggers(text, text, text, text, boolean, text) IS
'Have a function called whatever is done to a table: triggers <prefix>insert, update, delete and truncate, with transition tables called by rows.';

CREATE OR REPLACE FUNCTION pgvec._drop_triggers(relation text, prefix text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    event text;
BEGIN
    FOREACH event IN ARRAY '{insert,update,delete,truncate}'::text[] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', prefix || event, relation);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._drop_triggers(text, text) IS 'Undo pgvec._create_triggers, if it was done.';
