"""Faults in real processes: each strikes, holds for some seconds, and is taken back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx
import psutil
from elasticsearch import Elasticsearch

from local.airflow import COMPONENTS
from local.schema import BATCH_INDEX, connect_elasticsearch
from local.stack import Stack

TASK = "task runner"
"""In the title of a process that runs a task's code."""
STAGES = (
    "pull_transfer_events",
    "lookup_users",
    "update_course_batches",
    "reindex_course_batches",
    "settle",
)
STORES = ("kafka", "cassandra", "elasticsearch")
SERVICE_MODES = ("503", "slow", "drop", "garbage", "half")
LONGEST_HOLD_S = 45.0
"""Beyond every time-out of the job's clients: 10 s for Cassandra and Kafka, 30 s for Elasticsearch."""

Hold = Callable[[], None]
"""Lets the fault last; what is under way meanwhile meets it."""


@dataclass(frozen=True)
class Fault:
    """One way to break something."""

    name: str
    seconds: tuple[float, float]
    """How long it lasts, from and to."""
    during: Callable[[Stack, Random], Any]
    """A context manager: broken inside, whole again outside."""

    def strike(self, stack: Stack, rng: Random) -> float:
        """Break it, hold, mend it. Returns the seconds that it was broken."""
        begun = time.monotonic()
        with self.during(stack, rng):
            time.sleep(rng.uniform(*self.seconds))
        return time.monotonic() - begun


@contextmanager
def _nothing(_: Stack, __: Random) -> Iterator[None]:
    yield


@contextmanager
def _tasks_killed(stack: Stack, _: Random) -> Iterator[None]:
    for process in task_processes(stack):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    yield


@contextmanager
def _tasks_frozen(stack: Stack, _: Random) -> Iterator[None]:
    """Past the life of their claim: others take over, and the old holders wake up beside them."""
    frozen = list(task_processes(stack))
    for process in frozen:
        with suppress(psutil.Error):
            process.suspend()
    try:
        yield
    finally:
        for process in frozen:
            with suppress(psutil.Error):
                process.resume()


def task_processes(stack: Stack) -> Iterator[psutil.Process]:
    """The processes in which tasks run now."""
    scheduler = stack.servers["scheduler"].pid
    if scheduler is None:
        return
    with suppress(psutil.Error):
        for process in psutil.Process(scheduler).children(recursive=True):
            with suppress(psutil.Error):
                if TASK in " ".join(process.cmdline()):
                    yield process


def _killed(*names: str) -> Callable[[Stack, Random], Any]:
    @contextmanager
    def during(stack: Stack, _: Random) -> Iterator[None]:
        for name in names:
            stack.servers[name].kill()
        try:
            yield
        finally:
            for name in names:
                stack.servers[name].start()
            for name in names:
                stack.servers[name].wait_ready()

    return during


def _stopped(name: str) -> Callable[[Stack, Random], Any]:
    @contextmanager
    def during(stack: Stack, _: Random) -> Iterator[None]:
        stack.servers[name].stop()
        try:
            yield
        finally:
            stack.servers[name].restart()

    return during


def _frozen(name: str) -> Callable[[Stack, Random], Any]:
    @contextmanager
    def during(stack: Stack, _: Random) -> Iterator[None]:
        server = stack.servers[name]
        server.freeze()
        try:
            yield
        finally:
            server.thaw()

    return during


def _service(name: str, mode: str) -> Callable[[Stack, Random], Any]:
    @contextmanager
    def during(stack: Stack, rng: Random) -> Iterator[None]:
        url = f"{getattr(stack.addresses, name)}/_faults"
        httpx.put(url, json={"mode": mode, "seconds": rng.uniform(2, 25)}, timeout=10).raise_for_status()
        try:
            yield
        finally:
            httpx.delete(url, timeout=10).raise_for_status()

    return during


@contextmanager
def _index_full(stack: Stack, _: Random) -> Iterator[None]:
    """What Elasticsearch does by itself when a disk is nearly full: it refuses writes and takes deletions."""
    client: Elasticsearch = connect_elasticsearch(stack.addresses.elasticsearch)
    setting = "index.blocks.read_only_allow_delete"
    client.indices.put_settings(index=BATCH_INDEX, settings={setting: True})
    try:
        yield
    finally:
        client.indices.put_settings(index=BATCH_INDEX, settings={setting: None})
        client.close()


FAULTS: Sequence[Fault] = (
    Fault("nothing", (0, 0), _nothing),
    Fault("task processes killed", (0, 0), _tasks_killed),
    Fault("task processes frozen", (20, LONGEST_HOLD_S), _tasks_frozen),
    Fault("scheduler killed", (0, 10), _killed("scheduler")),
    Fault("triggerer killed", (0, 10), _killed("triggerer")),
    Fault("API server killed", (0, 10), _killed("api-server")),
    Fault("Airflow killed", (0, 10), _killed(*COMPONENTS)),
    Fault("API server frozen", (5, 20), _frozen("api-server")),
    *(Fault(f"{name} stopped", (2, 20), _stopped(name)) for name in STORES),
    *(Fault(f"{name} killed", (0, 20), _killed(name)) for name in STORES),
    *(Fault(f"{name} frozen", (12, LONGEST_HOLD_S), _frozen(name)) for name in STORES),
    *(
        Fault(f"{name} answers {mode}", (3, 20), _service(name, mode))
        for name in ("lms", "userorg")
        for mode in SERVICE_MODES
    ),
    Fault("index read-only", (5, 20), _index_full),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
