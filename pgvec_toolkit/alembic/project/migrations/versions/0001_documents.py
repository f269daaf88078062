"""Documents, and the index of their embeddings.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import pgvector.sqlalchemy
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_vector_extension()
    op.create_table(
        "documents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("embedding", pgvector.sqlalchemy.VECTOR(384), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_vector_index(
        "ix_documents_embedding",
        "documents",
        "embedding",
        method="hnsw",
        m=24,
        ef_construction=200,
        opclass="vector_cosine_ops",
    )


def downgrade() -> None:
    op.drop_vector_index("ix_documents_embedding", "documents")
    op.drop_table("documents")
