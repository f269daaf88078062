"""What a vector index can be: its method, its form, its parameters; `schema/forecast.py` says what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError

if TYPE_CHECKING:
    from pgvec_toolkit.schema.space import Space

MOST_DIMENSIONS = {"vector": 2000, "halfvec": 4000, "bit": 64_000, "sparsevec": 1_000_000_000}
# Of 63,440 real embeddings of 384 dimensions: 1.5 times the queries per second of pgvector's own 16 and 64 at recall
# 0.95, and 2.5 times at 0.99, for three times the build and a bit more size. `pgvec._checked_options` has the same.
_M, _EF_CONSTRUCTION = 24, 200


@dataclass(frozen=True)
class Form:
    """What an index holds of each vector.

    Attributes:
        name: full; halfvec (of half precision); binary (of the signs, a bit each); prefix (of the first dimensions,
            for Matryoshka embeddings). Of all but the first, searches rescore the candidates by the whole vector.
        type: of what it holds.
        dimensions: of what it holds.
    """

    name: str
    type: str
    dimensions: int

    def indexed(self, space: Space) -> sql.Composed:
        """Return the expression and the operator class, as CREATE INDEX has them."""
        distance = Distance.HAMMING if self.name == "binary" else space.distance
        parts = {
            "schema": sql.Identifier(space.vector_schema),
            "column": space.vector_column,
            "type": sql.Identifier(self.type),
            "dimensions": sql.Literal(self.dimensions),
            "opclass": sql.Identifier(space.vector_schema, distance.opclass(self.type)),
        }
        expression = {
            "full": "{column}",
            "halfvec": "({column}::{schema}.{type}({dimensions}))",
            "binary": "({schema}.binary_quantize({column})::bit({dimensions}))",
            "prefix": "({schema}.subvector({column}, 1, {dimensions})::{schema}.{type}({dimensions}))",
        }[self.name]
        return sql.SQL(expression + " {opclass}").format(**parts)


def index_form(space: Space, name: str | None = None, prefix: int | None = None, method: str = "hnsw") -> Form:
    """Return a form for a space; without a name the first of full, halfvec, binary that can hold its dimensions."""
    if space.type == "vector[]":
        raise ConfigurationError(
            f"vector space {space.name!r} holds several vectors a chunk, which no index orders: it is for rescoring"
        )
    dense = space.type in ("vector", "halfvec")
    if name is None:
        name = "prefix" if prefix is not None else "full"
        if name == "full" and dense and space.dimensions > MOST_DIMENSIONS[space.type]:
            name = "halfvec" if space.dimensions <= MOST_DIMENSIONS["halfvec"] else "binary"
    if name not in ("full", "halfvec", "binary", "prefix"):
        raise ConfigurationError(f"unknown form {name!r}: use full, halfvec, binary or prefix")
    if (prefix is not None) != (name == "prefix"):
        raise ConfigurationError("form prefix goes with prefix=…, the number of leading dimensions to index")
    if (name != "full" and not dense) or (name == "halfvec" and space.type != "vector"):
        raise ConfigurationError(f"form {name} does not apply to a space of type {space.type}")
    if prefix is not None and not 1 <= prefix < space.dimensions:
        raise ConfigurationError(f"prefix must be from 1 to {space.dimensions - 1}, not {prefix}")
    type = {"full": space.type, "prefix": space.type, "halfvec": "halfvec", "binary": "bit"}[name]
    form = Form(name, type, prefix or space.dimensions)
    if form.dimensions > MOST_DIMENSIONS[type]:
        raise ConfigurationError(
            f"an index on type {type} holds at most {MOST_DIMENSIONS[type]:,} dimensions, not {form.dimensions:,}: "
            "leave the form out, or use halfvec, binary or prefix"
        )
    if method == "ivfflat" and name != "binary" and not space.distance.supports_ivfflat(type):
        raise ConfigurationError(
            f"pgvector has no IVFFlat index for type {type} and distance {space.distance}: use hnsw"
        )
    return form


@dataclass(frozen=True)
class Hnsw:
    """An HNSW index: fast and accurate, slow to build.

    Attributes:
        m: links per node and layer, 2 to 100.
        ef_construction: candidates kept while building, 4 to 1000 and at least 2 * m.
    """

    m: int = _M
    ef_construction: int = _EF_CONSTRUCTION
    method = "hnsw"

    def __post_init__(self) -> None:
        if not 2 <= self.m <= 100:
            raise ConfigurationError(f"m must be from 2 to 100, not {self.m}")
        if not max(4, 2 * self.m) <= self.ef_construction <= 1000:
            raise ConfigurationError(
                f"ef_construction must be from {max(4, 2 * self.m)} (twice m) to 1000, not {self.ef_construction}"
            )

    def options(self, rows: int) -> dict[str, int]:
        """Return the storage parameters; they do not depend on the number of rows."""
        del rows
        return {"m": self.m, "ef_construction": self.ef_construction}


@dataclass(frozen=True)
class IvfFlat:
    """An IVFFlat index: quick to build, less accurate; build it when the rows are there.

    Attributes:
        lists: clusters; None for rows / 1000 up to a million rows, their square root beyond.
    """

    lists: int | None = None
    method = "ivfflat"

    def __post_init__(self) -> None:
        if self.lists is not None and not 1 <= self.lists <= 32768:
            raise ConfigurationError(f"lists must be from 1 to 32768, not {self.lists}")

    def options(self, rows: int) -> dict[str, int]:
        """Return the storage parameters (SQL: `pgvec._lists`)."""
        if self.lists is not None:
            return {"lists": self.lists}
        return {"lists": max(1, min(32768, round(rows / 1000 if rows <= 1_000_000 else math.sqrt(rows))))}


IndexSpec = Hnsw | IvfFlat


def index_spec(
    method: str, *, m: int | None = None, ef_construction: int | None = None, lists: int | None = None
) -> IndexSpec:
    """Return the index of a method, or say which option does not belong to it."""
    if method == "hnsw":
        if lists is not None:
            raise ConfigurationError("lists belongs to ivfflat; hnsw takes m and ef_construction")
        return Hnsw(
            m=_M if m is None else m,
            ef_construction=max(_EF_CONSTRUCTION, 2 * (m or 0)) if ef_construction is None else ef_construction,
        )
    if method == "ivfflat":
        if m is not None or ef_construction is not None:
            raise ConfigurationError("m and ef_construction belong to hnsw; ivfflat takes lists")
        return IvfFlat(lists)
    raise ConfigurationError(f"unknown index method {method!r}: use hnsw or ivfflat")
