"""pgvector in a user's own Alembic revisions: operations, and autogenerate that sees vector indexes.

Alembic loads `plugin.py` by itself (entry point group `alembic.plugins`); there is nothing to import but `engine`,
for those whose env.py is to use the database that `pgvec` uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine


def engine(dsn: str | None = None) -> Engine:
    """Return an engine for a DSN, else PGVEC_DSN, else libpq's environment, else the embedded server."""
    from pgvec_toolkit.database import resolve_dsn
    from pgvec_toolkit.schema.migrate import alchemy_engine

    resolved = resolve_dsn(dsn)
    if resolved is None:
        from pgvec_toolkit.embedded import EmbeddedServer

        resolved = EmbeddedServer().start()
    return alchemy_engine(resolved)
