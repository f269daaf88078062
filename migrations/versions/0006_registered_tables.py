"""Tables of users that are registered as collections.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

from pgvec_toolkit.schema.migrate import DROP_RUN_ALWAYS_SQL

revision = "0006"
down_revision = "0005"

TABLES = """
CREATE TABLE pgvec.registered_tables (
    collection_id   integer PRIMARY KEY REFERENCES pgvec.collections ON DELETE CASCADE,
    relation        regclass NOT NULL UNIQUE,
    home            text NOT NULL,
    key_column      name NOT NULL,
    id_column       name NOT NULL,
    text_column     name,
    metadata_column name,
    attnums         smallint[] NOT NULL CHECK (cardinality(attnums) = 4)
);
COMMENT ON TABLE pgvec.registered_tables IS
'Collections whose chunk table and vector tables are one table of a user''s. home: the schema of its keyword index;
attnums: of the four columns, which are followed if they are called otherwise now.';

ALTER TABLE pgvec.vector_spaces ADD COLUMN embedding_column name, ADD COLUMN embedding_attnum smallint,
    ADD CHECK ((embedding_column IS NULL) = (embedding_attnum IS NULL));
COMMENT ON COLUMN pgvec.vector_spaces.embedding_column IS
'The column of a registered table that holds the vectors; null: column embedding of a narrow table.';
"""

# Who may read collections searches them: the new table is read with each of them.
GRANTS = """
DO $$ DECLARE granted record; BEGIN
    FOR granted IN SELECT DISTINCT a.grantee, a.privilege_type
                   FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                   WHERE c.oid = 'pgvec.collections'::regclass
                     AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') LOOP
        EXECUTE format('GRANT %s ON pgvec.registered_tables TO %s', granted.privilege_type,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END $$;
"""

# Registrations end, the tables stay as they are. What fired the triggers of their keyword indexes is gone by then.
BACK = """
DO $$ DECLARE registered record; BEGIN
    FOR registered IN SELECT c.id, c.name, r.home FROM pgvec.collections c
                      JOIN pgvec.registered_tables r ON r.collection_id = c.id LOOP
        EXECUTE format('DROP TABLE IF EXISTS %1$I.%2$I, %1$I.%3$I', registered.home,
                       registered.name || '_keywords', registered.name || '_lexemes');
        DELETE FROM pgvec.collections c WHERE c.id = registered.id;
    END LOOP;
END $$;
DROP TABLE pgvec.registered_tables;
ALTER TABLE pgvec.vector_spaces DROP COLUMN embedding_column, DROP COLUMN embedding_attnum;
DELETE FROM pgvec.run_always_sql;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(GRANTS)


def downgrade() -> None:
    op.execute(DROP_RUN_ALWAYS_SQL)
    op.execute(BACK)
