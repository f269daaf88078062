"""Batches for a model on this machine: texts of about the same length, some thousand tokens at once, side by side.

A batch is padded to its longest text. Of 5,000 package descriptions in batches of 32, sorted by characters, more than
every fifth token is padding; sorted by tokens, with a bound on the tokens of a batch, one in two hundred is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import numpy as np

_THREADS = 8  # at most: what is Python in a model is done by one thread at a time
_Batch = TypeVar("_Batch")
_Out = TypeVar("_Out")


def token_batches(tokens: Sequence[int], budget: int, most: int) -> Iterator[list[int]]:
    """Yield the positions of texts that are embedded at once, the longest first.

    Args:
        tokens: of each text, as the model reads it.
        budget: tokens of a batch, padding counted; a longer text is a batch of its own.
        most: texts of a batch.
    """
    lengths = np.maximum(np.asarray(tokens, dtype=np.intp), 1)
    order = np.argsort(-lengths, kind="stable").tolist()
    start = 0
    while start < len(order):
        count = min(most, max(1, budget // int(lengths[order[start]])))
        yield order[start : start + count]
        start += count


def in_torch_threads(work: Callable[[_Batch], _Out], batches: Sequence[_Batch]) -> list[_Out]:
    """Return work(batch) of each; done side by side, on as many cores as torch would take for one.

    Cores that share each step of a model wait for each other after each step; with a batch each they do not.
    """
    import torch

    threads = torch.get_num_threads()
    workers = min(threads, _THREADS, len(batches) - 1)
    if workers < 2:
        return [work(batch) for batch in batches]
    # Alone: a tokenizer is told once how to pad, and others may not be using it then.
    last = work(batches[-1])
    ready = Barrier(workers + 1)

    def prepare() -> None:
        torch.set_num_threads(threads // workers)
        torch.get_num_threads()  # from now on this thread has a number of its own
        # If one were to fail here, it would take from the others what tells them to end.
        with suppress(BrokenBarrierError):
            ready.wait()

    executor = ThreadPoolExecutor(workers, thread_name_prefix="pgvec-embed", initializer=prepare)
    try:
        futures = [executor.submit(work, batch) for batch in batches[:-1]]
        ready.wait()
        torch.set_num_threads(threads)  # of all other threads, from now on
        return [*(future.result() for future in futures), last]
    finally:
        ready.abort()  # if not all threads came to start
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # nor are they left with another if it came to an end before
