"""Writing a revision into a user's Alembic project."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import util
from alembic.autogenerate import render_python_code
from alembic.config import Config
from alembic.operations import MigrateOperation, ops
from alembic.script import ScriptDirectory

from pgvec_toolkit.alembic.collection_operations import CallOp, MigratePgvecOp
from pgvec_toolkit.errors import ConfigurationError

if TYPE_CHECKING:
    from pgvec_toolkit.embed.base import Embedder


def write_collection(
    config: Path,
    name: str,
    *,
    head: str = "head",
    embedder: Embedder | str | None = None,
    dimensions: int | None = None,
    type: str | None = None,
    distance: str | None = None,
    columns: dict[str, Any] | None = None,
    language: str = "english",
    schema: str = "public",
    keywords: bool = True,
) -> Path:
    """Write a revision that creates a collection, as Database.create_collection does; returns its file."""
    from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER
    from pgvec_toolkit.schema.columns import sql_types

    if embedder is None and dimensions is None:
        embedder = DEFAULT_EMBEDDER
    shape, model = _shape(embedder, dimensions, type, distance)
    others = {"columns": sql_types(columns or {}) or None, "language": language, "schema": schema}
    creation = CallOp.creation(name, {**shape, **others, "keywords": keywords}, model)
    return _write(config, head, f"create collection {name}", [MigratePgvecOp(), creation])


def write_space(
    config: Path,
    collection: str,
    name: str,
    *,
    head: str = "head",
    embedder: Embedder | str | None = None,
    dimensions: int | None = None,
    type: str | None = None,
    distance: str | None = None,
) -> Path:
    """Write a revision that adds a vector space to a collection; returns its file."""
    shape, model = _shape(embedder, dimensions, type, distance)
    addition = CallOp.space_addition(collection, name, shape, model)
    return _write(config, head, f"add vector space {name} to {collection}", [MigratePgvecOp(), addition])


def write_registration(
    config: Path, relation: str, *, head: str = "head", embedder: Embedder | str | None = None, **options: Any
) -> Path:
    """Write a revision that registers a table, with the options of Database.register_table; returns its file."""
    usual = {"embedding": "embedding", "space": "dense", "language": "english", "keywords": False}
    told = {name: None if value == usual.get(name) else value for name, value in options.items()}
    registration = CallOp.registration({"relation": relation, **told}, _entry(_loaded(embedder)))
    return _write(config, head, f"register table {relation}", [MigratePgvecOp(), registration])


def _shape(
    embedder: Embedder | str | None, dimensions: int | None, type: str | None, distance: str | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from pgvec_toolkit.schema import space as spaces

    loaded = _loaded(embedder)
    shape = spaces.shape_of(loaded, dimensions, type, distance)
    return {"dimensions": shape.dimensions, "type": shape.type, "distance": shape.distance}, _entry(loaded)


def _loaded(embedder: Embedder | str | None) -> Embedder | None:
    from pgvec_toolkit.embed import kinds

    return kinds.load(embedder) if isinstance(embedder, str) else embedder


def _entry(embedder: Embedder | None) -> dict[str, Any] | None:
    from pgvec_toolkit.embed import registry

    return None if embedder is None else registry.entry(embedder)


def _write(config: Path, head: str, message: str, operations: list[MigrateOperation]) -> Path:
    if not config.is_file():
        raise ConfigurationError(
            f"there is no {config}: name the Alembic project's alembic.ini, or make one: pgvec init"
        )
    quiet = Namespace(quiet=True)  # it would print that it is writing, to standard output
    options = Config(toml_file=config, cmd_opts=quiet) if config.suffix == ".toml" else Config(config, cmd_opts=quiet)
    undone = [each.reverse() for each in reversed(operations) if not isinstance(each, MigratePgvecOp)]
    try:
        script = ScriptDirectory.from_config(options).generate_revision(
            util.rev_id(),
            message,
            head=head,
            config=options,
            imports="",
            upgrades=render_python_code(ops.UpgradeOps(operations)),
            downgrades=render_python_code(ops.DowngradeOps(undone)),
        )
    except util.CommandError as error:
        raise ConfigurationError(f"no revision was written into the project of {config}: {error}") from error
    assert script is not None
    return Path(script.path)
