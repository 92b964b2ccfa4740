"""The machine, and the cost of a measurement: CPU by part, peak memory of task processes."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from local.servers.processes import Server

SAMPLE_SECONDS = 0.3
TASK = "task runner"
"""Part of the title of a process that runs a task."""


def describe() -> dict[str, Any]:
    """Machine and versions, without host names and paths."""
    packages = (
        "apache-airflow-core",
        "apache-airflow-task-sdk",
        "cassandra-driver",
        "confluent-kafka",
        "elasticsearch",
    )
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


class Meter:
    """CPU seconds of every part between entry and exit, and the peak memory of the scheduler's task processes.

    `rest_of_machine` is the CPU of all other processes, this one included: it shows how quiet the machine was.
    """

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._pids = {name: server.pid for name, server in servers.items() if server.pid}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before: dict[str, float] = {}
        self._busy = 0.0
        self.cpu: dict[str, float] = {}
        self.rest_of_machine = 0.0
        self.peak_task_mb = 0.0
        self.peak_any_mb = 0.0

    def __enter__(self) -> Self:
        """Start measuring."""
        self._before = {name: _tree_cpu(pid) for name, pid in self._pids.items()}
        self._busy = _machine_cpu()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop measuring and compute the figures."""
        self._end.set()
        self._thread.join()
        self.cpu = {name: round(_tree_cpu(pid) - self._before[name], 2) for name, pid in self._pids.items()}
        self.rest_of_machine = round(_machine_cpu() - self._busy - sum(self.cpu.values()), 2)

    def _watch(self) -> None:
        scheduler = self._pids.get("scheduler")
        while scheduler and not self._end.wait(SAMPLE_SECONDS):
            with suppress(psutil.Error):
                for child in psutil.Process(scheduler).children(recursive=True):
                    self._note(child)

    def _note(self, process: psutil.Process) -> None:
        with suppress(psutil.Error, OSError, StopIteration, ValueError):
            title = " ".join(process.cmdline())
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
            self.peak_any_mb = max(self.peak_any_mb, peak)
            if TASK in title:
                self.peak_task_mb = max(self.peak_task_mb, peak)


def _tree_cpu(pid: int) -> float:
    """CPU of a process, its descendants, and its reaped children."""
    total = 0.0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
    return total


def _machine_cpu() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)
