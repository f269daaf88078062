"""Alembic's environment: the models' tables, in the database that `pgvec` uses.

That is PGVEC_DSN, or libpq's PG* variables, else the embedded server. Schema pgvec has a version table of its own and
is left alone, as are the tables of collections: pgvec-toolkit's Alembic plugin sees to that.
"""

from __future__ import annotations

from logging.config import fileConfig

from alembic import context
from models import Base
from sqlalchemy import NullPool

from pgvec_toolkit import orm

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        target_metadata=Base.metadata,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    # A transaction a revision: one that builds an index CONCURRENTLY has to leave its own.
    with orm.engine(poolclass=NullPool).connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
