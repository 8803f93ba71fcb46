"""Laws of work on several threads."""

from __future__ import annotations

import threading

import pytest

from builder.support.threads import OfEachThread, beside


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    last = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert last.wait(60)  # the first is done after the second
        if item == 1:
            last.set()
        return item * item

    assert list(beside(work, range(40), threads=2)) == [i * i for i in range(40)]


def test_nothing_gives_nothing() -> None:
    assert list(beside(str, [])) == []


def test_an_error_is_raised_where_its_result_would_come() -> None:
    found = beside(lambda item: 6 // item, [3, 2, 0, 1])
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_only_a_few_items_are_taken_ahead() -> None:
    taken = list[int]()
    found = beside(int, (taken.append(i) or i for i in range(1000)), threads=2)  # type: ignore[func-returns-value]
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert len(taken) < 20


def test_each_thread_makes_one_of_its_own() -> None:
    made = OfEachThread(object)
    both = threading.Barrier(2)

    def work(_: int) -> object:
        both.wait(60)  # so that two threads are at it
        return made()

    first, second = beside(work, range(2), threads=2)
    assert first is not second
    assert made() is made()
