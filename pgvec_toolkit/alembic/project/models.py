"""The models: `alembic revision --autogenerate` compares them with the database."""

from __future__ import annotations

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Index
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What all models have in common."""


class Document(Base):
    """A text and its embedding."""

    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    embedding: Mapped[list[float] | None] = mapped_column(VECTOR(384))

    __table_args__ = (
        Index(
            "ix_documents_embedding",
            "embedding",
            postgresql_using="hnsw",
            postgresql_with={"m": 24, "ef_construction": 200},
            postgresql_ops={"embedding": "vector_cosine_ops"},
        ),
    )
