from __future__ import annotations

import threading

import pytest

from ownership.pools import pooled


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
