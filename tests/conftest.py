"""Every test that needs PostgreSQL gets a database of its own, cloned from a template that is migrated once.

The server is the embedded one, in a throw-away home: as root it runs as a user of its own, as anybody
else it runs as that user. Set PGVEC_TEST_DSN to use another server (a superuser's DSN, one with pgvector).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor

from pgvec_toolkit.database import Database
from pgvec_toolkit.embedded import EmbeddedServer
from pgvec_toolkit.schema import migrate
from tests.words import WordEmbedder

# A test's connection is what its fixture says, never what the developer's shell says.
_KEPT = (
    "PGVEC_TEST_DSN",
    "PGVEC_FUZZ",
    "PGVEC_FUZZ_SEED",
    "PGVEC_KEYWORD_SECONDS",
    "PGVEC_INTERRUPTIONS",
    "PGVEC_MIXED_FILES",
    "PGVEC_KILLS",
    "PGVEC_CANCELLATIONS",
    "PGVEC_SEARCHES",
)
for name in [name for name in os.environ if name.startswith("PG") and name not in _KEPT]:
    del os.environ[name]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PGVEC_SHARED_BUFFERS"] = "128MB"
# Tests run side by side: with a thread a core, torch would spin while it waits for a core that another test has.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A PostgreSQL server with pgvector: conninfo of a superuser."""
    if given := os.environ.get("PGVEC_TEST_DSN"):
        yield given
        return
    # Not pytest's tmp_path: as root that one is closed to the server's user, and its name is long for a socket.
    home = Path(tempfile.mkdtemp(prefix="pgvec-test-", dir=_memory()))
    home.chmod(0o711)
    server = EmbeddedServer(home)
    try:
        started = server.start()
        with psycopg.connect(started, autocommit=True) as connection:
            # Nothing here has to outlive a crash of the machine, and each test makes a database.
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
            connection.execute("ALTER SYSTEM SET autovacuum_naptime = '1d'")  # on, but not in the middle of a test
            connection.execute("SELECT pg_reload_conf()")
            # The same password, but hashed once instead of 4,096 times by each of thousands of connections.
            connection.execute("SET scram_iterations = 1")
            connection.execute(
                sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(str(_password(conninfo_to_dict(started))))
            )
        yield started
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


def _memory() -> str | None:
    """Return a folder in memory, if there is a large one: a database is 424 files, made in a tenth of a disk's time."""
    folder = "/dev/shm"
    roomy = os.path.isdir(folder) and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 4 << 30
    return folder if roomy else None


def _password(parameters: Mapping[str, object]) -> str | None:
    password = parameters.get("password")
    if not password and (passfile := parameters.get("passfile")):
        password = Path(str(passfile)).read_text().strip().rpartition(":")[2]
    return str(password) if password else None


@pytest.fixture(scope="session")
def janitor(server_dsn: str) -> Iterator[Callable[..., DatabaseJanitor]]:
    """Makes janitors, which create and drop databases, all through one connection."""
    parameters = conninfo_to_dict(server_dsn)

    class Janitor(DatabaseJanitor):
        @contextmanager
        def cursor(self, dbname: str | None = None) -> Iterator[psycopg.Cursor]:
            assert dbname is None
            with administrator.cursor() as cursor:
                yield cursor

        def _build_create_database_sql(self) -> sql.Composed:
            # Copied as files, a template costs a third of what it costs page by page through the WAL.
            built = super()._build_create_database_sql()
            return built + sql.SQL(" STRATEGY file_copy") if self.template_dbname else built

    def make(name: str, template: str | None = None, *, as_template: bool = False) -> DatabaseJanitor:
        return Janitor(
            user=str(parameters.get("user") or ""),
            host=str(parameters.get("host") or ""),
            port=str(parameters.get("port") or 5432),
            password=_password(parameters),
            dbname=name,
            template_dbname=template,
            maintenance_dbname=str(parameters.get("dbname") or "postgres"),
            as_template=as_template,
        )

    with psycopg.connect(server_dsn, autocommit=True) as administrator:
        yield make


@pytest.fixture(scope="session")
def template(server_dsn: str, janitor: Callable[..., DatabaseJanitor]) -> Iterator[str]:
    """Name of a migrated database, to clone."""
    name = f"pgvec_template_{os.getpid()}"
    with janitor(name, as_template=True):
        migrate.upgrade(make_conninfo(server_dsn, dbname=name))
        yield name


@pytest.fixture
def database_name(request: pytest.FixtureRequest) -> str:
    """A name for the test's database."""
    return re.sub(r"\W+", "_", f"t_{os.getpid()}_{request.node.name}".lower())[:60]


@pytest.fixture
def empty_dsn(server_dsn: str, database_name: str, janitor: Callable[..., DatabaseJanitor]) -> Iterator[str]:
    """An empty database: no extension, no schema pgvec."""
    with janitor(database_name):
        yield make_conninfo(server_dsn, dbname=database_name)


@pytest.fixture
def origin(template: str) -> str:
    """Name of the database that the test's own is cloned from; overridden where many tests begin with the same rows."""
    return template


@pytest.fixture
def dsn(server_dsn: str, origin: str, database_name: str, janitor: Callable[..., DatabaseJanitor]) -> Iterator[str]:
    """A migrated database, without collections unless `origin` has some."""
    with janitor(database_name, origin):
        yield make_conninfo(server_dsn, dbname=database_name)


@pytest.fixture
def db(dsn: str) -> Iterator[Database]:
    """A migrated database, connected."""
    with Database(dsn) as database:
        yield database


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    """A plain psycopg connection to the same database, as a SQL user has it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def embedder() -> WordEmbedder:
    """An embedder that needs no model."""
    return WordEmbedder()


def random_vectors(count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    """Clustered unit vectors, of shape (count, dimensions): as hard for an index as real ones are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(4, count // 100), dimensions))
    vectors = centres[random.integers(len(centres), size=count)] + 0.6 * random.normal(size=(count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def vectors() -> Callable[..., NDArray[np.float32]]:
    """Makes vectors: vectors(count, dimensions, seed)."""
    return random_vectors


@pytest.fixture(scope="session")
def commands_made_once() -> Iterator[None]:
    """Keep the commands of `pgvec`: typer makes them of the functions at each call, in a tenth of a second."""
    from typer import main, testing

    kept = functools.cache(main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "get_command", kept)
        patch.setattr(testing, "_get_command", kept)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets; absent on most machines."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data sets in {SHARED_DATA}")
    return SHARED_DATA
