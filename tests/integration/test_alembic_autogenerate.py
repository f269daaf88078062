"""Autogenerate: a revision for every change of a vector index or column, there, back and there again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR

from tests.integration.alembic_project import Project

COSINE = {"embedding": "vector_cosine_ops"}


def hnsw(name: str = "ix", ops: dict[str, str] | None = None, **options: Any) -> sa.Index:
    own = {f"postgresql_{key}": options.pop(key) for key in ("where", "tablespace") if key in options}
    return sa.Index(
        name,
        "embedding",
        postgresql_using="hnsw",
        postgresql_with=options,
        postgresql_ops=COSINE if ops is None else ops,
        **own,
    )


def ivfflat(**options: Any) -> sa.Index:
    return sa.Index("ix", "embedding", postgresql_using="ivfflat", postgresql_with=options, postgresql_ops=COSINE)


def expression(element: Any, opclass: str, method: str = "hnsw", name: str = "expr") -> sa.Index:
    return sa.Index(name, element.label("e"), postgresql_using=method, postgresql_ops={"e": opclass})


def items(
    *more: Any, type: Any = None, nullable: bool = True, schema: str | None = None, name: str = "items"
) -> sa.MetaData:
    metadata = sa.MetaData(schema=schema)
    sa.Table(
        name,
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("price", sa.Integer),
        sa.Column("kind", sa.Text),
        sa.Column("embedding", VECTOR(3) if type is None else type, nullable=nullable),
        *more,
    )
    return metadata


COLUMN = sa.column("embedding")
HALF = sa.cast(COLUMN, HALFVEC(3))
BITS = sa.cast(sa.func.binary_quantize(COLUMN), BIT(3))
PREFIX = sa.cast(sa.func.subvector(COLUMN, 1, 2), VECTOR(2))
WORDS = "(embedding::halfvec(3)) halfvec_l2_ops"
STATES = [
    ("a table with a vector column", items()),
    ("an index", items(hnsw())),
    ("m", items(hnsw(m=24))),
    ("ef_construction", items(hnsw(m=24, ef_construction=200))),
    ("operator class", items(hnsw(ops={"embedding": "vector_l2_ops"}))),
    ("a partial index", items(hnsw(where=sa.text("price > 0 and kind = 'a :b%'")))),
    ("another condition", items(hnsw(where=sa.column("price") >= 10))),
    ("ivfflat", items(ivfflat())),
    ("lists", items(ivfflat(lists=7))),
    ("an index of another kind", items(sa.Index("ix", "price"))),
    ("a btree index beside it", items(hnsw(), sa.Index("by_price", "price"))),
    ("of half precision", items(expression(HALF, "halfvec_l2_ops"))),
    ("of half precision, by cosine", items(expression(HALF, "halfvec_cosine_ops"))),
    ("of bits", items(expression(BITS, "bit_hamming_ops"))),
    ("of the first dimensions", items(expression(PREFIX, "vector_cosine_ops"))),
    ("an expression in words", items(sa.Index("Ex pr", sa.text(WORDS), postgresql_using="hnsw"))),
    ("halfvec(4) of it", items(expression(sa.cast(COLUMN, HALFVEC(4)), "halfvec_l2_ops"), type=VECTOR(4))),
    ("dimensions under an index", items(expression(sa.cast(COLUMN, HALFVEC(5)), "halfvec_l2_ops"), type=VECTOR(5))),
    ("vector to halfvec", items(hnsw(ops={"embedding": "halfvec_cosine_ops"}), type=HALFVEC(5))),
    ("the same index, other dimensions", items(hnsw(), type=VECTOR(6))),
    ("not null, other dimensions", items(hnsw(), type=VECTOR(3), nullable=False)),
    ("vector to bit", items(hnsw(ops={"embedding": "bit_hamming_ops"}), type=BIT(3))),
    ("bit to sparsevec", items(hnsw(ops={"embedding": "sparsevec_l2_ops"}), type=SPARSEVEC(3))),
    ("vectors to text", items(type=sa.Text())),
    ("a column of several vectors", items(sa.Column("several", sa.ARRAY(VECTOR(3))))),
    ("another table", items(hnsw("ix 2"), name="It ems")),
]  # fmt: skip


@pytest.fixture
def project(empty_dsn: str, tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path / "migrations", empty_dsn)
    yield project
    project.close()


@pytest.mark.filterwarnings("ignore:Expression #1 .* detected to include an operator clause")
def test_a_revision_for_every_change_there_and_back_and_there_again(project: Project) -> None:
    before = sa.MetaData()
    for name, model in STATES:
        text = project.autogenerate(model, name)
        assert "op." in text, name
        project.upgrade()
        project.downgrade()
        assert project.differences(before) == [], f"{name}, and back:\n{text}"
        project.upgrade()
        assert project.differences(model) == [], f"{name}, there again:\n{text}"
        project.forget()  # Alembic would load all of them, each time
        before = model
    assert len(STATES) > 20
