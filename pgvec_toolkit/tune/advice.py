"""What an advisor measured, and the index that it recommends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.errors import TuningError

if TYPE_CHECKING:
    from pgvec_toolkit.schema.space import Space
    from pgvec_toolkit.tune.candidates import Candidate
    from pgvec_toolkit.tune.profile import TuningProfile

TOLERANCE = 0.05


@dataclass(frozen=True)
class Row:
    """An index at a target recall.

    Attributes:
        index: its name, as "hnsw 24/200 halfvec": m and ef_construction, form.
        target_recall: asked for.
        setting: the cheapest that reaches it (ef_search or probes); None: none does, and so for the next three.
        oversampling: of forms that hold less than the vector.
        recall: recall@k with it, on the queries that it was found by.
        milliseconds: of a search for ids in the sample: the mean over queries of their medians over some rounds.
        size: bytes on disk, of all rows.
        memory: bytes that the build takes, of all rows.
        fits: whether the server can give the build that much.
        build_seconds: of all rows, extrapolated by n log n.
        insert_milliseconds: to insert one row.
        recommended: whether it is the index that is recommended.
    """

    index: str
    target_recall: float
    setting: int | None
    oversampling: float | None
    recall: float | None
    milliseconds: float | None
    size: int
    memory: int
    fits: bool
    build_seconds: float
    insert_milliseconds: float
    recommended: bool = False

    @property
    def queries_per_second(self) -> float | None:
        """Of one connection."""
        return None if self.milliseconds is None else 1000 / self.milliseconds


@dataclass
class Option:
    """A candidate, built and measured.

    Attributes:
        candidate: what was built.
        space: of the collection; None: its default one.
        build_seconds: of the sample.
        size: bytes on disk, of the sample.
        memory: bytes that a build of all rows takes.
        memory_limit: maintenance_work_mem in bytes to build all rows with.
        workers: parallel workers to build them with.
        fits: whether the server can give it that much.
        profiles: target recall to the profile that reaches it.
        milliseconds: target recall to the latency.
        insert_milliseconds: to insert one row.
        problem: what the tuner said if a target is out of reach.
    """

    candidate: Candidate
    space: str | None
    build_seconds: float
    size: int
    memory: int
    memory_limit: int
    workers: int
    fits: bool
    profiles: dict[float, TuningProfile] = field(default_factory=dict)
    milliseconds: dict[float, float] = field(default_factory=dict)
    insert_milliseconds: float = 0.0
    problem: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.candidate.name

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `create_index` that build it."""
        return self.candidate.arguments | ({} if self.space is None else {"space": self.space})


@dataclass(frozen=True)
class Advice:
    """Which index to build, and what was measured to say so.

    Attributes:
        collection: its name.
        space: the vector space that was asked about.
        k: of recall@k.
        targets: the recalls to reach, ascending.
        options: all candidates, measured.
        sample_rows: how many rows each index held.
        total_rows: how many the collection has.
        queries: how many were asked.
        exact_milliseconds: of a search without an index, of all rows; extrapolated in proportion.
        tolerance: how much slower than the fastest a smaller index may be.
        replaces: name and definition of the vector indexes that are there.
    """

    collection: str
    space: Space
    k: int
    targets: tuple[float, ...]
    options: tuple[Option, ...]
    sample_rows: int
    total_rows: int
    queries: int
    exact_milliseconds: float
    tolerance: float = TOLERANCE
    replaces: tuple[tuple[str, str], ...] = ()

    @property
    def recommended(self) -> Option:
        """The index for all targets: the smallest of those within the tolerance of the fastest, if it fits memory.

        Of several targets, how much slower than the fastest an index is counts as the geometric mean.

        Raises:
            TuningError: no candidate reaches all targets.
        """
        return self.best(*self.targets)

    @property
    def choices(self) -> dict[float, Option]:
        """The index for each target alone; without those that no candidate reaches."""
        reachable = [target for target in self.targets if any(target in each.milliseconds for each in self.options)]
        return {target: self.best(target) for target in reachable}

    def best(self, *targets: float) -> Option:
        """Return the index for some targets, by the rule of `recommended`."""
        reaching = [each for each in self.options if all(target in each.milliseconds for target in targets)]
        if not reaching:
            problem = next((each.problem for each in self.options if each.problem), "nothing was measured")
            wanted = " and ".join(f"{target:g}" for target in targets)
            raise TuningError(f"no candidate reaches recall {wanted}. Of {self.options[-1].name}: {problem}")
        able = [each for each in reaching if each.fits] or reaching
        fastest = [min(each.milliseconds[target] for each in able) for target in targets]

        def slowness(option: Option) -> float:
            ratios = [option.milliseconds[target] / least for target, least in zip(targets, fastest, strict=True)]
            return math.prod(ratios) ** (1 / len(ratios))

        least = min(map(slowness, able))
        near = [each for each in able if slowness(each) <= least * (1 + self.tolerance)]
        return min(near, key=lambda each: (each.size, slowness(each)))

    @property
    def rows(self) -> list[Row]:
        """The table: each candidate at each target."""
        try:
            recommended: Option | None = self.recommended
        except TuningError:
            recommended = None
        return [self._row(option, target, option is recommended) for option in self.options for target in self.targets]

    @property
    def reason(self) -> str:
        """Why that index, in words."""
        try:
            chosen = self.recommended
        except TuningError as error:
            return str(error)
        parts = [self._praise(chosen), self._rule()]
        for target, other in self.choices.items():
            if other is not chosen:
                parts.append(f"For recall {target:g} alone it would be {other.name}.")
        if not chosen.fits:
            parts.append("The memory of the server fits none of them: the build will be slow, on disk.")
        if self.sample_rows < self.total_rows:
            parts.append(
                f"Speed was measured on {self.sample_rows:,} of {self.total_rows:,} rows; sizes and times of builds "
                "are extrapolated."
            )
        if self.exact_milliseconds <= min(chosen.milliseconds.values()):
            parts.append(
                f"You need no index yet: an exact search takes {self.exact_milliseconds:.2g} ms, and finds everything."
            )
        return " ".join(parts)

    def size(self, option: Option) -> int:
        """Return the bytes on disk of an index of all rows."""
        return round(option.size * self.total_rows / self.sample_rows)

    def build_seconds(self, option: Option) -> float:
        """Return the seconds to build an index of all rows: by n log n for HNSW, else in proportion."""
        ratio = self.total_rows / self.sample_rows
        if option.candidate.method == "hnsw":
            ratio *= math.log(max(2, self.total_rows)) / math.log(max(2, self.sample_rows))
        return option.build_seconds * ratio

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict, for JSON."""
        plain = {name: getattr(self, name) for name in ("collection", "k", "sample_rows", "total_rows", "queries")}
        rows = [asdict(row) | {"queries_per_second": row.queries_per_second} for row in self.rows]
        found = [row["index"] for row in rows if row["recommended"]]
        return {
            **plain,
            "space": self.space.name,
            "exact_milliseconds": self.exact_milliseconds,
            "table": rows,
            "recommended": {"index": found[0], "arguments": self.recommended.arguments} if found else None,
            "choices": {f"{target:g}": option.name for target, option in self.choices.items()},
            "reason": self.reason,
        }

    def plot(self, path: str | Path) -> None:
        """Draw queries per second against recall, a curve for each candidate; .png, or .html for an interactive one."""
        from pgvec_toolkit.tune.pictures import draw_curves

        curves = {each.name: list(each.profiles.values()) for each in self.options if each.profiles}
        draw_curves(curves, path)

    def migration(self, path: str | Path) -> None:
        """Write what puts the recommended index in place of those that are there: .sql, or .py for Alembic."""
        from pgvec_toolkit.tune.index_migration import write

        write(self, path)

    def _row(self, option: Option, target: float, recommended: bool) -> Row:
        profile = option.profiles.get(target)
        return Row(
            option.name,
            target,
            None if profile is None else profile.setting,
            None if profile is None else profile.oversampling,
            None if profile is None else profile.recall,
            option.milliseconds.get(target),
            self.size(option),
            option.memory,
            option.fits,
            self.build_seconds(option),
            option.insert_milliseconds,
            recommended,
        )

    def _praise(self, chosen: Option) -> str:
        speeds = _list([f"{1000 / chosen.milliseconds[target]:,.0f}" for target in self.targets])
        recalls = _list([f"{target:g}" for target in self.targets])
        text = f"{chosen.name} answers {speeds} queries a second at recall {recalls}"
        default = next((each for each in self.options if each.candidate.is_default), None)
        if default is not None and default is not chosen:
            ratios = [
                f"{default.milliseconds[target] / chosen.milliseconds[target]:.2f}"
                for target in self.targets
                if target in default.milliseconds
            ]
            faster = f"{_list(ratios)} times as many as" if len(ratios) == len(self.targets) else "out of reach of"
            text += (
                f", {faster} pgvector's default ({default.name}), in {chosen.size / default.size:.0%} of its size; "
                f"to build it takes {chosen.build_seconds / default.build_seconds:.1f} times as long"
            )
        return f"{text}."

    def _rule(self) -> str:
        return (
            f"It is the smallest of those within {self.tolerance:.0%} of the fastest that reach the target and whose "
            "build fits memory."
        )


def _list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
