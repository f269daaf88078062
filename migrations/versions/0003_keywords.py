"""Keyword indexes.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

from pgvec_toolkit.schema.migrate import DROP_RUN_ALWAYS_SQL

revision = "0003"
down_revision = "0002"

TABLES = """
CREATE TABLE pgvec.keyword_indexes (
    collection_id integer PRIMARY KEY REFERENCES pgvec.collections ON DELETE CASCADE,
    k1            double precision NOT NULL CHECK (k1 >= 0),
    b             double precision NOT NULL CHECK (b BETWEEN 0 AND 1),
    probe         integer NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgvec.keyword_indexes IS
'Collections with a keyword index (tables <collection>_keywords and <collection>_lexemes, and triggers that keep them)
and its parameters of BM25. k1: how much more a word says the more often it occurs; b: how much the length counts;
probe: the number of a lexeme where the index was built. Another server may number them otherwise.';
"""

# Who may read the catalogue may read its new table, every keyword search does; who makes collections writes it.
GRANTS = """
DO $$ DECLARE reader record; BEGIN
    FOR reader IN SELECT DISTINCT a.grantee, a.privilege_type
                  FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                  WHERE c.oid = 'pgvec.collections'::regclass
                    AND a.privilege_type IN ('SELECT', 'INSERT', 'DELETE') LOOP
        EXECUTE format('GRANT %s ON pgvec.keyword_indexes TO %s', reader.privilege_type,
                       CASE reader.grantee WHEN 0 THEN 'PUBLIC' ELSE reader.grantee::regrole::text END);
    END LOOP;
END $$;
"""

# Its signature changes: OR REPLACE would leave the old one beside the new.
DROP_CHANGED = """
DO $$ DECLARE routine regprocedure; BEGIN
    FOR routine IN SELECT oid FROM pg_catalog.pg_proc
                   WHERE pronamespace = 'pgvec'::regnamespace AND proname = 'create_collection' LOOP
        EXECUTE format('DROP FUNCTION %s', routine);
    END LOOP;
END $$;
"""

# An older version knows nothing of them, and would leave their tables behind when it drops a collection. Without help
# of the functions: a later revision's downgrade has dropped them already.
DROP_KEYWORD_INDEXES = """
DO $$ DECLARE indexed pgvec.collections; BEGIN
    FOR indexed IN SELECT c.* FROM pgvec.keyword_indexes i JOIN pgvec.collections c ON c.id = i.collection_id LOOP
        EXECUTE format('DROP TABLE %1$I.%2$I, %1$I.%3$I', indexed.schema_name, indexed.table_name || '_keywords',
                       indexed.table_name || '_lexemes');
    END LOOP;
END $$;
"""

BACK = """
DROP TABLE pgvec.keyword_indexes;
DELETE FROM pgvec.run_always_sql;
"""


def upgrade() -> None:
    op.execute(DROP_CHANGED)
    op.execute(TABLES)
    op.execute(GRANTS)


def downgrade() -> None:
    op.execute(DROP_KEYWORD_INDEXES)
    op.execute(DROP_RUN_ALWAYS_SQL)
    op.execute(BACK)
