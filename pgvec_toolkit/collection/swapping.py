"""Another model for a collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgvec_toolkit.collection.measuring import Measuring
from pgvec_toolkit.collection.searching import Searching
from pgvec_toolkit.collection.writing import Writing
from pgvec_toolkit.embed import kinds
from pgvec_toolkit.embed.base import Embedder
from pgvec_toolkit.errors import CollectionNotFound, SwapError, TuningError
from pgvec_toolkit.ingest.space_embedding import embed_all
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.swap import state as swaps
from pgvec_toolkit.swap.comparison import Asked, compare
from pgvec_toolkit.swap.state import Swap
from pgvec_toolkit.swap.switching import check_embeddable, drop, index_like, switch, vacuum
from pgvec_toolkit.tune.targets import FEWEST_QUERIES

if TYPE_CHECKING:
    from pgvec_toolkit.evaluate.beir import Qrels
    from pgvec_toolkit.pool import Connection
    from pgvec_toolkit.schema.space import Space


class Swapping(Writing, Searching, Measuring):
    """Methods that give a collection another model."""

    def swap_model(
        self,
        to: Embedder | str,
        *,
        name: str | None = None,
        queries: Mapping[str, str] | str | Path | None = None,
        qrels: Qrels | str | Path | None = None,
        k: int = 10,
        sample: int = 200,
        switch: bool = False,
        min_overlap: float | None = None,
        progress: bool | None = None,
    ) -> Swap:
        """Prepare another model while searches and writes go on, compare it with the present one, and perhaps switch.

        A new vector space is made and filled with vectors of all stored texts, gets an index as the present one has it,
        and is tuned for the same recalls. Then both are searched for the same, and the state is "ready": `switch_model`
        makes it the one that searches use, `rollback_model` leads back, `drop_swapped` ends it. Interrupted or killed
        at any moment, the same call goes on where it was.

        Args:
            to: the other model: its name, or an `Embedder`.
            name: of the new space; None: derived from the model's. One that holds vectors of this model is taken.
            queries: to compare by: query id to text, or the path of a queries.jsonl (BEIR); None: the first sentences
                of stored chunks.
            qrels: judgements of these queries, or their path: nDCG and the like of both models, with intervals.
            k: how many hits are compared.
            sample: how many stored chunks are drawn.
            switch: switch if the judged queries do not say that the new model is worse.
            min_overlap: switch only if both find so much in common, from 0 to 1.
            progress: whether to show bars; None: on a terminal.

        Raises:
            SwapError: another swap is open or going on, there are chunks without text, or it is not good enough to
                switch by itself.
        """
        asked = Asked(queries, qrels, k, sample)
        embedder = kinds.load(to) if isinstance(to, str) else to
        with self._swapping() as connection:
            swap = swaps.begin(connection, self.name, self.space, embedder, name)
            if swap.state == "switched":
                return swap
            swap = self._prepared(connection, swap, embedder, asked, progress)
            if switch:
                _check_good_enough(swap, min_overlap)
                self._switch_to(connection, swap.to_space, progress)
        return self._swapped(swap.notes)

    def switch_model(self, *, progress: bool | None = None) -> Swap:
        """Make the model that `swap_model` prepared the one that searches and writes use.

        What was written meanwhile is embedded first; then it is one transaction, for which writers wait and searches do
        not. Processes that have the collection open search with the old model for up to half a minute; what they write
        is the new model's from then on, and what they are just writing fails and has to be run again.

        Raises:
            SwapError: nothing is ready.
        """
        return self._turned(("ready", "rolled back"), "switched to", progress)

    def rollback_model(self, *, progress: bool | None = None) -> Swap:
        """Go back to the model that was there before the switch; what was written since is embedded by it first.

        Raises:
            SwapError: nothing was switched, or the old space was dropped.
        """
        return self._turned(("switched",), "rolled back", progress)

    def drop_swapped(self) -> str:
        """Drop the vector space that searches do not use: after a switch the old one, else the new one.

        Returns its name. That is the end of the swap, and of the way back.

        Raises:
            SwapError: no swap is open, or something else needs its table.
        """
        with self._swapping() as connection:
            spare = self._open_swap(connection).spare
            drop(connection, self.name, spaces.find(self._database, self.name, spare))
        self._forget(spare)
        return spare

    def model_swap(self) -> Swap | None:
        """Return the latest swap of the model, and how far it is; None if there was none (SQL: `pgvec.model_swaps`)."""
        self._refresh()
        return self._found(())

    def _turned(self, states: tuple[str, ...], what: str, progress: bool | None) -> Swap:
        with self._swapping() as connection:
            swap = self._open_swap(connection)
            if swap.state not in states:
                going_on = "run swap_model, or `pgvec model swap`, to its end"
                advice = going_on if what == "switched to" else "nothing to do"
                raise SwapError(f"the swap of {self.name!r} is {swap.state}, and cannot be {what}: {advice}")
            self._switch_to(connection, swap.spare, progress)
        return self._swapped(())

    def _switch_to(self, connection: Connection, name: str, progress: bool | None) -> None:
        space = spaces.find(self._database, self.name, name)
        embedder = None if space.model is None else self._embedder(space)
        switch(connection, self.name, space, embedder, progress)

    @contextmanager
    def _swapping(self) -> Iterator[Connection]:
        """Be the only one who swaps the model of the collection."""
        self._refresh()
        space = self.space
        with self._database.dedicated_connection() as connection:
            swaps.hold(connection, space)
            try:
                self._refresh()
                yield connection
            finally:
                swaps.release(connection, space)

    def _open_swap(self, connection: Connection) -> Swap:
        swap = swaps.latest(connection, self.space)
        if swap is None or not swap.is_open:
            raise SwapError(
                f"no swap of the model of {self.name!r} is open: swap_model, or `pgvec model swap`, begins one"
            )
        return swap

    def _found(self, notes: tuple[str, ...]) -> Swap | None:
        with self._database.connection() as connection:
            swap = swaps.latest(connection, self.space)
            if swap is None or not swap.is_open:
                return swap
            try:
                missing, _ = swaps.unembedded(connection, self.name, swap.spare)
            except CollectionNotFound:  # dropped just now
                missing = -1
        return replace(swap, missing=missing, notes=notes)

    def _swapped(self, notes: tuple[str, ...]) -> Swap:
        self._refresh()
        swap = self._found(notes)
        assert swap is not None
        return swap

    def _prepared(
        self, connection: Connection, swap: Swap, embedder: Embedder, asked: Asked, progress: bool | None
    ) -> Swap:
        """Do what is left to do until the new space could take over."""
        old, new = (spaces.find(self._database, self.name, space) for space in (swap.from_space, swap.to_space))
        check_embeddable(connection, self.name, new)
        self._given[new.name] = embedder
        title = f"embedding {self.name} into {new.name}"

        def enter(state: str) -> None:
            if swap.state not in ("ready", "rolled back"):  # these are it until they are compared anew
                swaps.advance(connection, swap, state)

        enter("backfilling")
        if embed_all(connection, new, embedder, title, progress).chunks:
            vacuum(connection, new)
        enter("indexing")
        notes = index_like(self._database, connection, old, new, progress)
        embed_all(connection, new, embedder, title, progress)
        enter("tuning")
        notes += self._tuned_like(old, new, asked, progress)
        enter("comparing")
        comparison = swap.comparison
        if comparison is None or asked.queries is not None:
            comparison = compare(self, connection, old, new, embedder, asked, progress)
        swaps.advance(connection, swap, "ready", comparison)
        return replace(swap, state="ready", comparison=comparison, notes=notes)

    def _tuned_like(self, old: Space, new: Space, asked: Asked, progress: bool | None) -> tuple[str, ...]:
        """Tune a space for what another is tuned for, unless it is; return what could not be done."""
        if not any(index.usable for index in self.indexes(space=new.name)):
            return ()
        done = {(profile.k, profile.target_recall) for profile in self.profiles(space=new.name)}
        wanted: dict[tuple[int, float | None], list[float]] = {}
        for profile in sorted(self.profiles(space=old.name), key=lambda profile: not profile.is_default):
            targets = wanted.setdefault((profile.k, profile.tail_share), [])
            if not profile.filter_class and profile.target_recall not in targets:
                targets.append(profile.target_recall)
        texts = asked.texts() or []
        notes = []
        for (k, tail_share), targets in wanted.items():
            if not targets or done.issuperset((k, target) for target in targets):
                continue
            try:
                self.tune(
                    targets,
                    k=k,
                    tail_share=tail_share,
                    queries=texts if len(texts) >= FEWEST_QUERIES else None,
                    space=new.name,
                    progress=progress,
                )
            except TuningError as error:  # searches have the usual settings then
                notes.append(f"{new.name} is not tuned for {k} neighbours: {error}")
        return tuple(notes)


def _check_good_enough(swap: Swap, min_overlap: float | None) -> None:
    compared = swap.comparison
    if compared is None:
        return
    problem = ""
    if compared.is_surely_worse:
        problem = f"the judged queries find less with {swap.to_model}"
    elif min_overlap is not None and compared.overlap < min_overlap:
        problem = f"of {compared.k} hits both have {compared.overlap:.2f} in common, less than {min_overlap}"
    if problem:
        raise SwapError(
            f"not switched: {problem}. All is ready; switch_model(), or `pgvec model switch`, does it anyway"
        )
