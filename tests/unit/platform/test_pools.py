from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ownership.platform.pools import pooled, prefetch


def test_everything_is_done_at_the_end() -> None:
    done: list[int] = []
    with pooled(3) as pool:
        for n in range(20):
            pool.submit(done.append, n)
    assert sorted(done) == list(range(20))


def test_an_exception_waits_for_nothing_and_lets_nothing_more_begin() -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    done: list[int] = []

    def work(n: int) -> None:
        begun.release()
        assert go_on.wait(20)
        done.append(n)

    with pytest.raises(KeyboardInterrupt), pooled(2) as pool:  # noqa: PT012  # that it is left is what is tested
        futures = [pool.submit(work, n) for n in range(50)]
        for _ in range(2):
            assert begun.acquire(timeout=20)
        raise KeyboardInterrupt

    assert done == []
    go_on.set()
    assert [f.cancelled() for f in futures[2:]] == [True] * 48
    for f in futures[:2]:
        f.result(timeout=20)
    assert sorted(done) == [0, 1]


def test_the_next_item_is_fetched_while_one_is_worked_on() -> None:
    fetched = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        fetched.set()
        yield 2

    coming = prefetch(items())
    assert next(coming) == 1
    assert fetched.wait(10)
    assert list(coming) == [2]


def test_what_fails_ahead_fails_where_it_is_wanted() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    coming = prefetch(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="no more"):
        next(coming)
