"""The files in docker/: what would break a user, found without a Docker engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"


def with_defaults(text: str) -> str:
    """Put in place of every ${NAME:-default} its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def size(text: str) -> int:
    """Return the bytes of a size such as `2gb`, which Docker and PostgreSQL both read as 1024³."""
    number, unit = re.fullmatch(r"(\d+)([kmg])b", text.lower()).groups()
    return int(number) * 1024 ** ("kmg".index(unit) + 1)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(with_defaults(COMPOSE.read_text()))["services"]


@pytest.fixture(scope="module")
def settings(services) -> dict[str, str]:
    command = services["postgres"]["command"]
    assert command[0] == "postgres"
    assert set(command[1::2]) == {"-c"}
    return dict(setting.split("=", 1) for setting in command[2::2])


def test_pgvector_has_no_known_advisory(services):
    """Keep out CVE-2026-3172 (before 0.8.2), CVE-2026-18022 (before 0.8.6) and issue 1036 (before 0.8.7)."""
    name, version, postgres = re.fullmatch(
        r"(pgvector/pgvector):([\d.]+)-pg(\d+)(?:-\w+)?", services["postgres"]["image"]
    ).groups()
    assert name == "pgvector/pgvector"
    assert tuple(map(int, version.split("."))) >= (0, 8, 7)
    assert int(postgres) == 18


def test_data_survives_the_container(services):
    """Expect the volume where PostgreSQL 18 images have it; at …/data, as before, they refuse to start."""
    assert services["postgres"]["volumes"] == ["data:/var/lib/postgresql"]
    assert "data" in yaml.safe_load(COMPOSE.read_text())["volumes"]


def test_parallel_index_build_fits_shared_memory(services, settings):
    assert size(services["postgres"]["shm_size"]) > size(settings["maintenance_work_mem"])


def test_settings_are_known_to_the_server(settings, empty_dsn):
    with psycopg.connect(empty_dsn) as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM pg_settings")}
    assert set(settings) <= known


def test_healthcheck_waits_for_the_real_server(services):
    kind, test = services["postgres"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    assert test.startswith("pg_isready -h 127.0.0.1 ")
    assert services["pgvec"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "\nHEALTHCHECK " in DOCKERFILE.read_text()


def test_no_password_is_written_down(services):
    raw = yaml.safe_load(COMPOSE.read_text())["services"]
    secrets = {
        (service, name): value
        for service in raw
        for name, value in raw[service].get("environment", {}).items()
        if "PASS" in name
    }
    assert set(secrets) == {("postgres", "POSTGRES_PASSWORD"), ("pgvec", "PGPASSWORD")}
    for value in secrets.values():
        assert value.startswith("${POSTGRES_PASSWORD:?")
    assert "POSTGRES_HOST_AUTH_METHOD" not in services["postgres"]["environment"]


def test_port_is_open_to_this_machine_only(services):
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_dockerfile_runs_as_an_ordinary_user():
    assert re.findall(r"^USER (.+)$", DOCKERFILE.read_text(), re.MULTILINE)[-1:] == ["pgvec"]


def ignored(path: str) -> bool:
    """Decide as Docker does: the last pattern of .dockerignore that matches the path or a folder above it."""
    parts = PurePosixPath(path).parts
    answer = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = PurePosixPath(pattern.removeprefix("!")).parts
        anywhere, wanted = wanted[0] == "**", wanted[wanted[0] == "**" :]
        for start in range(len(parts) if anywhere else 1):
            part = parts[start : start + len(wanted)]
            if len(part) == len(wanted) and all(map(fnmatchcase, part, wanted)):
                answer = not pattern.startswith("!")
    return answer


def test_copied_files_exist_and_reach_the_builder():
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE.read_text(), re.MULTILINE)
        if not line.startswith("--from")
        for source in line.split()[:-1]
    ]
    assert "pyproject.toml" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        files = [path for path in (ROOT / source).rglob("*") if path.is_file()] or [ROOT / source]
        for file in files:
            relative = file.relative_to(ROOT).as_posix()
            assert ignored(relative) == ("__pycache__" in relative), relative


@pytest.mark.parametrize("path", [".git/config", ".venv/pyvenv.cfg", "docker/.env", ".env", "tests/x.py"])
def test_nothing_else_reaches_the_builder(path):
    assert ignored(path)


def test_compose_accepts_the_file():
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("needs the docker command with its compose plugin")

    def config(**environment: str) -> subprocess.CompletedProcess[str]:
        rest = {name: value for name, value in os.environ.items() if not name.startswith("POSTGRES_")}
        # A developer's own docker/.env should not decide.
        options = ["-f", COMPOSE, "--env-file", os.devnull, "--profile", "tools"]
        command = [docker, "compose", *options, "config", "--quiet"]
        return subprocess.run(command, env=rest | environment, capture_output=True, text=True)

    accepted = config(POSTGRES_PASSWORD="secret")
    assert accepted.returncode == 0, accepted.stderr
    refused = config()
    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD" in refused.stderr
