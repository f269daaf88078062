"""The run-once SQL of schema `pgvec`: an Alembic environment and its revisions."""
