"""Column types for SQLAlchemy models: pgvector's own, with float32 arrays in and out, checked before they are sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector as HalfVectorValue
from pgvector import SparseVector as SparseVectorValue
from pgvector import Vector as VectorValue
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql import BIT as PG_BIT
from sqlalchemy.types import TypeEngine

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.vectors import vector_type

Embedding = NDArray[np.float32]
_Processor = Callable[[Any], Any]


class Unembedded:
    """A text in the place of a query, which is embedded when the statement runs.

    Args:
        text: the text.
        embed: returns its vector, where the model says by which embedder; None: the database knows.
    """

    def __init__(self, text: str, embed: Callable[[str], Any] | None) -> None:
        self.text = text
        self.embed = embed


def _bound(name: str, dimensions: int | None, value: Any) -> Any:
    """Return a vector in the form that a batch has, or say what is wrong with it, before anything is sent."""
    if isinstance(value, Unembedded) and value.embed is not None:  # of a statement within another one, or of Core
        value = value.embed(value.text)
    elif isinstance(value, Unembedded):
        raise ConfigurationError(
            f"the query is a text, {value.text[:60]!r}, and has not been embedded: run the statement in a Session, or "
            "first give it to orm.tuned(connection, statement); or give the model an embedder"
        )
    if dimensions is None:  # a column of any dimensions
        dimensions = length_of(value)
    return vector_type(name).one(value, dimensions, Distance.HAMMING if name == "bit" else Distance.L2)


def length_of(vector: Any) -> int:
    """Return how many dimensions a vector has, however it is given."""
    return int(vector.dimensions()) if hasattr(vector, "dimensions") else len(vector)


def _text(numbers: NDArray[np.float32]) -> str:
    return f"[{','.join(map(str, numbers.tolist()))}]"


class _Dense:
    """What `Vector` and `HalfVector` have in common."""

    name: str
    dim: int | None

    def bind_processor(self, dialect: Dialect) -> _Processor:  # noqa: ARG002
        def process(value: Any) -> str | None:
            return None if value is None else _text(_bound(self.name, self.dim, value))

        return process

    def literal_processor(self, dialect: Dialect) -> _Processor:  # noqa: ARG002
        return lambda value: "NULL" if value is None else f"'{_text(_bound(self.name, self.dim, value))}'"

    def result_processor(self, dialect: Dialect, coltype: Any) -> _Processor:  # noqa: ARG002
        return _floats

    def compare_values(self, x: Any, y: Any) -> bool:
        return _equal(x, y)


def _floats(value: Any) -> Embedding | None:
    if value is None:
        return None
    if isinstance(value, str):
        return np.fromstring(value[1:-1], dtype=np.float32, sep=",")
    # Where the driver has been taught the types, by pgvector.psycopg.register_vector.
    return np.asarray(value.to_numpy() if isinstance(value, VectorValue | HalfVectorValue) else value, np.float32)


def _equal(x: Any, y: Any) -> bool:
    if x is y or x is None or y is None:
        return x is y
    return bool(np.array_equal(_plain(x), _plain(y)))


def _plain(value: Any) -> Any:
    return value.to_numpy() if hasattr(value, "to_numpy") else value


class Vector(_Dense, VECTOR):
    """Column type `vector`: float32 arrays out; in also lists, arrays of other types and pgvector's own objects."""

    cache_ok = True
    name = "vector"


class HalfVector(_Dense, HALFVEC):
    """Column type `halfvec`: as `Vector`, stored in half precision."""

    cache_ok = True
    name = "halfvec"


class SparseVector(SPARSEVEC):
    """Column type `sparsevec`: `pgvector.SparseVector` out; in also {dimension from 0: number} and rows of scipy."""

    cache_ok = True
    name = "sparsevec"

    def bind_processor(self, dialect: Dialect) -> _Processor:  # noqa: ARG002
        def process(value: Any) -> str | None:
            return None if value is None else str(_bound(self.name, self.dim, value).to_text())

        return process

    def literal_processor(self, dialect: Dialect) -> _Processor:
        bound = self.bind_processor(dialect)
        return lambda value: "NULL" if value is None else f"'{bound(value)}'"

    def result_processor(self, dialect: Dialect, coltype: Any) -> _Processor:  # noqa: ARG002
        return lambda value: SparseVectorValue.from_text(value) if isinstance(value, str) else value

    def compare_values(self, x: Any, y: Any) -> bool:
        return _equal(x, y)


class Bit(BIT):
    """Column type `bit`: arrays of uint8, zeros and ones, out; in also booleans, texts and `pgvector.Bit`."""

    cache_ok = True
    name = "bit"

    def __init__(self, length: int) -> None:
        super().__init__(length)

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Return bits as a text of zeros and ones."""
        if value is None:
            return None
        text = (_bound(self.name, dimensions_of(self), value) + ord("0")).tobytes().decode()
        return super().process_bind_param(text, dialect)

    def process_literal_param(self, value: Any, dialect: Any) -> str:
        """Return bits as they stand in a statement."""
        return str(self.process_bind_param(value, dialect))

    def process_result_value(self, value: Any, dialect: Any) -> NDArray[np.uint8] | None:  # noqa: ARG002
        """Return bits as an array."""
        return None if value is None else np.frombuffer(str(value).encode(), np.uint8) - ord("0")

    def compare_values(self, x: Any, y: Any) -> bool:
        """Return whether two values are the same bits."""
        return _equal(_listed(x), _listed(y))


def _listed(value: Any) -> Any:
    return np.frombuffer(value.encode(), np.uint8) - ord("0") if isinstance(value, str) else value


def vector_type_name(type: TypeEngine[Any]) -> str | None:
    """Return the SQL name of a column's type if it is a vector type, ours or pgvector's."""
    known: dict[str, tuple[Any, ...]] = {
        "vector": (VECTOR,),
        "halfvec": (HALFVEC,),
        "sparsevec": (SPARSEVEC,),
        "bit": (BIT, PG_BIT),
    }
    return next((name for name, kinds in known.items() if isinstance(type, kinds)), None)


def dimensions_of(type: TypeEngine[Any]) -> int | None:
    """Return how many dimensions a column of a vector type has; None if it says nothing."""
    if isinstance(type, BIT):
        type = type.impl_instance
    found = type.length if isinstance(type, PG_BIT) else getattr(type, "dim", None)
    return None if found is None else int(found)


def made(name: str, dimensions: int) -> TypeEngine[Any]:
    """Return the column type of a vector type."""
    kinds: dict[str, Callable[[int], TypeEngine[Any]]] = {
        "vector": Vector,
        "halfvec": HalfVector,
        "sparsevec": SparseVector,
        "bit": Bit,
    }
    if name not in kinds:
        raise ConfigurationError(f"there is no column type {name!r}: use one of {', '.join(kinds)}")
    return kinds[name](dimensions)
