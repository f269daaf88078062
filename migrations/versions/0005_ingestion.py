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

CACHE = """
CREATE UNLOGGED TABLE pgvec.embedding_cache (
    model_id  integer NOT NULL,
    text_hash bytea NOT NULL,
    embedding bytea NOT NULL,
    used_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_id, text_hash)
);
ALTER TABLE pgvec.embedding_cache ALTER COLUMN embedding SET STORAGE EXTERNAL;  -- it does not compress
CREATE INDEX embedding_cache_used_at ON pgvec.embedding_cache (used_at);
COMMENT ON TABLE pgvec.embedding_cache IS
'Vectors of texts that were embedded, so that none is embedded twice: text_hash is the SHA-256 of the text. Bounded by
pgvec.cache_embeddings. Unlogged: it costs no WAL, is empty after a crash of the server, and is not on standbys.';
COMMENT ON COLUMN pgvec.embedding_cache.embedding IS
'float32, little-endian; of sparse vectors the binary form of sparsevec.';
COMMENT ON COLUMN pgvec.embedding_cache.used_at IS 'When it was last of use, to the day.';

CREATE TABLE pgvec.embedding_cache_limit (
    keep integer NOT NULL CHECK (keep >= 0)
);
CREATE UNIQUE INDEX embedding_cache_limit_one_row ON pgvec.embedding_cache_limit ((true));
INSERT INTO pgvec.embedding_cache_limit VALUES (100000);
COMMENT ON TABLE pgvec.embedding_cache_limit IS
'How many vectors pgvec.embedding_cache keeps; 0: it is off. One row, set by pgvec.cache_embeddings.';
"""

LIVE_TABLES = ""

MODEL_SWAPS = ""

# Who may read the catalogue may read, and who may write it may write, the new tables.
GRANTS = """
DO $$ DECLARE granted record; BEGIN
    FOR granted IN SELECT DISTINCT t.name, a.grantee, a.privilege_type
                   FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a,
                        unnest(ARRAY['failures', 'histories', 'embedding_cache', 'embedding_cache_limit']) t (name)
                   WHERE c.oid = 'pgvec.ledger'::regclass
                     AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') LOOP
        EXECUTE format('GRANT %s ON pgvec.%I TO %s', granted.privilege_type, granted.name,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END $$;
"""

BACK = """
DROP TABLE pgvec.embedding_cache, pgvec.embedding_cache_limit;
DROP TABLE pgvec.histories, pgvec.failures;
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
