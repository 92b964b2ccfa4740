"""Hours of a steady load with a fault now and then, and a monitor that checks while it runs.

Each minute has a world of its own. As soon as its events are final, both stores and the ledger are compared with the
oracle. Meanwhile the monitor measures.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from random import Random
from statistics import median

import httpx
import psutil
import psycopg

from chaos import oracle
from chaos.faults import BY_NAME, Scene, revive
from chaos.load import FAULTS, MB, Measured, Progress, Stream, send_steadily, watched
from chaos.retrying import retried
from chaos.ui import AirflowUi
from chaos.verdict import Places, violations
from chaos.worlds import World, load_world
from local.platform.world import Platform

EVENTS_A_SECOND = 5
MINUTE_S = 60.0
FAULT_EVERY_S = 600.0
FIRST_FAULT_S = 120.0
SUPERVISED_EVERY_S = 5.0
"""How often, between two faults, Airflow's processes that have exited are started again."""
LOOK_EVERY_S = 5.0
FINAL_WITHIN_S = 600.0
"""Limit on the age of an event that is not final, whatever the fault."""


@dataclass
class Point(Measured):
    """One minute of a soak: of several values in it the highest, if nothing else is said."""

    checked: int = 0
    """Events so far whose world was compared with the oracle."""
    oldest_s: float = 0.0
    """Age of the oldest event that was not final."""
    files: dict[str, float] = field(default_factory=dict)
    """Open files and sockets, by process."""
    connections: dict[str, float] = field(default_factory=dict)
    """Connections to PostgreSQL, by database."""
    runs: int = 0
    """Runs that ended."""
    run_s: float = 0.0
    longest_run_s: float = 0.0
    """Seconds that a run took: median and longest."""


@dataclass
class Soak(Stream):
    """The result of a soak."""

    hours: float = 0.0
    points: list[Point] = field(default_factory=list)


class _Minute:
    """The world of a minute, and what became of it."""

    def __init__(self, platform: Platform, ledger: str, seed: int) -> None:
        self.world: World = load_world(seed, round(EVENTS_A_SECOND * MINUTE_S))
        self.states = oracle.states(self.world)
        self.progress = Progress(ledger, set(self.states))
        self.places: Places = []
        self.verdict: Future[list[str]] | None = None
        retried(partial(platform.add_users, self.world.users))
        retried(partial(platform.add_batches, self.world.batches))

    @property
    def final(self) -> bool:
        """Whether all of its messages were sent and all of its events are final."""
        return bool(self.progress.sent_at) and not self.progress.open


class _Running:
    """A soak that is under way."""

    def __init__(self, scene: Scene, platform: Platform, seed: int, hours: float) -> None:
        self.done = Soak(seed, hours=hours)
        self._scene, self._platform = scene, platform
        self._seconds = hours * 3600
        self._begun = time.monotonic()
        self._checker = ThreadPoolExecutor(1, "checker")
        self._open: list[_Minute] = []
        self._struck: list[str] = []
        self._failed: list[BaseException] = []
        self._over = threading.Event()
        self._checked = self._sent = 0

    def play(self, report: Callable[[Soak], None]) -> Soak:
        """Send, strike, look and measure until the hours are over and all is checked."""
        threads = [
            threading.Thread(target=self._guarded, args=(part,)) for part in (self._send, self._strike)
        ]
        for thread in threads:
            thread.start()
        with sampled(self._scene) as found:
            since = datetime.now(UTC)
            while (any(t.is_alive() for t in threads) or self._open) and not self._failed:
                point = Point(len(self.done.points) + 1)
                self._watch(point, threads)
                self._close(point, found, since)
                since = datetime.now(UTC)
                report(self.done)
        self._over.set()
        for thread in threads:
            thread.join()
        self._checker.shutdown()
        if self._failed:
            raise self._failed[0]
        return self.done

    def _guarded(self, part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001  # it is raised by the thread that waits for this one
            self._failed.append(error)

    def _send(self) -> None:
        """One world after the other; the next is made while one is sent."""
        ledger = self._scene.stack.addresses.ledger
        with ThreadPoolExecutor(1, "worlds") as pool:
            seeds = (self.done.seed * 100_000 + n for n in count())
            make = partial(_Minute, self._platform, ledger)
            following = pool.submit(make, next(seeds))
            while time.monotonic() - self._begun < self._seconds:
                minute, following = following.result(), pool.submit(make, next(seeds))
                self._open.append(minute)
                send_steadily(self._platform, minute.world, minute.progress, minute.places, seconds=MINUTE_S)

    def _strike(self) -> None:
        rng = Random(f"soak {self.done.seed}")
        for n in count():
            at = FIRST_FAULT_S + n * FAULT_EVERY_S
            if at > self._seconds:
                return
            while (left_s := self._begun + at - time.monotonic()) > 0:
                if self._over.wait(min(left_s, SUPERVISED_EVERY_S)):
                    return  # the other thread failed
                revive(self._scene.stack)
            name = FAULTS[n % len(FAULTS)]
            self._struck.append(name)
            BY_NAME[name].strike(self._scene, rng)

    def _watch(self, point: Point, threads: list[threading.Thread]) -> None:
        """Look at the events until the minute is over, or everything is."""
        while time.monotonic() - self._begun < point.minute * MINUTE_S:
            time.sleep(LOOK_EVERY_S)
            for minute in list(self._open):
                minute.progress.look()
                oldest_s = minute.progress.oldest_s
                point.oldest_s = max(point.oldest_s, round(oldest_s, 1))
                if oldest_s > FINAL_WITHIN_S:
                    open_ = sorted(minute.progress.open)
                    self.done.violations.append(
                        f"not final after {oldest_s:.0f} s: {len(open_)} events, the first {open_[0]}"
                    )
                    self._open.remove(minute)
                elif minute.final:
                    self._check(minute)
            if not self._open and not any(t.is_alive() for t in threads):
                return

    def _check(self, minute: _Minute) -> None:
        """Compare a minute's world with the oracle, beside the load, and take in what came of it."""
        if minute.verdict is None:
            ask = partial(violations, self._scene.stack, self._platform, minute.world, minute.places)
            minute.verdict = self._checker.submit(retried, ask)
        elif minute.verdict.done():
            self.done.violations += minute.verdict.result()
            self.done.messages += len(minute.world.messages)
            self.done.batches += len(minute.world.batches)
            self.done.events += len(minute.states)
            self.done.states = dict(Counter(self.done.states) + Counter(minute.states.values()))
            self._sent += len(minute.world.messages)
            self._open.remove(minute)

    def _close(self, point: Point, found: _Samples, since: datetime) -> None:
        point.fault, self._struck = ", ".join(self._struck), []
        self.done.faults += [point.fault] if point.fault else []
        point.checked = self.done.events
        point.sent = self._sent + sum(m.progress.messages for m in list(self._open))
        found.add_to(point)
        seconds: list[float] = []
        with (
            suppress(httpx.HTTPError, ValueError),
            AirflowUi.at(self._scene.stack) as ui,
        ):  # it may be broken now
            seconds = ui.seconds_of_runs(since)
        point.runs = len(seconds)
        point.run_s = round(median(seconds), 1) if seconds else 0.0
        point.longest_run_s = round(max(seconds, default=0.0), 1)
        self.done.points.append(point)


def play_soak(
    scene: Scene, platform: Platform, seed: int, hours: float, report: Callable[[Soak], None]
) -> Soak:
    """Play a soak; `report` gets what there is so far after each minute."""
    return _Running(scene, platform, seed, hours).play(report)


@dataclass
class _Samples:
    """The highest values since they were last taken, by name."""

    memory_mb: dict[str, float] = field(default_factory=dict)
    files: dict[str, float] = field(default_factory=dict)
    connections: dict[str, float] = field(default_factory=dict)

    def add_to(self, point: Point) -> None:
        """Hand the values over, and begin anew."""
        for kind in ("memory_mb", "files", "connections"):
            setattr(point, kind, dict(sorted(getattr(self, kind).items())))
            setattr(self, kind, {})


@contextmanager
def sampled(scene: Scene) -> Iterator[_Samples]:
    """Measure every LOOK_EVERY_S seconds, in a thread."""
    found, over = _Samples(), threading.Event()

    def sample() -> None:
        while not over.wait(LOOK_EVERY_S):
            for name, process in watched(scene):
                with suppress(psutil.Error):
                    _raise(found.memory_mb, name, process.memory_info().rss / MB)
                    _raise(found.files, name, process.num_fds())
            with suppress(psycopg.Error):
                for database, number in _connections(scene.stack.addresses.ledger):
                    _raise(found.connections, database, number)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _raise(highest: dict[str, float], name: str, value: float) -> None:
    highest[name] = max(highest.get(name, 0), round(value))


def _connections(ledger: str) -> list[tuple[str, int]]:
    question = "SELECT datname, count(*) FROM pg_stat_activity WHERE datname IS NOT NULL GROUP BY datname"
    with psycopg.connect(ledger, autocommit=True, connect_timeout=5) as connection:
        return connection.execute(question).fetchall()
