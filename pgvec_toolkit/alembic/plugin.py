"""What Alembic loads (entry point group `alembic.plugins`) wherever pgvec-toolkit is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.util import DispatchPriority

from pgvec_toolkit.alembic import autogenerate, compare_columns, compare_indexes

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin


def setup(plugin: Plugin) -> None:
    """Register comparators, of PostgreSQL only; importing the modules has registered operations and renderers."""
    add, dialect = plugin.add_autogenerate_comparator, "postgresql"
    add(autogenerate.prepare, "autogenerate", "pgvec", qualifier=dialect, priority=DispatchPriority.FIRST)
    add(autogenerate.arrange, "autogenerate", "pgvec", qualifier=dialect, priority=DispatchPriority.LAST)
    add(compare_columns.compare_type, "column", "types", qualifier=dialect)
    # After Alembic's own: what it thought of vector indexes is replaced.
    add(compare_indexes.compare, "table", "pgvec", qualifier=dialect, priority=DispatchPriority.LAST)
