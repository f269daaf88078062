"""Ingestion: failures, versions and history; a cache of embeddings; live tables and their queue; model swaps.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

from pgvec_toolkit.schema.migrate import DROP_RUN_ALWAYS_SQL

revision = "0005"
down_revision = "0004"

LEDGER = """
ALTER TABLE pgvec.ledger ADD COLUMN version integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN pgvec.ledger.version IS
'How many contents the document has had since it was first ingested, this one included.';

CREATE TABLE pgvec.failures (
    collection_id integer NOT NULL REFERENCES pgvec.collections ON DELETE CASCADE,
    document_id   text NOT NULL,
    source        text,
    stage         text NOT NULL CHECK (stage IN ('read', 'chunk', 'embed', 'write')),
    error         text NOT NULL,
    attempts      integer NOT NULL DEFAULT 1,
    payload       jsonb,
    options       jsonb NOT NULL DEFAULT '{}',
    first_at      timestamptz NOT NULL DEFAULT now(),
    last_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection_id, document_id)
);
COMMENT ON TABLE pgvec.failures IS
'Documents that could not be ingested, each with its reason, until they can (pgvec retry) or are given up.';
COMMENT ON COLUMN pgvec.failures.payload IS 'The document, if it came from no file that could be read again.';
COMMENT ON COLUMN pgvec.failures.options IS 'How it was ingested: retry does the same.';
"""

HISTORY = """
CREATE TABLE pgvec.histories (
    collection_id integer PRIMARY KEY REFERENCES pgvec.collections ON DELETE CASCADE,
    since         timestamptz NOT NULL
);
COMMENT ON TABLE pgvec.histories IS
'Collections that keep earlier versions of their chunks and vectors, and how far back these go.';
"""

CACHE = ""

LIVE_TABLES = ""

MODEL_SWAPS = """
CREATE TABLE pgvec.swaps (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id integer NOT NULL REFERENCES pgvec.collections ON DELETE CASCADE,
    from_space_id integer REFERENCES pgvec.vector_spaces ON DELETE SET NULL,
    to_space_id   integer REFERENCES pgvec.vector_spaces ON DELETE SET NULL,
    from_space    text NOT NULL,
    to_space      text NOT NULL,
    from_model    text,
    to_model      text NOT NULL,
    state         text NOT NULL DEFAULT 'backfilling'
        CHECK (state IN ('backfilling', 'indexing', 'tuning', 'comparing', 'ready', 'switched', 'rolled back')),
    comparison    jsonb,
    started_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX swaps_open ON pgvec.swaps (collection_id)
    WHERE from_space_id IS NOT NULL AND to_space_id IS NOT NULL;
COMMENT ON TABLE pgvec.swaps IS
'Swaps of a collection''s model, and how far they are. One is open while both spaces are there.';
"""

# Who may read the catalogue may read, and who may write it may write, the new tables.
GRANTS = """
DO $$ DECLARE granted record; BEGIN
    FOR granted IN SELECT DISTINCT t.name, a.grantee, a.privilege_type
                   FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a,
                        unnest(ARRAY['failures', 'histories', 'swaps']) t (name)
                   WHERE c.oid = 'pgvec.ledger'::regclass
                     AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') LOOP
        EXECUTE format('GRANT %s ON pgvec.%I TO %s', granted.privilege_type, granted.name,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END $$;
"""

BACK = """
DROP TABLE pgvec.swaps, pgvec.histories, pgvec.failures;
ALTER TABLE pgvec.ledger DROP COLUMN version;
DELETE FROM pgvec.run_always_sql;
"""


def upgrade() -> None:
    for part in (LEDGER, HISTORY, CACHE, LIVE_TABLES, MODEL_SWAPS, GRANTS):
        if part:
            op.execute(part)


def downgrade() -> None:
    op.execute(DROP_RUN_ALWAYS_SQL)
    op.execute(BACK)
