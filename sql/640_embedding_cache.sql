-- The cache of embeddings: a text that was embedded once, by the same model, is not embedded again.

CREATE OR REPLACE FUNCTION pgvec._cached_embeddings(fingerprint text, hashes bytea[]) RETURNS TABLE (text_hash bytea, embedding bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    model integer := (SELECT m.id FROM pgvec.models m WHERE m.fingerprint = _cached_embeddings.fingerprint);
    outdated bytea[];
BEGIN
    IF NOT has_table_privilege('pgvec.embedding_cache', 'SELECT') THEN
        RETURN;
    END IF;
    -- A lookup per hash: what a planner that has no statistics yet makes of = ANY is a scan of the whole table.
    RETURN QUERY
    SELECT c.text_hash, c.embedding
    FROM unnest(hashes) AS wanted (hash)
    CROSS JOIN LATERAL (SELECT e.text_hash, e.embedding FROM pgvec.embedding_cache e
                        WHERE e.model_id = model AND e.text_hash = wanted.hash OFFSET 0) c;
    IF NOT FOUND OR current_setting('transaction_read_only') = 'on' OR NOT has_table_privilege('pgvec.embedding_cache', 'UPDATE') THEN
        RETURN;
    END IF;
    -- Once a day is enough to tell what is used: an update writes the whole row anew.
    SELECT array_agg(c.text_hash) INTO outdated
    FROM unnest(hashes) AS wanted (hash)
    CROSS JOIN LATERAL (SELECT e.text_hash FROM pgvec.embedding_cache e
                        WHERE e.model_id = model AND e.text_hash = wanted.hash AND e.used_at < now() - interval '1 day'
                        FOR UPDATE SKIP LOCKED) c;
    IF outdated IS NOT NULL THEN
        UPDATE pgvec.embedding_cache e SET used_at = now() WHERE e.model_id = model AND e.text_hash = ANY (outdated);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._cached_embeddings(text, bytea[]) IS
'Return what the cache has of some texts, by their hashes, and note that it was of use. Nothing for who may not read it.';

CREATE OR REPLACE FUNCTION pgvec._keep_embeddings(fingerprint text, hashes bytea[], embeddings bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    model integer := (SELECT m.id FROM pgvec.models m WHERE m.fingerprint = _keep_embeddings.fingerprint);
    most  integer;
BEGIN
    -- Who adds must be able to cut the cache, or it would grow without end.
    IF model IS NULL OR NOT (has_table_privilege('pgvec.embedding_cache', 'SELECT') AND has_table_privilege('pgvec.embedding_cache', 'INSERT')
                             AND has_table_privilege('pgvec.embedding_cache', 'UPDATE') AND has_table_privilege('pgvec.embedding_cache', 'DELETE')
                             AND has_table_privilege('pgvec.embedding_cache_limit', 'SELECT')) THEN
        RETURN;
    END IF;
    SELECT l.keep INTO most FROM pgvec.embedding_cache_limit l;
    IF most IS NULL OR most = 0 THEN
        RETURN;
    END IF;
    -- In one order, against deadlocks.
    INSERT INTO pgvec.embedding_cache (model_id, text_hash, embedding)
    SELECT model, n.hash, n.embedding FROM unnest(hashes, embeddings) AS n (hash, embedding) ORDER BY n.hash
    ON CONFLICT DO NOTHING;
    -- Now and then: once in a tenth of what is kept.
    IF random() * (most / 10) < cardinality(hashes) THEN
        PERFORM pgvec._evict_embeddings(most);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._keep_embeddings(text, bytea[], bytea[]) IS
'Add vectors to the cache, and delete now and then what was not of use for longest. It does nothing for a model that is not registered, for who may
not write, and where the cache is off.';

CREATE OR REPLACE FUNCTION pgvec._evict_embeddings(keep bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    excess  bigint := (SELECT count(*) FROM pgvec.embedding_cache) - keep;
    evicted bigint;
BEGIN
    IF excess <= 0 OR NOT pg_try_advisory_xact_lock(hashtext('pgvec.embedding_cache'), 0) THEN
        RETURN 0;  -- another transaction does
    END IF;
    WITH last AS MATERIALIZED (
        SELECT e.model_id, e.text_hash FROM pgvec.embedding_cache e ORDER BY e.used_at LIMIT excess FOR UPDATE SKIP LOCKED
    )
    DELETE FROM pgvec.embedding_cache e USING last WHERE e.model_id = last.model_id AND e.text_hash = last.text_hash;
    GET DIAGNOSTICS evicted = ROW_COUNT;
    RETURN evicted;
END $$;
COMMENT ON FUNCTION pgvec._evict_embeddings(bigint) IS
'Delete from the cache all but keep vectors, those first that were not of use for longest; those that others are at are passed over.';

CREATE OR REPLACE FUNCTION pgvec.cache_embeddings(keep integer DEFAULT 100000) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (keep >= 0) IS NOT TRUE THEN
        RAISE EXCEPTION 'keep must be at least 0, not %', coalesce(keep::text, 'NULL') USING ERRCODE = 'PV005', HINT = 'It is the number of vectors that are kept; 0 keeps none.';
    END IF;
    UPDATE pgvec.embedding_cache_limit l SET keep = cache_embeddings.keep;
    RETURN pgvec._evict_embeddings(keep);
END $$;
COMMENT ON FUNCTION pgvec.cache_embeddings(integer) IS
'Set how many vectors the cache of embeddings keeps, of all models in this database; 0 switches it off. Returns how many were dropped for that. Full, it
drops those that were not of use for longest, a tenth at a time. A vector takes 4 bytes a dimension, and about 150 more.
Example: SELECT pgvec.cache_embeddings(keep => 1000000);';

CREATE OR REPLACE FUNCTION pgvec.forget_embeddings(model text DEFAULT NULL, before timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    forgotten bigint;
BEGIN
    DELETE FROM pgvec.embedding_cache e
    WHERE (model IS NULL OR e.model_id IN (SELECT m.id FROM pgvec.models m WHERE m.name = model))
      AND (before IS NULL OR e.used_at < before);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
COMMENT ON FUNCTION pgvec.forget_embeddings(text, timestamptz) IS
'Delete vectors from the cache of embeddings and return how many: those of a model, those that were last of use before a time, or all. What collections
hold stays. Example: SELECT pgvec.forget_embeddings(before => now() - interval ''30 days'');';

CREATE OR REPLACE VIEW pgvec.cached_embeddings AS
SELECT m.name AS model, m.fingerprint, m.dimensions, count(*) AS embeddings,
       sum(pg_catalog.octet_length(e.embedding))::bigint AS bytes, min(e.used_at) AS least_recently_used, max(e.used_at) AS most_recently_used
FROM pgvec.embedding_cache e
JOIN pgvec.models m ON m.id = e.model_id
GROUP BY m.id
ORDER BY m.name, m.id;
COMMENT ON VIEW pgvec.cached_embeddings IS
'What the cache of embeddings holds of each model: how many vectors, their bytes, when they were last of use, to the day.';
