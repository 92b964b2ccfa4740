"""An operator's actions on runs in Airflow's UI, through its REST API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from chaos.retrying import retried
from local.servers.airflow import DAG_ID, api
from local.stack import Stack

ALL_RUNS = f"/dags/{DAG_ID}/dagRuns/~/taskInstances"


class AirflowUi:
    """A session of an operator who is logged in."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @classmethod
    @contextmanager
    def at(cls, stack: Stack) -> Iterator[Self]:
        """Log in."""
        a = stack.addresses
        with api(a.airflow, a.airflow_password) as http:
            yield cls(http)

    def is_running(self, stage: str) -> bool:
        """True if a task of the stage runs in any run."""
        return any(t["task_id"].endswith(stage) for t in self._tasks())

    def hosts(self) -> set[str]:
        """Where tasks run."""
        return {t["hostname"] for t in self._tasks()}

    def runs(self) -> int:
        """How many runs are not over."""
        states = {"state": ["queued", "running"]}
        return int(self._get(f"/dags/{DAG_ID}/dagRuns", states)["total_entries"])

    def seconds_of_runs(self, since: datetime) -> list[float]:
        """How long each run took that has ended since then."""
        asked: dict[str, str | int] = {"end_date_gte": since.isoformat(), "limit": 100}
        runs = self._get(f"/dags/{DAG_ID}/dagRuns", asked)["dag_runs"]
        # Airflow counts runs among them that have not ended.
        times = [(r["start_date"], r["end_date"]) for r in runs if r["start_date"] and r["end_date"]]
        return [
            (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
            for start, end in times
        ]

    def _tasks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get(ALL_RUNS, {"state": "running"})["task_instances"]
        return found

    def start_runs(self, count: int) -> None:
        """Start runs by hand that bring no work of their own."""
        for _ in range(count):
            self._http.post(f"/dags/{DAG_ID}/dagRuns", json={"logical_date": None}).raise_for_status()

    def clear_runs(self) -> int:
        """Clear every running run. Returns how many."""
        return retried(lambda: self._each("POST", "/clear", {"dry_run": False}))

    def fail_runs(self) -> int:
        """Mark every running run as failed, so that none of its tasks is retried. Returns how many."""
        return retried(lambda: self._each("PATCH", "", {"state": "failed"}))

    def _each(self, method: str, path: str, body: dict[str, Any]) -> int:
        runs = self._running()
        for run in runs:
            self._http.request(method, f"{_at(run)}{path}", json=body).raise_for_status()
        return len(runs)

    def _running(self) -> list[str]:
        found = self._get(f"/dags/{DAG_ID}/dagRuns", {"state": "running"})
        return [run["dag_run_id"] for run in found["dag_runs"]]

    def _get(self, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Raises httpx.HTTPError, also for the page with which HAProxy answers while no API server does."""
        found: dict[str, Any] = self._http.get(path, params=params).raise_for_status().json()
        return found


def _at(run_id: str) -> str:
    return f"/dags/{DAG_ID}/dagRuns/{quote(run_id, safe='')}"
