-- The keyword index of a collection: what BM25 (Robertson and Zaragoza, 2009, as Lucene computes it) needs to know, in plain tables.
--
-- <collection>_keywords has a row for each chunk with text. What a word adds to a score depends on how often it occurs in the chunk, on the
-- chunk's length, and on statistics of the whole collection, which change with every write. So nothing of these is stored: column terms
-- says only which words occur how often, in classes, as the dimensions of a sparse vector. A search multiplies it with a vector of weights
-- made for the chunk's class of length, so that the product is never less than the score, and scores the best by that bound exactly.
-- A row thus depends on its chunk alone, and never has to be written again because another was.
--
-- <collection>_lexemes counts in how many chunks a lexeme occurs: the sum of its rows. Writers add rows of differences, so none waits
-- for another, and now and then one of them adds them up. Rows of the lexeme '' count chunks and words, by classes of length.

CREATE OR REPLACE FUNCTION pgvec._lexeme_number(lexeme text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT (hashtext(lexeme COLLATE "C") & 2147483647) % 100000000 $$;
COMMENT ON FUNCTION pgvec._lexeme_number(text) IS
'The number that stands for a lexeme. Where two share one, a bound is higher than it need be; no score depends on it.';

CREATE OR REPLACE FUNCTION pgvec._length_classes() RETURNS integer[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    -- Numeric, not float: the same on every machine.
    SELECT array_agg(c.shortest ORDER BY c.shortest)
    FROM (SELECT i AS shortest FROM generate_series(0, 16) i UNION SELECT ceil(16 * power(1.15, i::numeric))::integer FROM generate_series(1, 70) i) c
$$;
COMMENT ON FUNCTION pgvec._length_classes() IS 'The shortest length of each class of lengths: up to 16 words each length is one, beyond that they grow by 15 %.';

-- No search_path is pinned, for names in such a body are looked up when it is created: thus a statement that calls it takes it in.
-- That is half of what it costs to load, for it runs for every chunk.
CREATE OR REPLACE FUNCTION pgvec._keyword_terms(tsv tsvector, classes integer[])
RETURNS TABLE (length integer, length_class smallint, lexemes integer[], terms sparsevec)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT k.length, width_bucket(k.length, classes)::smallint, k.lexemes,
           CASE WHEN cardinality(k.dimensions) <= 16000 THEN  -- what a sparsevec holds; others have no bound, and are always scored
                ('{' || coalesce(nullif(array_to_string(k.dimensions, ':1,'), '') || ':1', '') || '}/1000000000')::sparsevec END
    FROM (SELECT coalesce(sum(w.times), 0)::integer AS length, coalesce(array_agg(w.number), '{}'::integer[]) AS lexemes,
                 coalesce(array_agg(DISTINCT w.number * 8 + CASE WHEN w.times <= 3 THEN w.times WHEN w.times <= 5 THEN 4 WHEN w.times <= 9 THEN 5 ELSE 6 END),
                          '{}'::integer[]) AS dimensions
          -- The number as in pgvec._lexeme_number, which is not called for the sake of loading: this runs for every word.
          FROM (SELECT coalesce(cardinality(u.positions), 1) AS times, (hashtext(u.lexeme COLLATE "C") & 2147483647) % 100000000 AS number
                FROM unnest(tsv) u) w) k;
END;
COMMENT ON FUNCTION pgvec._keyword_terms(tsvector, integer[]) IS 'What pgvec.keyword_terms returns, for statements that write many rows.';

CREATE OR REPLACE FUNCTION pgvec.keyword_terms(tsv tsvector, classes integer[] DEFAULT NULL,
                                               OUT length integer, OUT length_class smallint, OUT lexemes integer[], OUT terms sparsevec)
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT k.length, k.length_class, k.lexemes, k.terms FROM pgvec._keyword_terms(tsv, coalesce(classes, pgvec._length_classes())) k $$;
COMMENT ON FUNCTION pgvec.keyword_terms(tsvector, integer[]) IS
'What the keyword index keeps of a chunk. length: its words, without stop words; length_class: which of the classes that is in; lexemes:
the number of each lexeme; terms: which occurs once, twice, three times, four or five, six to nine times, more often.
Example: SELECT length FROM pgvec.keyword_terms(to_tsvector(''english'', ''Rotating the credentials''));';

CREATE OR REPLACE FUNCTION pgvec._keyword_home(stem text, number oid, schema_then text, schema_of_table text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- A schema may be renamed, which keeps the number, and a dump restored, which does not.
    SELECT coalesce((SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relname = stem || '_keywords' AND (c.oid = number OR n.nspname IN (schema_then, schema_of_table))
                     ORDER BY c.oid = number DESC, n.nspname = schema_then DESC LIMIT 1), schema_then)
$$;
COMMENT ON FUNCTION pgvec._keyword_home(text, oid, text, text) IS
'The schema that the keyword index of a registered table is in now, number being its table''s when it was built.';

CREATE OR REPLACE FUNCTION pgvec.keep_keywords() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The arguments, for a registered table: schema and stem of the index, language, name and number of the columns for key and text, the
    -- numbers of the table of keywords and of the table. No catalogue of pgvec's is read: who writes rows need not have rights there.
    stem     text := coalesce(TG_ARGV[1], TG_TABLE_NAME);
    home     text := TG_TABLE_SCHEMA;
    olds     text := 'old_rows';
    news     text := 'new_rows';
    -- Words that have not changed need no writing; but where they are not stored, to look for them costs more than to compare the texts.
    words    text := CASE TG_NARGS WHEN 0 THEN 'o.tsv <> n.tsv' ELSE 'o.text <> n.text' END;
    keywords text;
    lexemes  text;
    key      name;
    written  name;
    read     text;
    come     text;
    gone     text;
    changed  boolean;
    counted  bigint;
BEGIN
    IF TG_NARGS > 0 THEN
        home := pgvec._keyword_home(stem, TG_ARGV[7]::oid, TG_ARGV[0], TG_TABLE_SCHEMA);
    END IF;
    keywords := format('%I.%I', home, stem || '_keywords');
    lexemes := format('%I.%I', home, stem || '_lexemes');
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('TRUNCATE %s, %s', keywords, lexemes);
        RETURN NULL;
    END IF;
    IF TG_NARGS > 0 THEN
        key := pgvec._column_now(TG_RELID, TG_ARGV[3], CASE WHEN TG_RELID = TG_ARGV[8]::oid THEN TG_ARGV[4]::smallint END);
        written := pgvec._column_now(TG_RELID, TG_ARGV[5], CASE WHEN TG_RELID = TG_ARGV[8]::oid THEN TG_ARGV[6]::smallint END);
        -- The user dropped a column that the index is of. What is wrong with that searches and health say; their writes have to go on.
        IF key IS NULL OR written IS NULL THEN
            RETURN NULL;
        END IF;
        read := format('(SELECT r.%I AS key, r.%I::text AS text, to_tsvector(%L::regconfig, left(coalesce(r.%2$I, ''''), 250000)) AS tsv FROM ',
                       key, written, TG_ARGV[2]);
        olds := read || 'old_rows r)';
        news := read || 'new_rows r)';
    END IF;
    -- An UPDATE of other columns changes nothing here.
    come := CASE TG_OP WHEN 'INSERT' THEN format('SELECT n.key, n.tsv FROM %s n WHERE n.text IS NOT NULL', news)
        WHEN 'UPDATE' THEN format('SELECT n.key, n.tsv FROM %s n LEFT JOIN %s o ON o.key = n.key WHERE n.text IS NOT NULL AND (o.text IS NULL OR %s)', news, olds, words) END;
    gone := CASE TG_OP WHEN 'DELETE' THEN format('SELECT o.key, o.tsv FROM %s o WHERE o.text IS NOT NULL', olds)
        WHEN 'UPDATE' THEN format('SELECT o.key, o.tsv FROM %s o LEFT JOIN %s n ON n.key = o.key WHERE o.text IS NOT NULL AND (n.text IS NULL OR %s)', olds, news, words) END;
    -- Counted, not EXISTS: for a first row, which an UPDATE of other columns has not, the planner would compare each old row with each new one.
    EXECUTE format('SELECT count(*) > 0 FROM (%s) c', concat_ws(' UNION ALL ', come, gone)) INTO changed;
    IF NOT changed THEN
        RETURN NULL;
    END IF;
    IF gone IS NOT NULL THEN
        EXECUTE format($sql$
            WITH gone AS (DELETE FROM %s t USING (%s) g WHERE t.key = g.key RETURNING t.length_class, t.length)
            INSERT INTO %s (lexeme, length_class, chunks, words) SELECT '', g.length_class, -count(*), -sum(g.length) FROM gone g GROUP BY g.length_class$sql$,
            keywords, gone, lexemes);
    END IF;
    IF come IS NOT NULL THEN
        EXECUTE format($sql$
            WITH come AS (INSERT INTO %s (key, length, length_class, lexemes, terms) SELECT c.key, k.length, k.length_class, k.lexemes, k.terms
                          FROM (%s) c CROSS JOIN pgvec._length_classes() classes CROSS JOIN LATERAL pgvec._keyword_terms(c.tsv, classes) k
                          RETURNING length_class, length)
            INSERT INTO %s (lexeme, length_class, chunks, words) SELECT '', c.length_class, count(*), sum(c.length) FROM come c GROUP BY c.length_class$sql$,
            keywords, come, lexemes);
    END IF;
    EXECUTE format('INSERT INTO %s (lexeme, length_class, chunks, words) '
                   'SELECT l.lexeme, 0, sum(c.sign), 0 FROM (%s) c CROSS JOIN LATERAL unnest(c.tsv) l GROUP BY l.lexeme HAVING sum(c.sign) <> 0', lexemes,
                   concat_ws(' UNION ALL ', 'SELECT 1 AS sign, c.tsv FROM (' || come || ') c', 'SELECT -1 AS sign, g.tsv FROM (' || gone || ') g'));
    GET DIAGNOSTICS counted = ROW_COUNT;
    -- About once in 50,000 rows they are added up; by one writer at a time, and not where that could fail it.
    IF random() * 50000 < counted AND current_setting('transaction_isolation') = 'read committed'
       AND has_table_privilege(lexemes, 'SELECT') AND has_table_privilege(lexemes, 'DELETE') THEN
        PERFORM pgvec.add_up_lexemes(home, stem);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgvec.keep_keywords() IS
'Trigger of chunk tables with a keyword index: whatever writes chunks, the index follows, in the same transaction.';

CREATE OR REPLACE FUNCTION pgvec.add_up_lexemes(schema_name text, table_name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    replaced bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext(format('pgvec.lexemes %I.%I', schema_name, table_name))) THEN
        RETURN 0;
    END IF;
    -- It deletes what it sees, and adds the sum of what it deleted: rows that others write meanwhile stay.
    EXECUTE format($sql$
        WITH several AS (SELECT l.lexeme, l.length_class FROM %1$s l GROUP BY 1, 2 HAVING count(*) > 1 OR sum(l.chunks) = 0),
        gone AS (DELETE FROM %1$s l USING several s WHERE l.lexeme = s.lexeme AND l.length_class = s.length_class
                 RETURNING l.lexeme, l.length_class, l.chunks, l.words),
        added AS (INSERT INTO %1$s (lexeme, length_class, chunks, words)
                  SELECT g.lexeme, g.length_class, sum(g.chunks), sum(g.words) FROM gone g GROUP BY 1, 2 HAVING sum(g.chunks) <> 0 RETURNING 1)
        SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM added)$sql$, format('%I.%I', schema_name, table_name || '_lexemes')) INTO replaced;
    RETURN replaced;
END $$;
COMMENT ON FUNCTION pgvec.add_up_lexemes(text, text) IS
'Replace the rows that count the chunks of a lexeme by their sum; returns how many rows fewer there are. Writers do it by themselves now
and then; searches are right either way. 0 if another session is at it.
Example: SELECT pgvec.add_up_lexemes(''public'', ''docs'');';

CREATE OR REPLACE FUNCTION pgvec.create_keyword_index(collection text, k1 double precision DEFAULT 1.2, b double precision DEFAULT 0.75) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  pgvec.collections := pgvec._collection(collection);
    chunks text := format('%I.%I', owner.schema_name, owner.table_name);
    r      pgvec.registered_tables := pgvec._registered(owner.id);
    home   text := owner.schema_name;
    stem   text := CASE WHEN r.collection_id IS NULL THEN owner.table_name ELSE owner.name END;
BEGIN
    PERFORM pgvec._check_bm25(k1, b);
    IF r.collection_id IS NOT NULL AND r.text_column IS NULL THEN
        RAISE EXCEPTION 'collection % has no text to search for keywords', quote_literal(collection)
            USING ERRCODE = 'PV005', HINT = 'Register its table with a text: pgvec.unregister_table(name), then pgvec.register_table(relation, text => …).';
    END IF;
    -- What others wrote since the snapshot was taken would be missing. A collection of this transaction nobody else writes.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') AND owner.created_at <> now() THEN
        RAISE EXCEPTION 'a keyword index cannot be built in a transaction that is %', current_setting('transaction_isolation')
            USING ERRCODE = 'PV005', HINT = 'Build it in one that is READ COMMITTED.';
    END IF;
    -- From here on nobody else writes chunks until the transaction ends; searches go on.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chunks);
    IF EXISTS (SELECT FROM pgvec.keyword_indexes i WHERE i.collection_id = owner.id) THEN
        RAISE EXCEPTION 'collection % has a keyword index already', quote_literal(collection)
            USING ERRCODE = 'PV002', HINT = 'Drop it first with pgvec.drop_keyword_index(collection).';
    END IF;
    PERFORM pgvec._check_free(home, stem || '_keywords'), pgvec._check_free(home, stem || '_lexemes');
    EXECUTE format('CREATE TABLE %I.%I (key bigint PRIMARY KEY, length integer NOT NULL, length_class smallint NOT NULL, lexemes integer[] NOT NULL, '
                   'terms %I.sparsevec(1000000000))', home, stem || '_keywords', pgvec._vector_schema());
    -- In line while a row fits a page.
    EXECUTE format('ALTER TABLE %I.%I ALTER lexemes SET STORAGE EXTERNAL, ALTER terms SET STORAGE EXTERNAL, SET (toast_tuple_target = 8160)',
                   home, stem || '_keywords');
    EXECUTE format('CREATE TABLE %I.%I (lexeme text COLLATE "C" NOT NULL, length_class smallint NOT NULL, chunks bigint NOT NULL, words bigint NOT NULL)',
                   home, stem || '_lexemes');
    INSERT INTO pgvec.keyword_indexes (collection_id, k1, b, probe, keywords, lexemes)
    VALUES (owner.id, k1, b, pgvec._lexeme_number('probe'), CASE WHEN r.collection_id IS NOT NULL THEN pgvec._relation(home, stem || '_keywords') END,
            CASE WHEN r.collection_id IS NOT NULL THEN pgvec._relation(home, stem || '_lexemes') END);
    PERFORM pgvec._grant_as(chunks::regclass, pgvec._relation(home, stem || suffix)) FROM unnest('{_keywords,_lexemes}'::text[]) suffix;
    PERFORM pgvec._create_triggers(chunks, 'pgvec_keywords_', format('pgvec.keep_keywords(%s)', CASE WHEN r.collection_id IS NOT NULL THEN (
                SELECT string_agg(quote_literal(a), ', ' ORDER BY o)
                FROM unnest(ARRAY[home, stem, owner.language, r.key_column, r.attnums[1]::text, r.text_column, r.attnums[3]::text,
                                  pgvec._relation(home, stem || '_keywords')::oid::text, r.relation_number::text]) WITH ORDINALITY u (a, o)) END)),
            pgvec._fill_keyword_index(owner);
    -- A small pending list: each search reads all of it.
    EXECUTE format('CREATE INDEX ON %I.%I USING gin (lexemes) WITH (gin_pending_list_limit = 1024)', home, stem || '_keywords');
    EXECUTE format('CREATE INDEX ON %I.%I (lexeme)', home, stem || '_lexemes');
    IF r.collection_id IS NOT NULL THEN
        IF (SELECT c.relrowsecurity FROM pg_class c WHERE c.oid = r.relation) THEN
            RAISE NOTICE 'the policies of table % do not cover its keyword index: who may read that sees which words rows have', r.relation
                USING HINT = format('To keep them from that: REVOKE SELECT ON %I.%I, %1$I.%3$I FROM …; they can search by vector then.',
                                    home, stem || '_keywords', stem || '_lexemes');
        END IF;
        PERFORM pgvec._let_writers_keep(r.relation, ARRAY[format('%I.%I', home, stem || '_keywords'), format('%I.%I', home, stem || '_lexemes')]);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec.create_keyword_index(text, double precision, double precision) IS
'Give a collection that has none its keyword index: tables <collection>_keywords and <collection>_lexemes, and triggers that keep them.
New collections have one; those of a registered table are called after the collection. It takes about 0.1 ms a chunk, during which others can search but not write. Whoever may read or write the
chunk table may do so with the tables of the index, and who may write a registered table gets USAGE on schema pgvec.
k1: how much more a word says the more often it occurs; b: how much the length of a chunk counts, 0 to 1.
Example: SELECT pgvec.create_keyword_index(''docs'', k1 => 1.5);';

CREATE OR REPLACE FUNCTION pgvec._let_writers_keep(relation regclass, tables text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner  oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = relation);
    writer record;
    each   text;
BEGIN
    -- Its owner needs no rights to write it, and so has none that could be copied.
    FOREACH each IN ARRAY CASE owner WHEN current_user::regrole THEN '{}' ELSE tables END LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO %s', each, owner::regrole);
    END LOOP;
    -- Their statements fire the triggers.
    FOR writer IN SELECT DISTINCT a.grantee, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS name
                  FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
                  WHERE c.oid = relation AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') LOOP
        CONTINUE WHEN CASE WHEN writer.grantee = 0 THEN EXISTS (SELECT FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
                                                                WHERE n.nspname = 'pgvec' AND a.grantee = 0 AND a.privilege_type = 'USAGE')
                           ELSE has_schema_privilege(writer.grantee, 'pgvec', 'USAGE') END;
        IF NOT has_schema_privilege('pgvec', 'USAGE WITH GRANT OPTION') THEN
            RAISE EXCEPTION 'role % may write table %, and could not keep its keyword index', writer.name, relation
                USING ERRCODE = 'PV005', HINT = format('Have an administrator do this first: GRANT USAGE ON SCHEMA pgvec TO %s;', writer.name);
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA pgvec TO %s', writer.name);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._let_writers_keep(regclass, text[]) IS
'See to it that whoever may write a registered table has the rights that the triggers of its keyword index need; PV005 if the caller cannot.';

CREATE OR REPLACE FUNCTION pgvec._grant_as(model regclass, relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT DISTINCT a.grantee, a.privilege_type FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
                   WHERE c.oid = model AND a.grantee <> c.relowner AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') LOOP
        EXECUTE format('GRANT %s ON %s TO %s', CASE granted.privilege_type
                WHEN 'INSERT' THEN 'SELECT, INSERT'
                -- The triggers rewrite a row by DELETE and INSERT, and read what they delete.
                WHEN 'UPDATE' THEN 'SELECT, INSERT, UPDATE, DELETE'
                WHEN 'DELETE' THEN 'SELECT, INSERT, DELETE'
                ELSE granted.privilege_type END,
            relation, CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._grant_as(regclass, regclass) IS 'Give those who may read or write one table what they need for another that follows it by triggers.';

-- Rows that a policy hides from the owner would be missing for good: then it fails.
CREATE OR REPLACE FUNCTION pgvec._fill_keyword_index(owner pgvec.collections) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
    chunks   text := pgvec._chunks_sql(owner);
    keywords text := pgvec._keyword_table(owner, '_keywords');
BEGIN
    EXECUTE format('INSERT INTO %s (key, length, length_class, lexemes, terms) SELECT d.key, k.length, k.length_class, k.lexemes, k.terms '
                   'FROM %s d CROSS JOIN pgvec._length_classes() classes CROSS JOIN LATERAL pgvec._keyword_terms(d.tsv, classes) k '
                   'WHERE d.text IS NOT NULL ORDER BY d.key', keywords, chunks);
    EXECUTE format($sql$
        INSERT INTO %1$s (lexeme, length_class, chunks, words)
        SELECT l.lexeme, 0, count(*), 0 FROM %3$s d CROSS JOIN LATERAL unnest(d.tsv) l WHERE d.text IS NOT NULL GROUP BY l.lexeme
        UNION ALL SELECT '', t.length_class, count(*), sum(t.length) FROM %2$s t GROUP BY t.length_class$sql$,
        pgvec._keyword_table(owner, '_lexemes'), keywords, chunks);
END $$;
COMMENT ON FUNCTION pgvec._fill_keyword_index(pgvec.collections) IS 'Write the rows of a keyword index that is empty.';

CREATE OR REPLACE FUNCTION pgvec._check_bm25(k1 double precision, b double precision) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (k1 BETWEEN 0 AND 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'k1 must be from 0 to 1000, not %', coalesce(k1::text, 'NULL') USING ERRCODE = 'PV005', HINT = 'Usual is 0.9 to 2.';
    ELSIF (b BETWEEN 0 AND 1) IS NOT TRUE THEN
        RAISE EXCEPTION 'b must be from 0 to 1, not %', coalesce(b::text, 'NULL') USING ERRCODE = 'PV005', HINT = 'Usual is 0.75.';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._check_bm25(double precision, double precision) IS 'PV005 unless these can be parameters of BM25.';

CREATE OR REPLACE FUNCTION pgvec.drop_keyword_index(collection text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner pgvec.collections := pgvec._collection(collection);
BEGIN
    IF NOT EXISTS (SELECT FROM pgvec.keyword_indexes i WHERE i.collection_id = owner.id) THEN
        RETURN false;
    END IF;
    PERFORM pgvec._drop_triggers(format('%I.%I', owner.schema_name, owner.table_name), 'pgvec_keywords_');
    EXECUTE format('DROP TABLE IF EXISTS %s, %s', pgvec._keyword_table(owner, '_keywords'), pgvec._keyword_table(owner, '_lexemes'));
    DELETE FROM pgvec.keyword_indexes i WHERE i.collection_id = owner.id;
    RETURN true;
END $$;
COMMENT ON FUNCTION pgvec.drop_keyword_index(text) IS 'Drop the keyword index of a collection; returns whether there was one.
Example: SELECT pgvec.drop_keyword_index(''docs'');';
