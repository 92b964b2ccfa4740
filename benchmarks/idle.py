"""The watcher without events: its memory, connections, CPU, and the runs it starts (none expected)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import psutil

SAMPLE_SECONDS = 5.0
SETTLE_SECONDS = 60.0
"""Wait before the first sample: a triggerer that has just started is still importing."""
MAX_CPU_PERCENT = 2.0
"""Limit of the watcher's CPU, in percent of one core."""
MAX_GROWTH_MB = 2.0
"""Limit of the memory's growth between the medians of the first and the last third; a heap's pages vary this much."""


@dataclass(frozen=True)
class Look:
    """One sample of the triggerer's processes."""

    at_s: float
    rss_mb: float
    connections: int
    files: int
    threads: int
    cpu_s: float


@dataclass(frozen=True)
class Idle:
    """The watcher's resource usage during `minutes` without events."""

    minutes: float
    looks: list[Look]
    runs_started: int

    @property
    def cpu_percent(self) -> float:
        """CPU of the whole triggerer, Airflow's own part included, in percent of one core."""
        first, last = self.looks[0], self.looks[-1]
        return 100 * (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)

    def growth(self, of: Callable[[Look], float]) -> float:
        """Median of the last third of the looks minus that of the first."""
        third = max(1, len(self.looks) // 3)
        return median(map(of, self.looks[-third:])) - median(map(of, self.looks[:third]))

    def summary(self) -> dict[str, Any]:
        """Figures and verdict, as JSON."""
        growth = {
            "rss_mb": round(self.growth(lambda s: s.rss_mb), 2),
            "connections": self.growth(lambda s: s.connections),
            "files": self.growth(lambda s: s.files),
            "threads": self.growth(lambda s: s.threads),
        }
        hit = (
            self.cpu_percent < MAX_CPU_PERCENT
            and self.runs_started == 0
            and growth["rss_mb"] <= MAX_GROWTH_MB
            and all(growth[name] <= 0 for name in ("connections", "files", "threads"))
        )
        return {
            "minutes": self.minutes,
            "cpu_percent_of_a_core": round(self.cpu_percent, 2),
            "growth": growth,
            "rss_mb": round(self.looks[-1].rss_mb, 1),
            "connections": self.looks[-1].connections,
            "runs_started": self.runs_started,
            "must_reach": f"no growth, no runs, under {MAX_CPU_PERCENT:g} % of a core",
            "hit": hit,
            "looks": [asdict(s) for s in self.looks[:: max(1, len(self.looks) // 20)]],
        }


def watch(triggerer: int, minutes: float, runs: Callable[[], int]) -> Idle:
    """Sample the process `triggerer` and its children for `minutes`; `runs` returns the number of the job's runs so far."""
    time.sleep(SETTLE_SECONDS)
    before, begun = runs(), time.monotonic()
    looks = [_look(triggerer, begun)]
    while time.monotonic() - begun < minutes * 60:
        time.sleep(SAMPLE_SECONDS)
        looks.append(_look(triggerer, begun))
    return Idle(minutes, looks, runs() - before)


def _look(pid: int, begun: float) -> Look:
    root = psutil.Process(pid)
    rss = connections = files = threads = 0
    cpu = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):
            rss += process.memory_info().rss
            connections += len(process.net_connections("tcp"))
            files += process.num_fds()
            threads += process.num_threads()
            cpu += sum(process.cpu_times()[:2])
    return Look(
        round(time.monotonic() - begun, 1), round(rss / 2**20, 2), connections, files, threads, round(cpu, 2)
    )
