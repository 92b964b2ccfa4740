"""`python -m benchmarks.scale RESULT.json …`: what the job costs by part, and the machines that a load needs.

The model is small. Each part spends CPU seconds for each run, each event and each batch. They are fitted to the
measured workloads, and each measurement is shown beside what the model says of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from benchmarks import report
from benchmarks.workloads import LANES, WORKLOADS

PARTS = {
    "Airflow and tasks": ("scheduler", "api-server", "dag-processor", "triggerer"),
    "Cassandra": ("cassandra",),
    "search": ("elasticsearch",),
    "PostgreSQL": ("postgres",),
    "Kafka": ("kafka",),
    "User-Org and LMS (stand-ins)": ("userorg", "lms"),
}
"""Parts of the model, by the servers whose CPU a result has."""
ROUNDS = 5_000
"""Of the fit; it converges in a few hundred."""
UNLIKE = frozenset({"tangle"})
"""Workloads that the model leaves out: one lane of many phases."""
GRACE_S = 1.0
"""`grace.ms`: a run does not claim a younger event."""
RATES = (10, 100, 1_000)
BATCHES = (2, 12)
"""Batches of an event for which sizes are printed."""


class Counts(NamedTuple):
    """What a measurement carried out."""

    runs: float
    instances: float
    """Mapped instances of the runs: of lookup, update and reindex each."""
    events: float
    batches: float


@dataclass(frozen=True)
class Measurement:
    """One measured workload."""

    title: str
    counts: Counts
    cpu: Mapping[str, float]
    """CPU seconds by part."""
    seconds: float
    cores: int
    closed: bool = True
    """False for a stream: its seconds are set by its sender."""


class Cost(NamedTuple):
    """CPU seconds of one part."""

    run: float
    instance: float
    event: float
    batch: float

    def of(self, counts: Counts) -> float:
        """CPU seconds for a workload."""
        return sum(each * n for each, n in zip(self, counts, strict=True))


@dataclass(frozen=True)
class Model:
    """Costs by part, and the time of one event that is alone: the grace, and Airflow's steps one after the other."""

    costs: Mapping[str, Cost]
    alone_s: float

    def cpu(self, counts: Counts) -> float:
        """CPU seconds of all parts."""
        return sum(cost.of(counts) for cost in self.costs.values())

    def seconds(self, counts: Counts, cores: int) -> float:
        """Time of a workload: that of one event alone, and what else it costs, spread over the cores."""
        return self.alone_s + (self.cpu(counts) - self.cpu(Counts(1, 1, 1, 1))) / cores

    def busy(self, rate: float, batches: float) -> float:
        """Cores that events of `batches` batches each keep busy at `rate` events a second, without Airflow's runs."""
        return self.cpu(Counts(0, 0, rate, rate * batches))

    def cycle_s(self, rate: float, batches: float, cores: int) -> float | None:
        """Time of a run when runs follow one another, each with what came meanwhile; None if they cannot keep up."""
        free = 1 - self.busy(rate, batches) / cores
        return self.alone_s / free if free > 0 else None


def fitted(counts: Sequence[Counts], costs: Sequence[float]) -> Cost:
    """The costs, none below zero, with the least sum of squared relative errors."""
    weights = [1 / max(c, 0.05) for c in costs]  # below 50 ms a measurement is noise
    columns = [
        [w * row[j] for w, row in zip(weights, counts, strict=True)] for j in range(len(Counts._fields))
    ]
    left = [w * c for w, c in zip(weights, costs, strict=True)]
    found = [0.0] * len(columns)
    for _ in range(ROUNDS):
        for j, column in enumerate(columns):
            norm = sum(a * a for a in column)
            step = sum(a * r for a, r in zip(column, left, strict=True)) / norm
            new = max(0.0, found[j] + step)
            left = [r - a * (new - found[j]) for a, r in zip(column, left, strict=True)]
            found[j] = new
    return Cost(*found)


def model(measured: Sequence[Measurement]) -> Model:
    """The model that fits best.

    :raises ValueError: if no measurement is of a single event, whose time is the model's floor.
    """
    alone = [m.seconds for m in measured if m.closed and m.counts.events == 1 and m.counts.batches < 100]
    if not alone:
        raise ValueError(
            "no measurement of one event: give a result that has it (make bench ARGS='--only event')"
        )
    counts = [m.counts for m in measured]
    return Model({part: fitted(counts, [m.cpu[part] for m in measured]) for part in PARTS}, median(alone))


def read(files: Iterable[Path]) -> list[Measurement]:
    """The measurements of results, a workload once: of the last file that has it."""
    found: dict[str, Measurement] = {}
    for file in files:
        result = json.loads(file.read_text())
        cores = result["machine"]["cores"]
        for measured in result["results"]:
            found[measured["name"]] = _workload(measured, cores)
        if stream := result["circumstances"].get("stream"):
            found["stream"] = _stream(stream, cores)
    return [m for name, m in found.items() if name not in UNLIKE]


def _workload(measured: Mapping[str, Any], cores: int) -> Measurement:
    samples = measured["samples"]
    workload = next(w for w in (*WORKLOADS, *LANES) if w.name == measured["name"])
    counts = Counts(
        median(s["timeline"]["runs"] for s in samples),
        median(s["timeline"]["instances"] for s in samples),
        workload.tangled or workload.owners * workload.events,
        workload.rows,
    )
    cpu = {
        part: median(sum(s["cpu"].get(server, 0) for server in servers) for s in samples)
        for part, servers in PARTS.items()
    }
    return Measurement(measured["title"], counts, cpu, measured["ours_s"], cores)


def _stream(stream: Mapping[str, Any], cores: int) -> Measurement:
    events = stream["events"]
    cpu = {part: sum(stream["cpu"].get(s, 0) for s in servers) for part, servers in PARTS.items()}
    counts = Counts(stream["runs"], 2 * stream["runs"], events, events * stream["batches_each"])
    title = f"{stream['events_a_second']:g} events a second × {stream['batches_each']} batches"
    return Measurement(title, counts, cpu, stream["minutes"] * 60, cores, closed=False)


def _costs_table(found: Model) -> Table:
    table = Table(
        "CPU", "a run, s", "an instance, s", "an event, ms", "a batch, ms", title="What the job costs"
    )
    for part, cost in found.costs.items():
        table.add_row(
            part,
            f"{cost.run:.2f}",
            f"{cost.instance:.2f}",
            f"{cost.event * 1000:.2f}",
            f"{cost.batch * 1000:.3f}",
        )
    return table


def _check_table(found: Model, measured: Sequence[Measurement]) -> Table:
    table = Table(
        "workload", "CPU, s", "model", "seconds", "model", title="The model beside what was measured"
    )
    for m in measured:
        row = [m.title, f"{sum(m.cpu.values()):.1f}", f"{found.cpu(m.counts):.1f}", f"{m.seconds:.1f}"]
        table.add_row(*row, f"{found.seconds(m.counts, m.cores):.1f}" if m.closed else "–")
    return table


def _sizes_table(found: Model) -> Table:
    """Cores by part for some rates; Airflow's runs follow one another without a pause."""
    table = Table("events a second × batches", *PARTS, "in all", title="Cores that are busy")
    for rate in RATES:
        for batches in BATCHES:
            counts = Counts(1 / found.alone_s, 2 / found.alone_s, rate, rate * batches)
            cores = {part: cost.of(counts) for part, cost in found.costs.items()}
            cells = [f"{c:.1f}" for c in (*cores.values(), sum(cores.values()))]
            table.add_row(f"{rate:,} × {batches}", *cells)
    return table


def _waits_table(found: Model) -> Table:
    table = Table(
        "cores", *(f"{b} batches each" for b in BATCHES), title="Most events a second, oldest within 10 s"
    )
    for cores in (2, 4, 8, 16, 32):
        table.add_row(str(cores), *(f"{most_events(found, b, cores):.0f}" for b in BATCHES))
    return table


def most_events(found: Model, batches: float, cores: int, within_s: float = 10.0) -> float:
    """Events a second of which none waits longer: one comes as a run has pulled, and ends with the next."""
    cycle_s = (within_s - GRACE_S) / 2
    return max(0.0, (1 - found.alone_s / cycle_s) * cores / found.busy(1, batches))


def main(arguments: list[str] | None = None) -> None:
    """Print the model, its check and the sizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="files of benchmarks/results")
    measured = read(parser.parse_args(arguments).results)
    found = model(measured)
    terminal = report.console()
    for table in (
        _costs_table(found),
        _check_table(found, measured),
        _sizes_table(found),
        _waits_table(found),
    ):
        terminal.print(table)


if __name__ == "__main__":
    main()
