-- Shapes of answer: so many of each group, or diverse ones.

CREATE OR REPLACE FUNCTION pgvec._grouped_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, query text, threshold text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunks    text := pgvec._chunks_sql(owner);
    k         integer := options -> 'k';
    size      integer := coalesce((options -> 'group_size')::integer, 1);
    pool      integer := least(10000, greatest(8 * k, 2 * k * size));
    value     text := format('d.%I', CASE options ->> 'group_by' WHEN 'document' THEN 'document_id' ELSE options ->> 'group_by' END);
    matches   text := format('(SELECT d.key, %s AS value, v.embedding %s %s AS distance FROM %s d JOIN %s v ON v.key = d.key WHERE %s AND %s)',
        value, (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).operator, query, chunks, pgvec._vectors_sql(owner, wanted),
        coalesce(pgvec._predicate_sql(pgvec._relation(owner.schema_name, owner.table_name), options), 'true'), pgvec._excluded_sql(owner, options, 'd'));
BEGIN
    RETURN format($sql$nearest AS MATERIALIZED (%1$s
), pool AS MATERIALIZED (
  SELECT n.key, n.distance, n.exact, %2$s AS value FROM nearest n JOIN %3$s d ON d.key = n.key%4$s
), found AS MATERIALIZED (
  SELECT p.value, min(p.distance) AS distance, count(*) AS rows FROM pool p WHERE p.value IS NOT NULL GROUP BY p.value ORDER BY 2, 1 LIMIT %5$s
), state AS MATERIALIZED (
  SELECT s.complete, s.complete OR (SELECT count(*) FROM found) = %5$s AS sufficed
  FROM (SELECT (SELECT count(*) FROM nearest) < %6$s OR (SELECT count(*) FROM pool) < (SELECT count(*) FROM nearest) AS complete) s
), groups AS MATERIALIZED (
  SELECT g.value, g.rows, (row_number() OVER (ORDER BY g.distance, g.value))::integer AS place
  FROM (SELECT f.value, f.distance, f.rows FROM found f WHERE (SELECT sufficed FROM state)
        UNION ALL
        (SELECT n.value, min(n.distance), 0 FROM %7$s n%4$s %8$s n.value IS NOT NULL AND NOT (SELECT sufficed FROM state)
         GROUP BY n.value ORDER BY 2, 1 LIMIT %5$s)) g
), shaped AS MATERIALIZED (
  SELECT m.key, m.distance, m.exact, NULL::double precision AS score, g.place
  FROM groups g CROSS JOIN LATERAL (
    (SELECT p.key, p.distance, p.exact FROM pool p
     WHERE p.value = g.value AND (g.rows >= %9$s OR (SELECT complete FROM state)) ORDER BY p.distance, p.key LIMIT %9$s)
    UNION ALL
    (SELECT n.key, n.distance, true FROM %7$s n%4$s %8$s n.value = g.value AND NOT (g.rows >= %9$s OR (SELECT complete FROM state))
     ORDER BY n.distance + 0, n.key LIMIT %9$s)) m
)$sql$, pgvec._nearest_sql(owner, wanted, options, pool, 0, query), value, chunks, threshold, k, pool, matches,
        CASE threshold WHEN '' THEN 'WHERE' ELSE 'AND' END, size);
END $$;
COMMENT ON FUNCTION pgvec._grouped_sql(pgvec.collections, pgvec.vector_spaces, jsonb, text, text) IS
'The nearest of the k nearest groups. A pool of the nearest rows shows the groups; if it holds too few of them and is not all there is, every
match is compared. Members that the pool lacks are looked up group by group.';

CREATE OR REPLACE FUNCTION pgvec._diverse_sql(owner pgvec.collections, wanted pgvec.vector_spaces, options jsonb, query text, threshold text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k integer := options -> 'k';
BEGIN
    RETURN format($sql$nearest AS MATERIALIZED (%1$s
), pool AS MATERIALIZED (
  SELECT array_agg(n.key::bigint ORDER BY n.distance, n.key) AS keys, array_agg(n.distance ORDER BY n.distance, n.key) AS distances,
         array_agg(v.embedding ORDER BY n.distance, n.key) AS embeddings, bool_and(n.exact) AS exact
  FROM nearest n JOIN %2$s v ON v.key = n.key%3$s
), shaped AS MATERIALIZED (
  SELECT m.key, m.distance, p.exact, m.score, m.place
  FROM pool p CROSS JOIN LATERAL pgvec._diversify(p.keys, p.distances, p.embeddings, %4$L, %5$L, %6$s, %7$s) m
)$sql$, pgvec._nearest_sql(owner, wanted, options, least(10000, greatest(4 * k, 40)), 0, query), pgvec._vectors_sql(owner, wanted), threshold,
        (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).operator,
        (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).similarity, k, options -> 'diversity');
END $$;
COMMENT ON FUNCTION pgvec._diverse_sql(pgvec.collections, pgvec.vector_spaces, jsonb, text, text) IS 'k diverse ones of the 4 k nearest, at least 40.';

CREATE OR REPLACE FUNCTION pgvec._diversify(keys bigint[], distances double precision[], embeddings anyarray, operator text, similarity text,
                                            k integer, diversity double precision)
RETURNS TABLE (key bigint, distance double precision, score double precision, place integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relevance  double precision[];
    redundancy double precision[] := array_fill(0::double precision, ARRAY[coalesce(cardinality(keys), 0)]);
    left_over  integer[] := ARRAY(SELECT generate_subscripts(keys, 1));
    chosen     integer;
    -- How like the last chosen each one is, or some chosen before it.
    compare    text := format('SELECT array_agg(CASE WHEN $4 THEN %1$s ELSE greatest(c.redundancy, %1$s) END ORDER BY c.o) '
                              'FROM unnest($1, $2) WITH ORDINALITY c (embedding, redundancy, o)', format(similarity, format('(c.embedding %s $3)', operator)));
BEGIN
    EXECUTE format('SELECT array_agg(%s ORDER BY d.o) FROM unnest($1) WITH ORDINALITY d (distance, o)', format(similarity, 'd.distance'))
        INTO relevance USING distances;
    FOR step IN 1 .. least(k, coalesce(cardinality(keys), 0)) LOOP
        SELECT l.i, (1 - diversity) * relevance[l.i] - diversity * redundancy[l.i] INTO chosen, score
        FROM unnest(left_over) AS l (i) ORDER BY 2 DESC, l.i LIMIT 1;
        key := keys[chosen];
        distance := distances[chosen];
        place := step;
        RETURN NEXT;
        left_over := array_remove(left_over, chosen);
        EXECUTE compare INTO redundancy USING embeddings, redundancy, embeddings[chosen], step = 1;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._diversify(bigint[], double precision[], anyarray, text, text, integer, double precision) IS
'Maximal marginal relevance (Carbonell and Goldstein, 1998): one after the other, what is like the query and unlike what was chosen before:
score = (1 - diversity) * similarity to the query - diversity * the largest similarity to one chosen.';
