"""Where the simulation takes the place of clock, sleep, threads and drivers, while a world runs in this process."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Self
from unittest.mock import patch
from uuid import UUID

import stamina
import structlog

from ownership.domain import clock
from ownership.edge import tasks
from ownership.ledger import changes
from ownership.ledger.database import TRIES
from ownership.platform import cassandra, dead_letters, kafka, pools, search_index, user_org
from ownership.reconcile import run as reconcile
from ownership.stages import reindex, update
from simulation.scheduler import Scheduler

ROWS_PER_WAVE = 2
"""Instead of a thousand: a small world has several waves, too."""


class InlinePool:
    """A thread pool that does what it is given at once: a call to the world is what may be interrupted."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """The call, done."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as e:  # noqa: BLE001  # it is the caller's
            future.set_exception(e)
        return future

    def map(self, call: Callable[..., Any], *items: Any) -> Iterator[Any]:
        """The results, in order."""
        return iter([call(*args) for args in zip(*items, strict=False)])

    def shutdown(self, **_: Any) -> None:
        """Nothing is under way."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        """Nothing to wait for."""


def silence() -> None:
    """Let the product's log lines cost nothing."""
    logging.disable(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )


@contextmanager
def installed(world: Any, seed: int) -> Iterator[None]:
    """The product in this process works in `world` until the end of the block."""
    scheduler: Scheduler = world.scheduler
    rng = random.Random(f"product:{seed}")
    fake_time = SimpleNamespace(
        time=lambda: scheduler.now_ms / 1000,
        monotonic=lambda: scheduler.now_ms / 1000,
        sleep=lambda seconds: scheduler.sleep(seconds * 1000),
    )
    state = random.getstate()
    random.seed(f"jitter:{seed}")
    with ExitStack() as stack:

        def put(module: ModuleType, **attributes: Any) -> None:
            for name, value in attributes.items():
                stack.enter_context(patch.object(module, name, value))

        for module in (clock, reindex, cassandra, dead_letters, kafka, user_org):
            put(module, time=fake_time)
        for module in (update, pools, user_org):
            put(module, ThreadPoolExecutor=InlinePool)
        put(kafka, within=lambda _seconds, _what, call: call())
        put(update, ROWS_PER_WAVE=ROWS_PER_WAVE)
        put(reindex, ROWS_PER_WAVE=ROWS_PER_WAVE, DOCUMENTS_PER_WAVE=ROWS_PER_WAVE)
        put(cassandra, execute_concurrent=world.rows.execute_concurrent, BatchStatement=world.batch_statement)
        put(search_index, streaming_bulk=world.index.streaming_bulk)
        put(changes, uuid4=lambda: UUID(int=rng.getrandbits(128), version=4))
        # For speed the simulation's server is not durable, which the check would refuse.
        put(reconcile, check_ledger=lambda _: None)
        put(tasks, **world.airflow.edge())
        stamina.set_testing(True, attempts=TRIES, cap=True)
        try:
            yield
        finally:
            stamina.set_testing(False)
            random.setstate(state)
