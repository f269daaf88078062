"""The models: `alembic revision --autogenerate` compares them with the database."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgvec_toolkit import orm


class Base(DeclarativeBase):
    """What all models have in common."""


class Document(orm.Embedded, Base, text="text", dimensions=384):
    """A text, and in attribute `embedding` its embedding, with an HNSW index."""

    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
