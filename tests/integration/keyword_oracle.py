"""What a keyword index must be: computed anew from the chunk table, by plain SQL."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

WORDS = """
WITH words AS (
    SELECT d.key, l.lexeme, coalesce(cardinality(l.positions), 1) AS times,
           (hashtext(l.lexeme COLLATE "C") & 2147483647) % 100000000 AS number
    FROM {chunks} d CROSS JOIN LATERAL unnest(d.tsv) l WHERE d.text IS NOT NULL
), lengths AS (
    SELECT d.key, coalesce(sum(w.times), 0)::bigint AS length
    FROM {chunks} d LEFT JOIN words w ON w.key = d.key WHERE d.text IS NOT NULL GROUP BY d.key
), classes AS (
    SELECT l.key, l.length, (SELECT count(*) FROM unnest(pgvec._length_classes()) c WHERE c <= l.length) AS class
    FROM lengths l
)"""
KEYWORDS = (
    WORDS
    + """, dimensions AS (
    SELECT DISTINCT w.key, w.number * 8::bigint + CASE WHEN w.times < 4 THEN w.times WHEN w.times < 6 THEN 4
        WHEN w.times < 10 THEN 5 ELSE 6 END AS dimension
    FROM words w
), numbers AS (
    SELECT w.key, array_agg(w.number ORDER BY w.number) AS lexemes FROM words w GROUP BY w.key
), terms AS (
    SELECT d.key, count(*) AS count, string_agg(d.dimension || ':1', ',' ORDER BY d.dimension) AS text
    FROM dimensions d GROUP BY d.key
), expected AS (
    SELECT c.key, c.length::bigint, c.class::bigint, coalesce(n.lexemes, '{{}}') AS lexemes,
        CASE WHEN coalesce(t.count, 0) <= 16000 THEN '{{' || coalesce(t.text, '') || '}}/1000000000' END AS terms
    FROM classes c LEFT JOIN numbers n ON n.key = c.key LEFT JOIN terms t ON t.key = c.key
), found AS (
    SELECT k.key, k.length::bigint, k.length_class::bigint,
        ARRAY(SELECT n FROM unnest(k.lexemes) n ORDER BY 1), k.terms::text
    FROM {keywords} k
)
(SELECT 'missing', x.* FROM (TABLE expected EXCEPT ALL TABLE found) x)
UNION ALL (SELECT 'too much', x.* FROM (TABLE found EXCEPT ALL TABLE expected) x)"""
)
LEXEMES = (
    WORDS
    + """, expected AS (
    SELECT w.lexeme COLLATE "C" AS lexeme, 0::bigint AS class, count(*) AS chunks, 0::bigint AS words
    FROM words w GROUP BY 1
    UNION ALL SELECT '', c.class, count(*), sum(c.length)::bigint FROM classes c GROUP BY c.class
), found AS (
    SELECT l.lexeme, l.length_class::bigint, sum(l.chunks)::bigint, sum(l.words)::bigint FROM {lexemes} l
    GROUP BY 1, 2 HAVING sum(l.chunks) <> 0 OR sum(l.words) <> 0
)
(SELECT 'missing', x.* FROM (TABLE expected EXCEPT ALL TABLE found) x)
UNION ALL (SELECT 'too much', x.* FROM (TABLE found EXCEPT ALL TABLE expected) x)"""
)
# BM25 by the book, from the chunk table alone.
BRUTE_FORCE = """
WITH n AS (SELECT count(*)::float8 AS chunks FROM {chunks} WHERE text IS NOT NULL),
words AS (SELECT d.key, l.lexeme, coalesce(cardinality(l.positions), 1) AS times
          FROM {chunks} d CROSS JOIN LATERAL unnest(d.tsv) l WHERE d.text IS NOT NULL),
lengths AS (SELECT w.key, sum(w.times)::float8 AS length FROM words w GROUP BY 1),
mean AS (SELECT sum(l.length) / n.chunks AS length FROM lengths l, n GROUP BY n.chunks),
idf AS (SELECT w.lexeme, ln(1 + (n.chunks - count(*) + 0.5) / (count(*) + 0.5)) AS idf
        FROM words w, n GROUP BY 1, n.chunks)
SELECT sum(i.idf * w.times / (w.times + 1.2 * (0.25 + 0.75 * l.length / m.length))) AS score
FROM words w JOIN lengths l ON l.key = w.key JOIN idf i ON i.lexeme = w.lexeme, mean m WHERE w.lexeme = ANY (%s)
GROUP BY w.key ORDER BY 1 DESC LIMIT %s"""


def tables(statement: str, name: str = "docs", schema: str = "public") -> sql.Composed:
    """Fill in the tables of a collection."""
    names = {"chunks": name, "keywords": f"{name}_keywords", "lexemes": f"{name}_lexemes"}
    return sql.SQL(statement).format(**{each: sql.Identifier(schema, table) for each, table in names.items()})


def differences(connection: psycopg.Connection[Any], name: str = "docs", schema: str = "public") -> list[Any]:
    """Return how a keyword index differs from one that would be made now; no rows if it is right."""
    found = [connection.execute(tables(each, name, schema)).fetchall() for each in (KEYWORDS, LEXEMES)]
    return found[0] + found[1]


def check_keyword_index(connection: psycopg.Connection[Any], name: str = "docs", schema: str = "public") -> None:
    """Assert that a keyword index is right, and stays so when its counts are added up."""
    assert differences(connection, name, schema) == []
    connection.execute("SELECT pgvec.add_up_lexemes(%s, %s)", [schema, name])
    assert differences(connection, name, schema) == []
    left = "SELECT lexeme, length_class FROM {lexemes} GROUP BY 1, 2 HAVING count(*) > 1 OR sum(chunks) = 0"
    assert connection.execute(tables(left, name, schema)).fetchall() == []
