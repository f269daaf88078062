"""SQLAlchemy's engines for the database that `pgvec` uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Engine, create_engine

from pgvec_toolkit.database import embedded_dsn, resolve_dsn

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_URL = "postgresql+psycopg://"


def engine(dsn: str | None = None, **options: Any) -> Engine:
    """Return an engine for a DSN of libpq, else PGVEC_DSN, else libpq's environment, else the embedded server.

    Args:
        dsn: as `pgvec_toolkit.connect` takes it.
        options: of `sqlalchemy.create_engine`; `connect_args` are those of `psycopg.connect`.
    """
    conninfo = _conninfo(dsn)
    arguments = options.pop("connect_args", {})  # SQLAlchemy ignores them where it is told how to connect
    return create_engine(_URL, creator=lambda: psycopg.connect(conninfo, **arguments), **options)


def async_engine(dsn: str | None = None, **options: Any) -> AsyncEngine:
    """Return what `engine` does, for an event loop; options are those of `create_async_engine`."""
    from sqlalchemy.ext.asyncio import create_async_engine

    conninfo, arguments = _conninfo(dsn), options.pop("connect_args", {})
    return create_async_engine(
        _URL, async_creator=lambda: psycopg.AsyncConnection.connect(conninfo, **arguments), **options
    )


def _conninfo(dsn: str | None) -> str:
    resolved = resolve_dsn(dsn)
    return embedded_dsn() if resolved is None else resolved
