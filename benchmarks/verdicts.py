"""What each workload must reach: seconds, or a time relative to the floors of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.bench import Measured

SECONDS: Mapping[str, float] = {"flood": 16, "whale": 30, "tangle": 12}
TIMES_THE_FLOORS: Mapping[str, float] = {"owner": 1.45, "burst": 1.7}
OVER_AIRFLOW_S = 0.3
"""Of the single event."""
OVER_THE_EVENT_S = 0.7
"""Of the request."""
MAX_PEAK_MB = 250
"""Of a task process of the largest workload."""
MAX_AWAY_RATIO = 1.1
"""With both stores behind the relay, relative to the same without it."""


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
    peak_mb: float
    """The largest of any task process, not a median."""
    away: float | None
    """With both stores behind the relay; None if it was not measured."""

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
            max(s.peak_task_mb for s in measured.samples),
            median(s.seconds for s in measured.away) if measured.away else None,
        )


def judge(measured: Measured, others: Mapping[str, Measured]) -> Verdict:
    """The verdict on one workload. The bound of "request" depends on "event" in the same run."""
    f = Figures.of(measured)
    name = measured.workload.name
    bounds: dict[str, tuple[float, str]] = {
        "event": (f.airflow + OVER_AIRFLOW_S, f"Airflow + {OVER_AIRFLOW_S:g} s"),
        **{n: (t * f.floor, f"{t:g} × (Airflow + stores)") for n, t in TIMES_THE_FLOORS.items()},
        **{n: (s, f"{s:g} s") for n, s in SECONDS.items()},
    }
    if "event" in others:
        limit_s = Figures.of(others["event"]).ours + OVER_THE_EVENT_S
        bounds["request"] = (limit_s, f"the single event + {OVER_THE_EVENT_S:g} s")
    if name not in bounds:
        needs_another = name == "request"
        return Verdict("– (needs another workload of the same run)" if needs_another else "–", None, None)
    limit, bound = bounds[name]
    if name == "whale":
        hit = f.ours <= limit and f.peak_mb <= MAX_PEAK_MB
        return Verdict(f"{bound}, and {MAX_PEAK_MB} MB", limit, hit)
    return Verdict(bound, limit, f.ours <= limit)


def judge_away(measured: Measured) -> Verdict:
    """The verdict on the time with both stores behind the relay. It must have been measured."""
    f = Figures.of(measured)
    limit = MAX_AWAY_RATIO * f.ours
    return Verdict(f"{MAX_AWAY_RATIO:g} × without", limit, f.away is not None and f.away <= limit)
