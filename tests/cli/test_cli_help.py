"""The command line explains itself: its help, its options from the environment."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from pgvec_toolkit.cli import app, main
from typer.main import get_command
from typer.testing import CliRunner

from tests.cli.outcome import Run

COMMANDS = {
    *("demo", "up", "down", "status", "migrate", "psql", "ingest", "search", "delete", "tune", "recall", "profiles"),
    *(
        "similar",
        "explain",
        "calibrate",
        "eval",
        "advise",
        "watch",
        "log",
        "doctor",
        "prewarm",
        "sync",
        "failures",
        "retry",
        "upsert",
        "init",
        "attach",
        "detach",
        "attachments",
        "worker",
    ),
    *("collection create", "collection list", "collection promote", "collection show", "collection drop"),
    *("collection register", "collection unregister"),
    *("collection add-space", "collection drop-space", "collection embed"),
    *("index create", "index plan", "index builds", "index list", "index rebuild", "index drop"),
    *("index create-keyword", "index drop-keyword"),
    *("history on", "history off", "history versions", "history search", "history restore", "purge"),
    *("models", "models export"),
    *("model swap", "model status", "model switch", "model rollback", "model drop"),
}


def _commands() -> Iterator[tuple[str, Any, Any]]:
    def walk(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            below = type(context)(inner, parent=context, info_name=name, **inner.context_settings)
            if hasattr(inner, "commands"):
                assert inner.help
                yield from walk(inner, below)
            if not hasattr(inner, "commands") or inner.invoke_without_command:
                yield below.command_path.removeprefix("pgvec "), inner, below

    root = get_command(app)
    yield from walk(root, root.context_class(root, info_name="pgvec", **root.context_settings))


def test_the_commands_are_these() -> None:
    assert {path for path, *_ in _commands()} == COMMANDS


@pytest.mark.parametrize(("path", "command", "context"), list(_commands()), ids=lambda value: str(value)[:30])
def test_everything_is_explained_and_can_come_from_the_environment(path: str, command: Any, context: Any) -> None:
    assert command.help
    shown = CliRunner().invoke(app, [*path.split(), "--help"], terminal_width=400, env={"COLUMNS": "400"})
    assert shown.exit_code == 0
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", shown.stdout).split())
    for parameter in command.params:
        for default in re.findall(r"\[default: [^]]+]", parameter.help or ""):
            assert default in words, parameter.name
        if parameter.param_type_name == "argument":
            assert parameter.help, parameter.name
            continue
        assert parameter.help, parameter.name
        variable = parameter.envvar or f"{context.auto_envvar_prefix}_{parameter.name.upper()}"
        assert variable.startswith("PGVEC_")
        assert re.search(rf"\[env var: {variable}[];]", words), parameter.name


def test_an_option_comes_from_the_environment(docs: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVEC_SEARCH_K", "3")
    monkeypatch.setenv("PGVEC_SEARCH_WHERE", '{"section": "kitchen"}')
    hits = docs("search", "docs", "credentials", "--json").json
    assert [hit["metadata"]["section"] for hit in hits] == ["kitchen"] * 3
    assert len(docs("search", "docs", "credentials", "-k", "2", "--json").json) == 2


@pytest.mark.parametrize("arguments", [["--help"], ["collection", "create", "--help"], ["search", "-h"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from pgvec_toolkit.cli import main
sys.argv = ['pgvec', *{arguments!r}]
try:
    main()
finally:
    heavy = {{'torch', 'numpy', 'sqlalchemy', 'alembic', 'psycopg', 'psycopg_pool', 'pgvector', 'transformers'}}
    print(*heavy & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert "Usage" in done.stdout


def test_the_app_is_the_console_script() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="pgvec")
    assert script.load() is main
    assert isinstance(app, typer.Typer)
