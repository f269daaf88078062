-- Which way a search went, and why.

CREATE OR REPLACE FUNCTION pgvec._index_finding(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, target jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    index record;
BEGIN
    SELECT i.* INTO index FROM pgvec._indexes(pgvec._relation(owner.schema_name, wanted.table_name), wanted) i LIMIT 1;
    IF (options -> 'exact')::boolean THEN
        RETURN 'No index: the search was asked to be exact.';
    ELSIF index IS NULL THEN
        RETURN format('No index: there is no vector index on %I.%I, so all rows, or all matches, are compared. Build one: '
                      'pgvec index create %s, or docs.create_index() in Python.', owner.schema_name, wanted.table_name, owner.name);
    ELSIF NOT index.usable THEN
        RETURN format('No index: %I %s.', index.name, CASE
            WHEN NOT index.valid THEN 'is INVALID, an interrupted build left it. Drop it and build it again'
            WHEN (SELECT x.indpred IS NOT NULL FROM pg_index x WHERE x.indexrelid = index.oid) THEN 'is partial: it holds some of the rows only'
            WHEN index.form = 'other' THEN 'is on an expression that pgvec does not know'
            ELSE format('is for another distance than %s, that of the space', wanted.distance) END);
    END IF;
    RETURN format('Index %I (%s, %s%s), %s = %s: %s.', index.name, index.method, index.form,
        CASE WHEN (target -> 'candidates')::integer > (options -> 'k')::integer THEN format(', rescoring %s candidates', target -> 'candidates') END,
        CASE index.method WHEN 'hnsw' THEN 'hnsw.ef_search' ELSE 'ivfflat.probes' END,
        target -> 'setting',
        CASE WHEN options ? 'ef_search' THEN 'but the search was given ' || (options ->> 'ef_search') ELSE coalesce(
            (SELECT format('tuned for recall %s at k = %s%s, measured %s', p.target_recall, p.k, ' with filters on ' || nullif(p.filter_class, ''), round(p.recall::numeric, 3))
             FROM pgvec.tuning_profiles p WHERE p.id = (target -> 'profile')::bigint),
            'not tuned, so its recall is unknown. Run pgvec tune') END);
END $$;
COMMENT ON FUNCTION pgvec._index_finding(pgvec.collections, pgvec.vector_spaces, jsonb, jsonb) IS 'Which index a search uses, or why it uses none.';

CREATE OR REPLACE FUNCTION pgvec._filter_finding(target jsonb, course jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    setting text := CASE target ->> 'method' WHEN 'hnsw' THEN 'ef_search' ELSE 'probes' END;
BEGIN
    IF NOT (course -> 'many')::boolean THEN
        RETURN format('Filter: at most %s rows match, the gate, so the index was not used. To compare them all is cheaper, and exact.', target -> 'gate');
    END IF;
    RETURN format('Filter: about %s %% of the rows match, %s. First look with %s = %s: %s', round(100 * (course -> 'share')::numeric, 1),
        CASE WHEN (target -> 'indexed')::boolean THEN format('more than the gate of %s', target -> 'gate')
             ELSE 'and no btree or GIN index finds them' END, setting, course -> 'first', CASE
        WHEN (course -> 'look_sufficed')::boolean THEN format('match %s lies at depth %s, which is well within.', target -> 'candidates', course -> 'depth')
        WHEN (course -> 'worthwhile')::boolean THEN format('%s matches there, too few or too deep. Second look with %s = %s: %s', course -> 'matches', setting,
            course -> 'next', CASE WHEN (course -> 'second_sufficed')::boolean THEN 'enough.' ELSE 'not enough, so all matches were compared.' END)
        ELSE format('%s matches there, too few or too deep. To look further would cost more than to compare all matches: they were compared.', course -> 'matches') END);
END $$;
COMMENT ON FUNCTION pgvec._filter_finding(jsonb, jsonb) IS 'Which way a filtered search went, from what its common table expressions found.';

CREATE OR REPLACE FUNCTION pgvec._overlap_sql(owner pgvec.collections, wanted pgvec.vector_spaces, query text, statement text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format($sql$SELECT format('Hit %%s, %%s: %%s', h.place, h.id, coalesce(o.terms, 'nothing in common'))
FROM (SELECT s.id, row_number() OVER (ORDER BY s.rank, s.distance) AS place FROM (%1$s) s ORDER BY place LIMIT 3) h
JOIN %2$s d ON d.id = h.id JOIN %3$s v ON v.key = d.key
CROSS JOIN LATERAL (
  SELECT string_agg(format('%%s (%%s)', m.dimension, round(m.contribution::numeric, 2)), ', ' ORDER BY m.place) FILTER (WHERE m.place <= 8)
         || CASE WHEN count(*) > 8 THEN format(' and %%s more', count(*) - 8) ELSE '' END AS terms
  FROM (SELECT p.*, row_number() OVER (ORDER BY p.contribution DESC, p.dimension) AS place FROM pgvec.sparse_overlap(%4$s, v.embedding) p) m
) o
ORDER BY h.place$sql$, statement, pgvec._chunks_sql(owner), pgvec._vectors_sql(owner, wanted), query)
$$;
COMMENT ON FUNCTION pgvec._overlap_sql(pgvec.collections, pgvec.vector_spaces, text, text) IS
'A statement that says of the first three hits of a search of sparse vectors which dimensions match.';

CREATE OR REPLACE FUNCTION pgvec.explain(
    collection     text,
    query          anycompatible,
    k              integer          DEFAULT 10,
    filter         jsonb            DEFAULT NULL,
    space          text             DEFAULT NULL,
    ef_search      integer          DEFAULT NULL,
    exact          boolean          DEFAULT false,
    oversampling   double precision DEFAULT NULL,
    where_sql      text             DEFAULT NULL,
    parameters     jsonb            DEFAULT NULL,
    exclude        text[]           DEFAULT NULL,
    within         double precision DEFAULT NULL,
    min_similarity double precision DEFAULT NULL,
    group_by       text             DEFAULT NULL,
    group_size     integer          DEFAULT NULL,
    diversity      double precision DEFAULT NULL,
    recall         double precision DEFAULT NULL
) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner     pgvec.collections := pgvec._collection(collection);
    wanted    pgvec.vector_spaces := pgvec._searched_space(collection, space);
    query_    text := pgvec._query_sql(wanted, query);
    statement text := pgvec.search_sql(collection, k, filter, space, ef_search, exact, oversampling, where_sql, exclude, within, min_similarity,
                                       group_by, group_size, diversity, query_, recall);
    options   jsonb := pgvec._options(pgvec._relation(owner.schema_name, owner.table_name), jsonb_build_object(
                           'k', k, 'filter', filter, 'ef_search', ef_search, 'exact', nullif(exact, false), 'oversampling', oversampling,
                           'where_sql', where_sql, 'exclude', CASE WHEN exclude IS NOT NULL THEN true END, 'recall', recall));
    target    jsonb := pgvec._target(owner, wanted, options, k, 0);
    predicate text := pgvec._predicate_sql(pgvec._relation(owner.schema_name, owner.table_name), options);
    course    jsonb;
    line      text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) ' || statement
                USING query, filter, parameters, exclude, coalesce(within, min_similarity) LOOP
        -- A vector fills pages.
        RETURN NEXT regexp_replace(line, '''(\[|\{)[^'']{60,}''', '''\1…''', 'g');
    END LOOP;
    RETURN NEXT '';
    RETURN NEXT pgvec._index_finding(owner, wanted, options, target);
    IF target IS NOT NULL AND predicate IS NOT NULL THEN
        target := target || pgvec._search_cost(target, predicate, options);
        EXECUTE format('SELECT to_jsonb(c) FROM (%s) c', pgvec._course_sql(owner, wanted, options, target, predicate, query_)) INTO course USING query, filter, parameters, exclude;
        RETURN NEXT pgvec._filter_finding(target, course);
    END IF;
    IF wanted.type = 'sparsevec' AND wanted.distance IN ('inner_product', 'cosine') THEN
        RETURN QUERY EXECUTE pgvec._overlap_sql(owner, wanted, query_, statement)
            USING query, filter, parameters, exclude, coalesce(within, min_similarity);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec.explain(text, anycompatible, integer, jsonb, text, integer, boolean, double precision, text, jsonb, text[],
                                  double precision, double precision, text, integer, double precision, double precision) IS
'Run a search (parameters as in pgvec.search) and return its plan; below it which index it used and with which setting, or why none, and, with
a filter, which way its index scans go and why (they are run once more for that). Of sparse vectors the dimensions by which the first hits
match (pgvec.sparse_overlap). For statements of your own there is pgvec.explain_sql.
Example: SELECT * FROM pgvec.explain(''docs'', ''[...]'', k => 3, filter => ''{"section": "security"}'');';
