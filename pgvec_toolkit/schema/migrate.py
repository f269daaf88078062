"""Bring schema `pgvec` to this library's version: Alembic revisions, then the run-always SQL.

Everything happens in one transaction under one advisory lock, so any number of
processes may migrate at once, and one that is killed leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString, TextIO

import psycopg

from pgvec_toolkit import resources
from pgvec_toolkit.errors import ConfigurationError, NotMigrated

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection, Engine

LOCK_KEY = 0x7067766563  # 'pgvec' in ASCII: any number nobody else is likely to lock
PREPARE = (
    f"SELECT pg_advisory_xact_lock({LOCK_KEY})",
    # Before schema pgvec is there: to a role of that name it is "$user", and the extension would land in it.
    "CREATE EXTENSION IF NOT EXISTS vector",
    "CREATE SCHEMA IF NOT EXISTS pgvec",
)
# Private functions change their signatures freely: OR REPLACE would leave the old ones beside the new.
DROP_PRIVATE = """
DO $$ DECLARE private regprocedure; BEGIN
    FOR private IN SELECT oid FROM pg_catalog.pg_proc
                   WHERE pronamespace = 'pgvec'::regnamespace AND starts_with(proname, '_') LOOP
        EXECUTE format('DROP FUNCTION %s', private);
    END LOOP;
END $$
"""
# What a downgrade does first; the older version then applies its own.
DROP_RUN_ALWAYS_SQL = """
DO $$ DECLARE routine regprocedure; relation regclass; BEGIN
    FOR relation IN SELECT oid FROM pg_catalog.pg_class
                    WHERE relnamespace = 'pgvec'::regnamespace AND relkind = 'v' LOOP
        EXECUTE format('DROP VIEW IF EXISTS %s CASCADE', relation);
    END LOOP;
    FOR routine IN SELECT oid FROM pg_catalog.pg_proc WHERE pronamespace = 'pgvec'::regnamespace LOOP
        EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', routine);
    END LOOP;
END $$;
"""
# The functions name the extension's types; where those live is decided when they are created.
SEARCH_PATH = """
SELECT set_config('search_path', format('pg_catalog, %I', n.nspname), true)
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""


def upgrade(dsn: str, revision: str = "head") -> None:
    """Upgrade the database to a revision and install the run-always SQL if it differs."""
    from alembic import command

    with _plain_errors(), alchemy_engine(dsn).connect() as connection:
        command.upgrade(_config(connection=connection), revision)


def upgrade_within(connection: Connection) -> None:
    """Upgrade in the transaction that a connection of SQLAlchemy is in."""
    from alembic import command
    from sqlalchemy import text

    if _is_current(lambda statement: connection.scalar(text(statement.replace(":", r"\:")))):
        return
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise ConfigurationError(
            f"schema pgvec is brought to this version by psycopg, not by {type(driver).__module__} or asynchronously: "
            "run `pgvec migrate` before, and nothing is left to do here"
        )
    with _plain_errors():
        search_path = connection.scalar(text("SHOW search_path"))
        command.upgrade(_config(connection=connection), "head")
        connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": search_path})


def downgrade(dsn: str, revision: str) -> None:
    """Downgrade the database; `base` removes everything but collections, which it refuses to orphan."""
    from alembic import command

    with _plain_errors(), alchemy_engine(dsn).connect() as connection:
        command.downgrade(_config(connection=connection), revision)


def write_sql(output: TextIO) -> None:
    """Write the whole migration as SQL, for those who may not run anything but reviewed scripts."""
    from alembic import command

    config = _config()
    config.output_buffer = output
    command.upgrade(config, "head", sql=True)


def check(connection: psycopg.Connection) -> None:
    """Raise NotMigrated unless the database is exactly at this library's version."""
    if not is_current(connection):
        raise NotMigrated(
            "schema pgvec is missing, or of another version of pgvec-toolkit: "
            "run `pgvec migrate` (or Database.migrate()) once, as a role that may create schemas and extensions"
        )


def is_current(connection: psycopg.Connection) -> bool:
    """Tell whether the installed run-always SQL is this library's; it is applied last, so it vouches for all."""
    return _is_current(lambda statement: next(iter(connection.execute(statement).fetchone() or ()), None))


def _is_current(scalar: Callable[[LiteralString], Any]) -> bool:
    if scalar("SELECT to_regclass('pgvec.run_always_sql')::text") is None:
        return False
    return bool(scalar("SELECT checksum FROM pgvec.run_always_sql") == resources.sql_checksum())


def apply_run_always_sql(context: MigrationContext) -> None:
    """Apply all files of `sql/` when their checksum differs from the recorded one (called by env.py)."""
    checksum = resources.sql_checksum()
    statements = [
        DROP_PRIVATE,
        SEARCH_PATH,
        *(text for _, text in resources.sql_files()),
        "SELECT pgvec._follow_all_texts()",
        f"DELETE FROM pgvec.run_always_sql; INSERT INTO pgvec.run_always_sql (checksum) VALUES ('{checksum}')",
    ]
    if context.as_sql:
        for statement in statements:
            context.impl.static_output(statement.rstrip().rstrip(";") + ";")
        return
    assert context.connection is not None
    # The files hold several statements and bare `%`: the driver takes them, SQLAlchemy would not.
    driver: psycopg.Connection = context.connection.connection.driver_connection  # type: ignore[assignment]
    if not is_current(driver):
        for statement in statements:
            driver.execute(statement.encode())


def alchemy_engine(dsn: str | None = None) -> Engine:
    """Return an engine that connects by a libpq DSN; none means PGVEC_DSN or libpq's environment."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    conninfo = os.environ.get("PGVEC_DSN", "") if dsn is None else dsn
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo, prepare_threshold=None),  # it may be a transaction pooler's
        poolclass=NullPool,
    )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Let pgvec's errors out, neither SQLAlchemy's nor Alembic's."""
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    from pgvec_toolkit.pool import translated_errors

    with translated_errors():
        try:
            yield
        except CommandError as error:
            raise ConfigurationError(
                f"{error}. If a newer pgvec-toolkit has migrated this database, upgrade yours"
            ) from error
        except psycopg.errors.DependentObjectsStillExist as error:  # the run-always SQL goes past SQLAlchemy
            raise _depended_on(error) from error
        except DBAPIError as error:
            cause = error.orig
            if isinstance(cause, psycopg.errors.InsufficientPrivilege):
                raise ConfigurationError(
                    f"{cause.diag.message_primary}: migrate as a role that may create schemas in this database, "
                    "and the extension vector unless an administrator has created that already"
                ) from error
            if isinstance(cause, psycopg.errors.DependentObjectsStillExist):
                raise _depended_on(cause) from error
            raise cause or error from error


def _depended_on(error: psycopg.Error) -> ConfigurationError:
    return ConfigurationError(
        f"{error.diag.message_primary}: {error.diag.message_detail}. Drop these objects, migrate, create them again"
    )


def _config(**attributes: object) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.migrations_folder()).replace("%", "%%"))
    config.attributes.update(attributes)
    return config
