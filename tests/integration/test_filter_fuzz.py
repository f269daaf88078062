"""Random filters, most of them odd: each runs and finds what it should, or is a FilterError; none does any harm.

PGVEC_FUZZ says how many (800), PGVEC_FUZZ_SEED where they start.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgvec_toolkit.collection import Collection
from pgvec_toolkit.errors import FilterError
from pgvec_toolkit.search.filter import plain
from tests.integration.filter_oracle import (
    DAYS,
    FIELDS,
    JSON,
    MOMENTS,
    ODD_KEYS,
    OPERATORS,
    ORDER,
    PRICES,
    ROWS,
    TEXTS,
    VALUES,
    YEARS,
    expected,
    found,
    loaded,
    random_filter,
)

COUNT = int(os.environ.get("PGVEC_FUZZ", "800"))
SEED = int(os.environ.get("PGVEC_FUZZ_SEED", "0"))
NASTY = [
    "'",
    "''",
    '"',
    "\\",
    "\\\\",
    "\\'",
    "$2",
    "$$",
    "$body$",
    "%",
    "%s",
    "%L",
    "%1$s",
    "{",
    "}",
    "{a,b}",
    ",",
    ";",
    "--",
]
NASTY += [
    "/*",
    "*/",
    "); DROP TABLE docs; --",
    "' OR true --",
    "'; DELETE FROM docs; --",
    "\\'; TRUNCATE docs; --",
    "NULL",
]
NASTY += [
    "e",
    "E'\\x41'",
    "U&'\\0041'",
    ":name",
    "?",
    "\n",
    "\t",
    "\x01",
    "\u2028",
    "\u202e",
    "🦆",
    "é",
    "é",
    "ß",
    "İ",
    "日本",
]
NASTY += [
    "true",
    "now",
    "infinity",
    "-infinity",
    "epoch",
    "2024-02-30",
    "24:00",
    "2024-01-01T00:00:00+99:00",
    "2024-01-01 Mars/Phobos",
]
NASTY += [
    "1e400",
    "NaN",
    "0x10",
    "1_000",
    " 1",
    "",
    " ",
    "a" * 5000,
    "[",
    "{}",
    "[]",
    "null",
    "\ud800",
    "nul\0",
    "id",
    "year",
]
NUMBERS = [
    0,
    -1,
    1.5,
    -0.0,
    1e16,
    1e22,
    5e-324,
    1.7976931348623157e308,
    2**31,
    2**63,
    -(2**63),
    10**18,
    10**400,
    10**5000,
]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
RAW = ["1e400", "-1e400", "1e-400", "1e131071", "1e-16383", "1.000", "-0.0", "0e9999"]
FIELD_POOL = [
    *sorted(FIELDS),
    *ODD_KEYS,
    "mixed",
    "other",
    "key",
    "metadata",
    "tsv",
    "ctid",
    "tableoid",
    "distance",
    "embedding",
    "d",
    "v",
]


class Raw(str):
    """A number as it stands in a JSON text: beyond what Python's floats hold."""


@pytest.fixture(scope="module")
def docs(server_dsn: str, template: str, janitor: Callable[..., Any]) -> Iterator[Collection]:
    with loaded(server_dsn, template, janitor, "t_filter_fuzz", index=False) as collection:
        yield collection


def text(choose: random.Random) -> str:
    return "".join(choose.choices([*NASTY, *TEXTS], k=choose.choice([1, 1, 1, 2, 3])))


def value(choose: random.Random, depth: int = 3) -> Any:
    kind = choose.random()
    if depth and kind < 0.12:
        return [value(choose, depth - 1) for _ in range(choose.choice([0, 1, 2, 2, 3, 17]))]
    if depth and kind < 0.2:
        return {text(choose): value(choose, depth - 1) for _ in range(choose.choice([0, 1, 2]))}
    if kind < 0.4:
        return text(choose)
    if kind < 0.5:
        return choose.choice(NUMBERS)
    if kind < 0.52:
        return Raw(choose.choice(RAW))
    if kind < 0.54:
        return deep(choose.choice([5, 50, 95, 120, 2000]))
    return choose.choice([*JSON, *YEARS, *PRICES, *DAYS, *MOMENTS, *TEXTS, None, True, b"bytes", object()])


def deep(levels: int) -> Any:
    made: Any = 1
    for level in range(levels):
        made = [made] if level % 2 else {"a": made}
    return made


def odd_filter(choose: random.Random, depth: int = 4) -> Any:
    kind = choose.random()
    if kind < 0.03:
        return value(choose) or 0  # None is no filter
    if depth and kind < 0.3:
        parts: Any = [odd_filter(choose, depth - 1) for _ in range(choose.choice([0, 1, 1, 2, 3]))]
        name = choose.choice(["$and", "$or", "$not", "$nor"])
        return {name: parts if choose.random() < 0.9 and name != "$not" else odd_filter(choose, depth - 1)}
    if kind < 0.34:
        where = random_filter(choose, 1)
        for _ in range(choose.choice([3, 20, 31, 33, 40, 200])):
            where = {choose.choice(["$and", "$or"]): [where]} if choose.random() < 0.5 else {"$not": where}
        return where
    return {odd_field(choose): odd_conditions(choose, depth) for _ in range(choose.choice([1, 1, 1, 2]))}


def odd_field(choose: random.Random) -> Any:
    kind = choose.random()
    return (
        choose.choice(FIELD_POOL)
        if kind < 0.85
        else text(choose)
        if kind < 0.98
        else choose.choice([1, None, 1.5, ("a",)])
    )


def odd_conditions(choose: random.Random, depth: int) -> Any:
    if choose.random() < 0.15:
        return value(choose)
    conditions = {}
    for _ in range(choose.choice([1, 1, 1, 2])):
        name = choose.choice(
            [*OPERATORS, *OPERATORS, *OPERATORS, "$not", "$near", "$", text(choose), "$" + text(choose)]
        )
        conditions[name] = odd_conditions(choose, depth - 1) if name == "$not" and depth else odd_operand(choose, name)
    return conditions


def odd_operand(choose: random.Random, name: str) -> Any:
    """Make an operand that has at least a chance to be a good one."""
    if name in ("$in", "$nin", "$any", "$all", "$between") and choose.random() < 0.9:
        pool: list[Any] = choose.choice([*VALUES.values(), JSON, NASTY])
        return choose.choices(pool, k=2 if name == "$between" else choose.choice([0, 1, 2, 3, 16, 17]))
    if name in ("$like", "$ilike") and choose.random() < 0.9:
        return text(choose)
    if name == "$exists" and choose.random() < 0.8:
        return choose.random() < 0.5
    return value(choose)


def has_oracle(where: Any) -> bool:
    """Tell whether Python knows what a filter means: not texts' order, the case of every letter, PostgreSQL's dates."""
    if isinstance(where, Raw):
        return False
    if isinstance(where, list):
        return all(map(has_oracle, where))
    if isinstance(where, dict):
        for name, operand in where.items():
            operands = operand if isinstance(operand, list) else [operand]
            if name in (*ORDER, "$between") and any(isinstance(each, str) for each in operands):
                return False
            if name == "$ilike" and not str(operand).isascii():
                return False
        return all(map(has_oracle, where.values())) and not {"day", "at", "key"} & where.keys()
    return True


def as_json(where: Any) -> str:
    """Return the JSON text, with the raw numbers in it."""
    return "".join(json.JSONEncoder(default=str).iterencode(marked(where))).replace('"@@', "").replace('@@"', "")


def marked(where: Any) -> Any:
    if isinstance(where, Raw):
        return f"@@{where}@@"
    if isinstance(where, list):
        return [marked(each) for each in where]
    return {name: marked(each) for name, each in where.items()} if isinstance(where, dict) else where


def plain_but_raw(where: Any) -> Any:
    """Make a filter plain as Python does, leaving raw numbers what they are."""
    plain(where)
    if isinstance(where, dict):
        return {str(name): plain_but_raw(each) for name, each in where.items()}
    if isinstance(where, list | tuple):
        return [plain_but_raw(each) for each in where]
    return where if isinstance(where, Raw) else plain(where)


def census(connection: psycopg.Connection[Any]) -> Any:
    return connection.execute(
        "SELECT (SELECT count(*) FROM docs), (SELECT count(*) FROM docs_dense),"
        " (SELECT md5(string_agg(d::text, '' ORDER BY d.key)) FROM docs d), (SELECT count(*) FROM pg_class),"
        " (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pgvec.collections)"
    ).fetchone()


def test_every_filter_runs_or_is_refused(docs: Collection, capsys: pytest.CaptureFixture[str]) -> None:
    seen: Counter[str] = Counter()
    with docs._database.connection() as connection:
        before = census(connection)
    for number in range(SEED, SEED + COUNT):
        choose = random.Random(number)
        where = random_filter(choose, 3) if number % 5 == 0 else odd_filter(choose)
        outcome = "refused by Python"
        try:
            made = plain_but_raw(where)
            outcome = "refused by SQL"
            ids = run(docs, made, through_python=number % 2 == 0)
        except FilterError:
            assert number % 5, f"seed {number}: a good filter is refused: {where}"
            seen[outcome] += 1
            continue
        except Exception as error:
            raise AssertionError(f"seed {number}: {ascii(where)[:2000]}: {error!r}"[:4000]) from error
        known = has_oracle(made) or number % 5 == 0
        if known:
            wanted = expected(made)
            assert ids == wanted, f"seed {number}: {ascii(made)[:2000]}: {sorted(ids ^ wanted)[:5]}"
            seen["as Python's, some rows" if 0 < len(ids) < len(ROWS) else "as Python's, all rows or none"] += 1
        else:
            seen["run"] += 1
    with docs._database.connection() as connection:
        assert census(connection) == before
    with capsys.disabled():
        print(f"\n{COUNT} filters: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(seen.items())))
    assert seen["as Python's, some rows"] > COUNT / 10
    assert seen["refused by SQL"] > COUNT / 10


def run(docs: Collection, made: Any, *, through_python: bool) -> set[int]:
    """Search, with Python or with SQL's function; an error of any SQLSTATE but PV004 is not a FilterError."""
    if through_python and not isinstance(made, Raw) and "@@" not in as_json(made):
        return found(docs, made, exact=True)
    with docs._database.connection() as connection:
        try:
            rows = connection.execute(
                "SELECT id FROM pgvec.search('docs', '[0,0,0]', 1000, %s::text::jsonb, exact => true)", [as_json(made)]
            ).fetchall()
        except psycopg.Error as error:
            if error.sqlstate == "PV004":
                raise FilterError(str(error)) from error
            raise RuntimeError(f"{error.sqlstate}: {error}") from error
    return {int(id) for (id,) in rows}
