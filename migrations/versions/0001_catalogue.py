"""The catalogue: collections, vector spaces, models, tuning profiles, the ledger.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

from pgvec_toolkit.schema.migrate import DROP_RUN_ALWAYS_SQL

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE pgvec.models (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL,
    fingerprint  text NOT NULL UNIQUE,
    dimensions   integer NOT NULL CHECK (dimensions > 0),
    max_tokens   integer CHECK (max_tokens > 0),
    details      jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgvec.models IS
'Embedding models. fingerprint covers everything that changes a vector: weights, prompts, truncation, normalisation.';

CREATE TABLE pgvec.collections (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    schema_name  text NOT NULL,
    table_name   text NOT NULL,
    language     text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (schema_name, table_name)
);
COMMENT ON TABLE pgvec.collections IS
'Named sets of chunks. Their tables are ordinary tables; their typed columns are whatever columns the table has.';

CREATE TABLE pgvec.vector_spaces (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id integer NOT NULL REFERENCES pgvec.collections ON DELETE CASCADE,
    name          text NOT NULL,
    table_name    text NOT NULL,
    type          text NOT NULL CHECK (type IN ('vector', 'halfvec', 'sparsevec', 'bit')),
    dimensions    integer NOT NULL CHECK (dimensions > 0),
    distance      text NOT NULL,
    model_id      integer REFERENCES pgvec.models,
    is_default    boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection_id, name)
);
CREATE UNIQUE INDEX vector_spaces_default ON pgvec.vector_spaces (collection_id) WHERE is_default;
COMMENT ON TABLE pgvec.vector_spaces IS
'Narrow vector tables of collections: one a model, a type, a dimension and a distance.';

CREATE TABLE pgvec.tuning_profiles (
    space_id      integer NOT NULL REFERENCES pgvec.vector_spaces ON DELETE CASCADE,
    index_method  text NOT NULL CHECK (index_method IN ('hnsw', 'ivfflat')),
    k             integer NOT NULL CHECK (k > 0),
    target_recall double precision NOT NULL CHECK (target_recall > 0 AND target_recall <= 1),
    setting       integer NOT NULL CHECK (setting > 0),
    recall        double precision NOT NULL,
    evidence      jsonb NOT NULL DEFAULT '{}',
    tuned_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, index_method, k)
);
COMMENT ON TABLE pgvec.tuning_profiles IS
'What tune found: the setting (ef_search or probes) that reaches the target recall. Every search reads it.';

CREATE TABLE pgvec.ledger (
    collection_id integer NOT NULL REFERENCES pgvec.collections ON DELETE CASCADE,
    document_id   text NOT NULL,
    content_hash  bytea NOT NULL,
    source        text,
    chunks        integer NOT NULL,
    ingested_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection_id, document_id)
);
COMMENT ON TABLE pgvec.ledger IS
'One row per ingested document, written in the transaction that writes its chunks and vectors.';

CREATE TABLE pgvec.run_always_sql (
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgvec.run_always_sql IS
'Checksum of the functions and views that are installed; one row.';
"""

# Collections outlive nothing here: without the catalogue their tables would be orphans.
REFUSE_IF_IN_USE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pgvec.collections) THEN
        RAISE EXCEPTION 'cannot remove schema pgvec: it still has collections'
            USING ERRCODE = 'PV005',
                  HINT = 'Drop each one first: SELECT pgvec.drop_collection(name) FROM pgvec.collections;';
    END IF;
END $$;
"""

DROP_TABLES = """
DROP TABLE pgvec.run_always_sql, pgvec.ledger, pgvec.tuning_profiles,
           pgvec.vector_spaces, pgvec.collections, pgvec.models;
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute(REFUSE_IF_IN_USE)
    op.execute(DROP_RUN_ALWAYS_SQL)
    op.execute(DROP_TABLES)
