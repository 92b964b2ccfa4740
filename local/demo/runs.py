"""Runs of the DAGs, through Airflow's REST API: start one by hand, await its end, read its summary."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import httpx

from local.servers import airflow
from local.servers.processes import NotReadyError, await_condition
from local.stack import Addresses

TIMEOUT_S: Final = 180.0
"""Longest wait for the end of a run that was started by hand; a warm laptop needs a few seconds."""
_ENDED: Final = ("success", "failed")


class RefusedError(RuntimeError):
    """Airflow refused a conf; the message is Airflow's."""


@dataclass(frozen=True)
class Run:
    """A run in Airflow."""

    dag_id: str
    run_id: str
    run_type: str
    state: str
    seconds: float | None
    url: str

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.state in _ENDED


@contextmanager
def opened_api(addresses: Addresses, dag_id: str = airflow.DAG_ID) -> Iterator[httpx.Client]:
    """Airflow's REST API at a DAG. Raises httpx.HTTPError when the login fails."""
    token = airflow.token(addresses.airflow, addresses.airflow_user, addresses.airflow_password)
    with httpx.Client(
        base_url=f"{addresses.airflow}/api/v2/dags/{dag_id}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as client:
        yield client


def run_url(addresses: Addresses, run_id: str, dag_id: str = airflow.DAG_ID) -> str:
    """The URL of a run in Airflow's UI."""
    return f"{addresses.airflow}/dags/{dag_id}/runs/{quote(run_id, safe=':')}"


def carried_out(
    addresses: Addresses,
    conf: Mapping[str, Any],
    *,
    dag_id: str = airflow.DAG_ID,
    timeout_s: float = TIMEOUT_S,
    poll_s: float = 0.5,
) -> tuple[Run, dict[str, Any]]:
    """Start a run with `conf` and await its end. Returns the run and the summary of its `settle` ({} if it has none).

    Raises RefusedError when Airflow refuses the conf; NotReadyError, with the run's URL, when the run has not ended
    after `timeout_s` seconds.
    """
    with opened_api(addresses, dag_id) as api:
        answer = api.post("/dagRuns", json={"logical_date": None, "conf": dict(conf)})
        if not answer.is_success:
            raise RefusedError(f"Airflow refused a run of {dag_id}: {answer.text}")
        run_id: str = answer.json()["dag_run_id"]
        await_condition(
            lambda: _run(api, addresses, run_id, dag_id).ended,
            timeout_s=timeout_s,
            what=f"the end of the run {run_url(addresses, run_id, dag_id)}",
            poll_s=poll_s,
        )
        return _run(api, addresses, run_id, dag_id), _summary(api, run_id)


def ended_runs(addresses: Addresses, run_ids: Collection[str], *, timeout_s: float = 60) -> list[Run]:
    """These runs of the main DAG in the order of their start, returned as soon as all have ended.

    After `timeout_s` seconds they are returned even if running: only the events decide the demo's result.
    """
    runs: list[Run] = []

    def ended() -> bool:
        runs[:] = [_run(client, addresses, run_id, airflow.DAG_ID) for run_id in run_ids]
        return all(run.ended for run in runs)

    with opened_api(addresses) as client:
        with suppress(NotReadyError):
            await_condition(ended, timeout_s=timeout_s, what="the runs to end", poll_s=0.5)
        order = client.get("/dagRuns", params={"order_by": "start_date", "limit": 100}).json()["dag_runs"]
    place = {run["dag_run_id"]: number for number, run in enumerate(order)}
    return sorted(runs, key=lambda run: place.get(run.run_id, len(place)))


def _run(client: httpx.Client, addresses: Addresses, run_id: str, dag_id: str) -> Run:
    answer = client.get(f"/dagRuns/{quote(run_id, safe='')}")
    answer.raise_for_status()
    known: dict[str, Any] = answer.json()
    begun, ended = (
        known[name] and datetime.fromisoformat(known[name]) for name in ("start_date", "end_date")
    )
    return Run(
        dag_id,
        run_id,
        known["run_type"],
        known["state"],
        (ended - begun).total_seconds() if begun and ended else None,
        run_url(addresses, run_id, dag_id),
    )


def _summary(client: httpx.Client, run_id: str) -> dict[str, Any]:
    answer = client.get(
        f"/dagRuns/{quote(run_id, safe='')}/taskInstances/settle/xcomEntries/return_value",
        params={"deserialize": True},
    )
    if answer.status_code == httpx.codes.NOT_FOUND:
        return {}
    answer.raise_for_status()
    return dict(answer.json()["value"] or {})
