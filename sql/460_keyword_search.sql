-- Keyword search: the chunks with the highest BM25, found by bounds and then scored exactly.
--
-- score = sum over the words of the query: times in the query * idf * f / (f + k1 * (1 - b + b * length / mean length)),
-- idf = ln(1 + (N - n + 0.5) / (n + 0.5)), for a word that is f times in the chunk and in n of N chunks.

CREATE OR REPLACE FUNCTION pgvec._keyword_query(language regconfig, query text,
                                                OUT lexemes text[], OUT times integer[], OUT wanted tsquery, OUT needed text[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    -- A sign, where a word could begin, and a phrase or a word; a quotation mark within a word is none.
    pattern text := '((?:(?<=\s)|^)[+-]|)(?:"([^"]*)"?|((?![+-]?")\S+))';
    part    record;
    meaning tsquery;
    words   text;
BEGIN
    IF length(query) > 250000 THEN  -- as much as of a chunk counts
        RAISE EXCEPTION 'the query has % characters, more than 250000', length(query) USING ERRCODE = 'PV005';
    END IF;
    FOR part IN SELECT p.m[1] AS sign, coalesce(p.m[2], p.m[3]) AS words, row_number() OVER () AS number
                FROM regexp_matches(query, pattern, 'g') p (m) WHERE p.m[1] <> '' OR p.m[2] IS NOT NULL LOOP
        IF part.number > 1000 THEN
            RAISE EXCEPTION 'the query has more than 1000 phrases, +words and -words' USING ERRCODE = 'PV005';
        END IF;
        meaning := phraseto_tsquery(language, part.words);
        IF numnode(meaning) > 0 THEN  -- of words that the language leaves out nothing can be asked
            IF part.sign = '-' THEN
                meaning := !! meaning;
            ELSIF position(' | ' IN meaning::text) = 0 THEN  -- of a word with variants one is enough
                needed := needed || tsvector_to_array(to_tsvector(language, part.words));
            END IF;
            wanted := CASE WHEN wanted IS NULL THEN meaning ELSE wanted && meaning END;
        END IF;
    END LOOP;
    SELECT string_agg(coalesce(p.m[2], p.m[3]), ' ') INTO words FROM regexp_matches(query, pattern, 'g') p (m) WHERE p.m[1] <> '-';
    SELECT array_agg(u.lexeme), array_agg(coalesce(cardinality(u.positions), 1)) INTO lexemes, times FROM unnest(to_tsvector(language, words)) u;
    IF cardinality(lexemes) > 1000 THEN
        RAISE EXCEPTION 'the query has % different words, more than 1000', cardinality(lexemes) USING ERRCODE = 'PV005';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._keyword_query(regconfig, text) IS
'A query as lexemes, how often each is in it, and what must hold beside: "phrases" and +words must be there, -words and -"phrases" must not;
needed: lexemes that are in every chunk for which it holds.';

CREATE OR REPLACE FUNCTION pgvec._keyword_weights(owner pgvec.collections, INOUT lexemes text[], times integer[], OUT weights double precision[],
    OUT rest double precision[], OUT reached bigint[], OUT chunks bigint, OUT mean_length double precision, OUT classes smallint[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation text := pgvec._keyword_table(owner, '_lexemes');
BEGIN
    EXECUTE format('SELECT sum(c.chunks), sum(c.words) / greatest(1, sum(c.chunks)), array_agg(c.length_class) FROM '
                   '(SELECT l.length_class, sum(l.chunks) AS chunks, sum(l.words) AS words FROM %s l WHERE l.lexeme = '''' GROUP BY 1 HAVING sum(l.chunks) > 0) c', relation)
        INTO chunks, mean_length, classes;
    EXECUTE format($sql$
        SELECT array_agg(w.lexeme ORDER BY w.place), array_agg(w.weight ORDER BY w.place),
               array_agg(w.total - w.sum ORDER BY w.place), array_agg(w.reached ORDER BY w.place)
        FROM (SELECT n.lexeme, n.weight, row_number() OVER o AS place, sum(n.weight) OVER () AS total, sum(n.weight) OVER o AS sum, sum(n.count) OVER o AS reached
              FROM (SELECT n.lexeme, n.count, n.times * ln(1 + ($3 - n.count + 0.5) / (n.count + 0.5)) AS weight
                    FROM (SELECT q.lexeme, q.times, (SELECT sum(l.chunks)::bigint FROM %s l WHERE l.lexeme = q.lexeme) AS count
                          FROM unnest($1, $2) q (lexeme, times) OFFSET 0) n WHERE n.count > 0) n
              WINDOW o AS (ORDER BY n.count, n.lexeme)) w$sql$, relation)
        INTO lexemes, weights, rest, reached USING lexemes, times, chunks::double precision;
END $$;
COMMENT ON FUNCTION pgvec._keyword_weights(pgvec.collections, text[], integer[]) IS
'Those lexemes of a query that the collection has, the rarest first; weights: the most that each can add to a score; rest: the most that all after it
can; reached: in how many chunks they are, up to it, those with several counted several times; and the statistics that all scores depend on.';

CREATE OR REPLACE FUNCTION pgvec._keyword_bounds(lexemes text[], weights double precision[], classes smallint[], k1 double precision, b double precision,
                                                 mean_length double precision) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- Of each class of lengths the shortest, of each class of times the most: no score is more.
    WITH numbers AS MATERIALIZED (
        SELECT pgvec._lexeme_number(q.lexeme) * 8::bigint AS dimension, sum(q.weight) AS weight FROM unnest(lexemes, weights) q (lexeme, weight) GROUP BY 1)
    SELECT array_agg(CASE WHEN c.class = ANY (classes) THEN (
               SELECT '{' || string_agg(concat(n.dimension + f.class, ':', (n.weight * f.times / (f.times + k1 * (1 - b + b * c.shortest / mean_length)))::real), ',') || '}/1000000000'
               FROM numbers n CROSS JOIN (VALUES (1, 1.0::double precision), (2, 2), (3, 3), (4, 5), (5, 9), (6, 1e9)) f (class, times)) END ORDER BY c.class)
    FROM unnest(pgvec._length_classes()) WITH ORDINALITY c (shortest, class) WHERE c.class <= (SELECT max(p) FROM unnest(classes) p)
$$;
COMMENT ON FUNCTION pgvec._keyword_bounds(text[], double precision[], smallint[], double precision, double precision, double precision) IS
'By class of lengths, the text of the vector of weights whose product with the terms of a chunk no score exceeds.';

CREATE OR REPLACE FUNCTION pgvec._keyword_candidates_sql(owner pgvec.collections, predicate text, options jsonb, looked_up boolean, needed boolean) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pgvec._render($sql$
        SELECT array_agg(c.key ORDER BY c.bound, c.key), array_agg(c.bound ORDER BY c.bound, c.key)
        FROM (SELECT t.key, coalesce(t.terms OPERATOR({schema}.<#>) ($1::{schema}.sparsevec[])[t.length_class], '-Infinity') AS bound
              FROM {keywords} t WHERE {conditions} AND {not_excluded} ORDER BY 2, 1 LIMIT $8) c
        WHERE c.bound < 0$sql$,
        jsonb_build_object('schema', quote_ident(pgvec._vector_schema()), 'keywords', pgvec._keyword_table(owner, '_keywords'),
            'conditions', concat_ws(' AND ', CASE WHEN looked_up THEN 't.lexemes && $5' END, CASE WHEN needed THEN 't.lexemes @> $6' END,
                -- Only d is near: text of the user's may leave out the alias.
                CASE WHEN predicate IS NOT NULL THEN format('EXISTS (SELECT FROM %s d WHERE d.key = t.key AND %s)', pgvec._chunks_sql(owner), predicate) ELSE 'true' END),
            'not_excluded', pgvec._excluded_sql(owner, options, 't')))
$$;
COMMENT ON FUNCTION pgvec._keyword_candidates_sql(pgvec.collections, text, jsonb, boolean, boolean) IS
'The statement that finds candidates by their bounds, negative ones, as pgvector computes them. $1 the vectors of weights, by class of lengths; $2, $3,
$4 as in a search; $5 numbers of lexemes, of which a candidate has one at least, $6 of which it has all; $7 a tsquery that it matches; $8 how many.';

CREATE OR REPLACE FUNCTION pgvec._keyword_scores_sql(owner pgvec.collections) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format($sql$
        SELECT array_agg(f.key ORDER BY f.score DESC, f.key), array_agg(f.score ORDER BY f.score DESC, f.key), array_agg(f.terms ORDER BY f.score DESC, f.key)
        FROM (SELECT d.key, s.score, s.terms
              FROM %1$s d JOIN %2$s t ON t.key = d.key
              CROSS JOIN LATERAL (
                  SELECT sum(p.part) AS score, jsonb_object_agg(p.lexeme, p.part) AS terms
                  FROM (SELECT u.lexeme, $3[array_position($2, u.lexeme)] * u.times / (u.times + $4 * (1 - $5 + $5 * t.length / $6)) AS part
                        FROM (SELECT l.lexeme, coalesce(cardinality(l.positions), 1) AS times FROM unnest(d.tsv) l WHERE l.lexeme = ANY ($2)) u) p) s
              WHERE d.key = ANY ($1) AND s.score > 0 ORDER BY s.score DESC, d.key LIMIT $7) f$sql$,
        pgvec._chunks_sql(owner), pgvec._keyword_table(owner, '_keywords'))
$$;
COMMENT ON FUNCTION pgvec._keyword_scores_sql(pgvec.collections) IS
'The statement that scores candidates: $1 their keys; $2 lexemes and $3 their weights; $4 k1, $5 b, $6 the mean length; $7 how many of the best.';

CREATE OR REPLACE FUNCTION pgvec._keyword_index(owner pgvec.collections) RETURNS pgvec.keyword_indexes
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE found pgvec.keyword_indexes;
BEGIN
    SELECT i.collection_id, i.k1, i.b, i.probe, i.created_at INTO found FROM pgvec.keyword_indexes i WHERE i.collection_id = owner.id;
    IF found.collection_id IS NULL THEN
        RAISE EXCEPTION 'collection % has no keyword index', quote_literal(owner.name)
            USING ERRCODE = 'PV005', HINT = format('Build it: SELECT pgvec.create_keyword_index(%1$L), pgvec index create-keyword %1$s, '
                                                   'or docs.create_keyword_index() in Python.', owner.name);
    ELSIF found.probe <> pgvec._lexeme_number('probe') THEN
        RAISE EXCEPTION 'the keyword index of collection % was built on a server that numbers lexemes otherwise', quote_literal(owner.name)
            USING ERRCODE = 'PV005', HINT = format('Build it anew: SELECT pgvec.drop_keyword_index(%1$L); SELECT pgvec.create_keyword_index(%1$L);', owner.name);
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION pgvec._keyword_index(pgvec.collections) IS 'The catalogue row of a keyword index; PV005 if there is none.';

CREATE OR REPLACE FUNCTION pgvec._keyword_hits(collection text, query text, k integer, options jsonb, filter jsonb, parameters jsonb, exclude text[])
RETURNS TABLE (key bigint, score double precision, rank integer, terms jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner     pgvec.collections := pgvec._collection(collection);
    index     pgvec.keyword_indexes := pgvec._keyword_index(owner);
    k1        double precision := coalesce((options -> 'k1')::double precision, index.k1);
    b         double precision := coalesce((options -> 'b')::double precision, index.b);
    asked     record;
    known     record;
    bounds    text[];
    predicate text;
    searched  integer;  -- so many of the lexemes, the rarest
    looked_up boolean;
    most      integer := k + 40;
    keys      bigint[];
    limits    double precision[];
    scores    double precision[];
    matched   jsonb[];
    found     bigint[];
    worst     double precision;
BEGIN
    -- Next to nothing is nothing: a product with it would be out of range.
    k1 := CASE WHEN k1 < 1e-100 THEN 0 ELSE k1 END;
    b := CASE WHEN b < 1e-100 THEN 0 ELSE b END;
    asked := pgvec._keyword_query(owner.language::regconfig, query);
    known := pgvec._keyword_weights(owner, asked.lexemes, asked.times);
    IF known.weights IS NULL THEN
        RETURN;
    END IF;
    bounds := pgvec._keyword_bounds(known.lexemes, known.weights, known.classes, k1, b, known.mean_length);
    predicate := nullif(concat_ws(' AND ', pgvec._predicate_sql(pgvec._relation(owner.schema_name, owner.table_name), options || CASE WHEN filter <> 'null' THEN jsonb_build_object('filter', filter) ELSE '{}' END),
                                  CASE WHEN asked.wanted IS NOT NULL THEN 'd.tsv @@ $7' END), '');
    -- A chunk with none of the rarest words scores no more than the others can add. Where the k-th best is better than that, only chunks with
    -- one of the rarest need be looked at. A third of all that can be added is a good guess at it.
    worst := (known.rest[1] + known.weights[1]) / 3;
    LOOP
        searched := (SELECT min(i) FROM generate_subscripts(known.rest, 1) i WHERE known.rest[i] <= coalesce(worst, 0) OR i = cardinality(known.rest));
        -- Another round costs as much as 1,500 chunks more in this one.
        searched := (SELECT max(i) FROM generate_subscripts(known.rest, 1) i WHERE i = searched OR known.reached[i] <= 1500);
        looked_up := known.reached[searched] <= 0.4 * known.chunks;  -- else reading all is cheaper, or soon will be
        searched := CASE WHEN looked_up THEN searched ELSE cardinality(known.rest) END;
        LOOP
            EXECUTE pgvec._keyword_candidates_sql(owner, predicate, options, looked_up, asked.needed IS NOT NULL) INTO keys, limits
                USING bounds, filter, parameters, exclude, ARRAY(SELECT pgvec._lexeme_number(l) FROM unnest(known.lexemes[:searched]) l),
                      ARRAY(SELECT pgvec._lexeme_number(l) FROM unnest(asked.needed) l), asked.wanted, most + 1;
            EXECUTE pgvec._keyword_scores_sql(owner) INTO found, scores, matched USING keys[:most], known.lexemes, known.weights, k1, b, known.mean_length, k;
            worst := scores[k];
            -- Bounds are of single precision, sums of up to 1000 numbers. If the first that was not scored could be better, score more of them.
            EXIT WHEN coalesce(cardinality(keys), 0) <= most OR worst >= -1.0001 * limits[most + 1];
            most := most * 8;
        END LOOP;
        EXIT WHEN searched = cardinality(known.rest) OR worst > known.rest[searched];
    END LOOP;
    RETURN QUERY SELECT f.key, f.score, f.rank::integer, f.terms FROM unnest(found, scores, matched) WITH ORDINALITY f (key, score, terms, rank);
END $$;
COMMENT ON FUNCTION pgvec._keyword_hits(text, text, integer, jsonb, jsonb, jsonb, text[]) IS
'The k best chunks by BM25, exactly, and what each word added.';

CREATE OR REPLACE FUNCTION pgvec._keyword_options(owner pgvec.collections, k integer, filter jsonb, where_sql text, exclude boolean,
                                                  k1 double precision, b double precision) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    index pgvec.keyword_indexes := pgvec._keyword_index(owner);
BEGIN
    PERFORM pgvec._check_bm25(coalesce(k1, index.k1), coalesce(b, index.b));
    RETURN pgvec._options(pgvec._relation(owner.schema_name, owner.table_name), jsonb_build_object(
               'k', k, 'filter', filter, 'where_sql', where_sql, 'exclude', nullif(exclude, false)))
           || jsonb_strip_nulls(jsonb_build_object('k1', k1, 'b', b));
END $$;
COMMENT ON FUNCTION pgvec._keyword_options(pgvec.collections, integer, jsonb, text, boolean, double precision, double precision) IS
'The checked options of a keyword search.';

CREATE OR REPLACE FUNCTION pgvec.keyword_search(
    collection text,
    query      text,
    k          integer          DEFAULT 10,
    filter     jsonb            DEFAULT NULL,
    where_sql  text             DEFAULT NULL,
    parameters jsonb            DEFAULT NULL,
    exclude    text[]           DEFAULT NULL,
    k1         double precision DEFAULT NULL,
    b          double precision DEFAULT NULL
) RETURNS TABLE (id text, document_id text, text text, metadata jsonb, score double precision, rank integer, terms jsonb, stopped_by text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner   pgvec.collections := pgvec._collection(collection);
    options jsonb := pgvec._keyword_options(owner, k, filter, where_sql, exclude IS NOT NULL, k1, b);
BEGIN
    IF query IS NULL OR query !~ '\S' THEN
        RAISE EXCEPTION 'the query is empty' USING ERRCODE = 'PV005';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT d.id, d.document_id, d.text, %s, h.score, h.rank, h.terms, CASE WHEN count(*) OVER () >= $3 THEN ''k'' ELSE ''complete'' END '
        'FROM pgvec._keyword_hits($1, $2, $3, $4, $5, $6, $7) h JOIN %s d ON d.key = h.key ORDER BY h.rank', pgvec._metadata_sql(pgvec._relation(owner.schema_name, owner.table_name)), pgvec._chunks_sql(owner))
        USING collection, query, k, options, filter, parameters, exclude;
END $$;
COMMENT ON FUNCTION pgvec.keyword_search(text, text, integer, jsonb, text, jsonb, text[], double precision, double precision) IS
'The k chunks with the highest BM25, the best first, exactly; of the whole collection, or of those that match the filter. Any word of the query
counts; "a phrase" and +word must be there, -word and -"a phrase" must not. Words are those of the collection''s language: lower case, stemmed,
without stop words; a query of exclusions alone finds nothing. filter, where_sql, parameters, exclude: as in pgvec.search. k1, b: other than those of the keyword index.
score: BM25; terms: what each word, as it is in the index, added to it. stopped_by: k (as many as asked for), complete (no more match).
Example: SELECT id, score, terms FROM pgvec.keyword_search(''docs'', ''rotate +credentials -password'', k => 3);';
