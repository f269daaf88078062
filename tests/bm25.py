"""BM25 of every chunk, in numpy: what a keyword search must come to, and what tests and benchmarks make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

K1, B = 1.2, 0.75


class Exhaustive:
    """BM25 of every chunk with text, from the lexemes that the server made of them."""

    def __init__(self, connection: psycopg.Connection[Any], chunks: str, k1: float = K1, b: float = B) -> None:
        self.rows = connection.execute(
            sql.SQL(
                "SELECT d.id, array_remove(array_agg(l.lexeme), NULL), array_remove(array_agg("
                "CASE WHEN l.lexeme IS NOT NULL THEN coalesce(cardinality(l.positions), 1) END), NULL) FROM {} d "
                "LEFT JOIN LATERAL unnest(d.tsv) l ON true WHERE d.text IS NOT NULL GROUP BY d.key ORDER BY d.key"
            ).format(sql.Identifier(chunks))
        ).fetchall()
        self.ids = [id for id, _, _ in self.rows]
        self.lengths = np.array([sum(times) for _, _, times in self.rows], dtype=np.float64)
        places: dict[str, list[int]] = {}
        counts: dict[str, list[int]] = {}
        for place, (_, lexemes, times) in enumerate(self.rows):
            for lexeme, n in zip(lexemes, times, strict=True):
                places.setdefault(lexeme, []).append(place)
                counts.setdefault(lexeme, []).append(n)
        self.places = {lexeme: np.array(each) for lexeme, each in places.items()}
        self.counts = {lexeme: np.array(each, dtype=np.float64) for lexeme, each in counts.items()}
        self.set(k1, b)

    @property
    def tokens(self) -> list[list[str]]:
        """The lexemes of each chunk, as often as they occur."""
        return [
            [lexeme for lexeme, n in zip(lexemes, times, strict=True) for _ in range(n)]
            for _, lexemes, times in self.rows
        ]

    def set(self, k1: float, b: float) -> None:
        """Score by these parameters from now on."""
        self.norms = k1 * (1 - b + b * self.lengths / max(self.lengths.mean() if self.ids else 0, 1e-300))

    def scores(self, lexemes: Sequence[str]) -> NDArray[np.float64]:
        """Return the score of every chunk, of shape (chunks,); a lexeme counts as often as it is given."""
        scores = np.zeros(len(self.ids))
        for lexeme in lexemes:
            if lexeme in self.places:
                places, times = self.places[lexeme], self.counts[lexeme]
                idf = np.log(1 + (len(self.ids) - len(places) + 0.5) / (len(places) + 0.5))
                scores[places] += idf * times / (times + self.norms[places])
        return scores

    def check(self, hits: Sequence[Any], lexemes: Sequence[str], k: int, allowed: Sequence[bool] | None = None) -> None:
        """Assert that hits (with id and score) are the k best, of those that are allowed; among equals any will do."""
        scores = self.scores(lexemes)
        if allowed is not None:
            scores = np.where(allowed, scores, 0)
        best = np.sort(scores[scores > 0])[::-1][:k]
        found = [hit.score for hit in hits]
        assert len(found) == len(best)
        np.testing.assert_allclose(found, best, rtol=1e-9)
        by_id = dict(zip(self.ids, scores.tolist(), strict=True))
        np.testing.assert_allclose([by_id[hit.id] for hit in hits], found, rtol=1e-9)
        assert len({hit.id for hit in hits}) == len(hits)


def lexemes(connection: psycopg.Connection[Any], text: str, language: str = "english") -> list[str]:
    """Return the lexemes of a text, as often as they occur."""
    statement = (
        "SELECT u.lexeme FROM unnest(to_tsvector(%s::regconfig, %s)) u, "
        "generate_series(1, coalesce(cardinality(u.positions), 1))"
    )
    return [lexeme for (lexeme,) in connection.execute(statement, [language, text])]
