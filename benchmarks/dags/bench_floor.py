"""### The floor: Airflow's time for a run of the job's shape whose tasks do no work.

`pull`, three mapped stages, `settle`, and a skipped `verdict`; started by a watcher. The last stage writes an empty
file, so that the benchmark notices its end as early as the job's.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task, task_group
from airflow.sdk.exceptions import DownstreamTasksSkipped

from benchmarks import FOLDER, SIGNAL
from benchmarks.floor_trigger import SignalTrigger

SIGNALS = Asset(
    name="bench.floor",
    uri="x-bench://floor",
    watchers=[
        AssetWatcher(
            name="bench_floor",
            trigger=SignalTrigger(),  # type: ignore[no-untyped-call]  # Airflow's constructor has no types
        )
    ],
)

with DAG(
    dag_id="bench_floor",
    doc_md=__doc__,
    schedule=[SIGNALS],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=16,
    tags=["benchmark"],
    default_args={"owner": "platform"},
) as dag:

    @task
    def pull() -> list[dict[str, Any]]:
        """As many items as the signal asks for."""
        signal = json.loads((Path(os.environ[FOLDER]) / SIGNAL).read_text())
        return [{"run": signal["run"], "item": n} for n in range(signal["instances"])]

    @task
    def lookup(work: dict[str, Any]) -> dict[str, Any]:
        """Return the work unchanged."""
        return work

    @task
    def update(work: dict[str, Any]) -> dict[str, Any]:
        """Return the work unchanged."""
        return work

    @task
    def reindex(work: dict[str, Any]) -> dict[str, Any]:
        """Write the mark."""
        (Path(os.environ[FOLDER]) / work["run"] / str(work["item"])).touch()
        return work

    @task_group
    def transfer(work: Any) -> Any:
        """The three stages."""
        for stage in (lookup, update, reindex):
            work = stage(work=work)
        return work

    @task(trigger_rule="all_done")
    def settle() -> None:
        """Skip the verdict."""
        raise DownstreamTasksSkipped(tasks=["verdict"])

    @task
    def verdict() -> None:
        """Never runs."""

    pulled: Any = pull()  # Any: a task's output takes the place of its value
    settled = settle()
    transfer.expand(work=pulled) >> settled >> verdict()
