"""The life of an index: profiles for several targets, builds, logged queries, recall over time.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

from pgvec_toolkit.schema.migrate import DROP_RUN_ALWAYS_SQL

revision = "0004"
down_revision = "0003"

PROFILES = """
ALTER TABLE pgvec.tuning_profiles
    DROP CONSTRAINT tuning_profiles_pkey,
    ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ADD COLUMN filter_class text NOT NULL DEFAULT '',
    ADD COLUMN is_default boolean NOT NULL DEFAULT true,
    ADD COLUMN tail_share double precision CHECK (tail_share > 0 AND tail_share <= 1),
    ADD COLUMN recall_low double precision,
    ADD COLUMN recall_high double precision,
    ADD COLUMN reaching_share double precision,
    ADD COLUMN superseded_at timestamptz;
CREATE UNIQUE INDEX tuning_profiles_current ON pgvec.tuning_profiles
    (space_id, index_method, index_shape, k, filter_class, target_recall) WHERE superseded_at IS NULL;
CREATE UNIQUE INDEX tuning_profiles_default ON pgvec.tuning_profiles
    (space_id, index_method, index_shape, k, filter_class) WHERE superseded_at IS NULL AND is_default;
COMMENT ON TABLE pgvec.tuning_profiles IS
'What tune found: the setting (ef_search or probes) that reaches the target recall, with its evidence. Searches read
the current one (superseded_at is null) for their k: that of the recall they ask for, else the default. Earlier ones
stay as history.';
COMMENT ON COLUMN pgvec.tuning_profiles.filter_class IS
'The class of filters it was measured with; empty: without a filter.';
COMMENT ON COLUMN pgvec.tuning_profiles.tail_share IS
'The share of queries asked to reach the target each; null: their mean only.';
COMMENT ON COLUMN pgvec.tuning_profiles.reaching_share IS 'The share of queries that reached the target each.';
COMMENT ON COLUMN pgvec.tuning_profiles.recall_low IS 'With recall_high the 95 % confidence interval of recall.';
"""

TRUTH = """
CREATE TABLE pgvec.ground_truths (
    space_id     integer NOT NULL REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    queries_hash bytea NOT NULL,
    k            integer NOT NULL,
    data_version text NOT NULL,
    distances    bytea NOT NULL,
    computed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, queries_hash)
);
COMMENT ON TABLE pgvec.ground_truths IS
'Distances of the k nearest of sets of queries, as float32, a row a query: true while the vectors are of data_version.';
"""

BUILDS = """
CREATE TABLE pgvec.index_builds (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space_id         integer NOT NULL REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    index_name       text NOT NULL,
    method           text NOT NULL,
    form             text NOT NULL,
    dimensions       integer NOT NULL,
    options          jsonb NOT NULL,
    online           boolean NOT NULL,
    rows             bigint NOT NULL,
    memory_limit     bigint NOT NULL,
    workers          integer NOT NULL,
    forecast_memory  bigint NOT NULL,
    forecast_bytes   bigint NOT NULL,
    forecast_seconds double precision,
    seconds          double precision NOT NULL,
    bytes            bigint NOT NULL,
    spilled_after    bigint,
    built_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pgvec.index_builds (space_id, built_at);
COMMENT ON TABLE pgvec.index_builds IS
'Builds that were completed, forecast against reality. memory_limit: maintenance_work_mem; spilled_after: the number of
rows after which the graph no longer fitted into it, null if it did; online: CONCURRENTLY.';
"""

CALIBRATIONS = """
CREATE TABLE pgvec.build_calibrations (
    space_id       integer NOT NULL REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    method         text NOT NULL,
    form           text NOT NULL,
    dimensions     integer NOT NULL,
    options        jsonb NOT NULL,
    rows           bigint NOT NULL,
    row_us         double precision NOT NULL,
    growth         double precision,
    list_us        double precision,
    kmeans_us      double precision,
    distinct_share double precision NOT NULL,
    measured_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, method, form, dimensions, options)
);
COMMENT ON TABLE pgvec.build_calibrations IS
'What builds of samples cost on this server, for forecasts. Microseconds: row_us for each row (hnsw: of an index of so
many rows; with n rows it is (n / rows) ^ growth times as much), list_us for each row and list of ivfflat, kmeans_us for
each sample and list. distinct_share: how many of the values that the index holds differ.';

CREATE TYPE pgvec.index_plan AS (
    method                     text,
    form                       text,
    dimensions                 integer,
    options                    jsonb,
    rows                       bigint,
    memory_bytes               bigint,
    disk_bytes                 bigint,
    seconds                    double precision,
    maintenance_work_mem_bytes bigint,
    workers                    integer,
    fits                       boolean,
    note                       text
);
COMMENT ON TYPE pgvec.index_plan IS 'What pgvec.plan_index returns.';
"""

WATCH = """
CREATE TABLE pgvec.query_sampling (
    space_id integer PRIMARY KEY REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    share    double precision NOT NULL CHECK (share > 0 AND share <= 1),
    keep     integer NOT NULL CHECK (keep > 0)
);
COMMENT ON TABLE pgvec.query_sampling IS
'Spaces of which queries are logged: which share of them, and how many are kept.';

CREATE TABLE pgvec.query_log (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space_id integer NOT NULL REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    query    text NOT NULL,
    k        integer NOT NULL,
    filter   jsonb,
    asked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pgvec.query_log (space_id, id);
COMMENT ON TABLE pgvec.query_log IS
'Queries that users asked, sampled by consent (pgvec.log_queries): the vector as text, k, the filter.';

CREATE TABLE pgvec.recall_checks (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space_id       integer NOT NULL REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    k              integer NOT NULL,
    source         text NOT NULL CHECK (source IN ('log', 'stored')),
    queries        integer NOT NULL,
    recall         double precision NOT NULL,
    recall_low     double precision NOT NULL,
    recall_high    double precision NOT NULL,
    reaching_share double precision,
    short_results  integer NOT NULL,
    milliseconds   double precision NOT NULL,
    target_recall  double precision,
    tail_share     double precision,
    mean_shift     double precision,
    distance_shift double precision,
    out_of_range   double precision,
    alarms         text[] NOT NULL DEFAULT '{}',
    checked_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pgvec.recall_checks (space_id, checked_at);
COMMENT ON TABLE pgvec.recall_checks IS
'Recall over time, as pgvec.watch measures it, beside the target of the profile and the drift of the embeddings since
the baseline.';

CREATE TABLE pgvec.drift_baselines (
    space_id  integer PRIMARY KEY REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    mean      text,
    spread    double precision,
    vectors   integer,
    distances double precision[] NOT NULL,
    source    text NOT NULL CHECK (source IN ('log', 'stored')),
    taken_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgvec.drift_baselines IS
'What embeddings looked like when drift was first measured: the mean and spread (root mean square distance from
the mean) of so many vectors, the distances of queries to their nearest.';
"""

# Who may read the catalogue may read, and who may write it may write, the new tables; the query log is for its owner
# to grant.
GRANTS = """
DO $$ DECLARE granted record; BEGIN
    FOR granted IN SELECT DISTINCT t.name, a.grantee, a.privilege_type
                   FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a,
                        unnest(ARRAY['ground_truths', 'index_builds', 'build_calibrations', 'query_sampling',
                                     'recall_checks', 'drift_baselines']) t (name)
                   WHERE c.oid = 'pgvec.tuning_profiles'::regclass
                     AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') LOOP
        EXECUTE format('GRANT %s ON pgvec.%I TO %s', granted.privilege_type, granted.name,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END $$;
"""

# Their signatures change: OR REPLACE would leave the old ones beside the new.
DROP_CHANGED = """
DO $$ DECLARE routine regprocedure; BEGIN
    FOR routine IN SELECT oid FROM pg_catalog.pg_proc
                   WHERE pronamespace = 'pgvec'::regnamespace
                     AND proname IN ('search', 'search_sql', 'search_many', 'similar', 'explain', 'recall',
                                     'hybrid_search', 'hybrid_search_sql') LOOP
        EXECUTE format('DROP FUNCTION %s', routine);
    END LOOP;
END $$;
"""

# An older version keeps one profile for each method and k.
BACK = """
DROP TYPE pgvec.index_plan;
DROP TABLE pgvec.drift_baselines, pgvec.recall_checks, pgvec.query_log, pgvec.query_sampling, pgvec.index_builds,
           pgvec.build_calibrations, pgvec.ground_truths;
DELETE FROM pgvec.tuning_profiles WHERE superseded_at IS NOT NULL OR NOT is_default OR filter_class <> '';
DELETE FROM pgvec.tuning_profiles p WHERE EXISTS (
    SELECT FROM pgvec.tuning_profiles o
    WHERE o.space_id = p.space_id AND o.index_method = p.index_method AND o.k = p.k AND o.id > p.id);
DROP INDEX pgvec.tuning_profiles_current, pgvec.tuning_profiles_default;
ALTER TABLE pgvec.tuning_profiles
    DROP COLUMN id, DROP COLUMN filter_class, DROP COLUMN is_default, DROP COLUMN tail_share, DROP COLUMN recall_low,
    DROP COLUMN recall_high, DROP COLUMN reaching_share, DROP COLUMN superseded_at,
    ADD PRIMARY KEY (space_id, index_method, k);
DELETE FROM pgvec.run_always_sql;
"""


def upgrade() -> None:
    op.execute(DROP_CHANGED)
    op.execute(PROFILES)
    op.execute(TRUTH)
    op.execute(BUILDS)
    op.execute(CALIBRATIONS)
    op.execute(WATCH)
    op.execute(GRANTS)


def downgrade() -> None:
    op.execute(DROP_RUN_ALWAYS_SQL)
    op.execute(BACK)
