"""Vector columns of models: how they are declared, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Index, Table, event
from sqlalchemy.orm import Mapped, MappedAsDataclass, MappedColumn, mapped_column

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.orm.types import Embedding, made
from pgvec_toolkit.schema.index_specs import MOST_DIMENSIONS, Hnsw, IndexSpec, IvfFlat

HNSW = Hnsw
IVFFlat = IvfFlat
INFO = "pgvec"  # key in `Column.info`


@dataclass(frozen=True)
class EmbeddingInfo:
    """What a model says of a vector column; in `column.info["pgvec"]`.

    Attributes:
        distance: by which its vectors are compared.
        text: the attribute that is embedded; None: vectors come from elsewhere.
        embedder: what makes the vectors; None: that of the registered collection, if there is one.
    """

    distance: Distance
    text: str | None = None
    embedder: Embedder | None = None


def embedding_column(
    dimensions: int,
    type: str = "vector",
    distance: str | None = None,
    index: IndexSpec | None = None,
    *,
    text: str | None = None,
    embedder: Embedder | None = None,
    name: str | None = None,
    **options: Any,
) -> MappedColumn[Any]:
    """Declare a vector column, with its index, for a `Mapped[orm.Embedding]` attribute.

    Args:
        dimensions: of its vectors.
        type: "vector", "halfvec", "sparsevec" or "bit".
        distance: by which they are compared; cosine, for bits hamming, unless told.
        index: `HNSW(...)` or `IVFFlat(lists=...)`, made by `create_all` and seen by Alembic; None: no index.
        text: the attribute whose text it is the embedding of.
        embedder: what makes its vectors of texts.
        name: in the database, if not that of the attribute.
        options: of `sqlalchemy.orm.mapped_column`.
    """
    by = Distance(distance or ("hamming" if type == "bit" else "cosine"))
    if embedder is not None and embedder.dimensions != dimensions:
        raise ConfigurationError(
            f"embedder {embedder.name} makes {embedder.dimensions} dimensions, the column has {dimensions}"
        )
    opclass = by.opclass(type)  # also says whether the distance applies to the type
    options |= {} if name is None else {"name": name}
    mapped: MappedColumn[Any] = mapped_column(type_=made(type, dimensions), **options)
    mapped.column.info[INFO] = EmbeddingInfo(by, text, embedder)
    if index is not None:
        _check_index(index, type, by, dimensions)
        event.listen(mapped.column, "after_parent_attach", _indexing(index, opclass), propagate=True)
    return mapped


def _check_index(index: IndexSpec, type: str, distance: Distance, dimensions: int) -> None:
    if dimensions > MOST_DIMENSIONS[type]:
        raise ConfigurationError(
            f"an index on type {type} holds at most {MOST_DIMENSIONS[type]:,} dimensions, not {dimensions:,}: use "
            "type='halfvec', or index=None and, once it is registered, pgvec index create"
        )
    if isinstance(index, IvfFlat):
        if not distance.supports_ivfflat(type):
            raise ConfigurationError(f"pgvector has no IVFFlat index for type {type} and distance {distance}: use HNSW")
        if index.lists is None:
            raise ConfigurationError("IVFFlat needs lists=…: about a thousandth of the number of rows")


def _indexing(index: IndexSpec, opclass: str) -> Any:
    def attach(column: Column[Any], parent: object) -> None:
        # A copy of a table, as Table.to_metadata makes it, has its indexes copied after its columns, but for those that
        # come from a column's flag.
        if isinstance(parent, Table):
            attached = Index(
                None if "ix" in parent.metadata.naming_convention else f"ix_{parent.name}_{column.name}",
                column,
                postgresql_using=index.method,
                postgresql_with=index.options(0),
                postgresql_ops={column.key: opclass},
                _column_flag=True,
            )
            assert attached.table is parent

    return attach


class Embedded:
    """Mixin of a model of which one text is embedded, in the attribute `embedding`.

        class Product(orm.Embedded, Base, text="description", dimensions=384):
            ...

    Class keywords: `text`, the attribute that is embedded, and `dimensions`; `embedder`, `distance`, `type` and `index`
    as `embedding_column` has them, but for the index, which is HNSW unless told. More vector columns are declared by
    `embedding_column`.
    """

    if TYPE_CHECKING:
        embedding: Mapped[Embedding | None]

    def __init_subclass__(
        cls,
        *,
        text: str | None = None,
        dimensions: int | None = None,
        embedder: Embedder | None = None,
        distance: str | None = None,
        type: str = "vector",
        index: IndexSpec | None = HNSW(),  # noqa: B008  it is frozen
        **options: Any,
    ) -> None:
        if dimensions is None and embedder is not None:
            dimensions = embedder.dimensions
        if dimensions is not None:
            dataclass_options = _DATACLASS if issubclass(cls, MappedAsDataclass) else {}
            column = embedding_column(
                dimensions, type, distance, index, text=text, embedder=embedder, nullable=True, **dataclass_options
            )
            cls.embedding = cast("Mapped[Embedding | None]", column)
            cls.__annotations__["embedding"] = Mapped[Embedding | None]
        elif text is not None:
            raise ConfigurationError(f"class {cls.__name__}: text={text!r} needs dimensions=… or embedder=…")
        super().__init_subclass__(**options)


_DATACLASS: dict[str, Any] = {"default": None, "kw_only": True, "repr": False, "compare": False}
