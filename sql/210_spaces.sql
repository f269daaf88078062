-- The vector spaces of a collection, and the vector index of each.

CREATE OR REPLACE FUNCTION pgvec._automatic_type(dimensions integer) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF dimensions BETWEEN 2001 AND 4000 THEN
        RAISE NOTICE 'type halfvec, for % dimensions: an index holds at most 2,000 of type vector', dimensions;
        RETURN 'halfvec';
    ELSIF dimensions BETWEEN 4001 AND 16000 THEN
        RAISE NOTICE 'type vector, with a binary index, for % dimensions: other indexes hold at most 4,000. Searches rescore its candidates', dimensions;
    END IF;
    RETURN 'vector';
END $$;
COMMENT ON FUNCTION pgvec._automatic_type(integer) IS 'The type whose vectors an index can hold; it says so when that is not the plain one.';

CREATE OR REPLACE FUNCTION pgvec._create_space(owner pgvec.collections, space text, dimensions integer, type text, distance text,
                                               model_id integer, is_default boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type_     text := coalesce(type, pgvec._automatic_type(dimensions));
    distance_ text := coalesce(distance, CASE type_ WHEN 'bit' THEN 'hamming' ELSE 'cosine' END);
    table_    text := owner.table_name || '_' || space;
    bytes     integer;
BEGIN
    PERFORM pgvec._refuse_registered(owner, 'Add a vector column to it, and register that: pgvec.register_space(collection, embedding => …).');
    PERFORM pgvec._check_name('vector space', space), pgvec._distance(distance_, type_, dimensions);
    IF space IN ('keyword', 'keywords', 'lexemes', 'history') THEN
        RAISE EXCEPTION 'a vector space cannot be called %: something else has that name', space USING ERRCODE = 'PV003', HINT = 'Choose another name for the space.';
    END IF;
    IF EXISTS (SELECT FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id AND s.name = space) THEN
        RAISE EXCEPTION 'collection % has a vector space % already', quote_literal(owner.name), quote_literal(space)
            USING ERRCODE = 'PV002', HINT = 'Drop it first with pgvec.drop_space(collection, name).';
    END IF;
    PERFORM pgvec._check_free(owner.schema_name, table_);
    EXECUTE format('CREATE TABLE %I.%I (key bigint PRIMARY KEY REFERENCES %I.%I ON DELETE CASCADE, embedding %s NOT NULL)',
                   owner.schema_name, table_, owner.schema_name, owner.table_name, pgvec._embedding_type(type_, dimensions));
    -- In line while a row fits a page: an exact scan then needs no detour through TOAST.
    bytes := CASE type_ WHEN 'vector' THEN 4 * dimensions + 8 WHEN 'halfvec' THEN 2 * dimensions + 8 WHEN 'bit' THEN dimensions / 8 + 9 END;
    EXECUTE format('ALTER TABLE %I.%I ALTER COLUMN embedding SET STORAGE %s', owner.schema_name, table_,
                   CASE WHEN bytes <= 8100 THEN 'PLAIN' ELSE 'EXTERNAL' END);
    INSERT INTO pgvec.vector_spaces (collection_id, name, table_name, type, dimensions, distance, model_id, is_default)
    VALUES (owner.id, space, table_, type_, dimensions, distance_, model_id, is_default);
    IF EXISTS (SELECT FROM pgvec.histories h WHERE h.collection_id = owner.id) THEN
        PERFORM pgvec._record(pgvec._relation(owner.schema_name, table_), 'embedding');
    END IF;
    IF model_id IS NOT NULL THEN
        PERFORM pgvec._follow_texts(owner);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._create_space(pgvec.collections, text, integer, text, text, integer, boolean) IS
'The narrow table of a vector space, changes of payload never touch its index, and its row in the catalogue.';

CREATE OR REPLACE FUNCTION pgvec.add_space(
    collection text,
    name       text,
    dimensions integer,
    type       text    DEFAULT NULL,
    distance   text    DEFAULT NULL,
    model_id   integer DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pgvec._create_space(pgvec._collection(collection), name, dimensions, type, distance, model_id, false);
END $$;
COMMENT ON FUNCTION pgvec.add_space(text, text, integer, text, text, integer) IS
'Add a vector space to a collection: further vectors of the same chunks, of another model, type or length. Its table,
<collection>_<name> (key, embedding), begins empty; searches name it: pgvec.search(…, space => name).
Example: SELECT pgvec.add_space(''docs'', ''title'', dimensions => 384);';

CREATE OR REPLACE FUNCTION pgvec.drop_space(collection text, name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner   pgvec.collections := pgvec._collection(collection);
    dropped pgvec.vector_spaces;
BEGIN
    -- As the catalogue has it: of a space whose column is gone, or of another type, nothing else is to be had.
    SELECT s.* INTO dropped FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id AND s.name = drop_space.name;
    IF dropped.id IS NULL THEN
        dropped := pgvec._space(collection, name);
    END IF;
    IF dropped.is_default THEN
        RAISE EXCEPTION 'vector space % is the one that searches of collection % use', quote_literal(dropped.name), quote_literal(collection)
            USING ERRCODE = 'PV005', HINT = 'Drop the collection instead: pgvec.drop_collection(name); or make another space the default: pgvec.switch_space(collection, space).';
    END IF;
    IF dropped.embedding_column IS NULL THEN
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', owner.schema_name, dropped.table_name);
    END IF;
    IF EXISTS (SELECT FROM pgvec.histories h WHERE h.collection_id = owner.id) THEN
        EXECUTE format('DROP TABLE %I.%I', owner.schema_name, dropped.table_name || '_history');
    END IF;
    DELETE FROM pgvec.vector_spaces s WHERE s.id = dropped.id;
END $$;
COMMENT ON FUNCTION pgvec.drop_space(text, text) IS 'Drop a vector space that was added to a collection, with its vectors; the column of a registered table stays.
Example: SELECT pgvec.drop_space(''docs'', ''title'');';

CREATE OR REPLACE VIEW pgvec.spaces AS
SELECT c.name AS collection, s.name AS space, coalesce(n.nspname::text, c.schema_name) COLLATE "default" AS schema_name,
       coalesce(t.relname::text, c.table_name) COLLATE "default" AS chunk_table, coalesce(t.relname::text, s.table_name) COLLATE "default" AS vector_table,
       s.type, s.dimensions, s.distance, m.name AS model, c.language, s.is_default,
       greatest(k.reltuples, 0)::bigint AS estimated_rows, r.relation IS NOT NULL AS registered
FROM pgvec.collections c
JOIN pgvec.vector_spaces s ON s.collection_id = c.id
LEFT JOIN pgvec.models m ON m.id = s.model_id
LEFT JOIN pgvec.registered_tables r ON r.collection_id = c.id
LEFT JOIN pg_catalog.pg_class t ON t.oid = r.relation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_class k ON k.oid = CASE WHEN r.relation IS NULL THEN to_regclass(format('%I.%I', c.schema_name, s.table_name)) ELSE r.relation END;
COMMENT ON VIEW pgvec.spaces IS
'Every vector space of every collection, with its tables, model and estimated number of rows; registered: whether it is a column of a table of yours.';

CREATE OR REPLACE FUNCTION pgvec._index_stem(wanted pgvec.vector_spaces) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN wanted.embedding_column IS NULL THEN wanted.table_name
                WHEN octet_length(s.name) <= 48 THEN s.name ELSE left(s.name, 20) || '_' || left(md5(s.name), 8) END
    FROM (SELECT wanted.table_name || '_' || wanted.embedding_column AS name) s
$$;
COMMENT ON FUNCTION pgvec._index_stem(pgvec.vector_spaces) IS 'How the names of the vector indexes of a space begin: a table may have several vector columns.';

CREATE OR REPLACE FUNCTION pgvec._indexes(relation regclass, wanted pgvec.vector_spaces)
RETURNS TABLE (oid oid, name name, method name, form text, options text[], valid boolean, usable boolean, dimensions integer, lists integer,
               shape text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT i.oid, i.relname, a.amname, shape.form, coalesce(i.reloptions, '{}'), x.indisvalid,
           -- What is read of a registered table is WHERE its column IS NOT NULL.
           x.indisvalid AND (x.indpred IS NULL OR coalesce(pg_get_expr(x.indpred, relation) = '(' || quote_ident(wanted.embedding_column) || ' IS NOT NULL)', false))
               AND shape.form <> 'other'
               AND o.opcname = format('%s_%s_ops', t.typname, CASE shape.form WHEN 'binary' THEN 'hamming'
                                      ELSE (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).suffix END),
           CASE WHEN f.atttypmod > 0 THEN f.atttypmod ELSE wanted.dimensions END, built.lists,
           shape.form || CASE shape.form WHEN 'prefix' THEN ' ' || f.atttypmod ELSE '' END || coalesce(' lists=' || built.lists, '')
    FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am a ON a.oid = i.relam AND a.amname IN ('hnsw', 'ivfflat')
    JOIN pg_attribute f ON f.attrelid = i.oid AND f.attnum = 1
    JOIN pg_type t ON t.oid = f.atttypid
    JOIN pg_opclass o ON o.oid = x.indclass[0]
    -- Of expressions, the type tells which of our forms it is.
    CROSS JOIN LATERAL (SELECT CASE WHEN x.indkey[0] <> 0 THEN 'full'
                                    WHEN t.typname = 'bit' THEN 'binary'
                                    WHEN f.atttypmod < wanted.dimensions AND t.typname = wanted.type THEN 'prefix'
                                    WHEN f.atttypmod = wanted.dimensions AND t.typname = 'halfvec' THEN 'halfvec'
                                    ELSE 'other' END AS form) shape
    CROSS JOIN LATERAL (SELECT CASE a.amname WHEN 'ivfflat' THEN coalesce((regexp_match(array_to_string(i.reloptions, ' '), 'lists=(\d+)'))[1]::integer, 100) END AS lists) built
    WHERE x.indrelid = relation
      -- A registered table may have several vector columns.
      AND (wanted.embedding_column IS NULL OR EXISTS (
           SELECT FROM pg_attribute e WHERE e.attrelid = relation AND e.attname = wanted.embedding_column AND CASE WHEN x.indkey[0] <> 0 THEN x.indkey[0] = e.attnum
           ELSE EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid
                        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = relation AND d.refobjsubid = e.attnum) END))
    -- What is to replace an index is not in use until it has its name.
    ORDER BY 7 DESC, i.relname = pgvec._index_stem(wanted) || '_ccnew', array_position('{full,halfvec,prefix,binary}'::text[], shape.form), i.relname
$$;
COMMENT ON FUNCTION pgvec._indexes(regclass, pgvec.vector_spaces) IS 'The vector indexes of a vector table, and which of them searches can use; they use the first.';

CREATE OR REPLACE FUNCTION pgvec.indexes(collection text, space text DEFAULT NULL)
RETURNS TABLE (index_name text, method text, form text, dimensions integer, options text[], valid boolean, usable boolean, bytes bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  pgvec.collections := pgvec._collection(collection);
    wanted pgvec.vector_spaces := pgvec._space(collection, space);
BEGIN
    RETURN QUERY
    SELECT i.name::text, i.method::text, i.form, i.dimensions, i.options, i.valid, i.usable, pg_relation_size(i.oid)
    FROM pgvec._indexes(pgvec._relation(owner.schema_name, wanted.table_name), wanted) i;
END $$;
COMMENT ON FUNCTION pgvec.indexes(text, text) IS
'The vector indexes of a space. form: full; halfvec (of half precision); binary (of the signs); prefix (of the first
dimensions only); other. usable: whether searches use it: it is valid, not partial (but for WHERE … IS NOT NULL of a registered table), and its operator class is the distance''s.
Example: SELECT index_name, form, bytes FROM pgvec.indexes(''docs'');';
