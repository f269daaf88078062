-- Registering tables as collections, and ending that.

CREATE OR REPLACE FUNCTION pgvec._vector_column(relation regclass, "column" name, OUT type text, OUT dimensions integer, OUT attnum smallint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.typname, nullif(a.atttypmod, -1), a.attnum
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = relation AND a.attname = "column" AND a.attnum > 0 AND NOT a.attisdropped
      AND (t.typnamespace = (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'vector') AND t.typname IN ('vector', 'halfvec', 'sparsevec')
           OR t.oid = 'bit'::regtype)
$$;
COMMENT ON FUNCTION pgvec._vector_column(regclass, name) IS 'Type and dimensions of a vector column; NULL if there is no such column, or it is of another type.';

CREATE OR REPLACE FUNCTION pgvec._check_registrable(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c     record;
    known text;
BEGIN
    SELECT k.relkind, k.relpersistence, k.relispartition, n.nspname INTO c
    FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace WHERE k.oid = relation;
    SELECT o.name INTO known FROM pgvec.collections o
    LEFT JOIN pgvec.registered_tables r ON r.collection_id = o.id
    WHERE CASE WHEN r.relation IS NOT NULL THEN r.relation = _check_registrable.relation
               ELSE _check_registrable.relation = to_regclass(format('%I.%I', o.schema_name, o.table_name)) OR EXISTS (
                   SELECT FROM pgvec.vector_spaces s WHERE s.collection_id = o.id AND _check_registrable.relation = to_regclass(format('%I.%I', o.schema_name, s.table_name))) END;
    IF known IS NOT NULL THEN
        RAISE EXCEPTION 'table % is part of collection % already', relation, quote_literal(known)
            USING ERRCODE = 'PV002', HINT = 'A further vector column: pgvec.register_space(collection, embedding => …). To register it otherwise, pgvec.unregister_table(name) first.';
    ELSIF c.relkind = 'p' OR c.relispartition THEN
        RAISE EXCEPTION 'table % is partitioned, or a partition: these cannot be registered', relation
            USING ERRCODE = 'PV005', HINT = 'Have a collection follow it instead: pgvec.attach(relation, text).';
    ELSIF EXISTS (SELECT FROM pg_inherits i WHERE relation IN (i.inhparent, i.inhrelid)) THEN
        RAISE EXCEPTION 'table % inherits, or is inherited from: such cannot be registered', relation
            USING ERRCODE = 'PV005', HINT = 'Have a collection follow it instead: pgvec.attach(relation, text).';
    ELSIF c.relkind <> 'r' OR c.relpersistence = 't' OR c.nspname IN ('pg_catalog', 'information_schema', 'pgvec') THEN
        RAISE EXCEPTION '% is no table of yours that lasts', relation
            USING ERRCODE = 'PV005', HINT = 'Plain tables can be registered: no views, no foreign or temporary tables.';
    ELSIF NOT has_table_privilege(relation, 'SELECT') THEN
        RAISE EXCEPTION 'permission denied for table %', relation USING ERRCODE = '42501', HINT = format('GRANT SELECT ON %s TO %I;', relation, current_user);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_registrable(regclass) IS 'PV002, PV005 or 42501 unless this is a table that can be a collection.';

CREATE OR REPLACE FUNCTION pgvec._registered_key(relation regclass, "column" name) RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted name := coalesce("column", (SELECT a.attname FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
                                       WHERE x.indrelid = relation AND x.indisprimary AND x.indnkeyatts = 1
                                         AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)));
BEGIN
    IF wanted IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key of one whole number', relation
            USING ERRCODE = 'PV005', HINT = format('Name a column that is unique and not null by key => …, or add one: ALTER TABLE %s ADD COLUMN key bigint GENERATED ALWAYS AS IDENTITY UNIQUE;', relation);
    ELSIF NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_index x ON x.indrelid = a.attrelid AND x.indkey[0] = a.attnum
                      WHERE a.attrelid = relation AND a.attname = wanted AND NOT a.attisdropped AND a.attnotnull AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
                        AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indnkeyatts = 1 AND x.indpred IS NULL) THEN
        RAISE EXCEPTION 'column % of table % is no key: it must be a smallint, integer or bigint that is NOT NULL and unique', quote_literal(wanted), relation
            USING ERRCODE = 'PV005', HINT = format('Name another by key => …, or add one: ALTER TABLE %s ADD COLUMN key bigint GENERATED ALWAYS AS IDENTITY UNIQUE;', relation);
    END IF;
    RETURN wanted;
END $$;
COMMENT ON FUNCTION pgvec._registered_key(regclass, name) IS 'The column by which rows of a registered table are told apart (NULL: its primary key); PV005 if it will not do.';

CREATE OR REPLACE FUNCTION pgvec._check_registered_column(relation regclass, part text, "column" name, types regtype[]) RETURNS smallint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found record;
BEGIN
    IF "column" IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT a.attnum, format_type(a.atttypid, a.atttypmod) AS type, a.atttypid = ANY (types) OR types IS NULL AND pgvec._is_filterable(a.atttypid) AS fits INTO found
    FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = "column" AND a.attnum > 0 AND NOT a.attisdropped;
    IF found IS NULL THEN
        RAISE EXCEPTION 'table % has no column %', relation, quote_literal("column") USING ERRCODE = 'PV005', HINT = format('Name another by %s => ….', part);
    ELSIF NOT found.fits THEN
        RAISE EXCEPTION 'column % is of type %, and cannot be the %', quote_literal("column"), found.type, part
            USING ERRCODE = 'PV005', HINT = CASE part WHEN 'metadata' THEN 'It has to be of type jsonb.' WHEN 'text' THEN 'It has to be of type text, or varchar.'
                                                      ELSE 'It has to be a number, a text or a uuid.' END;
    END IF;
    RETURN found.attnum;
END $$;
COMMENT ON FUNCTION pgvec._check_registered_column(regclass, text, name, regtype[]) IS 'The number of a column that is to be some part of a chunk; PV005 if it cannot be.';

CREATE OR REPLACE FUNCTION pgvec._register_space(owner pgvec.collections, relation regclass, space text, embedding name, distance text, model_id integer, is_default boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found     record;
    distance_ text;
BEGIN
    SELECT v.type, v.dimensions, v.attnum INTO found FROM pgvec._vector_column(relation, embedding) v;
    PERFORM pgvec._check_name('vector space', space);
    IF space IN ('keyword', 'keywords', 'lexemes', 'history') THEN
        RAISE EXCEPTION 'a vector space cannot be called %: something else has that name', space USING ERRCODE = 'PV003', HINT = 'Choose another name for the space.';
    ELSIF EXISTS (SELECT FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id AND s.name = space) THEN
        RAISE EXCEPTION 'collection % has a vector space % already', quote_literal(owner.name), quote_literal(space)
            USING ERRCODE = 'PV002', HINT = 'Drop it first with pgvec.drop_space(collection, name): the column stays.';
    ELSIF EXISTS (SELECT FROM pgvec.vector_spaces s WHERE s.collection_id = owner.id AND s.embedding_column = embedding) THEN
        RAISE EXCEPTION 'column % of table % is a vector space already', quote_literal(embedding), relation
            USING ERRCODE = 'PV002', HINT = 'Drop that first with pgvec.drop_space(collection, name): the column stays.';
    ELSIF found.type IS NULL THEN
        RAISE EXCEPTION 'table % has no vector column %', relation, quote_nullable(embedding)
            USING ERRCODE = 'PV005', HINT = format('Its columns of type vector, halfvec, sparsevec or bit: %s.', coalesce(
                (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND (pgvec._vector_column(relation, a.attname)).type IS NOT NULL),
                'there are none'));
    ELSIF found.dimensions IS NULL THEN
        RAISE EXCEPTION 'column % of table % has no dimensions', quote_literal(embedding), relation
            USING ERRCODE = 'PV005', HINT = format('Say how many it has: ALTER TABLE %s ALTER COLUMN %I TYPE %s(n);', relation, embedding, found.type);
    END IF;
    -- What an index was built for is what its table is searched by.
    distance_ := coalesce(distance, (
        SELECT d.distance FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam JOIN pg_opclass o ON o.oid = x.indclass[0]
        CROSS JOIN (VALUES ('cosine', 'cosine'), ('l2', 'l2'), ('ip', 'inner_product'), ('l1', 'l1'), ('hamming', 'hamming'), ('jaccard', 'jaccard')) AS d (suffix, distance)
        WHERE x.indrelid = relation AND x.indkey[0] = found.attnum AND m.amname IN ('hnsw', 'ivfflat') AND o.opcname = format('%s_%s_ops', found.type, d.suffix)
        ORDER BY x.indisvalid DESC, i.relname LIMIT 1), CASE found.type WHEN 'bit' THEN 'hamming' ELSE 'cosine' END);
    PERFORM pgvec._distance(distance_, found.type, found.dimensions), pgvec._embedding_type(found.type, found.dimensions);
    INSERT INTO pgvec.vector_spaces (collection_id, name, table_name, type, dimensions, distance, model_id, is_default, embedding_column, embedding_attnum)
    VALUES (owner.id, space, owner.table_name, found.type, found.dimensions, distance_, model_id, is_default, embedding, found.attnum);
END $$;
COMMENT ON FUNCTION pgvec._register_space(pgvec.collections, regclass, text, name, text, integer, boolean) IS 'Make a vector column of a registered table a space.';

CREATE OR REPLACE FUNCTION pgvec.register_table(
    relation  regclass,
    embedding text    DEFAULT 'embedding',
    text      text    DEFAULT NULL,
    key       text    DEFAULT NULL,
    id        text    DEFAULT NULL,
    name      text    DEFAULT NULL,
    distance  text    DEFAULT NULL,
    space     text    DEFAULT 'dense',
    language  text    DEFAULT 'english',
    model_id  integer DEFAULT NULL,
    keywords  boolean DEFAULT false,
    metadata  text    DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    its     record;
    name_   text;
    key_    name;
    owner   pgvec.collections;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('pgvec.create_collection')), pgvec._check_registrable(register_table.relation);
    SELECT c.relname, n.nspname INTO its FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = register_table.relation;
    name_ := coalesce(register_table.name, its.relname);
    IF register_table.name IS NULL AND (name_ !~ '^[a-z_][a-z0-9_]*$' OR length(name_) > 36) THEN
        RAISE EXCEPTION '% cannot be the name of a collection', quote_literal(name_)
            USING ERRCODE = 'PV003', HINT = 'Give it one of 1 to 36 lower-case letters, digits and underscores by name => ….';
    END IF;
    PERFORM pgvec._check_name('collection', name_), pgvec._check_new(name_), pgvec._check_language(register_table.language);
    key_ := pgvec._registered_key(register_table.relation, register_table.key);
    PERFORM pgvec._give_way(its.nspname, its.relname);
    INSERT INTO pgvec.collections AS c (name, schema_name, table_name, language)
    VALUES (name_, its.nspname, its.relname, register_table.language)
    RETURNING c.id, c.name, c.schema_name, c.table_name, c.language, c.created_at INTO owner;
    INSERT INTO pgvec.registered_tables (collection_id, relation, relation_number, key_column, id_column, text_column, metadata_column, attnums)
    VALUES (owner.id, register_table.relation, register_table.relation, key_, coalesce(register_table.id, key_), register_table.text, register_table.metadata, ARRAY[
        pgvec._check_registered_column(register_table.relation, 'key', key_, NULL),
        pgvec._check_registered_column(register_table.relation, 'id', coalesce(register_table.id, key_), NULL),
        pgvec._check_registered_column(register_table.relation, 'text', register_table.text, '{text,varchar,bpchar}'),
        pgvec._check_registered_column(register_table.relation, 'metadata', register_table.metadata, '{jsonb}')]);
    PERFORM pgvec._register_space(owner, register_table.relation, register_table.space, register_table.embedding, register_table.distance, register_table.model_id, true);
    IF register_table.keywords THEN
        PERFORM pgvec.create_keyword_index(name_);
    END IF;
    RETURN name_;
END $$;
COMMENT ON FUNCTION pgvec.register_table(regclass, text, text, text, text, text, text, text, text, integer, boolean, text) IS
'Make a table of yours with a vector column a collection: searched, tuned and watched as others are, and only read. Nothing is copied, nothing on the
table is changed, but for the triggers of a keyword index, and vectors that pgvec collection embed writes. embedding: the vector column, whose type and dimensions count; text: the column that hits show, and keyword searches search; key: a whole number
that is unique and not null, the primary key unless told; id: what hits name rows by, the key unless told; name: of the collection, the table''s
unless told; distance: the one its vector index is built for, or cosine, unless told; metadata: a jsonb column whose keys can be filtered by. All other
columns that filters can compare are typed columns. keywords: whether it gets a keyword index, tables <name>_keywords and <name>_lexemes and
triggers on the table (pgvec.create_keyword_index does it later). The table, and its columns, may be renamed. Returns the name of the collection.
Example: SELECT pgvec.register_table(''products'', text => ''description'');';

CREATE OR REPLACE FUNCTION pgvec.register_space(
    collection text,
    embedding  text,
    name       text    DEFAULT NULL,
    distance   text    DEFAULT NULL,
    model_id   integer DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
    r     pgvec.registered_tables := pgvec._registered(owner.id);
BEGIN
    IF r.collection_id IS NULL THEN
        RAISE EXCEPTION 'collection % is no registered table', quote_literal(collection)
            USING ERRCODE = 'PV005', HINT = 'Add a vector space with pgvec.add_space(collection, name, dimensions).';
    END IF;
    PERFORM pgvec._register_space(owner, r.relation, coalesce(register_space.name, embedding), embedding, distance, model_id, false);
END $$;
COMMENT ON FUNCTION pgvec.register_space(text, text, text, text, integer) IS
'Make a further vector column of a registered table a vector space; name: as searches ask for it, the column''s unless told. pgvec.drop_space ends that, the
column stays.
Example: SELECT pgvec.register_space(''products'', embedding => ''image'');';

CREATE OR REPLACE FUNCTION pgvec.unregister_table(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r       pgvec.registered_tables;
    present text;
    each    text;
BEGIN
    SELECT t.* INTO r FROM pgvec.collections c JOIN pgvec.registered_tables t ON t.collection_id = c.id WHERE c.name = unregister_table.name;
    IF r.collection_id IS NULL THEN
        PERFORM pgvec._collection(name);
        RAISE EXCEPTION 'collection % is no registered table', quote_literal(name) USING ERRCODE = 'PV005', HINT = 'Drop it with pgvec.drop_collection(name).';
    END IF;
    SELECT format('%I.%I', n.nspname, c.relname) INTO present FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = r.relation;
    IF present IS NOT NULL AND EXISTS (SELECT FROM pgvec.keyword_indexes i WHERE i.collection_id = r.collection_id) THEN
        PERFORM pgvec._drop_triggers(present, 'pgvec_keywords_');
    END IF;
    -- Only what an index is known to have: without one, tables of such names are others'.
    FOR each IN SELECT format('%I.%I', n.nspname, c.relname) FROM pgvec.keyword_indexes i JOIN pg_class c ON c.oid IN (i.keywords, i.lexemes)
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.collection_id = r.collection_id LOOP
        EXECUTE 'DROP TABLE ' || each;
    END LOOP;
    DELETE FROM pgvec.collections c WHERE c.id = r.collection_id;
END $$;
COMMENT ON FUNCTION pgvec.unregister_table(text) IS
'Have a table be a collection no longer: what pgvec knows of it goes, tuning profiles and keyword index too; the table, its rows and its vector
indexes stay as they are.
Example: SELECT pgvec.unregister_table(''products'');';

CREATE OR REPLACE FUNCTION pgvec._give_way(schema text, table_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stale record;
BEGIN
    SELECT c.id, r.relation, n.nspname, k.relname INTO stale FROM pgvec.collections c JOIN pgvec.registered_tables r ON r.collection_id = c.id
    LEFT JOIN pg_class k ON k.oid = r.relation LEFT JOIN pg_namespace n ON n.oid = k.relnamespace
    WHERE (c.schema_name, c.table_name) = (_give_way.schema, _give_way.table_name) AND (n.nspname, k.relname) IS DISTINCT FROM (c.schema_name, c.table_name);
    IF stale.id IS NOT NULL THEN
        UPDATE pgvec.collections c SET schema_name = coalesce(stale.nspname, c.schema_name), table_name = coalesce(stale.relname, format('%s, dropped', stale.relation::oid))
        WHERE c.id = stale.id;
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._give_way(text, text) IS 'Have the catalogue let go of the name of a registered table that is called otherwise now, or is gone.';

CREATE OR REPLACE FUNCTION pgvec._fill_sql(owner pgvec.collections, wanted pgvec.vector_spaces) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r pgvec.registered_tables := pgvec._registered(owner.id);
BEGIN
    IF r.text_column IS NULL THEN
        RAISE EXCEPTION 'collection % has no text to embed', quote_literal(owner.name)
            USING ERRCODE = 'PV005', HINT = 'Register its table with a text: pgvec.unregister_table(name), then pgvec.register_table(relation, text => …).';
    END IF;
    RETURN format('UPDATE %I.%I SET %I = $1 WHERE %I = $2 AND %3$I IS NULL AND %5$I = $3', owner.schema_name, owner.table_name, wanted.embedding_column,
                  r.key_column, r.text_column);
END $$;
COMMENT ON FUNCTION pgvec._fill_sql(pgvec.collections, pgvec.vector_spaces) IS
'The statement that gives the row with key $2 of a registered table a vector, $1, unless it has one by now, or another text than $3.';
