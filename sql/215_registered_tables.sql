-- Tables of users as collections: chunk table and vector table are then one table that is not ours, and is only read.
--
-- What statements read is a subquery that calls its columns as those of a chunk table, or of a vector table; the planner sees through it, so that
-- indexes on the columns serve. Names are looked up each time: by the name that was registered, or, if there is no such column, as it is called now.
-- That is told by the column's number, which counts as long as the table has the one it was registered with: a restored dump numbers both anew.

CREATE OR REPLACE FUNCTION pgvec._column_now(relation regclass, name name, attnum smallint) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.attname FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND (a.attname = _column_now.name OR a.attnum = _column_now.attnum)
    ORDER BY a.attname = _column_now.name DESC LIMIT 1
$$;
COMMENT ON FUNCTION pgvec._column_now(regclass, name, smallint) IS 'What a column is called now, after a rename; NULL if it is gone. attnum: NULL if it does not count.';

CREATE OR REPLACE FUNCTION pgvec._registered(collection_id integer) RETURNS pgvec.registered_tables
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r pgvec.registered_tables;
    named pgvec.registered_tables;
BEGIN
    SELECT t.* INTO r FROM pgvec.registered_tables t WHERE t.collection_id = _registered.collection_id;
    IF r.collection_id IS NULL THEN
        RETURN NULL;
    END IF;
    named := r;
    IF r.relation <> r.relation_number THEN
        r.attnums := '{}';
    END IF;
    r.key_column := pgvec._column_now(r.relation, r.key_column, r.attnums[1]);
    r.id_column := pgvec._column_now(r.relation, r.id_column, r.attnums[2]);
    r.text_column := pgvec._column_now(r.relation, r.text_column, r.attnums[3]);
    r.metadata_column := pgvec._column_now(r.relation, r.metadata_column, r.attnums[4]);
    PERFORM pgvec._column_gone(r.relation, g.before)
    FROM (VALUES (named.key_column, r.key_column), (named.id_column, r.id_column), (named.text_column, r.text_column),
                 (named.metadata_column, r.metadata_column)) AS g (before, present)
    WHERE g.before IS NOT NULL AND g.present IS NULL;
    RETURN r;
END $$;
COMMENT ON FUNCTION pgvec._registered(integer) IS 'What is registered of a collection, with the names of now; a row of NULLs if nothing is. PV001 if a column is gone.';

CREATE OR REPLACE FUNCTION pgvec._column_gone(relation regclass, "column" text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'column % of table % is gone, which is registered as a collection', quote_literal("column"), relation
        USING ERRCODE = 'PV001', HINT = 'Register the table again: pgvec.unregister_table(name), then pgvec.register_table(…).';
END $$;
COMMENT ON FUNCTION pgvec._column_gone(regclass, text) IS 'PV001: somebody dropped a column of a registered table.';

CREATE OR REPLACE FUNCTION pgvec._current_space(space pgvec.vector_spaces) RETURNS pgvec.vector_spaces
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found record;
BEGIN
    IF space.embedding_column IS NULL THEN
        RETURN space;
    END IF;
    SELECT r.relation, c.relname, e."column", t.type, t.dimensions INTO found
    FROM pgvec.registered_tables r LEFT JOIN pg_class c ON c.oid = r.relation
    CROSS JOIN LATERAL (SELECT pgvec._column_now(r.relation, space.embedding_column, CASE WHEN r.relation = r.relation_number THEN space.embedding_attnum END) AS "column") e
    CROSS JOIN LATERAL pgvec._vector_column(r.relation, e."column") t
    WHERE r.collection_id = space.collection_id;
    IF found.relname IS NULL THEN
        RETURN space;  -- the table is gone: pgvec._collection says so
    ELSIF found."column" IS NULL THEN
        PERFORM pgvec._column_gone(found.relation, space.embedding_column);
    ELSIF (found.type, found.dimensions) IS DISTINCT FROM (space.type, space.dimensions) THEN
        RAISE EXCEPTION 'column % of table % is of another type than when it was registered, % of % dimensions', quote_literal(found."column"), found.relation,
            space.type, space.dimensions
            USING ERRCODE = 'PV005', HINT = 'Register the table again: pgvec.unregister_table(name), then pgvec.register_table(…).';
    END IF;
    space.table_name := found.relname;
    space.embedding_column := found."column";
    RETURN space;
END $$;
COMMENT ON FUNCTION pgvec._current_space(pgvec.vector_spaces) IS
'The catalogue row of a space, with the names that its table and its column have now. PV001 if the column is gone, PV005 if its type is another.';

CREATE OR REPLACE FUNCTION pgvec._registration_trouble(space pgvec.vector_spaces) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgvec._collection(c.name), pgvec._registered(c.id), pgvec._current_space(space) FROM pgvec.collections c WHERE c.id = space.collection_id;
    -- Without its unique index a key may come twice, and so may hits.
    PERFORM pgvec._registered_key(r.relation, r.key_column) FROM pgvec._registered(space.collection_id) r;
    RETURN NULL;
EXCEPTION WHEN SQLSTATE 'PV001' OR SQLSTATE 'PV005' THEN
    RETURN SQLERRM;
END $$;
COMMENT ON FUNCTION pgvec._registration_trouble(pgvec.vector_spaces) IS 'Why a space of a registered table cannot be searched any more, or not rightly; NULL if nothing keeps it from being.';

CREATE OR REPLACE FUNCTION pgvec._embedding_column(wanted pgvec.vector_spaces) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT quote_ident(coalesce(wanted.embedding_column, 'embedding')) $$;
COMMENT ON FUNCTION pgvec._embedding_column(pgvec.vector_spaces) IS 'The column that holds the vectors of a space, quoted.';

CREATE OR REPLACE FUNCTION pgvec._chunks_sql(owner pgvec.collections) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r       pgvec.registered_tables := pgvec._registered(owner.id);
    written text;
BEGIN
    IF r.collection_id IS NULL THEN
        RETURN format('%I.%I', owner.schema_name, owner.table_name);
    END IF;
    written := coalesce('d.' || quote_ident(r.text_column) || '::text', 'NULL::text');
    -- No cast of the key: it would keep its index from being used. The alias is that of statements, which plans show.
    RETURN format('(SELECT d.%1$I AS key, d.%2$I::text AS id, d.%2$I AS pgvec_id, d.%2$I::text AS document_id, 0 AS position, %3$s AS text, %4$s AS metadata, '
                  'pg_catalog.to_tsvector(%5$L::regconfig, pg_catalog.left(coalesce(%3$s, ''''), 250000)) AS tsv, d.ctid%6$s FROM %7$I.%8$I d)',
                  r.key_column, r.id_column, written, coalesce('d.' || quote_ident(r.metadata_column), '''{}''::jsonb'), owner.language,
                  (SELECT string_agg(format(', d.%I', a.attname), '' ORDER BY a.attnum) FROM pg_attribute a
                   WHERE a.attrelid = r.relation AND a.attnum > 0 AND NOT a.attisdropped AND NOT pgvec._is_taken(a.attname)),
                  owner.schema_name, owner.table_name);
END $$;
COMMENT ON FUNCTION pgvec._chunks_sql(pgvec.collections) IS
'What statements read chunks from, as d: the chunk table, or a subquery that calls the columns of a registered table so.';

CREATE OR REPLACE FUNCTION pgvec._vectors_sql(owner pgvec.collections, wanted pgvec.vector_spaces, sample text DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN wanted.embedding_column IS NULL AND sample IS NULL THEN format('%I.%I', owner.schema_name, wanted.table_name)
        ELSE format('(SELECT v.%I AS key, v.%s AS embedding FROM %I.%I v %s WHERE v.%2$s IS NOT NULL)',
                    CASE WHEN wanted.embedding_column IS NULL THEN 'key' ELSE (pgvec._registered(owner.id)).key_column END,
                    pgvec._embedding_column(wanted), owner.schema_name, wanted.table_name, sample) END
$$;
COMMENT ON FUNCTION pgvec._vectors_sql(pgvec.collections, pgvec.vector_spaces, text) IS
'What statements read vectors from, as v: the vector table, or a subquery that calls the columns of a registered table so, of rows that have a vector.
sample: TABLESAMPLE and its arguments, if some rows will do.';

CREATE OR REPLACE FUNCTION pgvec._keyword_table(owner pgvec.collections, suffix text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT format('%I.%I', n.nspname, c.relname) FROM pgvec.keyword_indexes i
                     JOIN pg_class c ON c.oid = CASE suffix WHEN '_keywords' THEN i.keywords ELSE i.lexemes END
                     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.collection_id = owner.id),
                    format('%I.%I', owner.schema_name, owner.table_name || suffix))
$$;
COMMENT ON FUNCTION pgvec._keyword_table(pgvec.collections, text) IS
'A table of the keyword index of a collection, _keywords or _lexemes: it is called after the chunk table,
or, for a registered table, as the catalogue knows it.';

CREATE OR REPLACE FUNCTION pgvec._ids_sql(owner pgvec.collections, ids text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- In the type of the column, for its index to serve; what is no value of that type is the id of no row.
    SELECT coalesce((SELECT format('d.pgvec_id = ANY (ARRAY(SELECT i.id::%1$s FROM pg_catalog.unnest(%2$s) i (id) WHERE pg_catalog.pg_input_is_valid(i.id, %1$L)))', n.type, ids)
                     FROM (SELECT pgvec._registered(owner.id) AS r) t
                     JOIN pg_attribute a ON a.attrelid = (t.r).relation AND a.attname = (t.r).id_column
                     CROSS JOIN LATERAL (SELECT format_type(a.atttypid, CASE a.atttypid WHEN 'bpchar'::regtype THEN a.atttypmod END) AS type) n),
                    format('d.id = ANY (%s)', ids))
$$;
COMMENT ON FUNCTION pgvec._ids_sql(pgvec.collections, text) IS 'The condition that a chunk d has one of some ids, an expression for a text[].';

CREATE OR REPLACE FUNCTION pgvec._is_taken("column" text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT "column" = ANY ('{key,id,document_id,position,text,metadata,tsv,pgvec_id}') $$;
COMMENT ON FUNCTION pgvec._is_taken(text) IS 'Whether chunks have a column of that name, which then hides one of a registered table.';

CREATE OR REPLACE FUNCTION pgvec._registered_field(r pgvec.registered_tables, INOUT field text, operand jsonb, OUT type text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked text := field;
    found record;
BEGIN
    IF field = 'position' THEN
        type := 'integer';
    ELSIF field = 'text' AND r.text_column IS NOT NULL THEN
        type := 'text';
    ELSE
        SELECT format_type(a.atttypid, NULL) AS type, pgvec._is_filterable(a.atttypid) AS filterable INTO found FROM pg_attribute a
        WHERE a.attrelid = r.relation AND a.attnum > 0 AND NOT a.attisdropped
          AND a.attname = CASE WHEN asked IN ('id', 'document_id') THEN r.id_column WHEN NOT pgvec._is_taken(asked) THEN asked END;
        IF found.filterable AND asked IN ('id', 'document_id') THEN
            -- As it is, so that its index serves; hits have it as text, by which it may be asked for as well.
            IF found.type IN ('text', 'character varying', 'uuid') OR jsonb_path_exists(operand, '$[*] ? (@.type() == "number")') THEN
                field := 'pgvec_id';
                type := found.type;
            ELSE
                type := 'text';
            END IF;
        ELSIF found.filterable THEN
            type := found.type;
        ELSIF found.type IS NOT NULL THEN
            RAISE EXCEPTION 'column % is of type %, which filters cannot compare', quote_literal(field), found.type
                USING ERRCODE = 'PV004', HINT = 'Say it in SQL: where_sql => …, a condition on the row d.';
        ELSIF r.metadata_column IS NULL THEN
            RAISE EXCEPTION 'table % has no column % to filter by', r.relation, quote_literal(field)
                USING ERRCODE = 'PV004', HINT = format('It has: %s.', coalesce((SELECT string_agg(c."column", ', ') FROM pgvec._columns(r.relation) c), 'none'));
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._registered_field(pgvec.registered_tables, text, jsonb) IS
'The column that a field of a filter stands for, and its type, NULL if it is a metadata key; PV004 if it is none.';

CREATE OR REPLACE FUNCTION pgvec._refuse_registered(owner pgvec.collections, instead text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pgvec.registered_tables r WHERE r.collection_id = owner.id) THEN
        RAISE EXCEPTION 'collection % is table %.%, which is only read', quote_literal(owner.name), quote_ident(owner.schema_name), quote_ident(owner.table_name)
            USING ERRCODE = 'PV005', HINT = instead;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._refuse_registered(pgvec.collections, text) IS 'PV005, with what to do instead, if a collection is a registered table.';
