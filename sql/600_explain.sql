-- Why a vector index is not used. The plan and the catalogue are what is read; the statement is never run.
-- What a plan prints of an expression is compared with what it prints of an index's expression: both come from PostgreSQL.

CREATE OR REPLACE FUNCTION pgvec._explain(statement text, path text, options text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    explain text := format('EXPLAIN (%s) %s', options, statement);
    line text;
BEGIN
    -- From here on no name may be looked up but the statement's own.
    PERFORM set_config('search_path', path, true);
    -- A loop opens a cursor, and that takes one statement: a plain EXECUTE would run what follows a semicolon.
    FOR line IN EXECUTE explain LOOP
        RETURN NEXT line;
    END LOOP;
EXCEPTION
    WHEN invalid_cursor_definition THEN
        RAISE EXCEPTION 'more than one statement' USING ERRCODE = 'PV005', HINT = 'Explain them one at a time.';
    WHEN undefined_parameter THEN
        RAISE EXCEPTION 'the statement has parameters: %', SQLERRM
            USING ERRCODE = 'PV005', HINT = 'Put literals in their place, such as ''[1,2,3]''::vector for $1.';
END $$;
COMMENT ON FUNCTION pgvec._explain(text, text, text) IS 'EXPLAIN (options) of one statement, its names looked up on path. PV005 for several.';

CREATE OR REPLACE FUNCTION pgvec._plan(statement text, path text) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT (p.line::jsonb) #> '{0,Plan}' FROM pgvec._explain(statement, path, 'VERBOSE, FORMAT JSON') AS p (line) $$;
COMMENT ON FUNCTION pgvec._plan(text, text) IS 'The root node of a statement''s plan.';

CREATE OR REPLACE FUNCTION pgvec._indexed_plan(statement text, path text) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off SET enable_indexscan = on
AS $$ SELECT pgvec._plan(statement, path) $$;
COMMENT ON FUNCTION pgvec._indexed_plan(text, text) IS 'The plan when cost is no object: a vector index that is not even in it is of no use.';

CREATE OR REPLACE FUNCTION pgvec._plan_nodes(plan jsonb) RETURNS TABLE (path integer[], node jsonb, initplans boolean)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE nodes AS (
        SELECT '{}'::integer[] AS path, plan AS node
        UNION ALL
        SELECT n.path || child.position::integer, child.node
        FROM nodes n CROSS JOIN LATERAL jsonb_array_elements(n.node -> 'Plans') WITH ORDINALITY AS child (node, position)
    )
    SELECT n.path, n.node - 'Plans', n.node @> '{"Plans": [{"Parent Relationship": "InitPlan"}]}' FROM nodes n
$$;
COMMENT ON FUNCTION pgvec._plan_nodes(jsonb) IS 'The nodes of a plan. The path of one begins with the paths of all nodes above it.';

CREATE OR REPLACE FUNCTION pgvec._plan_scans(plan jsonb)
RETURNS TABLE (path integer[], relation regclass, alias text, index regclass, method name, node jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT n.path, to_regclass(quote_ident(n.node ->> 'Schema') || '.' || quote_ident(n.node ->> 'Relation Name')), n.node ->> 'Alias',
           i.oid::regclass, a.amname, n.node
    FROM pgvec._plan_nodes(plan) n
    LEFT JOIN pg_class i ON n.node ? 'Order By'
                        AND i.oid = to_regclass(quote_ident(n.node ->> 'Schema') || '.' || quote_ident(n.node ->> 'Index Name'))
    LEFT JOIN pg_am a ON a.oid = i.relam AND a.amname IN ('hnsw', 'ivfflat')
    WHERE n.node ? 'Relation Name'
$$;
COMMENT ON FUNCTION pgvec._plan_scans(jsonb) IS 'The scans of tables in a plan; method: of the vector index that is read, or NULL.';

CREATE OR REPLACE FUNCTION pgvec._plan_limit(plan jsonb, path integer[]) RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH above AS (
        SELECT cardinality(n.path) AS depth, n.node, (n.node ->> 'Plan Rows')::float8 AS rows,
               (n.node ->> 'Startup Cost')::float8 AS startup, (n.node ->> 'Total Cost')::float8 AS total, n.initplans
        FROM pgvec._plan_nodes(plan) n WHERE _plan_limit.path[:cardinality(n.path)] = n.path
    )
    -- No plan names an OFFSET, but it is what makes a Limit start later than the node below; that, or an InitPlan.
    SELECT l.rows + CASE WHEN l.initplans THEN 0 ELSE
           coalesce(round((l.startup - c.startup) * c.rows / nullif(c.total - c.startup, 0)), 0) END
    FROM above l JOIN above c ON c.depth = l.depth + 1
    WHERE l.node ->> 'Node Type' = 'Limit' AND NOT EXISTS (SELECT FROM above b WHERE b.depth > l.depth AND b.node ? 'Subplan Name')
    ORDER BY l.depth DESC LIMIT 1
$$;
COMMENT ON FUNCTION pgvec._plan_limit(jsonb, integer[]) IS 'LIMIT + OFFSET above a node, or the rows expected if fewer; NULL if none is.';

CREATE OR REPLACE FUNCTION pgvec._plan_filter(plan jsonb, path integer[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH nodes AS MATERIALIZED (SELECT n.path, n.node, cardinality(n.path) AS depth FROM pgvec._plan_nodes(plan) n),
    above AS (
        SELECT n.path, n.node FROM nodes n
        WHERE _plan_filter.path[:n.depth] = n.path
          AND n.depth > coalesce((SELECT max(l.depth) FROM nodes l WHERE _plan_filter.path[:l.depth] = l.path
                                  AND (l.node ->> 'Node Type' = 'Limit' OR l.node ? 'Subplan Name')), -1)
    )
    SELECT string_agg(DISTINCT found.text, ' and ')
    FROM above a JOIN nodes n ON n.path[:cardinality(a.path)] = a.path
    CROSS JOIN LATERAL (VALUES (n.node ->> 'Filter'), (n.node ->> 'Join Filter'),
                               (CASE WHEN n.node ->> 'Join Type' IN ('Semi', 'Anti') THEN 'the condition of the join' END)) AS found (text)
    WHERE found.text IS NOT NULL AND (n.path = a.path OR a.node ->> 'Join Type' IN ('Inner', 'Semi', 'Anti'))
$$;
COMMENT ON FUNCTION pgvec._plan_filter(jsonb, integer[]) IS 'What drops rows of a scan before its LIMIT counts them, if anything.';

CREATE OR REPLACE FUNCTION pgvec._index_findings(plan jsonb) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    scan record;
BEGIN
    FOR scan IN
        SELECT s.relation, s.index, s.method, e.name AS effort, e.setting, format(e.reach, e.setting) AS reach,
               coalesce(current_setting(s.method || '.iterative_scan', true), 'off') AS iterative,
               strpos(plan::text, format('set_config(''%s.', s.method)) > 0 AS sets_its_own,
               pgvec._masked(s.node ->> 'Order By') AS ordered, pgvec._masked(pgvec._plan_filter(plan, s.path)) AS filter,
               pgvec._plan_limit(plan, s.path) AS "limit"
        FROM pgvec._plan_scans(plan) s
        JOIN (VALUES
            ('hnsw', 'hnsw.ef_search', coalesce(current_setting('hnsw.ef_search', true), '40'), 'at most %s rows'),
            ('ivfflat', 'ivfflat.probes', coalesce(current_setting('ivfflat.probes', true), '1'), 'the rows of its probes, %s')
        ) AS e (method, name, setting, reach) ON e.method = s.method
        ORDER BY s.path
    LOOP
        RETURN NEXT format('%s is read through %s index %s by %s, with %s.', scan.relation, scan.method, scan.index, scan.ordered,
            CASE WHEN scan.sets_its_own THEN 'settings that the statement makes itself'
                 ELSE format('%s = %s and %s.iterative_scan = %s', scan.effort, scan.setting, scan.method, scan.iterative) END);
        RETURN QUERY
        SELECT format('  - Results may be short: %s. %sSET %s.iterative_scan = relaxed_order.', warning.text, warning.remedy, scan.method)
        FROM (VALUES
            (scan."limit" IS NULL, format('there is no LIMIT, and the index returns %s', scan.reach), 'Add LIMIT n, or '),
            (scan.method = 'hnsw' AND scan."limit" > scan.setting::integer,
             format('LIMIT, with OFFSET, is %s, and the index returns %s', scan."limit", scan.reach),
             CASE WHEN scan."limit" <= 1000 THEN format('SET hnsw.ef_search = %s, or ', scan."limit") END),
            (scan.filter IS NOT NULL, format('%s drops rows after the index has returned %s', scan.filter, scan.reach), '')
        ) AS warning (applies, text, remedy)
        WHERE scan.iterative = 'off' AND NOT scan.sets_its_own AND warning.applies;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._index_findings(jsonb) IS 'The vector indexes that a plan reads, and whether settings may make results short.';

CREATE OR REPLACE FUNCTION pgvec._masked(expression text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT regexp_replace(regexp_replace(expression, $re$E?'(?:[^']|'')*'$re$, '''...''', 'g'),
                          $re$OPERATOR\((?:\w+|"[^"]+")\.([^()\w]+)\)$re$, '\1', 'g')
$$;
COMMENT ON FUNCTION pgvec._masked(text) IS 'An expression as plans print it, its literals left out and its operators without a schema.';

CREATE OR REPLACE FUNCTION pgvec._outside_parentheses(expression text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WHILE expression ~ '\([^()]*\)' LOOP
        expression := regexp_replace(expression, '\([^()]*\)', '', 'g');
    END LOOP;
    RETURN expression;
END $$;
COMMENT ON FUNCTION pgvec._outside_parentheses(text) IS 'What of a masked expression is in no parentheses.';

CREATE OR REPLACE FUNCTION pgvec._unwrapped(expression text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- (a) + (b) must stay as it is: its first parenthesis and its last are no pair.
    WHILE expression ~ '^\(.*\)$' AND pgvec._outside_parentheses(substr(expression, 2, length(expression) - 2)) !~ '[()]' LOOP
        expression := substr(expression, 2, length(expression) - 2);
    END LOOP;
    RETURN expression;
END $$;
COMMENT ON FUNCTION pgvec._unwrapped(text) IS 'A masked expression without the parentheses around all of it.';

CREATE OR REPLACE FUNCTION pgvec._distance_operators()
RETURNS TABLE (method name, opclass oid, opclass_name name, type oid, symbol text, function text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.amname, c.oid, c.opcname, c.opcintype, o.oprname::text, regexp_replace(p.proname, '^.*negative_', '')
    FROM pg_opclass c
    JOIN pg_am a ON a.oid = c.opcmethod AND a.amname IN ('hnsw', 'ivfflat')
    JOIN pg_amop s ON s.amopfamily = c.opcfamily AND s.amoppurpose = 'o'
    JOIN pg_operator o ON o.oid = s.amopopr
    JOIN pg_proc p ON p.oid = o.oprcode
$$;
COMMENT ON FUNCTION pgvec._distance_operators() IS 'What the operator classes of vector indexes order by, and the functions of the same.';

CREATE OR REPLACE FUNCTION pgvec._sort_key(printed text, OUT body text, OUT suffix text, OUT symbol text, OUT function text,
                                           OUT sides text[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    symbols text; functions text;
BEGIN
    SELECT string_agg(DISTINCT regexp_replace(d.symbol, '(\W)', '\\\1', 'g'), '|'), string_agg(DISTINCT d.function, '|')
    INTO symbols, functions FROM pgvec._distance_operators() d;
    suffix := btrim(substring(printed FROM '((?: DESC| NULLS FIRST| NULLS LAST)+)$'));
    body := pgvec._unwrapped(pgvec._masked(regexp_replace(printed, '( DESC| NULLS FIRST| NULLS LAST)+$', '')));
    symbol := substring(body FROM ' (' || symbols || ') ');
    IF symbol IS NULL THEN
        function := substring(body FROM '\y(' || functions || ')\(');
        symbol := (SELECT min(d.symbol) FROM pgvec._distance_operators() d WHERE d.function = _sort_key.function);
    ELSIF pgvec._outside_parentheses(body) ~ (' (' || symbols || ') ') THEN
        sides := regexp_match(body, '^(.*) (?:' || symbols || ') (.*)$');
    END IF;
END $$;
COMMENT ON FUNCTION pgvec._sort_key(text) IS 'The parts of a printed sort key: its DESC, its distance, if any, and the two sides if it is bare.';

CREATE OR REPLACE FUNCTION pgvec._mentions(expression text, alias text, "column" text DEFAULT NULL) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT expression ~ ('(?<![\w".])' || regexp_replace(quote_ident(alias) || '.', '(\W)', '\\\1', 'g')
                         || coalesce(regexp_replace(quote_ident("column"), '(\W)', '\\\1', 'g') || '(?![\w"])', ''))
$$;
COMMENT ON FUNCTION pgvec._mentions(text, text, text) IS 'Whether a masked expression has alias.column, or any column of the alias.';

CREATE OR REPLACE FUNCTION pgvec._distance_sorts(plan jsonb)
RETURNS TABLE (relation regclass, alias text, scan_alias text, attnum smallint, plain text, body text, suffix text, symbol text,
               function text, side text, other text, keys bigint, "position" bigint, limited boolean, joined boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH scans AS MATERIALIZED (
        SELECT s.path, s.relation, s.method, s.alias AS scan_alias, printed.alias
        FROM pgvec._plan_scans(plan) s
        -- The columns of partitions and of heirs are printed with the alias of their parent.
        CROSS JOIN LATERAL (SELECT s.alias UNION SELECT regexp_replace(s.alias, '_\d+$', '')) AS printed (alias)
    )
    SELECT DISTINCT ON (n.path, key.position, s.alias, a.attnum)
           s.relation, s.alias, s.scan_alias, a.attnum, format('%I.%I', s.alias, a.attname), k.body, k.suffix, k.symbol, k.function,
           pgvec._unwrapped(k.sides[side.number]), pgvec._unwrapped(k.sides[3 - side.number]),
           jsonb_array_length(n.node -> 'Sort Key'), key.position, pgvec._plan_limit(plan, n.path) IS NOT NULL,
           EXISTS (SELECT FROM scans o WHERE o.path[:cardinality(n.path)] = n.path AND pgvec._mentions(k.sides[3 - side.number], o.alias))
    FROM pgvec._plan_nodes(plan) n
    CROSS JOIN LATERAL jsonb_array_elements_text(n.node -> 'Sort Key') WITH ORDINALITY AS key (printed, position)
    CROSS JOIN LATERAL pgvec._sort_key(key.printed) k
    JOIN scans s ON s.path[:cardinality(n.path)] = n.path AND s.method IS NULL
    JOIN pg_attribute a ON a.attrelid = s.relation AND pgvec._mentions(k.body, s.alias, a.attname)
    CROSS JOIN LATERAL (SELECT CASE WHEN pgvec._mentions(k.sides[1], s.alias, a.attname) THEN 1 ELSE 2 END) AS side (number)
    WHERE k.symbol IS NOT NULL AND a.atttypid IN (SELECT d.type FROM pgvec._distance_operators() d)
    ORDER BY n.path, key.position, s.alias, a.attnum, s.scan_alias
$$;
COMMENT ON FUNCTION pgvec._distance_sorts(jsonb) IS 'The vector columns by whose distance a plan sorts, with no index, and all about them.';

CREATE OR REPLACE FUNCTION pgvec._shape_reasons(sorted record) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bare text := format('ORDER BY %s %s value', coalesce(sorted.side, sorted.plain), sorted.symbol);
    first_will_do boolean := current_setting('server_version_num')::integer >= 170000;
BEGIN
    RETURN QUERY
    SELECT reason.text FROM (VALUES
        (sorted.function IS NOT NULL,
         format('It calls the function %s, and an index serves operators only. Write %s%s.', sorted.function, bare,
                CASE WHEN sorted.symbol = '<#>' THEN ', the negative of it, ascending' ELSE '' END)),
        (sorted.function IS NULL AND sorted.side IS NULL,
         format('It sorts by an expression around %s. Write %s, and compute the expression in the select list.', sorted.symbol, bare)),
        (sorted.suffix IS NOT NULL,
         format('It sorts %s, and an index returns the nearest first. Write %s, ascending, even if you want the most similar first.',
                sorted.suffix, bare)),
        (sorted.position > 1 OR sorted.keys > 1 AND NOT first_will_do,
         format('The distance is sort key %s of %s, and an index needs it to be the %s one. Write %s LIMIT n in a subquery, and sort outside.',
                sorted.position, sorted.keys, CASE WHEN first_will_do THEN 'first' ELSE 'only' END, bare)),
        (sorted.joined,
         format('It compares two columns, %s and %s, and an index needs one value to start from. Write the other side as a literal or a '
                'scalar subquery, or, for each of its rows, CROSS JOIN LATERAL (SELECT ... %s LIMIT n).', sorted.side, sorted.other, bare))
    ) AS reason (applies, text)
    WHERE reason.applies;
END $$;
COMMENT ON FUNCTION pgvec._shape_reasons(record) IS 'What in the ORDER BY keeps every index from being used, for a row of _distance_sorts.';

CREATE OR REPLACE FUNCTION pgvec._printed(relation regclass, alias text, expression text, path text) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    -- With a second relation in it, a plan prints the alias of a column.
    SELECT pgvec._unwrapped(pgvec._masked(pgvec._plan(
        format('SELECT %s FROM %s AS %I, pg_catalog.generate_series(1, 2)', expression, relation, alias), path) #>> '{Output,0}'))
$$;
COMMENT ON FUNCTION pgvec._printed(regclass, text, text, text) IS 'An expression of a table''s index, masked, as a plan prints it.';

CREATE OR REPLACE FUNCTION pgvec._index_reasons(sorted record, path text, shaped boolean) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH indexes AS MATERIALIZED (
        SELECT x.indexrelid::regclass AS index, x.indisvalid AS valid, c.opcname AS opclass, x.indrelid, x.indpred,
               pgvec._printed(sorted.relation, sorted.alias, pg_get_indexdef(x.indexrelid, 1, false), path) AS printed,
               (SELECT min(d.symbol) FROM pgvec._distance_operators() d WHERE d.opclass = c.oid) AS symbol
        FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_am a ON a.oid = i.relam AND a.amname IN ('hnsw', 'ivfflat')
        JOIN pg_opclass c ON c.oid = x.indclass[0]
        WHERE x.indrelid = sorted.relation
          AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = sorted.relation AND d.refobjsubid = sorted.attnum)
    ), faults AS (
        SELECT i.index, fault.text FROM indexes i CROSS JOIN LATERAL (VALUES
            (NOT i.valid, format('is INVALID, left by a build that failed. Run REINDEX INDEX CONCURRENTLY %s.', i.index)),
            (i.symbol <> sorted.symbol,
             format('has operator class %s, which serves %s, and the statement has %s. Write the former, or build an index for the latter: %s',
                    i.opclass, i.symbol, sorted.symbol, pgvec._index_advice(sorted))),
            (i.printed <> sorted.side,
             format('is on %s, and the statement sorts by %s. Write ORDER BY %s %s value%s', i.printed, sorted.side, i.printed, i.symbol,
                    CASE WHEN starts_with(sorted.side, '(' || i.printed || ')::')
                         THEN ', with a value of the column''s type: one of another type has the column converted.'
                         ELSE ', with a value of its type.' END))
        ) AS fault (applies, text)
        WHERE fault.applies
    )
    SELECT format('Index %s %s', f.index, f.text) FROM faults f
    -- An index that fits is the one to speak of; the others serve other searches.
    WHERE NOT EXISTS (SELECT FROM indexes i WHERE i.index NOT IN (SELECT o.index FROM faults o))
    UNION ALL
    SELECT format('Index %s %s', i.index, CASE
        WHEN i.indpred IS NOT NULL THEN format('is partial, and the WHERE does not imply %s. Add that.', pg_get_expr(i.indpred, i.indrelid))
        WHEN sorted.other ~ '\ySubPlan \d' OR EXISTS (SELECT FROM regexp_matches(sorted.other, '(\w+)"?\(', 'g') AS called (names)
                                                      JOIN pg_proc p ON p.proname = called.names[1] AND p.provolatile = 'v')
        THEN format('fits, but %s may differ from row to row. Write a scalar subquery that depends on no row, (SELECT ...).', sorted.other)
        ELSE 'fits, but a join, DISTINCT or GROUP BY comes before the sort. Write ORDER BY ... LIMIT n in a subquery on the table alone.' END)
    FROM indexes i WHERE shaped AND i.index NOT IN (SELECT o.index FROM faults o)
    UNION ALL
    SELECT format('The table has no hnsw or ivfflat index on that column. Build one: %s', pgvec._index_advice(sorted))
    WHERE NOT EXISTS (SELECT FROM indexes);
END $$;
COMMENT ON FUNCTION pgvec._index_reasons(record, text, boolean) IS 'Why no index serves a row of _distance_sorts. shaped: its ORDER BY is fine.';

CREATE OR REPLACE FUNCTION pgvec._index_advice(sorted record) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format('CREATE INDEX ON %s USING hnsw (%s %s);', coalesce(pg_partition_root(sorted.relation), sorted.relation),
                      CASE WHEN sorted.side ~ '[()]' THEN format('(%s)', replace(sorted.side, quote_ident(sorted.alias) || '.', ''))
                           WHEN a.atttypmod = -1 THEN format('(%I::%s(n))', a.attname, t.typname)
                           WHEN wide THEN format('(%I::halfvec(%s))', a.attname, a.atttypmod) ELSE quote_ident(a.attname) END,
                      CASE WHEN wide THEN replace(d.opclass_name, 'vector_', 'halfvec_') ELSE d.opclass_name END)
        FROM pg_attribute a CROSS JOIN pgvec._distance_operators() d JOIN pg_type t ON t.oid = d.type
        CROSS JOIN LATERAL (SELECT a.atttypmod > 2000 AND t.typname = 'vector') AS w (wide)
        WHERE a.attrelid = sorted.relation AND a.attnum = sorted.attnum AND d.method = 'hnsw' AND d.symbol = sorted.symbol
        ORDER BY coalesce(sorted.side, '') ~ ('::(\w+\.)?"?' || t.typname || '\y') DESC, d.type = a.atttypid DESC LIMIT 1);
END $$;
COMMENT ON FUNCTION pgvec._index_advice(record) IS 'The CREATE INDEX that would serve a row of _distance_sorts.';

CREATE OR REPLACE FUNCTION pgvec._sort_findings(statement text, path text, plan jsonb) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    indexscan boolean := current_setting('enable_indexscan');
    indexed   jsonb;
    sorted    record;
    usable    regclass;
    shapes    text[];
BEGIN
    FOR sorted IN SELECT DISTINCT ON (s.body, s.position) s.* FROM pgvec._distance_sorts(plan) s ORDER BY s.body, s.position, s.alias LOOP
        RETURN NEXT format('%s is sorted by %s, not read through a vector index:',
                           coalesce(pg_partition_root(sorted.relation), sorted.relation), sorted.body);
        indexed := coalesce(indexed, pgvec._indexed_plan(statement, path));
        usable := (SELECT min(s.index::oid) FROM pgvec._plan_scans(indexed) s WHERE s.alias = sorted.scan_alias AND s.method IS NOT NULL);
        IF usable IS NULL THEN
            shapes := ARRAY(SELECT pgvec._shape_reasons(sorted));
            RETURN QUERY SELECT '  - ' || unnest(shapes);
            IF NOT sorted.joined THEN
                RETURN QUERY SELECT '  - ' || r.reason FROM pgvec._index_reasons(sorted, path, shapes = '{}') AS r (reason);
            END IF;
        END IF;
        RETURN QUERY
        SELECT '  - ' || reason.text FROM (VALUES
            (NOT sorted.limited, 'There is no LIMIT, and an index is for the first few rows. Add LIMIT n.'),
            (NOT indexscan, 'enable_indexscan is off. SET enable_indexscan = on.'),
            -- Before 18, a node that is switched off costs 1e10 more.
            (sorted.limited AND indexscan AND usable IS NOT NULL,
             format('The planner found this plan cheaper, at %s, than index %s, at %s: the table is small, or few rows match. It is '
                    'exact, too. To compare: SET enable_seqscan = off, and enable_sort = off.',
                    mod((plan ->> 'Total Cost')::numeric, 1e10), usable, mod((indexed ->> 'Total Cost')::numeric, 1e10)))
        ) AS reason (applies, text)
        WHERE reason.applies;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgvec._sort_findings(text, text, jsonb) IS 'Why a plan sorts by distances: as it is cheaper, or as it must.';

CREATE OR REPLACE FUNCTION pgvec.explain_sql(statement text, search_path text DEFAULT current_setting('search_path')) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan jsonb;
BEGIN
    -- EXPLAIN takes an INSERT or a CREATE TABLE AS, too. What may come before the first word: blanks, parentheses, comments.
    IF statement !~* '^(\s|\(|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*(SELECT|WITH|VALUES|TABLE)\y' IS NOT FALSE THEN
        RAISE EXCEPTION 'not a query: %', quote_nullable(left(statement, 60))
            USING ERRCODE = 'PV005', HINT = 'Give one SELECT, or one WITH ... SELECT, without EXPLAIN.';
    END IF;
    plan := pgvec._plan(statement, search_path);
    -- A literal of 1,536 numbers would bury the plan.
    RETURN QUERY SELECT regexp_replace(e.line, $re$'([^']{40})[^']{40,}'$re$, '''\1...''', 'g')
                 FROM pgvec._explain(statement, search_path, 'COSTS OFF') AS e (line);
    RETURN QUERY SELECT '' UNION ALL SELECT pgvec._index_findings(plan) UNION ALL SELECT pgvec._sort_findings(statement, search_path, plan);
    IF NOT EXISTS (SELECT FROM pgvec._index_findings(plan)) AND NOT EXISTS (SELECT FROM pgvec._distance_sorts(plan)) THEN
        RETURN NEXT 'Nothing is sorted by the distance of a vector column. An index serves ORDER BY column <=> value LIMIT n, in one SELECT, '
                    'but no WHERE, and no ORDER BY of a distance that comes from a CTE or a subquery.';
    END IF;
END $$;
COMMENT ON FUNCTION pgvec.explain_sql(text, text) IS
'Why a statement of yours does not use its vector index, and what to write instead; or which index it uses, and whether its settings let
it return too few rows. Any tables will do. The statement is planned, never run; put literals in the place of parameters. First comes
its plan, then an empty line, then the findings. search_path: where names are looked up, by default as in your session.
Example: SELECT * FROM pgvec.explain_sql($$SELECT id FROM docs ORDER BY 1 - (embedding <=> ''[1,2,3]'') DESC LIMIT 10$$);';
