-- What an index will cost before it is built: memory, disk, time; and whether the server has that much.
-- Sizes follow from the structs of pgvector 0.8 (hnsw.h, hnswbuild.c, ivfflat.h, ivfkmeans.c) and from PostgreSQL's pages:
-- 8,192 bytes, of which 24 are the header and 8 pgvector's own; an item costs 4 bytes more than it has.

CREATE OR REPLACE FUNCTION pgvec._forms(wanted pgvec.vector_spaces, prefix integer, value_bytes double precision)
RETURNS TABLE (method text, form text, type text, dimensions integer, bytes double precision, expression text, opclass text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.method, f.form, f.type, f.dimensions,
           CASE f.type WHEN 'vector' THEN 8 + 4 * f.dimensions WHEN 'halfvec' THEN 8 + 2 * f.dimensions
                       WHEN 'bit' THEN 8 + ceil(f.dimensions / 8.0) ELSE value_bytes END,
           format(f.expression, s.schema, f.dimensions, f.type, pgvec._embedding_column(wanted)), format('%I.%I', s.schema, format('%s_%s_ops', f.type, f.suffix))
    FROM (SELECT pgvec._vector_schema() AS schema, (pgvec._distance(wanted.distance, wanted.type, wanted.dimensions)).suffix AS own,
                 wanted.type IN ('vector', 'halfvec') AS dense) s
    CROSS JOIN LATERAL (VALUES
        ('full',    wanted.type, wanted.dimensions, '%4$s', s.own, true, 1),
        ('halfvec', 'halfvec',   wanted.dimensions, '(%4$s::%1$I.halfvec(%2$s))', s.own, wanted.type = 'vector', 2),
        ('binary',  'bit',       wanted.dimensions, '(%1$I.binary_quantize(%4$s)::bit(%2$s))', 'hamming', s.dense, 4),
        ('prefix',  wanted.type, prefix, '(%1$I.subvector(%4$s, 1, %2$s)::%1$I.%3$I(%2$s))', s.own, s.dense AND prefix < wanted.dimensions, 3)
    ) AS f (form, type, dimensions, expression, suffix, applies, place)
    JOIN (VALUES ('vector', 2000), ('halfvec', 4000), ('bit', 64000), ('sparsevec', 1000000000)) AS most (type, dimensions)
      ON most.type = f.type AND f.dimensions <= most.dimensions
    CROSS JOIN (VALUES ('hnsw'), ('ivfflat')) AS m (method)
    WHERE f.applies AND (m.method = 'hnsw' OR f.type <> 'sparsevec' AND f.suffix NOT IN ('l1', 'jaccard'))
    ORDER BY m.method, f.place
$$;
COMMENT ON FUNCTION pgvec._forms(pgvec.vector_spaces, integer, double precision) IS
'The forms of index that apply to a space, with the bytes of one value and what CREATE INDEX calls them; value_bytes is for sparsevec.';

CREATE OR REPLACE FUNCTION pgvec._hnsw_size(bytes double precision, m integer, rows bigint, distinct_share double precision, parallel boolean,
                                            OUT memory bigint, OUT disk bigint)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    upper    double precision := 1.0 / m;                    -- share of nodes that reach the layer above
    value    double precision := 8 * ceil(bytes / 8);
    -- An element, and its link to its neighbours; for each layer a pointer, and 16 bytes per neighbour.
    node     double precision := 128 + value + (8 + 8 + 32 * m) + (8 + 8 + 16 * m) / (m - 1.0);
    chunks   double precision := 4 + upper / (1 - upper);    -- allocations: 8 bytes more each where it is not a shared segment
    -- Whole pairs of an element and its neighbours per page; those of upper layers are longer.
    pair     double precision := 8 * ceil((72 + bytes) / 8) + 8 * ceil((4 + 12 * m) / 8.0) + 8;
    longer   double precision := 6 * m;
    per_page integer := floor(8160 / pair);
    of_those integer := floor((8160 - per_page * pair) / longer);  -- how many of them may be longer
    fitting  double precision := 0;                          -- the probability that no more of them are
    elements double precision := greatest(rows * distinct_share, rows / 10.0);  -- ten rows of the same value share one
    pages    double precision;
BEGIN
    memory := ceil(rows * (node + CASE WHEN parallel THEN 0 ELSE 8 * chunks END));
    IF per_page = 0 THEN
        pages := 2 * elements;
    ELSIF per_page = 1 THEN
        pages := elements * (1 + CASE WHEN of_those = 0 THEN upper ELSE upper ^ (of_those + 1) END);
    ELSE
        FOR longer_ones IN 0 .. least(of_those, per_page) LOOP
            fitting := fitting + factorial(per_page) / (factorial(longer_ones) * factorial(per_page - longer_ones))
                                 * upper ^ longer_ones * (1 - upper) ^ (per_page - longer_ones);
        END LOOP;
        pages := elements / (per_page - 1 + fitting);
    END IF;
    disk := 8192 * (1 + greatest(1, ceil(pages)));
END $$;
COMMENT ON FUNCTION pgvec._hnsw_size(double precision, integer, bigint, double precision, boolean) IS
'Bytes of an HNSW graph in memory while it is built, and on disk. parallel: built by several processes, in one shared segment.';

CREATE OR REPLACE FUNCTION pgvec._ivfflat_size(bytes double precision, dimensions integer, lists bigint, rows bigint, heap_pages double precision, packed boolean,
                                               OUT memory bigint, OUT disk bigint, OUT samples bigint)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    value     double precision := 8 * ceil(bytes / 8);
    -- A short value has a header of one byte instead of four.
    stored    double precision := CASE WHEN packed AND bytes <= 130 THEN bytes - 3 ELSE bytes END;
    per_page  double precision := floor(8160 / (8 * ceil((8 + stored) / 8) + 4));
    of_lists  double precision := floor(8160 / (8 * ceil((8 + bytes) / 8) + 4));
    mean      double precision := greatest(rows, 1)::double precision / lists;
    empty     double precision := exp(- least(600, 2 * per_page / mean));
    taken     bigint;
BEGIN
    taken := least(greatest(50 * lists, 10000), greatest(1, 291 * heap_pages));  -- room for as many rows as its pages could hold
    samples := least(taken, rows);
    -- What is accounted: two sets of centres, samples, sums; for Elkan''s bounds samples times lists, and lists squared.
    memory := (2 * lists + taken) * value + 4 * (lists * dimensions + 3 * lists + 2 * samples + samples * lists + lists * lists) + 96;
    -- Each list has pages of its own, the last of them partly filled; lengths of lists scatter about as a gamma distribution of shape 2.
    disk := 8192 * (1 + ceil(lists / of_lists) + ceil(lists * (1 / (1 - empty) + 2 * per_page / mean * empty / (1 - empty) ^ 2)));
END $$;
COMMENT ON FUNCTION pgvec._ivfflat_size(double precision, integer, bigint, bigint, double precision, boolean) IS
'Bytes that k-means of an IVFFlat build takes, as pgvector accounts them, and of the index on disk; rows it samples.';

CREATE OR REPLACE FUNCTION pgvec._file(name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_function_privilege('pg_read_file(text)', 'EXECUTE') THEN
        RETURN NULL;
    END IF;
    RETURN pg_read_file(name);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;  -- another system, or a role that may not
END $$;
COMMENT ON FUNCTION pgvec._file(text) IS 'A file of the server, if there is one that may be read.';

CREATE OR REPLACE FUNCTION pgvec._machine(OUT memory bigint, OUT free bigint, OUT segment bigint, OUT cores integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    meminfo text := pgvec._file('/proc/meminfo');
    limited bigint := substring(coalesce(pgvec._file('/sys/fs/cgroup/memory.max'), pgvec._file('/sys/fs/cgroup/memory/memory.limit_in_bytes')) FROM '^\d{1,18}')::bigint;
    quota   text[] := string_to_array(trim(E' \n' FROM pgvec._file('/sys/fs/cgroup/cpu.max')), ' ');
    mounted text := substring(pgvec._file('/proc/mounts') FROM ' /dev/shm tmpfs ([^ ]*)');
BEGIN
    memory := 1024 * substring(meminfo FROM 'MemTotal: +(\d+)')::bigint;
    free := 1024 * substring(meminfo FROM 'MemAvailable: +(\d+)')::bigint;
    memory := least(memory, limited);
    free := least(free, limited);
    IF mounted IS NOT NULL AND current_setting('dynamic_shared_memory_type') = 'posix' THEN
        segment := coalesce(1024 * substring(mounted FROM 'size=(\d+)k')::bigint, memory / 2);
    END IF;
    SELECT sum(coalesce(last, first) - first + 1) INTO cores
    FROM regexp_matches(substring(pgvec._file('/proc/self/status') FROM 'Cpus_allowed_list:\s*([0-9,-]+)'), '(\d+)(?:-(\d+))?', 'g') r,
         LATERAL (SELECT r[1]::integer AS first, r[2]::integer AS last) range;
    IF quota[1] ~ '^\d+$' THEN
        cores := least(cores, ceil(quota[1]::double precision / quota[2]::double precision)::integer);
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._machine() IS
'Memory of the machine or container, how much of it is free, the largest shared segment (/dev/shm), processors; NULL where the server may not tell.';

CREATE OR REPLACE FUNCTION pgvec._estimated_rows(relation regclass) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pages    bigint := pg_relation_size(relation) / current_setting('block_size')::integer;
    counted  bigint;
BEGIN
    SELECT round(c.reltuples::double precision / c.relpages * pages) INTO counted
    FROM pg_class c WHERE c.oid = relation AND c.reltuples > 0 AND c.relpages > 0 AND pages > 10000;
    IF counted IS NULL THEN
        EXECUTE format('SELECT count(*) FROM %s', relation) INTO counted;
    END IF;
    RETURN counted;
END $$;
COMMENT ON FUNCTION pgvec._estimated_rows(regclass) IS 'The number of rows: counted, or of a large table that was analysed, estimated.';

CREATE OR REPLACE FUNCTION pgvec._lists(rows bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT least(32768, greatest(1, round(CASE WHEN rows <= 1000000 THEN rows / 1000.0 ELSE sqrt(rows) END)::bigint)) $$;
COMMENT ON FUNCTION pgvec._lists(bigint) IS 'How many lists an IVFFlat index gets unless told: a thousandth of the rows, beyond a million their square root.';

CREATE OR REPLACE FUNCTION pgvec._build_workers(relation regclass, machine_cores integer) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- pgvector starts as many as it may, if the table is large enough for any. Nobody has set PostgreSQL's 2: half the processors.
    SELECT CASE WHEN pg_relation_size(relation) < pg_size_bytes(current_setting('min_parallel_table_scan_size')) THEN 0
                ELSE least(current_setting('max_parallel_workers')::integer, current_setting('max_worker_processes')::integer,
                           CASE WHEN s.source = 'default' AND machine_cores IS NOT NULL THEN greatest(1, machine_cores / 2) ELSE s.setting::integer END) END
    FROM pg_settings s WHERE s.name = 'max_parallel_maintenance_workers'
$$;
COMMENT ON FUNCTION pgvec._build_workers(regclass, integer) IS 'Parallel workers that a build of a table gets, beside the process that leads it.';

CREATE OR REPLACE FUNCTION pgvec._checked_options(wanted pgvec.vector_spaces, method text, form text, INOUT prefix integer, m integer, ef_construction integer, lists integer,
                                                  OUT hnsw jsonb)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    links      integer := coalesce(m, 24);
    candidates integer := coalesce(ef_construction, greatest(200, 2 * coalesce(m, 24)));
BEGIN
    IF wanted.type = 'vector[]' THEN
        RAISE EXCEPTION 'vector space % holds several vectors a chunk, which no index orders: it is for rescoring', quote_literal(wanted.name) USING ERRCODE = 'PV005';
    ELSIF method NOT IN ('hnsw', 'ivfflat') THEN
        RAISE EXCEPTION 'unknown index method %', quote_literal(method) USING ERRCODE = 'PV005', HINT = 'One of: hnsw, ivfflat.';
    ELSIF form NOT IN ('full', 'halfvec', 'binary', 'prefix') THEN
        RAISE EXCEPTION 'unknown form %', quote_literal(form) USING ERRCODE = 'PV005', HINT = 'One of: full, halfvec, binary, prefix.';
    ELSIF (links BETWEEN 2 AND 100) IS NOT TRUE OR (candidates BETWEEN greatest(4, 2 * links) AND 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'm must be from 2 to 100, and ef_construction from twice m to 1000, not % and %', links, candidates USING ERRCODE = 'PV005';
    ELSIF lists NOT BETWEEN 1 AND 32768 THEN
        RAISE EXCEPTION 'lists must be from 1 to 32768, not %', lists USING ERRCODE = 'PV005';
    ELSIF prefix NOT BETWEEN 1 AND wanted.dimensions - 1 THEN
        RAISE EXCEPTION 'prefix must be from 1 to %, not %', wanted.dimensions - 1, prefix USING ERRCODE = 'PV005';
    END IF;
    -- A third of the dimensions, in steps of 64, unless told.
    prefix := coalesce(prefix, CASE WHEN wanted.dimensions > 64 THEN greatest(64, wanted.dimensions / 3 / 64 * 64) END);
    hnsw := jsonb_build_object('m', links, 'ef_construction', candidates);
END $$;
COMMENT ON FUNCTION pgvec._checked_options(pgvec.vector_spaces, text, text, integer, integer, integer, integer) IS
'What an index is built with when nothing else is said; PV005 if it cannot be.';

CREATE OR REPLACE FUNCTION pgvec._sized(wanted pgvec.vector_spaces, relation regclass, prefix integer, hnsw jsonb, lists integer, row_count bigint, parallel boolean)
RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    there      bigint := pgvec._estimated_rows(relation);
    rows       bigint := coalesce(row_count, there);
    pages      double precision := pg_relation_size(relation) / current_setting('block_size')::double precision;
    value      double precision;
    heap_pages double precision;
    f          record;
    size       record;
    shared     double precision;
    many       bigint := coalesce(lists, pgvec._lists(rows));
BEGIN
    IF wanted.type = 'sparsevec' THEN
        EXECUTE format('SELECT avg(pg_column_size(s.embedding)) FROM (SELECT v.%s AS embedding FROM %s v LIMIT 1000) s', pgvec._embedding_column(wanted), relation) INTO value;
    END IF;
    FOR f IN SELECT * FROM pgvec._forms(wanted, prefix, coalesce(value, 16 + 8 * 128)) LOOP
        heap_pages := ceil(rows * CASE WHEN there > 0 THEN pages / there ELSE (40 + f.bytes) / 8168 END);
        IF f.method = 'hnsw' THEN
            SELECT c.distinct_share INTO shared FROM pgvec.build_calibrations c
            WHERE c.space_id = wanted.id AND c.form = f.form AND c.dimensions = f.dimensions ORDER BY c.measured_at DESC LIMIT 1;
            SELECT s.memory, s.disk, 0 AS samples INTO size FROM pgvec._hnsw_size(f.bytes, (hnsw -> 'm')::integer, rows,
                -- With no more candidates than links pgvector does not see that values are the same.
                CASE WHEN (hnsw -> 'ef_construction')::integer > 2 * (hnsw -> 'm')::integer THEN coalesce(shared, 1) ELSE 1 END, parallel) s;
        ELSE
            SELECT s.memory, s.disk, s.samples INTO size
            FROM pgvec._ivfflat_size(f.bytes, f.dimensions, many, rows, heap_pages, f.form <> 'full' OR wanted.type = 'bit') s;
        END IF;
        RETURN NEXT to_jsonb(f) || to_jsonb(size) || jsonb_build_object('rows', rows, 'there', there, 'heap_pages', heap_pages,
            'options', CASE f.method WHEN 'hnsw' THEN hnsw ELSE jsonb_build_object('lists', many) END);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._sized(pgvec.vector_spaces, regclass, integer, jsonb, integer, bigint, boolean) IS
'Every form of index that applies to a space, with its bytes in memory and on disk.';

CREATE OR REPLACE FUNCTION pgvec._build_limits(relation regclass) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found record;
BEGIN
    SELECT m.* INTO found FROM pgvec._machine() m;
    -- What is free is for others, too. Where nothing is known: shared_buffers, usually a quarter of the memory.
    RETURN to_jsonb(found) || jsonb_build_object('workers', pgvec._build_workers(relation, found.cores),
        'usable', greatest(pg_size_bytes(current_setting('maintenance_work_mem')), pg_size_bytes(current_setting('shared_buffers')), found.free / 2));
END $$;
COMMENT ON FUNCTION pgvec._build_limits(regclass) IS
'Memory of the machine (null: unknown) and how much of it a build may take; the largest shared segment, processors, parallel workers.';

CREATE OR REPLACE FUNCTION pgvec._fitted(sized jsonb, limits jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    memory   bigint := sized -> 'memory';
    current  bigint := pg_size_bytes(current_setting('maintenance_work_mem'));
    machine  bigint := limits ->> 'memory';
    segment  bigint := limits ->> 'segment';
    usable   bigint := limits -> 'usable';
    workers  integer := limits -> 'workers';
    -- A tenth more than needed, and what pgvector keeps free in a shared segment; for less than 64 MB nobody starts a worker.
    wanted   bigint := greatest(67108864, 1048576 * ceil((1.1 * memory + 8388608) / 1048576));
    granted  bigint;
    fits     boolean;
BEGIN
    IF sized ->> 'method' = 'ivfflat' THEN
        granted := greatest(current, wanted);  -- k-means takes all it needs, or does not begin
        fits := memory <= coalesce(machine * 0.9, usable * 4);
    ELSE
        -- Not more than it needs, though the setting be larger: a parallel build takes all of it at once, as one shared segment.
        -- Of sparse vectors the size is a guess.
        granted := greatest(least(wanted, usable), CASE sized ->> 'type' WHEN 'sparsevec' THEN current ELSE 0 END);
        IF granted > segment THEN
            workers := 0;
        END IF;
        fits := memory + 4194304 <= granted;
    END IF;
    RETURN sized || jsonb_build_object('maintenance_work_mem', granted / 1024 * 1024, 'workers', workers, 'fits', fits,
        'impossible', coalesce(memory > 0.9 * machine, false), 'few_segments', workers < (limits -> 'workers')::integer);
END $$;
COMMENT ON FUNCTION pgvec._fitted(jsonb, jsonb) IS
'With what memory and how many workers a form is built, whether it fits into that, and whether into the machine at all.';

CREATE OR REPLACE FUNCTION pgvec._plan_note(planned jsonb, limits jsonb, other jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    needs     text := pg_size_pretty((planned -> 'memory')::bigint);
    instead   text := CASE WHEN other IS NULL THEN 'No other form is smaller' || CASE planned ->> 'method' WHEN 'hnsw' THEN ': take a smaller m.' ELSE ': take fewer lists.' END
        ELSE format('%s, form %s, fits: it takes %s.', other ->> 'method', other ->> 'form', pg_size_pretty((other -> 'memory')::bigint)) END;
    notes     text[] := '{}';
BEGIN
    IF (planned -> 'impossible')::boolean THEN
        notes := notes || format('Needs %s, and the machine has %s. %s', needs, pg_size_pretty((limits ->> 'memory')::bigint), instead);
    ELSIF NOT (planned -> 'fits')::boolean THEN
        notes := notes || CASE planned ->> 'method'
            WHEN 'hnsw' THEN format('Needs %s, and may take %s: the last %s %% of the rows go into the index on disk, slower by far. Raise maintenance_work_mem if the machine has more. %s',
                needs, pg_size_pretty((planned -> 'maintenance_work_mem')::bigint),
                greatest(1, ceil(100 - 100 * (planned -> 'maintenance_work_mem')::double precision / (planned -> 'memory')::double precision)), instead)
            ELSE format('Needs %s, probably more than the machine has. %s', needs, instead) END;
    END IF;
    IF (planned -> 'few_segments')::boolean THEN
        notes := notes || format('Without parallel workers: /dev/shm holds %s. Start the container with a larger --shm-size.', pg_size_pretty((limits ->> 'segment')::bigint));
    END IF;
    IF NOT (planned -> 'fits')::boolean AND limits ->> 'memory' IS NULL THEN
        notes := notes || format('How much memory the machine has is unknown to this role: assumed is %sas much as shared_buffers, or maintenance_work_mem.',
                                 CASE planned ->> 'method' WHEN 'ivfflat' THEN 'four times ' ELSE '' END);
    END IF;
    IF planned ->> 'method' = 'ivfflat' AND (planned -> 'rows')::bigint < (planned -> 'options' -> 'lists')::bigint THEN
        notes := notes || 'Fewer rows than lists: load first, for neither lists nor their centres change later.'::text;
    END IF;
    IF planned ->> 'form' = 'prefix' THEN
        notes := notes || 'Only for embeddings trained for it (Matryoshka).'::text;
    END IF;
    RETURN array_to_string(notes, ' ');
END $$;
COMMENT ON FUNCTION pgvec._plan_note(jsonb, jsonb, jsonb) IS 'What to know about a planned index; other: a form that fits, if this one does not.';

CREATE OR REPLACE FUNCTION pgvec._plans(wanted pgvec.vector_spaces, relation regclass, method text, form text, prefix integer, hnsw jsonb, lists integer, row_count bigint)
RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    limits  jsonb := pgvec._build_limits(relation);
    planned jsonb[];
    each    jsonb;
    other   jsonb;
BEGIN
    SELECT array_agg(pgvec._fitted(s, limits) ORDER BY o) INTO planned
    FROM pgvec._sized(wanted, relation, prefix, hnsw, lists, row_count, (limits -> 'workers')::integer > 0) WITH ORDINALITY s (s, o);
    FOREACH each IN ARRAY coalesce(planned, '{}') LOOP
        CONTINUE WHEN each ->> 'method' <> method OR each ->> 'form' <> form;
        other := NULL;
        IF NOT (each -> 'fits')::boolean THEN
            SELECT p INTO other FROM unnest(planned) WITH ORDINALITY p (p, o)
            WHERE (p -> 'fits')::boolean AND p ->> 'form' <> 'prefix' ORDER BY p ->> 'method' <> each ->> 'method', o LIMIT 1;
        END IF;
        RETURN NEXT each || jsonb_build_object('note', pgvec._plan_note(each, limits, other), 'limits', limits,
            'seconds', CASE WHEN (each -> 'fits')::boolean THEN pgvec._build_seconds(wanted.id, each, (each -> 'workers')::integer, (limits ->> 'cores')::integer) END);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._plans(pgvec.vector_spaces, regclass, text, text, integer, jsonb, integer, bigint) IS
'plan_index with all that a build needs to know.';

CREATE OR REPLACE FUNCTION pgvec.plan_index(
    collection      text,
    method          text    DEFAULT NULL,
    form            text    DEFAULT NULL,
    prefix          integer DEFAULT NULL,
    m               integer DEFAULT NULL,
    ef_construction integer DEFAULT NULL,
    lists           integer DEFAULT NULL,
    rows            bigint  DEFAULT NULL,
    space           text    DEFAULT NULL,
    calibrate       boolean DEFAULT false
) RETURNS SETOF pgvec.index_plan
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner    pgvec.collections := pgvec._collection(collection);
    wanted   pgvec.vector_spaces := pgvec._space(collection, space);
    relation regclass := pgvec._relation(owner.schema_name, wanted.table_name);
    checked  record;
BEGIN
    IF rows NOT BETWEEN 0 AND 1000000000000 THEN
        RAISE EXCEPTION 'rows must be from 0 to 1000000000000, not %', rows USING ERRCODE = 'PV005', HINT = 'Leave it out for as many as there are.';
    END IF;
    SELECT c.prefix, c.hnsw INTO checked FROM pgvec._checked_options(wanted, method, form, prefix, m, ef_construction, lists) c;
    IF calibrate THEN
        PERFORM pgvec._check_stores('plan_index (calibrate => true)', 'SELECT, INSERT, UPDATE ON pgvec.build_calibrations');
        IF NOT has_database_privilege(current_database(), 'TEMPORARY') THEN
            RAISE EXCEPTION 'plan_index (calibrate => true) builds indexes on a temporary table, and role % may not make one', quote_ident(current_user)
                USING ERRCODE = 'PV005', HINT = format('GRANT TEMPORARY ON DATABASE %I TO %I;', current_database(), current_user);
        END IF;
        PERFORM pgvec._calibrate_builds(wanted, relation,
            ARRAY(SELECT p FROM pgvec._plans(wanted, relation, method, form, checked.prefix, checked.hnsw, lists, rows) p));
    END IF;
    RETURN QUERY
    SELECT p ->> 'method', p ->> 'form', (p -> 'dimensions')::integer, p -> 'options', (p -> 'rows')::bigint, (p -> 'memory')::bigint,
           (p -> 'disk')::bigint, (p ->> 'seconds')::double precision, (p -> 'maintenance_work_mem')::bigint, (p -> 'workers')::integer,
           (p -> 'fits')::boolean, p ->> 'note'
    FROM pgvec._plans(wanted, relation, method, form, checked.prefix, checked.hnsw, lists, rows) p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such index applies to vector space %: type %, % dimensions, distance %', quote_literal(wanted.name), wanted.type, wanted.dimensions, wanted.distance
            USING ERRCODE = 'PV005', HINT = 'Leave method and form out to see which do.';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec.plan_index(text, text, text, integer, integer, integer, integer, bigint, text, boolean) IS
'What an index would cost, before it is built: a row for each method and form that applies, or for those named. memory_bytes:
while it is built; disk_bytes: afterwards; seconds: by the last build of its kind, else by a calibration, NULL without either;
maintenance_work_mem_bytes and workers: what to build it with, as pgvec index create does; fits: whether all of it is built in memory.
calibrate measures builds of samples first, a few seconds for each form. rows: as if there were so many. m is 24 and ef_construction 200
unless told, lists a thousandth of the rows, prefix a third of the dimensions.
Example: SELECT method, form, pg_size_pretty(disk_bytes), fits FROM pgvec.plan_index(''docs'');';
