"""Alembic environment: one transaction, under one advisory lock; at the latest revision the run-always SQL ends it.

Used by `pgvec migrate` (which hands over a connection in `config.attributes`) and
by the `alembic` command from a checkout (which reads `PGVEC_DSN` or libpq's `PG*`).
"""

from __future__ import annotations

from alembic import context
from alembic.util import to_tuple
from sqlalchemy import Connection

from pgvec_toolkit.schema import migrate


def _run(connection: Connection | None) -> None:
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        version_table="alembic_version",
        version_table_schema="pgvec",
        literal_binds=connection is None,
        dialect_opts={"paramstyle": "named"},
        transactional_ddl=True,
    )
    migration = context.get_context()
    with context.begin_transaction():
        if migration.opts.get("dont_mutate"):  # alembic current
            context.run_migrations()
            return
        for statement in migrate.PREPARE:
            context.execute(statement)
        context.run_migrations()
        reached = context.get_revision_argument() if migration.as_sql else migration.get_current_heads()
        if to_tuple(reached, default=()) == context.get_head_revisions():
            migrate.apply_run_always_sql(migration)


if context.is_offline_mode():
    _run(None)
elif "connection" in context.config.attributes:
    _run(context.config.attributes["connection"])
else:
    with migrate.alchemy_engine().connect() as connection:
        _run(connection)
