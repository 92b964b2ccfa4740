"""Threads for calls that wait for somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


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
