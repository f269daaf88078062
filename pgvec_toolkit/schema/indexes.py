"""Vector indexes: what they are, what they cost, and building one with progress."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError, IndexBuildError, PgvecError
from pgvec_toolkit.progress import Advance, progress_bar

if TYPE_CHECKING:
    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space

_LEAST_MEMORY = 64 * 2**20
_WATCH_INTERVAL = 0.5
_PROGRESS = """
SELECT least(1, coalesce(nullif(tuples_done, 0)::float / nullif(tuples_total, 0),
                         blocks_done::float / nullif(blocks_total, 0)))
FROM pg_stat_progress_create_index WHERE pid = $1
"""


@dataclass(frozen=True)
class Hnsw:
    """An HNSW index: fast and accurate, slow to build.

    Attributes:
        m: links per node and layer, 2 to 100.
        ef_construction: candidates kept while building, 4 to 1000 and at least 2 * m.
    """

    m: int = 16
    ef_construction: int = 64
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

    def build_memory(self, rows: int, dimensions: int) -> int:
        """Return the bytes that the graph takes while it is built in memory.

        From pgvector's structs: an element of 128 bytes with its vector, 16 bytes per neighbour,
        2 * m of them in the lowest layer and m in each above, which a node reaches with probability 1 / m.
        """
        vector = 8 * math.ceil((4 * dimensions + 8) / 8)
        per_row = vector + 136 + (8 + 32 * self.m) + (16 + 16 * self.m) / (self.m - 1)
        return int(rows * per_row)


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
        """Return the storage parameters."""
        if self.lists is not None:
            return {"lists": self.lists}
        return {"lists": max(1, min(32768, round(rows / 1000 if rows <= 1_000_000 else math.sqrt(rows))))}

    def build_memory(self, rows: int, dimensions: int) -> int:
        """Return the bytes that k-means needs: centres, samples, and Elkan's bounds between them."""
        lists = self.options(rows)["lists"]
        samples = min(max(50 * lists, 10_000), max(rows, 1))
        vector = 4 * dimensions + 8
        return lists * vector + samples * vector + 4 * samples * lists + 4 * lists * lists


IndexSpec = Hnsw | IvfFlat


def index_spec(
    method: str, *, m: int | None = None, ef_construction: int | None = None, lists: int | None = None
) -> IndexSpec:
    """Return the index of a method, or say which option does not belong to it."""
    if method == "hnsw":
        if lists is not None:
            raise ConfigurationError("lists belongs to ivfflat; hnsw takes m and ef_construction")
        return Hnsw(
            m=16 if m is None else m,
            ef_construction=max(64, 2 * (m or 0)) if ef_construction is None else ef_construction,
        )
    if method == "ivfflat":
        if m is not None or ef_construction is not None:
            raise ConfigurationError("m and ef_construction belong to hnsw; ivfflat takes lists")
        return IvfFlat(lists)
    raise ConfigurationError(f"unknown index method {method!r}: use hnsw or ivfflat")


@dataclass(frozen=True)
class Index:
    """A vector index that is there.

    Attributes:
        name: its name.
        method: hnsw or ivfflat.
        options: as built, for example ["m=16", "ef_construction=64"].
        valid: whether searches can use it.
        size: bytes on disk.
    """

    name: str
    method: str
    options: list[str]
    valid: bool
    size: int


def build(
    database: Pool,
    space: Space,
    spec: IndexSpec,
    *,
    concurrently: bool = False,
    progress: bool | None = None,
) -> str:
    """Build an index and bring statistics up to date; returns its name.

    The connection is its own and autocommit, and memory is set for its session: with CONCURRENTLY there
    is no transaction that SET LOCAL could belong to. Interrupting it cancels the build on the server.
    """
    if isinstance(spec, IvfFlat) and not space.distance.supports_ivfflat:
        raise ConfigurationError(f"pgvector has no IVFFlat index for distance {space.distance}: use hnsw")
    name = f"{space.vector_table}_{spec.method}"
    with database.dedicated_connection() as connection:
        _lock_out_other_builds(connection, space)
        _refuse_or_clear(connection, space, name)
        rows = _row_count(connection, space)
        _set_memory(connection, spec.build_memory(rows, space.dimensions))
        try:
            with _build_progress(database, connection.info.backend_pid, f"building {name}", progress):
                connection.execute(_create_statement(space, spec, name, rows, concurrently))
        except BaseException as error:
            _drop_invalid(database, space, name)
            if isinstance(error, psycopg.Error):
                raise _explained(error, name) from error
            raise
        forget_profiles(connection, space, spec.method)
        # VACUUM marks pages all-visible, so that filters find their keys in the btree alone.
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(space.chunks))
        connection.execute(sql.SQL("ANALYZE {}").format(space.vectors))
    return name


def _create_statement(space: Space, spec: IndexSpec, name: str, rows: int, concurrently: bool) -> sql.Composed:
    options = [
        sql.SQL("{} = {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in spec.options(rows).items()
    ]
    return sql.SQL(
        "CREATE INDEX {concurrently} {name} ON {table} USING {method} (embedding {opclass}) WITH ({options})"
    ).format(
        concurrently=sql.SQL("CONCURRENTLY" if concurrently else ""),
        name=sql.Identifier(name),
        table=space.vectors,
        method=sql.Identifier(spec.method),
        opclass=sql.Identifier(space.vector_schema, space.distance.opclass),
        options=sql.SQL(", ").join(options),
    )


def _lock_out_other_builds(connection: Connection, space: Space) -> None:
    """Take a lock for this session: an index that another is building looks like a leftover to us."""
    row = connection.execute("SELECT pg_try_advisory_lock(hashtext('pgvec.build_index'), %s)", [space.id]).fetchone()
    if row != (True,):
        raise IndexBuildError(f"another session is building an index on {space.vector_table}: wait for it to end")


def forget_profiles(connection: Connection, space: Space, method: str | None = None) -> None:
    """Delete the tuning profiles of an index that is no longer the one that was measured."""
    connection.execute(
        "DELETE FROM pgvec.tuning_profiles WHERE space_id = %s AND index_method = coalesce(%s, index_method)",
        [space.id, method],
    )


def _refuse_or_clear(connection: Connection, space: Space, name: str) -> None:
    """Refuse a name that is taken; clear away what an interrupted concurrent build left under it."""
    valid = _validity(connection, space, name)
    if valid:
        raise IndexBuildError(f"index {name} exists already: drop it first to build it with other parameters")
    if valid is False:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(space.schema, name)))
    others = connection.execute(
        "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam"
        " WHERE x.indrelid = %s::regclass AND a.amname IN ('hnsw', 'ivfflat')",
        [space.vectors.as_string(connection)],
    ).fetchall()
    if others:
        # The planner would choose by costs that know nothing of recall, and tune could not know which.
        raise IndexBuildError(f"{space.vector_table} has a vector index, {others[0][0]}: drop it first")


def _drop_invalid(database: Pool, space: Space, name: str) -> None:
    """Leave no INVALID index behind; on another connection, since the build's may be gone."""
    # Whatever fails here, the build's own error says more.
    with suppress(psycopg.Error, PgvecError), database.connection() as connection:
        if _validity(connection, space, name) is False:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(space.schema, name)))


def _validity(connection: Connection, space: Space, name: str) -> bool | None:
    """Return whether an index is valid; None if there is none of that name."""
    row = connection.execute(
        "SELECT x.indisvalid FROM pg_index x WHERE x.indexrelid = to_regclass(%s)",
        [sql.Identifier(space.schema, name).as_string(connection)],
    ).fetchone()
    return None if row is None else bool(row[0])


def _row_count(connection: Connection, space: Space) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(space.vectors)).fetchone()
    assert row is not None
    return int(row[0])


def _set_memory(connection: Connection, needed: int) -> None:
    """Set maintenance_work_mem for this session: what the build needs and a seventh more, within reason.

    How much memory the machine has the server does not tell; shared_buffers, usually a quarter of it,
    bounds what is taken. A larger setting that the administrator made stays.
    """
    row = connection.execute(
        "SELECT pg_size_bytes(current_setting('maintenance_work_mem')),"
        " pg_size_bytes(current_setting('shared_buffers'))"
    ).fetchone()
    assert row is not None
    current, bound = row
    wanted = max(current, min(max(int(needed * 1.15), _LEAST_MEMORY), bound))
    connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", [f"{wanted // 1024}kB"])


def _explained(error: psycopg.Error, name: str) -> Exception:
    if isinstance(error, psycopg.errors.DiskFull) and "shared memory" in str(error):
        return IndexBuildError(
            f"index {name} was not built: the server's /dev/shm is smaller than maintenance_work_mem, which a parallel "
            "build takes as one segment. Start the container with a larger --shm-size"
        )
    return IndexBuildError(f"index {name} was not built: {str(error).strip()}")


@contextmanager
def _build_progress(database: Pool, pid: int, description: str, show: bool | None) -> Iterator[None]:
    """Show pg_stat_progress_create_index of another session until the block ends."""
    finished = threading.Event()
    shown = 0.0

    def watch(advance: Advance) -> None:
        nonlocal shown
        while not finished.wait(_WATCH_INTERVAL):
            try:
                row = database.fetch_one(_PROGRESS, [pid])
            except Exception:
                return  # progress is a courtesy: the build itself reports what is wrong
            if row and row[0] is not None and row[0] > shown:
                advance(row[0] - shown)
                shown = row[0]

    with progress_bar(description, 1.0, show) as advance:
        watcher = threading.Thread(target=watch, args=(advance,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()
        advance(1.0 - shown)
