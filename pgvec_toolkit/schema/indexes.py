"""Building vector indexes, with progress; and those that are there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError, IndexBuildError, PgvecError
from pgvec_toolkit.progress import Advance, progress_bar
from pgvec_toolkit.schema.index_specs import Form, IndexSpec, IvfFlat
from pgvec_toolkit.schema.replacements import clear_replacement

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
class Index:
    """A vector index that is there.

    Attributes:
        name: its name.
        method: hnsw or ivfflat.
        form: full, halfvec, binary or prefix; other, if it is none that pgvec builds.
        dimensions: that it holds; fewer than the space's for a prefix.
        options: as built, for example ["m=16", "ef_construction=64"].
        valid: whether its build was completed.
        usable: whether searches use it.
        size: bytes on disk.
    """

    name: str
    method: str
    form: str
    dimensions: int
    options: list[str]
    valid: bool
    usable: bool
    size: int


def build(
    database: Pool,
    space: Space,
    spec: IndexSpec,
    form: Form,
    *,
    name: str | None = None,
    beside: bool = False,
    concurrently: bool = False,
    progress: bool | None = None,
) -> str:
    """Build an index and bring statistics up to date; returns its name. Beside: another may be there.

    The connection is its own and autocommit, and memory is set for its session: with CONCURRENTLY there
    is no transaction that SET LOCAL could belong to. Interrupting it cancels the build on the server.
    """
    if isinstance(spec, IvfFlat) and form.name != "binary" and not space.distance.supports_ivfflat(form.type):
        raise ConfigurationError(
            f"pgvector has no IVFFlat index for type {form.type} and distance {space.distance}: use hnsw"
        )
    name = name or f"{space.vector_table}_{spec.method}"
    with database.dedicated_connection() as connection:
        with suppress(psycopg.Error):  # not on every system
            connection.execute("SET client_connection_check_interval = '1s'")
        lock_out_other_builds(connection, space)
        _refuse_or_clear(connection, space, name, beside)
        rows = _row_count(connection, space)
        _set_memory(connection, spec.build_memory(rows, form.vector_bytes))
        try:
            with build_progress(database, connection.info.backend_pid, f"building {name}", progress):
                connection.execute(_create_statement(space, spec, form, name, rows, concurrently))
        except BaseException as error:
            _drop_invalid(database, space, name)
            if isinstance(error, psycopg.Error):
                raise _explained(error, name) from error
            raise
        if not beside:
            forget_profiles(connection, space, spec.method)
        # VACUUM marks pages all-visible, so that filters find their keys in the btree alone.
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(space.chunks))
        connection.execute(sql.SQL("ANALYZE {}").format(space.vectors))
    return name


def _create_statement(
    space: Space, spec: IndexSpec, form: Form, name: str, rows: int, concurrently: bool
) -> sql.Composed:
    options = [
        sql.SQL("{} = {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in spec.options(rows).items()
    ]
    return sql.SQL("CREATE INDEX {concurrently} {name} ON {table} USING {method} ({indexed}) WITH ({options})").format(
        concurrently=sql.SQL("CONCURRENTLY" if concurrently else ""),
        name=sql.Identifier(name),
        table=space.vectors,
        method=sql.Identifier(spec.method),
        indexed=form.indexed(space),
        options=sql.SQL(", ").join(options),
    )


def lock_out_other_builds(connection: Connection, space: Space) -> None:
    """Take a lock for this session: an index that another is building looks like a leftover to us."""
    row = connection.execute("SELECT pg_try_advisory_lock(hashtext('pgvec.build_index'), %s)", [space.id]).fetchone()
    if row != (True,):
        raise IndexBuildError(f"another session is building an index on {space.vector_table}: wait for it to end")


def forget_profiles(connection: Connection, space: Space, method: str | None = None) -> None:
    """End what was measured of an index that is no longer there: tuning profiles become history."""
    connection.execute(
        "UPDATE pgvec.tuning_profiles SET superseded_at = now()"
        " WHERE space_id = %s AND index_method = coalesce(%s, index_method) AND superseded_at IS NULL",
        [space.id, method],
    )
    connection.execute("DELETE FROM pgvec.calibrations WHERE space_id = %s", [space.id])


def _refuse_or_clear(connection: Connection, space: Space, name: str, beside: bool) -> None:
    """Refuse a name that is taken; clear away what an interrupted concurrent build or rebuild left."""
    if not beside:
        clear_replacement(connection, space)
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
    if others and not beside:
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
    if isinstance(error, psycopg.errors.ProgramLimitExceeded) and "non-zero elements" in str(error):
        return IndexBuildError(
            f"index {name} was not built: {error.diag.message_primary}. Keep the 1,000 largest numbers of each vector"
        )
    return IndexBuildError(f"index {name} was not built: {str(error).strip()}")


@contextmanager
def build_progress(database: Pool, pid: int, description: str, show: bool | None) -> Iterator[None]:
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
