"""The run-always SQL files keep the rules that CONTRIBUTING.md states."""

from __future__ import annotations

import re

import psycopg
import pytest

from pgvec_toolkit import resources

FILES = dict(resources.sql_files())
# A body, a quoted text (with doubled quotes in it), or a comment: nothing in them ends a statement.
NOT_CODE = re.compile(r"\$(\w*)\$.*?\$\1\$|BEGIN ATOMIC.*?\nEND|'(?:[^']|'')*'|--[^\n]*", re.DOTALL)
ROUTINES = """
SELECT p.oid::regprocedure::text, p.prosecdef, p.proconfig, obj_description(p.oid, 'pg_proc'),
       p.prosqlbody IS NOT NULL, p.proname
FROM pg_proc p WHERE p.pronamespace = 'pgvec'::regnamespace ORDER BY 1
"""


def _statements(text: str) -> list[str]:
    return [statement.strip() for statement in NOT_CODE.sub("", text).split(";") if statement.strip()]


def test_files_are_named_in_the_order_in_which_they_are_applied() -> None:
    assert len(FILES) > 3
    assert list(FILES) == sorted(FILES)
    assert all(re.fullmatch(r"\d{3}_[a-z_]+\.sql", name) for name in FILES)
    assert len({name[:3] for name in FILES}) == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_only_replaces_functions_and_views_and_comments(name: str) -> None:
    # What a view reads it reads with the rights of who asks, or shows to everybody on purpose: it may be granted.
    allowed = (
        r"(CREATE OR REPLACE (FUNCTION|VIEW|PROCEDURE|AGGREGATE)|COMMENT ON|GRANT SELECT ON pgvec\.\w+ TO PUBLIC$) ?"
    )
    for statement in _statements(FILES[name]):
        assert re.match(allowed, statement), statement


@pytest.mark.parametrize("name", FILES)
def test_a_file_opens_with_what_it_is_about(name: str) -> None:
    assert FILES[name].startswith("-- ")


def test_everything_lives_in_schema_pgvec() -> None:
    for text in FILES.values():
        for statement in _statements(text):
            if statement.startswith("CREATE"):
                assert re.match(r"CREATE OR REPLACE \w+ pgvec\.\w+", statement), statement


def test_every_function_is_commented_and_safe(connection: psycopg.Connection) -> None:
    routines = connection.execute(ROUTINES).fetchall()
    assert len(routines) > 20
    for signature, definer, settings, comment, parsed, _ in routines:
        assert comment, f"{signature} has no COMMENT"
        assert not definer, f"{signature} is SECURITY DEFINER"
        pinned = [setting for setting in settings or [] if setting.startswith("search_path=")]
        # The names in a body that is stored parsed were looked up when it was created.
        safe = pinned == ["search_path=pg_catalog, pg_temp"] or (parsed and not pinned)
        assert safe, f"{signature}: {settings}"


def test_no_function_is_overloaded(connection: psycopg.Connection) -> None:
    names = [name for *_, name in connection.execute(ROUTINES).fetchall()]
    assert len(names) == len(set(names))


def test_the_files_and_the_database_hold_the_same_functions(connection: psycopg.Connection) -> None:
    written = {name for text in FILES.values() for name in re.findall(r"OR REPLACE FUNCTION pgvec\.(\w+)", text)}
    assert written == {name for *_, name in connection.execute(ROUTINES).fetchall()}


def test_every_table_and_view_is_commented(connection: psycopg.Connection) -> None:
    bare = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pgvec'::regnamespace AND relkind IN ('r', 'v', 'm')"
        " AND relname <> 'alembic_version' AND obj_description(oid, 'pg_class') IS NULL"
    ).fetchall()
    assert bare == []
