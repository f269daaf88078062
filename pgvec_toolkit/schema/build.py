"""Building vector indexes: with the memory they need, with progress, and with a record of how it went."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import IndexBuildError, PgvecError
from pgvec_toolkit.progress import is_shown, share_bar
from pgvec_toolkit.schema import locks
from pgvec_toolkit.schema.index_specs import Form, Hnsw, IndexSpec, IvfFlat
from pgvec_toolkit.schema.indexes import (
    check_may_forget,
    drop_if_invalid,
    forget_calibration,
    forget_profiles,
    present,
)
from pgvec_toolkit.schema.replacements import clear_replacement

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

    from pgvec_toolkit.pool import Connection, Pool
    from pgvec_toolkit.schema.space import Space

log = logging.getLogger("pgvec_toolkit")
_WATCH_INTERVAL = 0.5
_PATIENCE = 15.0  # seconds to wait for a server that restarts, or for the end of our own lost session
_PROGRESS = "SELECT share, phase, extract(epoch FROM eta)::float8 FROM pgvec.build_progress WHERE pid = $1"
_SPILLED = re.compile(r"graph no longer fits into maintenance_work_mem after (\d+) tuples")
_PLAN = """
SELECT p -> 'options', (p -> 'rows')::bigint, (p -> 'memory')::bigint, (p -> 'disk')::bigint,
       (p ->> 'seconds')::float8, (p -> 'maintenance_work_mem')::bigint, (p -> 'workers')::integer,
       (p -> 'fits')::boolean, (p -> 'impossible')::boolean, p ->> 'note'
FROM pgvec.vector_spaces s,
     pgvec._plans(pgvec._current_space(s), %s::regclass, %s, %s, %s, %s, %s, %s) p
WHERE s.id = %s
"""
_RECORD = """
INSERT INTO pgvec.index_builds (space_id, index_name, method, form, dimensions, options, online, rows, memory_limit,
                                workers, forecast_memory, forecast_bytes, forecast_seconds, seconds, bytes,
                                spilled_after)
SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, pg_relation_size(%s::regclass), %s
"""


@dataclass(frozen=True)
class _Plan:
    """What `pgvec._plans` says of the index to build: bytes, seconds, and whether they are there."""

    options: dict[str, int]
    rows: int
    memory: int
    size: int
    seconds: float | None
    limit: int
    workers: int
    fits: bool
    impossible: bool
    note: str


def build(
    database: Pool,
    space: Space,
    spec: IndexSpec,
    form: Form,
    *,
    name: str | None = None,
    beside: bool = False,
    concurrently: bool | None = None,
    progress: bool | None = None,
    force: bool = False,
) -> str:
    """Build an index, record how it went, and bring statistics up to date; returns its name.

    The connection is its own and autocommit, and memory is set for its session: with CONCURRENTLY there
    is no transaction that SET LOCAL could belong to. Interrupting it cancels the build on the server, and
    killing this process ends it there within a second or two.

    Args:
        database: where.
        space: whose vectors to index.
        spec: its method and parameters.
        form: what it holds of each vector.
        name: its name; None: that of the vector table, or of its column, and the method.
        beside: build it although there is another, whose tuning profiles stay.
        concurrently: let others write meanwhile, which takes longer. None: if others may be using the space:
            it has had an index before, or there are other connections to this database.
        progress: whether to show a bar; None: on a terminal.
        force: build even what does not fit into the memory of the machine.
    """
    name = name or f"{space.index_stem}_{spec.method}"
    with database.dedicated_connection() as connection:
        if not beside:
            check_may_forget(connection, "create_index")
        locks.lock(connection, locks.BUILD, space)
        _refuse_or_clear(connection, space, name, beside)
        plan = _plan(connection, space, spec, form)
        _refuse_or_warn(plan, name, force)
        online = _is_served(database, connection, space) if concurrently is None else concurrently
        _set_up(connection, plan)
        spilled = _heard_spills(connection, plan, name)
        began = time.perf_counter()
        try:
            with build_progress(database, connection.info.backend_pid, f"building {name}", progress):
                connection.execute(_create_statement(space, spec, form, name, plan, online))
        except BaseException as error:
            _drop_invalid(database, connection, space, name)
            if isinstance(error, psycopg.Error):
                raise _explained(error, name) from error
            raise
        seconds = time.perf_counter() - began
        if not beside:
            forget_profiles(connection, space, spec.method)
            forget_calibration(connection, space)
        _record(connection, space, spec, form, name, plan, online, seconds, spilled)
        # VACUUM marks pages all-visible, so that filters find their keys in the btree alone.
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(space.chunks))
        connection.execute(sql.SQL("ANALYZE {}").format(space.vectors))
        locks.unlock(connection, locks.BUILD, space.id)  # a session ends some moments after its connection
    return name


def _refuse_or_clear(connection: Connection, space: Space, name: str, beside: bool) -> None:
    """Refuse what is taken; clear away what interrupted concurrent builds and rebuilds have left."""
    if not beside:
        clear_replacement(connection, space)
    for index in sorted(present(connection, space), key=lambda index: index.name != name):
        other = index.name
        if index.building:
            raise IndexBuildError(f"another session is building {other}: wait for it to end")
        ours = other == name or other.startswith(f"{space.index_stem}_")
        if not index.valid and ours and drop_if_invalid(connection, space.schema, other):
            continue
        if other == name:
            raise IndexBuildError(
                f"index {name} exists already: drop it first, or build it anew while searches go on, with "
                "rebuild_index() or `pgvec index rebuild`"
            )
        elif not beside:
            # The planner would choose by costs that know nothing of recall, and tune could not know which.
            raise IndexBuildError(f"{space.vector_table} has a vector index, {other}: drop it first")


def _plan(connection: Connection, space: Space, spec: IndexSpec, form: Form) -> _Plan:
    counted = connection.execute(sql.SQL("SELECT count(*) FROM {} v").format(space.vector_rows)).fetchone()
    assert counted is not None
    hnsw = spec if isinstance(spec, Hnsw) else Hnsw()
    row = connection.execute(
        _PLAN,
        [
            space.vectors.as_string(connection),
            spec.method,
            form.name,
            form.dimensions if form.name == "prefix" else None,
            Jsonb({"m": hnsw.m, "ef_construction": hnsw.ef_construction}),
            spec.lists if isinstance(spec, IvfFlat) else None,
            counted[0],
            space.id,
        ],
    ).fetchone()
    assert row is not None
    return _Plan(*row)


def _refuse_or_warn(plan: _Plan, name: str, force: bool) -> None:
    if plan.impossible and not force:
        raise IndexBuildError(f"index {name} was not built. {plan.note} force=True, or --force, builds it nevertheless")
    if plan.note:
        log.warning("index %s: %s", name, plan.note)


def _is_served(database: Pool, connection: Connection, space: Space) -> bool:
    """Tell whether others may be using the space."""
    row = connection.execute("SELECT pgvec._served(%s, %s)", [space.id, database.own_processes()]).fetchone()
    return row is not None and row[0] is not None


def _set_up(connection: Connection, plan: _Plan) -> None:
    """Set memory and workers for this session."""
    settings = {
        "maintenance_work_mem": f"{plan.limit // 1024}kB",
        "max_parallel_maintenance_workers": str(plan.workers),
    }
    for setting, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, false)", [setting, value])


def _heard_spills(connection: Connection, plan: _Plan, name: str) -> list[int]:
    """Listen to the server's notices; the list will hold after how many rows memory was full."""
    spilled: list[int] = []

    def hear(diagnostic: Diagnostic) -> None:
        found = _SPILLED.search(diagnostic.message_primary or "")
        if found is None:
            return
        spilled.append(int(found[1]))
        log.warning(
            "index %s: the graph no longer fitted into memory (%s MB) after %s of %s rows: the others go into the "
            "index on disk, slower by far. To build all of it in memory, interrupt this, set maintenance_work_mem "
            "to %s MB if the server has that much (ALTER ROLE ... SET), and build again",
            name,
            plan.limit // 2**20,
            f"{spilled[-1]:,}",
            f"{plan.rows:,}",
            int(1.15 * plan.memory) // 2**20 + 9,
        )

    connection.add_notice_handler(hear)
    return spilled


def _create_statement(
    space: Space, spec: IndexSpec, form: Form, name: str, plan: _Plan, concurrently: bool
) -> sql.Composed:
    options = [
        sql.SQL("{} = {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in plan.options.items()
    ]
    return sql.SQL("CREATE INDEX {concurrently} {name} ON {table} USING {method} ({indexed}) WITH ({options})").format(
        concurrently=sql.SQL("CONCURRENTLY" if concurrently else ""),
        name=sql.Identifier(name),
        table=space.vectors,
        method=sql.Identifier(spec.method),
        indexed=form.indexed(space),
        options=sql.SQL(", ").join(options),
    )


def _drop_invalid(database: Pool, connection: Connection, space: Space, name: str) -> None:
    """Leave no INVALID index behind; if our session is gone, when it has ended and the server is there again.

    Only under the lock: what another session is building is INVALID, too.
    """
    if connection.info.transaction_status == TransactionStatus.ACTIVE:
        # Ctrl-C came when psycopg could not cancel the build itself: it goes on, and its session takes nothing else.
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_PATIENCE / 3)
        connection.close()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        # Whatever fails here, the build's own error says more. What cancelled the build may come late, and cancel this.
        with suppress(psycopg.Error, PgvecError):
            if not connection.closed:  # it has the lock
                drop_if_invalid(connection, space.schema, name)
                return
            with database.dedicated_connection() as another:
                if locks.try_lock(another, locks.BUILD, space.id):
                    drop_if_invalid(another, space.schema, name)
                    return
        time.sleep(0.2)


def _record(
    connection: Connection,
    space: Space,
    spec: IndexSpec,
    form: Form,
    name: str,
    plan: _Plan,
    online: bool,
    seconds: float,
    spilled: list[int],
) -> None:
    """Write the build's row into pgvec.index_builds; a role that may not has its index all the same."""
    built = sql.Identifier(space.schema, name).as_string(connection)
    with suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute(
            _RECORD,
            [
                *(space.id, name, spec.method, form.name, form.dimensions, Jsonb(plan.options), online),
                *(plan.rows, plan.limit, plan.workers, plan.memory, plan.size, plan.seconds, seconds),
                *(built, spilled[0] if spilled else None),
            ],
        )


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
    """Show how far the build of another session is (SQL: `pgvec.build_progress`) until the block ends."""
    if not is_shown(show):
        yield
        return
    finished = threading.Event()

    with share_bar(description, True) as update:

        def watch() -> None:
            while not finished.wait(_WATCH_INTERVAL):
                try:
                    row = database.fetch_one(_PROGRESS, [pid])
                except Exception:
                    return  # progress is a courtesy: the build itself reports what is wrong
                if row is not None and not finished.is_set():
                    update(*row)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join(_WATCH_INTERVAL)  # it may be waiting for a connection of the pool
        update(1.0, "done", None)
