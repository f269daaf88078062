from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from pgvec_toolkit.ingest import overlap
from pgvec_toolkit.ingest.overlap import prepared_ahead

WAIT = 30  # seconds that no test takes


def test_items_come_in_order_and_are_drawn_in_the_callers_thread() -> None:
    drawn_in, prepared_in = set(), set()

    def items() -> Iterator[int]:
        for item in range(20):
            drawn_in.add(threading.current_thread())
            yield item

    def prepare(item: int) -> int:
        prepared_in.add(threading.current_thread())
        return item * item

    assert list(prepared_ahead(items(), prepare, ahead=3)) == [item * item for item in range(20)]
    assert drawn_in == {threading.current_thread()}
    assert len(prepared_in) == 1
    assert not (drawn_in | {threading.main_thread()}) & prepared_in


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_are_drawn_than_allowed(ahead: int) -> None:
    drawn = []

    def items() -> Iterator[int]:
        for item in range(10):
            drawn.append(item)
            yield item

    for prepared in prepared_ahead(items(), int, ahead):
        assert drawn[-1] <= prepared + ahead


def test_next_is_prepared_while_the_caller_is_busy() -> None:
    second = threading.Event()

    def prepare(item: int) -> int:
        if item == 1:
            second.set()
        return item

    for item in prepared_ahead(range(2), prepare):
        assert item == 1 or second.wait(WAIT)


def test_an_error_comes_after_all_before_it() -> None:
    def prepare(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    def broken() -> Iterator[int]:
        yield from range(2)
        raise ValueError("two")

    for prepared in (prepared_ahead(range(9), prepare, 4), prepared_ahead(broken(), int, 4)):
        assert [next(prepared), next(prepared)] == [0, 1]
        with pytest.raises(ValueError, match="two"):
            next(prepared)


def test_nothing_more_is_prepared_when_the_caller_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgvec_toolkit.ingest.overlap._PATIENCE", WAIT)
    begun, go_on, end = [], threading.Event(), overlap._Preparing.end

    def prepare(item: int) -> int:
        begun.append(item)
        assert item == 0 or go_on.wait(WAIT)
        return item

    def ended(thread: overlap._Preparing[int, int]) -> None:
        go_on.set()
        end(thread)

    monkeypatch.setattr(overlap._Preparing, "end", ended)
    prepared = prepared_ahead(range(9), prepare, 3)
    with closing(prepared):
        assert next(prepared) == 0
    threads = [thread for thread in threading.enumerate() if thread.name == "pgvec-prepare"]
    assert not threads
    assert begun in ([0], [0, 1])


def test_interrupt_does_not_wait_for_what_is_being_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgvec_toolkit.ingest.overlap._PATIENCE", 0.01)
    never, left = threading.Event(), []

    def prepare(item: int) -> int:
        if item == 1:
            left.append(threading.current_thread())
            never.wait(WAIT)
        return item

    def interrupted() -> None:
        with closing(prepared_ahead(range(3), prepare)) as prepared:
            next(prepared)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(thread.daemon for thread in left)
    never.set()
    for thread in left:
        thread.join(WAIT)
