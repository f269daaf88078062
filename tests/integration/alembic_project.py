"""A user's Alembic project in a folder, driven in this process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

ENV = """
from alembic import context

attributes = context.config.attributes
options = {"target_metadata": attributes["metadata"], **attributes["options"]}
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with attributes["engine"].connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""
TEMPLATE = '''"""${message}"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''


class Project:
    """Alembic's commands, of one folder and one database."""

    def __init__(self, folder: Path, dsn: str, **options: Any) -> None:
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENV)
        (folder / "script.py.mako").write_text(TEMPLATE)
        self.folder = folder
        self.dsn = dsn
        # Of a pool: connecting takes longer than most of what is done here.
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
        self.config = Config()
        self.config.set_main_option("script_location", str(folder))
        self.options = options
        self.config.attributes.update(engine=self.engine, metadata=sa.MetaData(), options=options)

    def close(self) -> None:
        self.engine.dispose()

    def write(
        self, revision: str, upgrade: str, downgrade: str = "pass", down: str | None = None, label: str = ""
    ) -> None:
        """Write a revision by hand."""
        text = (
            f"from alembic import op\nimport sqlalchemy as sa\nrevision = {revision!r}\ndown_revision = {down!r}\n"
            f"branch_labels = {(label,) if label else None!r}\ndepends_on = None\n"
            f"def upgrade():\n    {upgrade}\ndef downgrade():\n    {downgrade}\n"
        )
        (self.folder / "versions" / f"{revision}.py").write_text(text)

    def autogenerate(self, metadata: sa.MetaData, message: str = "change") -> str:
        """Write a revision that leads to a model, and return its text."""
        self.config.attributes["metadata"] = metadata
        script = command.revision(self.config, message, autogenerate=True)
        return Path(script.path).read_text()  # type: ignore[union-attr]

    def upgrade(self, revision: str = "head") -> None:
        command.upgrade(self.config, revision)

    def downgrade(self, revision: str = "-1") -> None:
        command.downgrade(self.config, revision)

    def sql(self, revision: str = "head", down: bool = False) -> str:
        """Return the script of --sql."""
        self.config.output_buffer = output = io.StringIO()
        (command.downgrade if down else command.upgrade)(self.config, revision, sql=True)
        return output.getvalue()

    def differences(self, metadata: sa.MetaData) -> list[Any]:
        """Return what autogenerate would change to reach a model."""
        with self.engine.connect() as connection:
            return compare_metadata(MigrationContext.configure(connection, opts=dict(self.options)), metadata)

    def heads(self) -> list[str]:
        return list(ScriptDirectory.from_config(self.config).get_heads())

    def revision(self) -> str:
        """Return the revision that the database is at."""
        return str(self.run("SELECT version_num FROM alembic_version")[0][0])

    def forget(self) -> None:
        """Begin anew with what is in the database now."""
        for file in (self.folder / "versions").glob("*.py"):
            file.unlink()
        self.run("DELETE FROM alembic_version")

    def run(self, statement: str) -> Any:
        """Run a statement in a transaction; returns its rows, if there are any."""
        with self.engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return result.all() if result.returns_rows else None
