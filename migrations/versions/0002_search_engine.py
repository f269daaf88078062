"""Vector spaces of every type, oversampling in tuning profiles, calibrations.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

from pgvec_toolkit.schema.migrate import DROP_RUN_ALWAYS_SQL

revision = "0002"
down_revision = "0001"

TABLES = """
ALTER TABLE pgvec.vector_spaces DROP CONSTRAINT vector_spaces_type_check;
ALTER TABLE pgvec.vector_spaces ADD CONSTRAINT vector_spaces_type_check
    CHECK (type IN ('vector', 'halfvec', 'sparsevec', 'bit', 'vector[]'));

ALTER TABLE pgvec.tuning_profiles
    ADD COLUMN oversampling double precision NOT NULL DEFAULT 1 CHECK (oversampling >= 1),
    ADD COLUMN index_shape text NOT NULL DEFAULT 'full';

COMMENT ON COLUMN pgvec.tuning_profiles.index_shape IS
'Of the index that was tuned: its form, dimensions of a prefix, lists. Of another index the profile says nothing.';
UPDATE pgvec.tuning_profiles p SET index_shape = 'full lists=' || coalesce(
    (SELECT (regexp_match(array_to_string(i.reloptions, ' '), 'lists=(\\d+)'))[1]
     FROM pgvec.vector_spaces s JOIN pgvec.collections c ON c.id = s.collection_id
     JOIN pg_catalog.pg_index x ON x.indrelid = to_regclass(format('%I.%I', c.schema_name, s.table_name))
     JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
     JOIN pg_catalog.pg_am a ON a.oid = i.relam AND a.amname = 'ivfflat'
     WHERE s.id = p.space_id LIMIT 1), '100')
WHERE p.index_method = 'ivfflat';

CREATE TABLE pgvec.calibrations (
    space_id      integer PRIMARY KEY REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    exact_us      double precision NOT NULL CHECK (exact_us > 0),
    exact_cold_us double precision CHECK (exact_cold_us > 0),
    scan_us       double precision CHECK (scan_us > 0),
    exponent      double precision CHECK (exponent > 0),
    evidence      jsonb NOT NULL DEFAULT '{}',
    calibrated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgvec.calibrations IS
'What searches of a space cost on this server, in microseconds, and how much more deeper ones must look at.
exact_us: one vector fetched and compared, cached (exact_cold_us: at the first touch). scan_us: one step of the index
setting (ef_search, probes). exponent: to find the first d neighbours as well as the first k takes (d / k) ^ exponent
times the setting.';
"""

# Who may read the catalogue may read its new table: every search does.
GRANTS = """
DO $$ DECLARE reader record; BEGIN
    FOR reader IN SELECT DISTINCT a.grantee FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                  WHERE c.oid = 'pgvec.tuning_profiles'::regclass AND a.privilege_type = 'SELECT' LOOP
        EXECUTE format('GRANT SELECT ON pgvec.calibrations TO %s',
                       CASE reader.grantee WHEN 0 THEN 'PUBLIC' ELSE reader.grantee::regrole::text END);
    END LOOP;
END $$;
"""

# Functions whose signatures this version changes: OR REPLACE would leave the old ones beside the new.
# By name, for their argument types may live in a schema that is not on the path.
DROP_CHANGED = """
DO $$ DECLARE routine regprocedure; BEGIN
    FOR routine IN SELECT oid FROM pg_catalog.pg_proc
                   WHERE pronamespace = 'pgvec'::regnamespace
                     AND proname IN ('create_collection', 'indexes', 'search', 'search_sql', 'recall') LOOP
        EXECUTE format('DROP FUNCTION %s', routine);
    END LOOP;
END $$;
"""

REFUSE_IF_NEEDED = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pgvec.vector_spaces WHERE type = 'vector[]') THEN
        RAISE EXCEPTION 'cannot downgrade: there are vector spaces of type vector[]'
            USING ERRCODE = 'PV005', HINT = 'Drop them first, with pgvec.drop_space(collection, name).';
    END IF;
END $$;
"""

BACK = """
DROP TABLE pgvec.calibrations;
ALTER TABLE pgvec.tuning_profiles DROP COLUMN oversampling, DROP COLUMN index_shape;
ALTER TABLE pgvec.vector_spaces DROP CONSTRAINT vector_spaces_type_check;
ALTER TABLE pgvec.vector_spaces ADD CONSTRAINT vector_spaces_type_check
    CHECK (type IN ('vector', 'halfvec', 'sparsevec', 'bit'));
DELETE FROM pgvec.run_always_sql;
"""


def upgrade() -> None:
    op.execute(DROP_CHANGED)
    op.execute(TABLES)
    op.execute(GRANTS)


def downgrade() -> None:
    op.execute(REFUSE_IF_NEEDED)
    op.execute(DROP_RUN_ALWAYS_SQL)
    op.execute(BACK)
