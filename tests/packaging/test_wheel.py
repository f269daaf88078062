"""The wheel as a user gets it: built from a copy of the tree, installed without extras, run elsewhere.

What it depends on is not installed anew, which takes 400 MB, but linked to: those packages, and no others.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import psycopg
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
# The caller's settings of Python and of PostgreSQL stay out.
FOREIGN = ("PYTHON", "PYTEST", "VIRTUAL_ENV", "PG")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
ENVIRONMENT |= {"PIP_RETRIES": "10", "PIP_TIMEOUT": "60"}
# pip's warning of a failed connection. A package that is not to be found is a failure, not a reason to skip.
UNREACHABLE = "WARNING: Retrying"


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = ENVIRONMENT | environment
    return subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def run_or_skip(*command: str | Path, cwd: Path) -> None:
    """Run a command that uses pip; skip the test when no package index is to be reached."""
    done = run(*command, cwd=cwd)
    output = done.stdout + done.stderr
    if done.returncode and UNREACHABLE in output:
        pytest.skip(next(line for line in output.splitlines() if UNREACHABLE in line))
    assert done.returncode == 0, output


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Copy the tree, so that no build/ is left in it and none that is there gets into the wheel."""
    copy = tmp_path_factory.mktemp("source") / "tree"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        skipped = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=skipped)
        return copy
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    run_or_skip(sys.executable, "-m", "build", "--outdir", dist, cwd=source)
    assert len(list(dist.glob("*.tar.gz"))) == 1
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Return a folder from which no file of the repository can be imported by accident."""
    return tmp_path_factory.mktemp("elsewhere")


def dependencies(of: Distribution, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """Return the installed distributions that a distribution needs, and those that these need, by name."""
    found: dict[str, Distribution] = {}
    left = [(of, extras)]
    done = set()
    while left:
        each, chosen = left.pop()
        for wanted in map(Requirement, each.requires or ()):
            if wanted.marker and not any(
                wanted.marker.evaluate({**default_environment(), "extra": extra}) for extra in ("", *chosen)
            ):
                continue
            needed = distribution(wanted.name)
            assert wanted.specifier.contains(needed.version, prereleases=True), f"{wanted}: {needed.version}"
            found[needed.name] = needed
            if (step := (needed.name, frozenset(wanted.extras))) not in done:
                done.add(step)
                left.append((needed, step[1]))
    return found


@pytest.fixture(scope="module")
def binaries(wheel, elsewhere):
    """Install the wheel without extras in a new environment, and return the folder of its commands."""
    environment = elsewhere / "venv"
    run_or_skip(sys.executable, "-m", "venv", "--without-pip", environment, cwd=elsewhere)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile", "--no-deps", "--no-index")
    run_or_skip(*pip, wheel, cwd=elsewhere)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", where, cwd=elsewhere).stdout.strip())
    (installed,) = Distribution.discover(name="pgvec-toolkit", path=[str(packages)])
    for needed in dependencies(installed).values():
        for name in {path.parts[0] for path in needed.files or () if path.parts[0] not in ("..", "__pycache__")}:
            (packages / name).symlink_to(needed.locate_file(name))
    return scripts


def test_wheel_brings_one_top_level_name(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {re.sub(r"-[^-]+\.dist-info$", ".dist-info", name) for name in names} == {
        "pgvec_toolkit",
        "pgvec_toolkit.dist-info",
    }


def test_wheel_has_every_file(source, wheel):
    expected = {
        f"{'' if folder == 'pgvec_toolkit' else 'pgvec_toolkit/'}{path.relative_to(source).as_posix()}"
        for folder, pattern in [
            ("pgvec_toolkit", "**/*"),
            ("cli", "**/*.py"),
            ("sql", "**/*"),
            ("migrations", "**/*"),
        ]
        for path in (source / folder).glob(pattern)
        if path.is_file()
    }
    assert {
        "pgvec_toolkit/py.typed",
        "pgvec_toolkit/migrations/env.py",
        "pgvec_toolkit/cli/__init__.py",
    } <= expected
    assert expected - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_importing_needs_neither_torch_nor_the_repository(binaries, elsewhere):
    code = """if True:
        import importlib.util, sys
        import pgvec_toolkit, pgvec_toolkit.cli, pgvec_toolkit.resources
        assert pgvec_toolkit.resources.__file__.startswith(sys.prefix), pgvec_toolkit.resources.__file__
        assert list(pgvec_toolkit.resources.sql_files())
        assert (pgvec_toolkit.resources.migrations_folder() / "env.py").is_file()
        assert list(pgvec_toolkit.resources.demo_handbook().glob("*.md"))
        # Alembic finds the plugin in the metadata of the wheel.
        import alembic.op
        assert callable(alembic.op.create_vector_index)
        assert "models.py" in dict(pgvec_toolkit.resources.project_files())
        found = [name for name in ("torch", "cli", "sql", "migrations") if importlib.util.find_spec(name)]
        assert not found, found
    """
    done = run(binaries / "python", "-c", code, cwd=elsewhere)
    assert done.returncode == 0, done.stderr


def test_command_explains_itself(binaries, elsewhere):
    done = run(binaries / "pgvec", "--help", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "migrate" in done.stdout


def test_migrate(binaries, elsewhere, empty_dsn):
    for _ in range(2):  # the second time there is nothing left to do
        done = run(binaries / "pgvec", "migrate", cwd=elsewhere, PGVEC_DSN=empty_dsn)
        assert done.returncode == 0, done.stderr
    with psycopg.connect(empty_dsn) as connection:
        functions = connection.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('pgvec')"
        ).fetchone()
    assert functions[0] > 0
