"""A steady stream of many events with a fault a minute, and at the end the same checks as after a round."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from statistics import median
from typing import Any

import psutil

from chaos import oracle
from chaos.faults import BY_NAME, Scene, task_processes
from chaos.retrying import retried
from chaos.verdict import Places, violations
from chaos.worlds import World, load_world
from local.demo.outcome import events_of
from local.demo.story import REJECTED
from local.platform.world import Platform
from local.servers.airflow import COMPONENTS

FAULTS = (
    "task processes killed",
    "elasticsearch killed",
    "userorg answers 503",
    "scheduler killed",
    "cassandra frozen",
    "kafka killed",
    "running runs cleared",
    "index read-only",
    "Airflow killed",
    "cassandra killed",
    "postgres killed",
)
"""One a minute, in this order."""
EVERY_S = 60.0
FINAL_WITHIN_S = 1200.0
SAMPLE_EVERY_S = 1.0
LOOK_EVERY_S = 5.0
MB = 1 << 20


@dataclass
class Measured:
    """What was measured in one minute of a stream."""

    minute: int
    fault: str = ""
    """The fault that struck in it."""
    sent: int = 0
    """Messages sent so far."""
    memory_mb: dict[str, float] = field(default_factory=dict)
    """Peak resident memory of each process; of tasks the largest."""


@dataclass
class Minute(Measured):
    """One minute of the load."""

    final: int = 0
    """Number of events that were final at its end."""
    known: int = 0
    """Number of events that had been sent by its end."""


@dataclass
class Stream:
    """The result of a stream of messages."""

    seed: int
    messages: int = 0
    events: int = 0
    batches: int = 0
    states: dict[str, int] = field(default_factory=dict)
    """Events by their final state."""
    faults: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


@dataclass
class Load(Stream):
    """The result of a load."""

    sent_s: float = 0.0
    final_s: float = 0.0
    """From the last message until every event was final."""
    minutes: list[Minute] = field(default_factory=list)


def play_load(
    scene: Scene, platform: Platform, seed: int, count: int, report: Callable[[Minute], None]
) -> Load:
    """Send `count` messages in as many minutes as there are faults; report after each minute."""
    world = load_world(seed, count)
    wanted = oracle.states(world)
    done = Load(seed, len(world.messages), len(wanted), len(world.batches))
    platform.add_users(world.users)
    platform.add_batches(world.batches)
    ledger = scene.stack.addresses.ledger
    progress = Progress(ledger, set(wanted))
    failed: list[BaseException] = []
    places: Places = []
    begun = time.monotonic()
    sending = threading.Thread(target=_send, args=(platform, world, progress, places, failed))
    striking = threading.Thread(target=_strike, args=(scene, seed, done, failed))
    with sampled(scene) as memory:
        for thread in (sending, striking):
            thread.start()
        while (sending.is_alive() or striking.is_alive() or progress.open) and not failed:
            minute = Minute(len(done.minutes) + 1)
            while time.monotonic() - begun < minute.minute * EVERY_S and (
                sending.is_alive() or striking.is_alive() or progress.open
            ):
                time.sleep(LOOK_EVERY_S)
                progress.look()
            _close(minute, done, progress, memory)
            report(minute)
            if time.monotonic() - begun > len(FAULTS) * EVERY_S + FINAL_WITHIN_S:
                break
        sending.join()
        striking.join()
    if failed:
        raise failed[0]
    done.sent_s = round(progress.sent_at - begun, 1)
    done.final_s = round(max(progress.final_at - progress.sent_at, 0), 1)
    done.states = dict(Counter(e.state for e in events_of(ledger, wanted).values()))
    done.violations += violations(scene.stack, platform, world, places)
    return done


class Progress:
    """Keeps track of the events that are sent and final."""

    def __init__(self, ledger: str, events: set[str]) -> None:
        self._ledger = ledger
        self._events = len(events)
        self.open: set[str] = set(events)
        self.sent: dict[str, float] = {}
        """When each event was sent, by its mid; seconds of the monotonic clock."""
        self.messages = 0
        self.sent_at = self.final_at = 0.0

    def look(self) -> None:
        """Read the states of the sent, not yet final events from the ledger."""
        asked = list(self.open & self.sent.keys())
        with suppress(Exception):  # a failed read is repeated at the next call
            found = events_of(self._ledger, asked)
            self.open -= {mid for mid, e in found.items() if e.final}
        if not self.open and not self.final_at:
            self.final_at = time.monotonic()

    @property
    def final(self) -> int:
        """Number of final events."""
        return self._events - len(self.open)

    @property
    def oldest_s(self) -> float:
        """How long ago the oldest event was sent that is not final; 0 if all are."""
        now = time.monotonic()
        return max((now - self.sent[mid] for mid in self.open & self.sent.keys()), default=0.0)


def _send(
    platform: Platform, world: World, progress: Progress, places: Places, failed: list[BaseException]
) -> None:
    try:
        send_steadily(platform, world, progress, places, seconds=EVERY_S * len(FAULTS))
    except BaseException as error:  # noqa: BLE001  # it is raised by the thread that waits for this one
        failed.append(error)


def send_steadily(
    platform: Platform, world: World, progress: Progress, places: Places, *, seconds: float
) -> None:
    """Send messages at a constant rate, all within `seconds`, each event with the time of its sending."""
    begun, count = time.monotonic(), len(world.messages)
    messages = world.messages
    stamped: set[str] = set()
    while progress.messages < count:
        due = min(count, int((time.monotonic() - begun) / seconds * count) + 1)
        batch = messages[progress.messages : due]
        for n, m in enumerate(batch):
            if isinstance(m.value, dict) and m.value["mid"] not in stamped:
                stamped.add(m.value["mid"])
                m.value["ets"] = int(time.time() * 1000) - len(batch) + n
        there = retried(partial(platform.emit_all, [m.value for m in batch]))
        new = [
            ("" if m.expected == REJECTED else m.mid(place), place)
            for m, place in zip(batch, there, strict=True)
        ]
        places += new
        now = time.monotonic()
        for mid in (mid for mid, _ in new if mid):
            progress.sent.setdefault(mid, now)
        progress.messages = due
        time.sleep(0.5)
    progress.sent_at = time.monotonic()


def _strike(scene: Scene, seed: int, done: Load, failed: list[BaseException]) -> None:
    rng = Random(f"load {seed}")
    begun = time.monotonic()
    try:
        for n, name in enumerate(FAULTS):
            time.sleep(max(0.0, begun + (n + 0.5) * EVERY_S - time.monotonic()))
            done.faults.append(name)
            BY_NAME[name].strike(scene, rng)
    except BaseException as error:  # noqa: BLE001  # it is raised by the thread that waits for this one
        failed.append(error)


def _close(minute: Minute, done: Load, progress: Progress, memory: dict[str, list[float]]) -> None:
    struck = len(done.minutes)
    minute.fault = FAULTS[struck] if struck < len(FAULTS) else ""
    minute.sent, minute.known, minute.final = progress.messages, len(progress.sent), progress.final
    minute.memory_mb = {name: round(max(seen)) for name, seen in sorted(memory.items()) if seen}
    for seen in memory.values():
        seen.clear()
    done.minutes.append(minute)


@contextmanager
def sampled(scene: Scene) -> Iterator[dict[str, list[float]]]:
    """Resident memory (MB) of Airflow's processes and of the largest task process, once a second, by name."""
    found: dict[str, list[float]] = defaultdict(list)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_EVERY_S):
            for name, process in watched(scene):
                with suppress(psutil.Error):
                    found[name].append(process.memory_info().rss / MB)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def watched(scene: Scene) -> Iterator[tuple[str, psutil.Process]]:
    """Airflow's processes by name, and each process that runs a task as "task"."""
    for name in COMPONENTS:
        with suppress(psutil.Error):
            yield name, psutil.Process(scene.stack.servers[name].pid)
    yield from (("task", process) for process in task_processes(scene.stack))


def growth(minutes: Sequence[Minute], name: str) -> tuple[float, float]:
    """Median of a process's peak memory (MB) in the first and in the last third of the minutes with a sample."""
    seen = [m.memory_mb[name] for m in minutes if name in m.memory_mb]
    third = max(1, len(seen) // 3)
    return (median(seen[:third]), median(seen[-third:])) if seen else (0.0, 0.0)


def memory_growth(load: Load) -> dict[str, Any]:
    """`growth` of every process, by name."""
    names = sorted({name for m in load.minutes for name in m.memory_mb})
    return {name: growth(load.minutes, name) for name in names}
