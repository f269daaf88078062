"""What is loaded, and that what is promised is there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import pgvec_toolkit
from pgvec_toolkit import errors

HEAVY = ("numpy", "psycopg", "psycopg_pool", "torch", "sqlalchemy", "alembic", "sentence_transformers", "rich")


def _loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split()) & set(HEAVY)


def test_the_package_alone_loads_nothing_heavy() -> None:
    assert _loaded_by("import pgvec_toolkit") == set()


def test_the_embedded_server_needs_no_driver() -> None:
    assert _loaded_by("import pgvec_toolkit.embedded") <= {"rich"}


def test_a_database_needs_neither_a_model_nor_migrations() -> None:
    assert _loaded_by("from pgvec_toolkit import connect") == {"psycopg", "psycopg_pool"}
    loaded = _loaded_by("from pgvec_toolkit import Collection")
    assert "numpy" in loaded
    assert not loaded & {"torch", "sentence_transformers", "sqlalchemy", "alembic"}


def test_alembic_loads_the_plugin_and_with_it_nothing_heavy() -> None:
    code = "import alembic.op\nassert alembic.op.create_vector_index"
    assert _loaded_by(code) == {"alembic", "sqlalchemy"}


@pytest.mark.parametrize("name", pgvec_toolkit.__all__)
def test_every_public_name_resolves(name: str) -> None:
    found = getattr(pgvec_toolkit, name)
    if name not in ("errors", "orm"):
        assert found.__name__ == name


def test_every_lazy_name_is_public() -> None:
    assert set(pgvec_toolkit._HOMES) <= set(pgvec_toolkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pgvec_toolkit.nothing


def test_the_drawn_hierarchy_of_errors_is_the_real_one() -> None:
    lines = re.findall(r"^(│   )?([├└]── )?([A-Z]\w+)", errors.__doc__.partition("\n\n")[2], re.MULTILINE)
    drawn, above = {}, {0: "Exception"}
    for deeper, branch, name in lines:
        depth = bool(deeper) + bool(branch)
        drawn[name] = above[depth]
        above[depth + 1] = name
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in classes.items()}
    assert [name for name, kind in classes.items() if issubclass(kind, ImportError)] == ["MissingDependency"]


def test_errors_keep_what_they_are_told() -> None:
    missing = errors.MissingDependency("torch", "embed")
    assert str(missing) == "torch is not installed: pip install 'pgvec-toolkit[embed]'"
    record = errors.InvalidRecord(3, "year", "is not a number")
    assert (record.row, record.field, str(record)) == (3, "year", "row 3, field 'year': is not a number")
