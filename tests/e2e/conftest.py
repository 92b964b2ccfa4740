"""A real Airflow, and what a person does with it: trigger, watch, clear, backfill."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local.stack import Stack
from local.world import Batch, Platform

DAG = "user_ownership_transfer"
ORGANISATION = "org-e2e"
T = Any


def until(what: str, condition: Callable[[], T], *, seconds: float = 60, every: float = 0.25) -> T:
    """The first true value of `condition`, asked every `every` seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(every)


class Airflow:
    """Airflow's REST API and command line, for one DAG."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        a = stack.addresses
        login = {"username": a.airflow_user, "password": a.airflow_password}
        token = httpx.post(f"{a.airflow}/auth/token", json=login, timeout=30).json()["access_token"]
        self.http = httpx.Client(
            base_url=f"{a.airflow}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )

    def trigger(self, conf: dict[str, Any] | None = None) -> str:
        """A manual run. Returns its run id."""
        body = {"logical_date": None, "conf": conf or {}}
        answer = self.http.post(f"/dags/{DAG}/dagRuns", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["dag_run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as the API shows it."""
        return dict(self.http.get(f"/dags/{DAG}/dagRuns/{run_id}").json())

    def ended(self, run_id: str, *, seconds: float = 90) -> str:
        """The state that a run ends in."""

        def state() -> str | None:
            found = self.run(run_id)["state"]
            return found if found in ("success", "failed") else None

        return str(until(f"run {run_id}", state, seconds=seconds))

    def tasks(self, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
        """Task instances by (task id, map index)."""
        found = self.http.get(f"/dags/{DAG}/dagRuns/{run_id}/taskInstances", params={"limit": 500}).json()
        return {(t["task_id"], t["map_index"]): t for t in found["task_instances"]}

    def xcom(self, run_id: str, task: str, key: str = "return_value") -> Any:
        """A value that a task pushed."""
        url = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/{key}"
        answer = self.http.get(url, params={"deserialize": True})
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def log(self, run_id: str, task: str, *, map_index: int = -1, attempt: int = 1) -> str:
        """A task's log, as text."""
        url = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task}/logs/{attempt}"
        return self.http.get(url, params={"map_index": map_index, "full_content": True}).text

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """An `airflow …` command."""
        done = subprocess.run(
            ["airflow", *words],
            env=self.stack.airflow_env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


@dataclass
class Story:
    """The platform, with people and courses of one test's own."""

    platform: Platform
    name: str

    def user(self, letter: str, organisation: str = ORGANISATION) -> str:
        """A user that User-Org knows."""
        user_id = f"{letter}-{self.name}"
        self.platform.add_user(user_id, organisation)
        return user_id

    def batches(self, owner: str, count: int, prefix: str = "b") -> list[Batch]:
        """Live batches that `owner` created."""
        made = [
            Batch(f"{prefix}-course-{n}-{self.name}", f"{prefix}-{n}-{self.name}", created_by=owner)
            for n in range(count)
        ]
        self.platform.add_batches(made)
        return made

    def state(self, mid: str) -> str | None:
        """An event's state in the ledger."""
        row = self.platform.session.execute(
            "SELECT state FROM sunbird_courses.transfer_event WHERE mid = %s", (mid,)
        ).one()
        return row["state"] if row else None

    def completed(self, *mids: str, seconds: float = 90) -> None:
        """Wait until all of `mids` are completed."""
        until(
            f"{len(mids)} events completed",
            lambda: {self.state(m) for m in mids} == {"completed"},
            seconds=seconds,
        )

    def owners(self, batches: list[Batch]) -> set[tuple[Any, Any]]:
        """Creators of batches in (row, document)."""
        p = self.platform
        return {
            (p.row(b.course_id, b.batch_id)["createdby"], p.document(b.batch_id)["createdBy"])
            for b in batches
        }


@pytest.fixture(scope="session")
def airflow(airflow_stack: Stack) -> Iterator[Airflow]:
    """The running Airflow."""
    running = Airflow(airflow_stack)
    with running.http:
        yield running


@pytest.fixture
def story(airflow_stack: Stack) -> Iterator[Story]:
    """Users and batches that no other test has."""
    a = airflow_stack.addresses
    with Platform(cassandra=a.cassandra, elasticsearch=a.elasticsearch, kafka=a.kafka, env="dev") as platform:
        yield Story(platform, uuid4().hex[:8])
