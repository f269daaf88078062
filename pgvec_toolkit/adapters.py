"""How vectors travel between Python and PostgreSQL: numpy arrays go in, and float32 arrays come out.

numpy is imported when the first vector travels: to connect takes none.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from psycopg.abc import Buffer

_HEAD = struct.Struct(">HH")  # dimensions, unused


def register(connection: psycopg.Connection[Any]) -> None:
    """Register the types of pgvector; sparsevec and bit are loaded as pgvector-python and psycopg have them."""
    from pgvector.psycopg import register_vector

    register_vector(connection)
    adapters = connection.adapters
    vector = adapters.types["vector"]
    adapters.register_dumper("numpy.ndarray", type("VectorDumper", (_Dumper,), {"oid": vector.oid}))
    adapters.register_loader(vector.oid, _Loader)
    adapters.register_loader(vector.oid, _TextLoader)
    halfvec = adapters.types.get("halfvec")
    if halfvec is not None:
        adapters.register_loader(halfvec.oid, _HalfLoader)
        adapters.register_loader(halfvec.oid, _TextLoader)


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: NDArray[Any]) -> Buffer:
        if obj.ndim != 1 or obj.dtype.kind not in "fiub":
            raise psycopg.DataError(f"an array of shape {obj.shape} and type {obj.dtype} is no vector of numbers")
        return _HEAD.pack(len(obj), 0) + obj.astype(">f4").tobytes()


class _Loader(Loader):
    format = Format.BINARY
    wire = ">f4"

    def load(self, data: Buffer) -> NDArray[np.float32]:
        import numpy as np

        return np.frombuffer(data, self.wire, offset=_HEAD.size).astype(np.float32)


class _HalfLoader(_Loader):
    wire = ">f2"


class _TextLoader(Loader):
    format = Format.TEXT

    def load(self, data: Buffer) -> NDArray[np.float32]:
        import numpy as np

        return np.array(bytes(data)[1:-1].split(b","), dtype=np.float32)
