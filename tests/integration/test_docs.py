"""docs/sql.md: every example prints what is written below it, and every public function and view has one."""

from __future__ import annotations

import re

import psycopg

from tests.integration.examples import examples, psql_outputs

SQL = list(examples("docs/sql.md"))
PUBLIC = """
SELECT proname, CASE WHEN prorettype = 'trigger'::regtype THEN '' ELSE '(' END FROM pg_proc
WHERE pronamespace = 'pgvec'::regnamespace AND NOT starts_with(proname, '_')
UNION ALL
SELECT relname, '' FROM pg_class
WHERE relnamespace = 'pgvec'::regnamespace AND relkind IN ('v', 'm') AND NOT starts_with(relname, '_')
"""


def test_the_examples_print_what_the_reference_says(dsn: str) -> None:
    assert {example.language for example in SQL} == {"sql"}
    outputs = psql_outputs(dsn, [example.text for example in SQL])
    for example, output in zip(SQL, outputs, strict=True):
        assert output == example.output, f"docs/sql.md, line {example.line}"


def test_every_public_function_and_view_has_an_example(connection: psycopg.Connection) -> None:
    public = connection.execute(PUBLIC).fetchall()
    assert len(public) > 15
    run = "\n".join(re.sub(r"--[^\n]*", "", example.text) for example in SQL)
    without = {name for name, call in public if not re.search(rf"\bpgvec\.{name}\b{re.escape(call)}", run)}
    assert without == set(), "docs/sql.md has no example of these"


def test_calls_name_their_arguments(connection: psycopg.Connection) -> None:
    functions = {name for name, call in connection.execute(PUBLIC).fetchall() if call}
    for example in SQL:
        for name, arguments in re.findall(r"\bpgvec\.(\w+)\(\s*(\S+ *\S*)", example.text):
            assert name in functions, f"docs/sql.md, line {example.line}"
            assert re.match(r"\w+ *=>|\)", arguments), f"docs/sql.md, line {example.line}: pgvec.{name}({arguments}"
