"""Threads for calls that wait for a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def prefetch(*sources: Iterator[T]) -> Iterator[T]:
    """The items of all `sources` as they come; while the caller works on one, the next of each is fetched."""
    with pooled(len(sources)) as pool:
        coming = {pool.submit(next, source, None): source for source in sources}
        while coming:
            for done in wait(coming, return_when=FIRST_COMPLETED).done:
                source, item = coming.pop(done), done.result()
                if item is not None:
                    coming[pool.submit(next, source, None)] = source
                    yield item


@contextmanager
def pooled(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `threads`. An exception that leaves the block waits for nothing and lets nothing more begin.

    The standard pool waits at its end for all that was given to it, however much that is.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
