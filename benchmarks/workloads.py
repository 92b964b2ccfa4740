"""The workloads and their measurement: from the produce call to the last batch under its new owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks import floors
from benchmarks.machine import Meter
from local.platform.schema import BATCH_INDEX
from local.platform.world import Batch, Platform, User
from local.servers.airflow import DAG_ID, api
from local.stack import Stack

ORGANISATION = "org-bench"
BATCHES_A_COURSE = 10
WARM_UPS = 3
"""Rounds before the first measurement; they reduce the time of the bare writes to a third."""
_COMBINED: Mapping[str, Callable[[Iterable[float]], float]] = {"begins": min, "ends": max, "summed": sum}
"""How the times of many tasks are combined, by the last word of their label."""
STAGES = ("lookup_users", "update_course_batches", "reindex_course_batches")


@dataclass(frozen=True)
class Workload:
    """One line of the table."""

    name: str
    title: str
    owners: int
    batches: int
    """Batches of each owner."""
    events: int = 1
    """Events of each owner: one for each asset of a request."""
    flink: tuple[float, float] | None = None
    """Seconds of the Flink job: stores on the same machine, stores 1 ms away; `docs/performance.md` has the conditions."""
    large: bool = False
    timeout_s: float = 120

    @property
    def group(self) -> str:
        """Name under which it is chosen, with others that differ in a number behind a dash."""
        return self.name.partition("-")[0]

    @property
    def rows(self) -> int:
        """Batches of all owners."""
        return self.owners * self.batches


WORKLOADS = (
    Workload("event", "one event, 6 batches", 1, 6, flink=(0.15, 0.27)),
    Workload("owner", "one owner, 5,000 batches", 1, 5_000, flink=(8.9, 24)),
    Workload("burst", "200 owners × 12 batches at once", 200, 12, flink=(9.8, 16)),
    Workload("request", "one request, 500 assets, 12 batches", 1, 12, events=500),
    Workload("flood", "2,000 owners × 12 batches", 2_000, 12, timeout_s=200),
    Workload("whale", "one owner, 100,000 batches", 1, 100_000, large=True, timeout_s=1_200),
)
LANES = tuple(
    Workload(f"lanes-{n}", f"{n} unrelated events, 12 batches each", n, 12) for n in (1, 2, 4, 8, 16)
)
"""What an instance of each stage per lane costs: measure with `max_mapped` 1, with 1024, and without."""


@dataclass
class Sample:
    """One measurement."""

    seconds: float
    quiet_s: float
    """Seconds until no run was active."""
    peak_task_mb: float
    cpu: dict[str, float]
    rest_of_machine_cpu: float
    timeline: dict[str, float]
    """Seconds from the produce call to the start and end of the runs' steps."""
    instances: int
    """Largest number of mapped instances of a stage in one run."""


@dataclass
class Measured:
    """The measurements of a workload and of its floors."""

    workload: Workload
    samples: list[Sample] = field(default_factory=list)
    stores: list[float] = field(default_factory=list)
    airflow: list[float] = field(default_factory=list)
    airflow_cpu: list[dict[str, float]] = field(default_factory=list)


class Bench:
    """A running stack with the floor's DAG beside the job's."""

    def __init__(self, stack: Stack, platform: Platform, floor_folder: Path) -> None:
        self.stack = stack
        self.platform = platform
        self.floor_folder = floor_folder
        known = stack.addresses
        self.http = api(known.airflow, known.airflow_password)

    def warm_up(self) -> None:
        """Run events and bare writes first, so that cold servers and first calls are not measured."""
        if not any(floors.airflow(self.floor_folder, 1) for _ in range(5)):
            raise RuntimeError(
                "the floor's DAG does not start; see the logs of the dag-processor and triggerer"
            )
        for _ in range(WARM_UPS):
            self.sample(Workload("warm-up", "", 20, 100))
            self.stores_floor(Workload("warm-up", "", 20, 100))

    def measure(self, workload: Workload, runs: int, report: Callable[[str], None]) -> Measured:
        """Measure `runs` runs of a workload, each followed by its floors."""
        measured = Measured(workload)
        for n in range(runs):
            report(f"{workload.title}: run {n + 1} of {runs}")
            sample = self.sample(workload)
            measured.samples.append(sample)
            measured.stores.append(self.stores_floor(workload))
            seconds, cpu = self.airflow_floor(sample.instances)
            measured.airflow.append(seconds)
            measured.airflow_cpu.append(cpu)
        return measured

    def stores_floor(self, workload: Workload) -> float:
        """Seconds of bare clients for the same number of rows and documents."""
        batches, pairs = self._make(workload, f"f{uuid4().hex[:6]}")
        self.platform.add_batches(batches)
        return floors.stores(self.platform, batches, pairs)

    def runs_so_far(self) -> int:
        """Number of the job's runs."""
        return int(self._get(f"/dags/{DAG_ID}/dagRuns", limit=1)["total_entries"])

    def airflow_floor(self, instances: int) -> tuple[float, dict[str, float]]:
        """Seconds and CPU of the same number of mapped instances without work."""
        self.wait_quiet()
        with Meter(self.stack.servers) as meter:
            seconds = floors.airflow(self.floor_folder, instances)
            self.wait_quiet()
        if seconds is None:
            raise RuntimeError("the floor's DAG was not started")
        return seconds, meter.cpu

    def sample(self, workload: Workload) -> Sample:
        """Measure once. Raises TimeoutError, and RuntimeError when the stores disagree at the end."""
        tag = f"j{uuid4().hex[:6]}"
        batches, pairs = self._make(workload, tag)
        users = [User(u, ORGANISATION) for pair in pairs.items() for u in pair]
        self.platform.add_users(users)
        self.platform.add_batches(batches)
        events = [
            self.platform.event(old, new, ORGANISATION, request_id=tag, asset={"identifier": f"do_{n}"})
            for old, new in pairs.items()
            for n in range(workload.events)
        ]
        self.wait_quiet()
        with Meter(self.stack.servers) as meter:
            at = time.time()
            begun = time.monotonic()
            self.platform.emit_all(events)
            self._await_documents(f"new-{tag}-", workload, begun)
            seconds = time.monotonic() - begun
            self.wait_quiet()
            quiet = time.monotonic() - begun
        self._check(workload, batches, pairs)
        timeline = self._timeline(at)
        return Sample(
            round(seconds, 3),
            round(quiet, 3),
            round(meter.peak_task_mb or meter.peak_any_mb, 1),
            meter.cpu,
            meter.rest_of_machine,
            timeline,
            int(timeline["instances"]),
        )

    def wait_quiet(self, *, timeout_s: float = 600) -> None:
        """Return when no run is active."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answers = [
                self.http.get(f"/dags/{dag}/dagRuns", params={"state": ["running", "queued"], "limit": 1})
                for dag in (DAG_ID, "bench_floor")
            ]
            if all(a.status_code == 200 and a.json()["total_entries"] == 0 for a in answers):
                return
            time.sleep(0.3)
        raise TimeoutError(f"runs are still active after {timeout_s:.0f} s")

    def _make(self, workload: Workload, tag: str) -> tuple[list[Batch], dict[str, str]]:
        pairs = {f"old-{tag}-{n}": f"new-{tag}-{n}" for n in range(workload.owners)}
        batches = [
            Batch(f"do_{tag}_{o}_{n // BATCHES_A_COURSE}", f"{tag}-{o}-{n}", created_by=old)
            for o, old in enumerate(pairs)
            for n in range(workload.batches)
        ]
        return batches, pairs

    def _await_documents(self, prefix: str, workload: Workload, begun: float) -> None:
        """Return when a search finds every document under a new owner; the job writes rows before documents."""
        query = {"prefix": {"createdBy.raw": prefix}}
        pause = 0.05 if workload.rows < 1_000 else 0.2
        while (found := self.platform.search.count(index=BATCH_INDEX, query=query)["count"]) < workload.rows:
            if time.monotonic() - begun > workload.timeout_s:
                raise TimeoutError(f"{found} of {workload.rows} batches moved in {workload.timeout_s:.0f} s")
            time.sleep(pause)

    def _check(self, workload: Workload, batches: Sequence[Batch], pairs: dict[str, str]) -> None:
        """Check rows by partition, at most a few thousand, after the measured time."""
        owners = set(pairs.values())
        step = max(1, len(batches) // 2_000)
        for course in sorted({b.course_id for b in batches[::step]}):
            for row in self.platform.rows(course):
                if row["createdby"] not in owners:
                    raise RuntimeError(f"{workload.name}: a row was not moved although its document was")

    def _timeline(self, at: float) -> dict[str, float]:
        since = datetime.fromtimestamp(at - 1, UTC).isoformat()
        runs = self._get(f"/dags/{DAG_ID}/dagRuns", start_date_gte=since, limit=20)["dag_runs"]
        found: dict[str, list[float]] = {"run begins": [], "pull begins": [], "pull ends": []}
        instances = [0]
        for run in runs:
            tasks = self._get(f"/dags/{DAG_ID}/dagRuns/{run['dag_run_id']}/taskInstances", limit=200)
            done = [t for t in tasks["task_instances"] if t["state"] == "success" and t["start_date"]]
            mapped = sum(t["task_id"].endswith(STAGES[0]) for t in done)
            if not mapped:
                continue
            instances.append(mapped)
            found["run begins"].append(_epoch(run["start_date"]) - at)
            for t in done:
                name = t["task_id"].rpartition(".")[2]
                label = "pull" if name.startswith("pull") else name.partition("_")[0]
                found.setdefault(f"{label} begins", []).append(_epoch(t["start_date"]) - at)
                found.setdefault(f"{label} ends", []).append(_epoch(t["end_date"]) - at)
                found.setdefault(f"{label} seconds, summed", []).append(t["duration"] or 0.0)
        line: dict[str, float] = {"runs": len(found["run begins"]), "instances": max(instances)}
        for label, values in found.items():
            if values:
                line[label] = round(_COMBINED[label.split()[-1]](values), 2)
        return line

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        answer = self.http.get(path, params=params)
        answer.raise_for_status()
        return dict(answer.json())


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextmanager
def opened(stack: Stack, floor_folder: Path) -> Iterator[Bench]:
    """A bench on a running stack; its clients are closed at the end."""
    known = stack.addresses
    with Platform(
        cassandra=known.cassandra,
        elasticsearch=known.elasticsearch,
        kafka=known.kafka,
        env=str(stack.settings["env"]),
    ) as platform:
        bench = Bench(stack, platform, floor_folder)
        with bench.http:
            yield bench
