"""The watcher while nothing happens: its memory, connections, CPU, and the runs that it starts (none)."""

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
"""Before the first sample: a triggerer that has just started is still importing."""
CPU_PERCENT = 2.0
"""Of one core, that the watcher may take."""
GROWTH_MB = 2.0
"""Between the medians of the first and the last third that count as none: what a heap's pages do by themselves."""


@dataclass(frozen=True)
class Look:
    """The triggerer's processes at one moment."""

    at_s: float
    rss_mb: float
    connections: int
    files: int
    threads: int
    cpu_s: float


@dataclass(frozen=True)
class Idle:
    """What the watcher needed in some minutes without an event."""

    minutes: float
    looks: list[Look]
    runs_started: int

    @property
    def cpu_percent(self) -> float:
        """Of one core; the whole triggerer, Airflow's own part included."""
        first, last = self.looks[0], self.looks[-1]
        return 100 * (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)

    def growth(self, of: Callable[[Look], float]) -> float:
        """Median of the last third of the looks minus that of the first."""
        third = max(1, len(self.looks) // 3)
        return median(map(of, self.looks[-third:])) - median(map(of, self.looks[:third]))

    def told(self) -> dict[str, Any]:
        """Figures and verdict, as JSON."""
        growth = {
            "rss_mb": round(self.growth(lambda s: s.rss_mb), 2),
            "connections": self.growth(lambda s: s.connections),
            "files": self.growth(lambda s: s.files),
            "threads": self.growth(lambda s: s.threads),
        }
        hit = (
            self.cpu_percent < CPU_PERCENT
            and self.runs_started == 0
            and growth["rss_mb"] <= GROWTH_MB
            and all(growth[name] <= 0 for name in ("connections", "files", "threads"))
        )
        return {
            "minutes": self.minutes,
            "cpu_percent_of_a_core": round(self.cpu_percent, 2),
            "growth": growth,
            "rss_mb": round(self.looks[-1].rss_mb, 1),
            "connections": self.looks[-1].connections,
            "runs_started": self.runs_started,
            "must_reach": f"no growth, no runs, under {CPU_PERCENT:g} % of a core",
            "hit": hit,
            "looks": [asdict(s) for s in self.looks[:: max(1, len(self.looks) // 20)]],
        }


def watch(triggerer: int, minutes: float, runs: Callable[[], int]) -> Idle:
    """Look at the process `triggerer` and its children for some minutes; `runs` counts the job's runs so far."""
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
