from __future__ import annotations

import threading

import numpy as np
import pytest

from pgvec_toolkit.embed import batching
from pgvec_toolkit.embed.batching import in_torch_threads, token_batches


def test_batches_hold_texts_of_one_length_within_the_budget() -> None:
    lengths = np.random.default_rng(1).integers(1, 300, size=500).tolist()
    batches = list(token_batches(lengths, budget=1024, most=32))
    assert sorted(position for batch in batches for position in batch) == list(range(500))
    assert all(max(lengths[at] for at in batch) * len(batch) <= 1024 and len(batch) <= 32 for batch in batches)
    padded = sum(max(lengths[at] for at in batch) * len(batch) for batch in batches)
    assert padded < 1.02 * sum(lengths)


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [([], []), ([5000], [[0]]), ([5000, 3], [[0], [1]]), ([3, 5000, 4], [[1], [2, 0]]), ([0, 0], [[0, 1]])],
)
def test_few_texts_and_texts_longer_than_the_budget(lengths: list[int], batches: list[list[int]]) -> None:
    assert list(token_batches(lengths, budget=1024, most=32)) == batches


@pytest.fixture
def four_torch_threads() -> object:
    torch = pytest.importorskip("torch", reason="needs the extra embed")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield torch
    torch.set_num_threads(before)


def test_threads_share_the_cores_and_leave_the_setting_of_others_alone(four_torch_threads: object) -> None:
    torch, seen, together = four_torch_threads, {}, threading.Barrier(4)

    def work(item: int) -> int:
        if threading.current_thread() is not threading.main_thread():
            if len(seen) < 4:
                together.wait(30)  # all four are at work at once
            seen[threading.get_ident()] = torch.get_num_threads()
        return item * item

    assert in_torch_threads(work, range(5)) == [0, 1, 4, 9, 16]
    assert list(seen.values()) == [1, 1, 1, 1]
    assert torch.get_num_threads() == 4
    elsewhere = []
    other = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert elsewhere == [4]


def test_an_interruption_leaves_the_setting_alone(four_torch_threads: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(threading.Barrier):
        def wait(self, timeout: float | None = None) -> int:
            place = super().wait(timeout)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return place

    monkeypatch.setattr(batching, "Barrier", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_torch_threads(lambda item: item, range(5))
    torch, elsewhere = four_torch_threads, []
    other = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert elsewhere == [4]


@pytest.mark.usefixtures("four_torch_threads")
def test_an_error_in_a_thread_is_raised_and_ends_the_others() -> None:
    done = []

    def work(item: int) -> int:
        if item == 1:
            raise KeyboardInterrupt
        done.append(item)
        return item

    with pytest.raises(KeyboardInterrupt):
        in_torch_threads(work, range(50))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pgvec-embed")]


@pytest.mark.usefixtures("four_torch_threads")
def test_a_thread_that_is_slow_to_start_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(threading.Barrier):
        """Is broken by an error elsewhere, while threads that have met are on their way out of it."""

        def wait(self, timeout: float | None = None) -> int:
            place = super().wait(timeout)
            if threading.current_thread() is not threading.main_thread():
                raise threading.BrokenBarrierError
            return place

    monkeypatch.setattr(batching, "Barrier", Broken)
    assert in_torch_threads(lambda item: item, range(5)) == [0, 1, 2, 3, 4]
