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
    relation_number oid NOT NULL,
    key_column      name NOT NULL,
    id_column       name NOT NULL,
    text_column     name,
    metadata_column name,
    attnums         smallint[] NOT NULL CHECK (cardinality(attnums) = 4)
);
COMMENT ON TABLE pgvec.registered_tables IS
'Collections whose chunk table and vector tables are one table of a user''s. attnums: of the four columns, which are
followed if they are called otherwise now; relation_number: of the table when it was registered. Where a dump was
restored it is another, and columns have other numbers, too.';

ALTER TABLE pgvec.keyword_indexes ADD COLUMN keywords regclass, ADD COLUMN lexemes regclass,
    ADD CHECK ((keywords IS NULL) = (lexemes IS NULL));
COMMENT ON COLUMN pgvec.keyword_indexes.keywords IS
'The tables of the index of a registered table; null: they are called after the chunk table, and in its schema.';

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
DO $$ DECLARE kept record; BEGIN
    FOR kept IN SELECT n.nspname, c.relname FROM pgvec.keyword_indexes i
                JOIN pg_catalog.pg_class c ON c.oid IN (i.keywords, i.lexemes)
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LOOP
        EXECUTE format('DROP TABLE %I.%I', kept.nspname, kept.relname);
    END LOOP;
END $$;
DELETE FROM pgvec.collections c USING pgvec.registered_tables r WHERE c.id = r.collection_id;
ALTER TABLE pgvec.keyword_indexes DROP COLUMN keywords, DROP COLUMN lexemes;
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
