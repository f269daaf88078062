-- Sparse vectors: which dimensions make two of them match. Of a sparse encoder, such as SPLADE, a dimension is a word.

CREATE OR REPLACE FUNCTION pgvec.sparse_overlap(query sparsevec, document sparsevec) RETURNS TABLE (dimension integer, contribution double precision)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF split_part(query::text, '/', 2) <> split_part(document::text, '/', 2) THEN
        RAISE EXCEPTION 'the vectors have % and % dimensions', split_part(query::text, '/', 2), split_part(document::text, '/', 2)
            USING ERRCODE = 'PV005', HINT = 'Compare vectors of one space.';
    END IF;
    RETURN QUERY
    WITH entries AS (
        SELECT v.side, split_part(e.entry, ':', 1)::integer AS dimension, split_part(e.entry, ':', 2)::real::double precision AS weight
        FROM (VALUES (1, query::text), (2, document::text)) AS v (side, written)
        CROSS JOIN LATERAL string_to_table(nullif(substring(v.written FROM '\{(.*)\}'), ''), ',') AS e (entry)
    )
    SELECT q.dimension, q.weight * d.weight FROM entries q JOIN entries d ON d.dimension = q.dimension AND d.side = 2
    WHERE q.side = 1 ORDER BY 2 DESC, 1;
END $$;
COMMENT ON FUNCTION pgvec.sparse_overlap(sparsevec, sparsevec) IS
'The dimensions, counted from 1, that two sparse vectors have in common, with what each adds to their inner product, largest first.
Example: SELECT * FROM pgvec.sparse_overlap(''{1:2,3:1}/5'', ''{1:0.5,2:1,3:4}/5'');';
