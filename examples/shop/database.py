"""Where the shop's tables are: in the database that `pgvec` uses, PGVEC_DSN or its embedded server."""

from __future__ import annotations

from sqlalchemy.orm import sessionmaker

from pgvec_toolkit import orm

engine = orm.engine()
Session = sessionmaker(engine)
orm.embed_on_flush(Session)  # new and changed descriptions, in the transaction that writes them
