"""Alembic environment: one transaction, under one advisory lock, that ends with the run-always SQL.

Used by `pgvec migrate` (which hands over a connection in `config.attributes`) and
by the `alembic` command from a checkout (which reads `PGVEC_DSN` or libpq's `PG*`).
"""

from __future__ import annotations

from alembic import context
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
    with context.begin_transaction():
        for statement in migrate.PREPARE:
            context.execute(statement)
        context.run_migrations()
        if not context.config.attributes.get("downgrade"):
            migrate.apply_run_always_sql(context.get_context())


if context.is_offline_mode():
    _run(None)
elif "connection" in context.config.attributes:
    _run(context.config.attributes["connection"])
else:
    with migrate.alchemy_engine().connect() as connection:
        _run(connection)
