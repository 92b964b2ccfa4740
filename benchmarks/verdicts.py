"""The bound of each workload: most are relative to the floors of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.workloads import Measured

MAX_OWNER_SECONDS = 9.0
MAX_FLOOD_SECONDS = 16.0
MAX_PEAK_MB = 350.0
MAX_WHALE_RATIO = 1.2


@dataclass(frozen=True)
class Verdict:
    """A bound and whether it was met; None if it cannot be judged in this run."""

    bound: str
    limit_s: float | None
    hit: bool | None


@dataclass(frozen=True)
class Figures:
    """Medians of one workload."""

    ours: float
    spread: tuple[float, float]
    stores: float
    airflow: float

    @property
    def floor(self) -> float:
        """Both floors together: the time of a run that does the writes and nothing else."""
        return self.stores + self.airflow

    @property
    def ratio(self) -> float:
        """The job's time relative to both floors together."""
        return self.ours / self.floor

    @classmethod
    def of(cls, measured: Measured) -> Figures:
        """The medians of what was measured."""
        seconds = [s.seconds for s in measured.samples]
        return cls(
            median(seconds),
            (min(seconds), max(seconds)),
            median(measured.stores),
            median(measured.airflow),
        )


def judge(measured: Measured, others: Mapping[str, Measured]) -> Verdict:
    """The verdict on one workload. The bounds of "request" and "whale" depend on another workload of the same run."""
    f = Figures.of(measured)
    by_floors = f.airflow + 2.5 * f.stores
    bounds: dict[str, tuple[float, str]] = {
        "event": (1.3 * f.airflow + 1, "1.3 × Airflow + 1 s"),
        "owner": (by_floors, "Airflow + 2.5 × stores"),
        "burst": (by_floors, "Airflow + 2.5 × stores"),
        "flood": (MAX_FLOOD_SECONDS, "16 s"),
    }
    if f.floor <= MAX_OWNER_SECONDS:
        bounds["owner"] = (min(by_floors, MAX_OWNER_SECONDS), "Airflow + 2.5 × stores, and 9 s")
    if "event" in others:
        bounds["request"] = (Figures.of(others["event"]).ours + 2, "the single event + 2 s")
    name = measured.workload.name
    if name == "whale":
        return _whale(measured, f, others)
    if name not in bounds:
        needs_another = name == "request"
        return Verdict("– (needs another workload of the same run)" if needs_another else "–", None, None)
    return _within(f, *bounds[name])


def _within(figures: Figures, limit: float, bound: str) -> Verdict:
    return Verdict(bound, limit, figures.ours <= limit)


def _whale(measured: Measured, figures: Figures, others: Mapping[str, Measured]) -> Verdict:
    bound = "1.2 × time per batch of 5,000, and 350 MB"
    if "owner" not in others:
        return Verdict(bound, None, None)
    small = others["owner"]
    limit = MAX_WHALE_RATIO * Figures.of(small).ours / small.workload.rows * measured.workload.rows
    peak = max(s.peak_task_mb for s in measured.samples)
    return Verdict(bound, limit, figures.ours <= limit and peak <= MAX_PEAK_MB)
