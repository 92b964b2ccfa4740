"""The measurement of a workload: from the produce call to the last batch under its new owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from more_itertools import chunked

from benchmarks import floors
from benchmarks.machine import Meter
from benchmarks.relay import Relay
from benchmarks.waiting import Waiting
from benchmarks.workloads import Load, Workload
from local.demo.outcome import events_of, wrong_owners
from local.demo.story import COMPLETED
from local.platform.schema import BATCH_INDEX
from local.platform.stores import both_stores
from local.platform.world import Platform
from local.servers.airflow import DAG_ID, api
from local.stack import Stack

WARM_UPS = 8
"""Rounds before the first measurement. After 12,000 batches the servers still grow faster: of twelve runs of 5,000 the
first four took 5.6 to 6.3 s, the others 4.5 (`results/20261129T0935Z-owner-12-runs.json`)."""
_WARM_UP = Workload("warm-up", "", 50, 100)
BATCHES_A_CHECK = 10_000
_COMBINED: Mapping[str, Callable[[Iterable[float]], float]] = {"begins": min, "ends": max, "summed": sum}
"""How the times of many tasks are combined, by the last word of their label."""
STAGES = ("lookup_users", "update_course_batches", "reindex_course_batches")


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
    away: list[Sample] = field(default_factory=list)
    """The same with both stores behind the relay, each measured after one without it."""
    stores: list[float] = field(default_factory=list)
    airflow: list[float] = field(default_factory=list)
    airflow_cpu: list[dict[str, float]] = field(default_factory=list)


class Bench:
    """A running stack with the floor's DAG beside the job's."""

    def __init__(
        self, stack: Stack, platform: Platform, floor_folder: Path, relay: Relay | None = None
    ) -> None:
        """With a `relay`, each workload is also measured with both stores behind it."""
        self.stack = stack
        self.platform = platform
        self.floor_folder = floor_folder
        self.relay = relay
        known = stack.addresses
        self.http = api(known.airflow, known.airflow_password)

    def warm_up(self) -> None:
        """Run events and bare writes first, so that cold servers and first calls are not measured."""
        if not any(floors.airflow(self.floor_folder, 1) for _ in range(5)):
            raise RuntimeError(
                "the floor's DAG does not start; see the logs of the dag-processor and triggerer"
            )
        for _ in range(WARM_UPS):
            self.sample(_WARM_UP)
            self.stores_floor(_WARM_UP)

    def measure(self, workload: Workload, runs: int, report: Callable[[str], None]) -> Measured:
        """Measure `runs` runs of a workload, each followed by its floors."""
        measured = Measured(workload)
        for n in range(runs):
            report(f"{workload.title}: run {n + 1} of {runs}")
            sample = self.sample(workload)
            measured.samples.append(sample)
            if self.relay:
                with self.relay.between(self.stack):
                    measured.away.append(self.sample(workload))
            measured.stores.append(self.stores_floor(workload))
            seconds, cpu = self.airflow_floor(sample.instances)
            measured.airflow.append(seconds)
            measured.airflow_cpu.append(cpu)
        return measured

    def stores_floor(self, workload: Workload) -> float:
        """Seconds of bare clients for the same number of rows and documents."""
        load = workload.load(f"f{uuid4().hex[:6]}")
        self.platform.add_batches(load.batches)
        return floors.stores(self.platform, load.batches, load.owners)

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
        """Measure once. Raises TimeoutError, and RuntimeError when the stores are wrong at the end."""
        load = self.loaded(workload)
        self.wait_quiet()
        with self.waiting() as waiting, Meter(self.stack.servers) as meter:
            at = time.time()
            begun = time.monotonic()
            waiting.sent(self.platform.emit_all(load.events), timestamp=int(at * 1000))
            if workload.tangled:
                _await_final(waiting, workload, begun)
            else:
                self._await_documents(waiting, load, workload, begun)
            seconds = time.monotonic() - begun
            self.wait_quiet()
            quiet = time.monotonic() - begun
        self.check(load)
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

    def loaded(self, workload: Workload) -> Load:
        """A new load of the workload; its users and batches are in the stores."""
        load = workload.load(f"j{uuid4().hex[:6]}")
        self.platform.add_users(load.users)
        self.platform.add_batches(load.batches)
        return load

    def waiting(self) -> Waiting:
        """A view of the messages that wait."""
        return Waiting(self.stack.addresses.ledger, self.platform.input_topic)

    def check(self, load: Load) -> None:
        """Compare states, rows and documents with what is expected; to be called when no run is active.

        Raises RuntimeError.
        """
        events = events_of(self.stack.addresses.ledger, [str(e["mid"]) for e in load.events])
        wrong = [f"{mid} is {e.state}: {e.reason}" for mid, e in events.items() if e.state != COMPLETED]
        for batches in chunked(load.batches, BATCHES_A_CHECK):
            found = both_stores(self.platform, batches)
            owners = {b.batch_id: load.owners[b.batch_id] for b in batches}
            wrong += wrong_owners(found.row_owners, found.document_owners, owners)
        if wrong:
            raise RuntimeError(f"{len(wrong)} events or batches are not as expected: {'; '.join(wrong[:3])}")

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

    def _await_documents(self, waiting: Waiting, load: Load, workload: Workload, begun: float) -> None:
        """Return when a search finds every document under a new owner.

        The job writes rows before documents, so nothing is searched for before the ledger says that the rows are done:
        20 searches a second would take a tenth of a core from the tasks.
        """
        mids = [str(e["mid"]) for e in load.events]
        query = {"prefix": {"createdBy.raw": f"new-{load.tag}-"}}
        pause = 0.05 if workload.rows < 1_000 else 0.2
        while (left := waiting.unapplied(mids)) or (
            left := workload.rows - self.platform.search.count(index=BATCH_INDEX, query=query)["count"]
        ):
            if time.monotonic() - begun > workload.timeout_s:
                raise TimeoutError(f"{left} events or documents are left after {workload.timeout_s:.0f} s")
            time.sleep(pause)

    def _timeline(self, at: float) -> dict[str, float]:
        since = datetime.fromtimestamp(at - 1, UTC).isoformat()
        runs = self._get(f"/dags/{DAG_ID}/dagRuns", start_date_gte=since, limit=100)["dag_runs"]
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


def _await_final(waiting: Waiting, workload: Workload, begun: float) -> None:
    """Return when no message waits."""
    while (left := waiting.look().messages) > 0:
        if time.monotonic() - begun > workload.timeout_s:
            raise TimeoutError(f"{left} events are not final after {workload.timeout_s:.0f} s")
        time.sleep(0.05)


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextmanager
def opened(stack: Stack, floor_folder: Path, relay: Relay | None = None) -> Iterator[Bench]:
    """A bench on a running stack; its clients are closed at the end."""
    known = stack.addresses
    with Platform(
        cassandra=known.cassandra,
        elasticsearch=known.elasticsearch,
        kafka=known.kafka,
        env=str(stack.settings["env"]),
    ) as platform:
        bench = Bench(stack, platform, floor_folder, relay)
        with bench.http:
            yield bench
