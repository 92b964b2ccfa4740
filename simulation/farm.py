"""Processes that play worlds, each with a ledger of its own on one PostgreSQL."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine

from local.servers.layout import Layout
from local.servers.postgres import server

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 4
"""Items that a process is given at once."""
_engines: list[Engine] = []
"""The ledger of this process."""
_opened = ExitStack()


class Farm:
    """Processes with a ledger each."""

    def __init__(self, pool: ProcessPoolExecutor, processes: int) -> None:
        self._pool = pool
        self.processes = processes

    def map(
        self, play: Callable[[Engine, T], R], items: Iterable[T], *, at_once: int = AT_ONCE
    ) -> Iterator[R]:
        """The results of `play(engine, item)`, in order; `play` is a function of a module.

        However many items there are, only a few are under way: the caller may stop at any time. A process is given
        `at_once`: 1 where each takes long.
        """
        todo = iter(items)
        under_way: list[Future[list[R]]] = []
        while True:
            while len(under_way) < 2 * self.processes and (part := list(islice(todo, at_once))):
                under_way.append(self._pool.submit(_play_all, play, part))
            if not under_way:
                return
            yield from under_way.pop(0).result()


@contextmanager
def opened_farm(processes: int | None = None) -> Iterator[Farm]:
    """A farm of `processes`, by default one for each core.

    Every process has the same order of sets, so a seed means the same in each. SIGTERM ends the block as SIGINT does.
    """
    count = processes or os.cpu_count() or 1
    with ExitStack() as stack:
        stack.enter_context(_interrupted_by_sigterm())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ownership-sim-"))
        postgres = stack.enter_context(server(Layout.of(Path(folder) / "ledger")))
        stack.enter_context(_environment(PYTHONHASHSEED="0", AIRFLOW_HOME=str(Path(folder) / "airflow")))
        pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(postgres.address,),
        )
        try:
            yield Farm(pool, count)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, so that the server is stopped. Only a main thread can be told so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(**names: str) -> Iterator[None]:
    """Environment of the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(socket_folder: str) -> None:
    from simulation import seams
    from simulation.stores.ledger import opened_engine

    seams.silence()
    _engines.append(_opened.enter_context(opened_engine(socket_folder, f"sim_{os.getpid()}")))
    # The collector would walk through all of Airflow's modules again and again: a fifth of a world's CPU.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _play_all(play: Callable[[Engine, T], R], items: list[T]) -> list[R]:
    return list(map(partial(play, _engines[0]), items))
