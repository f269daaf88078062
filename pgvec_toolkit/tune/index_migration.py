"""What an advisor recommends, as a file to run: SQL for psql, or a revision for Alembic."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError

if TYPE_CHECKING:
    from pgvec_toolkit.schema.space import Space
    from pgvec_toolkit.tune.advice import Advice, Option

_REVISION = '''"""{title}

{reason}

Revision ID: {revision}
Revises:
"""

from alembic import op

revision = "{revision}"
down_revision = None  # set it to the revision before

UPGRADE = [
{upgrade}
]
DOWNGRADE = [
{downgrade}
]


def upgrade() -> None:
    with op.get_context().autocommit_block():  # CONCURRENTLY runs in no transaction
        for statement in UPGRADE:
            op.execute(statement)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in DOWNGRADE:
            op.execute(statement)
'''


def check(path: str | Path) -> None:
    """Raise ConfigurationError for a file that is neither .sql nor .py."""
    if Path(path).suffix.lower() not in (".sql", ".py"):
        raise ConfigurationError(f"cannot write a migration into {path}: name a file .sql, or .py for Alembic")


def write(advice: Advice, path: str | Path) -> None:
    """Write what builds the recommended index and drops those that are there; searches go on meanwhile.

    Raises:
        ConfigurationError: the file cannot be written, or its name ends neither in .sql nor in .py.
        TuningError: nothing is recommended.
    """
    check(path)
    text = _revision(advice) if Path(path).suffix.lower() == ".py" else _script(advice)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


def statements(advice: Advice) -> list[str]:
    """Return the statements that put the recommended index in place; each is to run in no transaction."""
    chosen, space = advice.recommended, advice.space
    final, building = _names(advice)
    there = [name for name, _ in advice.replaces]
    return _with_settings(
        [chosen],
        chosen.candidate.create_sql(space, building, advice.total_rows),
        *(f"DROP INDEX CONCURRENTLY {_identifier(space, name)}" for name in there),
        *([f"ALTER INDEX {_identifier(space, building)} RENAME TO {_quoted(final)}"] if building != final else []),
        f"ANALYZE {space.vectors.as_string()}",
        *_forget(advice),
    )


def statements_back(advice: Advice) -> list[str]:
    """Return the statements that bring back what was there."""
    space = advice.space
    final, building = _names(advice)
    renamed = [f"ALTER INDEX {_identifier(space, final)} RENAME TO {_quoted(building)}"] if building != final else []
    built = [definition.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1) for _, definition in advice.replaces]
    dropped = f"DROP INDEX CONCURRENTLY {_identifier(space, building)}"
    # What was there may be larger than what is recommended: memory as for the largest of those that were compared.
    return _with_settings(advice.options, *renamed, *built, dropped, *_forget(advice))


def _with_settings(options: Sequence[Option], *inner: str) -> list[str]:
    """Return statements between those that set what `create_index` sets to build any of some options, and back."""
    settings = {
        "statement_timeout": "0",
        "maintenance_work_mem": f"'{max(each.memory_limit for each in options) // 1024}kB'",
        "max_parallel_maintenance_workers": str(min(each.workers for each in options)),
    }
    before = [f"SET {name} = {value}" for name, value in settings.items()]
    return [*before, *inner, *(f"RESET {name}" for name in settings)]


def _names(advice: Advice) -> tuple[str, str]:
    """Return the index's name in the end, as `create_index` gives it, and while the old one is still there."""
    final = f"{advice.space.index_stem}_{advice.recommended.candidate.method}"
    taken, building = {name for name, _ in advice.replaces}, final
    while building in taken:
        building += "_new"
    return final, building


def _forget(advice: Advice) -> list[str]:
    """Return statements that end what was measured of the index before; by names: ids differ between databases."""
    space_id = (
        "(SELECT s.id FROM pgvec.vector_spaces s JOIN pgvec.collections c ON c.id = s.collection_id "
        f"WHERE c.name = {_literal(advice.collection)} AND s.name = {_literal(advice.space.name)})"
    )
    return [
        f"UPDATE pgvec.tuning_profiles SET superseded_at = now() WHERE superseded_at IS NULL AND space_id = {space_id}",
        f"DELETE FROM pgvec.calibrations WHERE space_id = {space_id}",
    ]


def _title(advice: Advice) -> str:
    there = ", ".join(name for name, _ in advice.replaces)
    return f"Index {advice.space.vector_table} by {advice.recommended.name}{f', in place of {there}' if there else ''}"


def _then(advice: Advice) -> str:
    targets = " ".join(f"--recall {target:g}" for target in advice.targets)
    space = advice.recommended.space
    return f"pgvec tune {advice.collection} {targets} -k {advice.k}{'' if space is None else f' --space {space}'}"


def _script(advice: Advice) -> str:
    comment = [
        f"{_title(advice)}.",
        *textwrap.wrap(advice.reason, 110),
        "",
        "Run it by psql -f, statement by statement and in no transaction; searches and writes go on meanwhile.",
        "It stops at the first error, so that the old index stays until the new one is complete.",
        "If CREATE INDEX is interrupted, drop the index that it leaves INVALID, then run it again.",
        "Afterwards:",
        f"    {_then(advice)}",
        "The way back:",
        *(f"    {statement};" for statement in statements_back(advice)),
    ]
    head = "\n".join(f"-- {line}".rstrip() for line in comment)
    body = "\n".join(f"{statement};" for statement in statements(advice))
    return f"{head}\n\n\\set ON_ERROR_STOP on\n{body}\n"


def _revision(advice: Advice) -> str:
    upgrade, downgrade = statements(advice), statements_back(advice)
    reason = textwrap.fill(advice.reason, 110).replace("\\", "").replace('"""', "")
    return _REVISION.format(
        title=f"{_title(advice)}.".replace("\\", "").replace('"""', ""),
        reason=f"{reason}\n\nAfterwards:\n\n    {_then(advice)}",
        # The same advice is the same revision.
        revision=hashlib.sha256("\n".join(upgrade).encode()).hexdigest()[:12],
        upgrade="\n".join(f"    {statement!r}," for statement in upgrade),
        downgrade="\n".join(f"    {statement!r}," for statement in downgrade),
    )


def _identifier(space: Space, name: str) -> str:
    return sql.Identifier(space.schema, name).as_string()


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()


def _literal(value: str) -> str:
    return sql.Literal(value).as_string()
