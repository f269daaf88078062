"""Vector types: what can be given for one, what is bound as a query, and how it travels in a binary COPY.

Wire formats are those of pgvector's send and receive functions, which version 0.8 and its predecessors share.
"""

from __future__ import annotations

import operator
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pgvector import Bit, HalfVector, SparseVector, Vector

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.errors import ConfigurationError, InvalidRecord

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
_MOST_NON_ZERO = 16_000
_ROW_HEAD = struct.Struct(">hiqi")  # number of fields; length of the key and the key; length of the embedding
_NO_DIRECTION = "is zero: it has no direction, and a cosine index would never find it"
_Number = TypeVar("_Number", bound=np.generic)
_NOT_NUMBERS = (TypeError, ValueError, OverflowError)


class _Unfit(Exception):
    """A value that cannot be stored; its message goes on after "the vector"."""


class VectorType(ABC):
    """A type that the vectors of a space can have.

    Attributes:
        name: in SQL.
        own_operators: whether `=` and `<>` come with pgvector; else they are PostgreSQL's, in pg_catalog.
    """

    name: str
    own_operators = True

    def stack(self, given: Any, dimensions: int, distance: Distance, rows: Sequence[int] | int) -> NDArray[Any]:
        """Return given vectors as the column of a batch, checked.

        Args:
            given: a sequence of vectors, or an array whose first axis is the rows.
            dimensions: of the space.
            distance: by which the space is compared; cosine knows no zero vectors.
            rows: positions in the input, by which errors name a row, or the first of them.

        Raises:
            InvalidRecord: a row is no vector of the space.
        """
        checked = []
        for position, value in enumerate(given):
            try:
                checked.append(self._one(_there(value), dimensions, distance))
            except _Unfit as unfit:
                raise InvalidRecord(_row(rows, position), "vector", str(unfit)) from unfit.__cause__
        column = np.empty(len(checked), dtype=object)
        for position, vector in enumerate(checked):  # at once, numpy would look into them
            column[position] = vector
        return column

    def query(self, value: Any, dimensions: int, distance: Distance) -> Any:
        """Return a query as what psycopg binds in exactly this type: a cast would keep an index from being used.

        Raises:
            ConfigurationError: it is no vector of the space.
        """
        return self._bound(self.one(value, dimensions, distance, "the query vector"))

    def one(self, value: Any, dimensions: int, distance: Distance, called: str = "the vector") -> Any:
        """Return one vector as a batch holds it, checked; errors begin with what it is called.

        Raises:
            ConfigurationError: it is no vector of the space.
        """
        try:
            return self._one(value, dimensions, distance)
        except _Unfit as unfit:
            raise ConfigurationError(f"{called} {unfit}") from unfit.__cause__

    def loaded(self, value: Any) -> Any:
        """Return a vector that was fetched in binary as what `query` returns."""
        return value

    @abstractmethod
    def rows(self, keys: Iterable[int], vectors: NDArray[Any], oid: int = 0) -> bytes:
        """Encode rows (key, embedding) as a binary COPY.

        Args:
            keys: one for each vector.
            vectors: as `stack` returns them.
            oid: of type `vector` in this database; `vector[]` has to name it.
        """

    @abstractmethod
    def _one(self, value: Any, dimensions: int, distance: Distance) -> Any:
        """Return one vector as a batch holds it; raises _Unfit."""

    @abstractmethod
    def _bound(self, vector: Any) -> Any:
        """Return a vector as psycopg binds it."""


class FixedWidth(VectorType):
    """A type of which all vectors of a space have the same size: they are a matrix."""

    @abstractmethod
    def matrix(self, queries: Iterable[Any], dimensions: int) -> NDArray[np.float32]:
        """Return queries, as they are bound, as float32 of shape (n, dimensions): what PostgreSQL compares."""

    @abstractmethod
    def _payload(self, dimensions: int) -> list[tuple[Any, ...]]:
        """Return the fields of an embedding, the last of them `data`."""

    @abstractmethod
    def _encode(self, vectors: NDArray[Any], rows: NDArray[Any]) -> None:
        """Write vectors into the payload of rows."""

    @abstractmethod
    def _decode(self, data: NDArray[Any]) -> NDArray[np.float32]:
        """Return the field `data` of rows as a matrix; bits that fill its last byte may be in it."""

    def rows(self, keys: Iterable[int], vectors: NDArray[Any], oid: int = 0) -> bytes:  # noqa: ARG002
        """Encode rows (key, embedding) as a binary COPY."""
        kind = self._row(vectors.shape[1])
        rows = np.empty(len(vectors), dtype=kind)
        rows["fields"] = 2
        rows["key_length"] = 8
        rows["key"] = np.fromiter(keys, dtype=np.int64, count=len(vectors))
        rows["length"] = kind.itemsize - _ROW_HEAD.size
        self._encode(vectors, rows)
        return HEADER + rows.tobytes() + TRAILER

    def read_rows(
        self, blocks: Iterable[bytes], dimensions: int, rows_per_block: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Decode a binary COPY of (key, embedding) into blocks of (keys, matrix), in constant memory."""
        row = self._row(dimensions)
        pending = bytearray()
        skip = len(HEADER)
        for block in blocks:
            pending += memoryview(block)[skip:] if skip else block
            skip = max(0, skip - len(block))
            if len(pending) >= row.itemsize * rows_per_block:
                whole = len(pending) // row.itemsize * row.itemsize
                yield self._split(bytes(pending[:whole]), row, dimensions)
                del pending[:whole]
        whole = len(pending) // row.itemsize * row.itemsize  # what remains is the trailer
        if whole:
            yield self._split(bytes(pending[:whole]), row, dimensions)

    def _split(self, data: bytes, row: np.dtype[Any], dimensions: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = np.frombuffer(data, dtype=row)
        return rows["key"].astype(np.int64), self._decode(rows["data"])[:, :dimensions]

    def _row(self, dimensions: int) -> np.dtype[Any]:
        head = [("fields", ">i2"), ("key_length", ">i4"), ("key", ">i8"), ("length", ">i4")]
        return np.dtype([*head, *self._payload(dimensions)])


class Dense(FixedWidth):
    """`vector` and `halfvec`: a float for each dimension.

    On the wire: dimensions (int16), unused (int16), the numbers.
    """

    def __init__(self, name: str, wire: str, bound: type[Vector | HalfVector], smallest: float, largest: float) -> None:
        self.name = name
        self._wire = wire
        self._half = bound is HalfVector
        self._smallest = smallest
        self._largest = largest

    def stack(self, given: Any, dimensions: int, distance: Distance, rows: Sequence[int] | int) -> NDArray[np.float32]:
        """Return vectors as one float32 array of shape (n, dimensions), or say which row does not fit."""
        if isinstance(given, np.ndarray) and given.ndim == 2:
            try:
                if given.shape[1] != dimensions:
                    raise _Unfit(f"has {given.shape[1]} dimensions, not {dimensions} dimensions")
                vectors = _floats(given)
            except _Unfit as unfit:
                raise InvalidRecord(_row(rows, 0), "vector", str(unfit)) from unfit.__cause__
        else:
            vectors = self._stack_rows(given, dimensions, rows)
        unfit_row = self._first_unfit(vectors, distance)
        if unfit_row is not None:
            position, problem = unfit_row
            raise InvalidRecord(_row(rows, position), "vector", problem)
        return vectors

    def _stack_rows(self, given: Any, dimensions: int, rows: Sequence[int] | int) -> NDArray[np.float32]:
        shaped = []
        for position, value in enumerate(given):
            if type(value) is np.ndarray and value.dtype == np.float32 and value.shape == (dimensions,):
                shaped.append(value)
                continue
            try:
                shaped.append(_shaped(_floats(_there(value)), dimensions))
            except _Unfit as unfit:
                raise InvalidRecord(_row(rows, position), "vector", str(unfit)) from unfit.__cause__
        return _matrix(shaped, dimensions, np.float32)

    def matrix(self, queries: Iterable[Any], dimensions: int) -> NDArray[np.float32]:
        """Return queries, as they are bound, as float32 of shape (n, dimensions)."""
        return _matrix([_floats(query) for query in queries], dimensions, np.float32)

    def loaded(self, value: Any) -> Any:
        """Return a vector that was fetched in binary as what `query` returns."""
        return self._bound(_floats(value))

    def _one(self, value: Any, dimensions: int, distance: Distance) -> NDArray[np.float32]:
        vector = _shaped(_floats(value), dimensions)
        unfit = self._first_unfit(vector[None], distance)
        if unfit is not None:
            raise _Unfit(unfit[1])
        return vector

    def _first_unfit(self, vectors: NDArray[np.float32], distance: Distance) -> tuple[int, str] | None:
        """Find what an index would silently lose or PostgreSQL refuse: its position, and what is wrong with it."""
        sizes = np.abs(vectors).max(axis=1, initial=0)  # NaN, if there is one in the row
        wrong = np.flatnonzero(~(sizes <= self._largest))
        if len(wrong):
            for position in np.flatnonzero(~np.isfinite(sizes)):
                return int(position), "contains NaN or infinity"
            size = sizes[wrong[0]]
            return int(wrong[0]), f"contains a number of size {size:g}: type {self.name} ends at {self._largest:g}"
        # Half precision makes zero of what is too small for it.
        zero = np.flatnonzero(sizes <= self._smallest)
        return (int(zero[0]), _NO_DIRECTION) if len(zero) and distance is Distance.COSINE else None

    def _bound(self, vector: NDArray[np.float32]) -> Any:
        return HalfVector(vector) if self._half else vector

    def _payload(self, dimensions: int) -> list[tuple[Any, ...]]:
        return [("dimensions", ">i2"), ("unused", ">i2"), ("data", self._wire, (dimensions,))]

    def _encode(self, vectors: NDArray[Any], rows: NDArray[Any]) -> None:
        rows["dimensions"] = vectors.shape[1]
        rows["unused"] = 0
        rows["data"] = vectors

    def _decode(self, data: NDArray[Any]) -> NDArray[np.float32]:
        return data.astype(np.float32)


class Bits(FixedWidth):
    """`bit`: 0 or 1 for each dimension; given as booleans, as 0 and 1, as a text, or as `pgvector.Bit`.

    On the wire: dimensions (int32), the bits, the first of them the highest of its byte.
    """

    name = "bit"
    own_operators = False

    def stack(self, given: Any, dimensions: int, distance: Distance, rows: Sequence[int] | int) -> NDArray[np.uint8]:
        """Return bits as one uint8 array of shape (n, dimensions), or say which row does not fit."""
        if isinstance(given, np.ndarray) and given.ndim == 2 and given.shape[1] == dimensions:
            try:
                return _bits(given)
            except _Unfit:
                pass  # below, the row is found
        found = super().stack(given, dimensions, distance, rows)
        return _matrix(list(found), dimensions, np.uint8)

    def matrix(self, queries: Iterable[Any], dimensions: int) -> NDArray[np.float32]:
        """Return queries, as they are bound, as float32 zeros and ones of shape (n, dimensions)."""
        return _matrix([_bits(query) for query in queries], dimensions, np.float32)

    def loaded(self, value: Any) -> Any:
        """Return bits that were fetched in binary, for which pgvector-python has no loader, as what `query` returns."""
        return value if isinstance(value, Bit) else Bit.from_binary(value)

    def _one(self, value: Any, dimensions: int, distance: Distance) -> NDArray[np.uint8]:  # noqa: ARG002
        return _shaped(_bits(value), dimensions)

    def _bound(self, vector: NDArray[np.uint8]) -> Bit:
        return Bit(vector)

    def _payload(self, dimensions: int) -> list[tuple[Any, ...]]:
        return [("dimensions", ">i4"), ("data", "u1", ((dimensions + 7) // 8,))]

    def _encode(self, vectors: NDArray[Any], rows: NDArray[Any]) -> None:
        rows["dimensions"] = vectors.shape[1]
        rows["data"] = np.packbits(vectors, axis=1)

    def _decode(self, data: NDArray[Any]) -> NDArray[np.float32]:
        return np.unpackbits(data, axis=1).astype(np.float32)


class Sparse(VectorType):
    """`sparsevec`: numbers at some of the dimensions.

    Given as `pgvector.SparseVector`, as {dimension: number} counted from 0, as a row of a scipy matrix, or with
    all its zeros. On the wire: dimensions, number of entries, unused (int32), dimensions from 0 (int32), float4.
    """

    name = "sparsevec"

    def rows(self, keys: Iterable[int], vectors: NDArray[Any], oid: int = 0) -> bytes:  # noqa: ARG002
        """Encode rows (key, embedding) as a binary COPY."""
        return _framed(keys, (vector.to_binary() for vector in vectors))

    def _one(self, value: Any, dimensions: int, distance: Distance) -> SparseVector:
        places, numbers = _entries(value, dimensions)
        wrong = places[(places < 0) | (places >= dimensions)]
        if len(wrong):
            raise _Unfit(f"has an entry at {wrong[0]}: dimensions are counted from 0 to {dimensions - 1}")
        order = places.argsort()
        places, numbers = places[order], numbers[order]
        if (places[1:] == places[:-1]).any():
            raise _Unfit("has two entries at the same dimension")
        if not np.isfinite(numbers).all():
            raise _Unfit("contains NaN or infinity")
        there = np.count_nonzero(numbers)
        if there > _MOST_NON_ZERO:
            raise _Unfit(f"has {there:,} non-zero numbers, and a sparsevec holds {_MOST_NON_ZERO:,}")
        if distance is Distance.COSINE and not there:
            raise _Unfit(_NO_DIRECTION)
        return SparseVector(dict(zip(places.tolist(), numbers.tolist(), strict=True)), dimensions)  # without zeros

    def _bound(self, vector: SparseVector) -> SparseVector:
        return vector


class Several(VectorType):
    """`vector[]`: some vectors a row, one for each token of its text, of which late interaction takes the nearest.

    On the wire: an array of one dimension, its elements each with their length.
    """

    name = "vector[]"
    own_operators = False

    def rows(self, keys: Iterable[int], vectors: NDArray[Any], oid: int = 0) -> bytes:
        """Encode rows (key, embedding) as a binary COPY."""
        return _framed(keys, (_array(vector, oid) for vector in vectors))

    def loaded(self, value: Any) -> Any:
        """Return vectors that were fetched in binary as what `query` returns."""
        return self._bound(value)

    def _one(self, value: Any, dimensions: int, distance: Distance) -> NDArray[np.float32]:
        if isinstance(value, list | tuple):
            value = [_floats(each) for each in value]
            lengths = {each.shape for each in value}
            if len(lengths) > 1:
                raise _Unfit(f"holds vectors of different shapes: {sorted(lengths)}")
        vectors = _floats(value)
        if vectors.ndim and not len(vectors):
            raise _Unfit("holds no vector: at least one is needed")
        if vectors.ndim != 2 or vectors.shape[1] != dimensions:
            raise _Unfit(f"has shape {vectors.shape}, not (number of vectors, {dimensions})")
        if not np.isfinite(vectors).all():
            raise _Unfit("contains NaN or infinity")
        if distance is Distance.COSINE and not vectors.any(axis=1).all():
            raise _Unfit("holds a vector that is zero: it has no direction to compare")
        return vectors

    def _bound(self, vector: NDArray[np.float32]) -> list[Vector]:
        return [Vector(each) for each in vector]


# Half of the smallest half-precision number is rounded to zero.
_TYPES: dict[str, VectorType] = {
    "vector": Dense("vector", ">f4", Vector, 0, float(np.finfo(np.float32).max)),
    "halfvec": Dense("halfvec", ">f2", HalfVector, 2.0**-25, 65504),
    "bit": Bits(),
    "sparsevec": Sparse(),
    "vector[]": Several(),
}


def vector_type(name: str) -> VectorType:
    """Return a vector type by its SQL name."""
    if name not in _TYPES:
        raise ConfigurationError(f"there is no vector type {name!r}: use one of {', '.join(_TYPES)}")
    return _TYPES[name]


def _matrix(vectors: list[NDArray[Any]], dimensions: int, kind: type[_Number]) -> NDArray[_Number]:
    return np.stack(vectors).astype(kind, copy=False) if vectors else np.empty((0, dimensions), dtype=kind)


def _row(rows: Sequence[int] | int, position: int) -> int:
    return rows + position if isinstance(rows, int) else rows[position]


def _there(value: Any) -> Any:
    if value is None:
        raise _Unfit("is missing, while other rows of the batch have it")
    return value


def _array_of(value: Any, kind: DTypeLike) -> NDArray[Any]:
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
            return np.asarray(value, dtype=kind, order="C")
    except _NOT_NUMBERS as error:
        raise _Unfit(f"is not a list of numbers: {error}") from error


def _floats(value: Any) -> NDArray[np.float32]:
    return _array_of(value.to_numpy() if isinstance(value, Vector | HalfVector) else value, np.float32)


def _shaped(vector: NDArray[Any], dimensions: int) -> NDArray[Any]:
    if vector.shape != (dimensions,):
        found = f"{vector.shape[0]} dimensions" if vector.ndim == 1 else f"shape {vector.shape}"
        raise _Unfit(f"has {found}, not {dimensions} dimensions")
    return vector


def _bits(value: Any) -> NDArray[np.uint8]:
    """Return bits, however they are given, as uint8 zeros and ones."""
    if isinstance(value, Bit):
        value = value.to_numpy()
    try:
        given = np.frombuffer(value.encode(), np.uint8) ^ ord("0") if isinstance(value, str) else np.asarray(value)
    except _NOT_NUMBERS as error:
        raise _Unfit(f"is not made of bits: {error}") from error
    if given.dtype.kind not in "biu" and given.size:
        raise _Unfit("is not made of bits: give booleans, 0 and 1, or a text of these")
    if given.dtype.kind != "b" and ((given < 0) | (given > 1)).any():
        raise _Unfit("contains something else than 0 and 1")
    return np.ascontiguousarray(given, dtype=np.uint8)


def _entries(value: Any, dimensions: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the dimensions (from 0) and the numbers of a sparse vector, however it is given."""
    if isinstance(value, Mapping):
        try:  # JSON has texts for keys
            keys = [int(key) for key in value] if isinstance(next(iter(value), 0), str) else value
            named = np.fromiter(map(operator.index, keys), dtype=np.int64, count=len(value))
            return named, _array_of(list(value.values()), np.float32)
        except _NOT_NUMBERS as error:
            raise _Unfit(f"is not a mapping of dimensions, counted from 0, to numbers: {error}") from error
    if isinstance(value, SparseVector):
        shape: tuple[int, ...] = (value.dimensions(),)
        places, numbers = value.indices(), value.values()
    elif hasattr(value, "tocoo"):
        row = value.tocoo(copy=True)
        row.sum_duplicates()
        shape = row.shape[1:] if row.shape[0] == 1 and len(row.shape) == 2 else row.shape
        places, numbers = row.coords[-1] if hasattr(row, "coords") else row.col, row.data
    else:
        dense = _shaped(_floats(value), dimensions)
        return np.flatnonzero(dense), dense[dense != 0]
    if shape != (dimensions,):
        raise _Unfit(f"has {shape[0] if len(shape) == 1 else shape} dimensions, not {dimensions} dimensions")
    return np.asarray(places, dtype=np.int64), _array_of(numbers, np.float32)


def _framed(keys: Iterable[int], embeddings: Iterable[bytes]) -> bytes:
    parts = [HEADER]
    for key, embedding in zip(keys, embeddings, strict=True):
        parts += (_ROW_HEAD.pack(2, 8, key, len(embedding)), embedding)
    return b"".join([*parts, TRAILER])


def _array(vectors: NDArray[np.float32], oid: int) -> bytes:
    """Encode vectors as an array of `vector`."""
    count, dimensions = vectors.shape
    elements = np.empty(
        count,
        dtype=[("length", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("data", ">f4", (dimensions,))],
    )
    elements["length"] = 4 + 4 * dimensions
    elements["dimensions"] = dimensions
    elements["unused"] = 0
    elements["data"] = vectors
    # dimensions of the array, has-nulls flag, element type, length, lower bound
    return struct.pack(">iiIii", 1, 0, oid, count, 1) + elements.tobytes()
