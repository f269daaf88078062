"""pgvector in a user's own Alembic revisions: operations, and autogenerate that sees vector indexes.

Alembic loads `plugin.py` by itself (entry point group `alembic.plugins`): there is nothing to import.
"""
