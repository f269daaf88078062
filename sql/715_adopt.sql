-- Vectors that another tool made of an attached table: taken over, so that workers embed only what changes from now on.

CREATE OR REPLACE FUNCTION pgvec._check_store(attached pgvec.attachments, store regclass, wanted text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lacking text := (SELECT string_agg(w.name, ', ' ORDER BY w.name)
                     FROM (SELECT k."column"::text FROM pgvec._key(attached.relation) k UNION SELECT unnest(wanted)) AS w (name)
                     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = store AND a.attname = w.name AND NOT a.attisdropped));
BEGIN
    IF lacking IS NOT NULL THEN
        RAISE EXCEPTION '% has no column %', store, lacking USING ERRCODE = 'PV005',
            HINT = 'It needs the primary key of the attached table; name the others by chunk => …, sequence => …, embedding => ….';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_store(pgvec.attachments, regclass, text[]) IS 'PV005 unless a table has the key of an attached one, and these columns.';

CREATE OR REPLACE FUNCTION pgvec._adopted_chunks_sql(attached pgvec.attachments, store regclass, chunk text, sequence text, embedding text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN store = attached.relation
                -- A column beside the text: the row is its only chunk.
                THEN format('SELECT %s AS id, 0 AS position, NULL::text AS text, pgvec_store.%I AS embedding FROM %s AS pgvec_store WHERE pgvec_store.%I IS NOT NULL',
                            pgvec._key_sql(attached.relation), embedding, store, embedding)
                ELSE format('SELECT %1$s AS id, (row_number() OVER (PARTITION BY %1$s ORDER BY pgvec_store.%2$I) - 1)::integer AS position, pgvec_store.%3$I::text AS text, '
                            'pgvec_store.%4$I AS embedding FROM %5$s AS pgvec_store', pgvec._key_sql(attached.relation), sequence, chunk, embedding, store) END
$$;
COMMENT ON FUNCTION pgvec._adopted_chunks_sql(pgvec.attachments, regclass, text, text, text) IS 'Chunks and vectors of another tool, with the ids of documents.';

CREATE OR REPLACE FUNCTION pgvec.adopt(
    collection text,
    store      regclass,
    pending    regclass[] DEFAULT '{}',
    chunk      text       DEFAULT 'chunk',
    sequence   text       DEFAULT 'chunk_seq',
    embedding  text       DEFAULT 'embedding'
) RETURNS bigint
-- With those settings (pgvec._text_settings()) with which ids and texts of rows are read.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'
AS $$
DECLARE
    attached  pgvec.attachments;
    owner     pgvec.collections;
    space     pgvec.vector_spaces;
    parts     jsonb;
    found     text;
    queued    regclass;
    adopted   bigint;
BEGIN
    SELECT a.id, a.collection_id, a.relation, a.relation_name, a.routines_schema, a.text_sql, a.columns
    INTO attached.id, attached.collection_id, attached.relation, attached.relation_name, attached.routines_schema, attached.text_sql, attached.columns
    FROM pgvec.attachments a WHERE a.id = pgvec._attachment(adopt.collection);
    SELECT c.name, c.schema_name, c.table_name INTO owner.name, owner.schema_name, owner.table_name FROM pgvec.collections c WHERE c.id = attached.collection_id;
    -- The default space stays that until the transaction ends.
    EXECUTE format('LOCK TABLE %I.%I IN ROW EXCLUSIVE MODE', owner.schema_name, owner.table_name);
    space := pgvec._space(owner.name, NULL);
    PERFORM pgvec._check_store(attached, store, CASE WHEN store = attached.relation THEN ARRAY[embedding] ELSE ARRAY[chunk, sequence, embedding] END);
    FOREACH queued IN ARRAY pending LOOP
        PERFORM pgvec._check_store(attached, queued, '{}');
    END LOOP;
    found := (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = store AND a.attname = embedding);
    IF found ~ '\(\d+\)' AND substring(found FROM '\((\d+)\)')::integer <> space.dimensions THEN
        RAISE EXCEPTION '% holds vectors of % dimensions, collection % those of %', store, substring(found FROM '\((\d+)\)'), quote_literal(owner.name), space.dimensions
            USING ERRCODE = 'PV005', HINT = 'Attach the table with the model that made them, and its dimensions.';
    END IF;
    parts := pgvec._routine_parts(attached) || jsonb_build_object(
        'collection_id', attached.collection_id, 'source', quote_literal('table:' || attached.relation_name),
        'chunks', format('%I.%I', owner.schema_name, owner.table_name), 'vectors', format('%I.%I', owner.schema_name, space.table_name),
        'type', pgvec._embedding_type(space.type, space.dimensions),
        'store', pgvec._adopted_chunks_sql(attached, store, chunk, sequence, embedding),
        'pending', (SELECT coalesce(string_agg(format('SELECT %s AS id FROM %s', pgvec._key_sql(attached.relation), q), ' UNION ALL '), 'SELECT NULL::text AS id WHERE false')
                    FROM unnest(pending) q));
    EXECUTE pgvec._render($sql$
        WITH row_ AS MATERIALIZED (
            SELECT r.document_id AS id, coalesce(r.text, '') AS text FROM {name}_rows(ARRAY(SELECT k.document_id FROM {name}_keys('', 2147483647) k)) r
            WHERE NOT EXISTS (SELECT FROM ({pending}) p WHERE p.id = r.document_id)
        ), made AS MATERIALIZED (
            SELECT s.id, s.position, coalesce(s.text, r.text) AS text, s.embedding FROM ({store}) s JOIN row_ r ON r.id = s.id
        ), taken AS (
            INSERT INTO pgvec.ledger (collection_id, document_id, content_hash, chunks, source)
            SELECT {collection_id}, r.id, convert_to('adopted:', 'UTF8') || substr(sha256(convert_to(r.text, 'UTF8')), 1, 24), m.chunks, {source}
            FROM row_ r JOIN (SELECT m.id, count(*) AS chunks FROM made m GROUP BY m.id) m ON m.id = r.id ORDER BY r.id
            ON CONFLICT (collection_id, document_id) DO NOTHING RETURNING document_id
        ), chunk AS (
            INSERT INTO {chunks} AS c (id, document_id, position, text)
            SELECT m.id || '#' || m.position, m.id, m.position, m.text FROM made m JOIN taken t ON t.document_id = m.id RETURNING c.key, c.document_id, c.position
        ), vector_ AS (
            INSERT INTO {vectors} (key, embedding)
            SELECT c.key, m.embedding::{type} FROM chunk c JOIN made m ON m.id = c.document_id AND m.position = c.position
        )
        SELECT count(*) FROM taken$sql$, parts) INTO adopted;
    -- Their columns are still to be copied.
    INSERT INTO pgvec.changes (attachment_id) VALUES (attached.id);
    NOTIFY pgvec_queue;
    RETURN adopted;
END $$;
COMMENT ON FUNCTION pgvec.adopt(text, regclass, regclass[], text, text, text) IS
'Take over the chunks and vectors that another tool, as pgai''s vectorizer, made of an attached table, so that workers embed only what changes from
now on; returns how many documents. store: its table, with the primary key of the attached one, and columns chunk, sequence (the order of chunks),
embedding; or the attached table itself, if the vectors are a column of it. pending: its queues, tables of keys: rows that it had not embedded yet are
not taken over. Documents that the collection has already stay as they are. The vectors must be of the collection''s model: nothing can check that.
Example: SELECT pgvec.adopt(''blog_search'', ''blog_embedding_store'', pending => ''{ai._vectorizer_q_1}'');';
