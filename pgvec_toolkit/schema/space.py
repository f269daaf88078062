"""Vector spaces as the catalogue has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import sql

from pgvec_toolkit.distance import Distance
from pgvec_toolkit.embed.base import distance_of, vector_type_of
from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.schema.columns import ColumnType, column_type

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext

    from pgvec_toolkit.embed.base import Embedder
    from pgvec_toolkit.pool import Connection, Pool


class _Text(sql.Composable):
    """A part of a statement that the server has made."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        del context
        return str(self._obj).encode()


@dataclass(frozen=True)
class Space:
    """A vector space of a collection, and its tables; of a registered table both are the user's own.

    Attributes:
        id: in pgvec.vector_spaces.
        name: of the space.
        collection_id: in pgvec.collections.
        schema: of both tables.
        chunk_table: key, id, document_id, position, text, metadata, typed columns, tsv.
        vector_table: key, embedding.
        type: of the vectors: vector, halfvec, bit, sparsevec or vector[].
        dimensions: of the vectors.
        distance: by which they are compared.
        model: name of the embedding model, if any.
        model_fingerprint: what its vectors depend on, hashed.
        vector_schema: where the extension lives.
        column: of the vector table that holds the vectors, quoted if need be.
        registered: whether the tables are one of a user's, which is only read.
        index_stem: how the names of its vector indexes begin.
        read_chunks: what statements read chunks from, as SQL (`pgvec._chunks_sql`).
        read_vectors: what statements read vectors from, as SQL (`pgvec._vectors_sql`).
        model_details: what the model's fingerprint covers, as it was registered.
    """

    id: int
    name: str
    collection_id: int
    schema: str
    chunk_table: str
    vector_table: str
    type: str
    dimensions: int
    distance: Distance
    model: str | None
    model_fingerprint: str | None
    vector_schema: str
    column: str
    registered: bool
    index_stem: str
    read_chunks: str
    read_vectors: str
    model_details: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def chunks(self) -> sql.Identifier:
        """The chunk table, for a statement."""
        return sql.Identifier(self.schema, self.chunk_table)

    @property
    def vectors(self) -> sql.Identifier:
        """The vector table, for a statement."""
        return sql.Identifier(self.schema, self.vector_table)

    @property
    def chunk_rows(self) -> sql.Composable:
        """What chunks are read from, for a statement: a relation with the columns of a chunk table."""
        return _Text(self.read_chunks)

    @property
    def vector_column(self) -> sql.Composable:
        """The column of vectors, for a statement on the vector table."""
        return _Text(self.column)

    @property
    def vector_rows(self) -> sql.Composable:
        """What vectors are read from, for a statement: a relation of (key, embedding)."""
        return _Text(self.read_vectors)

    def columns(self, database: Pool) -> dict[str, str]:
        """Return the typed columns, name to SQL type, in table order."""
        return dict(
            database.fetch(
                'SELECT "column"::text, type FROM pgvec._columns(pgvec._relation($1, $2))',
                [self.schema, self.chunk_table],
            )
        )

    def typed(self, database: Pool) -> dict[str, ColumnType]:
        """Return the typed columns that are loaded: not those that follow a metadata key (see schema/promote.py)."""
        rows = database.fetch("SELECT pgvec._promoted(pgvec._relation($1, $2))::text", [self.schema, self.chunk_table])
        promoted = {name for (name,) in rows}
        return {name: column_type(type) for name, type in self.columns(database).items() if name not in promoted}


def find(database: Pool, collection: str, space: str | None = None) -> Space:
    """Return a space of a collection; without a name, the default one."""
    (
        id,
        name,
        collection_id,
        schema,
        chunks,
        vectors,
        type,
        dimensions,
        distance,
        model,
        fingerprint,
        vector_schema,
        column,
        registered,
        stem,
        read_chunks,
        read_vectors,
        model_details,
    ) = database.fetch_one(
        "SELECT s.id, s.name, c.id, c.schema_name, c.table_name, s.table_name, s.type, s.dimensions, s.distance,"
        " m.name, m.fingerprint, pgvec._vector_schema()::text, pgvec._embedding_column(s),"
        " s.embedding_column IS NOT NULL, pgvec._index_stem(s), pgvec._chunks_sql(c), pgvec._vectors_sql(c, s),"
        " coalesce(m.details, '{}')"
        " FROM pgvec._collection($1) c CROSS JOIN pgvec._space($1, $2) s LEFT JOIN pgvec.models m ON m.id = s.model_id",
        [collection, space],
    )
    return Space(
        id,
        name,
        collection_id,
        schema,
        chunks,
        vectors,
        type,
        dimensions,
        Distance(distance),
        model,
        fingerprint,
        vector_schema,
        column,
        registered,
        stem,
        read_chunks,
        read_vectors,
        model_details,
    )


@dataclass(frozen=True)
class SpaceShape:
    """What a space is created with; None: as SQL chooses it."""

    dimensions: int | None
    type: str | None
    distance: str | None


def distance_for(embedder: Embedder | None, distance: str | None) -> str | None:
    """Return by which distance a registered column is compared; None: as SQL chooses it."""
    return distance or (None if embedder is None else distance_of(embedder))


def check_fits(connection: Connection, collection: str, space: str | None, embedder: Embedder | None) -> None:
    """Raise ConfigurationError unless a registered column can hold the vectors of an embedder."""
    if embedder is not None:
        row = connection.execute("SELECT dimensions, type FROM pgvec._space(%s, %s)", [collection, space]).fetchone()
        assert row is not None
        shape_of(embedder, row[0], row[1], None)


def shape_of(embedder: Embedder | None, dimensions: int | None, type: str | None, distance: str | None) -> SpaceShape:
    """Return what a space for an embedder is created with; ConfigurationError if that is not what was asked for."""
    if embedder is None:
        return SpaceShape(dimensions, type, distance)
    if dimensions not in (None, embedder.dimensions):
        raise ConfigurationError(
            f"embedder {embedder.name} makes {embedder.dimensions} dimensions, not {dimensions}: leave dimensions out"
        )
    own_type, own_distance = vector_type_of(embedder), distance_of(embedder)
    if own_type is None and type not in (None, "vector", "halfvec"):
        raise ConfigurationError(
            f"embedder {embedder.name} makes vectors of numbers: type is vector or halfvec, not {type}"
        )
    if own_type is not None and type not in (None, own_type):
        raise ConfigurationError(f"embedder {embedder.name} makes vectors of type {own_type}, not {type}")
    return SpaceShape(embedder.dimensions, type or own_type, distance or own_distance)
