"""Vectors in the models of SQLAlchemy: columns with their indexes, and searches as statements.

class Product(orm.Embedded, Base, text="description", dimensions=384): ...

session.scalars(orm.nearest(Product, query, k=10).where(Product.price < 100))
"""

from pgvec_toolkit.orm.columns import HNSW, Embedded, EmbeddingInfo, IVFFlat, embedding_column
from pgvec_toolkit.orm.engines import async_engine, engine
from pgvec_toolkit.orm.flushing import embed_on_flush
from pgvec_toolkit.orm.hybrid import hybrid
from pgvec_toolkit.orm.nearest import nearest, similar_to
from pgvec_toolkit.orm.registering import register
from pgvec_toolkit.orm.tuning import tuned
from pgvec_toolkit.orm.types import Bit, Embedding, HalfVector, SparseVector, Vector

__all__ = [
    "HNSW",
    "Bit",
    "Embedded",
    "Embedding",
    "EmbeddingInfo",
    "HalfVector",
    "IVFFlat",
    "SparseVector",
    "Vector",
    "async_engine",
    "embed_on_flush",
    "embedding_column",
    "engine",
    "hybrid",
    "nearest",
    "register",
    "similar_to",
    "tuned",
]
